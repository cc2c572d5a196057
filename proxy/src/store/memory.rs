//! The store in memory, for tests: it can lose what was not synced, fail on demand and run full.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, RowRange, Store, StoreError, StoreFigures, Visit, row};

/// A store in memory. Clones share the rows, as two handles on one disk would.
#[derive(Clone, Default)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    /// Sealed values, as they would rest on disk.
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    /// How to take back each commit since the last sync, oldest first.
    unsynced: Vec<Undo>,
    /// Set by a failed commit or sync, cleared by a crash or reopening.
    failed: bool,
    commits_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    capacity_bytes: Option<usize>,
}

/// The rows that one commit changed, as they were before, in the order of the changes.
type Undo = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power: a suffix of the commits since the last sync, chosen by `seed`, is gone. Each batch is
    /// kept or lost as a whole. Ends a failure, as a restart does. Returns how many commits were lost.
    pub fn crash(&self, seed: u64) -> usize {
        let mut disk = self.disk.lock();
        let unsynced = disk.unsynced.len();
        let choices = u64::try_from(unsynced).unwrap_or(u64::MAX).saturating_add(1);
        let lost = usize::try_from(mix(seed) % choices).unwrap_or(unsynced);
        for _ in 0..lost {
            disk.take_back();
        }
        disk.unsynced.clear();
        disk.failed = false;
        lost
    }

    /// Ends a failure, as closing and opening the store does; commits are kept.
    pub fn reopen(&self) {
        self.disk.lock().failed = false;
    }

    /// Lets the `nth` commit from now fail (1 is the next), with nothing applied.
    pub fn fail_commit(&self, nth: u64) {
        self.disk.lock().commits_until_failure = Some(nth);
    }

    /// Lets the `nth` sync from now fail (1 is the next).
    pub fn fail_sync(&self, nth: u64) {
        self.disk.lock().syncs_until_failure = Some(nth);
    }

    /// Limits the bytes of all keys and values; a commit beyond it fails with [`StoreError::Full`].
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.disk.lock().capacity_bytes = bytes;
    }

    /// Flips one bit of the value that rests under `key`; false when there is none.
    pub fn flip_bit(&self, key: &[u8], bit: usize) -> bool {
        let mut disk = self.disk.lock();
        match disk.rows.get_mut(key).and_then(|value| value.get_mut(bit / 8)) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        }
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let disk = self.disk.lock();
        let Some(value) = disk.rows.get(key) else { return Ok(None) };
        let payload = row::open(value).map_err(|_| StoreError::Corrupt { key: key.to_vec() })?;
        Ok(Some(Bytes::copy_from_slice(payload)))
    }
}

