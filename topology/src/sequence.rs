//! Gives local ops their header, and keeps what has been applied of every origin.
//!
//! The [`Sequencer`] lives under one mutex in the proxy and is entered once per write, so it does
//! next to nothing there: no scan of the vector, and no allocation unless something rose.
//!
//! Invariants kept here: sequence numbers of an origin are given out and applied without gaps, each
//! once; readings of the clock only rise; the deps sent with an op cover everything applied before.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_conflict::clock::{Dot, Hlc, HlcClock, Origin, VersionVector, raise};
use meridian_conflict::op::{DepsDiff, Header};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::time::WallMs;

/// An op does not follow what was applied. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The op is not the next of its origin.
    #[error("op {sequence} of {origin} does not follow {applied}, the last one applied")]
    NotNext {
        /// The op's origin.
        origin: Origin,
        /// The op's sequence number.
        sequence: u64,
        /// What was applied of that origin.
        applied: u64,
    },
    /// A remote op carries this region's own current origin.
    #[error("op {sequence} of {origin} comes from outside, but that is this region's own origin")]
    OwnOrigin {
        /// This region's origin.
        origin: Origin,
        /// The op's sequence number.
        sequence: u64,
    },
}

/// A stored position does not decode. Nothing was recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Written by a version this one does not know.
    #[error("the position has format {0}, this program knows up to {POSITION_VERSION}")]
    UnknownVersion(u8),
    /// Empty, cut short or damaged.
    #[error("the position is malformed")]
    Malformed,
}

/// The format of an encoded [`Position`].
pub const POSITION_VERSION: u8 = 1;

/// The full deps of the last applied op of each origin, rebuilt from the diffs that travel.
///
/// Before an op is applied its own diff is merged in and its origin's own entry is its sequence
/// number less one: then this is exactly what the op's writer had applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts(BTreeMap<Origin, Arc<VersionVector>>);

impl Serialize for Contexts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(origin, context)| (origin, &**context)))
    }
}

impl<'de> Deserialize<'de> for Contexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let contexts: BTreeMap<Origin, VersionVector> = BTreeMap::deserialize(deserializer)?;
        Ok(Self(contexts.into_iter().map(|(origin, context)| (origin, Arc::new(context))).collect()))
    }
}

impl Contexts {
    /// Moves on to the op of `header`, the next of its origin, and returns its full deps. They are
    /// changed in place unless somebody still holds those of an op before.
    pub fn advance(&mut self, header: &Header) -> &Arc<VersionVector> {
        let shared = self.0.entry(header.dot.actor).or_default();
        let context = Arc::make_mut(shared);
        for (origin, sequence) in &header.deps {
            raise(context, *origin, *sequence);
        }
        raise(context, header.dot.actor, header.dot.counter.saturating_sub(1));
        shared
    }

    /// The full deps of the last op of `origin` that was advanced to.
    pub fn get(&self, origin: Origin) -> Option<&VersionVector> {
        self.0.get(&origin).map(|context| &**context)
    }
}

/// What a store keeps with the data it describes, in the same atomic write.
///
/// Encoded as [`POSITION_VERSION`] (one byte) and postcard of the fields in order: applied vector
/// and contexts as maps, the HLC as a varint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Everything the data includes. It may include later ops of rows already written.
    pub applied: VersionVector,
    /// Needed to go on rebuilding full deps.
    pub contexts: Contexts,
    /// The greatest reading given out or merged.
    pub hlc: Hlc,
}

