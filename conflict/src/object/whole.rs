//! Marks: which ops stated the whole key, and what shows where that is the rule. See [`crate::lww`].

use std::sync::OnceLock;

use super::{Content, Object, Several, Sides};
use crate::clock::{Stamp, VersionVector, covers};
use crate::crdt::set::Additions;
use crate::crdt::{Expiry, Hash, Set, SortedSet, TablePlace};
use crate::op::Facet;
use crate::outcome::Observer;
use crate::scalar::{Scalar, ScalarValue};

use super::Applying;

/// The marks alive on an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Wholes {
    /// By rising stamp.
    marks: Vec<Stamp>,
    /// What shows, once asked for, where it is not simply everything.
    shown: OnceLock<Option<Box<Object>>>,
    /// What a hook makes of the values alive, once asked.
    pub(super) merged: OnceLock<super::several::Merged>,
}

impl Wholes {
    /// Forgets what was computed.
    fn forget(&mut self) {
        self.shown.take();
        self.merged.take();
    }
}

impl PartialEq for Wholes {
    fn eq(&self, other: &Self) -> bool {
        self.marks == other.marks
    }
}

/// What wins under `lww`: one mark, or everything without one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Winner {
    Mark(Stamp),
    Unmarked,
}

impl Sides {
    /// Those of an object with deadlines and nothing else.
    pub(super) fn of(expiry: Expiry) -> Option<Box<Self>> {
        (!expiry.is_vacant()).then(|| Box::new(Self { expiry, wholes: None }))
    }
}

impl Object {
    pub(super) fn wholes(&self) -> Option<&Wholes> {
        self.sides.as_ref()?.wholes.as_deref()
    }

    pub(super) fn wholes_mut(&mut self) -> Option<&mut Wholes> {
        self.sides.as_mut()?.wholes.as_deref_mut()
    }

    /// The marks alive, by rising stamp.
    pub fn marks(&self) -> &[Stamp] {
        self.wholes().map_or(&[], |wholes| &wholes.marks)
    }

    /// Bytes of the marks on the heap. What was computed from them is not counted: it is there only
    /// where a conflict is.
    pub(super) fn marks_bytes(&self) -> usize {
        self.wholes().map_or(0, |w| size_of::<Wholes>() + w.marks.len() * size_of::<Stamp>())
    }

    /// The object as the policy `lww` reads it. Constant time where nothing was written under it,
    /// and after the first time until the object changes.
    pub fn under_lww(&self) -> &Object {
        let Some(wholes) = self.wholes().filter(|wholes| !wholes.marks.is_empty()) else {
            return self;
        };
        wholes.shown.get_or_init(|| self.winning_part().map(Box::new)).as_deref().unwrap_or(self)
    }

    /// What the winner contributed; `None` where that is everything.
    fn winning_part(&self) -> Option<Object> {
        let marks = self.marks();
        let unmarked = |stamp: &Stamp| marks.binary_search(stamp).is_err();
        let keep: Box<dyn Fn(&Stamp) -> bool> = match self.winner() {
            Winner::Mark(mark) => Box::new(move |stamp| *stamp == mark),
            Winner::Unmarked => Box::new(unmarked),
        };
        let said = self.expiry().into_iter().flat_map(|e| e.said().iter().map(|(stamp, _)| *stamp));
        let content = Facet::ALL.into_iter().flat_map(|facet| self.live_stamps(facet));
        let whole = said.chain(content).all(|stamp| keep(&stamp));
        (!whole).then(|| self.part(&*keep))
    }

    /// When the key goes, whether it is read by type or as one register; none as long as the two
    /// disagree on whether it goes at all.
    pub fn due_ms(&self) -> Option<u64> {
        let by_type = self.deadline_ms();
        if self.marks().is_empty() {
            return by_type;
        }
        by_type.zip(self.under_lww().deadline_ms()).map(|(one, other)| one.max(other))
    }

    fn winner(&self) -> Winner {
        let marks = self.marks();
        let contents = Facet::ALL.into_iter().flat_map(|facet| self.live_stamps(facet));
        let unmarked = contents.filter(|stamp| marks.binary_search(stamp).is_err()).max();
        match marks.last() {
            Some(mark) if unmarked.is_none_or(|stamp| *mark > stamp) => Winner::Mark(*mark),
            _ => Winner::Unmarked,
        }
    }

