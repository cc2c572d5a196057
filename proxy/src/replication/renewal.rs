//! New certificates while links stand.
//!
//! A new identity serves the connections to come at once. Those that stand are replaced: the side that dials opens
//! a new one, over which the hub takes the link up before it closes the old. A connection whose peer would not be
//! believed any more, and one of which a certificate has ended, is closed by either side.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use meridian_conflict::clock::RegionId;
use tokio::sync::watch;

use super::peer::Context;
use crate::cert::{Identity, Look, Watch};
use crate::link::close::CloseReason;
use crate::link::endpoint::{Endpoint, PeerConnection};
use crate::region::Region;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How soon again when they have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A connection is replaced so long before one of its certificates ends.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 60);

/// How often that is tried.
const RENEW_RETRY: Duration = Duration::from_secs(60);

/// How long a connection whose peer would be refused now may take to be replaced.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);

/// How often the end of a connection's certificates is looked for: wall clocks step.
const GUARD_EVERY: Duration = Duration::from_secs(30);

/// Puts what comes into the files of `[tls]` in force until the region drains.
pub(super) async fn watch_files(
    region: Arc<Region>,
    endpoint: Arc<Endpoint>,
    in_force: watch::Sender<Arc<Identity>>,
) {
    let Some(tls) = &region.settings().tls else { return };
    let mut watch = Watch::new(tls, &in_force.borrow());
    let mut pause = LOOK_EVERY;
    while !region.is_draining() {
        tokio::select! {
            () = region.certificate().look.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let looking = tokio::task::spawn_blocking(move || {
            let look = watch.look();
            (watch, look)
        });
        // Only a runtime that is shutting down loses the task.
        let Ok((looked, look)) = looking.await else { return };
        watch = looked;
        pause = LOOK_EVERY;
        match look {
            Look::InForce => region.certificate().set_trouble(None),
            Look::StillRefused => {}
            Look::Unsettled => pause = LOOK_AGAIN,
            Look::Refused(error) => refused(&region, &error.to_string()),
            Look::Renewed(identity) => match endpoint.replace_identity(&identity) {
                Ok(()) => {
                    let days =
                        identity.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs()
                            / 86_400;
                    tracing::info!(days, "renewed the certificate");
                    region.metrics().links.cert_renewals.with_label_values(&["renewed"]).inc();
                    region.certificate().set_end(identity.not_after);
                    region.certificate().set_trouble(None);
                    in_force.send_replace(Arc::new(*identity));
                }
                Err(error) => refused(&region, &error.to_string()),
            },
        }
    }
}

fn refused(region: &Region, error: &str) {
    tracing::error!(
        error,
        "refused to renew the certificate: its files cannot be used, the former one stays in force"
    );
    region.metrics().links.cert_renewals.with_label_values(&["refused"]).inc();
    region.certificate().set_trouble(Some(error.to_owned()));
}

/// When a connection of a peer is to be dialled anew although one stands.
pub(super) struct Renewal {
    identity: watch::Receiver<Arc<Identity>>,
    tried: Option<Instant>,
}

impl Renewal {
    pub(super) fn new(context: &Context) -> Self {
        let mut identity = context.identity.clone();
        identity.mark_unchanged();
        Self { identity, tried: None }
    }

    /// Whether it is time: once for each new identity, and now and then shortly before a certificate of the
    /// connection that stands ends.
    pub(super) fn is_due(&mut self, context: &Context) -> bool {
        let is_new = self.identity.has_changed().unwrap_or(false);
        self.identity.mark_unchanged();
        let ends_soon = || context.ends.lock().is_some_and(|end| SystemTime::now() + RENEW_BEFORE >= end);
        let may_try = self.tried.is_none_or(|tried| tried.elapsed() >= RENEW_RETRY);
        let is_due = is_new || (may_try && ends_soon());
        if is_due {
            self.tried = Some(Instant::now());
        }
        is_due
    }
}

/// Closes a connection once one of its certificates has ended, or its peer would be refused.
pub(super) async fn guard(connection: PeerConnection, peer: RegionId, context: Context) {
    let mut identity = context.identity.clone();
    let ends = connection.not_after.min(identity.borrow_and_update().not_after);
    *context.ends.lock() = Some(ends);
    let (reason, text) = loop {
        tokio::select! {
            changed = identity.changed() => {
                // The region stops.
                if changed.is_err() {
                    return;
                }
                if !identity.borrow_and_update().trusts(&connection.chain()) {
                    // First it is the turn of who dials.
                    tokio::time::sleep(RENEWED_WITHIN).await;
                    break (CloseReason::BadCertificate, "the peer's certificate is not signed by an authority in force");
                }
            }
            () = tokio::time::sleep(GUARD_EVERY) => {}
        }
        if SystemTime::now() >= ends {
            break (CloseReason::CertificateEnding, "a certificate of this connection has ended");
        }
    };
    connection.close(reason, text);
    context.region.metrics().links.refused(reason);
    context.trouble(peer, text.to_owned()).await;
}
