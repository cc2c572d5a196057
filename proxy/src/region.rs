//! One running region: its keyspace, order, log and store, put together. Several regions may live
//! in one process; nothing here is global.
//!
//! | module | room of |
//! |---|---|
//! | [`identity`] | who this data directory belongs to, and in which life |
//! | [`membership`] | who belongs to the cluster, and changing that |
//! | [`retired`] | lives of regions that were removed |
//! | [`recover`] | from the files on disk to a running state |
//! | [`foreign`] | whether an op from elsewhere can be applied |
//! | [`committer`] | the thread that takes dirty objects to the store |
//! | [`reaper`] | letting go of what only remembers, on the same thread |
//! | [`clock`] | the hybrid clock over restarts |
//! | [`seeding`] | how far taking over another region's state has come |

pub mod clock;
pub mod committer;
pub mod foreign;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod fuzz;
pub mod identity;
pub mod membership;
pub mod parked;
pub mod reaper;
pub mod recover;
pub mod retired;
pub mod seeding;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meridian_conflict::clock::{Dot, Origin, RegionId, VersionVector, covers};
use meridian_topology::time::{MonoMs, WallMs};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::cert;
use crate::config::settings::{LogSync, Settings};
use crate::homes::Homes;
use crate::inbox::{Inbox, distinct};
use crate::keyspace::Keyspace;
use crate::keyspace::placed::PlacedConflict;
use crate::link::faults::Faults;
use crate::metrics::Metrics;
use crate::oplog::{self, LogError, Lsn};
use crate::policies::book::Book;
use crate::replication::entropy::Entropy;
use crate::sequencer::{AppliedMark, Sequencer};
use crate::session::clients::Clients;
use crate::session::password::Password;
use crate::store::StoreError;
use membership::Membership;

/// The region's log.
pub type Log = oplog::Log<AppliedMark>;

/// A running region.
pub struct Region {
    settings: Settings,
    keyspace: Arc<Keyspace>,
    sequencer: Arc<Sequencer>,
    log: Log,
    origin: AtomicU64,
    metrics: Arc<Metrics>,
    inbox: Arc<Inbox>,
    committer: committer::Handle,
    started: Instant,
    boot: u64,
    draining: AtomicBool,
    /// Woken when a shutdown begins.
    pub(crate) drain: Notify,
    /// Woken when the store has caught up or memory was freed.
    relief: Arc<Notify>,
    recovered: recover::Report,
    /// Whether the incarnation is known not to have given out more than this region remembers.
    confirmed: watch::Sender<bool>,
    is_new: bool,
    seeding: Arc<seeding::Seeding>,
    /// Woken when a takeover was given up.
    anew: Notify,
    settled: Arc<Mutex<reaper::Settled>>,
    clients: Arc<Clients>,
    password: Option<Password>,
    /// The fault knobs, where they are configured.
    faults: Option<Faults>,
    /// Woken when more has been applied here, or is known to be durable elsewhere.
    pub(crate) progress: Notify,
    /// Who belongs to the cluster, told to the links when it changes.
    pub(crate) membership: watch::Sender<Arc<Membership>>,
    follower: AtomicBool,
    config_file: OnceLock<PathBuf>,
    entropy: Entropy,
    certificate: cert::Standing,
    policies: Book,
    homes: Homes,
    parked: parked::Parked,
    /// What each other region is known to have applied durably.
    elsewhere: Mutex<BTreeMap<RegionId, VersionVector>>,
}

/// How much log the store may be behind before writers wait for it.
const STORE_LAG_MAX: u64 = 1 << 30;

/// How much may wait to be written to the log before writers wait.
const LOG_BACKLOG_MAX: u64 = 64 << 20;

/// How far past `store.memory_max` memory may go before clients wait for eviction.
const MEMORY_SLACK: f64 = 1.25;

/// How often one that waits for the committer asks whether the store has failed.
const FAILURE_CHECK: Duration = Duration::from_millis(200);

/// How often a waiting client looks again.
const RELIEF_POLL: Duration = Duration::from_millis(10);

/// The longest that a client is made to wait before it gets an error instead.
const RELIEF_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a read waits at most for a store that is behind, so that eviction keeps up with reads.
const RELIEF_PAUSE: Duration = Duration::from_millis(50);

impl Region {
    /// What it was configured as.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The hot objects.
    pub fn keyspace(&self) -> &Arc<Keyspace> {
        &self.keyspace
    }

