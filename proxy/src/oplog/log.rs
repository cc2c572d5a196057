//! The log's handles: before it runs ([`Opened`]) and while it runs ([`Log`]).

use std::{
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Buffer, Chunk, Disk, LogError, LogFile, LogWriter, Lsn, Mark, SegmentInfo, Settings, Tail, TailReader,
    frame::Stop, progress::Progress, segment, tail::Ring,
};

/// A recovered log that can be read and not yet written.
pub struct Opened {
    pub(super) segments: Segments,
    pub(super) settings: Settings,
    pub(super) start: Lsn,
    /// What the first segment of an empty log names as the end before it: below that, records are gone.
    pub(super) base: Lsn,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Opened {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        settings: Settings,
        index: Vec<SegmentInfo>,
        start: Lsn,
        tail: Tail,
    ) -> Self {
        let base = if tail == Tail::New { Lsn(0) } else { start };
        let segments = Segments { disk, max_record: settings.max_record, index: Mutex::new(index) };
        Self { segments, settings, start, base }
    }

    /// The segments found, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.segments.list()
    }

    /// Where new records will start.
    pub fn start_lsn(&self) -> Lsn {
        self.start
    }

    /// Reads all records from `from` on, chunk by chunk, blocking.
    pub fn replay(&self, from: Lsn) -> Replay<'_> {
        Replay { segments: &self.segments, at: from, file: None }
    }

    /// Begins a new segment at [`Opened::start_lsn`]; `mark` says what is applied there.
    pub fn start<M: Mark>(self, mark: M) -> Result<(Log<M>, LogWriter<M>), LogError> {
        LogWriter::start(self, mark)
    }
}

/// Records on disk, in order.
pub struct Replay<'a> {
    segments: &'a Segments,
    at: Lsn,
    file: Option<OpenSegment>,
}

impl fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Replay<'_> {
    /// The next records, `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, LogError> {
        loop {
            match self.segments.read(self.at, Lsn(u64::MAX), &mut self.file)? {
                Read::Chunk(chunk) => {
                    self.at = chunk.end();
                    return Ok(Some(chunk));
                }
                Read::Skip(to) => self.at = to,
                Read::End => return Ok(None),
            }
        }
    }
}

/// The segment a reader is in; stays readable after it is unlinked.
pub(super) type OpenSegment = (SegmentInfo, Arc<dyn LogFile>);

/// What reading the files at a position gave.
pub(super) enum Read {
    Chunk(Chunk),
    /// The position lies between two segments.
    Skip(Lsn),
    End,
}

pub(super) struct Segments {
    pub(super) disk: Arc<dyn Disk>,
    max_record: usize,
    pub(super) index: Mutex<Vec<SegmentInfo>>,
}

impl Segments {
    pub(super) fn list(&self) -> Vec<SegmentInfo> {
        self.index.lock().clone()
    }

    pub(super) fn last_end(&self) -> Option<Lsn> {
        self.index.lock().last().map(|s| s.end)
    }

    /// Reads verified frames at `at`, below `limit`. Blocks.
    pub(super) fn read(&self, at: Lsn, limit: Lsn, file: &mut Option<OpenSegment>) -> Result<Read, LogError> {
        let info = match self.locate(at)? {
            Place::In(info) => info,
            Place::Before(next) => return Ok(Read::Skip(next)),
            Place::End => return Ok(Read::End),
        };
        let file = match file {
            Some((open, file)) if open.start == info.start => file,
            other => {
                let opened = match self.disk.open(&info.file_name()) {
                    // Truncated since we looked.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        let oldest = self.index.lock().first().map_or(at, |s| s.start);
                        return Err(LogError::Truncated { oldest });
                    }
                    opened => opened.map_err(LogError::io("open a segment"))?,
                };
                &mut other.insert((info.clone(), opened)).1
            }
        };
        let limit = limit.min(info.end);
        let frames = segment::read_frames(&**file, &info, at, limit, self.max_record)
            .map_err(LogError::io("read a segment"))?;
        if frames.bytes.is_empty() {
            return match frames.stop {
                Some(Stop::End) if at >= limit => Ok(Read::End),
                _ => Err(LogError::Damaged { lsn: at }),
            };
        }
        Ok(Read::Chunk(Chunk::new(at, Bytes::from(frames.bytes))))
    }

    fn locate(&self, at: Lsn) -> Result<Place, LogError> {
        let index = self.index.lock();
        let Some(oldest) = index.first() else { return Ok(Place::End) };
        if at < oldest.previous_end {
            return Err(LogError::Truncated { oldest: oldest.start });
        }
        let next = index.partition_point(|s| s.end <= at);
        Ok(match index.get(next) {
            Some(info) if at < info.start => Place::Before(info.start),
            Some(info) => Place::In(info.clone()),
            None => Place::End,
        })
    }
}

