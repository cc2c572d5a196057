//! The one thread that writes the log.

use std::{
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Batch, Disk, Log, LogError, LogFile, Lsn, Mark, Opened, SegmentInfo, Sync,
    flusher::{Flush, Flusher},
    frame::{self, SEAL, Seal},
    log::Shared,
    progress::Progress,
    segment::{self, SPARE},
    tail::Ring,
};

/// Where the writer gets its work: the owner of the [`super::Buffer`].
pub trait Source<M>: Send + 'static {
    /// Moves everything pushed into `batch` ([`super::Buffer::take`]) and returns the mark at its end, both under the
    /// lock that orders ops; `None` if nothing was pushed.
    fn take(&mut self, batch: &mut Batch) -> Option<M>;
}

impl<M, F: FnMut(&mut Batch) -> Option<M> + Send + 'static> Source<M> for F {
    fn take(&mut self, batch: &mut Batch) -> Option<M> {
        self(batch)
    }
}

/// Why a step of the writer failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// No space: the step can be tried again.
    Full,
    /// The log has failed.
    Fatal(LogError),
}

fn write_fault(action: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |source| match is_full(&source) {
        true => Fault::Full,
        false => Fault::Fatal(LogError::Failed { action, source: Arc::new(source) }),
    }
}

/// After a failed flush the system may have dropped what was not durable: never tried again.
fn flush_fault(action: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault::Fatal(LogError::Failed { action, source: Arc::new(source) })
}

/// How long writes may stay without a flush under [`Sync::EverySecond`].
const EVERY: Duration = Duration::from_secs(1);

/// Room for records in the least segment a log starts with.
const LEAST_DATA_BYTES: u64 = 4096;

/// The segment being written.
struct Active {
    file: Arc<dyn LogFile>,
    info: SegmentInfo,
}

/// The writing side of a started log, before its thread runs. Nothing is written, and who waits waits, until it is spawned.
pub struct LogWriter<M: Mark> {
    shared: Arc<Shared<M>>,
    active: Active,
    spare: Option<Arc<dyn LogFile>>,
    end: Lsn,
    mark: M,
    /// Since when there is something that no flush covers, not even one that runs.
    dirty: Option<Instant>,
    /// Who asked for a flush that has not begun.
    asked: Vec<oneshot::Sender<()>>,
    /// Flushes while this thread writes, unless every write waits for its flush anyway.
    flusher: Option<Flusher<M>>,
    /// How often somebody had begun to wait for a write, and when that was found to have risen.
    awaited: (u64, Instant),
}

impl<M: Mark> fmt::Debug for LogWriter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("end", &self.end).finish_non_exhaustive()
    }
}

impl<M: Mark> LogWriter<M> {
    pub(super) fn start(opened: Opened, mark: M) -> Result<(Log<M>, Self), LogError> {
        let Opened { segments, settings, start, base } = opened;
        let previous_end = segments.last_end().unwrap_or(base);
        let encoded = mark.encode();
        let least = segment::header_len(encoded.len())? as u64 + LEAST_DATA_BYTES;
        let (spare, bytes) = spare_that_fits(&*segments.disk, settings.segment_bytes, least)
            .map_err(LogError::io("allocate a segment"))?;
        let active = begin(&*segments.disk, spare, start, previous_end, &encoded, bytes).map_err(
            |fault| match fault {
                Fault::Full => LogError::Full,
                Fault::Fatal(error) => error,
            },
        )?;
        segments.index.lock().push(active.info.clone());
        let ring = Mutex::new(Ring::new(settings.tail_cache));
        let shared = Arc::new(Shared {
            segments,
            settings,
            start,
            written: Progress::new(start, mark.clone()),
            durable: Progress::new(start, mark.clone()),
            ring,
            health: AtomicU8::new(0),
            failure: OnceLock::new(),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            sync_requests: Mutex::default(),
            flushes: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        });
        let log = Log { shared: Arc::clone(&shared) };
        Ok((
            log,
            Self {
                shared,
                active,
                spare: None,
                end: start,
                mark,
                dirty: None,
                asked: Vec::new(),
                flusher: None,
                awaited: (0, Instant::now()),
            },
        ))
    }

