//! What travels: an op's header and its body of effects.
//!
//! The body is encoded once, at its origin, and copied as bytes through logs, links and stores of
//! every region; only applying decodes it. Effects borrow their keys and values from the body.
//!
//! # Encoding (version 1)
//!
//! | part | bytes |
//! |---|---|
//! | header | postcard of [`Header`]: origin `varint u64`, sequence `varint u64`, HLC `varint u64`, deps as count and pairs |
//! | body | per changed key: database `u8`, key (`varint` length, bytes), effect count `varint`, bytes of the effects `varint`, then postcard of each [`Effect`] |
//!
//! A [`Effect::Flush`] stands under an empty key.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::amount::Amount;
use crate::clock::{Dot, Hlc, Origin, Stamp};

/// What an op's writer had applied of another origin, as raised since the writer's previous op.
pub type DepsDiff = SmallVec<[(Origin, u64); 4]>;

/// Everything about an op but its effects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The op's name.
    pub dot: Dot,
    /// The op's time; with the dot it makes the stamp.
    pub hlc: Hlc,
    /// The rise of the writer's applied vector since its previous op, its own entry left out (that
    /// is always `dot.counter - 1`).
    #[serde(with = "deps_form")]
    pub deps: DepsDiff,
}

/// A diff travels as a plain sequence of pairs.
mod deps_form {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::DepsDiff;

    pub(super) fn serialize<S: Serializer>(deps: &DepsDiff, serializer: S) -> Result<S::Ok, S::Error> {
        deps.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DepsDiff, D::Error> {
        Ok(DepsDiff::from_vec(Vec::deserialize(deserializer)?))
    }
}

impl Header {
    /// The op's place in the total order.
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, dot: self.dot }
    }
}

/// An operation: the unit of atomicity, ordering, durability and acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op<B> {
    /// Who, when, after what.
    pub header: Header,
    /// The encoded effects; see [`changes`].
    pub body: B,
}

/// An element of a collection, or the whole string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Facet {
    /// String or counter.
    String = 0,
    /// Hash.
    Hash = 1,
    /// Set.
    Set = 2,
    /// Sorted set.
    SortedSet = 3,
}

impl Facet {
    /// Every facet, in the order of their numbers.
    pub const ALL: [Facet; 4] = [Facet::String, Facet::Hash, Facet::Set, Facet::SortedSet];

    /// The type's name as `TYPE` replies it.
    pub fn name(self) -> &'static str {
        match self {
            Facet::String => "string",
            Facet::Hash => "hash",
            Facet::Set => "set",
            Facet::SortedSet => "zset",
        }
    }
}

/// Where in its origin's stream a delta stands: sequence, then place within the op.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The op's sequence number.
    pub sequence: u64,
    /// Which delta of the op, in even numbers from 2 (0 stands before them all).
    pub index: u32,
}

/// How much of one origin's deltas an assignment or a clear had seen, and so swallows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenDelta {
    /// Whose deltas.
    pub origin: Origin,
    /// The last delta seen.
    pub position: Position,
    /// Their sum up to there.
    pub total: Amount,
}

/// The deltas that an assignment or a clear had seen. Empty for what was never incremented.
pub type Baseline = Vec<SeenDelta>;

