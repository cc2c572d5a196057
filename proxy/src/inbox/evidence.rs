//! What two rivals had written, looked up right after the op was applied, under the same lock.
//!
//! Registers keep every assignment that no other has seen, so both sides are still there: as siblings of a
//! string, field or score, as additions of a member, as a hidden type. A delete has left nothing.

use std::borrow::Cow;

use meridian_conflict::clock::Stamp;
use meridian_conflict::crdt::Score;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use meridian_conflict::outcome::{Conflict, Kind, Winner};
use meridian_conflict::scalar::{Scalar, ScalarValue, Value};
use serde_bytes::ByteBuf;
use xxhash_rust::xxh3::xxh3_128;

use super::asking::Asking;
use super::record::{Contents, Rival, Written};
use crate::policies::Active;
use crate::resp::fmt::write_f64;

/// Bytes kept of one value. A larger string is recorded by length and digest, a larger collection in part.
pub const VALUE_MAX: usize = 64 << 10;

/// What passing an element costs, beside what is copied of it.
const ELEMENT_BYTES: usize = 16;

/// What a conflict was about.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The two writes, by rising stamp.
    pub rivals: [Rival; 2],
    /// Which of them lost.
    pub loser: u8,
    /// What shows now.
    pub shown: Written,
    /// What is to be found out later.
    pub asking: Asking,
}

impl Evidence {
    /// Looks at the object, to which the conflict's op has been applied. Under the policy `lww` the rivals have
    /// stated the whole of it.
    pub fn of(object: &Object, conflict: &Conflict, lww: bool) -> Self {
        let Conflict { kind, facet, ref element, rival, arrived, winner, .. } = *conflict;
        let is_delete = matches!(kind, Kind::WriteDelete | Kind::ClearWrite);
        let wrote = |stamp| match lww {
            true => stated(object, stamp),
            false if is_delete && stamp == arrived => Written::Nothing,
            false => written(object, kind, facet, element, stamp),
        };
        let there = Rival { stamp: rival, wrote: wrote(rival) };
        let came = Rival { stamp: arrived, wrote: wrote(arrived) };
        let lost = match winner {
            Winner::Local => arrived,
            Winner::Remote => rival,
            // What neither alone decided: the delete that spared something, else the older write.
            Winner::Merged if is_delete => arrived,
            Winner::Merged => rival.min(arrived),
        };
        let rivals = if there.stamp <= came.stamp { [there, came] } else { [came, there] };
        let [first, _] = &rivals;
        let loser = u8::from(first.stamp != lost);
        let read = if lww { object.under_lww() } else { object };
        let shown = shown(read, kind, facet, element);
        Self { rivals, loser, shown, asking: Asking::default() }
    }

    /// With what is to be found out under these policies.
    pub fn asking(self, active: &Active, key: &[u8], object: &Object, conflict: &Conflict) -> Self {
        Self { asking: Asking::of(active, key, object, conflict), ..self }
    }

