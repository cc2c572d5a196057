//! The thread that takes dirty objects to the store in the background, in rounds, and truncates the
//! log below what the store and the peers have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use meridian_conflict::clock::{Hlc, VersionVector};
use meridian_topology::sequence::Position;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::Log;
use super::reaper::{Reaper, Settled};
use super::seeding::Seeding;
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::oplog::Lsn;
use crate::sequencer::Sequencer;
use crate::store::{Batch, StoreError};

/// The time from one round's beginning to the next one's, unless the log has grown much.
const ROUND_EVERY: Duration = Duration::from_secs(5);

/// Log grown since the last round that begins the next one early.
const ROUND_LOG_BYTES: u64 = 256 << 20;

/// How often memory, growth and retention are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How long reaping goes on at a time, and how long it then pauses.
const REAP_SLICE: Duration = Duration::from_millis(5);

/// See [`REAP_SLICE`].
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// How long to wait after the store refused a batch.
const RETRY: Duration = Duration::from_millis(500);

/// How long the log is kept for a region that took over this one's state, after its stream has ended.
const PIN_GRACE: Duration = Duration::from_secs(60);

/// What the store keeps of where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// What the rows include, at least.
    pub position: Position,
    /// Recovery replays the log from here.
    pub lsn: Lsn,
    /// What the log cannot serve; see [`Sequencer::floor`].
    pub floor: VersionVector,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredForm {
    version: u8,
    lsn: u64,
    #[serde(with = "serde_bytes")]
    position: Vec<u8>,
    /// Since version 2.
    floor: VersionVector,
}

const STORED_VERSION: u8 = 2;

impl Stored {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let position = self.position.encode();
        let (lsn, floor) = (self.lsn.0, self.floor.clone());
        // Integers and bytes always encode.
        postcard::to_stdvec(&StoredForm { version: STORED_VERSION, lsn, position, floor }).unwrap_or_default()
    }

    /// Reads what this or an earlier version wrote. `None` if it is not ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let form: StoredForm = match bytes.first() {
            // Version 1 ends before the floor.
            Some(1) => postcard::from_bytes(&[bytes, &[0]].concat()).ok()?,
            Some(&STORED_VERSION) => postcard::from_bytes(bytes).ok()?,
            _ => return None,
        };
        let position = Position::decode(&form.position).ok()?;
        Some(Self { position, lsn: Lsn(form.lsn), floor: form.floor })
    }
}

#[derive(Default)]
struct Requests {
    waiting: Vec<oneshot::Sender<()>>,
    hurry: bool,
    stop: bool,
    #[cfg(test)]
    abandon: bool,
}

struct Shared {
    requests: Mutex<Requests>,
    wake: Condvar,
    committed: AtomicU64,
    failed: AtomicBool,
    /// Nothing of the log below this is needed by any peer.
    peers_have: AtomicU64,
    pins: Mutex<Pins>,
}

/// What of the log is kept although nobody has subscribed to it yet.
#[derive(Default)]
struct Pins {
    last: u64,
    /// By number: from where, and until when once it was let go.
    held: BTreeMap<u64, (Lsn, Option<Instant>)>,
}

impl Pins {
    fn lowest(&mut self) -> Option<Lsn> {
        self.held.retain(|_, (_, until)| until.is_none_or(|until| until > Instant::now()));
        self.held.values().map(|(lsn, _)| *lsn).min()
    }
}

/// Keeps the log from some position on while it lives, and a minute longer.
pub struct Pin {
    shared: Arc<Shared>,
    number: u64,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some((_, until)) = self.shared.pins.lock().held.get_mut(&self.number) {
            *until = Some(Instant::now() + PIN_GRACE);
        }
    }
}

/// Access to the committer.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What the thread works on.
pub(super) struct Work {
    pub(super) keyspace: Arc<Keyspace>,
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) log: Log,
    pub(super) metrics: Arc<Metrics>,
    pub(super) relief: Arc<Notify>,
    pub(super) memory_max: u64,
    pub(super) retention: Retention,
    pub(super) seeding: Arc<Seeding>,
    pub(super) settled: Arc<Mutex<Settled>>,
    /// How far ahead of this region's clock a merged object's stamps may be.
    pub(super) max_skew_ms: u64,
}

/// How long the log is kept for peers that lack it.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// At least so long, unless `max_bytes` comes first.
    pub time: Duration,
    /// At most so much.
    pub max_bytes: u64,
}

