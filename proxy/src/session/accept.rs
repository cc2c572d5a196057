//! Clients come and go: accepting, refusing, and saying why a connection ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::clients::Client;
use super::{End, Session};
use crate::region::Region;
use crate::resp::ProtocolError;

/// How long to wait before accepting again after that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Accepts connections until the region drains. Returns when all of them have ended.
pub async fn listen(region: Arc<Region>, listener: TcpListener) {
    let mut sessions = tokio::task::JoinSet::new();
    let drained = region.drain.notified();
    tokio::pin!(drained);
    drained.as_mut().enable();
    while !region.is_draining() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut drained => break,
            Some(_) = sessions.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                admit(&region, stream, address, &mut sessions);
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

fn admit(
    region: &Arc<Region>,
    stream: TcpStream,
    address: SocketAddr,
    sessions: &mut tokio::task::JoinSet<()>,
) {
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    let max = region.settings().limits.max_clients;
    match region.clients().enter(address, local, max) {
        Ok(present) => {
            let region = Arc::clone(region);
            sessions.spawn(async move {
                serve(region, stream, address, Arc::clone(&present.client)).await;
            });
        }
        Err(refusal) => {
            region.metrics().clients.errors.with_label_values(&["refused"]).inc();
            let _ = stream.try_write(format!("-{refusal}\r\n").as_bytes());
        }
    }
}

/// Serves one connection until it ends.
async fn serve(region: Arc<Region>, stream: TcpStream, address: SocketAddr, client: Arc<Client>) {
    let metrics = Arc::clone(region.metrics());
    metrics.clients.connected.inc();
    let mut session = Session::new(region, stream, client);
    let end = session.run().await;
    metrics.clients.connected.dec();
    let reason = match end {
        End::Left | End::Asked => return,
        End::Protocol(error) => {
            if matches!(error, ProtocolError::HttpProbe) {
                tracing::warn!(%address, %error, "closed a client's connection");
            }
            "protocol"
        }
        End::Limit(reason) => reason,
        End::Io(error) => {
            tracing::debug!(%address, %error, "a client's connection failed");
            "io"
        }
        End::Log => "log",
        End::Lease => "lease",
    };
    tracing::debug!(%address, reason, "closed a client's connection");
    metrics.clients.errors.with_label_values(&[reason]).inc();
}
