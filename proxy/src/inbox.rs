//! The conflict inbox: what lost, what won, and why, one record per conflict.
//!
//! A conflict is always counted. It is also recorded, unless there are more of them than `[inbox]` allows: then
//! some are, the rest adds to `conflict_records_dropped_total`. Whoever applies an op never waits for a record:
//! values are copied under the key's lock, after the bucket of [`gate`] let them through, and handed to a thread
//! over a bounded queue. Reading goes to the store.
//!
//! | module | room of |
//! |---|---|
//! | [`record`] | a record and its stored form |
//! | [`gate`] | how many are recorded |
//! | [`evidence`] | what the rivals had written, from the object |
//! | [`asking`] | what hooks and shadow policies make of them, asked afterwards |
//! | [`shelf`] | records in the store: bounds, indexes |
//! | `writer` | the thread |
//! | [`page`] | listing: filters, newest first, and following |
//! | [`form`] | a record as JSON |
//! | [`restore`] | the commands that write a loser back |
//!
//! Records of the last moments may be lost with the process: a crash takes back what waited for the thread, a
//! power loss up to a second more. The conflicting values themselves are in the object until a later write has
//! seen them.

pub mod asking;
pub mod evidence;
pub mod form;
pub mod gate;
pub mod page;
pub mod record;
pub mod restore;
pub mod shelf;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(crate) mod tests;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use meridian_conflict::clock::Origin;
use meridian_conflict::outcome::conflict_id;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::config::settings;
use crate::keyspace::Keyspace;
use crate::keyspace::placed::PlacedConflict;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
pub use evidence::{Evidence, VALUE_MAX};
pub use gate::Gate;
pub use record::{Record, Rival, Written};
use shelf::Shelf;
use writer::{Bounds, Noted, Queue};

/// Followers at once.
const FOLLOWERS_MAX: usize = 8;

/// The inbox of one region.
pub struct Inbox {
    shelf: Arc<Shelf>,
    gate: Arc<Gate>,
    queue: Queue,
    metrics: Arc<Metrics>,
    newest: watch::Receiver<u64>,
    /// Held while a loser is written back, so that none is twice.
    restoring: Mutex<()>,
    followers: Arc<Semaphore>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("head", &self.shelf.head()).finish_non_exhaustive()
    }
}

/// Why a loser cannot be written back. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Never recorded, or gone by age or size.
    #[error("ERR no such conflict in this region's inbox: {}", record::id_text(*id))]
    Unknown {
        /// The id asked for.
        id: u128,
    },
    /// Written back before.
    #[error("ERR this conflict's loser was already restored, at {at_ms} ms")]
    Restored {
        /// When, in Unix milliseconds.
        at_ms: u64,
    },
    /// The store cannot be read.
    #[error("MISCONF the conflict inbox cannot be read: {0}")]
    Store(#[from] StoreError),
}

/// The right to write one loser back; nobody else restores anything meanwhile.
pub struct Claim<'a> {
    inbox: &'a Inbox,
    record: Record,
    _turn: MutexGuard<'a, ()>,
}

impl Claim<'_> {
    /// What is to be undone.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// It was written back at `now_ms`.
    pub fn done(self, now_ms: u64) {
        self.inbox.metrics.conflicts.restored.inc();
        if let Err(error) = self.inbox.shelf.mark_restored(self.record.id, now_ms) {
            let id = record::id_text(self.record.id);
            tracing::error!(%error, id, "a loser was restored, which cannot be noted in the inbox");
        }
    }
}

fn record_of(placed: PlacedConflict, evidence: Evidence, noticed_by: Origin, at_ms: u64) -> Noted {
    let (id, rule, outcome) = (id_of(&placed), placed.rule().into_owned(), placed.outcome());
    let PlacedConflict { database, key, conflict, policy, .. } = placed;
    let Evidence { rivals, loser, shown, asking } = evidence;
    let winner = conflict.winner.name();
    let record = Record {
        id,
        at_ms,
        noticed_by,
        database,
        key: serde_bytes::ByteBuf::from(key.into_vec()),
        element: serde_bytes::ByteBuf::from(conflict.element.into_vec()),
        facet: conflict.facet.name().into(),
        policy: policy.name().into(),
        kind: conflict.kind.name().into(),
        rule,
        outcome: outcome.into(),
        rivals,
        loser,
        shown,
        restored_ms: None,
        shadow: None,
    };
    Noted { record, asking, winner }
}

