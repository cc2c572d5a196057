//! Elements by name, in a table whose order is a function of the history alone: no random seed, so
//! a simulated run replays. The order is never sent, stored or digested.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use indexmap::IndexMap;

/// Elements of a collection by name.
pub type ElementTable<K, V> = IndexMap<K, V, BuildHasherDefault<ElementHasher>>;

/// A one-shot xxh3 over short names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ElementHasher(u64);

impl Hasher for ElementHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where in a table an element was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TablePlace {
    /// In none.
    #[default]
    Nowhere,
    /// The element at this index was changed or added.
    At(usize),
    /// The element was removed.
    Left {
        /// Where it was.
        at: usize,
        /// The last element's index before, which is the one that stands at `at` now, unless it was
        /// the one removed.
        last: usize,
    },
}

/// Removes an element in constant time; the last element takes its place.
pub(super) fn remove<K: Hash + Eq + Borrow<[u8]>, V>(
    table: &mut ElementTable<K, V>,
    element: &[u8],
) -> Option<(TablePlace, V)> {
    let last = table.len().saturating_sub(1);
    let (at, _, value) = table.swap_remove_full(element)?;
    Some((TablePlace::Left { at, last }, value))
}
