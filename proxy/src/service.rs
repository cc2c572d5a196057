//! Everything of one running region in this process: its data, the RESP port, the links and the admin
//! server. Several services may run in one process.
//!
//! Starting goes from what is cheapest to be wrong to what is dearest: the identity files, the data
//! directory, the ports. So a configuration error touches nothing, and a busy port costs a restart of
//! the log and no data.

pub mod link_state;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::admin;
use crate::cert::{CertError, Identity, load_identity};
use crate::config::settings::Settings;
use crate::metrics::Metrics;
use crate::region::reaper::Settled;
use crate::region::recover::Threads;
use crate::region::{Region, wall_now};
use crate::replication::Replication;
use crate::session;
pub use link_state::{LinkState, LinkStates};

/// How long sessions may take to end at the command they are at.
const SESSIONS_END: Duration = Duration::from_secs(4);

/// How long links may take to tell the peers that this region goes.
const LINKS_END: Duration = Duration::from_secs(2);

/// A port could not be opened. What had been started was stopped again.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {source}; is another instance running?")]
pub struct BindError {
    /// The configuration key.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// Where a service really listens, for configurations that leave the choice to the system (port 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Applications, TCP.
    pub resp: SocketAddr,
    /// Other regions, UDP; none if there are no other regions.
    pub link: Option<SocketAddr>,
    /// Operators, TCP.
    pub admin: SocketAddr,
}

/// A running region with its ports.
pub struct Service {
    region: Arc<Region>,
    threads: Threads,
    ports: Ports,
    addresses: Addresses,
}

struct Ports {
    sessions: JoinHandle<()>,
    links: Links,
    admin: admin::Server,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Service {
    /// Starts everything.
    ///
    /// # Errors
    /// [`CertError`] for configuration errors in the TLS files, [`BindError`] for a busy port, or
    /// what is wrong with the data directory. Nothing is left running.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let identity = own_identity(&settings)?;
        let metrics = Arc::new(Metrics::new().context("cannot set up metrics")?);
        let opening = tokio::task::spawn_blocking(move || Region::open(settings, metrics));
        let (region, threads) = opening.await.context("opening the data directory ended badly")??;
        match open_ports(&region, identity).await {
            Ok((ports, addresses)) => {
                let origin = region.origin();
                tracing::info!(region = %region.settings().region, %origin, ?addresses, "started");
                Ok(Self { region, threads, ports, addresses })
            }
            Err(error) => {
                region.begin_drain();
                // The port is what the operator must hear of, not what may follow from it.
                let _ = stop_threads(threads).await;
                Err(error)
            }
        }
    }

    /// The region.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// How the links are.
    pub fn links(&self) -> &LinkStates {
        &self.ports.links.states
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Stops in order: sessions end, the log is flushed, peers are told, the store gets what it lacks.
    /// The admin server goes last, so that `/readyz` tells of the rest.
    ///
    /// # Errors
    /// When the log cannot be ended in order; what was durable stays so.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { region, threads, ports, .. } = self;
        region.begin_drain();
        end_task(ports.sessions, SESSIONS_END, "sessions").await;
        if let Err(error) = region.log().sync_now().await {
            tracing::error!(%error, "cannot flush the op log");
        }
        ports.links.stop().await;
        let stopped = stop_threads(threads).await;
        ports.admin.stop().await;
        tracing::info!(region = %region.settings().region, "stopped");
        stopped
    }
}

/// This region's identity, if it is configured to have one.
///
/// # Errors
/// [`CertError`]
pub fn own_identity(settings: &Settings) -> Result<Option<Identity>, CertError> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let identity = load_identity(&tls.ca, &tls.cert, &tls.key)?.of_region(settings.region.as_str())?;
    if identity.not_after <= SystemTime::now() {
        tracing::error!("tls.cert: the certificate has ended; every peer refuses it until it is replaced");
    }
    Ok(Some(identity))
}

async fn open_ports(region: &Arc<Region>, identity: Option<Identity>) -> anyhow::Result<(Ports, Addresses)> {
    let listen = region.settings().listen;
    let resp = bind("listen.resp", listen.resp).await?;
    let admin = bind("listen.admin", listen.admin).await?;
    tokio::spawn(crate::homes::upkeep::keep(Arc::clone(region)));
    if let Some(identity) = &identity {
        region.certificate().set_end(identity.not_after);
    }
    let links = start_links(region, identity)?;
    let addresses = Addresses { resp: resp.local_addr()?, link: links.address, admin: admin.local_addr()? };
    let view = admin::View::new(Arc::clone(region), Arc::clone(&links.states));
    let admin = admin::Server::start(admin, view);
    let serving = Arc::clone(region);
    let sessions = tokio::spawn(async move {
        serving.confirmed().await;
        session::accept::listen(serving, resp).await;
    });
    Ok((Ports { sessions, links, admin }, addresses))
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { key, address, source })
}

async fn stop_threads(threads: Threads) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || threads.stop()).await.context("stopping ended badly")?
}

async fn end_task(mut task: JoinHandle<()>, within: Duration, what: &str) {
    if tokio::time::timeout(within, &mut task).await.is_err() {
        tracing::warn!(what, "did not end in time and were cut off");
        task.abort();
    }
}

/// The links of a region; none without other regions.
struct Links {
    states: LinkStates,
    address: Option<SocketAddr>,
    replication: Option<Replication>,
}

impl Links {
    /// Tells the peers and closes the endpoint.
    async fn stop(self) {
        let Some(replication) = self.replication else { return };
        if tokio::time::timeout(LINKS_END, replication.stop()).await.is_err() {
            tracing::warn!("the links did not end in time and were cut off");
        }
    }
}

/// Keeps a link to every neighbour until the region drains.
fn start_links(region: &Arc<Region>, identity: Option<Identity>) -> anyhow::Result<Links> {
    let settings = region.settings();
    let states = LinkStates::default();
    for peer in settings.topology.graph.neighbours(&settings.region) {
        let state = LinkState::not_yet(peer.as_str(), wall_now().0);
        states.lock().insert(peer.to_string(), state);
    }
    let Some(identity) = identity else {
        region.set_settled(Settled { alone: true, ..Settled::default() });
        return Ok(Links { states, address: None, replication: None });
    };
    let replication = Replication::start(Arc::clone(region), identity, Arc::clone(&states))?;
    Ok(Links { states, address: Some(replication.address), replication: Some(replication) })
}
