//! The one building block of strings, hash fields and scores: a multi-value register plus
//! cumulative deltas per origin, resettable.
//!
//! All concurrent assignments are kept, because which of them a later delete had seen is not known
//! beforehand: a register that kept only the winner would let replicas that met the ops in
//! different orders end differently. What shows is computed: the greatest stamp's value plus the
//! deltas that no seen assignment or clear has swallowed.
//!
//! Deltas are sums per origin ("12 up to my op 7"), so a repeated delta is harmless. An assignment
//! or clear carries how much of each sum it had seen; that much is swallowed, the rest still adds.
//! Compare the reset-wins and observed-reset counters of Weidner and Almeida (2022); theirs keep
//! the increments, ours their prefix sums.

use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use crate::amount::Amount;
use crate::clock::{Origin, Seen, Stamp, VersionVector, covers};
use crate::crdt::TablePlace;
use crate::op::{Baseline, Position, SeenDelta};

/// What a register may hold.
pub trait ScalarValue: Clone + PartialEq {
    /// Whether deltas can add to it.
    fn is_number(&self) -> bool;
    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;
}

/// A string's bytes.
pub type Value = Box<[u8]>;

impl ScalarValue for Value {
    fn is_number(&self) -> bool {
        Amount::parse(self).is_some()
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

/// One assignment that no other has replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sibling<V> {
    /// Which op assigned it.
    pub stamp: Stamp,
    /// What it assigned.
    pub value: V,
}

/// The assignments alive: nearly always none or one.
#[derive(Clone, Debug, PartialEq, Default)]
#[expect(clippy::box_collection, reason = "rare: a pointer keeps every other register small")]
enum Register<V> {
    #[default]
    Empty,
    One(Sibling<V>),
    /// Two or more, by rising stamp.
    Many(Box<Vec<Sibling<V>>>),
}

/// One origin's deltas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeltaSum {
    /// Whose.
    pub origin: Origin,
    /// The stamp of the latest.
    pub stamp: Stamp,
    /// Where the latest stands.
    pub last: Position,
    /// The sum up to `last`.
    pub total: Amount,
    /// Up to where assignments and clears have swallowed them.
    pub seen: Position,
    /// The sum up to `seen`.
    pub seen_total: Amount,
}

impl DeltaSum {
    /// Whether some of it still adds.
    pub fn is_live(&self) -> bool {
        self.last > self.seen
    }

    fn swallow(&mut self, position: Position, total: &Amount) -> bool {
        let deeper = position > self.seen;
        if deeper {
            self.seen = position;
            self.seen_total = total.clone();
        }
        deeper
    }
}

/// A register with deltas. See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar<V> {
    register: Register<V>,
    /// By rising origin. Thin: one pointer where nothing was ever incremented.
    deltas: ThinVec<DeltaSum>,
}

impl<V> Default for Scalar<V> {
    fn default() -> Self {
        Self { register: Register::Empty, deltas: ThinVec::new() }
    }
}

/// What a change met that its writer had not seen.
#[derive(Clone, Debug, Default)]
pub struct Met {
    /// Whether anything changed.
    pub changed: bool,
    /// Rival contributions.
    pub rivals: Vec<Stamp>,
    /// Where, if in an element of a collection.
    pub place: TablePlace,
}

/// What merging two states did.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Whether anything changed.
    pub changed: bool,
    /// What was here and what came, neither of which had seen the other and of which one shows.
    pub clashes: Vec<(Stamp, Stamp)>,
}

impl<V: ScalarValue> Scalar<V> {
    /// The assignments alive, by rising stamp.
    pub fn siblings(&self) -> &[Sibling<V>] {
        match &self.register {
            Register::Empty => &[],
            Register::One(sibling) => std::slice::from_ref(sibling),
            Register::Many(siblings) => siblings,
        }
    }

    /// The deltas known, swallowed ones included, by origin.
    pub fn deltas(&self) -> &[DeltaSum] {
        &self.deltas
    }

    /// The assignment that shows.
    pub fn winner(&self) -> Option<&Sibling<V>> {
        self.siblings().last()
    }

    /// The sum of the deltas that still add, `None` when there are none.
    pub fn live_sum(&self) -> Option<Amount> {
        let mut live = self.deltas().iter().filter(|d| d.is_live()).peekable();
        live.peek()?;
        Some(live.fold(Amount::default(), |sum, d| sum.plus(&d.total).minus(&d.seen_total)))
    }

    /// Whether a reader sees anything here.
    pub fn is_visible(&self) -> bool {
        !matches!(self.register, Register::Empty) || self.deltas().iter().any(DeltaSum::is_live)
    }

    /// Whether there is neither anything to see nor anything to remember.
    pub fn is_vacant(&self) -> bool {
        matches!(self.register, Register::Empty) && self.deltas.is_empty()
    }

