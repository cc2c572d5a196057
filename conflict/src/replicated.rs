//! Our types under the traits of the `crdts` crate, so that its vocabulary and laws apply.
//!
//! The running program keeps one version vector per region, not one per key; [`Replicated`] puts
//! the two together for one key.

use crdts::{CmRDT, CvRDT, ResetRemove};

use crate::clock::{Dot, Origin, Seen, Stamp, VersionVector, covers, covers_all, raise};
use crate::crdt::Set;
use crate::object::{Applying, Object};
use crate::op::{MalformedBody, changes, validate};
use crate::outcome::Outcome;
use crate::scalar::{Scalar, ScalarValue};

/// One key's state with what was applied to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicated {
    /// The state.
    pub object: Object,
    /// The ops it includes.
    pub applied: VersionVector,
}

/// An op on one key, with its deps in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The op's stamp.
    pub stamp: Stamp,
    /// Everything its writer had applied.
    pub deps: VersionVector,
    /// Its body; every change in it is taken to concern this key, flushes are passed over.
    pub body: Vec<u8>,
}

/// An op must not be applied yet, or ever. Nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// Something that its writer had seen is missing here.
    #[error("an op arrived before what it depends on")]
    MissingDeps,
    /// See [`MalformedBody`].
    #[error(transparent)]
    Malformed(#[from] MalformedBody),
}

impl CmRDT for Replicated {
    type Op = Delivery;
    type Validation = Undeliverable;

    fn validate_op(&self, op: &Delivery) -> Result<(), Undeliverable> {
        if !covers_all(&self.applied, &op.deps) {
            return Err(Undeliverable::MissingDeps);
        }
        Ok(validate(&op.body)?)
    }

    /// Applies a validated op. One that was applied before is passed over.
    fn apply(&mut self, op: Delivery) {
        if covers(&self.applied, &op.stamp.dot) {
            return;
        }
        let seen = Seen::Vector { deps: &op.deps, dot: op.stamp.dot };
        let how = Applying { stamp: op.stamp, seen };
        for effect in changes(&op.body).flatten().flat_map(|change| change.effects()).flatten() {
            self.object.apply(&effect, how, &mut Outcome::default());
        }
        raise(&mut self.applied, op.stamp.dot.actor, op.stamp.dot.counter);
    }
}

impl CvRDT for Replicated {
    type Validation = std::convert::Infallible;

    fn validate_merge(&self, _: &Self) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.object.merge(&self.applied, &other.object, &other.applied);
        CvRDT::merge(&mut self.applied, other.applied);
    }
}

/// What `clock` covers counts as seen; dots start at 1, so this one names no op.
fn seen_by(clock: &VersionVector) -> Seen<'_> {
    Seen::Vector { deps: clock, dot: Dot::new(Origin(0), 0) }
}

impl ResetRemove<Origin> for Set {
    /// Removes the additions that `clock` covers.
    fn reset_remove(&mut self, clock: &VersionVector) {
        let members: Vec<Box<[u8]>> = self.members().keys().cloned().collect();
        for member in members.iter().rev() {
            self.remove(member, seen_by(clock));
        }
    }
}

impl<V: ScalarValue> ResetRemove<Origin> for Scalar<V> {
    /// Removes the assignments that `clock` covers and swallows the sums whose latest delta it
    /// covers. A sum that it covers in part stays whole: how much it had reached at `clock` is not
    /// kept, which is why clears that travel carry a baseline.
    fn reset_remove(&mut self, clock: &VersionVector) {
        let mut baseline = self.baseline();
        baseline.retain(|seen| clock.get(&seen.origin) >= seen.position.sequence);
        self.clear(&baseline, seen_by(clock));
    }
}
