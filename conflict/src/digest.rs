//! A digest of what shows, equal in converged regions whatever their store, order or metadata.
//!
//! Per key: xxh3-128 over database, key, type, content and deadline; elements of collections and
//! keys of the dataset are added up, so no order enters.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::crdt::Score;
use crate::object::Object;
use crate::op::Facet;
use crate::scalar::Scalar;

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
    let Some(mut taking) = Taking::begin(object, now_ms) else { return 0 };
    while !taking.step(object, usize::MAX) {}
    taking.finish(database, key, object)
}

/// A digest that is taken in steps, so that whoever locks the object can let it go in between. The
/// object must be the same at every step.
#[derive(Clone, Debug)]
pub struct Taking {
    facet: Facet,
    content: u128,
    /// The next element in its table.
    next: usize,
}

impl Taking {
    /// Begins; `None` when the object does not show at `now_ms`: its digest is zero.
    pub fn begin(object: &Object, now_ms: u64) -> Option<Self> {
        if object.is_expired(now_ms) {
            return None;
        }
        Some(Self { facet: object.facet()?, content: 0, next: 0 })
    }

    /// Takes at most so many elements more. Returns whether that was all.
    pub fn step(&mut self, object: &Object, elements: usize) -> bool {
        let (from, to) = (self.next, self.next.saturating_add(elements));
        self.next = to;
        let of = |sum: u128, digest: Option<u128>| sum.wrapping_add(digest.unwrap_or(0));
        let (sum, elements) = match self.facet {
            Facet::String => {
                self.content = object.string().and_then(|s| s.shown()).map_or(0, |shown| xxh3_128(&shown));
                return true;
            }
            Facet::Hash => {
                let Some(fields) = object.hash().map(|hash| hash.fields()) else { return true };
                let digests = fields.iter().skip(from).take(elements);
                let digests = digests.map(|(field, scalar)| Some(pair(field, &scalar.shown()?)));
                (digests.fold(self.content, of), fields.len())
            }
            Facet::Set => {
                let Some(members) = object.set().map(|set| set.members()) else { return true };
                let digests = members.keys().skip(from).take(elements);
                (digests.map(|member| Some(pair(member, &[]))).fold(self.content, of), members.len())
            }
            Facet::SortedSet => {
                let Some(members) = object.sorted_set().map(|sorted| sorted.members()) else { return true };
                let score = |scalar: &Scalar<Score>| Some(scalar.shown()?.to_bits().to_le_bytes());
                let digests = members.iter().skip(from).take(elements);
                let digests = digests.map(|(member, scalar)| Some(pair(member, &score(scalar)?)));
                (digests.fold(self.content, of), members.len())
            }
        };
        self.content = sum;
        to >= elements
    }

    /// Ends, after the last step.
    pub fn finish(self, database: u8, key: &[u8], object: &Object) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(&[database, self.facet as u8]);
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(&self.content.to_le_bytes());
        if let Some(at_ms) = object.deadline_ms() {
            hasher.update(&at_ms.to_le_bytes());
        }
        hasher.digest128()
    }
}
