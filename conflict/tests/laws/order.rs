//! [`Order`] against a plain ordered set.

use std::collections::BTreeSet;
use std::sync::Arc;

use meridian_conflict::crdt::Score;
use meridian_conflict::crdt::order::Order;
use proptest::prelude::*;

fn score(n: i16) -> Score {
    Score::new(f64::from(n)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(250) })]

    #[test]
    fn order_is_an_ordered_set_with_ranks(
        // Many inserts of few scores: runs split, and members of one score cross runs.
        work in proptest::collection::vec((0u8..10, -4i16..4, 0u16..2000), 1..3000),
        ascending: bool,
        probes in proptest::collection::vec((0usize..3000, 0usize..3000, -5i16..5, 0u16..2000), 20),
    ) {
        let mut order = Order::default();
        let mut model: BTreeSet<(Score, Arc<[u8]>)> = BTreeSet::new();
        if ascending {
            for n in 0..1500u16 {
                let member: Arc<[u8]> = n.to_be_bytes().as_slice().into();
                order.insert(score(5), Arc::clone(&member));
                model.insert((score(5), member));
            }
        }
        for (what, s, m) in &work {
            let member: Arc<[u8]> = m.to_be_bytes().as_slice().into();
            if *what < 7 {
                if model.insert((score(*s), Arc::clone(&member))) {
                    order.insert(score(*s), member);
                }
            } else {
                let there = model.remove(&(score(*s), Arc::clone(&member)));
                prop_assert_eq!(order.remove(score(*s), &member), there);
            }
            prop_assert_eq!(order.len(), model.len());
        }
        let sorted: Vec<_> = model.iter().cloned().collect();
        prop_assert_eq!(order.is_empty(), sorted.is_empty());
        prop_assert_eq!(order.range(0..usize::MAX).cloned().collect::<Vec<_>>(), sorted.clone());
        for (a, b, s, m) in probes {
            let end = b.min(sorted.len());
            let expected = sorted.get(a.min(end)..end).unwrap();
            prop_assert_eq!(order.range(a..b).cloned().collect::<Vec<_>>(), expected);
            let mut backward: Vec<_> = order.range(a..b).rev().cloned().collect();
            backward.reverse();
            prop_assert_eq!(backward, expected);
            prop_assert_eq!(order.get(a), sorted.get(a));
            let member: Arc<[u8]> = m.to_be_bytes().as_slice().into();
            let place = (score(s), member);
            prop_assert_eq!(order.rank(place.0, &place.1), sorted.partition_point(|e| *e < place));
            prop_assert_eq!(
                order.partition_point(|e| e.0 < place.0),
                sorted.partition_point(|e| e.0 < place.0)
            );
        }
        for entry in &sorted {
            prop_assert!(order.remove(entry.0, &entry.1));
            prop_assert!(!order.remove(entry.0, &entry.1));
        }
        prop_assert!(order.is_empty() && order.get(0).is_none() && order.range(0..9).next().is_none());
    }
}