impl Handle {
    /// Starts the thread. `from` is where the store stands.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(work: Work, from: Lsn) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            wake: Condvar::new(),
            committed: AtomicU64::new(from.0),
            failed: AtomicBool::new(false),
            peers_have: AtomicU64::new(0),
            pins: Mutex::default(),
        });
        let handle = Self { shared: Arc::clone(&shared) };
        let name = "committer".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || Committer { shared, work }.run())?;
        Ok((handle, thread))
    }

    /// The store holds everything in the log below this, durably.
    pub fn committed_lsn(&self) -> Lsn {
        Lsn(self.shared.committed.load(Ordering::Acquire))
    }

    /// Whether the store refuses commits.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Tells what of the log no peer needs any more.
    pub fn set_peers_have(&self, lsn: Lsn) {
        self.shared.peers_have.store(lsn.0, Ordering::Release);
    }

    /// Keeps the log from `lsn` on, whatever the retention says.
    pub fn pin(&self, lsn: Lsn) -> Pin {
        let mut pins = self.shared.pins.lock();
        pins.last += 1;
        let number = pins.last;
        pins.held.insert(number, (lsn, None));
        Pin { shared: Arc::clone(&self.shared), number }
    }

    /// Begins a round now.
    pub fn hurry(&self) {
        self.shared.requests.lock().hurry = true;
        self.shared.wake.notify_one();
    }

    /// Waits until everything that is dirty now is in the store. Returns `false` when the store
    /// fails or the region stops.
    pub async fn commit_now(&self) -> bool {
        let (done, wait) = oneshot::channel();
        self.shared.requests.lock().waiting.push(done);
        self.shared.wake.notify_one();
        wait.await.is_ok()
    }

    /// Ends the thread without a last round.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        let mut requests = self.shared.requests.lock();
        (requests.stop, requests.abandon) = (true, true);
    }

    /// Takes a last round out and ends the thread.
    pub(super) fn stop(&self) {
        self.shared.requests.lock().stop = true;
        self.shared.wake.notify_one();
    }
}

struct Committer {
    shared: Arc<Shared>,
    work: Work,
}

