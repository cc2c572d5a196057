//! What may be forgotten, and when: sums of swallowed deltas, and keys whose deadline has passed.
//!
//! An op is *settled* at a replica when every op still to come there was written by one that had
//! applied it. A key's sums go locally once all ops on the key are settled. An expired key goes by
//! an op that clears it, like any other delete: were it dropped without one, whoever writes it next
//! would not say that its former life is over, to those who have not dropped it yet.

use meridian_conflict::clock::{Origin, VersionVector, covers};
use meridian_conflict::object::Object;
use meridian_conflict::op::{BodyBuilder, Effect, changes};
use meridian_conflict::outcome::Outcome;
use proptest::prelude::*;

use crate::convergence::{merge_into, reclaim, union};
use crate::harness::{Command, Dataset, Dice, Key, Replica, Step, Travelling, World, history, key};

/// Where a twin writes an op that does nothing when the other world clears a key: clocks and
/// numbers of both stay the same.
fn nowhere() -> Key {
    (9, b"nowhere".to_vec())
}

/// A world that forgets, and its twin that does not.
struct Pair {
    worlds: [World; 2],
    cleared: bool,
}

impl Pair {
    fn new() -> Self {
        Self { worlds: [World::new(3), World::new(3)], cleared: false }
    }

    /// A step in both worlds. Writers judge expiry by their hybrid clock.
    fn step(&mut self, step: &Step) {
        let mut step = step.clone();
        if let Step::Local { at, wall_ms, .. } = &mut step {
            let clock = self.worlds[0].replicas[usize::from(*at) % 3].clock.last().ms();
            *wall_ms = (*wall_ms).max(u8::try_from(clock).unwrap());
        }
        self.worlds.iter_mut().for_each(|world| world.step(&step));
    }

    /// Forgets at replica `at` what may be, if the replicas `among` are those that are waited for.
    fn reap(&mut self, at: usize, among: &[usize], clear: bool) {
        let keys: Vec<Key> = self.worlds[0].replicas[at].data.keys().cloned().collect();
        for key in keys {
            let world = &mut self.worlds[0];
            if !is_settled(world, at, among, &key) {
                continue;
            }
            let outside = |origin: Origin| !among.iter().any(|n| world.replicas[*n].origin == origin);
            let object = &world.replicas[at].data[&key];
            if clear && object.deadline_ms().is_some_and(|ms| is_past(world, at, among, ms)) {
                self.clear(at, &key);
                continue;
            }
            let mut object = object.clone();
            object.reclaim(outside, &mut Outcome::default());
            world.replicas[at].data.insert(key, object);
            world.replicas[at].data.retain(|_, object| !object.is_vacant());
        }
    }

    fn clear(&mut self, at: usize, key: &Key) {
        self.cleared = true;
        for (world, key) in self.worlds.iter_mut().zip([key.clone(), nowhere()]) {
            let now = world.replicas[at].clock.last().ms();
            let op = world.replicas[at].write_with(now, |replica, stamp, out: &mut BodyBuilder| {
                // Under every policy it removes what was seen: no statement, to which a write that races it could lose.
                let lww = std::mem::take(&mut replica.lww);
                replica.edit(stamp, now, &key, out, |editor| {
                    if key == nowhere() { editor.member_remove(b"x") } else { editor.clear() }
                });
                replica.lww = lww;
            });
            world.replicas[at].log.push(world.ops.len());
            world.ops.push(op.unwrap());
        }
    }

    fn drain(&mut self, seed: u64) {
        self.worlds.iter_mut().for_each(|world| world.drain(&mut Dice(seed)));
    }

