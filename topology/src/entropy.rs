//! Anti-entropy: neighbours compare what they show, range by range, and mend what differs.
//!
//! One side asks, the other answers; both do both. Ranges first ([`Ask::Ranges`]), then the keys of
//! those that differ ([`Ask::Keys`]). What differs then is only suspect: mostly it was written just
//! now. A suspect is settled by [`Ask::Settle`], under the rule of
//! [`meridian_conflict::repair::verdict`], and a divergent key mended with [`Ask::Object`].
//!
//! A stream carries one question and its answers, each a frame: tag (1 byte), version (1 byte),
//! postcard.

use meridian_conflict::clock::VersionVector;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::time::MonoMs;

/// The first byte of every message. No request for a takeover starts with it.
pub const ENTROPY_TAG: u8 = 0xe5;

/// The version of the messages.
pub const ENTROPY_VERSION: u8 = 1;

/// A place among all keys: by database, then hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The database; the number of databases at the end.
    pub database: u8,
    /// The first hash that was not compared yet.
    pub hash: u64,
}

impl Place {
    /// Behind the last key of a database.
    pub fn behind(database: u8) -> Self {
        Self { database: database.saturating_add(1), hash: 0 }
    }

    /// Where an interval that begins here and ends at `until` ends within this place's database:
    /// `Some(None)` at its end. `None` if there is no such interval.
    pub fn to(self, until: Place) -> Option<Option<u64>> {
        if until == Self::behind(self.database) {
            return Some(None);
        }
        (until.database == self.database && until.hash > self.hash).then_some(Some(until.hash))
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Digests of the ranges from here on, as many as the other side likes.
    Ranges {
        /// Where they begin.
        from: Place,
        /// The time at which keys expire or not.
        now_ms: u64,
    },
    /// The keys of a range, and their digests.
    Keys {
        /// Where it begins.
        from: Place,
        /// The first hash behind it; `None` at the end of the database.
        to: Option<u64>,
        /// The time at which keys expire or not.
        now_ms: u64,
    },
    /// Digests of these keys, once the other side has applied so much.
    Settle {
        /// What is applied here.
        applied: VersionVector,
        /// The time at which keys expire or not.
        now_ms: u64,
        /// Their database.
        database: u8,
        /// The keys.
        keys: Vec<ByteBuf>,
    },
    /// The state of one key, once the other side has applied so much.
    Object {
        /// What is applied here.
        applied: VersionVector,
        /// Its database.
        database: u8,
        /// The key.
        key: ByteBuf,
    },
    /// These keys have diverged, look for yourself.
    Look {
        /// Their database.
        database: u8,
        /// The keys.
        keys: Vec<ByteBuf>,
    },
}

/// A range and its digest. It begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it ends: in the database in which it begins, or behind that.
    pub until: Place,
    /// Its keys.
    pub keys: u32,
    /// The wrapping sum of their digests.
    pub digest: u128,
}

/// A key of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: ByteBuf,
    /// The low half of its digest.
    pub digest: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EntropyRefusal {
    /// It is taking over somebody's state.
    #[error("it is loading")]
    Loading,
    /// It has not applied all that it was asked about, and did not within the time for it.
    #[error("it is behind")]
    Behind,
    /// Its store fails.
    #[error("its store fails")]
    Store,
}

/// An answer, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Ranges`], in order. Never empty.
    Ranges(Vec<Range>),
    /// To [`Ask::Keys`], in order of hash.
    Keys {
        /// What stands in the range, up to `next`.
        keys: Vec<Listed>,
        /// The first hash that is not in the answer; `None` when all is.
        next: Option<u64>,
    },
    /// To [`Ask::Settle`].
    Settled {
        /// What was applied, since the digests were taken and before any of the keys changed again.
        applied: VersionVector,
        /// One for each key; `None` where it was being changed.
        digests: Vec<Option<u128>>,
    },
    /// To [`Ask::Object`]: pieces of [`crate::seed::Record`]s, cut anywhere, behind their version.
    Rows(#[serde(with = "serde_bytes")] Vec<u8>),
    /// After the last of them.
    End {
        /// What was applied, as in [`Answer::Settled`]; `None` if the key was being changed.
        applied: Option<VersionVector>,
    },
    /// To [`Ask::Look`].
    Noted,
    /// To anything.
    Refused(EntropyRefusal),
}

/// Why bytes are no message of this program's. Nothing of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntropyFormatError {
    /// Written by a version this one does not know.
    #[error("a comparison of version {0}, this program knows up to {ENTROPY_VERSION}")]
    UnknownVersion(u8),
    /// Damaged, or not one at all.
    #[error("a message of a comparison is malformed")]
    Malformed,
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut out = vec![ENTROPY_TAG, ENTROPY_VERSION];
    // Writing to a Vec cannot fail.
    let _ = postcard::to_io(message, &mut out);
    out
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EntropyFormatError> {
    match bytes {
        [ENTROPY_TAG, ENTROPY_VERSION, message @ ..] => match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(message),
            _ => Err(EntropyFormatError::Malformed),
        },
        [ENTROPY_TAG, version, ..] => Err(EntropyFormatError::UnknownVersion(*version)),
        _ => Err(EntropyFormatError::Malformed),
    }
}

