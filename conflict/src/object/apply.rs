//! Applying the effects of ops.

use super::{ALL_FACETS, Applying, Content, Object, facet_bit};
use crate::clock::{Seen, Stamp};
use crate::crdt::{Deadline, Score};
use crate::op::{Effect, ElementBaseline, Facet};
use crate::outcome::{Conflict, Kind, Observer, Rule, Winner};
use crate::scalar::Met;

impl Object {
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
                self.sides.get_or_insert_default().expiry.set(stamp, Deadline::At(*at_ms), seen);
                observer.head();
            }
            Effect::Persist => {
                self.sides.get_or_insert_default().expiry.set(stamp, Deadline::Never, seen);
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
        if let Some(sides) = &mut self.sides
            && sides.expiry.forget(seen)
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
}
