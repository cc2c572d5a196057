//! Sums of deltas: what a clear swallows, and letting go of what it did.

use super::{Object, facet_bit};
use crate::clock::Origin;
use crate::crdt::{Hash, SortedSet};
use crate::op::{ElementBaseline, Facet};
use crate::outcome::Observer;
use crate::scalar::Scalar;

impl Object {
    /// Whether it holds sums of swallowed deltas, which nothing shows and [`Object::reclaim`] drops.
    pub fn remembers(&self) -> bool {
        self.string().is_some_and(Scalar::remembers)
            || self.hash().is_some_and(Hash::remembers)
            || self.sorted_set().is_some_and(SortedSet::remembers)
    }

    /// Whether [`Object::reclaim`] would drop anything.
    pub fn can_reclaim(&self, kept: impl Fn(Origin) -> bool) -> bool {
        let elements = || {
            let hash = self.hash().filter(|hash| hash.remembers());
            let sorted = self.sorted_set().filter(|sorted| sorted.remembers());
            let fields = hash.into_iter().flat_map(|hash| hash.fields().values().map(Scalar::deltas));
            fields.chain(sorted.into_iter().flat_map(|sorted| sorted.members().values().map(Scalar::deltas)))
        };
        let string = self.string().map(Scalar::deltas);
        string.into_iter().chain(elements()).flatten().any(|sum| !sum.is_live() && !kept(sum.origin))
    }

    /// Drops the sums of swallowed deltas. Only once all ops on this object are *settled*: every op
    /// still to come was written by one that had applied them all. An older delta or clear that
    /// arrived afterwards would count again what was swallowed.
    ///
    /// A region that is left out of that may have ops on its own sums yet, but on no others' that
    /// count: its sums are to be `kept`. Digests do not change; states are equal again once every
    /// region has reclaimed.
    pub fn reclaim(&mut self, kept: impl Fn(Origin) -> bool, observer: &mut impl Observer) {
        if self.string().is_some_and(Scalar::remembers) && self.on_string(|string| string.reclaim(&kept)) {
            observer.head();
        }
        if self.hash().is_some_and(Hash::remembers) {
            self.on_hash(|hash| {
                hash.reclaim(&kept, |field, place| observer.element(Facet::Hash, field, place));
            });
        }
        if self.sorted_set().is_some_and(SortedSet::remembers) {
            self.on_sorted_set(|sorted| {
                sorted.reclaim(&kept, |member, place| observer.element(Facet::SortedSet, member, place));
            });
        }
        self.simplify();
    }

    /// The deltas that a clear of `facets` made now would swallow.
    pub fn baselines(&self, facets: u8) -> Vec<ElementBaseline<'_>> {
        let mut found = Vec::new();
        let mut note = |facet, element, baseline: crate::op::Baseline| {
            if !baseline.is_empty() {
                found.push(ElementBaseline { facet, element, baseline });
            }
        };
        if facets & facet_bit(Facet::String) != 0
            && let Some(string) = self.string()
        {
            note(Facet::String, &[][..], string.baseline());
        }
        if facets & facet_bit(Facet::Hash) != 0
            && let Some(hash) = self.hash()
        {
            for (field, scalar) in hash.fields() {
                note(Facet::Hash, field, scalar.baseline());
            }
        }
        if facets & facet_bit(Facet::SortedSet) != 0
            && let Some(sorted) = self.sorted_set()
        {
            for (member, scalar) in sorted.members() {
                note(Facet::SortedSet, member, scalar.baseline());
            }
        }
        found
    }
}
