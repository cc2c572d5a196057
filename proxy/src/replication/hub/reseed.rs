//! When to take over a peer's state: the logs do not reach back to where this region stands.
//!
//! While that goes on no batch of ops is taken in; what is left unheard comes again, because every
//! subscription is then taken up anew.
//!
//! A donor that is gone for `heal_after` is given up, and another one asked. If what its rows included is lost with it,
//! the region gives up what it took over and begins anew, once somebody has all it had before
//! ([`meridian_topology::takeover`]). Where there is nobody, clients are served without what is lost in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_conflict::clock::{RegionId, covers_all};
use meridian_topology::replica::{PeerStatus, Phase};
use meridian_topology::takeover::Lack;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Event, Hub};
use crate::link::close::CloseReason;
use crate::region::seeding::Stage;
use crate::replication::seed::SeedError;
use crate::replication::seed::receiver::{self, TakenOver};

/// How long a refusal has to stand before another way is not looked for any more: at least, at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How long until a takeover that broke off is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Somebody to begin anew from is looked for during so many times `heal_after`.
const ANEW_WITHIN: u32 = 10;

/// What the hub knows of takeovers.
pub(super) struct Reseed {
    events: mpsc::Sender<Event>,
    /// Who does not serve us, since when.
    refused: BTreeMap<RegionId, Instant>,
    /// From whom.
    running: Option<(RegionId, AbortHandle)>,
    retry_at: Instant,
    /// Since when the donor cannot be heard.
    donor_gone: Option<Instant>,
    /// Since when nobody has what is waited for.
    lack: Lack,
    /// Since when some of it counts as lost.
    lost: Option<Instant>,
    /// How many were asked whether this region may begin anew, or because the donor is gone.
    asked: usize,
    /// The replica was told that this region is loading.
    told_loading: bool,
    /// Held until this region has caught up: so long the donor keeps its log.
    lease: Option<quinn::SendStream>,
}

impl Reseed {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            refused: BTreeMap::new(),
            running: None,
            retry_at: Instant::now(),
            donor_gone: None,
            lack: Lack::default(),
            lost: None,
            asked: 0,
            told_loading: false,
            lease: None,
        }
    }

    /// Whether a takeover goes on.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where the ends of tasks are told.
    pub(super) fn events(&self) -> &mpsc::Sender<Event> {
        &self.events
    }

    /// The peer's log does not reach back to where we stand.
    pub(super) fn refused(&mut self, peer: RegionId) {
        self.refused.entry(peer).or_insert_with(Instant::now);
    }

    /// Another peer every time: one may be loading itself.
    fn next_of(&mut self, peers: &[&PeerStatus]) -> Option<RegionId> {
        self.asked = self.asked.wrapping_add(1);
        let at = self.asked.checked_rem(peers.len())?;
        peers.get(at).map(|status| status.peer)
    }

    /// Ends what goes on.
    pub(super) fn end(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
        self.lease = None;
    }
}

impl Hub {
    /// Begins a takeover if one is needed and somebody can give.
    pub(super) fn consider_reseeding(&mut self) {
        self.hurry_loading();
        let peers = self.replica.status();
        let up = |status: &&PeerStatus| matches!(status.phase, Phase::Up | Phase::Held(_)) && !status.silent;
        let peers: Vec<&PeerStatus> = peers.iter().filter(up).collect();
        let gone = self.donor_is_gone(&peers);
        if self.reseed.is_running() || Instant::now() < self.reseed.retry_at || !self.region.is_confirmed() {
            return;
        }
        self.reseed.refused.retain(|peer, _| {
            peers.iter().find(|status| status.peer == *peer).is_none_or(|status| status.lag_ops > 0)
        });
        let anew_within = self.region.settings().topology.heal_after * ANEW_WITHIN;
        if self.reseed.lost.is_some_and(|since| since.elapsed() < anew_within) {
            if let Some(peer) = self.reseed.next_of(&peers) {
                self.ask_to_begin_anew(peer);
            }
            return;
        }
        let donor = match self.region.seeding().stage() {
            Some(Stage::Anew) => None,
            Some(Stage::Merging { donor, .. }) => {
                let known = peers.iter().find(|status| status.peer == donor);
                match known {
                    Some(status) => Some(status.peer),
                    None if gone || donor == RegionId(0) => self.reseed.next_of(&peers),
                    None => None,
                }
            }
            Some(Stage::CatchingUp { .. }) | None => self.unserved(&peers),
        };
        if let Some(donor) = donor {
            self.begin_reseeding(donor);
        }
    }

    /// Whether the donor has not been heard for long enough to ask another. Its connection is closed then, which ends
    /// what still waits for it.
    fn donor_is_gone(&mut self, peers: &[&PeerStatus]) -> bool {
        let running = self.reseed.running.as_ref().map(|(donor, _)| *donor);
        let donor = running.or_else(|| self.region.seeding().donor());
        if donor.is_none_or(|donor| peers.iter().any(|status| status.peer == donor)) {
            self.reseed.donor_gone = None;
            return false;
        }
        let since = *self.reseed.donor_gone.get_or_insert_with(Instant::now);
        let gone = since.elapsed() >= self.region.settings().topology.heal_after;
        if gone && let Some((_, wire)) = running.and_then(|donor| self.wires.get(&donor)) {
            let reason = CloseReason::Silent;
            wire.connection.close(quinn::VarInt::from_u32(reason.code()), reason.text().as_bytes());
        }
        gone
    }

