//! The store on disk: one fjall keyspace for all rows.
//!
//! One keyspace, because an idle one pins the journals of a busy one; no key-value separation, no FIFO
//! compaction, no `clear()`, because each has an open defect upstream. A commit reaches the operating system
//! before it returns, and is fsynced only by [`Store::sync`]: the op log is what makes writes durable.
//!
//! After a failed write fjall takes nothing until it is opened anew. Where the disk was full, everything that was
//! committed is in its journals, so the store opens it anew by itself once there is room; reads wait for that. After
//! any other failure what the disk holds is unknown, and only a restart helps.
//!
//! | path | what |
//! |---|---|
//! | `FORMAT`, `LOCK` | see `marker` |
//! | `rows/` | fjall's own directory: journals `*.jnl`, tables under `keyspaces/` |

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable};
use parking_lot::{Mutex, RwLock};

use super::disk::Disk;
use super::{Batch, RowRange, Store, StoreError, StoreFigures, Visit, journal, marker, row};

#[cfg(test)]
mod tests;

/// Fjall refuses a smaller bound, and one journal file is preallocated at this size.
const MIN_JOURNAL_BYTES: u64 = 64 << 20;
/// Values up to this size are copied out of their block: a slice would keep the whole block in memory.
const COPY_BYTES: usize = 4096;
/// Fjall halts a commit at 4 sealed write buffers and at 30 runs of level 0, without end and deaf to the
/// failure of the thread it waits for. Waiting a step earlier, here, can end.
const MAX_SEALED_BUFFERS: usize = 3;
const MAX_LEVEL0_TABLES: usize = 24;
const STALL_POLL: Duration = Duration::from_millis(5);
/// Free disk below which a failure is laid to a full disk, and above which fjall is opened anew: a journal, and
/// the tables of what it still has in memory.
const ROOM_BYTES: u64 = MIN_JOURNAL_BYTES + (32 << 20);
/// How long before a failure the disk may have been full for it to be the reason: background work fails first,
/// and tells with the next commit.
const FULL_WITHIN: Duration = Duration::from_secs(60);

/// How much memory and disk the store may use.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// Block cache, in bytes; pinned filters and indexes come on top, about 3 MB per million
    /// rows of 100 bytes.
    pub cache_bytes: u64,
    /// Size at which a write buffer is sealed and flushed to a table, in bytes; up to four exist at a time,
    /// each about as large again in memory for small rows. Fixed when the store is created.
    pub write_buffer_bytes: u64,
    /// Journals above this size force a flush, in bytes; at least 64 MiB. Bounds the replay at the start.
    pub journal_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// How long a commit waits for background work before it gives up with [`StoreError::Stalled`].
    pub stall: Duration,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            workers: 2,
            stall: Duration::from_secs(60),
        }
    }
}

/// The store on disk.
pub struct FjallStore {
    /// `None` after it could not be opened anew. Taken again by a scan's visitor that reads, hence always read
    /// recursively.
    engine: RwLock<Option<Engine>>,
    /// Commits go one at a time, so that the room seen before a commit is still there in it.
    committing: Mutex<Fullness>,
    /// Held shared by scans, alone while a commit's rows are applied.
    applying: RwLock<()>,
    path: PathBuf,
    options: FjallOptions,
    /// Declared last, so that it is given back after the database is closed.
    _lock: File,
}

/// Fjall, opened.
struct Engine {
    rows: Keyspace,
    database: Database,
}

/// What is known of a full disk.
#[derive(Debug, Default)]
struct Fullness {
    /// When there was too little room last.
    seen: Option<Instant>,
    /// Fjall has given up because of it.
    failed: bool,
    /// The disk has failed otherwise: what it holds is unknown, for good.
    broken: bool,
}