    /// The order of ops.
    pub fn sequencer(&self) -> &Arc<Sequencer> {
        &self.sequencer
    }

    /// The op log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The conflicts that were recorded.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Counts the conflicts that an op, a merge or a mend met here, each once, and records those there is room for.
    pub fn note_conflicts(&self, conflicts: Vec<PlacedConflict>) {
        if conflicts.is_empty() {
            return;
        }
        let (origin, at_ms) = (self.origin(), self.wall().0);
        for conflict in distinct(conflicts) {
            self.metrics.conflicts.count(&conflict);
            self.inbox.note(conflict, origin, at_ms);
        }
    }

    /// Who is connected.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// What clients have to say first, if anything.
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// The fault knobs, if `[dev] faults` is on.
    pub fn faults(&self) -> Option<&Faults> {
        self.faults.as_ref()
    }

    /// The store's committer.
    pub fn committer(&self) -> &committer::Handle {
        &self.committer
    }

    /// What starting found on disk.
    pub fn recovered(&self) -> &recover::Report {
        &self.recovered
    }

    /// The origin that local ops are written under.
    pub fn origin(&self) -> Origin {
        Origin(self.origin.load(Ordering::Acquire))
    }

    /// Goes on under a new incarnation: what this one had given out cannot be trusted any more.
    ///
    /// # Errors
    /// When the identity cannot be written; nothing changed.
    pub fn take_new_incarnation(&self, because: &str) -> anyhow::Result<Origin> {
        let old = self.origin();
        let identity = identity::Identity::fresh(&self.settings)?;
        let new = identity.origin();
        identity.store(&self.settings.data_dir)?;
        self.sequencer.reincarnate(new);
        self.origin.store(new.0, Ordering::Release);
        tracing::warn!(%old, %new, because, "took a new incarnation");
        Ok(new)
    }

    /// Whether the incarnation is safe to write under; see [`Region::confirmed`].
    pub fn is_confirmed(&self) -> bool {
        *self.confirmed.borrow()
    }

    /// Whether the data directory was empty at the start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The incarnation is safe to write under.
    pub fn confirm(&self) {
        self.confirmed.send_replace(true);
    }

    /// Waits until the incarnation is safe to write under. After a start that keeps its
    /// incarnation, the files may be older than they seem (a volume that was rolled back), and
    /// numbers may have been given out that are not remembered here: either every neighbour says
    /// that it knows of none, or a new incarnation is taken.
    pub async fn confirmed(&self) {
        let mut confirmed = self.confirmed.subscribe();
        // The sender lives as long as this region.
        let _ = confirmed.wait_for(|confirmed| *confirmed).await;
    }

    /// All regions' policies.
    pub fn policies(&self) -> &Book {
        &self.policies
    }

    /// Which keys are written where.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Ops that could not be applied.
    pub fn parked(&self) -> &parked::Parked {
        &self.parked
    }

    /// Comparing with other regions.
    pub fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    /// This region's certificate.
    pub fn certificate(&self) -> &cert::Standing {
        &self.certificate
    }

    /// How far taking over another region's state has come.
    pub fn seeding(&self) -> &seeding::Seeding {
        &self.seeding
    }

    /// Notes what is settled: what the reaper may let go of.
    pub fn set_settled(&self, settled: reaper::Settled) {
        *self.settled.lock() = settled;
    }

    /// Gives up a takeover that is lost in part: the region has to be started again, and begins with nothing.
    pub(crate) fn begin_anew(&self) {
        self.anew.notify_one();
    }

    /// Waits until the region has to be started again, to begin with nothing.
    pub async fn begins_anew(&self) {
        self.anew.notified().await;
    }

    /// Whether clients have to wait because another region's state is being taken over.
    pub fn is_loading(&self) -> bool {
        self.seeding.is_loading()
    }

