//! The policy `lww`: what shows is the greatest statement, whole, in any order of arrival, and
//! across changes of policy.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::amount::Amount;
use meridian_conflict::clock::Seen;
use meridian_conflict::clock::Stamp;
use meridian_conflict::digest::digest;
use meridian_conflict::edit::{Editor, NewDeadline};
use meridian_conflict::lww::{WithoutConflicts, rivals};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::changes;
use meridian_conflict::outcome::{Conflict, Kind, Outcome, Winner};
use proptest::prelude::*;

use crate::convergence::{check_counters, merged};
use crate::harness::{
    Command, Dataset, Dice, Key, Replica, Step, Travelling, World, history, key, lww_digest,
};

/// The history with every replica under `lww` from the start, without flushes, which state nothing.
fn stated(steps: Vec<Step>) -> Vec<Step> {
    let kept = |step| match step {
        Step::Policy { .. } => None,
        Step::Local { at, wall_ms, commands } => {
            let stating = commands.into_iter().filter(|(_, c)| !matches!(c, Command::Flush));
            Some(Step::Local { at, wall_ms, commands: stating.collect() })
        }
        other => Some(other),
    };
    let begin = (0..3).map(|at| Step::Policy { at, lww: true });
    begin.chain(steps.into_iter().filter_map(kept)).collect()
}

/// How a key reads at a few moments.
fn reading(key: &Key, object: Option<&Object>) -> [u128; 3] {
    [0, 20, 100].map(|now| object.map_or(0, |o| digest(key.0, &key.1, o, now)))
}

fn settle(data: &mut Dataset) {
    for object in data.values_mut() {
        object.settle(&mut Outcome::default());
        object.reclaim(|_| false, &mut Outcome::default());
    }
    data.retain(|_, object| !object.is_vacant());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12_000) })]

    #[test]
    fn what_shows_is_what_the_writer_of_the_greatest_stamp_left(steps in history(40), seed: u64) {
        let mut world = World::new(3);
        // What each op's writer saw behind it, by key and stamp.
        let mut statements: BTreeMap<Key, BTreeMap<Stamp, [u128; 3]>> = BTreeMap::new();
        let check = |world: &World, statements: &BTreeMap<Key, BTreeMap<Stamp, [u128; 3]>>| {
            for replica in &world.replicas {
                for (key, of_key) in statements {
                    let known = of_key.iter().rev().find(|(stamp, _)| {
                        replica.applied.get(&stamp.dot.actor) >= stamp.dot.counter
                    });
                    let expected = known.map_or([0; 3], |(_, left)| *left);
                    assert_eq!(reading(key, replica.read(key)), expected, "{key:?}");
                }
            }
        };
        for step in stated(steps) {
            let before = world.ops.len();
            world.step(&step);
            if let (Step::Local { at, .. }, Some(op)) = (&step, world.ops.get(before)) {
                let writer = &world.replicas[usize::from(*at) % 3];
                for change in changes(&op.body) {
                    let change = change.unwrap();
                    let key = (change.database, change.key.to_vec());
                    let left = reading(&key, writer.read(&key));
                    statements.entry(key).or_default().insert(op.stamp, left);
                }
            }
            check(&world, &statements);
        }
        world.drain(&mut Dice(seed));
        check(&world, &statements);
        world.replicas.iter().for_each(|replica| check_counters(&replica.data));
    }

    #[test]
    fn settling_does_not_show_and_ends_in_one_state(
        before in history(24), after in history(20), who in 1u8..8, seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &before);
        world.drain(&mut dice);
        // From here on every replica writes under lww, whatever came before; the twin never settles.
        world.replicas.iter_mut().for_each(|replica| replica.lww = true);
        let mut twin = world.clone();
        for (at, replica) in world.replicas.iter_mut().enumerate() {
            if who & (1 << at) != 0 {
                settle(&mut replica.data);
            }
        }
        // What has settled does not come again.
        for step in after.iter().filter(|step| matches!(step, Step::Local { .. } | Step::Deliver { .. })) {
            world.step(step);
            twin.step(step);
            for (a, b) in world.replicas.iter().zip(&twin.replicas) {
                prop_assert_eq!(lww_digest(&a.data, 20), lww_digest(&b.data, 20));
            }
        }
        let states = |world: &World, a: usize, b: usize| {
            let [a, b] = [a, b].map(|i| (&world.replicas[i].data, &world.replicas[i].applied));
            merged(a, b).0
        };
        let (a, b) = (dice.below(3), dice.below(3));
        prop_assert_eq!(lww_digest(&states(&world, a, b), 20), lww_digest(&states(&twin, a, b), 20));
        world.drain(&mut dice);
        twin.drain(&mut dice);
        for replica in &world.replicas {
            for now in [0, 20, 100] {
                prop_assert_eq!(lww_digest(&replica.data, now), lww_digest(&twin.replicas[0].data, now));
            }
        }
        world.replicas.iter_mut().for_each(|replica| settle(&mut replica.data));
        prop_assert_eq!(&world.replicas[0].data, &world.replicas[1].data);
        prop_assert_eq!(&world.replicas[0].data, &world.replicas[2].data);
        prop_assert_eq!(lww_digest(&world.replicas[0].data, 20), lww_digest(&twin.replicas[0].data, 20));
        check_counters(&world.replicas[0].data);
    }
}

