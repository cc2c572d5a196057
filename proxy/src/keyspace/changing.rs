//! Changing objects under their shard locks: ops, other regions' states, and letting go of what nobody needs.

use std::sync::atomic::Ordering;

use meridian_conflict::clock::{Origin, Seen, VersionVector};
use meridian_conflict::crdt::TablePlace;
use meridian_conflict::lww::{self, WithoutConflicts};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{Change, ElementBaseline, Facet, MalformedBody};
use meridian_conflict::outcome::{Conflict, Observer};

use super::entry::{ElementMarks, Entry};
use super::placed::{PlacedConflict, placed};
use super::{KeyRef, Keyspace, Locked};
use crate::oplog::Lsn;
use crate::policies::Active;

/// What applying an op's body did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Conflicts met, in order.
    pub conflicts: Vec<PlacedConflict>,
    /// Heads and elements that changed.
    pub changes: u64,
}

struct Tracker<'a> {
    marks: ElementMarks<'a>,
    head: bool,
    changes: u64,
    conflicts: Vec<Conflict>,
    /// Nothing showed at some moment.
    emptied: bool,
}

impl Tracker<'_> {
    /// Applies a change. Under `lww` an op meets its rivals as a whole.
    fn apply(
        &mut self,
        object: &mut Object,
        change: &Change<'_>,
        how: Applying<'_>,
        lww: bool,
    ) -> Result<(), MalformedBody> {
        if lww && !matches!(how.seen, Seen::All) {
            self.conflicts.extend(lww::rivals(object, change, how));
        }
        for effect in change.effects() {
            let effect = effect?;
            if lww {
                object.apply(&effect, how, &mut WithoutConflicts(&mut *self));
            } else {
                object.apply(&effect, how, self);
            }
            self.emptied |= object.facet().is_none();
        }
        Ok(())
    }
}

impl Observer for Tracker<'_> {
    fn conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    fn element(&mut self, facet: Facet, element: &[u8], place: TablePlace) {
        self.changes += 1;
        self.marks.note(facet, element, place);
    }

    fn head(&mut self) {
        self.changes += 1;
        self.head = true;
    }
}

