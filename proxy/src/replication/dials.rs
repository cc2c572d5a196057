//! Keeps the connections that routes need: dials, accepts, and gives up dialling.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_conflict::clock::RegionId;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::hub::Event;
use super::{frame_limit, others, peer};
use crate::cert::Identity;
use crate::config::settings;
use crate::link::endpoint::{AllowedRegions, Endpoint};
use crate::region::Region;
use crate::region::membership::Membership;

/// The other regions as connections see them, and who is being dialled.
pub(super) struct Dials {
    region: Arc<Region>,
    endpoint: Arc<Endpoint>,
    allowed: AllowedRegions,
    identity: watch::Receiver<Arc<Identity>>,
    events: mpsc::Sender<Event>,
    peers: Peers,
    room: peer::Room,
    dialling: BTreeMap<RegionId, AbortHandle>,
    tasks: Vec<AbortHandle>,
}

/// By number: what connections to each other region need.
type Peers = Arc<RwLock<BTreeMap<RegionId, Peer>>>;

#[derive(Clone)]
struct Peer {
    name: String,
    address: String,
    context: peer::Context,
}

impl Dials {
    /// Accepts every other region's connections.
    pub(super) fn start(
        region: Arc<Region>,
        endpoint: Arc<Endpoint>,
        allowed: AllowedRegions,
        identity: watch::Receiver<Arc<Identity>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let peers = Peers::default();
        let accepting = accept(Arc::clone(region.metrics()), Arc::clone(&endpoint), Arc::clone(&peers));
        let tasks = vec![tokio::spawn(accepting).abort_handle()];
        let room = peer::Room::new(frame_limit(region.settings()));
        let dialling = BTreeMap::new();
        let mut dials = Self { region, endpoint, allowed, identity, events, peers, room, dialling, tasks };
        let membership = dials.region.membership();
        dials.set_members(&membership);
        dials
    }

    /// These are the regions from now on. Who has another address is dialled there; connections that
    /// stand are left alone.
    pub(super) fn set_members(&mut self, membership: &Membership) {
        let region = Arc::clone(&self.region);
        let others: Vec<_> = others(&region.settings().region, membership).collect();
        self.allowed.replace(others.iter().map(|peer| peer.name.as_str()));
        let mut moved = Vec::new();
        let mut peers = self.peers.write();
        peers.retain(|id, _| others.iter().any(|peer| RegionId::of(peer.name.as_str()) == *id));
        for configured in others {
            let id = RegionId::of(configured.name.as_str());
            match peers.get_mut(&id) {
                Some(known) if known.address != configured.address => {
                    known.address.clone_from(&configured.address);
                    moved.push(id);
                }
                Some(_) => {}
                None => drop(peers.insert(id, self.peer(configured))),
            }
        }
        drop(peers);
        for id in moved {
            if self.dialling.contains_key(&id) {
                self.dial(id);
            }
        }
    }

    fn peer(&self, configured: &settings::Region) -> Peer {
        let name = configured.name.as_str();
        let bytes = &self.region.metrics().links.bytes;
        let context = peer::Context {
            standing: Arc::default(),
            ends: Arc::default(),
            identity: self.identity.clone(),
            events: self.events.clone(),
            region: Arc::clone(&self.region),
            frame_limit: frame_limit(self.region.settings()),
            room: self.room.clone(),
            received: bytes.with_label_values(&[name, "received", "ops"]),
            received_control: bytes.with_label_values(&[name, "received", "control"]),
            sent_control: bytes.with_label_values(&[name, "sent", "control"]),
        };
        Peer { name: name.to_owned(), address: configured.address.clone(), context }
    }

    fn known(&self, peer: RegionId) -> Option<Peer> {
        self.peers.read().get(&peer).cloned()
    }

    /// Dials `peer` whenever there is no connection.
    pub(super) fn dial(&mut self, peer: RegionId) {
        let Some(Peer { name, address, context }) = self.known(peer) else { return };
        let seed = self.region.boot() ^ u64::from(peer.0);
        let task = tokio::spawn(peer::dial(Arc::clone(&self.endpoint), name, address, peer, context, seed));
        if let Some(former) = self.dialling.insert(peer, task.abort_handle()) {
            former.abort();
        }
    }

    /// Dials `peer` no more. A connection that stands is left alone.
    pub(super) fn undial(&mut self, peer: RegionId) {
        if let Some(task) = self.dialling.remove(&peer) {
            task.abort();
        }
    }

    /// Dials `peer` once: it is the one to dial us, and may have backed off.
    pub(super) fn announce(&mut self, peer: RegionId) {
        let Some(Peer { name, address, context }) = self.known(peer) else { return };
        let task = tokio::spawn(peer::announce(Arc::clone(&self.endpoint), name, address, peer, context));
        self.tasks.push(task.abort_handle());
    }

    /// Ends every task of this room.
    pub(super) fn end(&self) {
        self.tasks.iter().chain(self.dialling.values()).for_each(AbortHandle::abort);
    }
}

async fn accept(metrics: Arc<crate::metrics::Metrics>, endpoint: Arc<Endpoint>, peers: Peers) {
    while let Some(accepted) = endpoint.accept().await {
        match accepted {
            Ok(connection) => {
                let id = RegionId::of(&connection.region);
                let Some(Peer { context, .. }) = peers.read().get(&id).cloned() else { continue };
                tokio::spawn(peer::run(connection, id, context, false));
            }
            Err(refused) => {
                metrics.links.refused(refused.refusal.close_reason());
            }
        }
    }
}
