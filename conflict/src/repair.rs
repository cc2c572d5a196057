//! Two replicas compare what they show of a key, and mend what differs.
//!
//! What shows is a function of the set of ops applied, so replicas that have applied the same ops on
//! a key must show the same. They hardly ever have applied the same ops altogether; [`verdict`] says
//! when they have on one key. Everything else is lag, and never a divergence. What is only remembered,
//! and does not show yet, is not compared: replicas may have reclaimed it at different times. Nor is what
//! lost under `lww`, which is let go of at different times, too ([`Object::settle`]); so keys are compared
//! as [`Object::under_lww`] reads them, whatever their policy.

use crate::clock::{VersionVector, covers_all};
use crate::digest::digest;
use crate::object::Object;
use crate::outcome::{Conflict, Outcome};

/// Two replicas' views of one key. *Mine* was taken first; then, with all of that applied, *theirs*.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// What was applied here after my view was taken.
    pub asked: &'a VersionVector,
    /// What was applied there after theirs was taken and before the key changed there again.
    pub theirs: &'a VersionVector,
    /// What is applied here now.
    pub applied: &'a VersionVector,
    /// No op has changed the key here since my view was taken.
    pub is_unmoved: bool,
}

/// What two views say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same ops show the same.
    Equal,
    /// The same ops show something else: one of the two has lost or garbled something.
    Divergent,
    /// The views are not of the same ops. Nothing can be said; look again.
    Unknown,
}

/// Judges two views by the digests of what they show, both at the same time of the clock.
///
/// The key's ops in my view are those in `asked`, and also those in `applied`, for none came since.
/// `theirs` lies between the two, so the key's ops there are the same.
pub fn verdict(views: &Views<'_>, mine: u128, theirs: u128) -> Verdict {
    let comparable =
        views.is_unmoved && covers_all(views.theirs, views.asked) && covers_all(views.applied, views.theirs);
    match comparable {
        false => Verdict::Unknown,
        true if mine == theirs => Verdict::Equal,
        true => Verdict::Divergent,
    }
}

/// What a divergent key should have.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// Its state.
    pub object: Object,
    /// What was put side by side for that: of each, one replica had the one value and one the other.
    pub conflicts: Vec<Conflict>,
}

/// What both replicas of a divergent key should have: everything that either still has, for nobody
/// can tell what was removed from what was lost, and what came back can be removed again. Where the
/// two name one thing differently, one of the two states wins, the same in both replicas.
pub fn repaired(database: u8, key: &[u8], mine: &Object, theirs: &Object, now_ms: u64) -> Repaired {
    let unite = |first: &Object, second: &Object| {
        let (mut united, nothing) = (first.clone(), VersionVector::new());
        let mut met = Outcome::default();
        // To those who have applied nothing, all that the other has is new.
        united.merge_observed(&nothing, second, &nothing, &mut met);
        let shown = digest(database, key, united.under_lww(), now_ms);
        (shown, united, met.conflicts)
    };
    let (ours, other) = (unite(mine, theirs), unite(theirs, mine));
    let object = if ours.0 >= other.0 { ours.1 } else { other.1 };
    Repaired { object, conflicts: ours.2 }
}
