//! Dialling a peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meridian_conflict::clock::RegionId;

use super::{Context, run};
use crate::link::backoff::Backoff;
use crate::link::close::CloseReason;
use crate::link::endpoint::{Endpoint, PeerConnection};
use crate::replication::renewal::Renewal;

/// How often the one who dials looks whether the other side's connection still stands.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it looks whether its own connection is to be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(1);

/// Dials `name` for ever, whenever there is no connection, or the one that stands is to be renewed.
pub(in crate::replication) async fn dial(
    endpoint: Arc<Endpoint>,
    name: String,
    address: String,
    peer: RegionId,
    context: Context,
    seed: u64,
) {
    let mut backoff = Backoff::new(seed);
    let mut renewal = Renewal::new(&context);
    loop {
        // The other side dials once when it starts.
        let mut renews = false;
        while context.standing.load(Ordering::Acquire) > 0 && !renews {
            tokio::time::sleep(LOOK_AGAIN).await;
            renews = renewal.is_due(&context);
        }
        match try_dial(&endpoint, &name, &address).await {
            // Meanwhile the other side has dialled. Both regions have just started.
            Ok(connection) if context.standing.load(Ordering::Acquire) > 0 && !renews => {
                connection.close(CloseReason::Replaced, "the connection that you dialled came first");
                continue;
            }
            Ok(connection) => {
                // A task of its own: that nobody dials any more does not end what stands.
                let mut running = tokio::spawn(run(connection, peer, context.clone(), true));
                let accepted = loop {
                    tokio::select! {
                        ended = &mut running => break ended.unwrap_or(false),
                        () = tokio::time::sleep(RENEWAL_LOOK) => {}
                    }
                    if renewal.is_due(&context) {
                        match try_dial(&endpoint, &name, &address).await {
                            // The hub closes the former one when the new one is greeted.
                            Ok(newer) => running = tokio::spawn(run(newer, peer, context.clone(), true)),
                            Err(error) => context.trouble(peer, error).await,
                        }
                    }
                };
                if accepted {
                    backoff.reset();
                }
            }
            Err(error) => context.trouble(peer, error).await,
        }
        if context.events.is_closed() {
            return;
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

/// Dials once, at this region's start: the peer, whose part dialling is, may have backed off.
pub(in crate::replication) async fn announce(
    endpoint: Arc<Endpoint>,
    name: String,
    address: String,
    peer: RegionId,
    context: Context,
) {
    if let Ok(connection) = try_dial(&endpoint, &name, &address).await {
        run(connection, peer, context, true).await;
    }
}

async fn try_dial(endpoint: &Endpoint, name: &str, address: &str) -> Result<PeerConnection, String> {
    let mut resolved = tokio::net::lookup_host(address)
        .await
        .map_err(|error| format!("cannot resolve the address {address} of region {name}: {error}"))?;
    let local_is_ipv4 = endpoint.local_address().map(|a| a.is_ipv4()).unwrap_or(true);
    let fits = |address: &SocketAddr| address.is_ipv4() == local_is_ipv4;
    let chosen = resolved.find(fits).ok_or_else(|| format!("{address} has no address of our family"))?;
    endpoint.dial(name, chosen).await.map_err(|error| error.to_string())
}
