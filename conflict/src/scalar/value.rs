//! Scalars of bytes: strings and hash fields.

use super::{Met, Register, Scalar, Value};
use crate::amount::Amount;
use crate::clock::{Seen, Stamp};
use crate::op::SeenDelta;

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

    /// The assigned `value` with the live deltas added, where it is a number.
    pub fn with_increments<'a>(&self, value: &'a Value) -> std::borrow::Cow<'a, [u8]> {
        use std::borrow::Cow;
        match self.live_sum().and_then(|sum| Some((Amount::parse(value)?, sum))) {
            Some((base, sum)) => Cow::Owned(base.plus(&sum).to_text().into_bytes()),
            None => Cow::Borrowed(value),
        }
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
            (Some(winner), Some(_)) => Some(self.with_increments(&winner.value)),
        }
    }
}
