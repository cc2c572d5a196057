//! The sorted set: every score a scalar, with an order kept beside.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::clock::{Origin, Seen, Stamp, VersionVector};
use crate::crdt::order::{Entry, Order};
use crate::crdt::table::{self, ElementTable, TablePlace};
use crate::op::SeenDelta;
use crate::scalar::{Merged, Met, Scalar, ScalarValue};

/// A score: a double that is never NaN; minus zero is zero.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Score(u64);

impl From<Score> for u64 {
    fn from(score: Score) -> u64 {
        score.0
    }
}

impl TryFrom<u64> for Score {
    type Error = &'static str;

    fn try_from(bits: u64) -> Result<Self, Self::Error> {
        Score::from_bits(bits).ok_or("a score is not a number")
    }
}

impl Score {
    /// From a double; `None` for NaN.
    pub fn new(value: f64) -> Option<Self> {
        (!value.is_nan()).then(|| Self((value + 0.0).to_bits()))
    }

    /// From bits that came over a wire or off a disk; `None` for NaN.
    pub fn from_bits(bits: u64) -> Option<Self> {
        Self::new(f64::from_bits(bits))
    }

    /// As a double.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// The bits, for encoding.
    pub fn to_bits(self) -> u64 {
        self.0
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.get().total_cmp(&other.get())
    }
}

impl ScalarValue for Score {
    fn is_number(&self) -> bool {
        true
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Scalar<Score> {
    /// The score a reader sees. Deltas add in decimal, so the order of adding does not show.
    pub fn shown(&self) -> Option<Score> {
        let winner = self.winner().map(|s| s.value);
        match (winner, self.live_sum()) {
            (winner, None) => winner,
            (None, Some(sum)) => Score::new(sum.to_f64()),
            (Some(base), Some(sum)) => match Amount::from_f64(base.get()) {
                Some(exact) => Score::new(exact.plus(&sum).to_f64()),
                None => Some(base),
            },
        }
    }
}

/// Bytes counted for a member besides its name.
const MEMBER_OVERHEAD: usize = size_of::<Scalar<Score>>() + 2 * size_of::<Arc<[u8]>>() + 8 + 16 + 24;

/// A sorted set with per-member metadata.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    members: ElementTable<Arc<[u8]>, Scalar<Score>>,
    order: Order,
    /// Members with sums that add nothing any more.
    remembering: usize,
    bytes: usize,
}

impl SortedSet {
    /// Members that a reader sees.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether a reader sees no member.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether there is neither anything to see nor to remember.
    pub fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether some member has sums that add nothing any more.
    pub fn remembers(&self) -> bool {
        self.remembering > 0
    }

    /// A member's state.
    pub fn member(&self, member: &[u8]) -> Option<&Scalar<Score>> {
        self.members.get(member)
    }

    /// The score of a member that a reader sees.
    pub fn score(&self, member: &[u8]) -> Option<Score> {
        self.members.get(member)?.shown()
    }

    /// All members, hidden ones included, in table order.
    pub fn members(&self) -> &ElementTable<Arc<[u8]>, Scalar<Score>> {
        &self.members
    }

    /// Members by score with ranks.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Entries of the given ranks, lowest score first.
    pub fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = &Entry> {
        self.order.range(ranks)
    }

    /// A member's rank, lowest score first.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        Some(self.order.rank(self.score(member)?, member))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    fn change(&mut self, member: &[u8], change: impl FnOnce(&mut Scalar<Score>) -> Met) -> Met {
        let at = match self.members.get_index_of(member) {
            Some(at) => at,
            None => {
                self.bytes += member.len() + MEMBER_OVERHEAD;
                self.members.insert_full(member.into(), Scalar::default()).0
            }
        };
        let Some((name, scalar)) = self.members.get_index_mut(at) else { return Met::default() };
        let (old, bytes) = (scalar.shown(), scalar.heap_bytes());
        let remembers = scalar.remembers();
        let met = change(scalar);
        self.remembering = self.remembering + usize::from(scalar.remembers()) - usize::from(remembers);
        let new = scalar.shown();
        if old != new {
            if let Some(old) = old {
                self.order.remove(old, name);
            }
            if let Some(new) = new {
                self.order.insert(new, Arc::clone(name));
            }
        }
        self.bytes = self.bytes + scalar.heap_bytes() - bytes;
        if !scalar.is_vacant() {
            return Met { place: TablePlace::At(at), ..met };
        }
        match table::remove(&mut self.members, member) {
            Some((place, _)) => {
                self.bytes -= member.len() + MEMBER_OVERHEAD;
                Met { place, ..met }
            }
            None => met,
        }
    }

    /// `ZADD`.
    pub fn assign(
        &mut self,
        member: &[u8],
        stamp: Stamp,
        score: Score,
        baseline: &[SeenDelta],
        seen: Seen<'_>,
    ) -> Met {
        self.change(member, |scalar| scalar.assign(stamp, score, baseline, seen))
    }

    /// `ZINCRBY`.
    pub fn add(
        &mut self,
        member: &[u8],
        stamp: Stamp,
        index: u32,
        total: Amount,
        fresh: bool,
        seen: Seen<'_>,
    ) -> Met {
        self.change(member, |scalar| scalar.add(stamp, index, total, fresh, seen))
    }

    /// `ZREM`.
    pub fn remove(&mut self, member: &[u8], baseline: &[SeenDelta], seen: Seen<'_>) -> Met {
        if baseline.is_empty() && !self.members.contains_key(member) {
            return Met::default();
        }
        self.change(member, |scalar| scalar.clear(baseline, seen))
    }

    /// Puts a stored member back. For loading.
    pub fn restore(&mut self, member: &[u8], scalar: Scalar<Score>) {
        self.change(member, |slot| {
            *slot = scalar;
            Met::default()
        });
    }

    /// Drops what adds nothing any more; see [`crate::object::Object::reclaim`].
    pub(crate) fn reclaim(
        &mut self,
        kept: &impl Fn(Origin) -> bool,
        mut dropped: impl FnMut(&[u8], TablePlace),
    ) {
        if self.remembering == 0 {
            return;
        }
        let remembering = self.members.iter().filter(|(_, s)| s.remembers());
        let names: Vec<_> = remembering.map(|(m, _)| m.clone()).collect();
        for member in names.iter().rev() {
            let met = self.change(member, |scalar| Met { changed: scalar.reclaim(kept), ..Met::default() });
            if met.changed {
                dropped(member, met.place);
            }
        }
    }

    /// Merges one member; see [`crate::object::Object::merge`].
    pub(crate) fn merge_member(
        &mut self,
        member: &[u8],
        ours: &VersionVector,
        other: &Scalar<Score>,
        theirs: &VersionVector,
    ) -> (TablePlace, Merged) {
        let mut merged = Merged::default();
        let met = self.change(member, |scalar| {
            merged = scalar.merge(ours, other, theirs);
            Met::default()
        });
        (met.place, merged)
    }
}

impl PartialEq for SortedSet {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}
