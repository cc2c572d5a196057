//! What regions ask each other about homes, each question on a stream of its own.
//!
//! | from | frame | content |
//! |---|---|---|
//! | asker | head | tag, version, [`Head`]: to whom, by whom it came so far, how long there is, how long the question is |
//! | asker | question | [`Ask`] |
//! | answerer | answer | tag, version, [`Answer`] |
//! | answerer | pieces | after [`Answer::Ran`]: the reply's bytes, in frames |
//!
//! A region that is asked for another passes all frames on, with itself in the head, and the answer back. Everything is
//! postcard behind tag and version.

use meridian_conflict::clock::{Dot, RegionId, VersionVector};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Appointment, Ballot, Kept, Verdict};

/// The first byte of every message. No comparison and no request for a takeover starts with it.
pub const HOME_TAG: u8 = 0x40;

/// The version of the messages.
pub const HOME_VERSION: u8 = 1;

/// The version of what a region keeps of its seats.
pub const SEATS_VERSION: u8 = 1;

/// The longest head: a path of all regions there can be.
pub const HEAD_MAX: usize = 4 << 10;

/// What goes before a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who is asked.
    pub to: RegionId,
    /// Who asks, and who has passed it on.
    pub path: Vec<RegionId>,
    /// How long the asker still waits.
    pub within_ms: u64,
    /// The length of the question.
    pub bytes: u64,
}

/// A command of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// In which database.
    pub database: u8,
    /// The command's name and arguments.
    pub words: Vec<ByteBuf>,
}

/// A pattern with an appointment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The pattern.
    #[serde(with = "serde_bytes")]
    pub keys: Vec<u8>,
    /// Who is its home.
    pub appointment: Appointment,
}

/// A home that wants to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// For what.
    pub told: Told,
    /// For how long.
    pub lease_ms: u64,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Run this for a client of mine.
    Run {
        /// One command, or those of a transaction.
        lines: Vec<Line>,
        /// Whether it is a transaction: one op, an array of replies.
        transaction: bool,
        /// The version of the protocol that the client speaks, 2 or 3.
        protocol: u8,
        /// What the client may have seen.
        seen: VersionVector,
    },
    /// What I know of homes.
    Claims {
        /// Of the rules as configured; zero for none.
        digest: u64,
        /// Where I am home.
        claims: Vec<Claim>,
        /// Where others are, and the configuration does not say so.
        told: Vec<Told>,
    },
    /// I want to be home.
    Vote {
        /// Of what.
        #[serde(with = "serde_bytes")]
        keys: Vec<u8>,
        /// In which term.
        number: u64,
        /// Whether this only asks what the answer would be.
        dry: bool,
    },
    /// Hand over what you are home of.
    Move {
        /// The pattern.
        #[serde(with = "serde_bytes")]
        keys: Vec<u8>,
        /// To whom.
        heir: RegionId,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was run. The reply follows.
    Ran {
        /// The reply's length.
        bytes: u64,
        /// The op that was written.
        wrote: Option<Dot>,
        /// What the reply shows.
        shows: VersionVector,
    },
    /// Nothing was done; another region is home, or is about to be.
    Elsewhere(Vec<Told>),
    /// Nothing was done.
    Refused(Refusal),
    /// Something may have been done: the text says what is known.
    Uncertain(String),
    /// To [`Ask::Claims`].
    Claims {
        /// Of the rules as configured; zero for none.
        digest: u64,
        /// One for each claim.
        verdicts: Vec<Verdict>,
        /// What the asker should know.
        told: Vec<Told>,
    },
    /// To [`Ask::Vote`].
    Ballot(Ballot),
    /// To [`Ask::Move`].
    Moved(Appointment),
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no way to whom it was for.
    Unreachable,
    /// As many as there may be are under way already.
    Busy,
    /// The home has not applied what the client may have seen.
    Behind,
    /// Anything else: its short name, and the text for the client.
    Other {
        /// For metrics.
        reason: String,
        /// An error as RESP has it, without the sign.
        text: String,
    },
}

/// Why bytes are no message of this program's. Nothing of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HomeFormatError {
    /// Written by a version this one does not know.
    #[error("a message about homes of version {0}, this program knows {HOME_VERSION}")]
    UnknownVersion(u8),
    /// Damaged, or not one at all.
    #[error("a message about homes is malformed")]
    Malformed,
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut out = vec![HOME_TAG, HOME_VERSION];
    // Writing to a Vec cannot fail.
    let _ = postcard::to_io(message, &mut out);
    out
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, HomeFormatError> {
    match bytes {
        [HOME_TAG, HOME_VERSION, message @ ..] => match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(message),
            _ => Err(HomeFormatError::Malformed),
        },
        [HOME_TAG, version, ..] => Err(HomeFormatError::UnknownVersion(*version)),
        _ => Err(HomeFormatError::Malformed),
    }
}

/// What is written and read alike.
macro_rules! messages {
    ($($message:ident),*) => {$(
        impl $message {
            /// The message's bytes.
            pub fn encode(&self) -> Vec<u8> {
                encode(self)
            }

            /// Reads a message.
            ///
            /// # Errors
            /// [`HomeFormatError`].
            pub fn decode(bytes: &[u8]) -> Result<Self, HomeFormatError> {
                decode(bytes)
            }
        }
    )*};
}

messages!(Head, Ask, Answer);

impl Ask {
    /// Whether the bytes of a question are those of a write, as far as the first of them tell.
    pub fn is_write(bytes: &[u8]) -> bool {
        // The number of the variant.
        matches!(bytes, [HOME_TAG, HOME_VERSION, 0, ..])
    }
}

impl Head {
    /// Whether a stream's first frame is one about homes at all.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&HOME_TAG)
    }
}

/// A pattern with what is kept of its seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSeat {
    /// The pattern.
    #[serde(with = "serde_bytes")]
    pub keys: Vec<u8>,
    /// Its seat.
    pub kept: Kept,
}

/// Seats as they are kept over restarts: version, then postcard.
pub fn encode_seats(seats: &[KeptSeat]) -> Vec<u8> {
    let mut out = vec![SEATS_VERSION];
    // Writing to a Vec cannot fail.
    let _ = postcard::to_io(seats, &mut out);
    out
}

/// Reads what [`encode_seats`] wrote.
///
/// # Errors
/// [`HomeFormatError`].
pub fn decode_seats(bytes: &[u8]) -> Result<Vec<KeptSeat>, HomeFormatError> {
    match bytes.split_first() {
        Some((&SEATS_VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((seats, [])) => Ok(seats),
            _ => Err(HomeFormatError::Malformed),
        },
        Some((version, _)) => Err(HomeFormatError::UnknownVersion(*version)),
        None => Err(HomeFormatError::Malformed),
    }
}