    /// Whether a write begins a new life in both worlds and only the twin, where the old one still
    /// lies about, says that it has no deadline, while another region gives the key one. The twin
    /// decides for the writer, as it must; the world that forgot takes the race for what it is.
    fn race_for_a_deadline(&self) -> bool {
        let [forgetful, twin] = &self.worlds;
        let says = |op: &Travelling, key: &[u8], what: fn(&Effect<'_>) -> bool| {
            let of_key = changes(&op.body).flatten().filter(|change| change.key == key);
            of_key
                .flat_map(|change| change.effects().flatten().collect::<Vec<_>>())
                .any(|effect| what(&effect))
        };
        let is_persist = |effect: &Effect<'_>| matches!(effect, Effect::Persist);
        let is_deadline = |effect: &Effect<'_>| matches!(effect, Effect::Deadline { .. });
        forgetful.ops.iter().zip(&twin.ops).any(|(one, other)| {
            let keys = changes(&other.body).flatten().map(|change| change.key);
            keys.into_iter().any(|key| {
                says(one, key, is_persist) != says(other, key, is_persist)
                    && (forgetful.ops.iter().filter(|op| are_concurrent(op, one)))
                        .any(|op| says(op, key, is_deadline))
            })
        })
    }

    fn now(&self) -> u64 {
        let clocks = self.worlds[0].replicas.iter().map(|replica| replica.clock.last().ms());
        clocks.max().unwrap_or(0).max(60)
    }
}

fn are_concurrent(one: &Travelling, other: &Travelling) -> bool {
    !covers(&one.deps, &other.stamp.dot) && !covers(&other.deps, &one.stamp.dot) && one.stamp != other.stamp
}

fn touches(op: &Travelling, key: &Key) -> bool {
    changes(&op.body)
        .flatten()
        .any(|change| change.database == key.0 && (change.key.is_empty() || change.key == key.1))
}

/// Ops that may still come to `at` from those `among`.
fn to_come<'w>(
    world: &'w World,
    at: usize,
    among: &'w [usize],
) -> impl Iterator<Item = &'w Travelling> + Clone {
    let of = move |op: &&Travelling| among.iter().any(|n| world.replicas[*n].origin == op.stamp.dot.actor);
    world.ops.iter().filter(of).filter(move |op| !covers(&world.replicas[at].applied, &op.stamp.dot))
}

fn is_settled(world: &World, at: usize, among: &[usize], key: &Key) -> bool {
    let applied = &world.replicas[at].applied;
    let coming = to_come(world, at, among);
    world.ops.iter().filter(|op| covers(applied, &op.stamp.dot) && touches(op, key)).all(|op| {
        among.iter().all(|n| covers(&world.replicas[*n].applied, &op.stamp.dot))
            && coming.clone().all(|later| covers(&later.deps, &op.stamp.dot))
    })
}

/// Whether nobody writes to it any more without knowing that the deadline has passed.
fn is_past(world: &World, at: usize, among: &[usize], deadline_ms: u64) -> bool {
    among.iter().all(|n| world.replicas[*n].clock.last().ms() >= deadline_ms)
        && to_come(world, at, among).all(|op| op.stamp.hlc.ms() >= deadline_ms)
}

/// All replicas are the same, and remain so when all have forgotten what they can.
fn are_equal(world: &World, now: u64) -> Result<(), TestCaseError> {
    let first = &world.replicas[0];
    for replica in &world.replicas {
        prop_assert_eq!(replica.digest(now), first.digest(now));
    }
    let forgotten: Vec<Dataset> = (world.replicas.iter())
        .map(|replica| {
            let mut data = replica.data.clone();
            reclaim(&mut data);
            data
        })
        .collect();
    prop_assert_eq!(&forgotten[0], &forgotten[1]);
    prop_assert_eq!(&forgotten[0], &forgotten[2]);
    Ok(())
}

fn local_at(step: &Step, at: usize) -> Option<Step> {
    match step {
        Step::Local { wall_ms, commands, .. } => {
            Some(Step::Local { at: at as u8, wall_ms: *wall_ms, commands: commands.clone() })
        }
        _ => None,
    }
}