impl Committer {
    fn run(self) {
        let mut batch = Batch::new();
        let started = Instant::now();
        let mut last_round = Instant::now();
        let mut round_lsn = self.work.log.start_lsn();
        let (mut reaper, mut reaping) = (Reaper::default(), false);
        loop {
            let (waiting, due, stop) = {
                let mut requests = self.shared.requests.lock();
                if requests.waiting.is_empty() && !requests.hurry && !requests.stop {
                    self.shared.wake.wait_for(&mut requests, if reaping { REAP_PAUSE } else { TICK });
                }
                let hurry = std::mem::take(&mut requests.hurry);
                (std::mem::take(&mut requests.waiting), hurry, requests.stop)
            };
            #[cfg(test)]
            if self.shared.requests.lock().abandon {
                return;
            }
            let seconds = u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX);
            self.work.keyspace.set_clock(seconds);
            let grown = self.work.log.written_lsn().since(round_lsn);
            let time = last_round.elapsed() >= ROUND_EVERY && self.work.keyspace.dirty_objects() > 0;
            if stop || due || time || grown >= ROUND_LOG_BYTES || !waiting.is_empty() {
                last_round = Instant::now();
                match self.round(&mut batch, stop) {
                    Ok(lsn) => {
                        round_lsn = lsn;
                        self.truncate();
                        for done in waiting {
                            let _ = done.send(());
                        }
                    }
                    Err(stopped) if stopped || stop => return,
                    Err(_) => {}
                }
            }
            self.bound_memory();
            if stop {
                return;
            }
            reaping = self.reap(&mut reaper);
        }
    }

    /// Lets go of what only remembers, for a while. Returns whether there is more.
    fn reap(&self, reaper: &mut Reaper) -> bool {
        let until = Instant::now() + REAP_SLICE;
        while reaper.step(&self.work, Lsn(self.shared.committed.load(Ordering::Acquire))) {
            if Instant::now() >= until {
                return true;
            }
        }
        false
    }

    /// Above all stamps that any object can hold now.
    fn clock(&self) -> Hlc {
        let merged = Hlc::from_ms(super::wall_now().0.saturating_add(self.work.max_skew_ms));
        self.work.sequencer.progress().1.max(merged)
    }

    /// One round. `Err(true)` when the region stopped meanwhile.
    fn round(&self, batch: &mut Batch, stopping: bool) -> Result<Lsn, bool> {
        let work = &self.work;
        let (position, floor, lsn) = work.sequencer.to_store();
        let counts = self.retry(stopping, || work.keyspace.stored_counts())?;
        let mut round = work.keyspace.begin_round(counts);
        loop {
            let more = match work.keyspace.fill_batch(&mut round, batch, &|| self.clock()) {
                Ok(more) => more,
                Err(error) => {
                    // Only an impossible row gets here; it would come again and again.
                    self.note(&error);
                    return Err(true);
                }
            };
            if !more {
                break;
            }
            // Rows may be younger than the position, but never younger than the durable log.
            work.log.sync_now_blocking().map_err(|_| true)?;
            self.retry(stopping, || work.keyspace.store().commit(batch))?;
        }
        batch.clear();
        batch.set_position(&Stored { position, lsn, floor }.encode());
        work.log.sync_now_blocking().map_err(|_| true)?;
        self.retry(stopping, || work.keyspace.store().commit(batch))?;
        self.retry(stopping, || work.keyspace.store().sync())?;
        self.shared.committed.store(lsn.0, Ordering::Release);
        work.keyspace.end_round(&mut round);
        work.relief.notify_waiters();
        Ok(lsn)
    }

    fn retry<T>(&self, stopping: bool, mut what: impl FnMut() -> Result<T, StoreError>) -> Result<T, bool> {
        loop {
            match what() {
                Ok(done) => {
                    self.shared.failed.store(false, Ordering::Release);
                    return Ok(done);
                }
                Err(error) => {
                    self.note(&error);
                    if stopping || self.shared.requests.lock().stop {
                        return Err(true);
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn note(&self, error: &StoreError) {
        self.work.metrics.store.store_errors.inc();
        if !self.shared.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the store refuses commits; the log keeps what it lacks");
        }
    }

    fn bound_memory(&self) {
        let (bytes, max) = (self.work.keyspace.memory_bytes(), self.work.memory_max);
        if bytes <= max {
            return;
        }
        // Some room, so that the next write does not bring us back here.
        let evicted = self.work.keyspace.evict(bytes - max + max / 20);
        self.work.metrics.store.evicted_objects.inc_by(evicted.objects);
        if self.work.keyspace.memory_bytes() > max && self.work.keyspace.dirty_objects() > 0 {
            self.shared.requests.lock().hurry = true;
        }
        self.work.relief.notify_waiters();
    }

    /// Lets segments go that the store has, and that the peers have or that are past retention.
    fn truncate(&self) {
        let committed = self.shared.committed.load(Ordering::Acquire);
        let peers_have = self.shared.peers_have.load(Ordering::Acquire);
        let segments = self.work.log.segments();
        let total: u64 = segments.iter().map(|s| s.bytes).sum();
        let now = super::wall_now().0;
        let mut excess = total.saturating_sub(self.work.retention.max_bytes);
        let keep_ms = u64::try_from(self.work.retention.time.as_millis()).unwrap_or(u64::MAX);
        let pinned = self.shared.pins.lock().lowest().unwrap_or(Lsn(u64::MAX));
        let mut below = Lsn(0);
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let old = now.saturating_sub(next.created_at_ms) > keep_ms;
            let wanted = segment.end.0 > peers_have && !old && excess == 0;
            if wanted || segment.end.0 > committed || segment.end > pinned {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            below = segment.end;
        }
        if below.0 > 0
            && let Err(error) = self.work.log.truncate_below(below)
        {
            tracing::warn!(%error, "cannot remove log segments that nobody needs");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Dot, Origin};

    use super::*;

    #[test]
    fn a_stored_position_of_either_version_is_read_and_any_bytes_are_not() {
        let floor: VersionVector = [Dot::new(Origin(7), 300)].into_iter().collect();
        let stored = Stored { position: Position::default(), lsn: Lsn(1 << 40), floor };
        let bytes = stored.encode();
        assert_eq!(bytes, [2, 128, 128, 128, 128, 128, 32, 4, 1, 0, 0, 0, 1, 7, 172, 2]);
        assert_eq!(Stored::decode(&bytes), Some(stored.clone()));
        let old = [1, 128, 128, 128, 128, 128, 32, 4, 1, 0, 0, 0];
        assert_eq!(Stored::decode(&old), Some(Stored { floor: VersionVector::new(), ..stored }));
        assert_eq!(Stored::decode(&[]), None);
        assert_eq!(Stored::decode(&[3, 0, 0]), None);
    }
}
