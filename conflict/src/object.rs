//! A key's whole state: one facet per type, and a deadline.
//!
//! Nearly every object has one facet. When concurrent writes give a key two types, both facets are
//! kept, the one with the greatest stamp shows, and the next write that has seen the hidden one
//! removes it.

mod merge;
mod several;
pub mod stored;
mod whole;

use std::sync::OnceLock;

use crate::clock::{Dot, Origin, Seen, Stamp};
use crate::crdt::{Deadline, Expiry, Hash, Score, Set, SortedSet};
use crate::op::{Effect, ElementBaseline, Facet};
use crate::outcome::{Conflict, Kind, Observer, Rule, Winner};
use crate::scalar::{Met, Scalar, Value};
pub use several::CopyBytes;

/// All facets as bits, for [`Effect::Clear`].
pub const ALL_FACETS: u8 = 0b1111;

/// A facet's bit in [`Effect::Clear`].
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
    expiry: Option<Box<Expiry>>,
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
        self.expiry.as_deref()
    }

    /// When the key goes, as a Unix millisecond.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.expiry.as_ref()?.deadline_ms()
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
        content && self.marks().is_empty() && self.expiry.as_ref().is_none_or(|e| e.is_vacant())
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
        content + self.marks_bytes() + self.expiry.as_ref().map_or(0, |e| e.heap_bytes())
    }

    /// Brings the object into the form that its content has: after every change.
    fn simplify(&mut self) {
        self.simplify_content();
        self.fit_wholes();
    }

    /// Gives up the form for several facets when one or none is left.
    fn simplify_content(&mut self) {
        if self.expiry.as_ref().is_some_and(|e| e.is_vacant()) {
            self.expiry = None;
        }
        if let Content::Several(several) = &mut self.content {
            several.shown.take();
            let vacant = (
                several.string.is_vacant(),
                several.hash.is_vacant(),
                several.set.is_empty(),
                several.sorted_set.is_vacant(),
            );
            self.content = match vacant {
                (true, true, true, true) => Content::Empty,
                (false, true, true, true) => Content::String(std::mem::take(&mut several.string)),
                (true, false, true, true) => Content::Hash(Box::new(std::mem::take(&mut several.hash))),
                (true, true, false, true) => Content::Set(Box::new(std::mem::take(&mut several.set))),
                (true, true, true, false) => {
                    Content::SortedSet(Box::new(std::mem::take(&mut several.sorted_set)))
                }
                _ => return,
            };
            return;
        }
        let empty = match &self.content {
            Content::Empty | Content::Several(_) => false,
            Content::String(string) => string.is_vacant(),
            Content::Hash(hash) => hash.is_vacant(),
            Content::Set(set) => set.is_empty(),
            Content::SortedSet(sorted) => sorted.is_vacant(),
        };
        if empty {
            self.content = Content::Empty;
        }
    }

    fn on_string<R>(&mut self, work: impl FnOnce(&mut Scalar<Value>) -> R) -> R {
        match &mut self.content {
            Content::String(string) => work(string),
            Content::Several(several) => work(&mut several.string),
            Content::Empty => {
                let mut string = Scalar::default();
                let result = work(&mut string);
                self.content = Content::String(string);
                result
            }
            _ => self.on_several(|several| work(&mut several.string)),
        }
    }

    fn on_hash<R>(&mut self, work: impl FnOnce(&mut Hash) -> R) -> R {
        match &mut self.content {
            Content::Hash(hash) => work(hash),
            Content::Several(several) => work(&mut several.hash),
            Content::Empty => {
                let mut hash = Box::default();
                let result = work(&mut hash);
                self.content = Content::Hash(hash);
                result
            }
            _ => self.on_several(|several| work(&mut several.hash)),
        }
    }

    fn on_set<R>(&mut self, work: impl FnOnce(&mut Set) -> R) -> R {
        match &mut self.content {
            Content::Set(set) => work(set),
            Content::Several(several) => work(&mut several.set),
            Content::Empty => {
                let mut set = Box::default();
                let result = work(&mut set);
                self.content = Content::Set(set);
                result
            }
            _ => self.on_several(|several| work(&mut several.set)),
        }
    }

    fn on_sorted_set<R>(&mut self, work: impl FnOnce(&mut SortedSet) -> R) -> R {
        match &mut self.content {
            Content::SortedSet(sorted_set) => work(sorted_set),
            Content::Several(several) => work(&mut several.sorted_set),
            Content::Empty => {
                let mut sorted_set = Box::default();
                let result = work(&mut sorted_set);
                self.content = Content::SortedSet(sorted_set);
                result
            }
            _ => self.on_several(|several| work(&mut several.sorted_set)),
        }
    }

    /// Takes the form for several facets; [`Object::simplify`] gives it up again.
    fn on_several<R>(&mut self, work: impl FnOnce(&mut Several) -> R) -> R {
        let mut several = std::mem::take(&mut self.content).into_several();
        let result = work(&mut several);
        self.content = Content::Several(several);
        result
    }

    /// Applies one effect of an op. Applying it again, or over a state that already holds later
    /// ops which are then applied again too, ends in the same state. An old op alone must not be
    /// applied over what followed it: a receiver passes over what its version vector covers.
    ///
    /// [`Effect::Flush`] concerns a whole database: the caller turns it into
    /// [`Object::apply_flush`] on each of its objects.
    pub fn apply(&mut self, effect: &Effect<'_>, how: Applying<'_>, observer: &mut impl Observer) {
        let Applying { stamp, seen } = how;
        self.see_marks(how, observer);
        match effect {
            Effect::Assign { value, baseline } => {
                self.clash(Facet::String, how, observer);
                let met = self.on_string(|string| string.assign_bytes(stamp, value, baseline, seen));
                self.report(met, Kind::WriteWrite, Facet::String, &[], how, observer);
            }
            Effect::Add { total, fresh, index } => {
                self.clash(Facet::String, how, observer);
                let met = self.on_string(|string| string.add(stamp, *index, total.clone(), *fresh, seen));
                self.report(met, Kind::WriteWrite, Facet::String, &[], how, observer);
            }
            Effect::FieldAssign { field, value, baseline } => {
                self.clash(Facet::Hash, how, observer);
                let met = self.on_hash(|hash| hash.assign(field, stamp, value, baseline, seen));
                self.report(met, Kind::Field, Facet::Hash, field, how, observer);
            }
            Effect::FieldAdd { field, total, fresh, index } => {
                self.clash(Facet::Hash, how, observer);
                let met = self.on_hash(|hash| hash.add(field, stamp, *index, total.clone(), *fresh, seen));
                self.report(met, Kind::Field, Facet::Hash, field, how, observer);
            }
            Effect::FieldRemove { field, baseline } => {
                if !baseline.is_empty() || self.hash().is_some() {
                    let met = self.on_hash(|hash| hash.remove(field, baseline, seen));
                    self.report(met, Kind::WriteDelete, Facet::Hash, field, how, observer);
                }
            }
            Effect::MemberAdd { member } => {
                self.clash(Facet::Set, how, observer);
                let met = self.on_set(|set| set.add(member, stamp, seen));
                self.report(met, Kind::Field, Facet::Set, member, how, observer);
            }
            Effect::MemberRemove { member } => {
                if self.set().is_some() {
                    let met = self.on_set(|set| set.remove(member, seen));
                    self.report(met, Kind::WriteDelete, Facet::Set, member, how, observer);
                }
            }
            Effect::ScoreAssign { member, score, baseline } => {
                let Some(score) = Score::from_bits(*score) else { return };
                self.clash(Facet::SortedSet, how, observer);
                let met = self.on_sorted_set(|sorted| sorted.assign(member, stamp, score, baseline, seen));
                self.report(met, Kind::Field, Facet::SortedSet, member, how, observer);
            }
            Effect::ScoreAdd { member, total, fresh, index } => {
                self.clash(Facet::SortedSet, how, observer);
                let met = self
                    .on_sorted_set(|sorted| sorted.add(member, stamp, *index, total.clone(), *fresh, seen));
                self.report(met, Kind::Field, Facet::SortedSet, member, how, observer);
            }
            Effect::ScoreRemove { member, baseline } => {
                if !baseline.is_empty() || self.sorted_set().is_some() {
                    let met = self.on_sorted_set(|sorted| sorted.remove(member, baseline, seen));
                    self.report(met, Kind::WriteDelete, Facet::SortedSet, member, how, observer);
                }
            }
            Effect::Clear { facets, deadline, baselines } => {
                self.clear(*facets, *deadline, baselines, Kind::WriteDelete, how, observer);
            }
            Effect::Deadline { at_ms } => {
                self.expiry.get_or_insert_default().set(stamp, Deadline::At(*at_ms), seen);
                observer.head();
            }
            Effect::Persist => {
                self.expiry.get_or_insert_default().set(stamp, Deadline::Never, seen);
                observer.head();
            }
            Effect::ForgetDeadline => self.forget_deadline(seen, observer),
            Effect::Whole => self.mark(stamp, observer),
            Effect::Flush { .. } => {}
        }
        self.simplify();
    }

    /// What a database flush does to one of its objects: removes what was seen.
    pub fn apply_flush(
        &mut self,
        baselines: &[ElementBaseline<'_>],
        how: Applying<'_>,
        observer: &mut impl Observer,
    ) {
        self.see_marks(how, observer);
        self.clear(ALL_FACETS, true, baselines, Kind::ClearWrite, how, observer);
        self.simplify();
    }

    fn forget_deadline(&mut self, seen: Seen<'_>, observer: &mut impl Observer) {
        if let Some(expiry) = &mut self.expiry
            && expiry.forget(seen)
        {
            observer.head();
        }
    }

    fn report(
        &self,
        met: Met,
        kind: Kind,
        facet: Facet,
        element: &[u8],
        how: Applying<'_>,
        observer: &mut impl Observer,
    ) {
        if met.changed {
            if facet == Facet::String {
                observer.head();
            } else {
                observer.element(facet, element, met.place);
            }
        }
        for rival in met.rivals {
            let (rule, winner) = match kind {
                Kind::WriteDelete | Kind::ClearWrite => (Rule::Crdt, Winner::Merged),
                _ if rival > how.stamp => (Rule::Lww, Winner::Local),
                _ => (Rule::Lww, Winner::Remote),
            };
            let element = element.into();
            observer.conflict(Conflict { kind, rule, winner, facet, element, rival, arrived: how.stamp });
        }
    }

    /// Notes the clash when `facet` is about to be written beside another facet that the writer
    /// had not seen. One conflict per other facet, with its greatest unseen stamp.
    fn clash(&mut self, facet: Facet, how: Applying<'_>, observer: &mut impl Observer) {
        if matches!(how.seen, Seen::All) {
            return;
        }
        let alone = match &self.content {
            Content::Empty => true,
            Content::String(_) => facet == Facet::String,
            Content::Hash(_) => facet == Facet::Hash,
            Content::Set(_) => facet == Facet::Set,
            Content::SortedSet(_) => facet == Facet::SortedSet,
            Content::Several(_) => false,
        };
        if alone {
            return;
        }
        let examined = Some((how.stamp.dot, facet));
        if self.on_several(|several| std::mem::replace(&mut several.examined, examined)) == examined {
            return;
        }
        for other in Facet::ALL.into_iter().filter(|other| *other != facet) {
            let unseen = self.live_stamps(other).filter(|s| !how.seen.covers(&s.dot)).max();
            if let Some(rival) = unseen {
                let winner = if rival > how.stamp { Winner::Local } else { Winner::Remote };
                observer.conflict(Conflict {
                    kind: Kind::TypeClash,
                    rule: Rule::Lww,
                    winner,
                    facet,
                    element: [].into(),
                    rival,
                    arrived: how.stamp,
                });
            }
        }
    }

    /// Removes what was seen of `facets`. Survivors are conflicts, one for each op among them.
    fn clear(
        &mut self,
        facets: u8,
        deadline: bool,
        baselines: &[ElementBaseline<'_>],
        kind: Kind,
        how: Applying<'_>,
        observer: &mut impl Observer,
    ) {
        if deadline {
            self.forget_deadline(how.seen, observer);
        }
        for facet in Facet::ALL.into_iter().filter(|f| facets & facet_bit(*f) != 0) {
            let of_facet = |element: &[u8]| {
                let found = baselines.iter().find(|b| b.facet == facet && b.element == element);
                found.map_or(&[][..], |b| b.baseline.as_slice())
            };
            let mut unseen: Vec<Stamp> = Vec::new();
            match facet {
                Facet::String => {
                    if self.string().is_some() || !of_facet(&[]).is_empty() {
                        let met = self.on_string(|string| string.clear(of_facet(&[]), how.seen));
                        if met.changed {
                            observer.head();
                        }
                        unseen = met.rivals;
                    }
                }
                _ => self.clear_elements(facet, baselines, how, &mut unseen, observer),
            }
            unseen.sort_unstable();
            unseen.dedup();
            for rival in unseen {
                observer.conflict(Conflict {
                    kind,
                    rule: Rule::Crdt,
                    winner: Winner::Merged,
                    facet,
                    element: [].into(),
                    rival,
                    arrived: how.stamp,
                });
            }
        }
    }

    fn clear_elements(
        &mut self,
        facet: Facet,
        baselines: &[ElementBaseline<'_>],
        how: Applying<'_>,
        unseen: &mut Vec<Stamp>,
        observer: &mut impl Observer,
    ) {
        let mut elements: Vec<Box<[u8]>> = match facet {
            Facet::String => Vec::new(),
            Facet::Hash => self.hash().map_or_else(Vec::new, |h| h.fields().keys().cloned().collect()),
            Facet::Set => self.set().map_or_else(Vec::new, |s| s.members().keys().cloned().collect()),
            Facet::SortedSet => self
                .sorted_set()
                .map_or_else(Vec::new, |z| z.members().keys().map(|k| Box::from(&**k)).collect()),
        };
        let by_element: std::collections::BTreeMap<&[u8], &[crate::op::SeenDelta]> = baselines
            .iter()
            .filter(|b| b.facet == facet)
            .map(|b| (b.element, b.baseline.as_slice()))
            .collect();
        let known: std::collections::BTreeSet<&[u8]> = elements.iter().map(|e| &**e).collect();
        let strangers: Vec<Box<[u8]>> =
            by_element.keys().filter(|e| !known.contains(**e)).map(|e| Box::from(*e)).collect();
        drop(known);
        elements.extend(strangers);
        // From the end, so that removal from a table never has to move an element.
        for element in elements.iter().rev() {
            let baseline = by_element.get(&**element).copied().unwrap_or_default();
            let met = match facet {
                Facet::String => Met::default(),
                Facet::Hash => self.on_hash(|hash| hash.remove(element, baseline, how.seen)),
                Facet::Set => self.on_set(|set| set.remove(element, how.seen)),
                Facet::SortedSet => self.on_sorted_set(|sorted| sorted.remove(element, baseline, how.seen)),
            };
            if met.changed {
                observer.element(facet, element, met.place);
            }
            unseen.extend(met.rivals);
        }
    }

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
