//! What a replica wants done.

use meridian_conflict::clock::RegionId;
use meridian_conflict::op::Op;

use super::status::{Amnesia, CloseReason, Notice};
use crate::feed::Feed;
use crate::frame::Control;
use crate::ledger::Waiting;

/// What has to be done in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<B> {
    /// Send a message on the control stream.
    Send {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        session: u64,
        /// What.
        control: Control,
    },
    /// Apply an op. Ops have to be applied in the order of these effects.
    Deliver(Op<B>),
    /// Open a stream to the peer and send on it what the feed takes from the log, from the first
    /// record that [`Feed::skips`] does not skip on, never past what may leave the region.
    StartFeed {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        session: u64,
        /// The subscriber's number, said at the head of the stream.
        subscription: u64,
        /// The cursor.
        feed: Feed,
    },
    /// Stop that stream.
    StopFeed {
        /// To whom.
        peer: RegionId,
        /// On which connection.
        session: u64,
        /// The subscriber's number.
        subscription: u64,
    },
    /// Close the connection, once what was sent before has left.
    CloseLink {
        /// With whom.
        peer: RegionId,
        /// Which connection.
        session: u64,
        /// Why.
        reason: CloseReason,
    },
    /// Keep a connection to this member from now on: dial it, and again whenever it is gone, until
    /// [`Effect::Undial`]. Both sides may dial at once: only one connection is to be told of.
    Dial {
        /// Whom.
        peer: RegionId,
    },
    /// Dial it no more. A connection that stands is left alone.
    Undial {
        /// Whom.
        peer: RegionId,
    },
    /// Take no more local ops under the present origin: this region has lost ops it gave out. Pick
    /// an incarnation never used before, store it, then call [`super::Replica::handle_reincarnated`].
    TakeNewIncarnation(Amnesia),
    /// A hook was asked elsewhere: ask it here, too, if the values are the same, and hand in what it answers with
    /// [`super::Replica::handle_answer`]. May be left out.
    AskHook(Waiting),
    /// Tell operators.
    Notice(Notice),
}