impl Position {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![POSITION_VERSION];
        // Writing to a Vec cannot fail.
        let _ = postcard::to_io(self, &mut out);
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`PositionError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PositionError> {
        match bytes.split_first() {
            Some((&POSITION_VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|_| PositionError::Malformed)
            }
            Some((version, _)) => Err(PositionError::UnknownVersion(*version)),
            None => Err(PositionError::Malformed),
        }
    }
}

/// Names and stamps local ops, and records what is applied.
#[derive(Clone, Debug)]
pub struct Sequencer {
    origin: Origin,
    applied: VersionVector,
    contexts: Contexts,
    clock: HlcClock,
    /// Other origins that rose since the last local op: the next op's deps, without a scan.
    risen: SmallVec<[Origin; 8]>,
    /// Ops up to here may have been jumped over: the log does not have them.
    floor: VersionVector,
}

impl Sequencer {
    /// A sequencer for `origin` that continues after `position`. Follow with
    /// [`Sequencer::replay`] of the log from there.
    ///
    /// Under an `origin` that the position does not know (a new incarnation), the first op depends
    /// on everything.
    pub fn recover(origin: Origin, position: Position) -> Self {
        let Position { applied, contexts, hlc } = position;
        let clock = HlcClock::starting_after(hlc);
        let (risen, floor) = (SmallVec::new(), VersionVector::new());
        let mut recovered = Self { origin, applied, contexts, clock, risen, floor };
        recovered.find_risen();
        recovered
    }

    /// Who gives out the sequence numbers.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The last sequence number given out under the current origin.
    pub fn sequence(&self) -> u64 {
        self.applied.get(&self.origin)
    }

    /// Everything applied, local and remote.
    pub fn applied(&self) -> &VersionVector {
        &self.applied
    }

    /// The last reading given out or merged.
    pub fn hlc(&self) -> Hlc {
        self.clock.last()
    }

    /// The full deps of the last applied op of `origin`: what `Seen::Vector` takes for that op.
    pub fn context(&self, origin: Origin) -> Option<&VersionVector> {
        self.contexts.get(origin)
    }

    /// The header of a new local op at wall time `wall`, which counts as applied from here on.
    pub fn local(&mut self, wall: WallMs) -> Header {
        let last = self.applied.dots.entry(self.origin).or_insert(0);
        *last += 1;
        let dot = Dot::new(self.origin, *last);
        let mut deps = DepsDiff::new();
        for origin in self.risen.drain(..) {
            deps.push((origin, self.applied.get(&origin)));
        }
        let header = Header { dot, hlc: self.clock.tick(wall.0), deps };
        self.contexts.advance(&header);
        header
    }

    /// Records a remote op as applied, and merges its time. Returns its full deps.
    ///
    /// Whether the op's stamp is too far ahead was judged on arrival ([`crate::replica`]); here it
    /// is merged whatever the wall clock has done since, or a step back would strand the op.
    ///
    /// # Errors
    /// [`SequenceError`]; nothing changed.
    pub fn remote(&mut self, header: &Header) -> Result<&Arc<VersionVector>, SequenceError> {
        let Dot { actor: origin, counter: sequence } = header.dot;
        if origin == self.origin {
            return Err(SequenceError::OwnOrigin { origin, sequence });
        }
        self.follow(header)?;
        if !self.risen.contains(&origin) {
            self.risen.push(origin);
        }
        Ok(self.contexts.advance(header))
    }

    /// Records an op of the own log as applied while recovering, local or remote alike. Returns
    /// its full deps, or `None` when the position already included it.
    ///
    /// # Errors
    /// [`SequenceError::NotNext`] when the log has a hole; nothing changed.
    pub fn replay(&mut self, header: &Header) -> Result<Option<&VersionVector>, SequenceError> {
        let origin = header.dot.actor;
        if header.dot.counter <= self.applied.get(&origin) {
            self.merge_clock(header.hlc);
            return Ok(None);
        }
        self.follow(header)?;
        if origin == self.origin {
            // Its deps covered everything applied before it in the log.
            self.risen.clear();
        } else if !self.risen.contains(&origin) {
            self.risen.push(origin);
        }
        Ok(Some(&**self.contexts.advance(header)))
    }

    /// Takes over what another region had applied at `position`, whose state was merged into ours:
    /// counts those ops as applied without having seen them. The next local op depends on all of
    /// them. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`SequenceError::OwnOrigin`] when the position knows more of this region's current life than
    /// it does itself; nothing changed.
    pub fn adopt(&mut self, position: &Position) -> Result<(), SequenceError> {
        let known = position.applied.get(&self.origin);
        if known > self.sequence() {
            return Err(SequenceError::OwnOrigin { origin: self.origin, sequence: known });
        }
        for dot in position.applied.iter() {
            let (origin, sequence) = (*dot.actor, dot.counter);
            if sequence <= self.applied.get(&origin) {
                continue;
            }
            self.applied.dots.insert(origin, sequence);
            raise(&mut self.floor, origin, sequence);
            match position.contexts.0.get(&origin) {
                Some(context) => self.contexts.0.insert(origin, Arc::clone(context)),
                None => self.contexts.0.remove(&origin),
            };
            if !self.risen.contains(&origin) {
                self.risen.push(origin);
            }
        }
        self.merge_clock(position.hlc);
        Ok(())
    }

    /// What the log cannot serve, wherever it begins: a subscriber that lacks any of it would miss
    /// ops that [`Sequencer::adopt`] jumped over.
    pub fn floor(&self) -> &VersionVector {
        &self.floor
    }

    /// Raises the floor to one that was stored.
    pub fn raise_floor(&mut self, floor: &VersionVector) {
        floor.iter().for_each(|dot| raise(&mut self.floor, *dot.actor, dot.counter));
    }

    /// Everything that has to be stored with the data.
    pub fn position(&self) -> Position {
        Position { applied: self.applied.clone(), contexts: self.contexts.clone(), hlc: self.hlc() }
    }

    /// Goes on under a new incarnation. Sequence numbers start anew, and the next op depends on
    /// everything applied, the former origin's ops included.
    pub fn reincarnate(&mut self, origin: Origin) {
        self.origin = origin;
        self.find_risen();
    }

    /// Makes later readings greater than `hlc`, for instance a bound that was stored ahead of the
    /// readings given out.
    pub fn merge_clock(&mut self, hlc: Hlc) {
        self.clock = HlcClock::starting_after(self.clock.last().max(hlc));
    }

    fn follow(&mut self, header: &Header) -> Result<(), SequenceError> {
        let Dot { actor: origin, counter: sequence } = header.dot;
        let applied = self.applied.get(&origin);
        if Some(sequence) != applied.checked_add(1) {
            return Err(SequenceError::NotNext { origin, sequence, applied });
        }
        self.applied.dots.insert(origin, sequence);
        self.merge_clock(header.hlc);
        Ok(())
    }

    fn find_risen(&mut self) {
        let said = self.contexts.get(self.origin);
        self.risen = self
            .applied
            .iter()
            .filter(|dot| *dot.actor != self.origin)
            .filter(|dot| said.is_none_or(|said| said.get(dot.actor) < dot.counter))
            .map(|dot| *dot.actor)
            .collect();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::RegionId;

    use super::*;

    fn origin(region: u32) -> Origin {
        Origin::new(RegionId(region), 1)
    }

    fn fresh(region: u32) -> Sequencer {
        Sequencer::recover(origin(region), Position::default())
    }

    #[test]
    fn deps_are_the_rise_since_the_previous_op() {
        let (mut a, mut b) = (fresh(1), fresh(2));
        let first = a.local(WallMs(10));
        assert!(first.deps.is_empty());
        b.remote(&first).unwrap();
        let seen = b.local(WallMs(5));
        assert_eq!(seen.deps.as_slice(), [(origin(1), 1)]);
        assert!(seen.hlc > first.hlc);
        assert!(b.local(WallMs(5)).deps.is_empty());
        b.remote(&a.local(WallMs(11))).unwrap();
        b.remote(&a.local(WallMs(12))).unwrap();
        assert_eq!(b.local(WallMs(5)).deps.as_slice(), [(origin(1), 3)]);
    }

    #[test]
    fn the_context_is_what_the_writer_had_applied() {
        let (mut a, mut b, mut c) = (fresh(1), fresh(2), fresh(3));
        let a1 = a.local(WallMs(1));
        b.remote(&a1).unwrap();
        let (b1, b2) = (b.local(WallMs(1)), b.local(WallMs(1)));
        c.remote(&a1).unwrap();
        c.remote(&b1).unwrap();
        let context = c.remote(&b2).unwrap().clone();
        let expected: VersionVector = [Dot::new(origin(1), 1), Dot::new(origin(2), 1)].into_iter().collect();
        assert_eq!(*context, expected);
        assert_eq!(b.context(origin(2)), Some(&expected));
    }

    #[test]
    fn what_does_not_follow_is_refused_and_changes_nothing() {
        let (mut a, mut b) = (fresh(1), fresh(2));
        let (first, second) = (a.local(WallMs(1)), a.local(WallMs(1)));
        let before = b.position();
        assert!(matches!(b.remote(&second), Err(SequenceError::NotNext { applied: 0, .. })));
        assert!(matches!(a.remote(&first), Err(SequenceError::OwnOrigin { .. })));
        assert_eq!(b.position(), before);
    }

    #[test]
    fn recovery_from_any_position_and_the_log_ends_in_the_same_state() {
        let (mut a, mut b) = (fresh(1), fresh(2));
        let (mut log, mut positions) = (Vec::new(), vec![b.position()]);
        for round in 0..6 {
            let header = if round % 3 == 2 { b.local(WallMs(4)) } else { a.local(WallMs(9)) };
            if header.dot.actor != b.origin() {
                b.remote(&header).unwrap();
            }
            log.push(header);
            positions.push(b.position());
        }
        let next = b.clone().local(WallMs(0));
        for (at, position) in positions.into_iter().enumerate() {
            let stored = Position::decode(&position.encode()).unwrap();
            let mut recovered = Sequencer::recover(origin(2), stored);
            // Starting too early is harmless: what the position includes is stepped over.
            for header in &log[at.saturating_sub(2)..] {
                recovered.replay(header).unwrap();
            }
            assert_eq!(recovered.position(), b.position());
            assert_eq!(recovered.local(WallMs(0)), next);
        }
    }

    #[test]
    fn r1_a_new_incarnation_starts_at_one_and_depends_on_the_former_one() {
        let mut a = fresh(1);
        a.local(WallMs(1));
        a.local(WallMs(1));
        let last = a.hlc();
        let second_life = Origin::new(RegionId(1), 2);
        a.reincarnate(second_life);
        let header = a.local(WallMs(0));
        assert_eq!(header.dot, Dot::new(second_life, 1));
        assert_eq!(header.deps.as_slice(), [(origin(1), 2)]);
        assert!(header.hlc > last);
    }

    #[test]
    fn j1_what_is_adopted_counts_as_applied_and_the_next_op_depends_on_it() {
        let (mut a, mut b, mut c) = (fresh(1), fresh(2), fresh(3));
        let a1 = a.local(WallMs(50));
        b.remote(&a1).unwrap();
        let b1 = b.local(WallMs(1));
        c.local(WallMs(1));
        c.adopt(&b.position()).unwrap();
        let after = c.position();
        c.adopt(&b.position()).unwrap();
        assert_eq!(c.position(), after);
        assert_eq!(c.applied().get(&origin(2)), 1);
        assert_eq!(c.floor(), &[a1.dot, b1.dot].into_iter().collect());
        // What follows goes on from the adopted contexts.
        assert!(matches!(c.remote(&b1), Err(SequenceError::NotNext { .. })));
        let b2 = b.local(WallMs(1));
        assert!(b2.deps.is_empty());
        let deps = c.remote(&b2).unwrap();
        assert_eq!((deps.get(&origin(1)), deps.get(&origin(2))), (1, 1));
        let own = c.local(WallMs(1));
        assert_eq!(
            own.deps.iter().copied().collect::<BTreeMap<_, _>>(),
            [(origin(1), 1), (origin(2), 2)].into()
        );
        assert!(own.hlc > a1.hlc);
        // A restart before that op finds the same.
        let mut again = Sequencer::recover(Origin(0), after);
        again.reincarnate(origin(3));
        assert_eq!(again.local(WallMs(1)).deps.len(), 2);
    }

    #[test]
    fn j1_nobody_knows_more_of_a_life_than_itself() {
        let (mut a, mut b) = (fresh(1), fresh(2));
        b.remote(&a.local(WallMs(1))).unwrap();
        let mut wiped = fresh(1);
        let before = wiped.position();
        assert!(matches!(wiped.adopt(&b.position()), Err(SequenceError::OwnOrigin { sequence: 1, .. })));
        assert_eq!(wiped.position(), before);
    }

    #[test]
    fn a_position_of_another_version_is_refused() {
        assert_eq!(Position::decode(&[9, 0]), Err(PositionError::UnknownVersion(9)));
        assert_eq!(Position::decode(&[]), Err(PositionError::Malformed));
        assert_eq!(Position::decode(&[POSITION_VERSION, 0xff]), Err(PositionError::Malformed));
    }
}