enum Place {
    In(SegmentInfo),
    Before(Lsn),
    End,
}

/// Whether the log takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// It does.
    Ok,
    /// The disk is full: refuse new writes. What was pushed is tried again until space returns.
    Full,
    /// A write or flush failed: nothing more will be written until the log is opened again.
    Failed,
    /// The log was shut down.
    Closed,
}

/// A running log. Clones are handles to the same log.
pub struct Log<M> {
    pub(super) shared: Arc<Shared<M>>,
}

impl<M> Clone for Log<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for Log<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("start", &self.shared.start).finish_non_exhaustive()
    }
}

pub(super) struct Shared<M> {
    pub(super) segments: Segments,
    pub(super) settings: Settings,
    pub(super) start: Lsn,
    pub(super) written: Progress<M>,
    pub(super) durable: Progress<M>,
    pub(super) ring: Mutex<Ring>,
    pub(super) health: AtomicU8,
    pub(super) failure: OnceLock<LogError>,
    pub(super) writer: OnceLock<Thread>,
    pub(super) asleep: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) aborting: AtomicBool,
    pub(super) sync_requests: Mutex<Vec<oneshot::Sender<()>>>,
    pub(super) flushes: AtomicU64,
    pub(super) bytes_written: AtomicU64,
}

const OK: u8 = 0;
const FULL: u8 = 1;
const FAILED: u8 = 2;
const CLOSED: u8 = 3;

impl<M: Mark> Shared<M> {
    pub(super) fn set_full(&self, full: bool) {
        let (from, to) = if full { (OK, FULL) } else { (FULL, OK) };
        // Failed and closed are final.
        let _ = self.health.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Counts a flush that took this long.
    pub(super) fn count_flush(&self, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &self.settings.on_flush {
            hook(took);
        }
    }

    /// Nothing will be written any more: with `error`, or in order. The first reason stays.
    pub(super) fn end(&self, error: Option<LogError>) {
        let health = if matches!(error, None | Some(LogError::Closed)) { CLOSED } else { FAILED };
        if self.failure.set(error.unwrap_or(LogError::Closed)).is_ok() {
            self.health.store(health, Ordering::Release);
        }
        self.written.close();
        self.durable.close();
        self.sync_requests.lock().clear();
    }

    pub(super) fn ended(&self) -> LogError {
        self.failure.get().cloned().unwrap_or(LogError::Closed)
    }
}

impl<M: Mark> Log<M> {
    /// Where this run's records start.
    pub fn start_lsn(&self) -> Lsn {
        self.shared.start
    }

    /// The buffer to push to. One per run: it belongs to whoever orders ops.
    pub fn buffer(&self) -> Buffer {
        Buffer::new(self.shared.start, self.shared.settings.max_record)
    }

    /// Call after a push, outside of hot locks: one atomic load, and a system call only if the writer sleeps.
    pub fn wake(&self) {
        let asleep = &self.shared.asleep;
        if asleep.load(Ordering::SeqCst)
            && asleep.swap(false, Ordering::SeqCst)
            && let Some(writer) = self.shared.writer.get()
        {
            writer.unpark();
        }
    }

