//! From the files on disk to a running state: identity, store, then the log from the store's
//! position on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use meridian_conflict::clock::Seen;
use meridian_conflict::op::Header;
use meridian_topology::seed::Seeded;
use meridian_topology::sequence;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Region;
use super::clock::ClockFile;
use super::committer::{self, Retention, Stored, Work};
use super::foreign;
use super::identity::Identity;
use super::membership::Membership;
use super::parked::Parked;
use super::seeding::{Seeding, Stage};
use crate::config::settings::{LogSync, Role, Settings};
use crate::homes::Homes;
use crate::inbox::Inbox;
use crate::keyspace::Keyspace;
use crate::link::faults::Faults;
use crate::metrics::Metrics;
use crate::oplog::{self, LogError, Lsn, Opened, Recovery, Tail, WriterThread};
use crate::policies::book::Book;
use crate::policies::load::load_versioned;
use crate::sequencer::{AppliedMark, Sequencer, read_record};
use crate::session::password::Password;
use crate::store::{FjallOptions, FjallStore, Store};

/// The op log's place in the data directory.
const LOG: &str = "log";

/// The store's.
const STORE: &str = "store";

/// What starting found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Ops replayed from the log.
    pub replayed: u64,
    /// Why a new incarnation was taken, if one was.
    pub new_incarnation: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The threads of a region. [`Threads::stop`] ends them in order.
pub struct Threads {
    writer: WriterThread<AppliedMark>,
    committer: JoinHandle<()>,
    handle: committer::Handle,
    inbox: Arc<Inbox>,
    inbox_thread: JoinHandle<()>,
}

impl Threads {
    /// Ends as a crash would: nothing is flushed, nothing is committed.
    #[cfg(test)]
    pub(crate) fn crash(self) {
        self.handle.abandon();
        self.inbox.abandon();
        let _ = self.inbox_thread.join();
        drop(self.writer);
        let _ = self.committer.join();
    }

    /// Takes everything to the store, ends the log in order. Blocks.
    ///
    /// # Errors
    /// When the log cannot be ended; what is durable stays so.
    pub fn stop(self) -> anyhow::Result<()> {
        self.inbox.stop();
        if self.inbox_thread.join().is_err() {
            tracing::error!("the conflict inbox ended badly; its last records may be missing");
        }
        self.handle.stop();
        if self.committer.join().is_err() {
            tracing::error!("the committer ended badly; the next start replays more of the log");
        }
        self.writer.shutdown().context("cannot end the op log in order")
    }
}

