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

/// Removes an element in constant time; the last element takes its place.
pub(super) fn remove<K: Hash + Eq + Borrow<[u8]>, V>(
    table: &mut ElementTable<K, V>,
    element: &[u8],
) -> Option<V> {
    table.swap_remove(element)
}
