#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ops::Bound;

use tempfile::TempDir;

use super::*;
use crate::store::contract::{self, Medium, scan};

struct Directory(TempDir);

impl Medium for Directory {
    type Opened = FjallStore;

    fn create() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> FjallStore {
        FjallStore::open(&self.0.path().join("store"), small()).unwrap()
    }
}

contract::suite!(Directory);

/// Small buffers, so that tests reach tables and compactions.
fn small() -> FjallOptions {
    FjallOptions { cache_bytes: 1 << 20, write_buffer_bytes: 256 << 10, ..FjallOptions::default() }
}

fn numbered(store: &FjallStore, n: u32) {
    let mut batch = Batch::new();
    batch.put(b"a", &n.to_be_bytes()).unwrap();
    batch.put(format!("n{n:03}").as_bytes(), &[0xaa; 100]).unwrap();
    batch.put(b"z", &n.to_be_bytes()).unwrap();
    batch.set_position(&n.to_be_bytes());
    store.commit(&batch).unwrap();
}

/// Asserts that the store holds the commits 0..=n for some n, and returns how many they are.
fn prefix(store: &FjallStore) -> u32 {
    let Some(position) = store.position().unwrap() else {
        assert!(scan(store, (Bound::Unbounded, Bound::Unbounded), 9).is_empty());
        return 0;
    };
    assert_eq!(store.get(b"a").unwrap().unwrap(), position);
    assert_eq!(store.get(b"z").unwrap().unwrap(), position);
    let commits = u32::from_be_bytes(position.try_into().unwrap()) + 1;
    let names: Vec<Vec<u8>> =
        scan(store, row::prefix_range(b"n"), 9999).into_iter().map(|(key, _)| key).collect();
    let expected: Vec<Vec<u8>> = (0..commits).map(|n| format!("n{n:03}").into_bytes()).collect();
    assert_eq!(names, expected);
    commits
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().extension().is_some_and(|end| end == "jnl") {
            // Preallocated with zeros: copy what was written.
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end);
            std::fs::write(target, bytes).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the disk holds when the process dies now: the files as they are, taken while the store is open.
fn image(of: &Path) -> TempDir {
    let image = TempDir::new().unwrap();
    copy(of, image.path());
    image
}

#[test]
fn a_killed_process_loses_no_commit() {
    let directory = Directory::create();
    let store = directory.open();
    for n in 0..20 {
        numbered(&store, n);
        if n % 5 == 0 {
            let image = image(&directory.0.path().join("store"));
            assert_eq!(prefix(&FjallStore::open(image.path(), small()).unwrap()), n + 1);
        }
    }
}

#[test]
fn a_journal_cut_anywhere_leaves_a_prefix_of_the_commits() {
    let directory = Directory::create();
    let path = directory.0.path().join("store");
    let store = directory.open();
    for n in 0..10 {
        numbered(&store, n);
    }
    let image = image(&path);
    let journal = std::fs::read(image.path().join("rows/0.jnl")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (cut, zeros) in (0..journal.len()).step_by(37).zip([false, true].into_iter().cycle()) {
        let crashed = TempDir::new().unwrap();
        copy(image.path(), crashed.path());
        let mut bytes = journal[..cut].to_vec();
        if zeros {
            bytes.resize(journal.len() + 4096, 0);
        }
        std::fs::write(crashed.path().join("rows/0.jnl"), bytes).unwrap();
        let reopened = FjallStore::open(crashed.path(), small()).unwrap();
        let commits = prefix(&reopened);
        seen.insert(commits);
        // What comes after the crash survives too.
        numbered(&reopened, commits);
        drop(reopened);
        assert_eq!(prefix(&FjallStore::open(crashed.path(), small()).unwrap()), commits + 1);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_in_a_journal_leaves_a_prefix_or_is_refused() {
    let directory = Directory::create();
    let store = directory.open();
    for n in 0..10 {
        numbered(&store, n);
    }
    let image = image(&directory.0.path().join("store"));
    let journal = std::fs::read(image.path().join("rows/0.jnl")).unwrap();
    let mut refused = 0;
    // Every byte of a batch's head and tail, which its checksum covers only in part, and some of the rest.
    let batch = journal.len() / 10;
    let near = |at: usize| (3 * batch..3 * batch + 40).contains(&at) || at.is_multiple_of(29);
    for at in (0..journal.len()).filter(|&at| near(at)) {
        let damaged = TempDir::new().unwrap();
        copy(image.path(), damaged.path());
        let mut bytes = journal.clone();
        bytes[at] ^= 0x10;
        std::fs::write(damaged.path().join("rows/0.jnl"), bytes).unwrap();
        match FjallStore::open(damaged.path(), small()) {
            Ok(store) => {
                prefix(&store);
            }
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_flipped_bit_in_a_table_is_an_error_and_never_another_value() {
    let directory = Directory::create();
    let path = directory.0.path().join("store");
    let store = directory.open();
    for n in 0..100 {
        numbered(&store, n);
    }
    store.engine.read().as_ref().unwrap().rows.rotate_memtable_and_wait().unwrap();
    drop(store);
    let table =
        std::fs::read_dir(path.join("rows/keyspaces/1/tables")).unwrap().next().unwrap().unwrap().path();
    let intact = std::fs::read(&table).unwrap();
    let (mut refused, mut corrupt) = (0, 0);
    for at in (0..intact.len()).step_by(intact.len() / 120) {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x04;
        std::fs::write(&table, bytes).unwrap();
        let store = match FjallStore::open(&path, small()) {
            Ok(store) => store,
            Err(StoreError::Damaged { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("byte {at}: {error:?}"),
        };
        for n in 0..100 {
            match store.get(format!("n{n:03}").as_bytes()) {
                Ok(value) => assert_eq!(value.unwrap(), [0xaa; 100].as_slice(), "byte {at}"),
                Err(StoreError::Corrupt { .. }) => corrupt += 1,
                Err(error) => panic!("byte {at}: {error:?}"),
            }
        }
    }
    assert!(refused > 0 && corrupt > 0, "{refused} {corrupt}");
}

#[test]
fn rows_stay_right_over_flushes_and_compactions() {
    let directory = Directory::create();
    let store = directory.open();
    let key = |n: u32| format!("k{:06}", n.wrapping_mul(7919) % 30_000).into_bytes();
    let mut batch = Batch::new();
    for round in 0..3_u32 {
        for chunk in 0..30 {
            batch.clear();
            for n in chunk * 1000..(chunk + 1) * 1000 {
                if round == 2 && n % 3 == 0 {
                    batch.delete(&key(n)).unwrap();
                } else {
                    batch.put(&key(n), &[n.to_be_bytes(), round.to_be_bytes()].concat().repeat(8)).unwrap();
                }
            }
            batch.set_position(&round.to_be_bytes());
            store.commit(&batch).unwrap();
        }
    }
    store.sync().unwrap();
    let figures = store.metrics();
    assert!(figures.tables > 0 && figures.compactions > 0 && figures.disk_bytes > 0, "{figures:?}");
    drop(store);
    let store = directory.open();
    for n in 0..30_000_u32 {
        let expected = (n % 3 != 0).then(|| [n.to_be_bytes(), 2_u32.to_be_bytes()].concat().repeat(8));
        assert_eq!(store.get(&key(n)).unwrap().as_deref(), expected.as_deref(), "{n}");
    }
    assert_eq!(scan(&store, row::prefix_range(b"k"), usize::MAX).len(), 20_000);
    assert_eq!(store.position().unwrap().unwrap(), 2_u32.to_be_bytes());
}

#[test]
fn a_second_holder_is_refused_until_the_first_lets_go() {
    let directory = Directory::create();
    let path = directory.0.path().join("store");
    let store = directory.open();
    assert!(matches!(FjallStore::open(&path, small()), Err(StoreError::Locked { .. })));
    numbered(&store, 0);
    drop(store);
    assert_eq!(prefix(&directory.open()), 1);
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let directory = Directory::create();
    let path = directory.0.path().join("store");
    numbered(&directory.open(), 0);
    let marker = std::fs::read_to_string(path.join("FORMAT")).unwrap();
    assert!(marker.starts_with("meridian store 1\ncreated "));
    for (text, number) in [("meridian store 2\n", 2), ("meridian store 0\ncreated 1\n", 0)] {
        std::fs::write(path.join("FORMAT"), text).unwrap();
        match FjallStore::open(&path, small()).map(|_| ()) {
            Err(StoreError::Format { found, supported: 1, .. }) => assert_eq!(found, number),
            other => panic!("{other:?}"),
        }
    }
    for bytes in [b"".as_slice(), b"meridian store x", b"\xff\xfe"] {
        std::fs::write(path.join("FORMAT"), bytes).unwrap();
        assert!(matches!(FjallStore::open(&path, small()), Err(StoreError::NotAStore { .. })));
    }
    std::fs::remove_file(path.join("FORMAT")).unwrap();
    assert!(matches!(FjallStore::open(&path, small()), Err(StoreError::NotAStore { .. })));
    std::fs::write(path.join("FORMAT"), marker).unwrap();
    assert_eq!(prefix(&directory.open()), 1);
}

#[test]
fn a_strangers_directory_is_left_as_it_was() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("thesis.tex"), b"").unwrap();
    assert!(matches!(FjallStore::open(directory.path(), small()), Err(StoreError::NotAStore { .. })));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_creation_cut_short_is_begun_again() {
    for version in [None, Some(b"".as_slice())] {
        let directory = Directory::create();
        let path = directory.0.path().join("store");
        drop(directory.open());
        std::fs::remove_dir_all(path.join("rows")).unwrap();
        std::fs::create_dir_all(path.join("rows/keyspaces")).unwrap();
        std::fs::write(path.join("rows/lock"), b"").unwrap();
        std::fs::write(path.join("rows/0.jnl"), [0; 99]).unwrap();
        if let Some(version) = version {
            std::fs::write(path.join("rows/version"), version).unwrap();
        }
        numbered(&directory.open(), 0);
        assert_eq!(prefix(&directory.open()), 1);
    }
}

#[test]
fn a_store_that_lost_its_version_file_is_refused_and_not_emptied() {
    let directory = Directory::create();
    let path = directory.0.path().join("store");
    numbered(&directory.open(), 0);
    let version = std::fs::read(path.join("rows/version")).unwrap();
    std::fs::remove_file(path.join("rows/version")).unwrap();
    assert!(matches!(FjallStore::open(&path, small()), Err(StoreError::Damaged { .. })));
    std::fs::write(path.join("rows/version"), version).unwrap();
    assert_eq!(prefix(&directory.open()), 1);
}