impl Disk {
    fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
        let before = match value {
            Some(value) => {
                self.bytes += key.len() + value.len();
                self.rows.insert(key.to_vec(), value.to_vec())
            }
            None => self.rows.remove(key),
        };
        if let Some(before) = &before {
            self.bytes -= key.len() + before.len();
        }
        (key.to_vec(), before)
    }

    fn take_back(&mut self) {
        for (key, before) in self.unsynced.pop().into_iter().flatten().rev() {
            self.change(&key, before.as_deref());
        }
    }

    fn injected(countdown: &mut Option<u64>) -> bool {
        let Some(left) = countdown else { return false };
        *left = left.saturating_sub(1);
        let now = *left == 0;
        if now {
            *countdown = None;
        }
        now
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if row::is_possible(key) { self.read(key) } else { Ok(None) }
    }

    fn scan(&self, range: RowRange, limit: usize, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some((from, to)) = row::clamp(range) else { return Ok(()) };
        // Copied out, so that a visitor may use the store.
        let found: Vec<(Vec<u8>, Vec<u8>)> = {
            let disk = self.disk.lock();
            let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
                (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
            disk.rows.range::<[u8], _>(bounds).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        for (key, value) in found {
            let Ok(payload) = row::open(&value) else { return Err(StoreError::Corrupt { key }) };
            if visit(&key, payload).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        if disk.failed {
            return Err(StoreError::Failed);
        }
        if Disk::injected(&mut disk.commits_until_failure) {
            disk.failed = true;
            return Err(injected_error("commit"));
        }
        let undo: Undo = batch.changes().map(|(key, value)| disk.change(key, value)).collect();
        disk.unsynced.push(undo);
        if disk.capacity_bytes.is_some_and(|capacity| disk.bytes > capacity) {
            disk.take_back();
            disk.failed = true;
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut disk = self.disk.lock();
        if disk.failed {
            return Err(StoreError::Failed);
        }
        if Disk::injected(&mut disk.syncs_until_failure) {
            disk.failed = true;
            return Err(injected_error("sync"));
        }
        disk.unsynced.clear();
        Ok(())
    }

    fn position(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read(row::POSITION_KEY)?.map(Vec::from))
    }

    fn metrics(&self) -> StoreFigures {
        let bytes = u64::try_from(self.disk.lock().bytes).unwrap_or(u64::MAX);
        StoreFigures { disk_bytes: bytes, ..StoreFigures::default() }
    }
}

fn injected_error(during: &'static str) -> StoreError {
    StoreError::Io { during, source: std::io::Error::other("injected") }
}

/// splitmix64, so that neighbouring seeds choose independently.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::{self, Medium};

    struct Memory(MemoryStore);

    impl Medium for Memory {
        type Opened = MemoryStore;

        fn create() -> Self {
            Self(MemoryStore::new())
        }

        fn open(&self) -> MemoryStore {
            self.0.reopen();
            self.0.clone()
        }
    }

    contract::suite!(Memory);

    fn numbered(store: &MemoryStore, n: u32) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.put(b"a", &n.to_be_bytes())?;
        batch.put(b"b", &n.to_be_bytes())?;
        batch.put(format!("n{n}").as_bytes(), b"")?;
        batch.set_position(&n.to_be_bytes());
        store.commit(&batch)
    }

    #[test]
    fn a_crash_loses_a_suffix_of_what_was_not_synced_and_no_half_batch() {
        let mut kept = [0_u32; 8];
        for seed in 0..400 {
            let store = MemoryStore::new();
            for n in 0..3 {
                numbered(&store, n).unwrap();
            }
            store.sync().unwrap();
            for n in 3..8 {
                numbered(&store, n).unwrap();
            }
            let lost = store.crash(seed);
            let position = store.position().unwrap().unwrap();
            let n = u32::from_be_bytes(position.clone().try_into().unwrap());
            assert_eq!(n as usize, 7 - lost);
            assert_eq!(store.get(b"a").unwrap().unwrap(), position);
            assert_eq!(store.get(b"b").unwrap().unwrap(), position);
            for m in 0..8 {
                assert_eq!(store.get(format!("n{m}").as_bytes()).unwrap().is_some(), m <= n);
            }
            kept[n as usize] += 1;
        }
        assert_eq!(kept[..2], [0, 0], "what was synced stays");
        assert!(kept[2..].iter().all(|&times| times > 0), "every cut is tried: {kept:?}");
    }

    #[test]
    fn the_nth_commit_fails_and_nothing_is_accepted_until_reopened() {
        let store = MemoryStore::new();
        store.fail_commit(2);
        numbered(&store, 1).unwrap();
        assert!(matches!(numbered(&store, 2), Err(StoreError::Io { .. })));
        assert!(matches!(numbered(&store, 3), Err(StoreError::Failed)));
        assert!(matches!(store.sync(), Err(StoreError::Failed)));
        assert_eq!(store.position().unwrap().unwrap(), 1_u32.to_be_bytes(), "reads go on");
        store.reopen();
        numbered(&store, 4).unwrap();
    }

    #[test]
    fn a_failed_sync_leaves_its_commits_unsynced() {
        let store = MemoryStore::new();
        store.fail_sync(1);
        numbered(&store, 1).unwrap();
        assert!(matches!(store.sync(), Err(StoreError::Io { .. })));
        assert!((0..100).any(|seed| store.clone_of_disk().crash(seed) == 1));
    }

    #[test]
    fn a_full_disk_refuses_the_whole_batch_and_serves_reads() {
        let store = MemoryStore::new();
        numbered(&store, 1).unwrap();
        let before = store.metrics();
        store.set_capacity(Some(usize::try_from(before.disk_bytes).unwrap()));
        assert!(matches!(numbered(&store, 2), Err(StoreError::Full)));
        assert_eq!(store.metrics(), before);
        assert_eq!(store.get(b"a").unwrap().unwrap(), 1_u32.to_be_bytes().as_slice());
        store.set_capacity(None);
        store.reopen();
        numbered(&store, 2).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_an_error_wherever_it_is() {
        let store = MemoryStore::new();
        numbered(&store, 1).unwrap();
        for bit in 0..(1 + 4 + 4) * 8 {
            assert!(store.flip_bit(b"a", bit));
            assert!(matches!(store.get(b"a"), Err(StoreError::Corrupt { key }) if key == b"a"));
            let scanned = store.scan((Bound::Unbounded, Bound::Unbounded), 9, &mut |_, _| {
                std::ops::ControlFlow::Continue(())
            });
            assert!(matches!(scanned, Err(StoreError::Corrupt { key }) if key == b"a"));
            assert!(store.flip_bit(b"a", bit));
        }
        store.get(b"a").unwrap().unwrap();
    }

    impl MemoryStore {
        fn clone_of_disk(&self) -> Self {
            let disk = self.disk.lock();
            let copy = Disk {
                rows: disk.rows.clone(),
                bytes: disk.bytes,
                unsynced: disk.unsynced.clone(),
                ..Disk::default()
            };
            Self { disk: Arc::new(Mutex::new(copy)) }
        }
    }
}
