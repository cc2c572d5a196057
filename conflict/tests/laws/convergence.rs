//! Any causal order, with any duplicates, ends in one state; merging states equals delivering ops;
//! replay over rows that are ahead is harmless.

use crdts::{CmRDT, CvRDT};
use meridian_conflict::clock::VersionVector;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use meridian_conflict::outcome::Outcome;
use meridian_conflict::replicated::{Delivery, Replicated};
use proptest::prelude::*;

use crate::harness::{Dataset, Dice, Key, Replica, World, history, on_one_key};

/// A key's data as a client can read it.
#[derive(Debug, PartialEq)]
struct Visible {
    facet: Facet,
    content: Vec<(Vec<u8>, Vec<u8>)>,
    deadline: Option<u64>,
}

fn visible(object: &Object, now_ms: u64) -> Option<Visible> {
    if !object.is_visible(now_ms) {
        return None;
    }
    let facet = object.facet()?;
    let mut content: Vec<(Vec<u8>, Vec<u8>)> = match facet {
        Facet::String => vec![(vec![], object.string().unwrap().shown().unwrap().into_owned())],
        Facet::Hash => (object.hash().unwrap().fields().iter())
            .filter_map(|(f, s)| Some((f.to_vec(), s.shown()?.into_owned())))
            .collect(),
        Facet::Set => object.set().unwrap().members().keys().map(|m| (m.to_vec(), vec![])).collect(),
        Facet::SortedSet => (object.sorted_set().unwrap().range(0..usize::MAX))
            .map(|(s, m)| (m.to_vec(), s.to_bits().to_be_bytes().to_vec()))
            .collect(),
    };
    content.sort();
    Some(Visible { facet, content, deadline: object.deadline_ms() })
}

/// Counters that are kept running agree with the state they count.
fn check_counters(data: &Dataset) {
    for object in data.values() {
        let reloaded = reload(object);
        assert_eq!(*object, reloaded, "a stored object comes back as it was");
        assert_eq!(object.heap_bytes(), reloaded.heap_bytes());
        if let Some(hash) = object.hash() {
            assert_eq!(hash.len(), hash.fields().values().filter(|s| s.is_visible()).count());
        }
        if let Some(sorted) = object.sorted_set() {
            let mut model: Vec<_> =
                sorted.members().iter().filter_map(|(m, s)| Some((s.shown()?, m.clone()))).collect();
            model.sort();
            assert_eq!(sorted.range(0..usize::MAX).cloned().collect::<Vec<_>>(), model);
        }
    }
}

fn reload(object: &Object) -> Object {
    let mut record = Vec::new();
    object.encode_head(&mut record);
    let mut reloaded = Object::decode_head(&record).unwrap();
    object.for_each_element(|facet, element| {
        let mut record = Vec::new();
        assert!(object.encode_element(facet, element, &mut record));
        reloaded.restore_element(facet, element, &record).unwrap();
    });
    reloaded
}

pub fn merge_into(
    ours: &mut Dataset,
    our_vector: &VersionVector,
    theirs: &Dataset,
    their_vector: &VersionVector,
) {
    let none = Object::default();
    for key in theirs.keys() {
        ours.entry(key.clone()).or_default();
    }
    for (key, object) in ours.iter_mut() {
        object.merge(our_vector, theirs.get(key).unwrap_or(&none), their_vector);
    }
    ours.retain(|_, object| !object.is_vacant());
}

pub fn union(a: &VersionVector, b: &VersionVector) -> VersionVector {
    let mut both = a.clone();
    both.merge(b.clone());
    both
}

