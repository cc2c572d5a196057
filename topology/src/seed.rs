//! Taking over another region's state: the forms of what travels and of what stays in the log.
//!
//! A *donor* sends its stored rows in the order of [`Cursor`], all of them at least as new as a
//! [`Position`] it names first; the *receiver* merges them, adopts the position and takes the ops
//! since from the donor's log. Rows may be newer than the position, each by itself: applying those
//! ops again over them is harmless.
//!
//! What the donor sends is one stream of [`Record`]s behind a version byte, each as length (4 bytes,
//! little endian) and postcard. Frames cut it wherever they like.

use meridian_conflict::clock::VersionVector;
use serde::{Deserialize, Serialize};

use crate::sequence::Position;

/// The version of a request and of a donor's stream.
pub const SEED_VERSION: u8 = 1;

/// The version of [`Seeded`] in the log.
pub const SEEDED_VERSION: u8 = 1;

/// Slices of all hashes, by their first four bits.
pub const RANGES: u8 = 16;

/// Where in the donor's rows everything before has been sent: they go by range, then database, then hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Which range of hashes, [`RANGES`] at the end.
    pub range: u8,
    /// The database.
    pub database: u8,
    /// The first hash not yet sent.
    pub hash: u64,
}

/// Keys of one database in a row, by their hash: from the first to before the second, `None` for all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The database.
    pub database: u8,
    /// The first hash.
    pub from: u64,
    /// The first hash behind it.
    pub to: Option<u64>,
}

impl Cursor {
    /// Everything has been sent.
    pub const END: Self = Self { range: RANGES, database: 0, hash: 0 };

    /// The beginning of a range in a database, or of what follows.
    pub fn at(range: u8, database: u8, databases: u8) -> Self {
        let (range, database) = if database >= databases { (range + 1, 0) } else { (range, database) };
        Self { range, database, hash: Self::first_hash(range).unwrap_or(0) }
    }

    /// A range's first hash; `None` past the last one.
    pub fn first_hash(range: u8) -> Option<u64> {
        (range < RANGES).then(|| u64::from(range) << 60)
    }

    /// What is left of this cursor's range in its database.
    pub fn rest(&self) -> Interval {
        Interval { database: self.database, from: self.hash, to: Self::first_hash(self.range + 1) }
    }

    /// The intervals from this cursor up to `to`, of `databases` databases.
    pub fn until(&self, to: Cursor, databases: u8) -> Vec<Interval> {
        let (mut at, mut intervals) = (*self, Vec::new());
        while at < to && at.range < RANGES {
            let mut interval = at.rest();
            if (at.range, at.database) == (to.range, to.database) {
                interval.to = Some(to.hash);
                intervals.push(interval);
                break;
            }
            intervals.push(interval);
            at = Self::at(at.range, at.database.saturating_add(1), databases);
        }
        intervals
    }

    /// Whether it is a place in `databases` databases.
    fn is_valid(&self) -> bool {
        *self == Self::END || Self::first_hash(self.range).is_some_and(|first| self.hash >= first)
    }
}

/// Why bytes are no record of this program's. Nothing of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedFormatError {
    /// Written by a version this one does not know.
    #[error("a seed of version {0}, this program knows up to {SEED_VERSION}")]
    UnknownVersion(u8),
    /// Damaged, or not one at all.
    #[error("a seed's record is malformed")]
    Malformed,
    /// Longer than any record can be.
    #[error("a seed's record of {0} bytes is longer than any can be")]
    TooLong(usize),
}

/// What the log keeps of a takeover, between the ops before and after it.
///
/// No op starts with its first byte, because that would be origin zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// What was adopted.
    pub position: Position,
}

impl Seeded {
    /// The first byte, which no op's header has.
    const TAG: u8 = 0;

    /// Whether a record of the log is one.
    pub fn is_one(record: &[u8]) -> bool {
        record.first() == Some(&Self::TAG)
    }

    /// The record's bytes.
    pub fn encode(position: &Position) -> Vec<u8> {
        let mut out = vec![Self::TAG, SEEDED_VERSION];
        out.extend_from_slice(&position.encode());
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`SeedFormatError`].
    pub fn decode(record: &[u8]) -> Result<Self, SeedFormatError> {
        match record {
            [Self::TAG, SEEDED_VERSION, position @ ..] => Position::decode(position)
                .map(|position| Self { position })
                .map_err(|_| SeedFormatError::Malformed),
            [Self::TAG, version, ..] => Err(SeedFormatError::UnknownVersion(*version)),
            _ => Err(SeedFormatError::Malformed),
        }
    }
}

