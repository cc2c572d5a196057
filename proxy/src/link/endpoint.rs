//! The one UDP socket of a region: dials its peers, accepts them, and refuses everyone else.

mod accept;
mod allowed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use quinn::Runtime;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cert::{Identity, LeafError, not_after, region_of_certificate};

use super::close::{CloseReason, Ended, close};
use super::faults::Faults;
use super::limits::TransportLimits;
use super::tls::{self, TlsError};

pub use accept::{Refusal, Refused};
pub use allowed::AllowedRegions;

/// How long [`Endpoint::close`] stays to tell peers again.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// A connection whose other end has proven which region it is. No frame has been read from it.
#[derive(Debug, Clone)]
pub struct PeerConnection {
    /// The region in the peer's certificate, which is also one that the caller allows.
    pub region: String,
    /// The QUIC connection.
    pub connection: quinn::Connection,
    /// When the peer's certificate ends: the connection must be replaced before that.
    pub not_after: SystemTime,
}

impl PeerConnection {
    /// The certificates that the peer has shown, its own first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        chain(&self.connection)
    }
}

/// An endpoint could not be opened, or a peer not be reached. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be bound.
    #[error("listen.link: cannot bind UDP {address}: {source}; is another instance running?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS configuration cannot be built from the identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer cannot even be tried: the endpoint is closed, or the address does not fit the socket.
    #[error("cannot dial {region} at {address}: {source}")]
    Dial {
        /// The region.
        region: String,
        /// Its address.
        address: SocketAddr,
        /// What quinn said.
        source: quinn::ConnectError,
    },
    /// Nothing answered in time.
    #[error("no answer from {region} at {address}: is it running, and is UDP let through?")]
    NoAnswer {
        /// The region.
        region: String,
        /// Its address.
        address: SocketAddr,
    },
    /// The handshake failed.
    #[error("{region} at {address}: {ended}")]
    Handshake {
        /// The region.
        region: String,
        /// Its address.
        address: SocketAddr,
        /// How it ended.
        ended: Ended,
    },
    /// Something answered that is not that region.
    #[error("{address} was dialled as {region}, but {refusal}")]
    NotThePeer {
        /// The region that was dialled.
        region: String,
        /// The address.
        address: SocketAddr,
        /// What is wrong with the answer.
        refusal: Refusal,
    },
}

/// The endpoint of one region. Dropping it ends every connection without a reason; see
/// [`close`](Self::close) for a better way.
#[derive(Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    client: RwLock<quinn::ClientConfig>,
    allowed: AllowedRegions,
    limits: TransportLimits,
    faults: Option<Faults>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Result<PeerConnection, Refused>>>,
    acceptor: JoinHandle<()>,
}

/// The pair of configurations that an identity turns into.
pub(super) struct Crypto {
    pub(super) server: rustls::ServerConfig,
    pub(super) client: rustls::ClientConfig,
}

impl Crypto {
    fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { server: tls::server_config(identity)?, client: tls::client_config(identity)? })
    }

    fn quinn(self, limits: &TransportLimits) -> Result<(quinn::ServerConfig, quinn::ClientConfig), TlsError> {
        let transport = limits.transport();
        let server = QuicServerConfig::try_from(self.server)?;
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(self.client)?));
        client.transport_config(transport.clone());
        Ok((limits.server(Arc::new(server), transport), client))
    }
}