    /// Starts the thread, and the flusher's if there is to be one.
    pub fn spawn(mut self, source: impl Source<M>) -> Result<WriterThread<M>, LogError> {
        let shared = Arc::clone(&self.shared);
        if shared.settings.sync != Sync::Always {
            self.flusher = Some(Flusher::spawn(Arc::clone(&shared))?);
        }
        let thread = std::thread::Builder::new()
            .name("oplog-writer".to_owned())
            .spawn(move || self.run(source))
            .map_err(LogError::io("start the writer thread"))?;
        Ok(WriterThread { shared, thread: Some(thread) })
    }

    /// Writes one batch, whose end has this mark. A batch that found the disk full may be given again.
    pub(super) fn write(&mut self, batch: &mut Batch, mark: &M) -> Result<(), Fault> {
        self.make_room(batch.bytes.len())?;
        frame::finish(&mut batch.bytes, batch.start, self.shared.durable.lsn());
        let at = self.active.info.offset(batch.start);
        self.active.file.write_at(&batch.bytes, at).map_err(write_fault("write records"))?;
        self.end = batch.end();
        self.mark = mark.clone();
        self.dirty.get_or_insert_with(Instant::now);
        let shared = &self.shared;
        shared.bytes_written.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
        if let Some(last) = shared.segments.index.lock().last_mut() {
            last.end = self.end;
        }
        self.active.info.end = self.end;
        shared.ring.lock().push(batch.start, &batch.bytes);
        shared.written.advance(self.end, mark.clone());
        Ok(())
    }

