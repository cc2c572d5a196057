//! The hash: every field a scalar.

use crate::amount::Amount;
use crate::clock::{Origin, Seen, Stamp, VersionVector};
use crate::crdt::table::{self, ElementTable, TablePlace};
use crate::op::SeenDelta;
use crate::scalar::{Merged, Met, Scalar, Value};

/// Bytes counted for a field besides its name and value.
const FIELD_OVERHEAD: usize = size_of::<Scalar<Value>>() + size_of::<Box<[u8]>>() + 24;

/// A hash with per-field metadata.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    fields: ElementTable<Box<[u8]>, Scalar<Value>>,
    visible: usize,
    /// Fields with sums that add nothing any more.
    remembering: usize,
    bytes: usize,
}

impl Hash {
    /// Fields that a reader sees.
    pub fn len(&self) -> usize {
        self.visible
    }

    /// Whether a reader sees no field.
    pub fn is_empty(&self) -> bool {
        self.visible == 0
    }

    /// Whether there is neither anything to see nor to remember.
    pub fn is_vacant(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether some field has sums that add nothing any more.
    pub fn remembers(&self) -> bool {
        self.remembering > 0
    }

    /// A field's state.
    pub fn field(&self, field: &[u8]) -> Option<&Scalar<Value>> {
        self.fields.get(field)
    }

    /// All fields, hidden ones included, in table order.
    pub fn fields(&self) -> &ElementTable<Box<[u8]>, Scalar<Value>> {
        &self.fields
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    fn change(&mut self, field: &[u8], change: impl FnOnce(&mut Scalar<Value>) -> Met) -> Met {
        let at = match self.fields.get_index_of(field) {
            Some(at) => at,
            None => {
                self.bytes += field.len() + FIELD_OVERHEAD;
                self.fields.insert_full(field.into(), Scalar::default()).0
            }
        };
        let Some((_, scalar)) = self.fields.get_index_mut(at) else { return Met::default() };
        let (visible, bytes) = (scalar.is_visible(), scalar.heap_bytes());
        let remembers = scalar.remembers();
        let met = change(scalar);
        self.remembering = self.remembering + usize::from(scalar.remembers()) - usize::from(remembers);
        self.visible = self.visible + usize::from(scalar.is_visible()) - usize::from(visible);
        self.bytes = self.bytes + scalar.heap_bytes() - bytes;
        if !scalar.is_vacant() {
            return Met { place: TablePlace::At(at), ..met };
        }
        match table::remove(&mut self.fields, field) {
            Some((place, _)) => {
                self.bytes -= field.len() + FIELD_OVERHEAD;
                Met { place, ..met }
            }
            None => met,
        }
    }

    /// `HSET`.
    pub fn assign(
        &mut self,
        field: &[u8],
        stamp: Stamp,
        value: &[u8],
        baseline: &[SeenDelta],
        seen: Seen<'_>,
    ) -> Met {
        self.change(field, |scalar| scalar.assign_bytes(stamp, value, baseline, seen))
    }

    /// `HINCRBY`.
    pub fn add(
        &mut self,
        field: &[u8],
        stamp: Stamp,
        index: u32,
        total: Amount,
        fresh: bool,
        seen: Seen<'_>,
    ) -> Met {
        self.change(field, |scalar| scalar.add(stamp, index, total, fresh, seen))
    }

    /// `HDEL`.
    pub fn remove(&mut self, field: &[u8], baseline: &[SeenDelta], seen: Seen<'_>) -> Met {
        if baseline.is_empty() && !self.fields.contains_key(field) {
            return Met::default();
        }
        self.change(field, |scalar| scalar.clear(baseline, seen))
    }

    /// Puts a stored field back. For loading.
    pub fn restore(&mut self, field: &[u8], scalar: Scalar<Value>) {
        self.change(field, |slot| {
            *slot = scalar;
            Met::default()
        });
    }

    /// Drops what adds nothing any more; see [`crate::object::Object::reclaim`].
    pub(crate) fn reclaim(
        &mut self,
        kept: &impl Fn(Origin) -> bool,
        mut dropped: impl FnMut(&[u8], TablePlace),
    ) {
        if self.remembering == 0 {
            return;
        }
        let remembering = self.fields.iter().filter(|(_, s)| s.remembers());
        let names: Vec<_> = remembering.map(|(f, _)| f.clone()).collect();
        for field in names.iter().rev() {
            let met = self.change(field, |scalar| Met { changed: scalar.reclaim(kept), ..Met::default() });
            if met.changed {
                dropped(field, met.place);
            }
        }
    }

    /// Merges one field; see [`crate::object::Object::merge`].
    pub(crate) fn merge_field(
        &mut self,
        field: &[u8],
        ours: &VersionVector,
        other: &Scalar<Value>,
        theirs: &VersionVector,
    ) -> (TablePlace, Merged) {
        let mut merged = Merged::default();
        let met = self.change(field, |scalar| {
            merged = scalar.merge(ours, other, theirs);
            Met::default()
        });
        (met.place, merged)
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}
