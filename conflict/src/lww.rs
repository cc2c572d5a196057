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

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Stamp, VersionVector, covers};
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
    let unseen = alive(object).into_iter().filter(|(stamp, _)| !how.seen.covers(&stamp.dot));
    unseen.filter_map(|stood| clash(stood, (how.stamp, arrives))).collect()
}

/// The conflicts that the states of a key show at two replicas, where `ours` and `theirs` are applied: one for
/// each two ops alive of which neither replica had the other's. Merging the states again shows none.
pub fn clashes(
    object: &Object,
    ours: &VersionVector,
    other: &Object,
    theirs: &VersionVector,
) -> Vec<Conflict> {
    let (mut mine, mut came) = (alive(object), alive(other));
    // What is beyond a vector may be there all the same.
    let everywhere: BTreeSet<Stamp> = mine.keys().filter(|stamp| came.contains_key(stamp)).copied().collect();
    mine.retain(|stamp, _| !everywhere.contains(stamp) && !covers(theirs, &stamp.dot));
    came.retain(|stamp, _| !everywhere.contains(stamp) && !covers(ours, &stamp.dot));
    came.iter()
        .flat_map(|(stamp, arrives)| mine.iter().map(|stood| ((*stood.0, *stood.1), (*stamp, *arrives))))
        .filter_map(|(stood, arrived)| clash(stood, arrived))
        .collect()
}

/// The ops alive in an object, with what they state.
fn alive(object: &Object) -> BTreeMap<Stamp, States> {
    let mut alive: BTreeMap<Stamp, States> = object.marks().iter().map(|m| (*m, States::Nothing)).collect();
    for facet in Facet::ALL {
        alive.extend(object.live_stamps(facet).map(|stamp| (stamp, States::Content(facet))));
    }
    alive
}

/// What one of two ops, neither of which had seen the other, meets in the other.
fn clash((rival, stood): (Stamp, States), (arrived, arrives): (Stamp, States)) -> Option<Conflict> {
    let (kind, facet) = match (stood, arrives) {
        (States::Nothing, States::Nothing) => return None,
        (States::Content(facet), States::Nothing) | (States::Nothing, States::Content(facet)) => {
            (Kind::WriteDelete, facet)
        }
        (States::Content(stood), States::Content(facet)) if stood == facet => (Kind::WriteWrite, facet),
        (States::Content(_), States::Content(facet)) => (Kind::TypeClash, facet),
    };
    let winner = if rival > arrived { Winner::Local } else { Winner::Remote };
    Some(Conflict { kind, rule: Rule::Lww, winner, facet, element: [].into(), rival, arrived })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::clock::{Dot, Hlc, Origin, Seen};
    use crate::outcome::Outcome;

    fn write(object: &mut Object, origin: u64, effects: &[Effect<'_>]) -> Dot {
        let stamp = Stamp { hlc: Hlc::from_ms(origin), dot: Dot::new(Origin(origin), 1) };
        let how = Applying { stamp, seen: Seen::All };
        effects.iter().for_each(|effect| object.apply(effect, how, &mut Outcome::default()));
        stamp.dot
    }

    #[test]
    fn states_that_meet_show_the_conflicts_that_their_ops_would_have_met() {
        let field = |field| [Effect::FieldAssign { field, value: b"v", baseline: Vec::new() }, Effect::Whole];
        let (mut here, mut there) = (Object::default(), Object::default());
        let ours: VersionVector = [write(&mut here, 1, &field(b"a"))].into_iter().collect();
        let theirs: VersionVector = [write(&mut there, 2, &field(b"b"))].into_iter().collect();
        let met = clashes(&here, &ours, &there, &theirs);
        assert_eq!(met.len(), 1, "though they share no field");
        assert_eq!(
            (met[0].kind, met[0].winner, met[0].facet),
            (Kind::WriteWrite, Winner::Remote, Facet::Hash)
        );
        let mut merged = here.clone();
        merged.merge(&ours, &there, &theirs);
        let both: VersionVector =
            ours.iter().chain(theirs.iter()).map(|d| Dot::new(*d.actor, d.counter)).collect();
        assert!(clashes(&merged, &both, &there, &theirs).is_empty());
        let mut gone = Object::default();
        let deleted: VersionVector = [write(&mut gone, 3, &[Effect::Whole])].into_iter().collect();
        let met = clashes(&merged, &both, &gone, &deleted);
        assert!(met.iter().all(|met| met.kind == Kind::WriteDelete) && met.len() == 2);
        assert!(clashes(&gone, &deleted, &gone, &deleted).is_empty());
    }
}
