//! Lets go of what only remembers, once nobody can need it any more. Runs on the committer's thread,
//! between its rounds, in small steps.
//!
//! *Sums* of counters that nothing shows go here and now, without an op, when all ops on their key are
//! settled ([`meridian_topology::stability`]); those of a region that is not waited for are kept.
//!
//! *What lost under `lww`* goes likewise, with the marks of what won ([`meridian_conflict::lww`]), unless a region is
//! not waited for: what that one still brings has to find them.
//!
//! *Expired keys* are hidden everywhere at their deadline, but go by an op, written by one region for
//! all, many keys at a time, when every region's clock and stream have passed the deadline. Were they
//! dropped without one, a region that has dropped a key would write it anew without a word on its
//! former life, whose deadline would then hide the new one where it was not dropped yet. As it is an
//! op like any other, a region that was fenced meanwhile needs nothing but what it has missed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meridian_conflict::clock::{Hlc, Origin, RegionId};
use meridian_conflict::op::BodyBuilder;

use super::committer::Work;
use crate::keyspace::KeyRef;
use crate::keyspace::reap::{Reclaimed, Reminder};
use crate::keyspace::walk::ApplyError;
use crate::oplog::{LogHealth, Lsn};
use crate::sequencer::PlaceError;
use crate::store::{Batch, StoreError};

/// What is settled, as the region's links know it.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Ops up to here are.
    pub passed: Hlc,
    /// But for those of these regions, which are not waited for.
    pub kept: BTreeSet<RegionId>,
    /// Whether this region clears expired keys.
    pub in_charge: bool,
    /// There is no other region, so everything is settled at once, whatever the other fields say.
    pub alone: bool,
}

/// Rows looked at in one step.
const STEP_ROWS: usize = 64;

/// Bytes of an op that clears keys, about.
const OP_BYTES: usize = 16 << 10;

/// The least time from one pass over all there is to reap to the next.
const PASS_EVERY: Duration = Duration::from_millis(500);

/// A pass that took long is followed by so many times that of nothing.
const PASS_SHARE: u32 = 20;

/// In every so many passes, deadlines before the lowest known are looked for: rows that are gone cost time.
const FROM_THE_START: u64 = 16;

/// Reaping failed; what was not done is found again.
#[derive(Debug, thiserror::Error)]
enum ReapError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The op could not be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The op could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// A walk over all there is to reap.
#[derive(Debug)]
struct Pass {
    settled: Settled,
    /// Where the store stood.
    committed: Lsn,
    began: Instant,
    /// Past the deadlines, at the sums.
    at_sums: bool,
    /// The row looked at last.
    after: Option<Vec<u8>>,
    /// What waits.
    waiting: u64,
    /// The lowest deadline that is still there.
    lowest_ms: Option<u64>,
}

/// The reaper's place.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    pass: Option<Pass>,
    next: Option<Instant>,
    passes: u64,
    /// No deadline lies before.
    from_ms: u64,
}

impl Reaper {
    /// Does a little. Returns whether there is more to do at once. Only while no commit is under way.
    pub(super) fn step(&mut self, work: &Work, committed: Lsn) -> bool {
        if work.seeding.is_loading() || work.log.health() != LogHealth::Ok {
            self.pass = None;
            return false;
        }
        let Some(pass) = &mut self.pass else {
            if self.next.is_none_or(|at| Instant::now() >= at) {
                self.begin(work, committed);
            }
            return self.pass.is_some();
        };
        match pass.step(work, self.from_ms) {
            Ok(true) => true,
            Ok(false) => {
                self.end(work);
                false
            }
            Err(error) => {
                tracing::debug!(%error, "reaping broke off");
                self.end(work);
                false
            }
        }
    }

    fn begin(&mut self, work: &Work, committed: Lsn) {
        let mut settled = work.settled.lock().clone();
        if settled.alone {
            settled.passed = work.sequencer.progress_at(super::wall_now()).1;
            settled.in_charge = true;
        }
        if self.passes.is_multiple_of(FROM_THE_START) {
            self.from_ms = 0;
        }
        self.passes += 1;
        let (began, after) = (Instant::now(), None);
        self.pass =
            Some(Pass { settled, committed, began, at_sums: false, after, waiting: 0, lowest_ms: None });
    }

