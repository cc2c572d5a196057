//! What every [`Store`](super::Store) must do, run against each of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::{Batch, RowRange, Store, row};

/// What a store rests on: the same medium opened twice shows the same rows.
pub(super) trait Medium {
    type Opened: Store;

    fn create() -> Self;
    /// Opens the store; the one opened before must have been dropped.
    fn open(&self) -> Self::Opened;
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

const ALL: RowRange = (Bound::Unbounded, Bound::Unbounded);

pub(super) fn scan(store: &impl Store, range: RowRange, limit: usize) -> Rows {
    let mut rows = Rows::new();
    store
        .scan(range, limit, &mut |key, payload| {
            rows.push((key.to_vec(), payload.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn put(store: &impl Store, rows: &[(&[u8], &[u8])]) {
    let mut batch = Batch::new();
    for (key, payload) in rows {
        batch.put(key, payload).unwrap();
    }
    store.commit(&batch).unwrap();
}

fn keys(rows: &Rows) -> Vec<&str> {
    rows.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

pub(super) fn an_empty_store_has_nothing<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.position().unwrap(), None);
    assert!(scan(&store, ALL, 10).is_empty());
    store.commit(&Batch::new()).unwrap();
    store.sync().unwrap();
    store.metrics();
}

pub(super) fn rows_are_ordered_as_bytes<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    let mut expected: Vec<Vec<u8>> =
        vec![vec![1], vec![1, 0], vec![0x7f], vec![0x80], vec![0xff], vec![0xff, 0xff], b"a".to_vec()];
    for key in &expected {
        put(&store, &[(key, key)]);
    }
    expected.sort();
    let found: Vec<Vec<u8>> = scan(&store, ALL, 100).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, expected);
}

pub(super) fn scans_keep_to_their_bounds_and_limits<M: Medium>() {
    use Bound::{Excluded, Included, Unbounded};
    let medium = M::create();
    let store = medium.open();
    put(&store, &[(b"a", b"1"), (b"b", b"2"), (b"ba", b"3"), (b"c", b"4")]);
    let of = |from: Bound<&str>, to: Bound<&str>, limit| {
        let range = (from.map(|k| k.as_bytes().to_vec()), to.map(|k| k.as_bytes().to_vec()));
        let rows = scan(&store, range, limit);
        keys(&rows).join(" ")
    };
    assert_eq!(of(Included("b"), Included("c"), 9), "b ba c");
    assert_eq!(of(Excluded("b"), Excluded("c"), 9), "ba");
    assert_eq!(of(Included("aa"), Unbounded, 2), "b ba");
    assert_eq!(of(Unbounded, Excluded("b"), 9), "a");
    assert_eq!(of(Included("b"), Included("b"), 9), "b");
    assert_eq!(of(Unbounded, Unbounded, 0), "");
    for (from, to) in [
        (Included("c"), Included("a")),
        (Excluded("b"), Excluded("b")),
        (Included("b"), Excluded("b")),
        (Excluded("b"), Included("b")),
        (Unbounded, Included("")),
        (Unbounded, Excluded("")),
    ] {
        assert_eq!(of(from, to, 9), "", "{from:?} {to:?}");
    }
    assert_eq!(keys(&scan(&store, row::prefix_range(b"b"), 9)), ["b", "ba"]);
    let mut seen = 0;
    store
        .scan(ALL, 9, &mut |_, _| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 2);
}

pub(super) fn bounds_longer_than_any_key_are_harmless<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    let longest = vec![b'k'; row::MAX_KEY_BYTES];
    let longer = vec![b'k'; row::MAX_KEY_BYTES + 1];
    put(&store, &[(b"a", b"1"), (&longest, b"2"), (b"z", b"3")]);
    assert_eq!(store.get(&longest).unwrap().unwrap(), b"2".as_slice());
    assert_eq!(store.get(&longer).unwrap(), None);
    assert_eq!(store.get(b"").unwrap(), None);
    for bound in [Bound::Included(longer.clone()), Bound::Excluded(longer.clone())] {
        assert_eq!(scan(&store, (bound.clone(), Bound::Unbounded), 9).len(), 1);
        assert_eq!(scan(&store, (Bound::Unbounded, bound), 9).len(), 2);
    }
    assert!(scan(&store, (Bound::Included(longer.clone()), Bound::Included(longer)), 9).is_empty());
}

pub(super) fn later_changes_win<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    put(&store, &[(b"a", b"1"), (b"b", b"1")]);
    put(&store, &[(b"a", b"2")]);
    let mut batch = Batch::new();
    batch.put(b"c", b"1").unwrap();
    batch.delete(b"c").unwrap();
    batch.delete(b"b").unwrap();
    batch.put(b"d", b"1").unwrap();
    batch.put(b"d", b"2").unwrap();
    batch.delete(b"never").unwrap();
    batch.delete(b"a").unwrap();
    batch.put(b"a", b"3").unwrap();
    store.commit(&batch).unwrap();
    let expected: Rows = vec![(b"a".to_vec(), b"3".to_vec()), (b"d".to_vec(), b"2".to_vec())];
    assert_eq!(scan(&store, ALL, 9), expected);
    assert_eq!(store.get(b"b").unwrap(), None);
    assert_eq!(store.get(b"c").unwrap(), None);
    drop(store);
    assert_eq!(scan(&medium.open(), ALL, 9), expected);
}

pub(super) fn the_position_travels_with_the_rows<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    let mut batch = Batch::new();
    batch.put(b"a", b"1").unwrap();
    batch.set_position(b"at 0");
    batch.set_position(b"at 1");
    store.commit(&batch).unwrap();
    assert_eq!(store.position().unwrap().unwrap(), b"at 1");
    put(&store, &[(b"a", b"2")]);
    assert_eq!(store.position().unwrap().unwrap(), b"at 1", "a batch without one keeps it");
    batch.clear();
    batch.set_position(b"");
    store.commit(&batch).unwrap();
    assert_eq!(store.position().unwrap().unwrap(), b"");
    assert_eq!(scan(&store, ALL, 9).len(), 1, "the position is no row");
    assert_eq!(scan(&store, (Bound::Included(vec![]), Bound::Unbounded), 9).len(), 1);
    assert_eq!(scan(&store, (Bound::Excluded(vec![0]), Bound::Included(vec![0, 0xff])), 9).len(), 0);
    assert_eq!(store.get(row::POSITION_KEY).unwrap(), None);
}