type Do = fn(&mut Editor<'_, '_>);

fn state(replica: &mut Replica, wall_ms: u64, edit: Do) -> Travelling {
    let op = replica.write_with(wall_ms, |r, stamp, out| r.edit(stamp, wall_ms, &key(0), out, edit));
    op.expect("the command changes something")
}

/// Delivers an op as a region does whose policy is `lww`; returns the conflicts met.
fn deliver(replica: &mut Replica, op: &Travelling) -> Vec<Conflict> {
    let how = Applying { stamp: op.stamp, seen: Seen::Vector { deps: &op.deps, dot: op.stamp.dot } };
    let object = replica.data.get(&key(0)).cloned().unwrap_or_default();
    let change = changes(&op.body).next().unwrap().unwrap();
    let met = rivals(&object, &change, how);
    let mut again = object;
    let mut outcome = Outcome::default();
    for effect in change.effects() {
        again.apply(&effect.unwrap(), how, &mut WithoutConflicts(&mut outcome));
    }
    assert!(outcome.conflicts.is_empty() && outcome.changes > 0);
    replica.apply(0, op);
    assert_eq!(replica.data.get(&key(0)).cloned().unwrap_or_default(), again);
    met
}

/// A base that both regions have, then one write at each (the second is the later), then each hears
/// of the other. Returns what shows and the one conflict, as the first region met it.
fn meet(base: &[Do], first: Do, second: Do) -> (Object, Vec<Conflict>) {
    let [mut a, mut b] = [0, 1].map(Replica::new);
    (a.lww, b.lww) = (true, true);
    for edit in base {
        let op = state(&mut a, 1, *edit);
        assert!(deliver(&mut b, &op).is_empty());
    }
    let one = state(&mut a, 2, first);
    let two = state(&mut b, 3, second);
    let (met, at_b) = (deliver(&mut a, &two), deliver(&mut b, &one));
    assert_eq!(a.data, b.data);
    assert_eq!(met.len(), at_b.len());
    for (here, there) in met.iter().zip(&at_b) {
        assert_eq!((here.rival, here.arrived, here.kind), (there.arrived, there.rival, there.kind));
        assert_eq!((here.winner, there.winner), (Winner::Remote, Winner::Local));
    }
    let shown = a.read(&key(0)).cloned().unwrap_or_default();
    settle(&mut a.data);
    assert_eq!(a.data.get(&key(0)).cloned().unwrap_or_default().under_lww().facet(), shown.facet());
    assert!(a.data.values().all(|object| object.marks().is_empty()));
    (shown, met)
}

fn kinds(met: &[Conflict]) -> Vec<Kind> {
    met.iter().map(|conflict| conflict.kind).collect()
}

fn fields(object: &Object) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = object.hash().into_iter().flat_map(|hash| hash.fields());
    all.filter_map(|(field, scalar)| Some((text(field), text(&scalar.shown()?)))).collect()
}

fn string(object: &Object) -> Option<String> {
    Some(String::from_utf8(object.string()?.shown()?.into_owned()).unwrap())
}

const KEEP: NewDeadline = NewDeadline::Keep;

#[test]
fn hset_beside_hset_shows_the_later_writer_s_hash_alone() {
    let base: [Do; 2] = [|e| e.field_assign(b"x", b"0"), |e| e.field_assign(b"y", b"0")];
    let (shown, met) = meet(&base, |e| e.field_assign(b"x", b"1"), |e| e.field_assign(b"z", b"2"));
    let expected = [("x", "0"), ("y", "0"), ("z", "2")].map(|(f, v)| (f.to_owned(), v.to_owned()));
    assert_eq!(fields(&shown), BTreeMap::from(expected));
    assert_eq!(kinds(&met), [Kind::WriteWrite]);
}

