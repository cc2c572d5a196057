//! The thread that flushes while the writer goes on writing.
//!
//! Under [`super::Sync::Always`] there is nothing to go on with and the writer flushes by itself. Otherwise a slow flush
//! must not hold up the writes that links wait for, so it is done here. One flush runs at a time, and the writer
//! waits for it before it flushes by itself (a segment's end, shutdown): the system reports a failed flush to one caller only,
//! and the next flush of the same file may well succeed with the data gone.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{LogError, LogFile, Lsn, Mark, log::Shared};

/// What one flush makes durable.
pub(super) struct Flush<M> {
    pub(super) file: Arc<dyn LogFile>,
    /// Everything below was written to `file`, or is durable, before the flush begins.
    pub(super) end: Lsn,
    pub(super) mark: M,
    /// Who asked for it.
    pub(super) asked: Vec<oneshot::Sender<()>>,
}

impl<M: Mark> Flush<M> {
    /// Flushes and says so. After a failed flush the system may have dropped what was not durable: never tried again.
    pub(super) fn run(self, shared: &Shared<M>) -> Result<(), LogError> {
        let started = Instant::now();
        self.file.sync_data().map_err(|source| {
            let error = LogError::Failed { action: "flush records", source: Arc::new(source) };
            // Before those who asked hear of it: they ask what happened.
            shared.end(Some(error.clone()));
            error
        })?;
        shared.count_flush(started.elapsed());
        if self.end > shared.durable.lsn() {
            shared.durable.advance(self.end, self.mark);
        }
        for asked in self.asked {
            // Whoever asked may have given up.
            let _ = asked.send(());
        }
        Ok(())
    }
}

/// The writer's handle to the thread; dropping it waits for the flush that runs.
pub(super) struct Flusher<M> {
    flushes: Option<mpsc::Sender<Flush<M>>>,
    busy: Arc<Busy>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Busy {
    busy: Mutex<bool>,
    idle: Condvar,
}

impl<M: Mark> Flusher<M> {
    /// Starts the thread.
    pub(super) fn spawn(shared: Arc<Shared<M>>) -> Result<Self, LogError> {
        let (flushes, work) = mpsc::channel::<Flush<M>>();
        let busy = Arc::new(Busy::default());
        let done = Arc::clone(&busy);
        let thread = std::thread::Builder::new()
            .name("oplog-flusher".to_owned())
            .spawn(move || {
                for flush in work {
                    let _done = Done { busy: &done, shared: &shared };
                    if flush.run(&shared).is_err() {
                        return;
                    }
                }
            })
            .map_err(LogError::io("start the flusher thread"))?;
        Ok(Self { flushes: Some(flushes), busy, thread: Some(thread) })
    }

    /// Hands over a flush. Only while none runs.
    pub(super) fn begin(&self, flush: Flush<M>) -> Result<(), LogError> {
        *self.busy.busy.lock() = true;
        let sent = self.flushes.as_ref().map(|f| f.send(flush));
        if sent.is_some_and(|s| s.is_ok()) { Ok(()) } else { Err(LogError::Closed) }
    }

    /// Whether a flush runs; the writer is woken when it is over.
    pub(super) fn busy(&self) -> bool {
        *self.busy.busy.lock()
    }

    /// Waits for the flush that runs.
    pub(super) fn wait(&self) {
        let mut busy = self.busy.busy.lock();
        self.busy.idle.wait_while(&mut busy, |busy| *busy);
    }
}

impl<M> Drop for Flusher<M> {
    fn drop(&mut self) {
        self.flushes = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the flush hook was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Ends a flush, also when the hook panics: nobody may wait for a flush that is gone.
struct Done<'a, M: Mark> {
    busy: &'a Busy,
    shared: &'a Shared<M>,
}

impl<M: Mark> Drop for Done<'_, M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.end(None);
        }
        *self.busy.busy.lock() = false;
        self.busy.idle.notify_all();
        if let Some(writer) = self.shared.writer.get() {
            writer.unpark();
        }
    }
}