pub(super) fn values_may_be_large_or_empty<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for length in [0, 1, 4096, 4097, large.len()] {
        put(&store, &[(format!("v{length}").as_bytes(), &large[..length])]);
    }
    store.sync().unwrap();
    drop(store);
    let store = medium.open();
    for length in [0, 1, 4096, 4097, large.len()] {
        let key = format!("v{length}");
        assert_eq!(store.get(key.as_bytes()).unwrap().unwrap(), large[..length]);
        let rows = scan(&store, row::prefix_range(key.as_bytes()), 1);
        assert_eq!(rows[0].1, large[..length]);
    }
}

/// A model test: the same random changes to the store and to a map.
pub(super) fn many_rows_are_as_a_map_has_them<M: Medium>() {
    let medium = M::create();
    let mut store = medium.open();
    let mut model = BTreeMap::new();
    let mut state = 1_u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut batch = Batch::new();
    for commit in 0..200_u64 {
        batch.clear();
        for _ in 0..next(300) {
            let key = format!("k{}", next(20_000)).into_bytes();
            if next(4) == 0 {
                batch.delete(&key).unwrap();
                model.remove(&key);
            } else {
                let value = vec![b'x'; next(200) as usize];
                batch.put(&key, &value).unwrap();
                model.insert(key, value);
            }
        }
        batch.set_position(&commit.to_be_bytes());
        store.commit(&batch).unwrap();
        if commit % 67 == 66 {
            store.sync().unwrap();
            drop(store);
            store = medium.open();
            assert_eq!(store.position().unwrap().unwrap(), commit.to_be_bytes());
        }
    }
    let rows: Rows = model.clone().into_iter().collect();
    assert!(rows.len() > 10_000, "{}", rows.len());
    assert!(scan(&store, ALL, usize::MAX) == rows);
    for n in 0..20_000 {
        let key = format!("k{n}").into_bytes();
        assert_eq!(store.get(&key).unwrap().as_deref(), model.get(&key).map(Vec::as_slice));
    }
}

pub(super) fn reopening_shows_what_was_committed<M: Medium>() {
    let medium = M::create();
    for n in 0..5_u8 {
        let store = medium.open();
        let mut batch = Batch::new();
        batch.put(&[b'k', n], &[n]).unwrap();
        batch.set_position(&[n]);
        store.commit(&batch).unwrap();
        if n % 2 == 0 {
            store.sync().unwrap();
        }
        drop(store);
        let store = medium.open();
        assert_eq!(store.position().unwrap().unwrap(), [n]);
        assert_eq!(scan(&store, ALL, 99).len(), usize::from(n) + 1);
    }
}

/// Readers beside a writer whose every batch gives all rows one number.
pub(super) fn a_scan_sees_whole_batches<M: Medium>() {
    let medium = M::create();
    let store = medium.open();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut batch = Batch::new();
            for n in 0..300_u32 {
                batch.clear();
                for row in 0..50_u8 {
                    batch.put(&[b'r', row], &n.to_be_bytes()).unwrap();
                }
                batch.set_position(&n.to_be_bytes());
                store.commit(&batch).unwrap();
            }
        });
        while !writer.is_finished() {
            let position = store.position().unwrap();
            let rows = scan(&store, ALL, 99);
            assert!(rows.is_empty() || rows.len() == 50, "{}", rows.len());
            assert!(rows.iter().all(|(_, value)| *value == rows[0].1), "{rows:?}");
            if let Some(position) = position {
                assert!(rows[0].1 >= position, "rows are no older than the position read before them");
            }
        }
    });
}

/// One test per clause of the contract.
macro_rules! suite {
    ($medium:ident) => {
        $crate::store::contract::suite!(
            $medium: an_empty_store_has_nothing, rows_are_ordered_as_bytes,
            scans_keep_to_their_bounds_and_limits, bounds_longer_than_any_key_are_harmless,
            later_changes_win, the_position_travels_with_the_rows, values_may_be_large_or_empty,
            many_rows_are_as_a_map_has_them, reopening_shows_what_was_committed, a_scan_sees_whole_batches
        );
    };
    ($medium:ident: $($clause:ident),*) => {
        mod contract_suite {
            $(
                #[test]
                fn $clause() {
                    $crate::store::contract::$clause::<super::$medium>();
                }
            )*
        }
    };
}
pub(super) use suite;