#[test]
fn what_a_loser_removed_is_there_again() {
    let base: [Do; 2] = [|e| e.member_add(b"a"), |e| e.member_add(b"b")];
    let (shown, met) = meet(&base, |e| e.member_remove(b"a"), |e| e.member_add(b"c"));
    let members: BTreeSet<&[u8]> = shown.set().unwrap().members().keys().map(|m| &**m).collect();
    assert_eq!(members, BTreeSet::from([&b"a"[..], b"b", b"c"]));
    assert_eq!(kinds(&met), [Kind::WriteWrite]);
}

#[test]
fn a_delete_beats_older_updates_and_loses_to_newer_ones() {
    let fills: [Do; 5] = [
        |e| e.assign(b"v", KEEP),
        |e| e.add(&Amount::from(3)),
        |e| e.field_assign(b"f", b"v"),
        |e| e.member_add(b"m"),
        |e| e.score_add(b"m", &Amount::from(2)),
    ];
    for fill in fills {
        let (shown, met) = meet(&[fill], fill, |e| e.clear());
        assert_eq!((shown.facet(), kinds(&met)), (None, vec![Kind::WriteDelete]));
        let (shown, met) = meet(&[fill], |e| e.clear(), fill);
        assert!(shown.facet().is_some());
        assert_eq!(kinds(&met), [Kind::WriteDelete]);
        let (shown, met) = meet(&[fill], |e| e.clear(), |e| e.clear());
        assert_eq!((shown.facet(), kinds(&met)), (None, vec![]));
    }
}

#[test]
fn incr_beside_incr_states_a_sum() {
    let (shown, met) =
        meet(&[|e| e.assign(b"10", KEEP)], |e| e.add(&Amount::from(7)), |e| e.add(&Amount::from(3)));
    assert_eq!((string(&shown).as_deref(), kinds(&met)), (Some("13"), vec![Kind::WriteWrite]));
}

#[test]
fn a_deadline_belongs_to_the_statement() {
    let base: [Do; 1] = [|e| e.assign(b"v", KEEP)];
    let (shown, _) = meet(&base, |e| e.assign(b"w", NewDeadline::At(50)), |e| e.assign(b"x", KEEP));
    assert_eq!((string(&shown).as_deref(), shown.deadline_ms()), (Some("x"), None));
    let (shown, met) = meet(&base, |e| e.assign(b"w", KEEP), |e| e.deadline(NewDeadline::At(50)));
    assert_eq!((string(&shown).as_deref(), shown.deadline_ms()), (Some("v"), Some(50)));
    assert_eq!(kinds(&met), [Kind::WriteWrite]);
    let timed: [Do; 1] = [|e| e.assign(b"v", NewDeadline::At(50))];
    let (shown, _) = meet(&timed, |e| e.persist(), |e| e.assign(b"w", KEEP));
    assert_eq!((string(&shown).as_deref(), shown.deadline_ms()), (Some("w"), Some(50)));
}

#[test]
fn two_types_are_one_conflict_and_the_greater_stamp_shows() {
    let (shown, met) = meet(&[], |e| e.field_assign(b"f", b"v"), |e| e.assign(b"text", KEEP));
    assert_eq!((string(&shown).as_deref(), kinds(&met)), (Some("text"), vec![Kind::TypeClash]));
    let (shown, met) = meet(&[], |e| e.assign(b"text", KEEP), |e| e.member_add(b"m"));
    assert_eq!((shown.set().map(|s| s.len()), kinds(&met)), (Some(1), vec![Kind::TypeClash]));
}

#[test]
fn a_plain_string_leaves_no_mark_and_takes_no_more_room() {
    let mut stating = Replica::new(0);
    stating.lww = true;
    let mut plain = Replica::new(0);
    for value in [&b"a"[..], b"b"] {
        let write = |replica: &mut Replica| {
            let op = replica
                .write_with(1, |r, stamp, out| r.edit(stamp, 1, &key(0), out, |e| e.assign(value, KEEP)));
            op.unwrap().body.len()
        };
        // A clear.
        assert_eq!(write(&mut stating), write(&mut plain) + 4);
    }
    assert_eq!(stating.data, plain.data);
}

#[test]
fn a_key_written_under_crdt_reads_the_same_under_lww() {
    let mut a = Replica::new(0);
    let edits: [Do; 3] = [
        |e| e.field_assign(b"f", b"1"),
        |e| e.field_add(b"g", &Amount::from(2)),
        |e| e.field_assign(b"h", b"3"),
    ];
    for edit in edits {
        state(&mut a, 1, edit);
    }
    let object = &a.data[&key(0)];
    assert!(std::ptr::eq(object.under_lww(), object));
}
