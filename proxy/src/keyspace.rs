//! The hot objects: a sharded map on `dashmap`, whose shard locks are the key locks.
//!
//! A command locks the shards of all its keys at once, in rising order, so commands over several
//! keys cannot deadlock; transactions and flushes lock more of the same. Under a lock nothing is
//! awaited, and nothing is read from the store: what is missing in memory is reported as a miss,
//! read without the lock, and the command starts again. Only what locks everything (flushes, and
//! transactions with commands over all keys) reads the store under its locks.
//!
//! | module | room of |
//! |---|---|
//! | [`entry`] | a key with its object, and what of it the store lacks |
//! | [`locked`] | access to the objects under the shard locks |
//! | [`changing`] | changing them: effects of ops, other regions' states |
//! | [`load`] | bringing objects in from the store |
//! | `recent` | a sample of the keys committed lately |
//! | [`merging`] | having hooks merge values without holding locks |
//! | [`placed`] | conflicts with their places |
//! | `marks` | which elements the store lacks |
//! | [`commit`] | taking dirty rows out to the store |
//! | [`compare`] | digests of what keys show, mending what differs between regions |
//! | [`evict`] | the memory bound |
//! | [`reap`] | finding what only remembers, and letting it go |
//! | [`rows`] | all rows of the store in order, to give them to another region |
//! | [`walk`] | visiting all keys: scans, digests, flushes |

pub mod changing;
pub mod commit;
pub mod compare;
pub mod entry;
pub mod evict;
pub mod load;
pub mod locked;
mod marks;
pub mod merging;
pub mod placed;
pub mod reap;
mod recent;
pub mod rows;
pub mod walk;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::{DashMap, SharedValue};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::inbox::Gate;
use crate::policies::Policies;
use crate::store::Store;
use crate::store::row::key_hash;
use entry::Slot;
pub use locked::Locked;

/// Databases a client can `SELECT`.
pub const DATABASES: usize = 16;

/// A database and a key in it.
pub type PlacedKey = (u8, Box<[u8]>);

/// Shards of the map. Many, so that two commands seldom meet in one; a power of two.
const SHARDS: usize = 512;

/// A shard's table.
type Table = hashbrown::raw::RawTable<(Slot, SharedValue<()>)>;

/// A key in a database, with its hash.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    /// The database.
    pub database: u8,
    /// The key.
    pub key: &'a [u8],
    hash: u64,
}

impl<'a> KeyRef<'a> {
    /// `key` in `database`.
    pub fn new(database: u8, key: &'a [u8]) -> Self {
        Self { database, key, hash: key_hash(key) }
    }

    fn shard(&self) -> usize {
        shard_of(self.hash)
    }
}

fn shard_of(hash: u64) -> usize {
    // The table takes its bucket from the low bits and its tag from the top seven.
    (hash >> 40) as usize % SHARDS
}

/// Passes hashes through: entries know their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What belongs to a shard beside its objects.
#[derive(Debug, Default)]
struct ShardState {
    /// Hashes of entries that turned dirty since the last commit took them.
    dirty: Vec<u64>,
    /// Hashes of entries that the commit under way has taken: they may have no row yet.
    leaving: Vec<u64>,
    /// Rises whenever an entry leaves memory. An absence found in the store counts only if nothing
    /// has left meanwhile.
    departures: u64,
    /// The greatest log position at which an entry that has left had changed.
    departed: u64,
}

/// The hot objects of a region.
pub struct Keyspace {
    map: DashMap<Slot, (), BuildHasherDefault<PassThrough>>,
    shards: Vec<Mutex<ShardState>>,
    store: Arc<dyn Store>,
    /// Whether memory holds every object: then a key that is not here does not exist.
    complete: AtomicBool,
    /// Keys with something to show, by database; expired ones count until they are cleared.
    shown: [AtomicI64; DATABASES],
    bytes: AtomicI64,
    dirty: AtomicU64,
    /// Seconds, coarse; what eviction judges recency by.
    clock: AtomicU32,
    generations: AtomicU16,
    /// Says which conflicts are recorded; none is before it is there.
    gate: OnceLock<Arc<Gate>>,
    recent: Mutex<recent::Recent>,
    policies: Policies,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Somewhere at random, so that a cursor from before a restart is recognised as such.
fn first_generation() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness, such a cursor may pass once in a while; the scan then misses elements.
    let _ = getrandom::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

impl Keyspace {
    /// An empty keyspace over `store`. `complete` tells that the store is empty too.
    pub fn new(store: Arc<dyn Store>, complete: bool) -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            store,
            complete: AtomicBool::new(complete),
            shown: std::array::from_fn(|_| AtomicI64::new(0)),
            bytes: AtomicI64::new(0),
            dirty: AtomicU64::new(0),
            clock: AtomicU32::new(0),
            generations: AtomicU16::new(first_generation()),
            gate: OnceLock::new(),
            recent: Mutex::default(),
            policies: Policies::default(),
        }
    }

    /// The policies in force.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// From now on the values of conflicts are looked at, as far as `gate` lets them through. What is replayed at a
    /// start comes before: it was met in an earlier life.
    pub fn watch_conflicts(&self, gate: Arc<Gate>) {
        // Set once: a keyspace belongs to one region.
        let _ = self.gate.set(gate);
    }

    /// A number for a table of elements that is built anew; after 65,536 of them they come again.
    fn next_generation(&self) -> u16 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Locks the shards of `keys`.
    pub fn lock(&self, keys: &[KeyRef<'_>]) -> Locked<'_> {
        if let [only] = keys {
            return Locked::acquire(self, std::iter::once(only.shard()));
        }
        let mut shards: SmallVec<[usize; 4]> = keys.iter().map(KeyRef::shard).collect();
        shards.sort_unstable();
        shards.dedup();
        Locked::acquire(self, shards.iter().copied())
    }

    /// Locks everything.
    pub fn lock_all(&self) -> Locked<'_> {
        Locked::acquire(self, 0..SHARDS)
    }

    fn shard_state(&self, shard: usize) -> Option<&Mutex<ShardState>> {
        self.shards.get(shard)
    }

    /// Keys with something to show in `database`.
    pub fn len(&self, database: u8) -> u64 {
        let counted = self.shown.get(usize::from(database)).map_or(0, |n| n.load(Ordering::Relaxed));
        u64::try_from(counted).unwrap_or(0)
    }

    /// Whether `database` shows nothing.
    pub fn is_empty(&self, database: u8) -> bool {
        self.len(database) == 0
    }

    fn count_shown(&self, database: u8, by: i64) {
        if let Some(count) = self.shown.get(usize::from(database)) {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Bytes of the hot objects, as counted, and of what hooks have made of their values.
    pub fn memory_bytes(&self) -> u64 {
        let objects = u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0);
        objects.saturating_add(self.policies.copy_bytes() as u64)
    }

    /// Objects whose rows in the store are behind.
    pub fn dirty_objects(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed)
    }

    /// Sets the clock that recency is judged by, in seconds since the process started.
    pub fn set_clock(&self, seconds: u32) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    /// The clock of [`Keyspace::set_clock`].
    pub fn clock(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Whether memory holds every object.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }
}