    /// Bytes of values.
    pub fn len(&self) -> usize {
        self.rivals.iter().map(|rival| rival.wrote.len()).sum::<usize>()
            + self.shown.len()
            + self.asking.len()
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it took to look, in bytes: those that were copied, and some for each element that was passed.
    pub fn cost(&self, object: &Object, conflict: &Conflict) -> usize {
        let Conflict { kind, facet, ref element, .. } = *conflict;
        let passed = match concerns_element(kind, facet, element) {
            true => 0,
            false => {
                object.hash().map_or(0, |hash| hash.fields().len())
                    + object.set().map_or(0, |set| set.members().len())
                    + object.sorted_set().map_or(0, |sorted| sorted.members().len())
            }
        };
        self.len() + passed * ELEMENT_BYTES
    }
}

/// Whether a conflict is about one element of a collection. A field or member may have an empty name.
fn concerns_element(kind: Kind, facet: Facet, element: &[u8]) -> bool {
    facet != Facet::String && (kind == Kind::Field || kind == Kind::WriteDelete && !element.is_empty())
}

/// What an op stated of the whole key.
fn stated(object: &Object, stamp: Stamp) -> Written {
    let its = |facet: &Facet| object.live_stamps(*facet).any(|live| live == stamp);
    match Facet::ALL.into_iter().find(its) {
        Some(Facet::String) => object.string().map_or(Written::Gone, |string| text_of(string, stamp)),
        Some(facet) => contents(object, facet, Some(stamp)),
        None if object.marks().contains(&stamp) => Written::Nothing,
        None => Written::Gone,
    }
}

fn written(object: &Object, kind: Kind, facet: Facet, element: &[u8], stamp: Stamp) -> Written {
    if kind == Kind::TypeClash {
        let its = |facet: &Facet| object.live_stamps(*facet).any(|live| live == stamp);
        return Facet::ALL.into_iter().find(its).map_or(Written::Gone, |facet| contents(object, facet, None));
    }
    if facet != Facet::String && !concerns_element(kind, facet, element) {
        return contents(object, facet, Some(stamp));
    }
    match facet {
        Facet::String => object.string().map_or(Written::Gone, |string| text_of(string, stamp)),
        Facet::Hash => {
            object.hash().and_then(|hash| hash.field(element)).map_or(Written::Gone, |s| text_of(s, stamp))
        }
        Facet::Set => match object.set().and_then(|set| set.additions(element)) {
            Some(additions) if additions.contains(&stamp) => bounded(Cow::Borrowed(element)),
            _ => Written::Gone,
        },
        Facet::SortedSet => match object.sorted_set().and_then(|sorted| sorted.member(element)) {
            Some(scalar) => match scalar.siblings().iter().find(|sibling| sibling.stamp == stamp) {
                Some(sibling) => Written::Score(score_text(sibling.value)),
                None => increments(scalar, stamp),
            },
            None => Written::Gone,
        },
    }
}

/// What shows of what a conflict is about.
pub(super) fn shown(object: &Object, kind: Kind, facet: Facet, element: &[u8]) -> Written {
    let Some(visible) = object.facet() else { return Written::Nothing };
    if visible != facet || !concerns_element(kind, facet, element) {
        return contents(object, visible, None);
    }
    match facet {
        Facet::String => contents(object, facet, None),
        Facet::Hash => {
            let field = object.hash().and_then(|hash| hash.field(element)).and_then(|field| field.shown());
            field.map_or(Written::Nothing, bounded)
        }
        Facet::Set if object.set().is_some_and(|set| set.contains(element)) => {
            bounded(Cow::Borrowed(element))
        }
        Facet::Set => Written::Nothing,
        Facet::SortedSet => {
            let score = object.sorted_set().and_then(|sorted| sorted.member(element)).and_then(|s| s.shown());
            score.map_or(Written::Nothing, |score| Written::Score(score_text(score)))
        }
    }
}

fn text_of(scalar: &Scalar<Value>, stamp: Stamp) -> Written {
    match scalar.siblings().iter().find(|sibling| sibling.stamp == stamp) {
        Some(sibling) => bounded(Cow::Borrowed(&sibling.value)),
        None => increments(scalar, stamp),
    }
}

/// What the origin of `stamp` adds, if that op was its last to add.
fn increments<V: ScalarValue>(scalar: &Scalar<V>, stamp: Stamp) -> Written {
    match scalar.deltas().iter().find(|delta| delta.stamp == stamp && delta.is_live()) {
        Some(delta) => Written::Increments(delta.total.minus(&delta.seen_total).to_text()),
        None => Written::Gone,
    }
}

/// Bytes as they are recorded.
pub(super) fn bounded(bytes: Cow<'_, [u8]>) -> Written {
    if bytes.len() > VALUE_MAX {
        return Written::Large { bytes: bytes.len() as u64, digest: xxh3_128(&bytes) };
    }
    Written::Bytes(ByteBuf::from(bytes.into_owned()))
}

fn score_text(score: Score) -> String {
    let mut text = Vec::new();
    write_f64(&mut text, score.get());
    String::from_utf8_lossy(&text).into_owned()
}

/// What a facet shows, or what of it the op of `by` wrote.
fn contents(object: &Object, facet: Facet, by: Option<Stamp>) -> Written {
    let mut kept = Kept { elements: Vec::new(), total: 0, bytes: 0 };
    let wanted =
        |mut stamps: Box<dyn Iterator<Item = Stamp> + '_>| by.is_none_or(|by| stamps.any(|s| s == by));
    match facet {
        Facet::String => {
            return object.string().and_then(|s| s.shown()).map_or(Written::Gone, bounded);
        }
        Facet::Hash => {
            for (field, scalar) in object.hash().into_iter().flat_map(|hash| hash.fields()) {
                if wanted(Box::new(scalar.live_stamps()))
                    && let Some(value) =
                        value_by(scalar, by).map(|value| Cow::Borrowed(&**value)).or_else(|| scalar.shown())
                {
                    kept.add(field, &value);
                }
            }
        }
        Facet::Set => {
            for (member, additions) in object.set().into_iter().flat_map(|set| set.members()) {
                if wanted(Box::new(additions.iter().copied())) {
                    kept.add(member, &[]);
                }
            }
        }
        Facet::SortedSet => {
            for (member, scalar) in object.sorted_set().into_iter().flat_map(|sorted| sorted.members()) {
                if wanted(Box::new(scalar.live_stamps()))
                    && let Some(score) = value_by(scalar, by).copied().or_else(|| scalar.shown())
                {
                    kept.add(member, score_text(score).as_bytes());
                }
            }
        }
    }
    if kept.total == 0 {
        return Written::Gone;
    }
    Written::Contents(Contents { facet: facet.name().into(), elements: kept.elements, total: kept.total })
}

/// What the op of `by` assigned, if it did and no other has replaced it.
fn value_by<V: ScalarValue>(scalar: &Scalar<V>, by: Option<Stamp>) -> Option<&V> {
    Some(&scalar.siblings().iter().find(|sibling| Some(sibling.stamp) == by)?.value)
}

struct Kept {
    elements: Vec<(ByteBuf, ByteBuf)>,
    total: u64,
    bytes: usize,
}

impl Kept {
    /// Keeps elements until one does not fit; those after it are only counted.
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let bytes = self.bytes + name.len() + value.len();
        if bytes <= VALUE_MAX && self.elements.len() as u64 == self.total {
            self.bytes = bytes;
            self.elements.push((ByteBuf::from(name), ByteBuf::from(value)));
        }
        self.total += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
