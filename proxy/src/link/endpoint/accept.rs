//! The accepting side: handshakes run side by side, bounded in number, time and per address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use quinn::Incoming;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::cert::LeafError;
use crate::link::close::{CloseReason, Ended, close};
use crate::link::limits::TransportLimits;
use crate::link::strangers::StrangerLog;

use super::{AllowedRegions, PeerConnection, verify};

/// Results that wait for [`Endpoint::accept`](super::Endpoint::accept).
const ACCEPTED_MAX: usize = 64;

/// Why the other end of a connection was refused, before a frame was read from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// TLS or QUIC failed: no certificate, one of another authority, one that has ended.
    #[error("{0}")]
    Handshake(#[from] Ended),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TooSlow,
    /// The certificate does not identify a region.
    #[error("its certificate {0}")]
    Certificate(#[from] LeafError),
    /// The certificate names a region that is not linked to this one.
    #[error("it is region {0}, to which this region has no link; compare [topology] on both sides")]
    UnknownRegion(String),
    /// The certificate names another region than the one dialled.
    #[error("it is region {0}; compare [[regions]] with the certificates")]
    WrongRegion(String),
    /// Too many handshakes are open, in all or from this address.
    #[error("too many handshakes are open")]
    TooMany,
}

impl Refusal {
    /// What the other end is told, and what metrics count.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::Certificate(_) | Self::Handshake(Ended::CertificateRefused { .. }) => {
                CloseReason::BadCertificate
            }
            Self::UnknownRegion(_) => CloseReason::UnknownRegion,
            Self::WrongRegion(_) => CloseReason::WrongRegion,
            Self::Handshake(_) | Self::TooSlow | Self::TooMany => CloseReason::Dropped,
        }
    }
}

/// Someone who tried to connect and was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused {address}: {refusal}")]
pub struct Refused {
    /// Where the attempt came from.
    pub address: SocketAddr,
    /// Why.
    pub refusal: Refusal,
}

type Accepted = Result<PeerConnection, Refused>;

/// Starts the task that answers connection attempts.
pub(super) fn start(
    quinn: quinn::Endpoint,
    allowed: AllowedRegions,
    limits: TransportLimits,
) -> (JoinHandle<()>, mpsc::Receiver<Accepted>) {
    let (sender, receiver) = mpsc::channel(ACCEPTED_MAX);
    let shared = Shared { allowed, limits, sender, strangers: Mutex::default(), slots: Arc::default() };
    (tokio::spawn(run(quinn, Arc::new(shared))), receiver)
}

struct Shared {
    allowed: AllowedRegions,
    limits: TransportLimits,
    sender: mpsc::Sender<Accepted>,
    strangers: Mutex<StrangerLog>,
    slots: Arc<Slots>,
}

async fn run(quinn: quinn::Endpoint, shared: Arc<Shared>) {
    // Dropped with this task: then every open handshake ends too.
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = quinn.accept() => match incoming {
                Some(incoming) => admit(incoming, &shared, &mut handshakes),
                None => return,
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

/// Accepts, asks for a retry, or turns away; decides at once.
fn admit(incoming: Incoming, shared: &Arc<Shared>, handshakes: &mut JoinSet<()>) {
    let address = incoming.remote_address();
    let limits = &shared.limits;
    if shared.slots.open() >= limits.retry_above && !incoming.remote_address_validated() {
        // A failed retry drops the attempt, which refuses it.
        let _ = incoming.retry();
        return;
    }
    let Some(slot) = shared.slots.take(address.ip(), limits) else {
        incoming.refuse();
        shared.refuse(address, Refusal::TooMany);
        return;
    };
    let shared = shared.clone();
    handshakes.spawn(async move {
        let outcome = handshake(incoming, &shared).await;
        match outcome {
            // Waits when the region is slow to take its peers. The place stays taken meanwhile, so that a
            // peer that dials in a loop is bounded too.
            Ok(peer) => drop(shared.sender.send(Ok(peer)).await),
            Err(refusal) => shared.refuse(address, refusal),
        }
        drop(slot);
    });
}

async fn handshake(incoming: Incoming, shared: &Shared) -> Result<PeerConnection, Refusal> {
    let connecting = incoming.accept().map_err(|error| Ended::from(&error))?;
    let connection = tokio::time::timeout(shared.limits.handshake_timeout, connecting)
        .await
        .map_err(|_| Refusal::TooSlow)?
        .map_err(|error| Ended::from(&error))?;
    verify(&connection, &shared.allowed).inspect_err(|refusal| {
        close(&connection, refusal.close_reason(), &refusal.to_string());
    })
}

impl Shared {
    fn refuse(&self, address: SocketAddr, refusal: Refusal) {
        if let Some(line) = self.strangers.lock().note(address.ip(), Instant::now()) {
            match line.address {
                Some(_) => {
                    tracing::warn!(%address, refusals = line.refusals, reason = %refusal, "refused a connection")
                }
                None => {
                    tracing::warn!(refusals = line.refusals, "refused connections from many more addresses")
                }
            }
        }
        // Nobody reads, or too slowly: a refusal is not worth waiting for.
        let _ = self.sender.try_send(Err(Refused { address, refusal }));
    }
}

/// Counts open handshakes, in all and per address.
#[derive(Default)]
struct Slots {
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One open handshake; gives its place back when dropped.
struct Slot {
    slots: Arc<Slots>,
    ip: IpAddr,
}

impl Slots {
    fn open(&self) -> usize {
        self.by_address.lock().values().sum()
    }

    fn take(self: &Arc<Self>, ip: IpAddr, limits: &TransportLimits) -> Option<Slot> {
        let mut by_address = self.by_address.lock();
        if by_address.values().sum::<usize>() >= limits.handshakes_max {
            return None;
        }
        let count = by_address.entry(ip).or_insert(0);
        if *count >= limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        Some(Slot { slots: self.clone(), ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.slots.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.ip);
            }
        }
    }
}