impl Engine {
    fn open(path: &Path, options: &FjallOptions) -> Result<Self, StoreError> {
        let rows_path = path.join("rows");
        journal::check_order(&rows_path)
            .map_err(|source| StoreError::Io { during: "read its journals", source })?
            .map_err(|source| StoreError::Damaged { path: path.to_owned(), source: Box::new(source) })?;
        let database = Database::builder(&rows_path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(MIN_JOURNAL_BYTES))
            .worker_threads(options.workers.max(1))
            .open()
            .map_err(|error| opening(path, error))?;
        let rows =
            database.keyspace("rows", || table_options(options)).map_err(|error| opening(path, error))?;
        Ok(Self { rows, database })
    }

    /// Waits until fjall would not halt a commit, and notices when it never will.
    fn wait_for_room(&self, stall: Duration) -> Result<(), StoreError> {
        let started = Instant::now();
        while self.rows.sealed_memtable_count() >= MAX_SEALED_BUFFERS
            || self.rows.l0_table_count() >= MAX_LEVEL0_TABLES
        {
            // Costs a lock when there is nothing to flush, and tells whether a worker has died.
            self.database.persist(PersistMode::Buffer).map_err(|error| writing("flush", error))?;
            if started.elapsed() > stall {
                return Err(StoreError::Stalled { waited_s: stall.as_secs() });
            }
            std::thread::sleep(STALL_POLL);
        }
        Ok(())
    }
}

impl FjallStore {
    /// Opens the store in `path`, creating it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Format`], [`StoreError::NotAStore`], [`StoreError::Damaged`],
    /// [`StoreError::Io`]. No data is changed by any of them.
    pub fn open(path: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        let lock = marker::claim(path)?;
        let rows_path = path.join("rows");
        remove_unborn(&rows_path).map_err(|source| StoreError::Io { during: "look at its rows", source })?;
        let engine = Engine::open(path, &options)?;
        marker::sync_directory(path)
            .map_err(|source| StoreError::Io { during: "sync its directory", source })?;
        Ok(Self {
            engine: RwLock::new(Some(engine)),
            committing: Mutex::default(),
            applying: RwLock::new(()),
            path: path.to_owned(),
            options,
            _lock: lock,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(self.engine.read_recursive().as_ref().ok_or(StoreError::Failed)?)
    }

    /// Writes, after opening fjall anew if the disk was full and no longer is.
    fn write(&self, work: impl FnOnce(&Engine) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut fullness = self.committing.lock();
        if !self.has_room() {
            fullness.seen = Some(Instant::now());
        }
        if fullness.failed {
            self.reopen()?;
            fullness.failed = false;
        }
        let written = self.with(work);
        let full = match &written {
            Err(StoreError::Full) => true,
            Err(StoreError::Failed) => {
                !self.has_room() || fullness.seen.is_some_and(|seen| seen.elapsed() < FULL_WITHIN)
            }
            _ => false,
        };
        fullness.broken |= matches!(&written, Err(StoreError::Io { .. }));
        fullness.failed = full && !fullness.broken;
        written
    }

    /// Whether the disk has room for what fjall may need soon. A disk that does not say has.
    fn has_room(&self) -> bool {
        !Disk::of(&self.path).is_ok_and(|disk| disk.available_bytes < ROOM_BYTES)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        if !self.has_room() {
            return Err(StoreError::Full);
        }
        let mut engine = self.engine.write();
        // There cannot be two at once.
        *engine = None;
        *engine = Some(Engine::open(&self.path, &self.options)?);
        tracing::warn!("the store's disk has room again: opened it anew");
        Ok(())
    }
}

impl Store for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        // Fjall panics on a key that is too long.
        if !row::is_possible(key) {
            return Ok(None);
        }
        self.with(|engine| read(&engine.rows, key))
    }

