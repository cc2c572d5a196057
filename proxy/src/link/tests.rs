#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod disturbed;
mod identity;
mod resumption;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::cert::Identity;
use crate::cert::tests::TestCa;

use super::endpoint::{AllowedRegions, Endpoint, PeerConnection, Refused};
use super::limits::TransportLimits;

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn open(identity: &Identity, allowed: &[&str], limits: TransportLimits) -> Endpoint {
    Endpoint::bind(any_port(), identity, AllowedRegions::new(allowed), limits).unwrap()
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_address().unwrap()
}

/// What `accept` answers next, within a deadline that only a hang reaches.
async fn accept(endpoint: &Endpoint) -> Result<PeerConnection, Refused> {
    within(endpoint.accept()).await.expect("the endpoint is open")
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// Two regions and the connection between them, from both ends.
struct Pair {
    eu: Endpoint,
    us: Endpoint,
    dialled: PeerConnection,
    accepted: PeerConnection,
}

impl Pair {
    async fn new() -> Self {
        Self::through(TransportLimits::default(), |address| async move { address }).await
    }

    /// `via` turns the address of `us` into the one that `eu` dials.
    async fn through<F: Future<Output = SocketAddr>>(
        limits: TransportLimits,
        via: impl FnOnce(SocketAddr) -> F,
    ) -> Self {
        let ca = TestCa::new();
        let eu = open(&ca.identity("eu"), &["us"], limits.clone());
        let us = open(&ca.identity("us"), &["eu"], limits);
        let target = via(address(&us)).await;
        let (dialled, accepted) = tokio::join!(eu.dial("us", target), accept(&us));
        Self { eu, us, dialled: dialled.unwrap(), accepted: accepted.unwrap() }
    }
}
