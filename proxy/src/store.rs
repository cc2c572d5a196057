//! The embedded store: the complete replica of a region on disk, as opaque rows under ordered keys.
//!
//! The store is no write-ahead log. The op log is what survives a power loss first; the store follows it
//! in the background with [`Batch`]es that carry the rows *and* the position (the applied vector) they
//! describe. After a crash it holds a prefix of the commits, so whoever opens it reads
//! [`Store::position`] and brings it forward from the log.
//!
//! [`FjallStore`] is the real one, [`MemoryStore`] the one that tests can crash. Both pass the suite in
//! `store/contract.rs`. Keys and the envelope of values are laid out in [`row`].

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use thiserror::Error;

pub mod batch;
#[cfg(test)]
mod contract;
pub mod disk;
pub mod fjall_store;
mod journal;
mod marker;
pub mod memory;
pub mod row;

pub use batch::Batch;
pub use fjall_store::{FjallOptions, FjallStore};
pub use memory::MemoryStore;
pub use row::RowRange;

/// What sees the rows of a [`Store::scan`]: key and payload of each; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Opaque rows under ordered keys, changed by atomic batches that carry a position.
///
/// # Invariants
///
/// - A batch is applied as a whole or not at all, its position included, over any crash.
/// - After a crash the store holds a prefix of the commits; the prefix includes all that were committed
///   before the last [`Store::sync`] that returned `Ok`.
/// - Keys are ordered as bytes.
/// - A value that was altered on disk is an error, never another value and never an absence.
/// - After a failed commit or sync nothing more is accepted until the store is reopened: what the disk
///   holds is unknown. Reads go on. Where the disk was full it may reopen itself, with every commit that
///   returned `Ok`.
///
/// All calls block on the disk: call from a thread that may.
pub trait Store: Send + Sync + 'static {
    /// The payload of one row.
    ///
    /// May already show a row of a commit that has not returned yet.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or an I/O error; the store is unchanged.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits at most `limit` rows of `range` in the order of their keys.
    ///
    /// Sees one state of the store: all of a commit or nothing of it. The snapshot keeps old rows on disk,
    /// so visitors must be quick, or scan in pieces.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or an I/O error; rows before the bad one have been visited.
    fn scan(&self, range: RowRange, limit: usize, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Applies a batch. It survives the end of this process at once, a power loss only after [`Store::sync`].
    ///
    /// May wait for background work, at most for a bounded time.
    ///
    /// # Errors
    /// [`StoreError::Stalled`]: nothing applied, try again. Any other: see the invariants.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// After it returns, all batches committed before the call survive a power loss.
    ///
    /// # Errors
    /// See the invariants: the store must be reopened, and read for what it still holds.
    fn sync(&self) -> Result<(), StoreError>;

    /// The position carried by the newest commit that had one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or an I/O error.
    fn position(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Figures for metrics; cheap enough to ask every second.
    fn metrics(&self) -> StoreFigures;
}

/// What a store knows of itself, for metrics. Zero where an implementation has no such thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Bytes on disk, journals included. A journal's file is preallocated, so this is an upper bound.
    pub disk_bytes: u64,
    /// Sorted tables on disk.
    pub tables: u64,
    /// Tables that no compaction has touched yet; a growing number announces a stall.
    pub level0_tables: u64,
    /// Journal files; a growing number means that rows are not flushed to tables.
    pub journals: u64,
    /// Bytes held in memory until they are flushed to tables.
    pub write_buffer_bytes: u64,
    /// Bytes of the block cache in use.
    pub cache_bytes: u64,
    /// Full write buffers that wait for their flush.
    pub sealed_buffers: u64,
    /// Compactions finished since the store was opened.
    pub compactions: u64,
}

/// Why the store refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A row is not what was written. The store is unchanged; the row must be fetched from a peer.
    #[error("the store's row {} is damaged", key.escape_ascii())]
    Corrupt {
        /// The row's key; for a scan that could not read a key, the last one that it could.
        key: Vec<u8>,
    },
    /// The store's files cannot be opened as what they claim to be. Nothing was changed: the files must be
    /// moved away and the store rebuilt from the op log or a neighbour.
    #[error("the store in {} is damaged", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What the engine said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory holds a store of another format. Nothing was changed.
    #[error("the store in {} has format {found}; this program reads format {supported}", path.display())]
    Format {
        /// Where.
        path: PathBuf,
        /// What its marker says.
        found: u32,
        /// What this program reads and writes.
        supported: u32,
    },
    /// The directory holds something that is not a store. Nothing was changed.
    #[error("{} is neither empty nor a store: its FORMAT marker is missing or unreadable", path.display())]
    NotAStore {
        /// Where.
        path: PathBuf,
    },
    /// Another process, or another store of this process, holds the directory. Nothing was changed.
    #[error("the store in {} is open elsewhere", path.display())]
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// The disk is full. Reads go on; try again: commits are accepted once there is room.
    #[error("the store's disk is full")]
    Full,
    /// An earlier commit, sync or flush failed. Nothing applied; the store must be reopened.
    #[error("the store accepts nothing since an earlier write failed")]
    Failed,
    /// Background work is too far behind. Nothing applied; the same batch may be tried again.
    #[error("the store's flushes and compactions did not make room within {waited_s} s")]
    Stalled {
        /// How long the commit waited.
        waited_s: u64,
    },
    /// A key that no row can have: empty, too long, or starting with the reserved zero byte. The batch is
    /// unchanged.
    #[error("a row key of {length} bytes is empty, reserved or longer than {limit} bytes")]
    Key {
        /// Its length in bytes.
        length: usize,
        /// The most that a key may have.
        limit: usize,
    },
    /// A payload too long for a row. The batch is unchanged.
    #[error("a row of {length} bytes is longer than {limit} bytes")]
    Value {
        /// Its length in bytes.
        length: usize,
        /// The most that a payload may have.
        limit: usize,
    },
    /// The disk failed. After a commit or sync the store must be reopened.
    #[error("the store failed to {during}")]
    Io {
        /// What the store was doing.
        during: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
