//! How an object rests in a store: a head and one record per element, so that a change of one
//! element rewrites one record.
//!
//! # Records (version 1, all postcard)
//!
//! | record | content |
//! |---|---|
//! | head | facets present as bits `u8`, the string's siblings and delta sums, the deadlines; then the marks (stamps), where there are any |
//! | hash field | siblings (stamp, bytes), delta sums |
//! | set member | stamps of its additions |
//! | sorted-set member | siblings (stamp, score bits), delta sums |
//!
//! Version and checksum are the store's envelope.

use serde::{Deserialize, Serialize};

use super::{Content, Object, Sides};
use crate::clock::Stamp;
use crate::crdt::set::Additions;
use crate::crdt::{Expiry, Score};
use crate::op::Facet;
use crate::scalar::{DeltaSum, Scalar, ScalarValue, Sibling, Value};

/// A stored record does not decode. Nothing was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored record is malformed")]
pub struct MalformedRecord;

#[derive(Deserialize)]
struct ScalarForm<V> {
    siblings: Vec<Sibling<V>>,
    deltas: Vec<DeltaSum>,
}

/// [`ScalarForm`] to be written.
#[derive(Serialize)]
struct ScalarParts<'a, V> {
    siblings: &'a [Sibling<V>],
    deltas: &'a [DeltaSum],
}

impl<'a, V: ScalarValue> ScalarParts<'a, V> {
    fn of(scalar: &'a Scalar<V>) -> Self {
        let (siblings, deltas) = scalar.to_parts();
        Self { siblings, deltas }
    }
}

impl<V: ScalarValue> ScalarForm<V> {
    fn restore(self) -> Scalar<V> {
        Scalar::from_parts(self.siblings, self.deltas)
    }
}

#[derive(Deserialize)]
struct HeadForm {
    /// Told apart by the elements' own records; a loader looks at it before it looks for them.
    #[expect(dead_code, reason = "it stands in the record for whoever loads it")]
    facets: u8,
    string: ScalarForm<Value>,
    expiry: Expiry,
}

/// [`HeadForm`] to be written.
#[derive(Serialize)]
struct HeadParts<'a> {
    facets: u8,
    string: ScalarParts<'a, Value>,
    expiry: &'a Expiry,
}

impl Object {
    /// Appends the head record.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let mut facets = 0;
        facets |= u8::from(self.string().is_some());
        facets |= u8::from(self.hash().is_some()) << 1;
        facets |= u8::from(self.set().is_some()) << 2;
        facets |= u8::from(self.sorted_set().is_some()) << 3;
        let (no_string, no_expiry) = (Scalar::default(), Expiry::default());
        let head = HeadParts {
            facets,
            string: ScalarParts::of(self.string().unwrap_or(&no_string)),
            expiry: self.expiry().unwrap_or(&no_expiry),
        };
        // Writing to a Vec cannot fail.
        let _ = postcard::to_io(&head, &mut *out);
        if !self.marks().is_empty() {
            let _ = postcard::to_io(self.marks(), out);
        }
    }

    /// Appends an element's record; returns `false` when the element is not there and its record
    /// is to be deleted.
    pub fn encode_element(&self, facet: Facet, element: &[u8], out: &mut Vec<u8>) -> bool {
        match facet {
            Facet::String => false,
            Facet::Hash => encode_scalar(self.hash().and_then(|h| h.field(element)), out),
            Facet::SortedSet => encode_scalar(self.sorted_set().and_then(|z| z.member(element)), out),
            Facet::Set => match self.set().and_then(|s| s.additions(element)) {
                Some(additions) => postcard::to_io(&additions, out).is_ok(),
                None => false,
            },
        }
    }

    /// [`Object::encode_element`] of the element at this index of its facet's table. Returns its
    /// name; `None` past the table's end.
    pub fn encode_element_at(&self, facet: Facet, at: usize, out: &mut Vec<u8>) -> Option<&[u8]> {
        match facet {
            Facet::String => None,
            Facet::Hash => {
                let (field, scalar) = self.hash()?.fields().get_index(at)?;
                encode_scalar(Some(scalar), out).then_some(&**field)
            }
            Facet::SortedSet => {
                let (member, scalar) = self.sorted_set()?.members().get_index(at)?;
                encode_scalar(Some(scalar), out).then_some(&**member)
            }
            Facet::Set => {
                let (member, additions) = self.set()?.members().get_index(at)?;
                postcard::to_io(additions.as_slice(), out).is_ok().then_some(&**member)
            }
        }
    }

    /// Calls `visit` with every element.
    pub fn for_each_element(&self, mut visit: impl FnMut(Facet, &[u8])) {
        if let Some(hash) = self.hash() {
            hash.fields().keys().for_each(|field| visit(Facet::Hash, field));
        }
        if let Some(set) = self.set() {
            set.members().keys().for_each(|member| visit(Facet::Set, member));
        }
        if let Some(sorted) = self.sorted_set() {
            sorted.members().keys().for_each(|member| visit(Facet::SortedSet, member));
        }
    }

    /// An object from its head record; its elements follow by [`Object::restore_element`].
    ///
    /// # Errors
    /// [`MalformedRecord`].
    pub fn decode_head(record: &[u8]) -> Result<Self, MalformedRecord> {
        let (head, rest) = postcard::take_from_bytes::<HeadForm>(record).map_err(|_| MalformedRecord)?;
        let string = head.string.restore();
        let content = if string.is_vacant() { Content::Empty } else { Content::String(string) };
        let mut object = Self { content, sides: Sides::of(head.expiry) };
        if !rest.is_empty() {
            object.restore_marks(postcard::from_bytes(rest).map_err(|_| MalformedRecord)?);
        }
        object.fit_sides();
        Ok(object)
    }

    /// Puts a stored element back.
    ///
    /// # Errors
    /// [`MalformedRecord`]; the object is as before.
    pub fn restore_element(
        &mut self,
        facet: Facet,
        element: &[u8],
        record: &[u8],
    ) -> Result<(), MalformedRecord> {
        match facet {
            Facet::String => return Err(MalformedRecord),
            Facet::Hash => {
                let form: ScalarForm<Value> = postcard::from_bytes(record).map_err(|_| MalformedRecord)?;
                self.on_hash(|hash| hash.restore(element, form.restore()));
            }
            Facet::SortedSet => {
                let form: ScalarForm<Score> = postcard::from_bytes(record).map_err(|_| MalformedRecord)?;
                self.on_sorted_set(|sorted| sorted.restore(element, form.restore()));
            }
            Facet::Set => {
                let additions: Vec<Stamp> = postcard::from_bytes(record).map_err(|_| MalformedRecord)?;
                self.on_set(|set| set.restore(element, Additions::from_vec(additions)));
            }
        }
        self.forget_shown();
        self.simplify();
        Ok(())
    }
}

fn encode_scalar<V: ScalarValue + Serialize>(scalar: Option<&Scalar<V>>, out: &mut Vec<u8>) -> bool {
    match scalar {
        Some(scalar) => postcard::to_io(&ScalarParts::of(scalar), out).is_ok(),
        None => false,
    }
}