    /// The object with the contributions alone whose stamp is to be kept, without marks.
    fn part(&self, keep: &dyn Fn(&Stamp) -> bool) -> Object {
        let mut part = Several::default();
        for facet in Facet::ALL {
            match facet {
                Facet::String => {
                    part.string = self.string().map(|string| part_of(string, keep)).unwrap_or_default();
                }
                Facet::Hash => {
                    part.hash = self.hash().map(|hash| part_of_hash(hash, keep)).unwrap_or_default()
                }
                Facet::Set => part.set = self.set().map(|set| part_of_set(set, keep)).unwrap_or_default(),
                Facet::SortedSet => {
                    let of = |sorted| part_of_sorted_set(sorted, keep);
                    part.sorted_set = self.sorted_set().map(of).unwrap_or_default();
                }
            }
        }
        let sides = self.expiry().and_then(|expiry| Sides::of(expiry.part(keep)));
        let mut part = Object { content: Content::Several(Box::new(part)), sides };
        part.simplify();
        part
    }

    /// Forgets the marks that an op's writer had seen. Every effect does this first.
    pub(super) fn see_marks(&mut self, how: Applying<'_>, observer: &mut impl Observer) {
        let Some(wholes) = self.wholes_mut() else { return };
        wholes.forget();
        let before = wholes.marks.len();
        // Of the op's own mark the op itself has not been told.
        wholes.marks.retain(|mark| mark.dot == how.stamp.dot || !how.seen.covers(&mark.dot));
        if wholes.marks.len() != before {
            observer.head();
        }
    }

    /// Adds the mark of an op that states the whole key.
    pub(super) fn mark(&mut self, stamp: Stamp, observer: &mut impl Observer) {
        let wholes = self.sides.get_or_insert_default().wholes.get_or_insert_default();
        wholes.forget();
        if let Err(at) = wholes.marks.binary_search(&stamp) {
            wholes.marks.insert(at, stamp);
        }
        observer.head();
    }

    /// Puts stored marks back.
    pub(super) fn restore_marks(&mut self, mut marks: Vec<Stamp>) {
        marks.sort_unstable();
        marks.dedup();
        let wholes = Wholes { marks, ..Wholes::default() };
        self.sides.get_or_insert_default().wholes = Some(Box::new(wholes));
        self.fit_sides();
    }

    /// Forgets what was computed: the object changes.
    pub(super) fn forget_shown(&mut self) {
        if let Some(wholes) = self.wholes_mut() {
            wholes.forget();
        }
    }

    /// Has the room for deadlines, marks and what was computed where it is needed, and only there.
    pub(super) fn fit_sides(&mut self) {
        let needed = self.is_plural() || !self.marks().is_empty();
        match &mut self.sides {
            None if needed => self.sides.get_or_insert_default().wholes = Some(Box::default()),
            Some(sides) if needed => {
                sides.wholes.get_or_insert_default();
            }
            Some(sides) if sides.expiry.is_vacant() => self.sides = None,
            Some(sides) => sides.wholes = None,
            None => {}
        }
    }

    /// Merges another replica's marks; see [`Object::merge`].
    pub(super) fn merge_marks(
        &mut self,
        ours: &VersionVector,
        other: &Object,
        theirs: &VersionVector,
        observer: &mut impl Observer,
    ) {
        if self.marks().is_empty() && other.marks().is_empty() {
            return;
        }
        let before = self.marks().to_vec();
        let mut marks = before.clone();
        marks.retain(|mark| other.marks().contains(mark) || !covers(theirs, &mark.dot));
        marks.extend(other.marks().iter().filter(|mark| !covers(ours, &mark.dot)));
        self.restore_marks(marks);
        if self.marks() != before {
            observer.head();
        }
    }

    /// Drops the marks and what lost to them. Only when all ops on this object are *settled*: every
    /// op still to come was written by one that had applied them all, so none of them could make a
    /// loser win. And only when none of them can come again: neither in a replay here, which
    /// begins at the stored position, nor for a receiver that takes the object over. A loser that
    /// came again would find no mark to lose to.
    ///
    /// Whatever the policy in force, so that regions that settle at different times end alike. What
    /// `lww` shows does not change.
    pub fn settle(&mut self, observer: &mut impl Observer) {
        if self.marks().is_empty() {
            return;
        }
        self.forget_shown();
        if let Some(winning) = self.winning_part() {
            self.become_part(winning, observer);
        }
        if let Some(sides) = &mut self.sides {
            sides.wholes = None;
        }
        observer.head();
        self.simplify();
    }