    /// The stamps of what a reader sees: assignments and live deltas.
    pub fn live_stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        let deltas = self.deltas().iter().filter(|d| d.is_live()).map(|d| d.stamp);
        self.siblings().iter().map(|s| s.stamp).chain(deltas)
    }

    /// What an assignment or clear made now would have seen of the deltas.
    pub fn baseline(&self) -> Baseline {
        self.deltas()
            .iter()
            .filter(|d| d.is_live())
            .map(|d| SeenDelta { origin: d.origin, position: d.last, total: d.total.clone() })
            .collect()
    }

    /// The total that a delta of `amount` by `origin` made now would carry, and whether it starts
    /// anew: it does where nothing of the origin's sum is left to add to. So a sum that was
    /// swallowed is never needed again once every region has seen it swallowed.
    pub fn next_total(&self, origin: Origin, amount: &Amount) -> (Amount, bool) {
        match self.deltas().iter().find(|d| d.origin == origin && d.is_live()) {
            Some(known) => (known.total.plus(amount), false),
            None => (amount.clone(), true),
        }
    }

    /// Whether there are sums that add nothing any more.
    pub fn remembers(&self) -> bool {
        self.deltas().iter().any(|d| !d.is_live())
    }

    /// Drops the sums that add nothing any more, but for those of origins that are `kept`; returns
    /// whether there were any. See [`crate::object::Object::reclaim`].
    pub(crate) fn reclaim(&mut self, kept: impl Fn(Origin) -> bool) -> bool {
        let before = self.deltas.len();
        self.deltas.retain(|d| d.is_live() || kept(d.origin));
        let dropped = self.deltas.len() != before;
        if self.deltas.is_empty() {
            self.deltas = ThinVec::new();
        }
        dropped
    }

    /// Bytes beyond the struct itself.
    pub fn heap_bytes(&self) -> usize {
        let siblings = match &self.register {
            Register::Empty => 0,
            Register::One(sibling) => sibling.value.heap_bytes(),
            Register::Many(many) => {
                let each = many.iter().map(|s| size_of::<Sibling<V>>() + s.value.heap_bytes());
                size_of::<Vec<Sibling<V>>>() + each.sum::<usize>()
            }
        };
        let amounts = |d: &DeltaSum| d.total.heap_bytes() + d.seen_total.heap_bytes();
        let each = self.deltas.iter().map(|d| size_of::<DeltaSum>() + amounts(d));
        let deltas: usize = each.sum();
        siblings + deltas
    }

    fn swallow(&mut self, baseline: &[SeenDelta]) -> bool {
        let mut changed = false;
        for seen in baseline {
            let deltas = &mut self.deltas;
            match deltas.binary_search_by_key(&seen.origin, |d| d.origin) {
                Ok(at) => {
                    if let Some(known) = deltas.get_mut(at) {
                        changed |= known.swallow(seen.position, &seen.total);
                    }
                }
                // Causal delivery brings a delta before what has seen it; only a replay over a row
                // that was stored later comes here. The marker keeps the delta swallowed.
                Err(at) => {
                    let dot = crate::clock::Dot::new(seen.origin, seen.position.sequence);
                    deltas.insert(
                        at,
                        DeltaSum {
                            origin: seen.origin,
                            stamp: Stamp { hlc: Default::default(), dot },
                            last: seen.position,
                            total: seen.total.clone(),
                            seen: seen.position,
                            seen_total: seen.total.clone(),
                        },
                    );
                    changed = true;
                }
            }
        }
        changed
    }

    /// Keeps the assignments for which `keep` holds; returns how many went.
    fn retain(&mut self, mut keep: impl FnMut(&Sibling<V>) -> bool) -> usize {
        match std::mem::take(&mut self.register) {
            Register::Empty => 0,
            Register::One(sibling) if keep(&sibling) => {
                self.register = Register::One(sibling);
                0
            }
            Register::One(_) => 1,
            Register::Many(mut many) => {
                let before = many.len();
                many.retain(|s| keep(s));
                let gone = before - many.len();
                self.put_siblings(*many);
                gone
            }
        }
    }

    fn put_siblings(&mut self, mut siblings: Vec<Sibling<V>>) {
        self.register = match siblings.len() {
            0 => Register::Empty,
            1 => siblings.pop().map_or(Register::Empty, Register::One),
            _ => Register::Many(Box::new(siblings)),
        };
    }

    fn insert(&mut self, sibling: Sibling<V>) -> bool {
        match std::mem::take(&mut self.register) {
            Register::Empty => {
                self.register = Register::One(sibling);
                true
            }
            Register::One(other) if other.stamp == sibling.stamp => {
                self.register = Register::One(other);
                false
            }
            Register::One(other) => {
                let mut both = vec![other, sibling];
                both.sort_unstable_by_key(|s| s.stamp);
                self.put_siblings(both);
                true
            }
            Register::Many(mut many) => {
                let fresh = match many.binary_search_by_key(&sibling.stamp, |s| s.stamp) {
                    Ok(_) => false,
                    Err(at) => {
                        many.insert(at, sibling);
                        true
                    }
                };
                self.register = Register::Many(many);
                fresh
            }
        }
    }

    /// Assigns `value`: replaces the assignments seen, swallows the deltas seen. Rivals are the
    /// unseen assignments of another value, and unseen deltas that the value cannot take.
    pub fn assign(&mut self, stamp: Stamp, value: V, baseline: &[SeenDelta], seen: Seen<'_>) -> Met {
        let mut met = Met { changed: true, ..Met::default() };
        if let Seen::All = seen {
            self.swallow(baseline);
            self.register = Register::One(Sibling { stamp, value });
            return met;
        }
        self.retain(|s| {
            let unseen = !seen.covers(&s.stamp.dot);
            if unseen && s.value != value {
                met.rivals.push(s.stamp);
            }
            unseen
        });
        self.swallow(baseline);
        if !self.deltas.is_empty() && !value.is_number() {
            let unseen = self.deltas().iter().filter(|d| d.is_live() && !seen.covers(&d.stamp.dot));
            met.rivals.extend(unseen.map(|d| d.stamp));
        }
        self.insert(Sibling { stamp, value });
        met
    }

    /// Sets `stamp`'s origin's sum to `total`. Rivals are unseen assignments that are no numbers.
    pub fn add(&mut self, stamp: Stamp, index: u32, total: Amount, fresh: bool, seen: Seen<'_>) -> Met {
        let mut met = Met::default();
        let last = Position { sequence: stamp.dot.counter, index };
        let origin = stamp.dot.actor;
        let deltas = &mut self.deltas;
        let start = Position { sequence: last.sequence, index: index.saturating_sub(1) };
        match deltas.binary_search_by_key(&origin, |d| d.origin) {
            Ok(at) => {
                if let Some(known) = deltas.get_mut(at)
                    && last > known.last
                {
                    if fresh {
                        known.swallow(start, &Amount::default());
                    }
                    (known.stamp, known.last, known.total) = (stamp, last, total);
                    met.changed = true;
                }
            }
            Err(at) => {
                let seen = if fresh { start } else { Position::default() };
                let sum = DeltaSum { origin, stamp, last, total, seen, seen_total: Amount::default() };
                deltas.insert(at, sum);
                met.changed = true;
            }
        }
        if !matches!(seen, Seen::All) {
            let odd = self.siblings().iter().filter(|s| !seen.covers(&s.stamp.dot) && !s.value.is_number());
            met.rivals.extend(odd.map(|s| s.stamp).collect::<Vec<_>>());
        }
        met
    }

    /// Removes what was seen. Rivals are the unseen contributions, which survive.
    pub fn clear(&mut self, baseline: &[SeenDelta], seen: Seen<'_>) -> Met {
        let removed = self.retain(|s| !seen.covers(&s.stamp.dot));
        let swallowed = self.swallow(baseline);
        let rivals = match seen {
            Seen::All => Vec::new(),
            Seen::Vector { .. } => self.live_stamps().filter(|s| !seen.covers(&s.dot)).collect(),
        };
        Met { changed: removed > 0 || swallowed, rivals, ..Met::default() }
    }

    /// Merges the state `other` of a replica that had applied `theirs` into this one, of a replica
    /// that had applied `ours`.
    pub fn merge(&mut self, ours: &VersionVector, other: &Scalar<V>, theirs: &VersionVector) -> Merged {
        let kept = |s: &Sibling<V>| other.siblings().iter().any(|o| o.stamp == s.stamp);
        let removed = self.retain(|s| kept(s) || !covers(theirs, &s.stamp.dot)) > 0;
        let mut merged = Merged { changed: removed, clashes: self.clashes(ours, other, theirs) };
        for sibling in other.siblings() {
            if !covers(ours, &sibling.stamp.dot) {
                merged.changed |= self.insert(sibling.clone());
            }
        }
        merged.changed |= self.merge_deltas(ours, other.deltas(), theirs);
        merged
    }

    /// What each side has and the other had not applied, where the two exclude each other.
    fn clashes(
        &self,
        ours: &VersionVector,
        other: &Scalar<V>,
        theirs: &VersionVector,
    ) -> Vec<(Stamp, Stamp)> {
        let unknown_here =
            |stamp: &Stamp| !covers(ours, &stamp.dot) && self.siblings().iter().all(|s| s.stamp != *stamp);
        let unknown_there =
            |stamp: &Stamp| !covers(theirs, &stamp.dot) && other.siblings().iter().all(|s| s.stamp != *stamp);
        let mut clashes = Vec::new();
        for new in other.siblings().iter().filter(|s| unknown_here(&s.stamp)) {
            let values = self.siblings().iter().filter(|s| s.value != new.value).map(|s| s.stamp);
            let odd = if self.deltas.is_empty() || new.value.is_number() { &[][..] } else { self.deltas() };
            let deltas = odd.iter().filter(|d| d.is_live()).map(|d| d.stamp);
            clashes.extend(values.chain(deltas).filter(unknown_there).map(|rival| (rival, new.stamp)));
        }
        if !other.deltas.is_empty() {
            for mine in self.siblings().iter().filter(|s| unknown_there(&s.stamp) && !s.value.is_number()) {
                let known =
                    |d: &DeltaSum| self.deltas().iter().any(|k| k.origin == d.origin && k.last >= d.last);
                let new = other.deltas().iter().filter(|d| d.is_live() && !covers(ours, &d.stamp.dot));
                clashes.extend(new.filter(|d| !known(d)).map(|d| (mine.stamp, d.stamp)));
            }
        }
        clashes
    }

    /// A sum that one side lacks although it has applied the sum's last delta was swallowed in every
    /// region and reclaimed there: it goes, or does not come back. A sum goes on from one that was
    /// reclaimed only as a fresh one, because its origin had seen the old one swallowed.
    fn merge_deltas(&mut self, ours: &VersionVector, other: &[DeltaSum], theirs: &VersionVector) -> bool {
        let covered = |vector: &VersionVector, sum: &DeltaSum| vector.get(&sum.origin) >= sum.last.sequence;
        let find = |sums: &[DeltaSum], origin| sums.binary_search_by_key(&origin, |d: &DeltaSum| d.origin);
        let before = self.deltas.len();
        self.deltas.retain(|d| find(other, d.origin).is_ok() || !covered(theirs, d));
        let mut changed = self.deltas.len() != before;
        for sum in other {
            match find(&self.deltas, sum.origin) {
                Ok(at) => {
                    let Some(known) = self.deltas.get_mut(at) else { continue };
                    if sum.last > known.last {
                        (known.stamp, known.last, known.total) = (sum.stamp, sum.last, sum.total.clone());
                        changed = true;
                    }
                    changed |= known.swallow(sum.seen, &sum.seen_total);
                }
                Err(_) if covered(ours, sum) => {}
                Err(at) => {
                    self.deltas.insert(at, sum.clone());
                    changed = true;
                }
            }
        }
        if self.deltas.is_empty() {
            self.deltas = ThinVec::new();
        }
        changed
    }

    /// The parts, for storing.
    pub fn to_parts(&self) -> (&[Sibling<V>], &[DeltaSum]) {
        (self.siblings(), self.deltas())
    }

    /// From stored parts.
    pub fn from_parts(mut siblings: Vec<Sibling<V>>, mut deltas: Vec<DeltaSum>) -> Self {
        siblings.sort_unstable_by_key(|s| s.stamp);
        siblings.dedup_by_key(|s| s.stamp);
        deltas.sort_unstable_by_key(|d| d.origin);
        deltas.dedup_by_key(|d| d.origin);
        let mut scalar = Self { register: Register::Empty, deltas: deltas.into() };
        scalar.put_siblings(siblings);
        scalar
    }
}

