//! The link protocol's messages.
//!
//! Two streams matter here: the control stream of a link carries [`Control`] messages both ways,
//! and each subscription's stream carries batches of ops ([`batch`]). How bytes are cut into
//! messages, and compression, are the link's business.
//!
//! What the two sides of a link speak is the newest [`Protocol`] that both know. It selects the form of every
//! message behind the hellos, which are the same in all versions.
//!
//! # Control message (version 1)
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, [`CONTROL_VERSION`] |
//! | rest | postcard of [`Control`]: variant number `varint`, then the fields in order |

pub mod batch;
mod protocol;

use std::collections::BTreeSet;

use meridian_conflict::clock::{Hlc, Origin, RegionId, VersionVector};
use meridian_conflict::hook::quarantine::Entry;
use meridian_conflict::hook::question::Subject;
use serde::{Deserialize, Serialize};

use crate::time::{MonoMs, WallMs};

pub use protocol::{PROTOCOLS, Protocol, Protocols};

/// The format of control messages.
pub const CONTROL_VERSION: u8 = 1;

/// A control message longer than this is refused before it is read.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;

/// The longest encoded table of policies.
pub const POLICY_BYTES_MAX: usize = meridian_conflict::policy::MAX_TABLE_BYTES;

/// The most answers of a hook in one message.
pub const ANSWERS_MAX: usize = 64;

/// A message from a peer does not decode. Nothing of it took effect; the link must close, because
/// what follows cannot be trusted to be in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Written by a version this one does not know.
    #[error("message format {0} is not known")]
    UnknownVersion(u8),
    /// Ends before it should.
    #[error("the message is cut short")]
    Truncated,
    /// Bytes follow the message.
    #[error("the message has {0} bytes too many")]
    TrailingBytes(usize),
    /// Longer than allowed.
    #[error("the message has {0} bytes, more than allowed")]
    TooLong(usize),
    /// A field has a value it cannot have.
    #[error("the message has an impossible {0}")]
    Invalid(&'static str),
}

/// The first message on a link, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions spoken.
    pub protocols: Protocols,
    /// Name of the cluster. Regions of different clusters refuse each other.
    pub cluster: String,
    /// Name of the region; has to be the one the certificate names.
    pub region: String,
    /// Under which origin the region writes now.
    pub origin: Origin,
    /// A number of this run of the process, different in every run.
    pub boot: u64,
    /// Digest of the topology in force.
    pub topology_digest: u64,
    /// Digest of the policies in force.
    pub policy_digest: u64,
    /// Everything applied. Not an acknowledgement.
    pub applied: VersionVector,
    /// Of the receiver's own origins, the last op held but not applied yet: with `applied`, all
    /// that the sender has ever heard of the receiver.
    pub held: VersionVector,
}

/// Why a subscription is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The log does not reach back to the vector asked from: the subscriber has to re-seed.
    PastLog,
    /// The topology has no feed between the two.
    NotNeighbour,
    /// The peer is about to stop.
    Draining,
}

/// Why a peer ends a link on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoodbyeReason {
    /// It stops.
    Stopping,
    /// It takes a new incarnation and comes back.
    NewIncarnation,
    /// It does not accept this peer; its log says why.
    Refused,
}

/// A message on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Who speaks.
    Hello(Box<Hello>),
    /// Asks for the ops of `regions` (and of the asker's other incarnations) above `from`.
    Subscribe {
        /// The asker's number for it.
        id: u64,
        /// Ops of which regions.
        regions: BTreeSet<RegionId>,
        /// What the asker has.
        from: VersionVector,
    },
    /// The answer when a subscription cannot be served.
    SubscribeRefused {
        /// Which one.
        id: u64,
        /// Why.
        reason: Refusal,
    },
    /// The asker wants no more of it.
    Unsubscribe {
        /// Which one.
        id: u64,
    },
    /// What rose since the last message of this kind on this link of what is known of who has durably
    /// applied what. The sender's own row acknowledges.
    Stability {
        /// What rose, by region.
        rows: Vec<Row>,
    },
    /// Once a second.
    Heartbeat(Heartbeat),
    /// The link ends on purpose.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
    },
    /// Somebody's policies, when a link stands and when they change.
    Policies(Announced),
    /// What a hook has answered, for comparison: each question once, at a bounded pace.
    Answers(Answers),
    /// Hooks that were confined or released, when a link stands and when one is.
    Quarantine(Vec<Entry>),
}