    fn scan(&self, range: RowRange, limit: usize, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = row::clamp(range) else { return Ok(()) };
        let mut last = match &range.0 {
            std::ops::Bound::Included(key) | std::ops::Bound::Excluded(key) => key.clone(),
            std::ops::Bound::Unbounded => Vec::new(),
        };
        // Under load fjall's snapshots were seen to mix rows of two commits, and its plain ranges do so by
        // design: no commit is applied while a scan runs. Commits come from the background, which can wait.
        let _still = self.applying.read();
        self.with(|engine| {
            for entry in engine.database.snapshot().range(&engine.rows, range).take(limit) {
                let (key, value) = entry.into_inner().map_err(|error| reading(&last, error))?;
                let payload = row::open(&value).map_err(|_| StoreError::Corrupt { key: key.to_vec() })?;
                if visit(&key, payload).is_break() {
                    break;
                }
                last.clear();
                last.extend_from_slice(&key);
            }
            Ok(())
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|engine| {
            engine.wait_for_room(self.options.stall)?;
            let mut rows = engine.database.batch();
            for (key, value) in batch.changes() {
                match value {
                    Some(value) => rows.insert(&engine.rows, key, value),
                    None => rows.remove(&engine.rows, key),
                }
            }
            let _alone = self.applying.write();
            rows.commit().map_err(|error| writing("commit", error))
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.write(|engine| {
            engine.database.persist(PersistMode::SyncData).map_err(|error| writing("sync", error))
        })
    }

    fn position(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|engine| Ok(read(&engine.rows, row::POSITION_KEY)?.map(Vec::from)))
    }

    fn metrics(&self) -> StoreFigures {
        let engine = self.engine.read_recursive();
        let Some(Engine { rows, database }) = engine.as_ref() else { return StoreFigures::default() };
        StoreFigures {
            disk_bytes: database.disk_space().unwrap_or_default(),
            tables: count(rows.table_count()),
            level0_tables: count(rows.l0_table_count()),
            journals: count(database.journal_count()),
            write_buffer_bytes: database.write_buffer_size(),
            cache_bytes: database.cache_size(),
            sealed_buffers: count(rows.sealed_memtable_count()),
            compactions: count(database.compactions_completed()),
        }
    }
}

/// Filters on every level, since most misses are keys that never existed. They and the indexes are pinned,
/// so that a miss does not go through the cache: about 3 MB per million rows of 100 bytes, down to level 2.
/// Deeper levels cut both into partitions, of which only the directory is pinned.
fn table_options(options: &FjallOptions) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.write_buffer_bytes)
        .expect_point_read_hits(false)
        .filter_policy(FilterPolicy::new([
            FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(12.0)),
        ]))
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_pinning_policy(PinningPolicy::all(true))
}

fn read(rows: &Keyspace, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(value) = rows.get(key).map_err(|error| reading(key, error))? else { return Ok(None) };
    let payload = row::open(&value).map_err(|_| StoreError::Corrupt { key: key.to_vec() })?;
    let length = payload.len();
    if length <= COPY_BYTES {
        return Ok(Some(Bytes::copy_from_slice(payload)));
    }
    // The payload lies behind the envelope's version byte.
    Ok(Some(Bytes::from_owner(value).slice(1..=length)))
}

/// A creation that was cut short leaves files that fjall can neither open nor create over. Its `version`
/// file is written last and tables only after it, so without both there is nothing to lose.
fn remove_unborn(rows: &Path) -> std::io::Result<()> {
    if !rows.try_exists()? {
        return Ok(());
    }
    let born = match std::fs::metadata(rows.join("version")) {
        Ok(version) => version.len() > 0,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let has_tables = match std::fs::read_dir(rows.join("keyspaces")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if born || has_tables { Ok(()) } else { std::fs::remove_dir_all(rows) }
}

fn opening(path: &Path, error: fjall::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    match error {
        fjall::Error::Locked => StoreError::Locked { path },
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) if !is_damage(&source) => {
            StoreError::Io { during: "open", source }
        }
        error => StoreError::Damaged { path, source: Box::new(error) },
    }
}

fn reading(key: &[u8], error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) if !is_damage(&source) => {
            StoreError::Io { during: "read", source }
        }
        _ => StoreError::Corrupt { key: key.to_vec() },
    }
}

fn writing(during: &'static str, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { during, source },
        },
        _ => StoreError::Failed,
    }
}

/// A file that ends early, does not decode, is missing or in the way is not the disk's refusal.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::AlreadyExists
    )
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