    /// Makes everything written durable.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        if self.dirty.is_none() {
            return Ok(());
        }
        self.flush_from_here().run(&self.shared).map_err(Fault::Fatal)
    }

    /// The flush that covers everything written so far.
    pub(super) fn flush_from_here(&mut self) -> Flush<M> {
        self.dirty = None;
        Flush {
            file: Arc::clone(&self.active.file),
            end: self.end,
            mark: self.mark.clone(),
            asked: std::mem::take(&mut self.asked),
        }
    }

    /// Begins, makes or leaves for later the flush that is due.
    fn flush_if_due(&mut self) -> Result<(), LogError> {
        if self.flusher.as_ref().is_some_and(Flusher::busy) {
            // Its end wakes this thread.
            return Ok(());
        }
        self.check()?;
        if self.dirty.is_none() {
            for asked in self.asked.drain(..) {
                // Whoever asked may have given up.
                let _ = asked.send(());
            }
            return Ok(());
        }
        if !self.flush_due() {
            return Ok(());
        }
        let flush = self.flush_from_here();
        match &self.flusher {
            Some(flusher) => flusher.begin(flush),
            None => flush.run(&self.shared),
        }
    }

    /// Ends the segment if `len` more bytes do not fit.
    fn make_room(&mut self, len: usize) -> Result<(), Fault> {
        let need = (len + SEAL) as u64;
        let after = self.active.info.offset(self.end).saturating_add(need);
        if after <= self.active.info.bytes {
            return Ok(());
        }
        if self.end == self.active.info.start {
            // A fresh segment grows instead: two of the same start would be two files of the same name.
            self.set_active_bytes(after);
            return Ok(());
        }
        self.seal(Seal::Rolled)?;
        let shared = Arc::clone(&self.shared);
        let (disk, settings) = (&*shared.segments.disk, &shared.settings);
        let mark = self.mark.encode();
        let header = segment::header_len(mark.len()).map_err(Fault::Fatal)?;
        let least = need.saturating_add(header as u64);
        let bytes = settings.segment_bytes.max(least);
        let (spare, bytes) = match self.spare.take().filter(|_| bytes == settings.segment_bytes) {
            Some(spare) => (spare, bytes),
            None => spare_that_fits(disk, bytes, least).map_err(write_fault("allocate a segment"))?,
        };
        self.active = begin(disk, spare, self.end, self.end, &mark, bytes)?;
        shared.segments.index.lock().push(self.active.info.clone());
        Ok(())
    }

    /// Ends the active segment durably and gives back what it does not use.
    fn seal(&mut self, seal: Seal) -> Result<(), Fault> {
        let at = self.active.info.offset(self.end);
        let file = &self.active.file;
        file.write_at(&seal.encode(self.end), at).map_err(write_fault("end a segment"))?;
        let bytes = at.saturating_add(SEAL as u64);
        file.set_len(bytes).map_err(write_fault("end a segment"))?;
        self.dirty.get_or_insert_with(Instant::now);
        if let Some(flusher) = &self.flusher {
            flusher.wait();
        }
        self.check().map_err(Fault::Fatal)?;
        self.flush()?;
        self.set_active_bytes(bytes);
        Ok(())
    }

    /// Fails if the log has ended: a flush failed on the other thread.
    fn check(&self) -> Result<(), LogError> {
        self.shared.failure.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn set_active_bytes(&mut self, bytes: u64) {
        self.active.info.bytes = bytes;
        if let Some(last) = self.shared.segments.index.lock().last_mut() {
            last.bytes = bytes;
        }
    }

    /// Allocates the next segment once this one is half full, while nobody waits for it.
    pub(super) fn prepare(&mut self) {
        let size = self.shared.settings.segment_bytes;
        if self.spare.is_none() && self.active.info.offset(self.end) > size / 2 {
            // What fails here will fail, or not, when the segment is needed.
            self.spare = spare_file(&*self.shared.segments.disk, size).ok();
        }
    }

    /// Flushes and marks the log as closed in order.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        self.seal(Seal::Closed)?;
        self.spare = None;
        Ok(())
    }

    fn run(mut self, source: impl Source<M>) {
        let _ = self.shared.writer.set(std::thread::current());
        // Also when the source panics: nobody may wait for a writer that is gone.
        let guard = EndGuard(Arc::clone(&self.shared));
        let ended = self.work(source);
        guard.0.end(ended.err());
    }

    fn work(&mut self, mut source: impl Source<M>) -> Result<(), LogError> {
        let mut batch = Batch::default();
        let mut armed = false;
        loop {
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            if self.shared.aborting.load(Ordering::Acquire) {
                return Err(LogError::Closed);
            }
            self.check()?;
            let requests = std::mem::take(&mut *self.shared.sync_requests.lock());
            let mark = source.take(&mut batch).filter(|_| !batch.bytes.is_empty());
            let idle = mark.is_none() && requests.is_empty();
            if let Some(mark) = &mark {
                self.until_space(|w| w.write(&mut batch, mark))?;
            }
            self.asked.extend(requests);
            self.flush_if_due()?;
            if !idle {
                armed = false;
                self.shared.asleep.store(false, Ordering::SeqCst);
                self.prepare();
                self.linger(batch.bytes.len());
                batch.clear();
            } else if stopping {
                return self.until_space(Self::close);
            } else if armed {
                self.park();
                armed = false;
            } else {
                // Whoever pushes from here on wakes us; one more look finds what was pushed before.
                self.shared.asleep.store(true, Ordering::SeqCst);
                armed = true;
            }
        }
    }

    /// Tries again while the disk is full; gives up when the log is told to end.
    fn until_space(&mut self, mut step: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), LogError> {
        loop {
            match step(self) {
                Ok(()) => {
                    self.shared.set_full(false);
                    return Ok(());
                }
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Full) if self.shared.stopping.load(Ordering::Acquire) => {
                    return Err(LogError::Full);
                }
                Err(Fault::Full) => {
                    self.shared.set_full(true);
                    std::thread::park_timeout(self.shared.settings.full_retry);
                }
            }
        }
    }

    fn flush_due(&self) -> bool {
        let asked = !self.asked.is_empty();
        match (self.dirty, self.shared.settings.sync) {
            (None, _) => false,
            (Some(_), Sync::Always) => true,
            (Some(since), Sync::EverySecond) => asked || since.elapsed() >= EVERY,
            (Some(_), Sync::Never) => asked,
        }
    }

    /// Without a flush to wait for, small batches would follow each other at one write a push. Longer
    /// where no link has waited for a write lately: then only the next flush needs it.
    fn linger(&mut self, wrote: usize) {
        const LARGE: usize = 128 << 10;
        const LATELY: Duration = Duration::from_secs(1);
        const UNAWAITED: u32 = 8;
        let settings = &self.shared.settings;
        if settings.sync == Sync::Always || wrote == 0 || wrote >= LARGE || settings.linger.is_zero() {
            return;
        }
        let waits = self.shared.written.waits();
        if waits != self.awaited.0 {
            self.awaited = (waits, Instant::now());
        }
        let lately = self.awaited.1.elapsed() < LATELY;
        std::thread::park_timeout(if lately { settings.linger } else { settings.linger * UNAWAITED });
    }

    fn park(&self) {
        match (self.dirty, self.shared.settings.sync) {
            (Some(since), Sync::EverySecond) if !self.flusher.as_ref().is_some_and(Flusher::busy) => {
                std::thread::park_timeout(EVERY.saturating_sub(since.elapsed()));
            }
            _ => std::thread::park(),
        }
    }
}

