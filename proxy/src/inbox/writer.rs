//! The thread that completes records, takes them to the store in batches, and keeps them within their bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::asking::{Allowance, Asking};
use super::record::Record;
use super::shelf::Shelf;
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::region::wall_now;

/// Records that wait for the thread.
pub(super) const QUEUE_RECORDS: usize = 4_096;

/// Bytes of records that wait for the thread.
pub(super) const QUEUE_BYTES: usize = 32 << 20;

/// Records that go down in one batch.
pub(super) const BATCH_RECORDS: usize = 256;

/// How often ages are looked at, and what was added is made to survive a power loss.
const TICK: Duration = Duration::from_secs(1);

/// A conflict that was noted, with what is to be found out about it.
pub(super) struct Noted {
    pub(super) record: Record,
    pub(super) asking: Asking,
    /// The outcome if a hook gives no value.
    pub(super) winner: &'static str,
}

impl Noted {
    fn weight(&self) -> usize {
        self.record.weight() + self.asking.len()
    }
}

/// What the thread is told.
enum Message {
    Record(Box<Noted>),
    /// Answered once everything before it is recorded.
    Settle(oneshot::Sender<()>),
    Stop,
    #[cfg(test)]
    Abandon,
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    bytes: Arc<AtomicUsize>,
}

/// The bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) retention: Duration,
}

impl Queue {
    /// Hands a record over. Never waits: `false` when there is no room.
    pub(super) fn offer(&self, record: Box<Noted>) -> bool {
        let weight = record.weight();
        if self.bytes.fetch_add(weight, Ordering::Relaxed) + weight > QUEUE_BYTES {
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
            return false;
        }
        match self.sender.try_send(Message::Record(record)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.bytes.fetch_sub(weight, Ordering::Relaxed);
                false
            }
        }
    }

    /// Waits until what was handed over is recorded, or never will be.
    pub(super) async fn settle(&self) {
        let (answer, settled) = oneshot::channel();
        let sender = self.sender.clone();
        let sent = tokio::task::spawn_blocking(move || sender.send(Message::Settle(answer)).is_ok()).await;
        if matches!(sent, Ok(true)) {
            // An error means that the thread has ended.
            let _ = settled.await;
        }
    }

    /// Has the thread record what it was given, and end. Blocks until it is told.
    pub(super) fn stop(&self) {
        // It has ended already if nobody listens.
        let _ = self.sender.send(Message::Stop);
    }

    /// Has the thread end as a crash would.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        let _ = self.sender.send(Message::Abandon);
    }
}

/// Starts the thread. `newest` is told one past the number of the newest record.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn spawn(
    shelf: Arc<Shelf>,
    keyspace: Arc<Keyspace>,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    newest: watch::Sender<u64>,
) -> std::io::Result<(Queue, JoinHandle<()>)> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUE_RECORDS);
    let bytes = Arc::new(AtomicUsize::new(0));
    let queue = Queue { sender, bytes: Arc::clone(&bytes) };
    let (failing, unsynced, allowance) = (false, false, Allowance::default());
    let mut writer = Writer { shelf, keyspace, allowance, bounds, metrics, newest, bytes, failing, unsynced };
    let thread = thread::Builder::new().name("inbox".into()).spawn(move || writer.run(&receiver))?;
    Ok((queue, thread))
}

struct Writer {
    shelf: Arc<Shelf>,
    keyspace: Arc<Keyspace>,
    allowance: Allowance,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    newest: watch::Sender<u64>,
    bytes: Arc<AtomicUsize>,
    failing: bool,
    unsynced: bool,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Message>) {
        let mut batch = Vec::new();
        let mut ticked = Instant::now();
        self.tidy();
        loop {
            let wait = TICK.saturating_sub(ticked.elapsed());
            match receiver.recv_timeout(wait) {
                Ok(Message::Record(record)) => {
                    batch.push(*record);
                    let last = self.fill(receiver, &mut batch);
                    self.record(&mut batch);
                    match last {
                        Some(Message::Settle(answer)) => drop(answer.send(())),
                        Some(Message::Stop) => break,
                        #[cfg(test)]
                        Some(Message::Abandon) => return,
                        Some(Message::Record(_)) | None => {}
                    }
                }
                Ok(Message::Settle(answer)) => drop(answer.send(())),
                #[cfg(test)]
                Ok(Message::Abandon) => return,
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tidy();
                self.sync();
            }
        }
        self.sync();
    }

    /// Adds what else waits, up to a batch; returns what is not a record.
    fn fill(&self, receiver: &Receiver<Message>, batch: &mut Vec<Noted>) -> Option<Message> {
        while batch.len() < BATCH_RECORDS {
            match receiver.try_recv().ok()? {
                Message::Record(record) => batch.push(*record),
                other => return Some(other),
            }
        }
        None
    }

    fn record(&mut self, batch: &mut Vec<Noted>) {
        let weight: usize = batch.iter().map(Noted::weight).sum();
        let records: Vec<Record> = batch.drain(..).map(|noted| self.completed(noted)).collect();
        match self.shelf.add(&records) {
            Ok(new) => {
                self.failing = false;
                self.unsynced |= new > 0;
            }
            Err(error) => {
                self.metrics.conflicts.records_dropped.inc_by(records.len() as u64);
                self.failed("record conflicts", &error);
            }
        }
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
        self.tidy();
    }

    /// Asks what is to be asked, under the policies of now.
    fn completed(&mut self, noted: Noted) -> Record {
        let Noted { mut record, asking, winner } = noted;
        if !asking.is_empty() {
            let active = self.keyspace.policies().current();
            asking.complete(&mut record, winner, &active, &mut self.allowance, &self.metrics);
        }
        record
    }

    /// Keeps the bounds, and tells of what there is.
    fn tidy(&mut self) {
        let retention_ms = u64::try_from(self.bounds.retention.as_millis()).unwrap_or(u64::MAX);
        let since_ms = wall_now().0.saturating_sub(retention_ms);
        loop {
            match self.shelf.trim(self.bounds.max_bytes, since_ms) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.failed("remove old conflict records", &error);
                    break;
                }
            }
        }
        let head = self.shelf.head();
        self.metrics.conflicts.inbox_records.set(i64::try_from(head.records()).unwrap_or(i64::MAX));
        self.metrics.conflicts.inbox_bytes.set(i64::try_from(head.bytes).unwrap_or(i64::MAX));
        self.newest.send_if_modified(|newest| std::mem::replace(newest, head.next) != head.next);
    }

    fn sync(&mut self) {
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        if let Err(error) = self.shelf.sync() {
            self.failed("flush conflict records", &error);
        }
    }

    /// Says so once, until it works again.
    fn failed(&mut self, what: &str, error: &crate::store::StoreError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "cannot {what}; counters go on");
        }
    }
}
