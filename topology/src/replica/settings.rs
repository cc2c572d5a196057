//! A replica's fixed parameters.

use crate::frame::{PROTOCOLS, Protocols};
use crate::graph::RegionName;

/// What a replica has to know and cannot find out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Versions of the link protocol that are offered: [`PROTOCOLS`], except in tests.
    pub protocols: Protocols,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this region.
    pub region: RegionName,
    /// A number of this run of the process, different in every run.
    pub boot: u64,
    /// Digest of the policies in force.
    pub policy_digest: u64,
    /// How far ahead of the wall clock a stamp may be.
    pub max_skew_ms: u64,
    /// Silence after which a peer is reported as silent and routes go around it.
    pub heal_after_ms: u64,
    /// Every region's ops are taken from every feeder, not from the nearest alone: each comes several
    /// times, and the loss of a feeder costs no time.
    pub redundant: bool,
    /// Time between heartbeats.
    pub heartbeat_ms: u64,
    /// Least time between acknowledgements on a link.
    pub ack_every_ms: u64,
    /// Time between tries of a subscription that was held or refused.
    pub retry_ms: u64,
    /// How long a connected peer may take to say hello.
    pub hello_within_ms: u64,
    /// How long after a restart of a peer ops may still be held that were held then. Two regions
    /// that lose the tail of their logs together can leave an op with a third whose deps nobody has
    /// any more; it would be held for ever.
    pub forget_held_ms: u64,
    /// When this life of the region began, in milliseconds of its clock, stored with the incarnation. May
    /// be zero: then what others know of former lives puts it right.
    pub life: u64,
    /// A member not heard of for this long is fenced: `log.retention`.
    pub lease_ms: u64,
    /// How long after a new life of a region was first heard of [`crate::stability::Stability::passed`] stands
    /// still. Zero under `sync = "always"` in all regions: then nothing leaves that can be lost.
    pub young_ms: u64,
    /// Bound on the memory of held ops.
    pub pending_bytes_max: usize,
}

impl Settings {
    /// The usual settings for `region` of `cluster` in the run `boot`.
    pub fn new(cluster: &str, region: &RegionName, boot: u64) -> Self {
        Self {
            protocols: PROTOCOLS,
            cluster: cluster.into(),
            region: region.clone(),
            boot,
            policy_digest: 0,
            max_skew_ms: 500,
            heal_after_ms: 3_000,
            redundant: false,
            heartbeat_ms: 1_000,
            ack_every_ms: 10,
            retry_ms: 1_000,
            hello_within_ms: 10_000,
            forget_held_ms: 30_000,
            life: 0,
            young_ms: 30_000,
            lease_ms: 7 * 24 * 3_600_000,
            pending_bytes_max: 16 << 20,
        }
    }
}
