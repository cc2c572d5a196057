//! What applying an op did: conflicts met, elements touched.
//!
//! An arriving op conflicts with a live contribution exactly when its writer had not seen that
//! contribution and the two do not commute as the user would see it. Local writes have seen all
//! there is under their key's lock, so they never conflict on arrival.

use crate::clock::{Dot, Stamp};
use crate::crdt::TablePlace;
use crate::op::Facet;

/// What clashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Two values for one string.
    WriteWrite,
    /// A delete met an update that its writer had not seen.
    WriteDelete,
    /// Two types under one key.
    TypeClash,
    /// Two values for one hash field or sorted-set member.
    Field,
    /// A database flush met a write that its writer had not seen.
    ClearWrite,
}

impl Kind {
    /// The name in metrics and in the inbox.
    pub fn name(self) -> &'static str {
        match self {
            Kind::WriteWrite => "write_write",
            Kind::WriteDelete => "write_delete",
            Kind::TypeClash => "type_clash",
            Kind::Field => "field",
            Kind::ClearWrite => "clear_write",
        }
    }
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The greater stamp shows.
    Lww,
    /// The types' own rule: what was not seen survives.
    Crdt,
}

impl Rule {
    /// The name in metrics and in the inbox.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Lww => "lww",
            Rule::Crdt => "crdt",
        }
    }
}

/// Whose value shows afterwards, from the point of view of the region that applied the op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Winner {
    /// What was there already.
    Local,
    /// What the op brought.
    Remote,
    /// Neither alone.
    Merged,
}

impl Winner {
    /// The name in metrics and in the inbox.
    pub fn name(self) -> &'static str {
        match self {
            Winner::Local => "local",
            Winner::Remote => "remote",
            Winner::Merged => "merged",
        }
    }
}

/// One conflict, as one region met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What clashed.
    pub kind: Kind,
    /// Which rule decided.
    pub rule: Rule,
    /// Whose value shows.
    pub winner: Winner,
    /// The type concerned.
    pub facet: Facet,
    /// The field or member, empty where the whole key is concerned.
    pub element: Box<[u8]>,
    /// The contribution that was there.
    pub rival: Stamp,
    /// The op that arrived.
    pub arrived: Stamp,
}

/// A conflict's name: equal in every region that meets the same two ops at the same place.
pub fn conflict_id(a: &Dot, b: &Dot, database: u8, key: &[u8], element: &[u8]) -> u128 {
    let (low, high) = if (a.actor, a.counter) <= (b.actor, b.counter) { (a, b) } else { (b, a) };
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for number in
        [low.actor.0, low.counter, high.actor.0, high.counter, u64::from(database), key.len() as u64]
    {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(key);
    hasher.update(element);
    hasher.digest128()
}

/// Told what an op does to an object while it is applied.
pub trait Observer {
    /// A conflict was met.
    fn conflict(&mut self, conflict: Conflict);
    /// An element's stored state changed, at this place of its collection's table.
    fn element(&mut self, facet: Facet, element: &[u8], place: TablePlace);
    /// The state outside of elements changed: the string, the deadline, which facets there are.
    fn head(&mut self);
}

/// An observer that collects conflicts and counts changes.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The conflicts met, in order.
    pub conflicts: Vec<Conflict>,
    /// How many elements or heads changed. Zero means that the op found nothing left to do.
    pub changes: u64,
}

impl Observer for Outcome {
    fn conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    fn element(&mut self, _: Facet, _: &[u8], _: TablePlace) {
        self.changes += 1;
    }

    fn head(&mut self) {
        self.changes += 1;
    }
}
