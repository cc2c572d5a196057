//! Comparing replicas that go on working never takes lag for a divergence, and what was lost or
//! garbled in one of them is found and mended alike in both.

use std::collections::BTreeSet;

use meridian_conflict::clock::{Hlc, Seen, Stamp, VersionVector, raise};
use meridian_conflict::digest::digest;
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{Effect, changes};
use meridian_conflict::outcome::{Kind, Outcome, Winner};
use meridian_conflict::repair::{Repaired, Verdict, Views, repaired, verdict};
use proptest::prelude::*;

use crate::convergence::reclaim;
use crate::harness::{Dataset, Dice, Key, Replica, World, history, key, origin};

fn shown(data: &Dataset, key: &Key, now_ms: u64) -> u128 {
    data.get(key).map_or(0, |object| digest(key.0, &key.1, object.under_lww(), now_ms))
}

fn all_keys() -> [Key; 3] {
    [key(0), key(1), key(2)]
}

/// The keys that ops of `log` have changed, where `before` was there.
fn moved(world: &World, log: &[usize], before: &Dataset) -> BTreeSet<Key> {
    let (mut keys, mut flushed) = (BTreeSet::new(), BTreeSet::new());
    for index in log {
        for change in changes(&world.ops[*index].body).map(Result::unwrap) {
            if change.key.is_empty() {
                flushed.insert(change.database);
            } else {
                keys.insert((change.database, change.key.to_vec()));
            }
        }
    }
    keys.extend(before.keys().filter(|key| flushed.contains(&key.0)).cloned());
    keys
}

/// A replica that has applied everything in some causal order, but for the effects of one op.
fn without(world: &World, lost: usize, dice: &mut Dice) -> Replica {
    let mut replica = Replica::new(98);
    loop {
        let ready: Vec<usize> =
            (0..world.ops.len()).filter(|index| replica.can_apply(&world.ops[*index])).collect();
        let Some(index) = ready.get(dice.below(ready.len())) else { return replica };
        let op = &world.ops[*index];
        if *index == lost {
            raise(&mut replica.applied, op.stamp.dot.actor, op.stamp.dot.counter);
        } else {
            replica.apply(*index, op);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn lag_is_never_a_divergence(
        before in history(24), between in history(12), after in history(16), reclaimed in 0u8..8, seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::new(3);
        before.iter().for_each(|step| world.step(step));
        if reclaimed > 0 {
            world.drain(&mut dice);
            for (at, replica) in world.replicas.iter_mut().enumerate() {
                if reclaimed & (1 << at) != 0 {
                    reclaim(&mut replica.data);
                }
            }
        }
        let mine: Vec<Replica> = world.replicas.clone();
        between.iter().for_each(|step| world.step(step));
        let theirs: Vec<Replica> = world.replicas.clone();
        after.iter().for_each(|step| world.step(step));
        for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            let since = &world.replicas[a].log[mine[a].log.len()..];
            let moved = moved(&world, since, &mine[a].data);
            for key in all_keys() {
                let views = Views {
                    asked: &mine[a].applied,
                    theirs: &theirs[b].applied,
                    applied: &world.replicas[a].applied,
                    is_unmoved: !moved.contains(&key),
                };
                for now in [0, 20, 100] {
                    let (mine, theirs) = (shown(&mine[a].data, &key, now), shown(&theirs[b].data, &key, now));
                    prop_assert_ne!(verdict(&views, mine, theirs), Verdict::Divergent, "{:?}", key);
                }
            }
        }
    }

    #[test]
    fn what_an_op_lost_is_found_and_mended_alike(
        steps in history(30), which: prop::sample::Index, seed: u64, at_once: bool, now in 0u64..50,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &steps);
        world.drain(&mut dice);
        if world.ops.is_empty() {
            return Ok(());
        }
        let lost = which.index(world.ops.len());
        let (mut whole, mut poor) = (world.replicas[0].clone(), without(&world, lost, &mut dice));
        let same = VersionVector::clone(&whole.applied);
        prop_assert_eq!(&same, &poor.applied);
        let views = Views { asked: &same, theirs: &same, applied: &same, is_unmoved: true };
        let none = Object::default();
        for key in all_keys() {
            let (mine, theirs) = (shown(&whole.data, &key, now), shown(&poor.data, &key, now));
            let judged = verdict(&views, mine, theirs);
            prop_assert_eq!(judged == Verdict::Divergent, mine != theirs);
            if judged == Verdict::Divergent {
                let [a, b] = [&whole, &poor].map(|r| r.data.get(&key).unwrap_or(&none).clone());
                let first = repaired(key.0, &key.1, &a, &b, now).object;
                let second = repaired(key.0, &key.1, &b, if at_once { &a } else { &first }, now).object;
                whole.data.insert(key.clone(), first);
                poor.data.insert(key.clone(), second);
            }
        }
        for key in all_keys() {
            prop_assert_eq!(shown(&whole.data, &key, now), shown(&poor.data, &key, now));
        }
    }
}

fn string(value: &[u8], sequence: u64) -> Object {
    let mut object = Object::default();
    let dot = crdts::Dot::new(origin(0), sequence);
    let stamp = Stamp { hlc: Hlc::from_ms(sequence), dot };
    let effect = Effect::Assign { value, baseline: Default::default() };
    object.apply(&effect, Applying { stamp, seen: Seen::All }, &mut Outcome::default());
    object
}

#[test]
fn a_lost_write_comes_back_and_a_garbled_one_ends_alike() {
    let value = |object: &Object| object.string().unwrap().shown().unwrap().into_owned();
    let (old, new, none) = (string(b"old", 1), string(b"new", 2), Object::default());
    for (mine, theirs, wanted, met) in
        [(&old, &new, b"new", 1), (&new, &old, b"new", 1), (&none, &old, b"old", 0), (&new, &none, b"new", 0)]
    {
        let Repaired { object, conflicts } = repaired(0, b"k", mine, theirs, 0);
        assert_eq!(value(&object), wanted);
        assert_eq!(conflicts.len(), met, "what is shown no more is told of");
        for conflict in conflicts {
            let winner = if conflict.rival > conflict.arrived { Winner::Local } else { Winner::Remote };
            assert_eq!((conflict.kind, conflict.winner), (Kind::WriteWrite, winner));
        }
    }
    let garbled = string(b"nex", 2);
    let mend = |mine, theirs| repaired(0, b"k", mine, theirs, 0).object;
    let here = mend(&new, &garbled);
    assert_eq!(value(&here), value(&mend(&garbled, &new)));
    assert_eq!(value(&here), value(&mend(&garbled, &here)));
    assert_eq!(value(&here), value(&mend(&new, &here)));
}