    /// Takes the content of `part`, one of its own, and tells of every element that changed.
    fn become_part(&mut self, part: Object, observer: &mut impl Observer) {
        let mut elements = Vec::new();
        self.for_each_element(|facet, element| elements.push((facet, Box::<[u8]>::from(element))));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        // From the end, so that removal from a table never has to move an element.
        for (facet, element) in elements.iter().rev() {
            before.clear();
            after.clear();
            let stays = part.encode_element(*facet, element, &mut after);
            if stays && self.encode_element(*facet, element, &mut before) && before == after {
                continue;
            }
            let (at, length) = self.place(*facet, element);
            match facet {
                Facet::String => {}
                Facet::Hash => {
                    let field = part.hash().and_then(|hash| hash.field(element)).cloned();
                    self.on_hash(|hash| hash.restore(element, field.unwrap_or_default()));
                }
                Facet::Set => {
                    let additions = part.set().and_then(|set| set.additions(element)).unwrap_or_default();
                    self.on_set(|set| set.restore(element, Additions::from_slice(additions)));
                }
                Facet::SortedSet => {
                    let score = part.sorted_set().and_then(|sorted| sorted.member(element)).cloned();
                    self.on_sorted_set(|sorted| sorted.restore(element, score.unwrap_or_default()));
                }
            }
            let last = length.saturating_sub(1);
            let place = if stays { TablePlace::At(at) } else { TablePlace::Left { at, last } };
            observer.element(*facet, element, place);
        }
        if self.string().is_some() {
            self.on_string(|string| *string = part.string().cloned().unwrap_or_default());
        }
        let expiry = part.sides.map(|sides| sides.expiry).unwrap_or_default();
        self.sides.get_or_insert_default().expiry = expiry;
    }

    /// Where an element stands in its table, and the table's length.
    fn place(&self, facet: Facet, element: &[u8]) -> (usize, usize) {
        let of = |at: Option<usize>, length| (at.unwrap_or_default(), length);
        match facet {
            Facet::String => (0, 0),
            Facet::Hash => {
                self.hash().map_or((0, 0), |h| of(h.fields().get_index_of(element), h.fields().len()))
            }
            Facet::Set => {
                self.set().map_or((0, 0), |s| of(s.members().get_index_of(element), s.members().len()))
            }
            Facet::SortedSet => {
                self.sorted_set().map_or((0, 0), |z| of(z.members().get_index_of(element), z.members().len()))
            }
        }
    }
}

fn part_of<V: ScalarValue>(scalar: &Scalar<V>, keep: &dyn Fn(&Stamp) -> bool) -> Scalar<V> {
    let (siblings, deltas) = scalar.to_parts();
    let siblings = siblings.iter().filter(|s| keep(&s.stamp)).cloned().collect();
    let deltas = deltas.iter().filter(|d| d.is_live() && keep(&d.stamp)).cloned().collect();
    Scalar::from_parts(siblings, deltas)
}

fn part_of_hash(hash: &Hash, keep: &dyn Fn(&Stamp) -> bool) -> Hash {
    let mut part = Hash::default();
    for (field, scalar) in hash.fields() {
        part.restore(field, part_of(scalar, keep));
    }
    part
}

fn part_of_set(set: &Set, keep: &dyn Fn(&Stamp) -> bool) -> Set {
    let mut part = Set::default();
    for (member, additions) in set.members() {
        part.restore(member, additions.iter().filter(|stamp| keep(stamp)).copied().collect());
    }
    part
}

fn part_of_sorted_set(sorted: &SortedSet, keep: &dyn Fn(&Stamp) -> bool) -> SortedSet {
    let mut part = SortedSet::default();
    for (member, scalar) in sorted.members() {
        part.restore(member, part_of(scalar, keep));
    }
    part
}

impl Expiry {
    /// What the ops said whose stamp is to be kept.
    fn part(&self, keep: &dyn Fn(&Stamp) -> bool) -> Expiry {
        let mut part = Expiry::default();
        for (stamp, deadline) in self.said().iter().filter(|(stamp, _)| keep(stamp)) {
            let none = VersionVector::new();
            let dot = crate::clock::Dot::new(crate::clock::Origin(0), 0);
            part.set(*stamp, *deadline, crate::clock::Seen::Vector { deps: &none, dot });
        }
        part
    }
}
