//! What a replica shows of itself.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Origin, RegionId, VersionVector, raise};

use super::link::{Link, distance};
use super::{PeerStatus, Phase, Replica};
use crate::delivery::Delivery;
use crate::frame::Protocol;
use crate::graph::Graph;
use crate::time::MonoMs;

impl<B: AsRef<[u8]>> Replica<B> {
    /// Who writes here.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Dedupe, held ops and their counters.
    pub fn delivery(&self) -> &Delivery<B> {
        &self.delivery
    }

    /// Neighbours that have not said hello since this replica was made. Once it is empty, no
    /// neighbour knows more of our origin than we do: a region that may have been restored from a
    /// copy has to wait for that before it gives out its first sequence number (and has to remember
    /// over restarts that it is still waiting).
    pub fn unconfirmed(&self) -> impl Iterator<Item = RegionId> + '_ {
        let confirmed = |peer: &RegionId| self.holders.get(peer).is_some_and(|h| h.confirmed);
        self.router.neighbours().iter().copied().filter(move |peer| !confirmed(peer))
    }

    /// What the connected peers have applied of the members' ops.
    pub fn advertised(&self) -> VersionVector {
        let members: BTreeSet<RegionId> = self.router.members().collect();
        let mut all = VersionVector::new();
        for link in self.links.values().filter(|link| link.greeted.is_some()) {
            for (origin, sequence) in &link.peer_applied.dots {
                if members.contains(&origin.region()) && !self.retired.contains(origin) {
                    raise(&mut all, *origin, *sequence);
                }
            }
        }
        all
    }

    /// What is spoken with `peer`, once it has said who it is.
    pub fn protocol(&self, peer: RegionId) -> Option<Protocol> {
        self.links.get(&peer)?.greeted.as_ref().map(|greeted| greeted.protocol)
    }

    /// What `peer` has acknowledged as durable on its present link.
    pub fn acknowledged(&self, peer: RegionId) -> Option<&VersionVector> {
        self.links.get(&peer).map(|link| &link.acknowledged)
    }

    /// Lives of regions that were removed. To be kept over restarts; see [`Replica::handle_retired`].
    pub fn retired(&self) -> &BTreeSet<Origin> {
        &self.retired
    }

    /// The topology in force.
    pub fn graph(&self) -> &Graph {
        self.router.graph()
    }

    /// From whom the ops of `region` come, or would come once connected: its feeder, and the helper
    /// beside it if there is one.
    pub fn feeders(&self, region: RegionId) -> impl Iterator<Item = RegionId> + '_ {
        self.router.feeders(region)
    }

    /// Whether all routes are those of the graph with every region up.
    pub fn is_usual(&self) -> bool {
        self.router.is_usual()
    }

    /// How often each region's ops took another way so far.
    pub fn reroutes(&self) -> &BTreeMap<RegionId, u64> {
        &self.reroutes
    }

    /// Every neighbour, connected or not, and every other connected peer.
    pub fn status(&self) -> Vec<PeerStatus> {
        let peers: BTreeSet<RegionId> =
            self.router.neighbours().iter().chain(self.links.keys()).copied().collect();
        peers.into_iter().map(|peer| self.peer_status(peer)).collect()
    }

    fn peer_status(&self, peer: RegionId) -> PeerStatus {
        let none = Link::new(MonoMs(0), 0);
        let (phase, link) = match self.links.get(&peer) {
            Some(link) => (link.phase(), link),
            None => (Phase::Down, &none),
        };
        let admitted = self.delivery.admitted();
        PeerStatus {
            peer,
            phase,
            protocol: link.greeted.as_ref().map(|greeted| greeted.protocol),
            neighbour: self.router.neighbours().contains(&peer),
            subscribed: link.feed.is_some(),
            silent: link.silent,
            round_trip_ms: link.round_trip_ms,
            clock_offset_ms: link.clock_offset_ms,
            acknowledged: link.acknowledged.clone(),
            lag_ops: distance(&link.peer_applied, admitted),
            behind_ops: distance(admitted, &link.peer_applied).min(distance(admitted, &link.acknowledged)),
            fenced: self.stability.is_fenced(peer),
            topology_differs: link
                .greeted
                .as_ref()
                .is_some_and(|greeted| greeted.topology_digest != self.topology_digest),
            policies_differ: link
                .greeted
                .as_ref()
                .is_some_and(|greeted| greeted.policy_digest != self.settings.policy_digest),
        }
    }
}