impl Scalar<Value> {
    /// [`Scalar::assign`] of bytes. A sole assignment of the same length is overwritten in place.
    pub fn assign_bytes(
        &mut self,
        stamp: Stamp,
        value: &[u8],
        baseline: &[SeenDelta],
        seen: Seen<'_>,
    ) -> Met {
        if let Register::One(sole) = &mut self.register
            && self.deltas.is_empty()
            && baseline.is_empty()
            && sole.value.len() == value.len()
            && seen.covers(&sole.stamp.dot)
        {
            sole.stamp = stamp;
            sole.value.copy_from_slice(value);
            return Met { changed: true, ..Met::default() };
        }
        self.assign(stamp, value.into(), baseline, seen)
    }

    /// What a reader sees: the winner's bytes with the live deltas added where it is a number, or
    /// the deltas' sum alone. `None` when not visible.
    pub fn shown(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        use std::borrow::Cow;
        let winner = self.winner();
        let sum = self.live_sum();
        match (winner, sum) {
            (Some(winner), None) => Some(Cow::Borrowed(&winner.value)),
            (None, None) => None,
            (None, Some(sum)) => Some(Cow::Owned(sum.to_text().into_bytes())),
            (Some(winner), Some(sum)) => match Amount::parse(&winner.value) {
                Some(base) => Some(Cow::Owned(base.plus(&sum).to_text().into_bytes())),
                None => Some(Cow::Borrowed(&winner.value)),
            },
        }
    }
}
