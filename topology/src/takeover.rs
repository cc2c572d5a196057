//! When a region that takes over another's state has to begin anew.
//!
//! The rows of a donor are of different times, so they bring parts of ops that the region has still to
//! apply as a whole: up to there it waits, and serves nobody. If the donor is removed, loses its disk or is never
//! heard of again, nobody may have these ops any more. Waiting for them would never end, and going on
//! without them would show parts of transactions, and a state that no other region ever comes to.
//!
//! So until a takeover is over, a region counts as having what it had before, its *base*, and tells the
//! others no more than that ([`crate::replica::Replica::handle_loading`]). When what it waits for is lost
//! ([`Lack`]), it looks for a region that is not loading itself and has all of the base
//! ([`may_begin_anew`]). Then nothing that anybody counts on is here alone: it gives up what it has, takes a new
//! incarnation and joins with nothing.

use meridian_conflict::clock::{Dot, VersionVector, covers, covers_all, raise};

use crate::stability::Stability;
use crate::time::MonoMs;

/// A member not heard of for this many times `heal_after` counts as lost, with what it alone has.
pub const LOST_AFTER: u64 = 10;

/// Since when nobody has what is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    since: Option<MonoMs>,
}

/// What of what is waited for is lost, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Up to these, some ops are with nobody.
    pub ops: VersionVector,
    /// What can still be had.
    pub rest: VersionVector,
}

impl Lack {
    /// Looks at it at `now`, where `applied` is what is here and `wanted` what is waited for. Tells what of that is
    /// lost: neither here nor with any member heard of lately, and that for `heal_after_ms`, in which news of
    /// who has what come from everywhere.
    pub fn review(
        &mut self,
        now: MonoMs,
        heal_after_ms: u64,
        stability: &Stability,
        applied: &VersionVector,
        wanted: &VersionVector,
    ) -> Option<Lost> {
        let within_ms = heal_after_ms.saturating_mul(LOST_AFTER);
        let lately = stability.heard().filter(|(_, heard)| heard.is_some_and(|at| now.since(at) < within_ms));
        let mut there = applied.clone();
        for dot in lately.filter_map(|(region, _)| stability.row(region)).flat_map(|row| row.durable.iter()) {
            raise(&mut there, *dot.actor, dot.counter);
        }
        if covers_all(&there, wanted) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) < heal_after_ms {
            return None;
        }
        let ops =
            wanted.iter().map(|dot| Dot::new(*dot.actor, dot.counter)).filter(|dot| !covers(&there, dot));
        let (ops, mut rest) = (ops.collect(), wanted.clone());
        rest.glb(&there);
        Some(Lost { ops, rest })
    }

    /// Nothing is waited for.
    pub fn clear(&mut self) {
        self.since = None;
    }
}

/// Whether a region that takes over somebody's state itself, and waits for `wanted`, may give its own to one that has
/// durably applied `asker`: to one that has all of that, as its donor has. Two regions whose logs do not reach
/// back for each other would wait for each other for ever; to anybody else it would give parts of ops that
/// may be lost.
pub fn may_give_while_loading(asker: &VersionVector, wanted: &VersionVector) -> bool {
    covers_all(asker, wanted)
}