impl Endpoint {
    /// Binds the socket and starts to accept. Must be called within a tokio runtime.
    ///
    /// `allowed` holds the regions that may be at the other end of a connection; the caller keeps a
    /// clone and replaces its content when the topology changes.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        allowed: AllowedRegions,
        limits: TransportLimits,
    ) -> Result<Self, LinkError> {
        Self::bind_with(address, Crypto::new(identity)?, allowed, limits, None)
    }

    /// [`Endpoint::bind`] with a socket whose datagrams meet `faults`.
    pub fn bind_disturbed(
        address: SocketAddr,
        identity: &Identity,
        allowed: AllowedRegions,
        limits: TransportLimits,
        faults: Faults,
    ) -> Result<Self, LinkError> {
        Self::bind_with(address, Crypto::new(identity)?, allowed, limits, Some(faults))
    }

    pub(super) fn bind_with(
        address: SocketAddr,
        crypto: Crypto,
        allowed: AllowedRegions,
        limits: TransportLimits,
        faults: Option<Faults>,
    ) -> Result<Self, LinkError> {
        let (server, client) = crypto.quinn(&limits)?;
        let quinn = open_socket(address, &limits)
            .and_then(|socket| {
                let (runtime, config) = (Arc::new(quinn::TokioRuntime), quinn::EndpointConfig::default());
                match &faults {
                    None => quinn::Endpoint::new(config, Some(server), socket, runtime),
                    Some(faults) => {
                        let socket = faults.disturb(runtime.wrap_udp_socket(socket)?);
                        quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)
                    }
                }
            })
            .map_err(|source| LinkError::Bind { address, source })?;
        let (acceptor, accepted) = accept::start(quinn.clone(), allowed.clone(), limits.clone());
        Ok(Self {
            quinn,
            client: RwLock::new(client),
            allowed,
            limits,
            faults,
            accepted: tokio::sync::Mutex::new(accepted),
            acceptor,
        })
    }

    /// Connects to `region` at `address`.
    ///
    /// Success means that we know the peer, not that it has accepted us: in TLS 1.3 the dialling side
    /// finishes first. The first frame from the peer, or how the connection ends, tells.
    pub async fn dial(&self, region: &str, address: SocketAddr) -> Result<PeerConnection, LinkError> {
        let region = region.to_ascii_lowercase();
        if let Some(faults) = &self.faults {
            faults.learn(&region, address);
        }
        let config = self.client.read().clone();
        let connecting = match self.quinn.connect_with(config, address, &region) {
            Ok(connecting) => connecting,
            Err(source) => return Err(LinkError::Dial { region, address, source }),
        };
        let connection = match tokio::time::timeout(self.limits.handshake_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => {
                return Err(LinkError::NoAnswer { region, address });
            }
            Ok(Err(error)) => return Err(LinkError::Handshake { region, address, ended: (&error).into() }),
        };
        let verified = verify(&connection, &self.allowed).and_then(|peer| match peer.region == region {
            true => Ok(peer),
            false => Err(Refusal::WrongRegion(peer.region)),
        });
        verified.map_err(|refusal| {
            close(&connection, refusal.close_reason(), &refusal.to_string());
            LinkError::NotThePeer { region, address, refusal }
        })
    }

    /// The next peer that connects, or who was turned away; `None` once the endpoint is closed.
    ///
    /// Refusals are logged here already and are returned for metrics; when nobody calls this they are
    /// dropped. Safe to cancel.
    pub async fn accept(&self) -> Option<Result<PeerConnection, Refused>> {
        let accepted = self.accepted.lock().await.recv().await;
        if let (Some(faults), Some(Ok(peer))) = (&self.faults, &accepted) {
            faults.learn(&peer.region, peer.connection.remote_address());
        }
        accepted
    }

    /// The address of the socket, with the port that the system chose if it was 0.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Uses a new identity for the connections to come, without disturbing those that exist.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), LinkError> {
        let (server, client) = Crypto::new(identity)?.quinn(&self.limits)?;
        self.quinn.set_server_config(Some(server));
        *self.client.write() = client;
        Ok(())
    }

    /// Ends every connection with `reason`, accepts no more, and stays for a moment to tell peers again
    /// that did not hear it. Not longer: a peer that is down never hears it.
    pub async fn close(&self, reason: CloseReason) {
        self.quinn.close(quinn::VarInt::from_u32(reason.code()), reason.text().as_bytes());
        let _ = tokio::time::timeout(TOLD_WITHIN, self.quinn.wait_idle()).await;
    }

    /// Connections that are open, handshakes included.
    pub fn open_connections(&self) -> usize {
        self.quinn.open_connections()
    }

    /// A handshake that the test drives itself.
    #[cfg(test)]
    pub(super) fn connecting(&self, region: &str, address: SocketAddr) -> quinn::Connecting {
        let config = self.client.read().clone();
        #[allow(clippy::unwrap_used)]
        self.quinn.connect_with(config, address, region).unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.quinn.close(quinn::VarInt::from_u32(CloseReason::Dropped.code()), &[]);
    }
}

/// The certificates that the other side has shown, its own first.
fn chain(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let shown =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    shown.map(|chain| *chain).unwrap_or_default()
}

/// What webpki leaves open, for both sides: the certificate names one region, and one that we talk to.
fn verify(connection: &quinn::Connection, allowed: &AllowedRegions) -> Result<PeerConnection, Refusal> {
    let chain = chain(connection);
    let leaf = chain.first().ok_or(LeafError::Unreadable)?;
    let region = region_of_certificate(leaf)?;
    if !allowed.contains(&region) {
        return Err(Refusal::UnknownRegion(region));
    }
    Ok(PeerConnection { region, connection: connection.clone(), not_after: not_after(leaf)? })
}

fn open_socket(address: SocketAddr, limits: &TransportLimits) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families. A system without that still has one of them.
        let _ = socket.set_only_v6(false);
    }
    socket.set_recv_buffer_size(limits.socket_buffer_bytes)?;
    socket.set_send_buffer_size(limits.socket_buffer_bytes)?;
    let granted = socket.recv_buffer_size().unwrap_or(0);
    if granted < limits.socket_buffer_bytes {
        tracing::info!(
            granted,
            wanted = limits.socket_buffer_bytes,
            "the kernel grants a smaller UDP buffer; raise net.core.rmem_max and wmem_max for fast links"
        );
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