    fn end(&mut self, work: &Work) {
        let Some(pass) = self.pass.take() else { return };
        let pause = PASS_EVERY.max(pass.began.elapsed().saturating_mul(PASS_SHARE));
        self.next = Some(Instant::now() + pause);
        self.from_ms = pass.lowest_ms.unwrap_or(pass.settled.passed.ms());
        work.metrics.store.tombstones.set(i64::try_from(pass.waiting).unwrap_or(i64::MAX));
    }
}

impl Pass {
    /// Some rows. Returns whether there are more.
    fn step(&mut self, work: &Work, from_ms: u64) -> Result<bool, ReapError> {
        let mut stale = Batch::new();
        let after = self.after.as_deref();
        let found = if self.at_sums {
            work.keyspace.with_sums(after, STEP_ROWS)?
        } else {
            work.keyspace.due((from_ms, super::wall_now().0), after, STEP_ROWS)?
        };
        let deadlines = if self.at_sums {
            self.reclaim(work, &found, &mut stale)?
        } else {
            if self.lowest_ms.is_none() {
                self.lowest_ms = found.first().map(|first| first.at.ms());
            }
            let passed = self.settled.passed;
            let (due, early): (Vec<_>, Vec<_>) = found.iter().partition(|found| found.at <= passed);
            self.waiting += early.len() as u64;
            due
        };
        self.clear(work, &deadlines, &mut stale)?;
        if !stale.is_empty() {
            work.keyspace.store().commit(&stale)?;
        }
        let more = found.len() == STEP_ROWS;
        self.after = found.into_iter().next_back().map(|last| last.row).filter(|_| more);
        let goes_on = more || !self.at_sums;
        self.at_sums |= !more;
        Ok(goes_on)
    }

    /// Returns keys that only have a deadline left.
    fn reclaim<'a>(
        &mut self,
        work: &Work,
        found: &'a [Reminder],
        stale: &mut Batch,
    ) -> Result<Vec<&'a Reminder>, ReapError> {
        let mut deadlines = Vec::new();
        let kept = |origin: Origin| self.settled.kept.contains(&origin.region());
        for reminder in found {
            if reminder.at > self.settled.passed {
                self.waiting += 1;
                continue;
            }
            let durable = work.log.durable_lsn().0;
            let settle = self.settled.kept.is_empty().then_some(self.committed);
            match work.keyspace.reclaim(reminder, kept, settle, durable)? {
                Reclaimed::Sums => work.metrics.store.reaped.with_label_values(&["sums"]).inc(),
                Reclaimed::Waits => self.waiting += 1,
                Reclaimed::Deadline => deadlines.push(reminder),
                Reclaimed::Stale => stale.delete(&reminder.row)?,
            }
        }
        Ok(deadlines)
    }

    /// Clears keys by an op, or leaves that to the region in charge.
    fn clear(&mut self, work: &Work, found: &[&Reminder], stale: &mut Batch) -> Result<(), ReapError> {
        if !self.settled.in_charge {
            self.waiting += found.len() as u64;
            return Ok(());
        }
        let mut rest = found;
        while !rest.is_empty() {
            rest = self.clear_some(work, rest, stale)?;
        }
        Ok(())
    }

    fn clear_some<'a, 'r>(
        &mut self,
        work: &Work,
        found: &'a [&'r Reminder],
        stale: &mut Batch,
    ) -> Result<&'a [&'r Reminder], ReapError> {
        let keys: Vec<KeyRef<'_>> =
            found.iter().map(|found| KeyRef::new(found.database, &found.key)).collect();
        let origin = work.sequencer.origin();
        let (mut body, mut taken, mut cleared) = (BodyBuilder::default(), 0, 0);
        let mut locked = work.keyspace.lock_loaded(&keys, work.log.durable_lsn().0)?;
        for (found, key) in found.iter().zip(&keys) {
            if body.body().len() >= OP_BYTES {
                break;
            }
            taken += 1;
            if locked.clear_expired(key, origin, self.settled.passed.ms(), &mut body) {
                cleared += 1;
            } else if !self.at_sums && locked.is_stale_deadline(key, found.at.ms()) {
                stale.delete(&found.row)?;
            } else {
                self.waiting += 1;
            }
        }
        if cleared > 0 {
            locked.mark_body_dirty(body.body())?;
            let place = work.sequencer.local(origin, super::wall_now(), body.body())?;
            locked.apply_body(body.body(), place.stamp, meridian_conflict::clock::Seen::All, place.lsn.0)?;
            drop(locked);
            work.log.wake();
            work.metrics.store.reaped.with_label_values(&["expired"]).inc_by(cleared);
        }
        Ok(found.get(taken..).unwrap_or_default())
    }
}
