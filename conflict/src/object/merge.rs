//! Merging the states of two replicas: what snapshots and anti-entropy need.

use super::{Content, Object, Several};
use crate::clock::{Stamp, VersionVector};
use crate::crdt::{Expiry, Hash, Set, SortedSet};
use crate::op::Facet;
use crate::outcome::{Conflict, Kind, Observer, Outcome, Rule, Winner};
use crate::scalar::{Merged, Scalar};

impl Object {
    /// Merges `other`, the same key's state at a replica that had applied `theirs`, into this one,
    /// of a replica that has applied `ours`. The result is what a replica that applied the union
    /// of both would have. A missing object is an empty one.
    ///
    /// A contribution survives if both have it, or if the one without it had not applied it yet:
    /// then it is new there. If it had applied it and lacks it now, it was removed.
    ///
    /// Either state may be *ahead* of its vector, hold effects of ops that the vector does not
    /// cover, provided that those ops are applied again afterwards.
    pub fn merge(&mut self, ours: &VersionVector, other: &Object, theirs: &VersionVector) {
        self.merge_observed(ours, other, theirs, &mut Outcome::default());
    }

    /// [`Object::merge`] that tells of what changed, and of the conflicts that the two states show:
    /// values and types of which neither writer had seen the other's. What a state does not show
    /// any more, such as a delete that met an unseen write, is not among them. Merging again
    /// reports nothing.
    pub fn merge_observed(
        &mut self,
        ours: &VersionVector,
        other: &Object,
        theirs: &VersionVector,
        observer: &mut impl Observer,
    ) {
        if !self.same_single_facet(other) {
            self.clashing_types(ours, other, theirs, observer);
        }
        let mut mine = std::mem::take(&mut self.content).into_several();
        merge_string(&mut mine, ours, other, theirs, observer);
        merge_hash(&mut mine.hash, ours, other.hash(), theirs, observer);
        merge_set(&mut mine.set, ours, other.set(), theirs, observer);
        merge_sorted_set(&mut mine.sorted_set, ours, other.sorted_set(), theirs, observer);
        self.content = Content::Several(mine);
        let empty = Expiry::default();
        let theirs_said = other.expiry().unwrap_or(&empty);
        if self.sides.get_or_insert_default().expiry.merge(ours, theirs_said, theirs) {
            observer.head();
        }
        self.forget_shown();
        self.merge_marks(ours, other, theirs, observer);
        self.simplify();
    }

    fn same_single_facet(&self, other: &Object) -> bool {
        match (&self.content, &other.content) {
            (Content::Empty, _) | (_, Content::Empty) => true,
            (Content::Several(_), _) => false,
            (mine, theirs) => std::mem::discriminant(mine) == std::mem::discriminant(theirs),
        }
    }

    fn clashing_types(
        &self,
        ours: &VersionVector,
        other: &Object,
        theirs: &VersionVector,
        observer: &mut impl Observer,
    ) {
        let only = |has: &Object, facet, lacks: &Object, vector: &VersionVector| -> Option<Stamp> {
            let unseen = |stamp: &Stamp| vector.get(&stamp.dot.actor) < stamp.dot.counter;
            let newest = has.live_stamps(facet).filter(unseen).max()?;
            lacks.live_stamps(facet).all(|stamp| stamp != newest).then_some(newest)
        };
        for facet in Facet::ALL {
            let Some(arrived) = only(other, facet, self, ours) else { continue };
            for rival in Facet::ALL.into_iter().filter(|f| *f != facet) {
                if let Some(rival) = only(self, rival, other, theirs) {
                    tell(Kind::TypeClash, facet, &[], (rival, arrived), observer);
                }
            }
        }
    }
}

fn tell(kind: Kind, facet: Facet, element: &[u8], clash: (Stamp, Stamp), observer: &mut impl Observer) {
    let (rival, arrived) = clash;
    let winner = if rival > arrived { Winner::Local } else { Winner::Remote };
    let element = element.into();
    observer.conflict(Conflict { kind, rule: Rule::Lww, winner, facet, element, rival, arrived });
}

fn tell_all(kind: Kind, facet: Facet, element: &[u8], merged: Merged, observer: &mut impl Observer) {
    merged.clashes.into_iter().for_each(|clash| tell(kind, facet, element, clash, observer));
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

fn merge_string(
    mine: &mut Several,
    ours: &VersionVector,
    other: &Object,
    theirs: &VersionVector,
    observer: &mut impl Observer,
) {
    let absent = Scalar::default();
    let merged = mine.string.merge(ours, other.string().unwrap_or(&absent), theirs);
    if merged.changed {
        observer.head();
    }
    tell_all(Kind::WriteWrite, Facet::String, &[], merged, observer);
}

// What is known goes first and from the end, so that removal from a table never has to move an element.

fn merge_hash(
    mine: &mut Hash,
    ours: &VersionVector,
    other: Option<&Hash>,
    theirs: &VersionVector,
    observer: &mut impl Observer,
) {
    let absent = Scalar::default();
    let known: Vec<Box<[u8]>> = mine.fields().keys().cloned().collect();
    let mut merge = |mine: &mut Hash, field: &[u8], scalar: &Scalar<_>| {
        let (place, merged) = mine.merge_field(field, ours, scalar, theirs);
        if merged.changed {
            observer.element(Facet::Hash, field, place);
        }
        tell_all(Kind::Field, Facet::Hash, field, merged, observer);
    };
    for field in known.iter().rev() {
        merge(mine, field, other.and_then(|hash| hash.field(field)).unwrap_or(&absent));
    }
    for (field, scalar) in other.into_iter().flat_map(|hash| hash.fields()) {
        if mine.field(field).is_none() {
            merge(mine, field, scalar);
        }
    }
}

fn merge_set(
    mine: &mut Set,
    ours: &VersionVector,
    other: Option<&Set>,
    theirs: &VersionVector,
    observer: &mut impl Observer,
) {
    let known: Vec<Box<[u8]>> = mine.members().keys().cloned().collect();
    for member in known.iter().rev() {
        let additions = other.and_then(|set| set.additions(member)).unwrap_or_default();
        if let Some(place) = mine.merge_member(member, ours, additions, theirs) {
            observer.element(Facet::Set, member, place);
        }
    }
    for (member, additions) in other.into_iter().flat_map(|set| set.members()) {
        if !mine.contains(member)
            && let Some(place) = mine.merge_member(member, ours, additions, theirs)
        {
            observer.element(Facet::Set, member, place);
        }
    }
}

fn merge_sorted_set(
    mine: &mut SortedSet,
    ours: &VersionVector,
    other: Option<&SortedSet>,
    theirs: &VersionVector,
    observer: &mut impl Observer,
) {
    let absent = Scalar::default();
    let known: Vec<_> = mine.members().keys().cloned().collect();
    let mut merge = |mine: &mut SortedSet, member: &[u8], scalar: &Scalar<_>| {
        let (place, merged) = mine.merge_member(member, ours, scalar, theirs);
        if merged.changed {
            observer.element(Facet::SortedSet, member, place);
        }
        tell_all(Kind::Field, Facet::SortedSet, member, merged, observer);
    };
    for member in known.iter().rev() {
        merge(mine, member, other.and_then(|sorted| sorted.member(member)).unwrap_or(&absent));
    }
    for (member, scalar) in other.into_iter().flat_map(|sorted| sorted.members()) {
        if mine.member(member).is_none() {
            merge(mine, member, scalar);
        }
    }
}
