//! When to take over a peer's state: the logs do not reach back to where this region stands.
//!
//! While that goes on no batch of ops is taken in; what is left unheard comes again, because every
//! subscription is then taken up anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_conflict::clock::{RegionId, covers_all};
use meridian_topology::replica::{PeerStatus, Phase};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Event, Hub};
use crate::region::seeding::Stage;
use crate::replication::seed::SeedError;
use crate::replication::seed::receiver::{self, TakenOver};

/// How long a refusal has to stand before another way is not looked for any more: at least, at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How long until a takeover that broke off is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a takeover that has begun waits for its donor before any other will do.
const DONOR_WITHIN: Duration = Duration::from_secs(10);

/// What the hub knows of takeovers.
pub(super) struct Reseed {
    events: mpsc::Sender<Event>,
    /// Who does not serve us, since when.
    refused: BTreeMap<RegionId, Instant>,
    running: Option<AbortHandle>,
    retry_at: Instant,
    started: Instant,
    /// Held until this region has caught up: so long the donor keeps its log.
    lease: Option<quinn::SendStream>,
}

impl Reseed {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        let now = Instant::now();
        Self { events, refused: BTreeMap::new(), running: None, retry_at: now, started: now, lease: None }
    }

    /// Whether a takeover goes on.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The peer's log does not reach back to where we stand.
    pub(super) fn refused(&mut self, peer: RegionId) {
        self.refused.entry(peer).or_insert_with(Instant::now);
    }

    /// Ends what goes on.
    pub(super) fn end(&mut self) {
        if let Some(task) = self.running.take() {
            task.abort();
        }
        self.lease = None;
    }
}

impl Hub {
    /// Begins a takeover if one is needed and somebody can give.
    pub(super) fn consider_reseeding(&mut self) {
        self.hurry_loading();
        if self.reseed.is_running() || Instant::now() < self.reseed.retry_at || !self.region.is_confirmed() {
            return;
        }
        let peers = self.replica.status();
        let up = |status: &&PeerStatus| matches!(status.phase, Phase::Up | Phase::Held(_)) && !status.silent;
        let peers: Vec<&PeerStatus> = peers.iter().filter(up).collect();
        self.reseed.refused.retain(|peer, _| {
            peers.iter().find(|status| status.peer == *peer).is_none_or(|status| status.lag_ops > 0)
        });
        let donor = match self.region.seeding().stage() {
            Some(Stage::Merging { donor, .. }) => {
                let late = self.reseed.started.elapsed() >= DONOR_WITHIN;
                let known = peers.iter().find(|status| status.peer == donor);
                known.or(peers.first().filter(|_| late || donor == RegionId(0))).map(|status| status.peer)
            }
            Some(Stage::CatchingUp { .. }) | None => self.unserved(&peers),
        };
        if let Some(donor) = donor {
            self.begin_reseeding(donor);
        }
    }

    /// What clients wait for is applied, and only the log's next flush is missing.
    fn hurry_loading(&self) {
        if let Some(until) = self.region.seeding().until()
            && covers_all(&self.region.sequencer().applied(), &until)
        {
            let log = self.region.log().clone();
            tokio::spawn(async move { log.sync_now().await });
        }
    }

    /// A peer whose log does not reach back far enough, when all that are ahead of us say so.
    fn unserved(&self, peers: &[&PeerStatus]) -> Option<RegionId> {
        let patience = self.region.settings().topology.heal_after.clamp(PATIENCE.0, PATIENCE.1);
        let mut ahead = peers.iter().filter(|status| status.lag_ops > 0).peekable();
        ahead.peek()?;
        let since = |status: &PeerStatus| self.reseed.refused.get(&status.peer).map(Instant::elapsed);
        let most = ahead.clone().max_by_key(|status| status.lag_ops)?;
        let all = ahead.all(|status| since(status).is_some());
        (all && since(most).is_some_and(|refused| refused >= patience)).then_some(most.peer)
    }

    fn begin_reseeding(&mut self, donor: RegionId) {
        let Some((_, wire)) = self.wires.get(&donor) else { return };
        tracing::warn!(donor = self.name(donor), "taking over a peer's state: the logs do not reach back");
        let (region, connection) = (Arc::clone(&self.region), wire.connection.clone());
        let events = self.reseed.events.clone();
        self.reseed.started = Instant::now();
        let task = tokio::spawn(async move {
            let receiving = async {
                let opened = connection.open_bi().await;
                let (send, receive) = opened.map_err(|error| SeedError::Io(error.into()))?;
                receiver::receive(&region, donor, receive, send).await
            };
            let outcome = receiving.await;
            // Without a hub the region stops.
            let _ = events.send(Event::Reseeded { donor, outcome }).await;
        });
        self.reseed.running = Some(task.abort_handle());
    }

    /// A takeover has ended, well or not: subscriptions begin anew from what is applied now.
    pub(super) fn reseeded(
        &mut self,
        donor: RegionId,
        outcome: Result<TakenOver<quinn::SendStream>, SeedError>,
    ) {
        self.reseed.running = None;
        let donor = self.name(donor);
        match outcome {
            Ok(taken) => {
                tracing::warn!(donor, "took over a peer's state");
                self.reseed.lease = self.region.is_loading().then_some(taken.lease);
                self.reseed.refused.clear();
            }
            Err(error) => {
                tracing::warn!(donor, %error, "taking over a peer's state broke off; it will be tried again");
                self.reseed.retry_at = Instant::now() + RETRY;
            }
        }
        let applied = self.region.sequencer().applied();
        self.replica.handle_taken_over(self.region.mono(), &applied);
        self.keep_house();
    }

    /// Serves clients again once everything that was taken over is durable.
    pub(super) async fn end_loading(&mut self) {
        if !self.region.is_loading() || self.reseed.is_running() {
            return;
        }
        match receiver::note_durable(&self.region).await {
            Ok(true) => {
                self.reseed.lease = None;
                tracing::info!("caught up after taking over a peer's state; serving clients");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot forget that a peer's state was taken over"),
        }
    }
}