fn id_of(placed: &PlacedConflict) -> u128 {
    let PlacedConflict { database, key, conflict, .. } = placed;
    conflict_id(&conflict.rival.dot, &conflict.arrived.dot, *database, key, &conflict.element)
}

/// Of each id the last one. An op may write one place over and over: what its last effect met there is what the
/// op's other rivals meet, too, who find only what it has left.
pub fn distinct(mut conflicts: Vec<PlacedConflict>) -> Vec<PlacedConflict> {
    if conflicts.len() > 1 {
        let mut known = HashSet::with_capacity(conflicts.len());
        conflicts.reverse();
        conflicts.retain(|conflict| known.insert(id_of(conflict)));
        conflicts.reverse();
    }
    conflicts
}

impl Inbox {
    /// Opens the inbox of `keyspace` in `store` and starts its thread.
    ///
    /// # Errors
    /// When the store cannot be read, or there is no thread to be had.
    pub fn open(
        store: Arc<dyn Store>,
        keyspace: Arc<Keyspace>,
        settings: &settings::Inbox,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let shelf = Arc::new(Shelf::open(store)?);
        let (sender, newest) = watch::channel(shelf.head().next);
        let bounds = Bounds { max_bytes: settings.max, retention: settings.retention };
        let (queue, thread) =
            writer::spawn(Arc::clone(&shelf), keyspace, bounds, Arc::clone(&metrics), sender)?;
        let gate = Arc::new(Gate::new(settings.records_per_second, settings.burst));
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        Ok((Self { shelf, gate, queue, metrics, newest, restoring: Mutex::new(()), followers }, thread))
    }

    /// What the applying side asks before it copies values.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Takes a conflict in, or counts that there is no record of it. Never waits, and does next to nothing for
    /// what the gate has kept out.
    pub fn note(&self, mut placed: PlacedConflict, noticed_by: Origin, at_ms: u64) {
        let recorded = placed.evidence.take().is_some_and(|evidence| {
            self.queue.offer(Box::new(record_of(placed, *evidence, noticed_by, at_ms)))
        });
        if !recorded {
            self.metrics.conflicts.records_dropped.inc();
        }
    }

    /// The records.
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// The newest record about a key.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn last_of(&self, database: u8, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let filter = page::Filter { key: Some(key.to_vec()), database: Some(database), ..Default::default() };
        let page = page::list(&self.shelf, &filter, None, 1)?;
        Ok(page.records.into_iter().next())
    }

    /// The record with this id, to be undone.
    ///
    /// # Errors
    /// [`ClaimError`]
    pub fn claim(&self, id: u128) -> Result<Claim<'_>, ClaimError> {
        let turn = self.restoring.lock();
        let number = self.shelf.number_of(id)?.ok_or(ClaimError::Unknown { id })?;
        let record = self.shelf.record(number)?.ok_or(ClaimError::Unknown { id })?;
        match record.restored_ms {
            Some(at_ms) => Err(ClaimError::Restored { at_ms }),
            None => Ok(Claim { inbox: self, record, _turn: turn }),
        }
    }

    /// A follower from the record of this number on, or of what comes from now on. `None` when there are too many.
    pub fn follow(&self, from: Option<u64>) -> Option<page::Follower> {
        let place = Arc::clone(&self.followers).try_acquire_owned().ok()?;
        let from = from.unwrap_or_else(|| self.shelf.head().next);
        Some(page::Follower::new(Arc::clone(&self.shelf), self.newest.clone(), from, place))
    }

    /// Waits until every conflict noted so far is recorded, or never will be.
    pub async fn settle(&self) {
        self.queue.settle().await;
    }

    /// Records what was noted, and ends the thread.
    pub fn stop(&self) {
        self.queue.stop();
    }

    /// Ends the thread as a crash would.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.queue.abandon();
    }
}