/// Answers of one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The hook's identity.
    pub hook: [u8; 32],
    /// Its generation in the quarantine when it was asked.
    pub generation: u64,
    /// At most [`ANSWERS_MAX`].
    pub answers: Vec<Answered>,
}

/// What a hook answered once. The values are not told: who has the same ones can ask for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Who asked it.
    pub region: RegionId,
    /// How many regions may still pass it on: an answer that everybody has forgotten again must not go round for ever.
    pub hops: u8,
    /// The database.
    pub database: u8,
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: Box<[u8]>,
    /// What of it.
    pub subject: Subject,
    /// The question's fingerprint.
    pub question: u128,
    /// The answer's.
    pub answer: u128,
}

/// A member's policies. A later announcement replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Whose.
    pub region: RegionId,
    /// When, by its clock.
    pub told: Hlc,
    /// Its table, as [`meridian_conflict::policy::PolicyTable::encode`] gives it; at most [`POLICY_BYTES_MAX`].
    #[serde(with = "serde_bytes")]
    pub table: Vec<u8>,
}

/// What a region has durably applied. On the wire, its vector's entries that rose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose row.
    pub region: RegionId,
    /// Under which origin it writes.
    pub origin: Origin,
    /// Greater for every life of the region: a later life's row replaces an earlier one's.
    pub life: u64,
    /// Rises about once per heartbeat, while the region lives.
    pub beat: u64,
    /// Its clock at a moment when every op it had given out was durable there and within its own
    /// entry of the vector: later ops are stamped after it.
    pub hlc: Hlc,
    /// What it has durably applied.
    pub durable: VersionVector,
}

/// Signs of life, clocks and progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's monotonic clock.
    pub sent: MonoMs,
    /// The sender's wall clock.
    pub wall: WallMs,
    /// The sender's hybrid clock.
    pub hlc: Hlc,
    /// The last heartbeat the sender got, for the round trip.
    pub echo: Option<Echo>,
    /// Everything the sender has applied: how far there is to go.
    pub applied: VersionVector,
    /// Digest of the topology in force at the sender.
    pub topology_digest: u64,
    /// Digest of the policies in force at the sender.
    pub policy_digest: u64,
    /// For each member in the order of names, through whom its ops come to the sender: a bit for each
    /// member, in the same order.
    pub via: Vec<u128>,
}

/// A heartbeat sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// What it said in `sent`.
    pub sent: MonoMs,
    /// How long it was kept, in milliseconds.
    pub held_ms: u64,
}

impl Control {
    /// Appends the encoded message, in the newest form; [`Protocol::encode`] chooses by what a link speaks.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(CONTROL_VERSION);
        // Writing to a Vec cannot fail.
        let _ = postcard::to_io(self, out);
    }

    /// Reads one message of the newest form, which has to fill `bytes`.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(FrameError::TooLong(bytes.len()));
        }
        match bytes.split_first() {
            None => Err(FrameError::Truncated),
            Some((&CONTROL_VERSION, rest)) => match postcard::take_from_bytes(rest) {
                Ok((control, [])) => Ok(control),
                Ok((_, rest)) => Err(FrameError::TrailingBytes(rest.len())),
                Err(postcard::Error::DeserializeUnexpectedEnd) => Err(FrameError::Truncated),
                Err(_) => Err(FrameError::Invalid("field")),
            },
            Some((version, _)) => Err(FrameError::UnknownVersion(*version)),
        }
    }
}
