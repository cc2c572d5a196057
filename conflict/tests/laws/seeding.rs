//! What a region may do that takes over another's state: merge it while it is being written, after
//! either side has reclaimed, and count the conflicts that the two states show.

use meridian_conflict::clock::VersionVector;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use meridian_conflict::outcome::{Kind, Outcome, Winner};
use proptest::prelude::*;

use crate::convergence::{ahead, merge_into, merged, reclaim, union};
use crate::harness::{Command, Dataset, Dice, Replica, Step, World, dataset_digest, history, key};

/// Merging replica `b` into `a` shows and remembers the same in a world and in its twin, which reclaimed at
/// other times.
fn merging_gives_the_same(world: &World, twin: &World, a: usize, b: usize) -> Result<(), TestCaseError> {
    let both = |world: &World| {
        let [a, b] = [a, b].map(|i| (&world.replicas[i].data, &world.replicas[i].applied));
        merged(a, b).0
    };
    let (mut reclaimed, mut whole) = (both(world), both(twin));
    for now in [0, 20, 100] {
        prop_assert_eq!(dataset_digest(&reclaimed, now), dataset_digest(&whole, now));
    }
    reclaim(&mut reclaimed);
    reclaim(&mut whole);
    prop_assert_eq!(&reclaimed, &whole);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6_000) })]

    #[test]
    fn merging_after_reclaiming_equals_merging_without(
        before in history(20), after in history(24), who in 1u8..8, seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &before);
        world.drain(&mut dice);
        let mut twin = world.clone();
        for (at, replica) in world.replicas.iter_mut().enumerate() {
            if who & (1 << at) != 0 {
                reclaim(&mut replica.data);
            }
        }
        for step in &after {
            world.step(step);
            twin.step(step);
        }
        for a in 0..3 {
            for b in 0..3 {
                merging_gives_the_same(&world, &twin, a, b)?;
            }
        }
    }

    /// The third region was away so long that the others no longer wait for it. It holds sums that they
    /// have swallowed and reclaimed; none of them is its own, for those are kept for it.
    #[test]
    fn d1_what_was_reclaimed_during_an_absence_does_not_come_back(
        before in history(20), absent in history(30), unsent in history(10), seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &without_sums_of(2, before));
        world.drain(&mut dice);
        for step in absent.iter().filter(|step| replica_of(step) != 2) {
            world.step(step);
        }
        while world.deliver(0, dice.below(64)).is_some() || world.deliver(1, dice.below(64)).is_some() {}
        let mut twin = world.clone();
        world.replicas[..2].iter_mut().for_each(|replica| reclaim(&mut replica.data));
        for step in without_sums_of(2, unsent).iter().filter(|step| replica_of(step) == 2) {
            world.step(step);
            twin.step(step);
        }
        for (a, b) in [(2, 0), (0, 2)] {
            merging_gives_the_same(&world, &twin, a, b)?;
        }
    }

    /// The donor's rows are each of a state of its own, none older than the position that the
    /// receiver adopts; the receiver has writes that nobody else knows.
    #[test]
    fn c5_taking_over_rows_that_are_ahead_and_the_ops_since_equals_delivery(
        steps in history(40), seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &steps);
        let all = world.replicas.iter().fold(VersionVector::new(), |all, r| union(&all, &r.applied));
        let expected = world.replay(&all, &mut dice);
        let log = world.replicas[1].log.clone();
        let mut walker = Replica::new(99);
        let mut states = vec![(Dataset::new(), VersionVector::new())];
        for index in &log {
            walker.apply(*index, &world.ops[*index]);
            states.push((walker.data.clone(), walker.applied.clone()));
        }
        let begin = dice.below(states.len());
        let rows: Vec<Dataset> = states[begin..].iter().map(|(data, _)| data.clone()).collect();
        let position = states[begin].1.clone();
        let receiver = &mut world.replicas[0];
        let ours = receiver.applied.clone();
        // A part that is taken over again, from later rows, changes nothing in the end.
        for _ in 0..=dice.below(2) {
            let donor = ahead(&rows[dice.below(rows.len())..], &mut dice);
            merge_into(&mut receiver.data, &ours, &donor, &position);
        }
        receiver.applied = union(&ours, &position);
        while world.deliver(0, dice.below(usize::MAX)).is_some() {}
        prop_assert_eq!(&world.replicas[0].applied, &all);
        prop_assert_eq!(&world.replicas[0].data, &expected.data);
    }

    #[test]
    fn merging_again_changes_and_reports_nothing(steps in history(40), seed: u64) {
        let mut dice = Dice(seed);
        let world = World::run(2, &steps);
        let (ours, theirs) = (&world.replicas[0].applied, &world.replicas[1].applied);
        let pick = key(dice.below(3) as u8);
        let mut mine = world.replicas[0].data.get(&pick).cloned().unwrap_or_default();
        let other = world.replicas[1].data.get(&pick).cloned().unwrap_or_default();
        let before = mine.clone();
        let mut first = Outcome::default();
        mine.merge_observed(ours, &other, theirs, &mut first);
        prop_assert_eq!(first.changes == 0, mine == before);
        let (merged, mut second) = (mine.clone(), Outcome::default());
        mine.merge_observed(ours, &other, theirs, &mut second);
        prop_assert_eq!(&mine, &merged);
        prop_assert_eq!((second.changes, second.conflicts.len()), (0, 0));
    }
}