/// What a receiver asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What an earlier donor's position included, and how far its rows came; `None` to begin anew.
    pub resume: Option<(VersionVector, Cursor)>,
}

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SEED_VERSION];
        // Writing to a Vec cannot fail.
        let _ = postcard::to_io(self, &mut out);
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`SeedFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SeedFormatError> {
        let request: Self = match bytes.split_first() {
            Some((&SEED_VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|_| SeedFormatError::Malformed)?
            }
            Some((version, _)) => return Err(SeedFormatError::UnknownVersion(*version)),
            None => return Err(SeedFormatError::Malformed),
        };
        match &request.resume {
            Some((_, cursor)) if !cursor.is_valid() => Err(SeedFormatError::Malformed),
            _ => Ok(request),
        }
    }
}

/// Why a donor gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SeedRefusal {
    /// It is taking over somebody's state itself.
    #[error("it is loading itself")]
    Loading,
    /// It cannot go on from where the receiver stands: begin anew.
    #[error("it cannot go on from there")]
    StartOver,
    /// It is about to stop.
    #[error("it is shutting down")]
    Draining,
    /// Its store fails.
    #[error("its store fails")]
    Store,
}

/// One record of a donor's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// First: what all rows include.
    Head {
        /// An encoded [`Position`]; empty if the receiver goes on with the one it has.
        #[serde(with = "serde_bytes")]
        position: &'a [u8],
        /// Where the rows begin.
        from: Cursor,
        /// About how many keys the donor has, for showing progress.
        keys: u64,
    },
    /// A key and its head record; its elements follow.
    Object {
        /// The database.
        database: u8,
        /// The key.
        #[serde(with = "serde_bytes")]
        key: &'a [u8],
        /// The head record.
        #[serde(with = "serde_bytes")]
        head: &'a [u8],
    },
    /// An element of the object before.
    Element {
        /// Of which facet, by number.
        facet: u8,
        /// Its name.
        #[serde(with = "serde_bytes")]
        element: &'a [u8],
        /// Its record.
        #[serde(with = "serde_bytes")]
        record: &'a [u8],
    },
    /// No row that follows, up to the next of these, includes more than this.
    Ahead {
        /// What was durable at the donor after the rows were read.
        applied: VersionVector,
    },
    /// Every key before this has been sent. Those that were not do not exist at the donor.
    Passed {
        /// Up to where.
        cursor: Cursor,
    },
    /// Last: there are no more rows.
    End,
    /// Instead of anything else: nothing comes.
    Refused {
        /// Why.
        reason: SeedRefusal,
    },
}

/// Bytes of the length before a record.
const LENGTH_BYTES: usize = 4;

impl Record<'_> {
    /// Appends the record and its length.
    ///
    /// # Errors
    /// [`SeedFormatError::TooLong`]; nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), SeedFormatError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        // Writing to a Vec cannot fail.
        let _ = postcard::to_io(self, &mut *out);
        let length = out.len() - start - LENGTH_BYTES;
        let Ok(short) = u32::try_from(length) else {
            out.truncate(start);
            return Err(SeedFormatError::TooLong(length));
        };
        if let Some(at) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut()) {
            *at = short.to_le_bytes();
        }
        Ok(())
    }
}

/// Puts a donor's records together again. Holds what has arrived of the record at hand, and allocates for
/// nothing that was only announced.
#[derive(Clone, Debug)]
pub struct Assembler {
    bytes: Vec<u8>,
    /// Up to here it was read.
    read: usize,
    greeted: bool,
    limit: usize,
}

impl Assembler {
    /// For records of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), read: 0, greeted: false, limit }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next record, `None` until more has arrived. A `Passed` or `Head` has a cursor that can be.
    ///
    /// # Errors
    /// [`SeedFormatError`]: nothing more can be read.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, SeedFormatError> {
        if !self.greeted {
            match self.bytes.first() {
                None => return Ok(None),
                Some(&SEED_VERSION) => (self.greeted, self.read) = (true, 1),
                Some(version) => return Err(SeedFormatError::UnknownVersion(*version)),
            }
        }
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(SeedFormatError::TooLong(length));
        }
        let Some(record) = rest.get(..length) else { return Ok(None) };
        self.read += LENGTH_BYTES + length;
        match postcard::take_from_bytes(record) {
            Ok((Record::Passed { cursor } | Record::Head { from: cursor, .. }, _)) if !cursor.is_valid() => {
                Err(SeedFormatError::Malformed)
            }
            Ok((record, [])) => Ok(Some(record)),
            _ => Err(SeedFormatError::Malformed),
        }
    }

    /// Whether a record has arrived in part.
    pub fn is_between_records(&self) -> bool {
        self.read == self.bytes.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn intervals_cover_every_place_once_and_in_order() {
        let all = Cursor::default().until(Cursor::END, 3);
        assert_eq!(all.len(), 48);
        assert_eq!(all[0], Interval { database: 0, from: 0, to: Some(1 << 60) });
        assert_eq!(all[47], Interval { database: 2, from: 15 << 60, to: None });
        let middle = Cursor { range: 7, database: 1, hash: (7 << 60) + 5 };
        let (before, after) = (Cursor::default().until(middle, 3), middle.until(Cursor::END, 3));
        assert_eq!(before.len() + after.len(), 49);
        assert_eq!(before.last().unwrap().to, Some(middle.hash));
        assert_eq!(after[0].from, middle.hash);
        assert!(middle.until(middle, 3).is_empty());
    }

    #[test]
    fn records_come_back_however_they_are_cut() {
        let record = Record::Object { database: 3, key: b"key", head: &[7; 300] };
        let mut bytes = vec![SEED_VERSION];
        record.encode(&mut bytes).unwrap();
        record.encode(&mut bytes).unwrap();
        for cut in 1..bytes.len() {
            let mut assembler = Assembler::new(1_000);
            let mut found = 0;
            for part in bytes.chunks(cut) {
                assembler.push(part);
                while let Some(next) = assembler.next_record().unwrap() {
                    assert_eq!(next, record);
                    found += 1;
                }
            }
            assert_eq!(found, 2);
            assert!(assembler.is_between_records());
        }
    }

    #[test]
    fn what_is_only_announced_is_refused_or_waited_for() {
        let mut assembler = Assembler::new(1_000);
        assembler.push(&[SEED_VERSION, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(assembler.next_record(), Err(SeedFormatError::TooLong(_))));
        let mut assembler = Assembler::new(1_000);
        assembler.push(&[SEED_VERSION, 0xe7, 3, 0, 0, 1]);
        assert_eq!(assembler.next_record(), Ok(None));
        assert!(assembler.bytes.capacity() < 100);
        assembler.push(&[9]);
        assert_eq!(Assembler::new(9).next_record(), Ok(None));
    }
}
