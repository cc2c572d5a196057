//! A digest of what shows, equal in converged regions whatever their store, order or metadata.
//!
//! Per key: xxh3-128 over database, key, type, content and deadline; elements of collections and
//! keys of the dataset are added up, so no order enters.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::object::Object;
use crate::op::Facet;

fn pair(a: &[u8], b: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&(a.len() as u64).to_le_bytes());
    hasher.update(a);
    hasher.update(b);
    hasher.digest128()
}

/// The digest of one key as it shows at `now_ms`; zero when it does not show. The digest of a
/// dataset is the wrapping sum over its keys.
pub fn digest(database: u8, key: &[u8], object: &Object, now_ms: u64) -> u128 {
    if object.is_expired(now_ms) {
        return 0;
    }
    let Some(facet) = object.facet() else { return 0 };
    let content = match facet {
        Facet::String => object.string().and_then(|s| s.shown()).map_or(0, |shown| xxh3_128(&shown)),
        Facet::Hash => object.hash().map_or(0, |hash| {
            hash.fields()
                .iter()
                .filter_map(|(field, scalar)| Some(pair(field, &scalar.shown()?)))
                .fold(0u128, u128::wrapping_add)
        }),
        Facet::Set => object.set().map_or(0, |set| {
            set.members().keys().map(|member| pair(member, &[])).fold(0u128, u128::wrapping_add)
        }),
        Facet::SortedSet => object.sorted_set().map_or(0, |sorted| {
            sorted
                .range(0..usize::MAX)
                .map(|(score, member)| pair(member, &score.to_bits().to_le_bytes()))
                .fold(0u128, u128::wrapping_add)
        }),
    };
    let mut hasher = Xxh3::new();
    hasher.update(&[database, facet as u8]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&content.to_le_bytes());
    if let Some(at_ms) = object.deadline_ms() {
        hasher.update(&at_ms.to_le_bytes());
    }
    hasher.digest128()
}
