//! Joins the links to the region: what neighbours send is delivered, applied and logged here; what
//! the log gains is sent to those who subscribe.
//!
//! One task, the [`hub`], owns the state machine of `meridian-topology` and applies ops, in order.
//! [`dials`] keeps the connections that routes need; each connection has its tasks ([`peer`]) for
//! control messages and incoming streams; each subscription a neighbour has with us is a task that
//! tails the log ([`outgoing`]). What hooks were asked elsewhere is asked here, too, by [`hooks`].
//!
//! Everything on a connection is in the protocol that the hellos have settled ([`Protocol`](meridian_topology::frame::Protocol)).
//!
//! | stream | direction | frames |
//! |---|---|---|
//! | control | both, opened by the dialling side | [`meridian_topology::frame::Control`] |
//! | homes | both, opened by the asker | a head, a question, then the answer; see [`meridian_topology::home::message`] |
//! | comparison | both, opened by the asker | a question, then answers; see [`entropy`] |
//! | ops | unidirectional, from the one that is subscribed to | head: version `u8`, subscription `u64` LE; then packing `u8` and a batch |

pub mod apply;
mod dials;
pub mod entropy;
mod hooks;
mod hub;
mod outgoing;
mod peer;
mod renewal;
pub mod seed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use meridian_conflict::clock::RegionId;
use meridian_topology::graph::RegionName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::cert::Identity;
use crate::config::settings::{self, Settings};
use crate::link::endpoint::{AllowedRegions, Endpoint, LinkError};
use crate::link::limits::TransportLimits;
use crate::region::Region;
use crate::region::membership::Membership;
use crate::service::LinkStates;

/// Room in a frame beside the largest op.
const FRAME_ROOM: usize = 1 << 20;

/// The largest frame that a region with these settings sends or takes.
pub(crate) fn frame_limit(settings: &Settings) -> usize {
    usize::try_from(settings.limits.max_op).unwrap_or(usize::MAX / 2).saturating_add(FRAME_ROOM)
}

/// The running links of a region.
pub struct Replication {
    /// Where the links listen.
    pub address: SocketAddr,
    endpoint: Arc<Endpoint>,
    hub: JoinHandle<()>,
    entropy: JoinHandle<()>,
    hooks: JoinHandle<()>,
    renewal: JoinHandle<()>,
}

impl Replication {
    /// Opens the endpoint and keeps a link to every neighbour until [`Replication::stop`].
    ///
    /// # Errors
    /// [`LinkError`] when the endpoint cannot be opened.
    pub fn start(region: Arc<Region>, identity: Identity, states: LinkStates) -> Result<Self, LinkError> {
        let settings = region.settings();
        // Any member may feed any other when routes heal.
        let membership = region.membership();
        let allowed =
            AllowedRegions::new(others(&settings.region, &membership).map(|peer| peer.name.as_str()));
        let limits = TransportLimits::default();
        let address = settings.listen.link;
        let endpoint = match region.faults() {
            None => Endpoint::bind(address, &identity, allowed.clone(), limits)?,
            Some(faults) => {
                Endpoint::bind_disturbed(address, &identity, allowed.clone(), limits, faults.clone())?
            }
        };
        let endpoint = Arc::new(endpoint);
        let address = endpoint.local_address().unwrap_or(settings.listen.link);
        let entropy = tokio::spawn(entropy::run(Arc::clone(&region)));
        let (questions, heard) = mpsc::channel(hooks::QUESTIONS_MAX);
        let hooks = tokio::spawn(hooks::run(Arc::clone(&region), heard));
        let (in_force, identity) = watch::channel(Arc::new(identity));
        let renewal = renewal::watch_files(Arc::clone(&region), Arc::clone(&endpoint), in_force);
        let renewal = tokio::spawn(renewal);
        let endpoint_of_hub = Arc::clone(&endpoint);
        let hub = hub::run(Arc::clone(&region), endpoint_of_hub, allowed, identity, states, questions);
        let hub = tokio::spawn(hub);
        Ok(Self { address, endpoint, hub, entropy, hooks, renewal })
    }

    /// Tells the peers and closes. Call once the region drains.
    pub async fn stop(self) {
        let _ = self.hub.await;
        // Whatever it is at can break off anywhere.
        self.entropy.abort();
        self.hooks.abort();
        self.renewal.abort();
        self.endpoint.close(crate::link::close::CloseReason::ShuttingDown).await;
    }
}

/// The other regions.
fn others<'a>(own: &'a RegionName, membership: &'a Membership) -> impl Iterator<Item = &'a settings::Region> {
    membership.regions.values().filter(move |region| region.name != *own)
}

/// Names of regions by number.
fn names(membership: &Membership) -> BTreeMap<RegionId, String> {
    membership.regions.keys().map(|name| (RegionId::of(name.as_str()), name.to_string())).collect()
}