impl Ask {
    /// Whether a stream's first frame is a question of this kind at all.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&ENTROPY_TAG)
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`EntropyFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntropyFormatError> {
        decode(bytes)
    }
}

impl Answer {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`EntropyFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntropyFormatError> {
        decode(bytes)
    }
}

/// How fast to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Not at all for now.
    Rest,
    /// Slowly: nothing was written since everything was found equal.
    Slow,
    /// As fast as allowed.
    Full,
}

/// Rounds over all keys with one peer: where the present one is, and when the next one is due.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    place: Place,
    /// What was applied when the round began; `None` between rounds.
    begun: Option<VersionVector>,
    /// When the last round ended, and what had been applied when it began.
    ended: Option<(MonoMs, VersionVector)>,
    /// Whether the present round has found nothing that could not be told equal.
    is_clean: bool,
    rounds: u64,
}

impl Rounds {
    /// Where the round is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Rounds that ended.
    pub fn ended(&self) -> u64 {
        self.rounds
    }

    /// When the last round ended.
    pub fn last(&self) -> Option<MonoMs> {
        self.ended.as_ref().map(|(at, _)| *at)
    }

    /// How fast to go on, with so much applied here. A round begins `least_ms` after the last one at the
    /// earliest; one that nothing was written for, `every_ms` after it.
    pub fn pace(&self, now: MonoMs, applied: &VersionVector, least_ms: u64, every_ms: u64) -> Pace {
        let Some((at, before)) = &self.ended else { return Pace::Full };
        let is_idle = before == self.begun.as_ref().unwrap_or(applied);
        let wait_ms = if is_idle { every_ms.max(least_ms) } else { least_ms };
        if self.begun.is_none() && now.since(*at) < wait_ms {
            return Pace::Rest;
        }
        if is_idle { Pace::Slow } else { Pace::Full }
    }

    /// The round, or a new one, has come to `place`; `is_clean` says whether everything up to there was
    /// equal. Returns whether that was its end.
    pub fn advance(
        &mut self,
        now: MonoMs,
        place: Place,
        databases: u8,
        is_clean: bool,
        applied: &VersionVector,
    ) -> bool {
        if self.begun.is_none() {
            (self.begun, self.is_clean) = (Some(applied.clone()), true);
        }
        self.is_clean &= is_clean;
        self.place = place;
        if place.database < databases {
            return false;
        }
        self.place = Place::default();
        self.rounds += 1;
        let begun = self.begun.take().unwrap_or_default();
        // After a round that left something open the next one does not count as idle.
        self.ended = Some((now, if self.is_clean { begun } else { VersionVector::new() }));
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Dot, Origin};

    use super::*;

    #[test]
    fn intervals_end_in_their_database() {
        let at = |database, hash| Place { database, hash };
        assert_eq!(at(3, 7).to(at(3, 9)), Some(Some(9)));
        assert_eq!(at(3, 7).to(at(4, 0)), Some(None));
        for other in [at(3, 7), at(3, 0), at(2, 9), at(4, 1), at(5, 0)] {
            assert_eq!(at(3, 7).to(other), None, "{other:?}");
        }
    }

    #[test]
    fn rounds_rest_while_nothing_is_written_and_not_while_something_is_open() {
        let applied = |n| -> VersionVector { [Dot::new(Origin(9), n)].into_iter().collect() };
        let (least, every) = (10, 1_000);
        let end = Place { database: 2, hash: 0 };
        let mut rounds = Rounds::default();
        let pace = |rounds: &Rounds, now, n| rounds.pace(MonoMs(now), &applied(n), least, every);
        assert_eq!(pace(&rounds, 0, 1), Pace::Full);
        assert!(!rounds.advance(MonoMs(1), Place { database: 0, hash: 5 }, 2, true, &applied(1)));
        assert_eq!(rounds.place(), Place { database: 0, hash: 5 });
        // Written meanwhile.
        assert!(rounds.advance(MonoMs(2), end, 2, true, &applied(2)));
        assert_eq!(rounds.place(), Place::default());
        assert_eq!((pace(&rounds, 5, 2), pace(&rounds, 12, 2)), (Pace::Rest, Pace::Full));
        assert!(rounds.advance(MonoMs(13), end, 2, true, &applied(2)));
        // Nothing new: slowly, and much later.
        assert_eq!((pace(&rounds, 500, 2), pace(&rounds, 1_013, 2)), (Pace::Rest, Pace::Slow));
        assert_eq!(pace(&rounds, 500, 3), Pace::Full);
        assert!(!rounds.advance(MonoMs(1_014), Place { database: 1, hash: 0 }, 2, false, &applied(2)));
        assert_eq!(pace(&rounds, 1_015, 2), Pace::Slow);
        assert!(rounds.advance(MonoMs(1_016), end, 2, true, &applied(2)));
        assert_eq!(pace(&rounds, 1_030, 2), Pace::Full, "something was open");
        assert_eq!(rounds.ended(), 3);
    }
}
