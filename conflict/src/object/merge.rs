//! Merging the states of two replicas: what snapshots and anti-entropy need.

use super::{Content, Object, Several};
use crate::clock::VersionVector;
use crate::crdt::{Expiry, Hash, Set, SortedSet};
use crate::scalar::{Scalar, Value};

impl Object {
    /// Merges `other`, the same key's state at a replica that had applied `theirs`, into this one,
    /// of a replica that has applied `ours`. The result is what a replica that applied the union
    /// of both would have. A missing object is an empty one.
    ///
    /// A contribution survives if both have it, or if the one without it had not applied it yet:
    /// then it is new there. If it had applied it and lacks it now, it was removed.
    pub fn merge(&mut self, ours: &VersionVector, other: &Object, theirs: &VersionVector) {
        let mine = std::mem::take(&mut self.content).into_several();
        let their = other.content.clone().into_several();
        self.content = Content::Several(merge_several(mine, ours, &their, theirs));
        let empty = Expiry::default();
        self.expiry.get_or_insert_default().merge(ours, other.expiry().unwrap_or(&empty), theirs);
        self.simplify();
    }
}

impl Content {
    pub(super) fn into_several(self) -> Box<Several> {
        let mut several = Box::<Several>::default();
        match self {
            Content::Empty => {}
            Content::String(string) => several.string = string,
            Content::Hash(hash) => several.hash = *hash,
            Content::Set(set) => several.set = *set,
            Content::SortedSet(sorted) => several.sorted_set = *sorted,
            Content::Several(several) => return several,
        }
        several
    }
}

fn merge_several(
    mut mine: Box<Several>,
    ours: &VersionVector,
    other: &Several,
    theirs: &VersionVector,
) -> Box<Several> {
    mine.string.merge(ours, &other.string, theirs);
    merge_hash(&mut mine.hash, ours, &other.hash, theirs);
    merge_set(&mut mine.set, ours, &other.set, theirs);
    merge_sorted_set(&mut mine.sorted_set, ours, &other.sorted_set, theirs);
    mine
}

fn merge_hash(mine: &mut Hash, ours: &VersionVector, other: &Hash, theirs: &VersionVector) {
    let absent = Scalar::<Value>::default();
    let known: Vec<Box<[u8]>> = mine.fields().keys().cloned().collect();
    for field in known.iter().rev() {
        mine.merge_field(field, ours, other.field(field).unwrap_or(&absent), theirs);
    }
    for (field, scalar) in other.fields() {
        if mine.field(field).is_none() {
            mine.merge_field(field, ours, scalar, theirs);
        }
    }
}

fn merge_set(mine: &mut Set, ours: &VersionVector, other: &Set, theirs: &VersionVector) {
    let known: Vec<Box<[u8]>> = mine.members().keys().cloned().collect();
    for member in known.iter().rev() {
        mine.merge_member(member, ours, other.additions(member).unwrap_or_default(), theirs);
    }
    for (member, additions) in other.members() {
        if !mine.contains(member) {
            mine.merge_member(member, ours, additions, theirs);
        }
    }
}

fn merge_sorted_set(mine: &mut SortedSet, ours: &VersionVector, other: &SortedSet, theirs: &VersionVector) {
    let absent = Scalar::default();
    let known: Vec<_> = mine.members().keys().cloned().collect();
    for member in known.iter().rev() {
        mine.merge_member(member, ours, other.member(member).unwrap_or(&absent), theirs);
    }
    for (member, scalar) in other.members() {
        if mine.member(member).is_none() {
            mine.merge_member(member, ours, scalar, theirs);
        }
    }
}