/// A history in which two regions fence the third, which comes back with what it wrote meanwhile.
fn absence(before: &[Step], absent: &[Step], unsent: &[Step], clear: bool, dice: &mut Dice) -> Pair {
    let mut pair = Pair::new();
    for step in before {
        pair.step(step);
        pair.reap(dice.below(3), &[0, 1, 2], clear);
    }
    let mut unsent = unsent.iter().filter_map(|step| local_at(step, 2));
    for step in absent {
        let (Step::Local { at, .. }
        | Step::Deliver { at, .. }
        | Step::Again { at, .. }
        | Step::Policy { at, .. }) = step;
        let at = usize::from(*at) % 2;
        match step {
            Step::Local { .. } => pair.step(&local_at(step, at).unwrap()),
            Step::Policy { .. } => pair.step(step),
            // What the third wrote stays with it.
            _ => deliver_among(&mut pair, at, dice.below(64)),
        }
        if dice.below(2) == 0
            && let Some(step) = unsent.next()
        {
            pair.step(&step);
        }
        pair.reap(dice.below(2), &[0, 1], clear);
    }
    unsent.for_each(|step| pair.step(&step));
    pair
}

/// Delivers one op of the first two to one of them.
fn deliver_among(pair: &mut Pair, at: usize, pick: usize) {
    for world in &mut pair.worlds {
        let third = world.replicas[2].origin;
        let ready: Vec<usize> = (0..world.ops.len())
            .filter(|n| {
                world.ops[*n].stamp.dot.actor != third
                    || covers(&world.replicas[1 - at].applied, &world.ops[*n].stamp.dot)
            })
            .filter(|n| world.replicas[at].can_apply(&world.ops[*n]))
            .collect();
        if let Some(n) = ready.get(pick % ready.len().max(1)) {
            let op = world.ops[*n].clone();
            world.replicas[at].apply(*n, &op);
        }
    }
}

fn forgetting_does_not_show(steps: &[Step], seed: u64) -> Result<(), TestCaseError> {
    let mut dice = Dice(seed);
    let mut pair = Pair::new();
    for step in steps {
        pair.step(step);
        pair.reap(dice.below(3), &[0, 1, 2], true);
    }
    pair.drain(seed);
    let now = pair.now();
    are_equal(&pair.worlds[0], now)?;
    if !pair.race_for_a_deadline() {
        let [forgetful, twin] = &pair.worlds;
        prop_assert_eq!(forgetful.replicas[0].digest(now), twin.replicas[0].digest(now));
    }
    // In the end nothing is left but what shows, or will be cleared.
    let mut last = pair;
    last.reap(0, &[0, 1, 2], true);
    last.drain(seed);
    (0..3).for_each(|at| last.reap(at, &[0, 1, 2], false));
    for object in last.worlds[0].replicas[1].data.values() {
        prop_assert!(!object.remembers(), "{:?}", object);
    }
    Ok(())
}

