//! What a replica shows of its links, for status pages and metrics.

use meridian_conflict::clock::{Dot, RegionId, VersionVector};

use crate::frame::{Protocol, Protocols, Refusal};
use crate::route::Reroute;

/// Why a link delivers nothing for now, though it is connected. Nothing is lost: the subscription
/// is taken up again from the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// An op's stamp is too far ahead of this region's wall clock. Tried again each second.
    Skew {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
    /// Held ops fill their memory. Taken up when half of it is free, or for a try now and then.
    PendingFull,
    /// The peer does not serve the subscription. Tried again each second.
    Refused(Refusal),
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not connected.
    Down,
    /// Connected, the peer has not said who it is.
    Greeting,
    /// Working.
    Up,
    /// Working, but nothing is taken in.
    Held(Hold),
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which region.
    pub peer: RegionId,
    /// How far the link has come.
    pub phase: Phase,
    /// What the link speaks, once the peer has said who it is.
    pub protocol: Option<Protocol>,
    /// A neighbour by the topology; else a link made to heal a route, by either side.
    pub neighbour: bool,
    /// The peer takes ops from us over this link.
    pub subscribed: bool,
    /// No message for longer than `heal_after`.
    pub silent: bool,
    /// Last round trip, in milliseconds.
    pub round_trip_ms: Option<u64>,
    /// The peer's wall clock less ours, give or take half a round trip, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// What the peer has acknowledged as durable.
    pub acknowledged: VersionVector,
    /// Ops the peer is known to have applied and we have not.
    pub lag_ops: u64,
    /// Ops we have and the peer is not known to have applied.
    pub behind_ops: u64,
    /// The peer was not heard of for its lease, and lacks what became stable meanwhile.
    pub fenced: bool,
    /// The peer's topology differs from ours.
    pub topology_differs: bool,
    /// The peer's policies differ from ours.
    pub policies_differ: bool,
}

/// Why a link is closed from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer connected again.
    #[error("replaced by a newer connection of the same peer")]
    Replaced,
    /// The region is not a member of the cluster.
    #[error("the region is not a member of this cluster")]
    NotMember,
    /// The region was removed, and presents the life it had before.
    #[error("the region was removed from this cluster and has to join as new")]
    Removed,
    /// A link beyond those of the topology, and neither side takes ops over it any more.
    #[error("the link is not needed any more")]
    Unneeded,
    /// Another cluster.
    #[error("the peer belongs to another cluster")]
    WrongCluster,
    /// The hello's region is not the one the certificate names.
    #[error("the peer claims to be another region than its certificate says")]
    WrongRegion,
    /// No common protocol version.
    #[error("no protocol version in common: {ours} here, {theirs} at the peer")]
    NoCommonProtocol {
        /// Spoken here.
        ours: Protocols,
        /// Spoken by the peer.
        theirs: Protocols,
    },
    /// It presents this region's own identity.
    #[error("the peer presents this region's own identity")]
    OwnIdentity,
    /// Two processes present the same incarnation of the peer's region.
    #[error("a second process presents the identity of this peer")]
    SecondHolder,
    /// It broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// It did not say hello in time.
    #[error("the peer did not say hello in time")]
    NoHello,
    /// It said goodbye.
    #[error("the peer said goodbye")]
    Goodbye,
    /// This region takes a new incarnation, or stops.
    #[error("this region ends its links")]
    Ending,
}

/// Something an operator wants to see; at most once per change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The link works.
    Up {
        /// With whom.
        peer: RegionId,
    },
    /// The link is gone.
    Down {
        /// With whom.
        peer: RegionId,
    },
    /// The link is held.
    Held {
        /// With whom.
        peer: RegionId,
        /// Why.
        hold: Hold,
    },
    /// The hold is over: ops flow again.
    Resumed {
        /// With whom.
        peer: RegionId,
    },
    /// Nothing was heard for longer than `heal_after`.
    Silent {
        /// Of whom.
        peer: RegionId,
    },
    /// Something was heard again.
    Heard {
        /// Of whom.
        peer: RegionId,
    },
    /// Configuration differs.
    DigestsDiffer {
        /// From whom.
        peer: RegionId,
        /// The topologies differ.
        topology: bool,
        /// The policies differ.
        policies: bool,
    },
    /// A member's policies are other ones now: [`super::Replica::policies`].
    PoliciesHeard,
    /// A hook was confined or released: [`super::Replica::quarantine`].
    QuarantineHeard,
    /// A hook that had to be confined is not: there is no room for more.
    QuarantineFull {
        /// Which hook.
        hook: [u8; 32],
    },
    /// A member was not heard of for its lease, and is left out of what is stable.
    Fenced {
        /// Which region.
        region: RegionId,
    },
    /// It is heard of again, and has what became stable without it.
    Unfenced {
        /// Which region.
        region: RegionId,
    },
    /// A region's ops come by another way.
    Rerouted(Reroute),
    /// The peer's region runs twice under one incarnation.
    SecondHolder {
        /// Which region.
        peer: RegionId,
    },
}

/// What shows that this region has lost ops it once gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amnesia {
    /// Who knows of it.
    pub peer: RegionId,
    /// An op of this region's current origin, later than any it remembers; or of another origin, one
    /// that this region had durably in its present life.
    pub known: Dot,
    /// The last sequence number of that origin it remembers.
    pub remembered: u64,
}