/// One change to a key. All borrow from the op's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect<'a> {
    /// The string becomes `value`.
    Assign {
        /// The new value.
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
        /// The deltas it swallows.
        baseline: Baseline,
    },
    /// The string's counter: the origin's deltas now sum to `total`.
    Add {
        /// Sum of the origin's deltas on this string since `fresh`.
        total: Amount,
        /// The sum starts anew with this delta; older sums of the origin are forgotten.
        fresh: bool,
        /// Place within the op.
        index: u32,
    },
    /// Removes what was seen of the given facets, and of the deadline when `deadline` is set.
    Clear {
        /// Which facets, as bits `1 << Facet`.
        facets: u8,
        /// Whether the seen deadline goes as well.
        deadline: bool,
        /// Deltas swallowed, where there were any: facet, element (empty for the string).
        #[serde(borrow)]
        baselines: Vec<ElementBaseline<'a>>,
    },
    /// A hash field becomes `value`.
    FieldAssign {
        /// The field.
        #[serde(with = "serde_bytes")]
        field: &'a [u8],
        /// The new value.
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
        /// The deltas it swallows.
        baseline: Baseline,
    },
    /// A hash field's counter.
    FieldAdd {
        /// The field.
        #[serde(with = "serde_bytes")]
        field: &'a [u8],
        /// As in [`Effect::Add`].
        total: Amount,
        /// As in [`Effect::Add`].
        fresh: bool,
        /// As in [`Effect::Add`].
        index: u32,
    },
    /// Removes what was seen of a hash field.
    FieldRemove {
        /// The field.
        #[serde(with = "serde_bytes")]
        field: &'a [u8],
        /// The deltas it swallows.
        baseline: Baseline,
    },
    /// A set member is added, replacing the additions seen.
    MemberAdd {
        /// The member.
        #[serde(with = "serde_bytes")]
        member: &'a [u8],
    },
    /// Removes the additions seen of a set member.
    MemberRemove {
        /// The member.
        #[serde(with = "serde_bytes")]
        member: &'a [u8],
    },
    /// A sorted-set member gets a score.
    ScoreAssign {
        /// The member.
        #[serde(with = "serde_bytes")]
        member: &'a [u8],
        /// The score's IEEE 754 bits (never NaN).
        score: u64,
        /// The deltas it swallows.
        baseline: Baseline,
    },
    /// A sorted-set member's score is incremented.
    ScoreAdd {
        /// The member.
        #[serde(with = "serde_bytes")]
        member: &'a [u8],
        /// As in [`Effect::Add`].
        total: Amount,
        /// As in [`Effect::Add`].
        fresh: bool,
        /// As in [`Effect::Add`].
        index: u32,
    },
    /// Removes what was seen of a sorted-set member.
    ScoreRemove {
        /// The member.
        #[serde(with = "serde_bytes")]
        member: &'a [u8],
        /// The deltas it swallows.
        baseline: Baseline,
    },
    /// The key gets a deadline, replacing the ones seen.
    Deadline {
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The key loses its deadline, and beats concurrent deadlines.
    Persist,
    /// The deadlines seen go, without beating concurrent ones.
    ForgetDeadline,
    /// Removes what was seen of every key of the database.
    Flush {
        /// Deltas swallowed, where there were any.
        #[serde(borrow)]
        baselines: Vec<KeyBaseline<'a>>,
    },
    /// The op states the whole key: what it contributes besides is all of it. See [`crate::lww`].
    Whole,
}

/// The swallowed deltas of one element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ElementBaseline<'a> {
    /// Of which facet.
    pub facet: Facet,
    /// The field or member; empty for the string.
    #[serde(with = "serde_bytes")]
    pub element: &'a [u8],
    /// What is swallowed.
    pub baseline: Baseline,
}

/// The swallowed deltas of one element of one key, in a flush.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBaseline<'a> {
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: &'a [u8],
    /// Its element.
    #[serde(borrow)]
    pub element: ElementBaseline<'a>,
}

/// All effects of an op on one key.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The database, 0 to 15.
    pub database: u8,
    /// The key; empty and meaningless for [`Effect::Flush`].
    pub key: &'a [u8],
    /// How many effects follow.
    pub count: u32,
    rest: &'a [u8],
}

/// A body does not decode. Nothing was applied; the op is to be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the op's body is malformed")]
pub struct MalformedBody;

/// The highest database number.
pub const MAX_DATABASE: u8 = 15;

/// Walks the changed keys of a body. Each item's effects are read with [`Change::effects`].
pub fn changes(body: &[u8]) -> Changes<'_> {
    Changes { rest: body }
}

/// Iterator over the changes of a body.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    rest: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct ChangeHead<'a> {
    database: u8,
    #[serde(with = "serde_bytes")]
    key: &'a [u8],
    count: u32,
    /// Bytes of the effects that follow, so that a reader can step over them.
    length: u32,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<Change<'a>, MalformedBody>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = postcard::take_from_bytes::<ChangeHead<'a>>(self.rest).ok().and_then(|(head, rest)| {
            let (effects, rest) = rest.split_at_checked(usize::try_from(head.length).ok()?)?;
            (head.database <= MAX_DATABASE).then_some((head, effects, rest))
        });
        let Some((head, effects, rest)) = parsed else {
            self.rest = &[];
            return Some(Err(MalformedBody));
        };
        self.rest = rest;
        Some(Ok(Change { database: head.database, key: head.key, count: head.count, rest: effects }))
    }
}

