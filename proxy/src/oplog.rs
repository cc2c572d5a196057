//! The op log of a region: one durable, ordered stream of opaque records in segment files.
//!
//! Every op a region applies, its own and those of its peers, is one record. The log is what makes a
//! write durable (group commit), what links read to feed neighbours ([`TailReader`]) and what a restart
//! replays into the store ([`Opened::replay`]). Records are opaque bytes: who reads them decodes them.
//!
//! # Life
//!
//! [`open`] recovers the directory and gives an [`Opened`] log, which can only be read. When its owner
//! has replayed what it needs it calls [`Opened::start`] with its *mark* (the applied vector at the end),
//! makes a [`Buffer`] at [`Log::start_lsn`], keeps it under its own lock, and hands [`LogWriter::spawn`] a [`Source`] that
//! empties that buffer. A push is a copy into memory; checksums, writes happen on the writer's thread,
//! flushes there ([`Sync::Always`]) or on one of their own, so that a slow one holds up no write.
//!
//! # LSN
//!
//! A record's [`Lsn`] is the logical byte offset of its frame. It is known when the record is pushed, rises
//! strictly and is **never reused**, not even for records a crash took: each start of the log leaves a gap
//! (to the next multiple of 2^40) and opens a new segment behind it.
//!
//! # Files
//!
//! `<20-digit start lsn>.log` are segments, `spare.tmp` is the next segment allocated ahead of need, `LOCK` is
//! held by the process that has the log open, and `*.damaged` is what recovery set aside (never deleted here).
//! Integers are little endian, checksums are CRC-32C.
//!
//! Segment header, padded with zeros to a multiple of 4 KiB:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `MERIDLOG` |
//! | 8 | 1 | format version, 1 |
//! | 9 | 3 | zero |
//! | 12 | 4 | header length `h`, a multiple of 4096, at most 1 MiB + 4 KiB |
//! | 16 | 8 | start LSN: of the first frame, at file offset `h` |
//! | 24 | 8 | end LSN of the previous segment: a missing file shows |
//! | 32 | 8 | created at, milliseconds since 1970 |
//! | 40 | 4 | mark length `m`, at most 1 MiB |
//! | 44 | m | mark: exactly what was applied below the start LSN, opaque |
//! | h-4 | 4 | checksum of all bytes before |
//!
//! Frames follow without padding; the frame at file offset `h + n` has LSN `start + n`. The first word tells its kind:
//!
//! | kind | word (4) | checksum (4) over | body |
//! |---|---|---|---|
//! | end of data | 0 | - | - |
//! | record | payload length, 1 to `max_record` | word, LSN, payload | payload |
//! | batch head | `FFFFFFF0` | word, LSN, body | durable LSN (8) when the batch was written |
//! | rolled | `FFFFFFF1` | word, LSN | the log goes on in the next segment |
//! | closed | `FFFFFFF2` | word, LSN | the log was shut down in order |
//! | recovered | `FFFFFFF3` | word, LSN | recovery ended the segment here |
//!
//! A batch (what one flush wrote) starts with a batch head and never spans segments; a batch larger than a
//! segment gets a segment of its own size. So a segment's mark is exact.
//!
//! # Recovery
//!
//! The log ends at the first frame that is not valid. What lies behind it is a *torn* tail, which power loss
//! explains, unless something later proves that the spot had been durable: a batch head behind it that says so, or a later
//! segment (rolling flushes the old segment first). Then it is *damage*: the files are kept as `*.damaged`. A flipped bit in
//! the very last batch cannot be told from a torn one. Recovery reads the last segment whole and of
//! older ones the header and the end; [`Verify::All`] reads everything, and so does whoever reads the records.

mod buffer;
mod disk;
mod flusher;
mod frame;
mod log;
mod progress;
mod recover;
mod segment;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io, sync::Arc, time::Duration};

pub use buffer::{Batch, Buffer};
#[cfg(test)]
pub(crate) use disk::SimDisk;
pub use disk::{Disk, LogFile, RealDisk};
pub use log::{Log, LogHealth, Opened, Replay};
pub use recover::{Recovery, Tail};
pub use segment::SegmentInfo;
pub use tail::{Chunk, TailReader, Upto};
pub use writer::{LogWriter, Source, WriterThread};

/// Where a record's frame starts in the logical byte stream of a region's op log.
///
/// Positions of progress ([`Log::durable`] and the like) are exclusive: everything below is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    fn plus(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(bytes as u64))
    }

    /// Bytes from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The caller's snapshot of what was applied up to a point of the log: kept with each segment and
/// published with each advance. Cloned once or twice a batch, so make that cheap (an `Arc`).
pub trait Mark: Clone + Send + std::marker::Sync + 'static {
    /// The bytes a segment header keeps; at most 1 MiB.
    fn encode(&self) -> Vec<u8>;
}

impl Mark for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Mark for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }
}