struct EndGuard<M: Mark>(Arc<Shared<M>>);

impl<M: Mark> Drop for EndGuard<M> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// A spare file of `bytes`, or of less where the disk is nearly full: down to `least`, so that a log goes on with
/// whatever room there is. Also returns its size.
fn spare_that_fits(disk: &dyn Disk, bytes: u64, least: u64) -> io::Result<(Arc<dyn LogFile>, u64)> {
    let mut size = bytes;
    loop {
        match spare_file(disk, size) {
            Err(error) if is_full(&error) && size > least => size = (size / 4).max(least),
            made => return made.map(|file| (file, size)),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn spare_file(disk: &dyn Disk, bytes: u64) -> io::Result<Arc<dyn LogFile>> {
    let file = disk.create(SPARE, bytes)?;
    // Length and allocation become durable now, so that later flushes have no metadata to write.
    file.sync_data()?;
    Ok(file)
}

/// Gives the spare file its header and its name.
fn begin(
    disk: &dyn Disk,
    file: Arc<dyn LogFile>,
    start: Lsn,
    previous_end: Lsn,
    mark: &[u8],
    bytes: u64,
) -> Result<Active, Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let header = segment::encode_header(start, previous_end, created_at_ms, mark).map_err(Fault::Fatal)?;
    file.write_at(&header, 0).map_err(write_fault("write a segment header"))?;
    file.sync_data().map_err(flush_fault("flush a segment header"))?;
    disk.rename(SPARE, &segment::file_name(start)).map_err(write_fault("name a segment"))?;
    disk.sync_dir().map_err(flush_fault("flush the directory"))?;
    let info = SegmentInfo {
        start,
        end: start,
        previous_end,
        mark: Bytes::copy_from_slice(mark),
        created_at_ms,
        bytes,
        header_len: header.len(),
    };
    Ok(Active { file, info })
}

/// The running writer. Dropping it ends the log where it is, as a crash would; [`WriterThread::shutdown`] ends it in order.
pub struct WriterThread<M: Mark> {
    shared: Arc<Shared<M>>,
    thread: Option<JoinHandle<()>>,
}

impl<M: Mark> fmt::Debug for WriterThread<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterThread").finish_non_exhaustive()
    }
}

impl<M: Mark> WriterThread<M> {
    /// Writes and flushes everything pushed, marks the log as closed and ends the thread. Blocks. Call when nothing is
    /// pushed any more.
    pub fn shutdown(mut self) -> Result<(), LogError> {
        self.stop();
        match self.shared.ended() {
            LogError::Closed => Ok(()),
            error => Err(error),
        }
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the source was reported by the panic hook; the log is closed either way.
            let _ = thread.join();
        }
    }
}

impl<M: Mark> Drop for WriterThread<M> {
    fn drop(&mut self) {
        self.shared.aborting.store(true, Ordering::Release);
        self.stop();
    }
}