impl Locked<'_> {
    /// Applies an op whose body, known to decode, changes `key` alone: marks the key, has `place` give
    /// the op its place, applies it as `how` says. What [`Locked::mark_body_dirty`] and
    /// [`Locked::apply_body`] do, with one search for the key.
    ///
    /// # Errors
    /// That of `place`; nothing changed.
    pub fn apply_one<P, E>(
        &mut self,
        key: &KeyRef<'_>,
        change: &Change<'_>,
        place: impl FnOnce() -> Result<P, E>,
        how: impl FnOnce(&P) -> (Applying<'_>, Lsn),
    ) -> Result<(P, Applied), E> {
        let (keyspace, policies, lww) = (self.keyspace, self.policies.clone(), self.is_lww(key));
        let mut applied = Applied::default();
        let Some(entry) = self.entry_to_write(key) else { return Ok((place()?, applied)) };
        let place = place()?;
        let (how, lsn) = how(&place);
        change_entry((keyspace, policies.as_deref()), entry, lsn.0, &mut applied, |object, tracker| {
            // It is known to decode.
            let _ = tracker.apply(object, change, how, lww);
        });
        Ok((place, applied))
    }

    /// Applies the effects of one change to its key, which was marked dirty.
    ///
    /// # Errors
    /// [`MalformedBody`]; the effects before the malformed one are applied.
    pub(super) fn apply_change(
        &mut self,
        change: &Change<'_>,
        how: Applying<'_>,
        lsn: u64,
        applied: &mut Applied,
    ) -> Result<(), MalformedBody> {
        let key = KeyRef::new(change.database, change.key);
        let (mut outcome, lww) = (Ok(()), self.is_lww(&key));
        self.change(&key, lsn, applied, |object, tracker| {
            outcome = tracker.apply(object, change, how, lww);
        });
        outcome
    }

    /// Applies a flush to one key.
    pub(super) fn apply_flush(
        &mut self,
        key: &KeyRef<'_>,
        baselines: &[ElementBaseline<'_>],
        how: Applying<'_>,
        lsn: u64,
        applied: &mut Applied,
    ) {
        self.change(key, lsn, applied, |object, tracker| object.apply_flush(baselines, how, tracker));
    }

    /// Merges `other`, the key's state where `theirs` was applied, into the state here, where `ours`
    /// is. The object is in memory or known to be absent. Conflicts are those that the states show.
    pub fn merge_object(
        &mut self,
        key: &KeyRef<'_>,
        other: &Object,
        ours: &VersionVector,
        theirs: &VersionVector,
    ) -> Applied {
        let (keyspace, policies, lww) = (self.keyspace, self.policies.clone(), self.is_lww(key));
        let mut applied = Applied::default();
        if let Some(entry) = self.entry_to_write(key) {
            // No op, so no position in the log: nobody has to wait for what a merge brings.
            change_entry((keyspace, policies.as_deref()), entry, 0, &mut applied, |object, tracker| {
                if lww {
                    tracker.conflicts.extend(lww::clashes(object, ours, other, theirs));
                    object.merge_observed(ours, other, theirs, &mut WithoutConflicts(&mut *tracker));
                } else {
                    object.merge_observed(ours, other, theirs, tracker);
                }
                tracker.emptied |= object.facet().is_none();
            });
        }
        applied
    }

    /// Says where conflicts were met that the key's state has settled.
    pub(super) fn place(&self, key: &KeyRef<'_>, conflicts: Vec<Conflict>) -> Vec<PlacedConflict> {
        let entry = self.entry(key);
        entry
            .map(|entry| placed(self.keyspace, self.policies.as_deref(), entry, conflicts).collect())
            .unwrap_or_default()
    }

    /// Drops sums of the key that nothing shows, but for those of origins that are `kept`, and, if `settle`, what
    /// lost under `lww`. No reader sees anything of it. Returns whether there was any.
    pub(super) fn reclaim(&mut self, key: &KeyRef<'_>, kept: impl Fn(Origin) -> bool, settle: bool) -> bool {
        let settles = |entry: &Entry| settle && !entry.object().marks().is_empty();
        let reclaimable = |entry: &Entry| entry.object().can_reclaim(&kept) || settles(entry);
        if !self.entry(key).is_some_and(reclaimable) {
            return false;
        }
        let (keyspace, mut applied) = (self.keyspace, Applied::default());
        if let Some(entry) = self.entry_to_write(key) {
            change_entry((keyspace, None), entry, 0, &mut applied, |object, tracker| {
                if settle {
                    object.settle(tracker);
                }
                object.reclaim(kept, tracker);
            });
        }
        true
    }

    fn change(
        &mut self,
        key: &KeyRef<'_>,
        lsn: u64,
        applied: &mut Applied,
        change: impl FnOnce(&mut Object, &mut Tracker<'_>),
    ) {
        let (keyspace, policies) = (self.keyspace, self.policies.clone());
        if let Some(entry) = self.entry_mut(key) {
            change_entry((keyspace, policies.as_deref()), entry, lsn, applied, change);
        }
    }
}

/// Changes an entry's object and keeps the figures: what is dirty, what shows, bytes.
fn change_entry(
    (keyspace, policies): (&Keyspace, Option<&Active>),
    entry: &mut Entry,
    lsn: u64,
    applied: &mut Applied,
    change: impl FnOnce(&mut Object, &mut Tracker<'_>),
) {
    let (shown, bytes) = (entry.shows(), entry.footprint());
    let stated = !entry.object.marks().is_empty();
    let (object, marks) = entry.parts();
    let mut tracker = Tracker { marks, head: false, changes: 0, conflicts: Vec::new(), emptied: false };
    change(object, &mut tracker);
    let Tracker { head, changes, conflicts, emptied, .. } = tracker;
    if head {
        entry.mark_head_dirty();
    }
    entry.changed = entry.changed.max(lsn);
    entry.touch(keyspace.clock());
    let shown_now = entry.shows();
    if shown && (emptied || !shown_now || stated) {
        // What comes next is added to an empty table, whatever stood where before.
        entry.generation = keyspace.next_generation();
    }
    let grown = entry.footprint() - bytes;
    if grown != 0 {
        keyspace.bytes.fetch_add(grown, Ordering::Relaxed);
    }
    if shown != shown_now {
        keyspace.count_shown(entry.database(), if shown_now { 1 } else { -1 });
    }
    applied.changes += changes;
    applied.conflicts.extend(placed(keyspace, policies, entry, conflicts));
}
