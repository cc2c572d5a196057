//! A key's whole state: one facet per type, and a deadline.
//!
//! Nearly every object has one facet. When concurrent writes give a key two types, both facets are
//! kept, the one with the greatest stamp shows, and the next write that has seen the hidden one
//! removes it.

mod apply;
mod forms;
mod merge;
mod several;
pub mod stored;
mod sums;
mod whole;

use std::sync::OnceLock;

use crate::clock::{Dot, Seen, Stamp};
use crate::crdt::{Expiry, Hash, Set, SortedSet};
use crate::op::Facet;
use crate::scalar::{Scalar, Value};
pub use several::CopyBytes;

/// All facets as bits, for [`Effect::Clear`](crate::op::Effect::Clear).
pub const ALL_FACETS: u8 = 0b1111;

/// A facet's bit in [`Effect::Clear`](crate::op::Effect::Clear).
pub fn facet_bit(facet: Facet) -> u8 {
    1 << (facet as u8)
}

/// The facets present.
#[derive(Clone, Debug, Default, PartialEq)]
enum Content {
    #[default]
    Empty,
    String(Scalar<Value>),
    Hash(Box<Hash>),
    Set(Box<Set>),
    SortedSet(Box<SortedSet>),
    Several(Box<Several>),
}

#[derive(Clone, Debug, Default)]
struct Several {
    string: Scalar<Value>,
    hash: Hash,
    set: Set,
    sorted_set: SortedSet,
    /// What shows, once asked for: finding it walks every stamp.
    shown: OnceLock<Option<Facet>>,
    /// The op and facet last examined for clashes, so that an op of many elements is examined once.
    examined: Option<(Dot, Facet)>,
}

impl PartialEq for Several {
    fn eq(&self, other: &Self) -> bool {
        self.string == other.string
            && self.hash == other.hash
            && self.set == other.set
            && self.sorted_set == other.sorted_set
    }
}

/// A key's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    content: Content,
    sides: Option<Box<Sides>>,
}

/// What few objects have: one pointer keeps all others small. There only where one of the two is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sides {
    expiry: Expiry,
    /// There exactly where ops stated the whole key under `lww`, or a string or field has several values.
    wholes: Option<Box<whole::Wholes>>,
}

/// How an effect is being applied.
#[derive(Clone, Copy, Debug)]
pub struct Applying<'a> {
    /// The op's stamp.
    pub stamp: Stamp,
    /// What its writer had seen.
    pub seen: Seen<'a>,
}

impl Object {
    /// The string facet.
    pub fn string(&self) -> Option<&Scalar<Value>> {
        match &self.content {
            Content::String(string) => Some(string),
            Content::Several(several) => Some(&several.string),
            _ => None,
        }
    }

    /// The hash facet.
    pub fn hash(&self) -> Option<&Hash> {
        match &self.content {
            Content::Hash(hash) => Some(hash),
            Content::Several(several) => Some(&several.hash),
            _ => None,
        }
    }

    /// The set facet.
    pub fn set(&self) -> Option<&Set> {
        match &self.content {
            Content::Set(set) => Some(set),
            Content::Several(several) => Some(&several.set),
            _ => None,
        }
    }

    /// The sorted-set facet.
    pub fn sorted_set(&self) -> Option<&SortedSet> {
        match &self.content {
            Content::SortedSet(sorted_set) => Some(sorted_set),
            Content::Several(several) => Some(&several.sorted_set),
            _ => None,
        }
    }

    /// The deadline register.
    pub fn expiry(&self) -> Option<&Expiry> {
        self.sides.as_ref().map(|sides| &sides.expiry).filter(|expiry| !expiry.is_vacant())
    }