fn replica_of(step: &Step) -> usize {
    match step {
        Step::Local { at, .. } | Step::Deliver { at, .. } | Step::Again { at, .. } => usize::from(*at) % 3,
    }
}

/// The steps without increments by one replica.
fn without_sums_of(replica: usize, steps: Vec<Step>) -> Vec<Step> {
    let adds = |command: &Command| {
        use Command::{HIncrBy, IncrBy, IncrByFloat, Rename, ZIncrBy};
        matches!(
            command,
            IncrBy { .. } | IncrByFloat { .. } | HIncrBy { .. } | ZIncrBy { .. } | Rename { .. }
        )
    };
    let mut steps = steps;
    for step in &mut steps {
        let at = replica_of(step);
        if let Step::Local { commands, .. } = step
            && at == replica
        {
            commands.retain(|(_, command)| !adds(command));
        }
    }
    steps
}

/// Two replicas that write without knowing of each other, and what merging the second into the first tells.
fn meet(left: &[Command], right: &[Command]) -> Vec<(Kind, Facet, Winner)> {
    let mut world = World::new(2);
    for (at, commands) in [left, right].into_iter().enumerate() {
        for command in commands {
            // The second writes later.
            world.replicas[at].write(at as u64 + 1, &[(0, command.clone())]);
        }
    }
    let [a, b] = [0, 1].map(|i| &world.replicas[i]);
    let mut object = a.data.get(&key(0)).cloned().unwrap_or_default();
    let none = Object::default();
    let mut outcome = Outcome::default();
    object.merge_observed(&a.applied, b.data.get(&key(0)).unwrap_or(&none), &b.applied, &mut outcome);
    outcome.conflicts.iter().map(|c| (c.kind, c.facet, c.winner)).collect()
}

#[test]
fn j4_an_overlap_is_a_conflict_once() {
    let set = |value| Command::Set { value, keep: false };
    let field = |value| Command::HSet { field: 1, value };
    assert_eq!(meet(&[set(1)], &[set(2)]), [(Kind::WriteWrite, Facet::String, Winner::Remote)]);
    assert_eq!(meet(&[set(1)], &[set(1)]), []);
    assert_eq!(meet(&[set(1)], &[]), []);
    assert_eq!(meet(&[], &[set(1)]), []);
    assert_eq!(meet(&[field(1)], &[field(2)]), [(Kind::Field, Facet::Hash, Winner::Remote)]);
    assert_eq!(meet(&[field(1)], &[set(1)]), [(Kind::TypeClash, Facet::String, Winner::Remote)]);
    assert_eq!(meet(&[Command::SAdd { member: 1 }], &[Command::SAdd { member: 1 }]), []);
    let add = Command::IncrBy { amount: 3 };
    assert_eq!(meet(std::slice::from_ref(&add), std::slice::from_ref(&add)), []);
    assert_eq!(
        meet(&[set(1)], std::slice::from_ref(&add)),
        [(Kind::WriteWrite, Facet::String, Winner::Remote)]
    );
    assert_eq!(meet(&[add], &[set(1)]), [(Kind::WriteWrite, Facet::String, Winner::Remote)]);
}
