//! Origins, dots, version vectors, the hybrid logical clock and stamps.
//!
//! The clock follows Kulkarni et al., "Logical Physical Clocks" (2014), packed into one `u64`. We
//! depart from it in one point: a remote stamp further ahead than the allowed skew is refused
//! instead of merged, so that one broken clock cannot drag a cluster into the future.

use std::fmt;

use crdts::VClock;
use serde::{Deserialize, Serialize};

/// A region's number: the low half of xxh3 over its name, the same in every region without any
/// agreement. Configuration refuses two names with one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionId(pub u32);

impl RegionId {
    /// The number of the region called `name`.
    pub fn of(name: &str) -> Self {
        Self((xxhash_rust::xxh3::xxh3_64(name.as_bytes()) & u64::from(u32::MAX)) as u32)
    }
}

/// Who gives out sequence numbers: one life of one region. High half [`RegionId`], low half the
/// incarnation. A region whose log cannot be trusted takes a new incarnation, so a sequence
/// number is never used for two different ops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin(pub u64);

impl Origin {
    /// The origin for `region` in its life `incarnation`.
    pub fn new(region: RegionId, incarnation: u32) -> Self {
        Self((u64::from(region.0) << 32) | u64::from(incarnation))
    }

    /// The region this origin belongs to.
    pub fn region(self) -> RegionId {
        RegionId((self.0 >> 32) as u32)
    }

    /// Which life of the region.
    pub fn incarnation(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{:08x}", self.region().0, self.incarnation())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One op's name: its origin (`actor`) and its sequence number there (`counter`, from 1, no gaps).
pub type Dot = crdts::Dot<Origin>;

/// Per origin, the highest sequence number such that it and all before it are included.
pub type VersionVector = VClock<Origin>;

/// How two version vectors relate. Never expressed by an ordering operator, because "not less"
/// does not mean "greater or equal" here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causality {
    /// The same ops.
    Equal,
    /// The first lacks something of the second.
    Before,
    /// The second lacks something of the first.
    After,
    /// Each lacks something of the other.
    Concurrent,
}

/// Compares two version vectors.
pub fn compare(a: &VersionVector, b: &VersionVector) -> Causality {
    match (covers_all(a, b), covers_all(b, a)) {
        (true, true) => Causality::Equal,
        (true, false) => Causality::After,
        (false, true) => Causality::Before,
        (false, false) => Causality::Concurrent,
    }
}

/// Whether `a` includes everything in `b`.
pub fn covers_all(a: &VersionVector, b: &VersionVector) -> bool {
    b.iter().all(|dot| a.get(dot.actor) >= dot.counter)
}

/// Whether `vector` includes `dot`.
pub fn covers(vector: &VersionVector, dot: &Dot) -> bool {
    vector.get(&dot.actor) >= dot.counter
}

/// Raises `vector` to include `sequence` of `origin`; never lowers it.
pub fn raise(vector: &mut VersionVector, origin: Origin, sequence: u64) {
    use crdts::CmRDT;
    if sequence > 0 {
        vector.apply(Dot::new(origin, sequence));
    }
}

/// Hybrid logical clock reading: 48 bits of Unix milliseconds, 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first reading of millisecond `ms`.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// The millisecond part.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter part.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// An op's place in the total order that decides between values: HLC, then origin, then sequence.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When, by the writer's hybrid clock.
    pub hlc: Hlc,
    /// Which op.
    pub dot: Dot,
}

impl Stamp {
    fn key(&self) -> (Hlc, Origin, u64) {
        (self.hlc, self.dot.actor, self.dot.counter)
    }
}

impl PartialOrd for Stamp {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stamp {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}@{}:{}", self.hlc.ms(), self.hlc.counter(), self.dot.actor, self.dot.counter)
    }
}

/// A remote reading is further ahead of the local wall clock than allowed. Nothing was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stamp is {ahead_ms} ms ahead of this region's clock, more than the allowed {max_skew_ms} ms")]
pub struct Skew {
    /// How far ahead, in milliseconds.
    pub ahead_ms: u64,
    /// The bound it broke, in milliseconds.
    pub max_skew_ms: u64,
}

/// The local hybrid logical clock. Readings only rise, whatever the wall clock does.
#[derive(Clone, Copy, Debug, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that continues after `last` (persisted before a restart).
    pub fn starting_after(last: Hlc) -> Self {
        Self { last }
    }

    /// The last reading given out or merged.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A new reading at wall time `wall_ms`, greater than every one before. A full counter carries
    /// into the milliseconds.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        let wall = Hlc::from_ms(wall_ms);
        self.last = if wall > self.last { wall } else { Hlc(self.last.0 + 1) };
        self.last
    }

    /// Merges a remote reading, so that later local readings are greater.
    ///
    /// # Errors
    /// [`Skew`] when `remote` is more than `max_skew_ms` ahead of `wall_ms`; nothing is merged.
    pub fn observe(&mut self, remote: Hlc, wall_ms: u64, max_skew_ms: u64) -> Result<(), Skew> {
        let ahead_ms = remote.ms().saturating_sub(wall_ms);
        if ahead_ms > max_skew_ms {
            return Err(Skew { ahead_ms, max_skew_ms });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

/// What the writer of an op had seen when it wrote: the test behind "seen is replaced, unseen
/// survives".
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Everything in the object: a local write, made under the key's lock.
    All,
    /// What a version vector covers, and the op's own earlier effects.
    Vector {
        /// The op's full deps.
        deps: &'a VersionVector,
        /// The op itself.
        dot: Dot,
    },
}

impl Seen<'_> {
    /// Whether the writer had seen `dot`.
    pub fn covers(&self, dot: &Dot) -> bool {
        match self {
            Seen::All => true,
            Seen::Vector { deps, dot: own } => own == dot || covers(deps, dot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_rise_when_the_wall_clock_steps_back() {
        let mut clock = HlcClock::default();
        let first = clock.tick(5_000);
        let second = clock.tick(1_000);
        assert!(second > first);
        assert_eq!(second.ms(), 5_000);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HlcClock::starting_after(Hlc((7 << 16) | 0xffff));
        let next = clock.tick(7);
        assert_eq!((next.ms(), next.counter()), (8, 0));
    }

    #[test]
    fn k2_a_far_future_stamp_is_refused_and_drags_nothing() {
        let mut clock = HlcClock::default();
        clock.tick(1_000);
        let before = clock.last();
        let ten_years = Hlc::from_ms(1_000 + 315_000_000_000);
        assert!(clock.observe(ten_years, 1_000, 500).is_err());
        assert_eq!(clock.last(), before);
        assert!(clock.observe(Hlc::from_ms(1_400), 1_000, 500).is_ok());
        assert!(clock.tick(1_000) > Hlc::from_ms(1_400));
    }

    #[test]
    fn vectors_compare_as_causality() {
        let (a, b) = (Origin(1), Origin(2));
        let one: VersionVector = [Dot::new(a, 3)].into_iter().collect();
        let two: VersionVector = [Dot::new(a, 3), Dot::new(b, 1)].into_iter().collect();
        let three: VersionVector = [Dot::new(b, 9)].into_iter().collect();
        assert_eq!(compare(&one, &one.clone()), Causality::Equal);
        assert_eq!(compare(&one, &two), Causality::Before);
        assert_eq!(compare(&two, &one), Causality::After);
        assert_eq!(compare(&one, &three), Causality::Concurrent);
    }
}