/// Were the clearing a statement, the write that races it would lose though nobody has deleted anything.
#[test]
fn a_write_that_races_the_clearing_of_an_expired_key_survives_it_under_lww() {
    let deliver = |at| Step::Deliver { at, pick: 0 };
    let local =
        |at, wall_ms, commands: &[(u8, Command)]| Step::Local { at, wall_ms, commands: commands.to_vec() };
    let (set, hset) = (Command::Set { value: 0, keep: false }, Command::HSet { field: 0, value: 0 });
    let zadd = Command::ZAdd { member: 0, score: 0 };
    let steps = [
        deliver(0),
        deliver(0),
        local(0, 0, &[(0, Command::SRem { member: 0 })]),
        local(47, 30, &[(0, zadd.clone())]),
        deliver(0),
        local(0, 0, &[(0, hset.clone())]),
        deliver(0),
        Step::Policy { at: 88, lww: true },
        deliver(0),
        local(234, 0, &[(0, set.clone()), (0, set.clone())]),
        local(24, 0, &[(2, zadd), (2, Command::Expire { at_ms: 0 })]),
        deliver(79),
        deliver(190),
        deliver(28),
        Step::Policy { at: 83, lww: true },
        local(62, 0, &[(0, hset)]),
        local(10, 0, &[(2, set.clone())]),
        deliver(68),
        deliver(32),
        deliver(91),
        local(94, 0, &[(2, Command::HIncrBy { field: 0, amount: 0 }), (0, set)]),
    ];
    forgetting_does_not_show(&steps, 11_281_419_758_366_508_816).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8_000) })]

    #[test]
    fn forgetting_what_is_settled_does_not_show(steps in history(40), seed: u64) {
        forgetting_does_not_show(&steps, seed)?;
    }

    /// The sums of all but the third are forgotten without waiting for it.
    #[test]
    fn d3_sums_forgotten_during_an_absence_are_not_missed(
        before in history(20), absent in history(30), unsent in history(12), seed: u64,
    ) {
        let mut pair = absence(&before, &absent, &unsent, false, &mut Dice(seed));
        pair.drain(seed);
        let now = pair.now();
        are_equal(&pair.worlds[0], now)?;
        for now in [0, 20, now] {
            prop_assert_eq!(pair.worlds[0].replicas[0].digest(now), pair.worlds[1].replicas[0].digest(now));
        }
    }

    /// Keys that expire during the absence go, and stay away whatever the third did to them; what it
    /// wrote itself survives, whether its ops come or its state is merged first.
    #[test]
    fn d1_keys_cleared_during_an_absence_end_the_same_everywhere(
        before in history(20), absent in history(30), unsent in history(12), merges: bool, seed: u64,
    ) {
        let mut dice = Dice(seed);
        let Pair { worlds: [mut world, _], .. } = absence(&before, &absent, &unsent, true, &mut dice);
        if merges {
            let donor = world.replicas[dice.below(2)].clone();
            take_over(&mut world.replicas[2], &donor);
        }
        world.drain(&mut dice);
        let clocks = world.replicas.iter().map(|replica| replica.clock.last().ms());
        let now = clocks.max().unwrap_or(0);
        are_equal(&world, now)?;
        let all = world.replicas[0].applied.clone();
        let mut afresh = world.replay(&all, &mut dice);
        reclaim(&mut afresh.data);
        let mut data = world.replicas[2].data.clone();
        reclaim(&mut data);
        prop_assert_eq!(&data, &afresh.data);
    }
}

fn take_over(receiver: &mut Replica, donor: &Replica) {
    let ours: VersionVector = receiver.applied.clone();
    merge_into(&mut receiver.data, &ours, &donor.data, &donor.applied);
    receiver.applied = union(&ours, &donor.applied);
    receiver.clock.observe(donor.clock.last(), 0, u64::MAX).unwrap();
}

#[test]
fn d1_an_expired_key_stays_gone_though_a_region_that_was_cut_off_held_on_to_it() {
    let mut pair = Pair::new();
    let local = |at, wall_ms, command| Step::Local { at, wall_ms, commands: vec![(0, command)] };
    pair.step(&local(0, 1, Command::SAdd { member: 1 }));
    pair.step(&local(0, 2, Command::Expire { at_ms: 10 }));
    pair.drain(0);
    // The third is cut off, and would keep it.
    pair.step(&local(2, 5, Command::Persist));
    pair.step(&local(2, 6, Command::SAdd { member: 2 }));
    // The others let time pass.
    for at in [0, 1] {
        pair.step(&Step::Local { at, wall_ms: 20, commands: vec![(1, Command::IncrBy { amount: 1 })] });
    }
    for at in [0, 1, 0, 1] {
        deliver_among(&mut pair, at, 0);
    }
    pair.reap(0, &[0, 1], true);
    assert!(pair.cleared);
    pair.drain(0);
    for replica in &pair.worlds[0].replicas {
        let set = replica.data.get(&key(0)).and_then(Object::set).unwrap();
        assert_eq!(set.members().keys().map(|member| member[1]).collect::<Vec<_>>(), [2]);
    }
}