/// When the writer makes what it wrote durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// After every batch.
    Always,
    /// Once a second while there is something to flush.
    EverySecond,
    /// Only on demand, when a segment ends and at shutdown.
    Never,
}

/// How much [`open`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Headers and ends of all segments, every byte of the last one.
    Tail,
    /// Every byte.
    All,
}

/// Called with the time each flush took.
pub type FlushHook = Arc<dyn Fn(Duration) + Send + std::marker::Sync>;

/// How a log behaves. [`Settings::default`] is what a region runs with, `sync = "always"`.
#[derive(Clone)]
pub struct Settings {
    /// When to flush.
    pub sync: Sync,
    /// Bytes a segment file is allocated with: 8 KiB to 4 GiB.
    pub segment_bytes: u64,
    /// Largest payload, 1 byte to 1 GiB.
    pub max_record: usize,
    /// Bytes of recent batches kept in memory for tail readers.
    pub tail_cache: usize,
    /// Unless `sync` is [`Sync::Always`], how long to gather after a small batch: bounds writes per second.
    pub linger: Duration,
    /// How often a write is tried again while the disk is full.
    pub full_retry: Duration,
    /// How much to read at open.
    pub verify: Verify,
    /// For a histogram of flush times.
    pub on_flush: Option<FlushHook>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sync: Sync::Always,
            segment_bytes: 64 << 20,
            max_record: 16 << 20,
            tail_cache: 16 << 20,
            linger: Duration::from_micros(300),
            full_retry: Duration::from_millis(100),
            verify: Verify::Tail,
            on_flush: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("sync", &self.sync)
            .field("segment_bytes", &self.segment_bytes)
            .field("max_record", &self.max_record)
            .field("tail_cache", &self.tail_cache)
            .finish_non_exhaustive()
    }
}

impl Settings {
    fn check(&self) -> Result<(), LogError> {
        let bad = |what| Err(LogError::Settings { what });
        if !(8 << 10..=4 << 30).contains(&self.segment_bytes) {
            return bad("segment_bytes must be 8 KiB to 4 GiB");
        }
        if !(1..=1 << 30).contains(&self.max_record) {
            return bad("max_record must be 1 byte to 1 GiB");
        }
        Ok(())
    }
}

/// What went wrong with the log, and what that means for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A limit in the settings is out of range; nothing was touched.
    #[error("op log settings: {what}")]
    Settings {
        /// Which limit.
        what: &'static str,
    },
    /// Another process has this log open; nothing was touched.
    #[error("op log {dir} is open in another process")]
    Locked {
        /// The log's directory.
        dir: String,
    },
    /// A segment was written by another version of the program; nothing was touched.
    #[error("op log segment {file} has format version {found}, this program reads version 1")]
    Version {
        /// The segment's file name.
        file: String,
        /// Its version byte.
        found: u8,
    },
    /// Reading, or preparing the log at open, failed; the log is as it was.
    #[error("op log: {action} failed: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A write or flush failed: what is not yet durable may be lost. Final until the log is opened again.
    #[error("op log failed: {action}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The disk is full and the log was told to end: the records still waiting were not written.
    #[error("op log: no space left on the disk")]
    Full,
    /// The log was shut down.
    #[error("op log is closed")]
    Closed,
    /// What is stored here is not what was written. Open again with [`Verify::All`] to set it aside.
    #[error("op log is damaged at lsn {lsn}")]
    Damaged {
        /// Where the first bad frame starts.
        lsn: Lsn,
    },
    /// No record starts at the position a reader asked for.
    #[error("no op log record starts at lsn {lsn}")]
    NotARecord {
        /// The position asked for.
        lsn: Lsn,
    },
    /// The records asked for are gone; the reader's region needs to catch up another way.
    #[error("op log is truncated below lsn {oldest}")]
    Truncated {
        /// The oldest position that can be read.
        oldest: Lsn,
    },
    /// A payload is empty or longer than `max_record`; it was not pushed.
    #[error("op log record of {len} bytes, allowed are 1 to {max}")]
    RecordSize {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A mark is longer than a segment header may keep.
    #[error("op log mark of {len} bytes is over the limit")]
    MarkSize {
        /// Its length.
        len: usize,
    },
}

impl LogError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source: Arc::new(source) }
    }
}

/// Opens the log in `dir` (created if absent), repairs what a crash left and says what was found.
pub fn open(dir: &std::path::Path, settings: Settings) -> Result<(Opened, Recovery), LogError> {
    open_on(Arc::new(RealDisk::open(dir)?), settings)
}

/// [`open`] on any [`Disk`]: for tests that lose power.
pub fn open_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<(Opened, Recovery), LogError> {
    settings.check()?;
    let (segments, start, recovery) = recover::recover(&*disk, &settings)?;
    Ok((Opened::new(disk, settings, segments, start, recovery.tail), recovery))
}