impl Region {
    /// Opens the data directory and recovers. Blocks on the disk.
    ///
    /// # Errors
    /// When files cannot be read or written, or belong to somebody else. Nothing was lost.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> anyhow::Result<(Arc<Self>, Threads)> {
        Self::open_with(settings, metrics, oplog::open)
    }

    /// [`Region::open`] with the op log on another disk.
    #[cfg(test)]
    pub(crate) fn open_on(
        settings: Settings,
        metrics: Arc<Metrics>,
        disk: Arc<dyn oplog::Disk>,
    ) -> anyhow::Result<(Arc<Self>, Threads)> {
        Self::open_with(settings, metrics, |_, settings| oplog::open_on(disk, settings))
    }

    fn open_with(
        settings: Settings,
        metrics: Arc<Metrics>,
        open_log: impl FnOnce(&Path, oplog::Settings) -> Result<(Opened, Recovery), LogError>,
    ) -> anyhow::Result<(Arc<Self>, Threads)> {
        let began = Instant::now();
        let directory = settings.data_dir.clone();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create data_dir {}", directory.display()))?;
        let seeding = Arc::new(Seeding::load(&directory)?);
        let begins_anew = seeding.stage() == Some(Stage::Anew);
        let mut loaded = Identity::load(&directory, &settings)?;
        if begins_anew {
            begin_with_nothing(&directory, &settings, &seeding)?;
            loaded = Identity::load(&directory, &settings)?;
        }
        let log_settings = log_settings(&settings, &metrics);
        let (opened, found) = open_log(&directory.join(LOG), log_settings.clone())
            .with_context(|| format!("cannot open the op log in {}", directory.display()))?;
        let options = FjallOptions::default();
        let store: Arc<dyn Store> = Arc::new(FjallStore::open(&directory.join(STORE), options)?);

        let stored = match store.position()? {
            Some(bytes) => {
                Stored::decode(&bytes).ok_or_else(|| anyhow!("the store's position is damaged"))?
            }
            None => Stored::default(),
        };
        let committed = stored.lsn;
        let is_new = loaded.is_none() || begins_anew;
        let new_incarnation = loss(loaded.as_ref().is_some_and(|l| l.moved), found.tail, settings.log.sync);
        let identity = match loaded {
            Some(loaded) if new_incarnation.is_none() => loaded.identity,
            _ => {
                let identity = Identity::fresh(&settings)?;
                identity.clone().store(&directory)?;
                identity
            }
        };
        if !is_new && let Some(because) = &new_incarnation {
            tracing::warn!(because, origin = %identity.origin(), "took a new incarnation");
        }
        check_reach(&opened, committed, found.tail)?;

        let keyspace = Arc::new(Keyspace::new(Arc::clone(&store), store.position()?.is_none()));
        let loaded = load_versioned(&settings.conflicts, &directory, &metrics)?;
        keyspace.policies().witness().settle(settings.region.as_str(), metrics.hooks.failures.clone());
        let policies = Book::open(loaded, &directory, keyspace.policies(), Arc::clone(&metrics))
            .context("cannot read which hooks are in quarantine")?;
        let homes = Homes::open(&settings, &directory).context("cannot read who is home")?;
        keyspace.restore_counts()?;
        let parked = Parked::default();
        let (mut ops, replayed) = replay(&opened, &keyspace, stored, &parked)?;
        ops.reincarnate(identity.origin());
        ops.merge_clock(ClockFile::of(&directory).load().context("cannot read the clock")?);

        let (inbox, inbox_thread) =
            Inbox::open(Arc::clone(&store), Arc::clone(&keyspace), &settings.inbox, Arc::clone(&metrics))?;
        let inbox = Arc::new(inbox);
        keyspace.watch_conflicts(Arc::clone(inbox.gate()));

        let mark = AppliedMark(Arc::new(ops.applied().clone()));
        let (log, writer) = opened.start(mark)?;
        let max_record = log_settings.max_record;
        let sequencer = Arc::new(Sequencer::new(ops, log.buffer(), max_record));
        let source = Arc::clone(&sequencer);
        let writer = writer.spawn(move |batch: &mut oplog::Batch| source.take(batch))?;
        let relief = Arc::new(Notify::new());
        let settled = Arc::default();
        let work = Work {
            keyspace: Arc::clone(&keyspace),
            sequencer: Arc::clone(&sequencer),
            log: log.clone(),
            metrics: Arc::clone(&metrics),
            relief: Arc::clone(&relief),
            memory_max: settings.store.memory_max,
            seeding: Arc::clone(&seeding),
            settled: Arc::clone(&settled),
            max_skew_ms: u64::try_from(settings.clock.max_skew.as_millis()).unwrap_or(u64::MAX),
            retention: Retention { time: settings.log.retention, max_bytes: settings.log.retention_max },
        };
        let (handle, committer) = committer::Handle::spawn(work, committed)?;
        let alone = settings.topology.graph.neighbours(&settings.region).is_empty();
        if seeding.is_loading() {
            tracing::warn!("another region's state was being taken over; no clients until it is");
        }
        let (confirmed, _) = watch::channel(alone || !is_new && new_incarnation.is_some());
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let new_incarnation = new_incarnation.filter(|_| !is_new);
        let region = Arc::new(Self {
            origin: AtomicU64::new(identity.origin().0),
            faults: settings.dev.faults.then(Faults::default),
            membership: watch::Sender::new(Arc::new(Membership::of(&settings))),
            follower: AtomicBool::new(settings.role() == Role::Follower),
            config_file: OnceLock::new(),
            password: settings.auth.as_ref().map(Password::of),
            settings,
            keyspace,
            sequencer,
            log,
            metrics,
            inbox: Arc::clone(&inbox),
            committer: handle.clone(),
            started: Instant::now(),
            boot: random_u64()?,
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            relief,
            is_new,
            recovered: Report { replayed, new_incarnation, took_ms },
            confirmed,
            seeding,
            anew: Notify::new(),
            settled,
            clients: Arc::default(),
            progress: Notify::new(),
            entropy: Default::default(),
            certificate: Default::default(),
            policies,
            homes,
            parked,
            elsewhere: Mutex::default(),
        });
        Ok((region, Threads { writer, committer, handle, inbox, inbox_thread }))
    }
}

