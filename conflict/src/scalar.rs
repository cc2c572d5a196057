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

mod change;
mod merge;
mod value;

use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use crate::amount::Amount;
use crate::clock::{Origin, Stamp};
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

    /// Whether more than one assignment is alive.
    pub fn is_plural(&self) -> bool {
        matches!(self.register, Register::Many(_))
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