    /// When the key goes, as a Unix millisecond.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.expiry()?.deadline_ms()
    }

    /// Whether the deadline has passed at `now_ms`.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline_ms().is_some_and(|at| at <= now_ms)
    }

    /// Whether `facet` has anything that a reader could see.
    pub fn has_visible(&self, facet: Facet) -> bool {
        match facet {
            Facet::String => self.string().is_some_and(Scalar::is_visible),
            Facet::Hash => self.hash().is_some_and(|h| !h.is_empty()),
            Facet::Set => self.set().is_some_and(|s| !s.is_empty()),
            Facet::SortedSet => self.sorted_set().is_some_and(|z| !z.is_empty()),
        }
    }

    /// The type that shows, the deadline left aside. `None` when nothing shows.
    pub fn facet(&self) -> Option<Facet> {
        match &self.content {
            Content::Empty => None,
            Content::String(string) => string.is_visible().then_some(Facet::String),
            Content::Hash(hash) => (!hash.is_empty()).then_some(Facet::Hash),
            Content::Set(set) => (!set.is_empty()).then_some(Facet::Set),
            Content::SortedSet(sorted) => (!sorted.is_empty()).then_some(Facet::SortedSet),
            Content::Several(several) => *several.shown.get_or_init(|| self.greatest_visible()),
        }
    }

    /// Among the visible facets the one with the greatest stamp. Often all but one are only
    /// remembered, and no stamp need be looked at.
    fn greatest_visible(&self) -> Option<Facet> {
        let mut visible = Facet::ALL.into_iter().filter(|facet| self.has_visible(*facet));
        match (visible.next(), visible.next()) {
            (only, None) => only,
            (first, second) => {
                let all = first.into_iter().chain(second).chain(visible);
                all.max_by_key(|facet| self.live_stamps(*facet).max())
            }
        }
    }

    /// Facets that have something to see but do not show, as bits.
    pub fn hidden_facets(&self) -> u8 {
        let Content::Several(_) = &self.content else { return 0 };
        let shown = self.facet();
        Facet::ALL
            .into_iter()
            .filter(|f| Some(*f) != shown && self.has_visible(*f))
            .fold(0, |bits, f| bits | facet_bit(f))
    }

    /// Whether a reader at `now_ms` finds the key.
    pub fn is_visible(&self, now_ms: u64) -> bool {
        !self.is_expired(now_ms) && self.facet().is_some()
    }

    /// Whether nothing is left to see or to remember: the object can be dropped.
    pub fn is_vacant(&self) -> bool {
        let content = match &self.content {
            Content::Empty => true,
            Content::String(string) => string.is_vacant(),
            Content::Hash(hash) => hash.is_vacant(),
            Content::Set(set) => set.is_empty(),
            Content::SortedSet(sorted) => sorted.is_vacant(),
            Content::Several(several) => {
                several.string.is_vacant()
                    && several.hash.is_vacant()
                    && several.set.is_empty()
                    && several.sorted_set.is_vacant()
            }
        };
        content && self.marks().is_empty() && self.expiry().is_none()
    }

    /// Stamps of the live contributions of a facet, in no order.
    pub fn live_stamps(&self, facet: Facet) -> Box<dyn Iterator<Item = Stamp> + '_> {
        match facet {
            Facet::String => Box::new(self.string().into_iter().flat_map(Scalar::live_stamps)),
            Facet::Hash => Box::new(
                self.hash().into_iter().flat_map(|h| h.fields().values().flat_map(Scalar::live_stamps)),
            ),
            Facet::Set => {
                Box::new(self.set().into_iter().flat_map(|s| s.members().values().flatten().copied()))
            }
            Facet::SortedSet => Box::new(
                self.sorted_set()
                    .into_iter()
                    .flat_map(|z| z.members().values().flat_map(Scalar::live_stamps)),
            ),
        }
    }

    /// Bytes on the heap, kept as a running figure: constant time. Without [`Object::merged_bytes`].
    pub fn heap_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Empty => 0,
            Content::String(string) => string.heap_bytes(),
            Content::Hash(hash) => size_of::<Hash>() + hash.heap_bytes(),
            Content::Set(set) => size_of::<Set>() + set.heap_bytes(),
            Content::SortedSet(sorted) => size_of::<SortedSet>() + sorted.heap_bytes(),
            Content::Several(several) => {
                size_of::<Several>()
                    + several.string.heap_bytes()
                    + several.hash.heap_bytes()
                    + several.set.heap_bytes()
                    + several.sorted_set.heap_bytes()
            }
        };
        content
            + self
                .sides
                .as_ref()
                .map_or(0, |sides| size_of::<Sides>() + sides.expiry.heap_bytes() + self.marks_bytes())
    }
}