/// A takeover was given up. A new life comes first: no number is given out twice, whenever this is cut off. The clock
/// goes on.
fn begin_with_nothing(directory: &Path, settings: &Settings, seeding: &Seeding) -> anyhow::Result<()> {
    tracing::warn!("a takeover was given up: beginning with nothing, under a new incarnation");
    Identity::fresh(settings)?.store(directory)?;
    for part in [LOG, STORE] {
        let path = directory.join(part);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    seeding.forget().context("cannot forget a takeover that was given up")
}

fn random_u64() -> anyhow::Result<u64> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness for a boot number: {e}"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Why the numbers given out before cannot be trusted, if so.
fn loss(moved: bool, tail: Tail, sync: LogSync) -> Option<String> {
    if moved {
        return Some("the data directory was copied or restored from a backup".into());
    }
    match tail {
        Tail::New | Tail::Closed => None,
        // Under `always` nothing leaves the region before it is durable.
        Tail::Clean if sync == LogSync::Always => None,
        Tail::Clean => Some("the last run did not end in order and log.sync is not \"always\"".into()),
        Tail::Torn { dropped, .. } => Some(format!("the log ended in {dropped} torn bytes")),
        Tail::Damaged { lsn } => Some(format!("the log is damaged from {lsn} on")),
        Tail::Missing { lsn } => Some(format!("a log segment at {lsn} is missing")),
    }
}

/// The log must reach back to where the store stands.
fn check_reach(opened: &Opened, from: Lsn, tail: Tail) -> anyhow::Result<()> {
    let oldest = opened.segments().first().map(|s| s.previous_end);
    if let Some(oldest) = oldest
        && oldest > from
        && !matches!(tail, Tail::New)
    {
        bail!(
            "the op log begins at {oldest}, behind the store's position {from}: ops are missing, so the store in \
             {STORE}/ was lost or is an older copy. Put back the one that belongs to this log. If there is none, move \
             {LOG}/, {STORE}/ and identity.toml away: the region then takes over a neighbour's state, without what it \
             had not sent to anybody"
        );
    }
    Ok(())
}

fn log_settings(settings: &Settings, metrics: &Arc<Metrics>) -> oplog::Settings {
    let metrics = Arc::clone(metrics);
    let max_op = usize::try_from(settings.limits.max_op).unwrap_or(usize::MAX / 4);
    oplog::Settings {
        sync: match settings.log.sync {
            LogSync::Always => oplog::Sync::Always,
            LogSync::Everysec => oplog::Sync::EverySecond,
            LogSync::Never => oplog::Sync::Never,
        },
        max_record: max_op.saturating_add(128 << 10).min(1 << 30),
        tail_cache: usize::try_from(settings.limits.tail_cache).unwrap_or(usize::MAX),
        on_flush: Some(Arc::new(move |took| metrics.store.fsync_seconds.observe(took.as_secs_f64()))),
        ..oplog::Settings::default()
    }
}

/// Replays the log from where the store stands.
fn replay(
    opened: &Opened,
    keyspace: &Keyspace,
    stored: Stored,
    parked: &Parked,
) -> anyhow::Result<(sequence::Sequencer, u64)> {
    let Stored { position, lsn: from, floor } = stored;
    // Under an origin that no record has, every record is taken as it stands.
    let mut ops = sequence::Sequencer::recover(meridian_conflict::clock::Origin(0), position);
    ops.raise_floor(&floor);
    let mut replayed = 0;
    let mut chunks = opened.replay(from);
    let mut shown = Instant::now();
    while let Some(chunk) = chunks.next_chunk()? {
        for (lsn, record) in chunk.records() {
            if lsn < from {
                continue;
            }
            if Seeded::is_one(record) {
                // What was adopted is in the store: it was synced before the record was written.
                let seeded = Seeded::decode(record).with_context(|| format!("the log record at {lsn}"))?;
                ops.adopt(&seeded.position)?;
                continue;
            }
            let (header, body) = read_record(record)
                .ok_or_else(|| anyhow!("the log record at {lsn} was not written by this program"))?;
            replayed += u64::from(replay_op(&mut ops, keyspace, &header, body, lsn, parked)?);
        }
        if shown.elapsed().as_secs() >= 2 {
            shown = Instant::now();
            tracing::info!(replayed, "replaying the op log");
        }
    }
    Ok((ops, replayed))
}

fn replay_op(
    ops: &mut sequence::Sequencer,
    keyspace: &Keyspace,
    header: &Header,
    body: &[u8],
    lsn: Lsn,
    parked: &Parked,
) -> anyhow::Result<bool> {
    let Some(deps) = ops.replay(header)? else { return Ok(false) };
    let survey = match foreign::survey(body) {
        Ok(survey) => survey,
        Err(error) => {
            // It counts as applied and changes nothing.
            parked.note(header.dot, error);
            return Ok(true);
        }
    };
    let mut locked = if survey.flushes {
        keyspace.lock_all_loaded(&survey.keys, 0)?
    } else {
        keyspace.lock_loaded(&survey.keys, 0)?
    };
    locked.mark_body_dirty(body)?;
    locked.apply_body(body, header.stamp(), Seen::Vector { deps, dot: header.dot }, lsn.0)?;
    Ok(true)
}