    /// Tells the replica when this region begins or ceases to count for nothing but what it had before.
    pub(super) fn tell_loading(&mut self) {
        let (now, base) = (self.region.mono(), self.region.seeding().base());
        let donor = if base.is_some() { self.region.seeding().donor() } else { None };
        self.replica.handle_donor(now, donor);
        if base.is_some() == self.reseed.told_loading {
            return;
        }
        self.reseed.told_loading = base.is_some();
        self.replica.handle_loading(base);
        self.replica.handle_durable(now, &self.region.log().durable().1.0);
    }

    /// Finds out whether ops that a donor's rows included are lost with it. Where nobody is found in time who has all that
    /// was here before, clients are served without them: parts of what they did may show here then.
    pub(super) async fn look_for_what_is_lost(&mut self) {
        if self.reseed.is_running() {
            return;
        }
        let Some(wanted) = self.region.seeding().wanted() else {
            self.reseed.lack.clear();
            self.reseed.lost = None;
            return;
        };
        let heal_after = self.region.settings().topology.heal_after;
        let heal_after_ms = u64::try_from(heal_after.as_millis()).unwrap_or(u64::MAX);
        let (stability, now) = (self.replica.stability(), self.region.mono());
        let applied = self.region.sequencer().applied();
        let Some(lost) = self.reseed.lack.review(now, heal_after_ms, stability, &applied, &wanted) else {
            self.reseed.lost = None;
            return;
        };
        let ops = lost.ops.iter().map(|dot| format!("{}:{}", self.name(dot.actor.region()), dot.counter));
        let ops = ops.collect::<Vec<_>>().join(", ");
        // A new region that waits for what others said they had has no parts of it.
        let whole = self.region.seeding().base().is_none();
        let Some(since) = self.reseed.lost.or_else(|| whole.then(Instant::now)) else {
            tracing::error!(
                ops,
                "nobody has ops up to these any more, parts of which were taken over; looking for somebody to begin anew from"
            );
            self.reseed.lost = Some(Instant::now());
            return;
        };
        // While objects are being merged there is nothing whole to serve; another donor brings the rest.
        if (!whole && since.elapsed() < heal_after * ANEW_WITHIN) || self.region.seeding().until().is_none() {
            return;
        }
        tracing::error!(ops, "nobody has ops up to these any more; serving clients without them");
        match receiver::wait_for(&self.region, lost.rest).await {
            Ok(()) => self.end_loading().await,
            Err(error) => tracing::error!(%error, "cannot note that less is waited for"),
        }
    }

    fn ask_to_begin_anew(&mut self, peer: RegionId) {
        let Some((_, wire)) = self.wires.get(&peer) else { return };
        // Nothing is caught up with any more, and a donor gives to one stream at a time.
        self.reseed.lease = None;
        let (region, connection) = (Arc::clone(&self.region), wire.connection.clone());
        let events = self.reseed.events.clone();
        let task = tokio::spawn(async move {
            let asking = async {
                let opened = connection.open_bi().await;
                let (send, receive) = opened.map_err(|error| SeedError::Io(error.into()))?;
                receiver::may_begin_anew(&region, receive, send).await
            };
            let outcome = asking.await;
            // Without a hub the region stops.
            let _ = events.send(Event::AskedToBeginAnew { peer, outcome }).await;
        });
        self.reseed.running = Some((peer, task.abort_handle()));
    }

    pub(super) async fn asked_to_begin_anew(&mut self, peer: RegionId, outcome: Result<bool, SeedError>) {
        self.reseed.running = None;
        self.reseed.retry_at = Instant::now() + RETRY;
        let peer = self.name(peer);
        match outcome {
            Ok(true) => match receiver::give_up(&self.region).await {
                Ok(()) => {
                    tracing::error!(
                        peer,
                        "gave up what was taken over; this region starts again, with nothing"
                    );
                    self.region.begin_anew();
                }
                Err(error) => tracing::error!(%error, "cannot note that a takeover was given up"),
            },
            Ok(false) => tracing::warn!(peer, "cannot begin anew yet: the peer lacks what was here before"),
            Err(error) => tracing::warn!(peer, %error, "cannot begin anew yet"),
        }
        self.replica.handle_taken_over(self.region.mono(), &self.region.sequencer().applied());
    }

    /// Lets clients wait for what the others have by now, if they have anything.
    pub(super) async fn begin_from_nothing(&mut self) {
        let until = self.replica.advertised();
        if !covers_all(&self.region.sequencer().applied(), &until) {
            tracing::info!("this region is new and others have data: no clients until it has it, too");
            if let Err(error) = receiver::wait_for(&self.region, until).await {
                return tracing::error!(%error, "cannot note what a new region waits for; trying again");
            }
        }
        self.region.confirm();
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
        self.reseed.running = Some((donor, task.abort_handle()));
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
                self.tell_loading();
                tracing::info!("caught up after taking over a peer's state; serving clients");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot forget that a peer's state was taken over"),
        }
    }
}