    /// Takes everything that is dirty now to the store, durably.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the store takes nothing, or the region stops.
    pub async fn commit_all(&self) -> Result<(), StoreError> {
        let mut commit = std::pin::pin!(self.committer.commit_now());
        loop {
            // A committer whose store fails tries on and on; nobody is to wait for that.
            if self.committer.has_failed() {
                return Err(StoreError::Failed);
            }
            match tokio::time::timeout(FAILURE_CHECK, &mut commit).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(StoreError::Failed),
                Err(_) => {}
            }
        }
    }

    /// Whether clients may not write here.
    pub fn is_follower(&self) -> bool {
        self.follower.load(Ordering::Acquire)
    }

    /// How many regions but one are known to have durably applied the op; all of them where there is none. The one is the
    /// region that wrote it; of an op that was written elsewhere, for a client here, this region counts like any other.
    pub fn regions_with(&self, dot: Option<&Dot>) -> usize {
        let Some(dot) = dot else { return self.membership().regions.len().saturating_sub(1) };
        let others = self.elsewhere.lock().values().filter(|vector| covers(vector, dot)).count();
        let is_own = dot.actor.region() == self.origin().region();
        let is_here = is_own || covers(&self.log.durable().1.0, dot);
        (others + usize::from(is_here)).saturating_sub(1)
    }

    /// What another region is known to have durably applied.
    pub fn elsewhere(&self, region: RegionId) -> Option<VersionVector> {
        self.elsewhere.lock().get(&region).cloned()
    }

    /// Notes what the other regions have durably applied.
    pub fn set_elsewhere(&self, rows: BTreeMap<RegionId, VersionVector>) {
        *self.elsewhere.lock() = rows;
        self.progress.notify_waiters();
    }

    /// The largest op body, in bytes.
    pub fn max_op(&self) -> usize {
        usize::try_from(self.settings.limits.max_op).unwrap_or(usize::MAX)
    }

    /// The wall clock.
    pub fn wall(&self) -> WallMs {
        wall_now()
    }

    /// The monotonic clock, from the region's start.
    pub fn mono(&self) -> MonoMs {
        MonoMs(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// A number of this run, different in every run.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits, under `sync = "always"`, until the log is durable up to `wait_for` (one past the
    /// position that matters). Under the other settings replies do not wait.
    ///
    /// # Errors
    /// [`LogError`] when it never will be; then the reply must not be sent.
    pub async fn wait_durable(&self, wait_for: u64) -> Result<(), LogError> {
        if self.must_wait(wait_for) {
            self.log.wait_durable(Lsn(wait_for.saturating_sub(1))).await?;
        }
        Ok(())
    }

    /// Whether [`Region::wait_durable`] would wait.
    pub fn must_wait(&self, wait_for: u64) -> bool {
        wait_for > self.log.durable_lsn().0 && self.settings.log.sync == LogSync::Always
    }

    /// Whether the store is too far behind or memory too full for more writes.
    pub fn is_strained(&self) -> bool {
        let memory_max = self.settings.store.memory_max as f64 * MEMORY_SLACK;
        self.sequencer.end().since(self.log.written_lsn()) > LOG_BACKLOG_MAX
            || self.store_lag_bytes() > STORE_LAG_MAX
            || self.keyspace.memory_bytes() as f64 > memory_max
    }

    /// Bytes of this run's log that the store lacks. Positions jump at a start, so what an earlier
    /// run left is not counted.
    pub fn store_lag_bytes(&self) -> u64 {
        let from = self.committer.committed_lsn().max(self.log.start_lsn());
        self.log.written_lsn().since(from)
    }

    /// Waits until the store has caught up and memory is within bounds.
    ///
    /// # Errors
    /// The text for the client when that takes too long.
    pub async fn wait_for_relief(&self) -> Result<(), &'static str> {
        self.wait_for_relief_within(RELIEF_TIMEOUT).await
    }

    /// Likewise for what hardly adds to the strain: a read may bring an object into memory.
    pub async fn pause_for_relief(&self) {
        let _ = self.wait_for_relief_within(RELIEF_PAUSE).await;
    }

    async fn wait_for_relief_within(&self, within: Duration) -> Result<(), &'static str> {
        let deadline = tokio::time::Instant::now() + within;
        while self.is_strained() {
            if tokio::time::Instant::now() >= deadline {
                return Err("OOM the local store cannot keep up or store.memory_max is too small; try again");
            }
            self.log.wake();
            if self.sequencer.end().since(self.log.written_lsn()) <= LOG_BACKLOG_MAX {
                self.committer.hurry();
            }
            let _ = tokio::time::timeout(RELIEF_POLL, self.relief.notified()).await;
        }
        Ok(())
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Begins a shutdown: sessions end after the command they are at.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.notify_waiters();
    }
}

/// Unix milliseconds by the system's clock.
pub fn wall_now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
