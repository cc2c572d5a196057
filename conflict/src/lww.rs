//! The policy `lww`: a whole key is one register.
//!
//! # The rule
//!
//! A write under `lww` *states the whole key*, whatever the command and the type: what its writer
//! saw, with the command's change made. `HSET h f v` states the hash with `f` set, `INCR` states the
//! sum, `EXPIRE` the value with that deadline, and what leaves nothing (`DEL`, the `SREM` of the
//! last member) states that there is nothing. Of statements that had not seen each other the one
//! with the greatest stamp shows, all of it and nothing else: not one field of another, not its
//! deadline. A delete is a statement like any other, so it beats older concurrent updates and
//! loses to newer ones.
//!
//! # How
//!
//! In effects of the kinds there are anyway, so every type has the policy that has effects and a
//! place in [`Editor::replace_with`](crate::edit::Editor::replace_with): a statement clears what its
//! writer saw and says the content anew, so all that it contributes bears its stamp, and it ends
//! with [`Effect::Whole`], which leaves a *mark* on the object. A mark stays until an op that has
//! seen it: the marks are the statements that are alive. A string where no
//! deadline is concerned is whole by itself: it leaves no mark and takes no more memory than under
//! `crdt`.
//!
//! What shows ([`Object::under_lww`]) is computed from contributions and marks: each mark with the
//! contributions of its stamp is one candidate; everything without a mark, such as what was written
//! under another policy, is together one more, of the greatest stamp in it. The greatest candidate
//! shows. So a key on which nothing was written under `lww` yet reads as under `crdt`, and one
//! whose policy changes from `lww` to `crdt` shows its statements merged by type. Contributions and
//! marks are observed-remove, a function of the set of ops like all else: regions converge in any
//! order of arrival, and read alike wherever they have the same policy.
//!
//! A mark is dropped, with the candidates that lost, when it is settled ([`Object::settle`]): when
//! every op still to come was written by one that had applied all of this object.
//!
//! # What it costs
//!
//! A write of a collection costs the collection: time, log and link. That is the price of a
//! register of that size; a collection that is written element by element is better off under
//! `crdt`. `FLUSHDB` is no statement: it removes what its writer saw, under every policy.

use std::collections::BTreeMap;

use crate::clock::Stamp;
use crate::crdt::TablePlace;
use crate::object::{Applying, Object};
use crate::op::{Change, Effect, Facet};
use crate::outcome::{Conflict, Kind, Observer, Rule, Winner};

/// Passes changes on and leaves conflicts out: under `lww` an op meets its rivals as a whole
/// ([`rivals`]), not field by field.
#[derive(Debug)]
pub struct WithoutConflicts<'a, O>(pub &'a mut O);

impl<O: Observer> Observer for WithoutConflicts<'_, O> {
    fn conflict(&mut self, _: Conflict) {}

    fn element(&mut self, facet: Facet, element: &[u8], place: TablePlace) {
        self.0.element(facet, element, place);
    }

    fn head(&mut self) {
        self.0.head();
    }
}

/// What an op states, as far as a conflict names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum States {
    Nothing,
    Content(Facet),
}

/// What a change says of a key, `None` where it does not touch the content.
fn states(change: &Change<'_>) -> Option<States> {
    let mut found = None;
    for effect in change.effects().flatten() {
        let facet = match effect {
            Effect::Assign { .. } | Effect::Add { .. } => Facet::String,
            Effect::FieldAssign { .. } | Effect::FieldAdd { .. } => Facet::Hash,
            Effect::MemberAdd { .. } => Facet::Set,
            Effect::ScoreAssign { .. } | Effect::ScoreAdd { .. } => Facet::SortedSet,
            Effect::Whole => {
                found.get_or_insert(States::Nothing);
                continue;
            }
            Effect::Clear { .. }
            | Effect::FieldRemove { .. }
            | Effect::MemberRemove { .. }
            | Effect::ScoreRemove { .. }
            | Effect::Deadline { .. }
            | Effect::Persist
            | Effect::ForgetDeadline
            | Effect::Flush { .. } => continue,
        };
        found = Some(States::Content(facet));
    }
    found
}

/// The conflicts that an op's change of a key under `lww` meets on arrival: one for each op alive in
/// `object`, before the change, that its writer had not seen. Two deletes are none.
pub fn rivals(object: &Object, change: &Change<'_>, how: Applying<'_>) -> Vec<Conflict> {
    let Some(arrives) = states(change) else { return Vec::new() };
    let mut alive: BTreeMap<Stamp, States> = object.marks().iter().map(|m| (*m, States::Nothing)).collect();
    for facet in Facet::ALL {
        alive.extend(object.live_stamps(facet).map(|stamp| (stamp, States::Content(facet))));
    }
    let unseen = alive.into_iter().filter(|(stamp, _)| !how.seen.covers(&stamp.dot));
    unseen
        .filter_map(|(rival, stood)| {
            let (kind, facet) = match (stood, arrives) {
                (States::Nothing, States::Nothing) => return None,
                (States::Content(facet), States::Nothing) | (States::Nothing, States::Content(facet)) => {
                    (Kind::WriteDelete, facet)
                }
                (States::Content(stood), States::Content(facet)) if stood == facet => {
                    (Kind::WriteWrite, facet)
                }
                (States::Content(_), States::Content(facet)) => (Kind::TypeClash, facet),
            };
            let winner = if rival > how.stamp { Winner::Local } else { Winner::Remote };
            let (rule, element, arrived) = (Rule::Lww, [].into(), how.stamp);
            Some(Conflict { kind, rule, winner, facet, element, rival, arrived })
        })
        .collect()
}
