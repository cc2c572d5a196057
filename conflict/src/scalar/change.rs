//! What ops do to a scalar: assign, add, clear.

use super::{DeltaSum, Met, Register, Scalar, ScalarValue, Sibling};
use crate::amount::Amount;
use crate::clock::{Seen, Stamp, covers};
use crate::op::{Position, SeenDelta};

impl<V: ScalarValue> Scalar<V> {
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

    /// Swallows the sums of which an earlier op's writer had seen all. Its baseline says so too, unless
    /// the writer had settled the key and knew of them no more ([`crate::lww`]).
    fn swallow_seen(&mut self, seen: Seen<'_>) -> bool {
        let Seen::Vector { deps, .. } = seen else { return false };
        let mut changed = false;
        for sum in self.deltas.iter_mut().filter(|d| d.is_live() && covers(deps, &d.stamp.dot)) {
            let (last, total) = (sum.last, sum.total.clone());
            changed |= sum.swallow(last, &total);
        }
        changed
    }

    /// Keeps the assignments for which `keep` holds; returns how many went.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Sibling<V>) -> bool) -> usize {
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

    pub(super) fn put_siblings(&mut self, mut siblings: Vec<Sibling<V>>) {
        self.register = match siblings.len() {
            0 => Register::Empty,
            1 => siblings.pop().map_or(Register::Empty, Register::One),
            _ => Register::Many(Box::new(siblings)),
        };
    }

    pub(super) fn insert(&mut self, sibling: Sibling<V>) -> bool {
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
        let swallowed = self.swallow(baseline) | self.swallow_seen(seen);
        let rivals = match seen {
            Seen::All => Vec::new(),
            Seen::Vector { .. } => self.live_stamps().filter(|s| !seen.covers(&s.dot)).collect(),
        };
        Met { changed: removed > 0 || swallowed, rivals, ..Met::default() }
    }
}