impl<'a> Change<'a> {
    /// The effects, in order.
    pub fn effects(&self) -> Effects<'a> {
        Effects { left: self.count, rest: self.rest }
    }
}

/// Iterator over the effects on one key.
#[derive(Clone, Debug)]
pub struct Effects<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, MalformedBody>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return if self.rest.is_empty() {
                None
            } else {
                self.rest = &[];
                Some(Err(MalformedBody))
            };
        }
        match postcard::take_from_bytes::<Effect<'a>>(self.rest) {
            Ok((effect, rest)) if effect.is_well_formed() => {
                self.left -= 1;
                self.rest = rest;
                Some(Ok(effect))
            }
            _ => {
                self.left = 0;
                self.rest = &[];
                Some(Err(MalformedBody))
            }
        }
    }
}

impl Effect<'_> {
    fn is_well_formed(&self) -> bool {
        match self {
            Effect::ScoreAssign { score, .. } => !f64::from_bits(*score).is_nan(),
            _ => true,
        }
    }
}

/// Checks that every change and effect of a body decodes.
///
/// # Errors
/// [`MalformedBody`] at the first that does not.
pub fn validate(body: &[u8]) -> Result<(), MalformedBody> {
    for change in changes(body) {
        for effect in change?.effects() {
            effect?;
        }
    }
    Ok(())
}

/// Collects the effects of one op. Reusable: [`BodyBuilder::clear`] keeps the memory.
#[derive(Clone, Debug, Default)]
pub struct BodyBuilder {
    body: Vec<u8>,
    /// Effects of the key that is open.
    effects: Vec<u8>,
    count: u32,
    next_delta: u32,
}

impl BodyBuilder {
    /// Forgets everything collected.
    pub fn clear(&mut self) {
        self.body.clear();
        self.effects.clear();
        self.count = 0;
        self.next_delta = 0;
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.count == 0
    }

    /// Whether the key that is open has effects.
    pub fn has_open_effects(&self) -> bool {
        self.count > 0
    }

    /// The effects of the key that is open.
    pub fn open_effects(&self) -> Effects<'_> {
        Effects { left: self.count, rest: &self.effects }
    }

    /// Forgets the effects of the key that is open.
    pub fn drop_open_effects(&mut self) {
        self.effects.clear();
        self.count = 0;
    }

    /// Adds an effect to the key that is open.
    pub fn push(&mut self, effect: &Effect<'_>) {
        // Writing into a Vec cannot fail: postcard's only other error is a length it cannot know,
        // which no effect has.
        if postcard::to_io(effect, &mut self.effects).is_ok() {
            self.count += 1;
        }
    }

    /// A new number for a delta of this op. Even, so that between two deltas there is a place for
    /// the start of a sum that begins anew after a clear in the same op.
    pub fn next_delta(&mut self) -> u32 {
        self.next_delta += 2;
        self.next_delta
    }

    /// Ends the open key: its effects join the body under `database` and `key`. Does nothing when
    /// none were pushed. Returns the range of the change within the body.
    pub fn finish_key(&mut self, database: u8, key: &[u8]) -> std::ops::Range<usize> {
        let start = self.body.len();
        if self.count > 0 {
            let length = u32::try_from(self.effects.len()).unwrap_or(u32::MAX);
            let head = ChangeHead { database, key, count: self.count, length };
            if postcard::to_io(&head, &mut self.body).is_ok() {
                self.body.extend_from_slice(&self.effects);
            }
            self.effects.clear();
            self.count = 0;
        }
        start..self.body.len()
    }

    /// Forgets the changes finished since the body had `length` bytes, and the key that is open.
    pub fn truncate(&mut self, length: usize) {
        self.body.truncate(length);
        self.effects.clear();
        self.count = 0;
    }

    /// The encoded body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}