pub fn merged(a: (&Dataset, &VersionVector), b: (&Dataset, &VersionVector)) -> (Dataset, VersionVector) {
    let mut data = a.0.clone();
    merge_into(&mut data, a.1, b.0, b.1);
    (data, union(a.1, b.1))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12_000) })]

    #[test]
    fn any_causal_order_with_duplicates_ends_in_one_state(steps in history(30), seed: u64) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &steps);
        world.drain(&mut dice);
        let all = world.replicas[0].applied.clone();
        let afresh = world.replay(&all, &mut dice);
        for replica in &world.replicas {
            prop_assert_eq!(&replica.data, &afresh.data);
            for now in [0, 20, 100] {
                prop_assert_eq!(replica.digest(now), afresh.digest(now));
            }
        }
        check_counters(&afresh.data);
        let mut again = world.clone();
        for at in 0..again.replicas.len() {
            again.again(at, dice.below(64));
            prop_assert_eq!(&again.replicas[at].data, &afresh.data);
        }
    }

    #[test]
    fn merging_states_equals_delivering_the_ops(steps in history(40), seed: u64) {
        let mut dice = Dice(seed);
        let world = World::run(4, &steps);
        let mut parts: Vec<(Dataset, VersionVector)> =
            world.replicas.iter().map(|r| (r.data.clone(), r.applied.clone())).collect();
        // In any pairing and order.
        while parts.len() > 1 {
            let a = parts.swap_remove(dice.below(parts.len()));
            let b = parts.swap_remove(dice.below(parts.len()));
            let ab = merged((&a.0, &a.1), (&b.0, &b.1));
            let delivered = world.replay(&ab.1, &mut dice);
            prop_assert_eq!(&ab.0, &delivered.data);
            prop_assert_eq!(&ab, &merged((&b.0, &b.1), (&a.0, &a.1)));
            prop_assert_eq!(&ab, &merged((&ab.0, &ab.1), (&ab.0, &ab.1)));
            prop_assert_eq!(&ab, &merged((&ab.0, &ab.1), (&a.0, &a.1)));
            parts.push(ab);
        }
        check_counters(&parts[0].0);
        let [a, b, c] = [0, 1, 2].map(|i| (&world.replicas[i].data, &world.replicas[i].applied));
        let ab = merged(a, b);
        let bc = merged(b, c);
        prop_assert_eq!(merged((&ab.0, &ab.1), c), merged(a, (&bc.0, &bc.1)));
    }

    #[test]
    fn digests_are_equal_exactly_when_the_visible_data_is(steps in history(20), now in 0u64..50) {
        let world = World::run(3, &steps);
        let objects: Vec<(&Key, &Object)> = world.replicas.iter().flat_map(|r| r.data.iter()).collect();
        for (_, a) in &objects {
            for (_, b) in &objects {
                let digests = [a, b].map(|o| meridian_conflict::digest::digest(0, b"k", o, now));
                prop_assert_eq!(digests[0] == digests[1], visible(a, now) == visible(b, now));
            }
        }
    }

    #[test]
    fn replay_over_rows_that_are_ahead_ends_in_the_same_state(steps in history(30), seed: u64) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &steps);
        world.drain(&mut dice);
        let replica = &world.replicas[dice.below(3)];
        let mut states = vec![Dataset::new()];
        let mut walker = Replica::new(99);
        for index in &replica.log {
            walker.apply(*index, &world.ops[*index]);
            states.push(walker.data.clone());
        }
        prop_assert_eq!(&walker.data, &replica.data);
        let start = dice.below(states.len());
        let mut fuzzy = Replica::new(99);
        fuzzy.data = ahead(&states[start..], &mut dice);
        for index in &replica.log[start..] {
            fuzzy.apply(*index, &world.ops[*index]);
        }
        prop_assert_eq!(&fuzzy.data, &replica.data);
    }

    #[test]
    fn reclaiming_what_every_region_has_applied_does_not_show(
        before in history(20), after in history(20), seed: u64,
    ) {
        let mut dice = Dice(seed);
        let mut world = World::run(3, &before);
        world.drain(&mut dice);
        let mut twin = world.clone();
        // Two regions reclaim what is stable now, one does not; the twin world never does.
        reclaim(&mut world.replicas[0].data);
        reclaim(&mut world.replicas[1].data);
        for step in &after {
            world.step(step);
            twin.step(step);
        }
        world.drain(&mut dice);
        twin.drain(&mut dice);
        for now in [0, 20, 100] {
            for replica in &world.replicas {
                prop_assert_eq!(replica.digest(now), twin.replicas[0].digest(now));
            }
        }
        let reclaimed: Vec<Dataset> = world.replicas.iter_mut().map(|r| { reclaim(&mut r.data); r.data.clone() }).collect();
        prop_assert_eq!(&reclaimed[0], &reclaimed[1]);
        prop_assert_eq!(&reclaimed[0], &reclaimed[2]);
        check_counters(&reclaimed[0]);
    }

    #[test]
    fn the_crate_s_traits_agree_with_delivery(steps in history(30), seed: u64) {
        let mut dice = Dice(seed);
        let world = World::run(3, &on_one_key(steps));
        let mut whole = Replicated::default();
        let mut halves = [Replicated::default(), Replicated::default()];
        for op in &world.ops {
            let op = Delivery { stamp: op.stamp, deps: op.deps.clone(), body: op.body.clone() };
            prop_assert!(whole.validate_op(&op).is_ok());
            whole.apply(op.clone());
            whole.apply(op.clone());
            let half = &mut halves[dice.below(2)];
            if half.validate_op(&op).is_ok() {
                half.apply(op);
            }
        }
        prop_assert_eq!(world.ops.is_empty(), whole == Replicated::default());
        let [mut left, right] = halves;
        prop_assert!(left.validate_merge(&right).is_ok());
        left.merge(right);
        left.merge(whole.clone());
        prop_assert_eq!(left, whole);
    }
}

pub fn reclaim(data: &mut Dataset) {
    for object in data.values_mut() {
        object.reclaim(|_| false, &mut Outcome::default());
    }
    data.retain(|_, object| !object.is_vacant());
}

/// A dataset whose rows are each taken from a state of their own.
pub fn ahead(states: &[Dataset], dice: &mut Dice) -> Dataset {
    let keys: std::collections::BTreeSet<&Key> = states.iter().flat_map(|s| s.keys()).collect();
    let mut data = Dataset::new();
    for key in keys {
        let mut head = Vec::new();
        states[dice.below(states.len())].get(key).cloned().unwrap_or_default().encode_head(&mut head);
        let mut object = Object::decode_head(&head).unwrap();
        let mut elements = std::collections::BTreeSet::new();
        for state in states {
            if let Some(object) = state.get(key) {
                object.for_each_element(|facet, element| {
                    elements.insert((facet, element.to_vec()));
                });
            }
        }
        for (facet, element) in elements {
            let mut record = Vec::new();
            let from = states[dice.below(states.len())].get(key);
            if from.is_some_and(|o| o.encode_element(facet, &element, &mut record)) {
                object.restore_element(facet, &element, &record).unwrap();
            }
        }
        if !object.is_vacant() {
            data.insert(key.clone(), object);
        }
    }
    data
}