/// Whether a region whose takeover came to nothing may give up all it has, when a region that is not loading
/// has durably applied `donor`, and `base` is what was here before.
pub fn may_begin_anew(base: &VersionVector, donor: &VersionVector) -> bool {
    covers_all(donor, base)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Hlc, Origin, RegionId};

    use super::*;
    use crate::frame::Row;

    const HEAL_MS: u64 = 1_000;

    fn origin(region: u32) -> Origin {
        Origin::new(RegionId(region), 1)
    }

    fn vector(dots: &[(u32, u64)]) -> VersionVector {
        dots.iter().map(|(region, sequence)| Dot::new(origin(*region), *sequence)).collect()
    }

    fn row(region: u32, life: u64, beat: u64, dots: &[(u32, u64)]) -> Row {
        let origin = Origin::new(RegionId(region), life as u32);
        Row { region: RegionId(region), origin, life, beat, hlc: Hlc(0), durable: vector(dots) }
    }

    fn members(these: &[u32]) -> impl Iterator<Item = RegionId> {
        these.iter().map(|region| RegionId(*region))
    }

    /// Region 1 of three, where region 3 alone has its fifth op.
    fn stability() -> Stability {
        let mut stability =
            Stability::new(origin(1), 1, VersionVector::new(), members(&[1, 2, 3]), 1_000_000, 0);
        stability.merge(MonoMs(0), &row(2, 1, 1, &[(2, 9), (3, 4)]));
        stability.merge(MonoMs(0), &row(3, 1, 1, &[(2, 9), (3, 5)]));
        stability
    }

    fn lost() -> Option<Lost> {
        Some(Lost { ops: vector(&[(3, 5)]), rest: vector(&[(2, 9), (3, 4)]) })
    }

    #[test]
    fn j1_what_a_donor_alone_had_is_lost_when_it_is_removed_or_loses_its_disk() {
        let wanted = vector(&[(2, 9), (3, 5)]);
        let removed = |stability: &mut Stability| stability.set_members(members(&[1, 2]));
        let wiped = |stability: &mut Stability| {
            stability.merge(MonoMs(10), &row(3, 2, 1, &[]));
        };
        for loses in [removed, wiped] as [fn(&mut Stability); 2] {
            let (mut stability, mut lack) = (stability(), Lack::default());
            let mut review = |stability: &Stability, at| {
                lack.review(MonoMs(at), HEAL_MS, stability, &VersionVector::new(), &wanted)
            };
            assert_eq!(review(&stability, 5), None);
            loses(&mut stability);
            // Somebody may have it, and news of that are on their way.
            assert_eq!(review(&stability, 10), None);
            assert_eq!(review(&stability, 10 + HEAL_MS), lost());
            // It was on its way.
            stability.merge(MonoMs(1_020), &row(2, 1, 2, &[(2, 9), (3, 5)]));
            assert_eq!(review(&stability, 1_020), None);
        }
    }

    #[test]
    fn j1_what_a_silent_donor_alone_had_is_lost_after_ten_times_heal_after_and_once_more() {
        let (mut stability, mut lack) = (stability(), Lack::default());
        let wanted = vector(&[(3, 5)]);
        let mut found = Vec::new();
        for at in (0..=12 * HEAL_MS).step_by(500) {
            stability.merge(MonoMs(at), &row(2, 1, at + 1, &[]));
            if lack.review(MonoMs(at), HEAL_MS, &stability, &VersionVector::new(), &wanted).is_some() {
                found.push(at);
            }
        }
        assert_eq!(found.first(), Some(&((LOST_AFTER + 1) * HEAL_MS)));
    }

    #[test]
    fn what_is_here_is_not_lost() {
        let (mut stability, mut lack) = (stability(), Lack::default());
        stability.set_members(members(&[1, 2]));
        for at in [0, HEAL_MS] {
            let wanted = vector(&[(3, 5)]);
            assert_eq!(lack.review(MonoMs(at), HEAL_MS, &stability, &wanted, &wanted), None);
        }
    }

    #[test]
    fn a_region_begins_anew_only_from_one_that_has_all_it_had_and_gives_only_to_one_that_has_what_it_waits_for()
     {
        let base = vector(&[(1, 3), (2, 9)]);
        assert!(may_begin_anew(&base, &vector(&[(1, 3), (2, 10)])));
        assert!(!may_begin_anew(&base, &vector(&[(1, 2), (2, 10)])));
        let wanted = vector(&[(3, 5)]);
        assert!(may_give_while_loading(&vector(&[(3, 5), (2, 1)]), &wanted));
        // Its disk was lost: what it gave was never whole here.
        assert!(!may_give_while_loading(&vector(&[(3, 4)]), &wanted));
    }
}