    /// Whether to push: one atomic load.
    pub fn health(&self) -> LogHealth {
        match self.shared.health.load(Ordering::Acquire) {
            OK => LogHealth::Ok,
            FULL => LogHealth::Full,
            FAILED => LogHealth::Failed,
            _ => LogHealth::Closed,
        }
    }

    /// Waits until the record at `lsn` is durable. While the disk is full it waits on; it fails once the log failed
    /// or was closed with the record not durable.
    pub async fn wait_durable(&self, lsn: Lsn) -> Result<(), LogError> {
        if self.shared.durable.passed(lsn).await { Ok(()) } else { Err(self.shared.ended()) }
    }

    /// Waits until the record at `lsn` is written, as [`Log::wait_durable`] does.
    pub async fn wait_written(&self, lsn: Lsn) -> Result<(), LogError> {
        if self.shared.written.passed(lsn).await { Ok(()) } else { Err(self.shared.ended()) }
    }

    /// Everything below is durable: one atomic load.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable.lsn()
    }

    /// Everything below is written: one atomic load.
    pub fn written_lsn(&self) -> Lsn {
        self.shared.written.lsn()
    }

    /// How far the log is durable, and the mark there.
    pub fn durable(&self) -> (Lsn, M) {
        self.shared.durable.get()
    }

    /// How far the log is written, and the mark there.
    pub fn written(&self) -> (Lsn, M) {
        self.shared.written.get()
    }

    /// Makes everything pushed before the call durable, whatever the settings.
    pub async fn sync_now(&self) -> Result<(), LogError> {
        self.request_sync().await.map_err(|_| self.shared.ended())
    }

    /// [`Log::sync_now`] for threads outside of the runtime.
    pub fn sync_now_blocking(&self) -> Result<(), LogError> {
        self.request_sync().blocking_recv().map_err(|_| self.shared.ended())
    }

    fn request_sync(&self) -> oneshot::Receiver<()> {
        let (tell, wait) = oneshot::channel();
        let mut requests = self.shared.sync_requests.lock();
        // `end` sets the failure before it clears the requests, so none is left behind.
        if self.shared.failure.get().is_none() {
            requests.push(tell);
        }
        drop(requests);
        self.wake();
        wait
    }

    /// The segments, oldest first; the last is being written. The one to start a peer from is the last whose mark
    /// the peer's vector covers.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments.list()
    }

    /// Bytes on disk.
    pub fn total_bytes(&self) -> u64 {
        self.shared.segments.index.lock().iter().map(|s| s.bytes).sum()
    }

    /// Bytes of recent batches in memory.
    pub fn tail_cache_bytes(&self) -> usize {
        self.shared.ring.lock().bytes()
    }

    /// Removes the segments whose records all lie below `lsn`, never the one being written. Blocks on the disk.
    /// Returns how many went.
    pub fn truncate_below(&self, lsn: Lsn) -> Result<usize, LogError> {
        let gone: Vec<SegmentInfo> = {
            let mut index = self.shared.segments.index.lock();
            let below = index.partition_point(|s| s.end <= lsn).min(index.len().saturating_sub(1));
            index.drain(..below).collect()
        };
        let disk = &self.shared.segments.disk;
        for segment in &gone {
            disk.remove(&segment.file_name()).map_err(LogError::io("remove a segment"))?;
            // One by one: power loss must not leave a hole.
            disk.sync_dir().map_err(LogError::io("flush the directory"))?;
        }
        Ok(gone.len())
    }

    /// A reader from `from` on: the LSN of a record, the end of a [`Chunk`], or the start or end of a segment.
    pub fn read_from(&self, from: Lsn) -> TailReader<M> {
        TailReader::new(self.clone(), from)
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.shared.bytes_written.load(Ordering::Relaxed)
    }
}
