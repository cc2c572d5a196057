//! The one task that owns the state machine of all links, and applies ops in its order.

mod effects;
mod house;
mod policies;
mod reseed;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::{Origin, RegionId, VersionVector};
use meridian_conflict::op::Op;
use meridian_topology::frame::{Control, GoodbyeReason, Protocol};
use meridian_topology::ledger::Waiting;
use meridian_topology::replica::{self, Replica};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::apply::Applier;
use super::dials::Dials;
use super::names;
use super::peer::Wire;
use super::seed::SeedError;
use super::seed::receiver::TakenOver;
use crate::cert::Identity;
use crate::link::close::CloseReason;
use crate::link::endpoint::{AllowedRegions, Endpoint};
use crate::oplog::{LogHealth, Lsn};
use crate::region::Region;
use crate::region::membership::Membership;
use crate::region::retired;
use crate::service::LinkStates;
use reseed::Reseed;
use settling::KeptClock;

/// Events that wait; see [`Room`](super::peer::Room) for the memory of batches.
const EVENTS: usize = 64;

/// How long a start waits for all neighbours to confirm the incarnation before it takes a new one.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// A lease is at least so many times `heal_after`, however short `log.retention` is.
const LEASE_LEAST: u32 = 10;

/// Two connections between the same regions that were made within this time were dialled at once.
const DIALLED_AT_ONCE: Duration = Duration::from_secs(2);

/// How often status, metrics and truncation are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// How long received ops wait when the log takes nothing.
const LOG_RETRY: Duration = Duration::from_millis(100);

/// Bytes pushed to the log and not yet written, above which receiving pauses.
const LOG_BACKLOG_MAX: u64 = 32 << 20;

/// What happens to a region's links.
pub(super) enum Event {
    /// A connection with its control stream stands.
    Connected { peer: RegionId, wire: Wire, session: oneshot::Sender<u64> },
    /// It is gone.
    Disconnected { peer: RegionId, session: u64 },
    /// A control message came.
    Control { peer: RegionId, session: u64, control: Control },
    /// A batch of ops came.
    Batch {
        peer: RegionId,
        session: u64,
        subscription: u64,
        batch: Bytes,
        /// Given back when the batch has been taken in.
        room: Option<OwnedSemaphorePermit>,
    },
    /// A peer could not be reached, or why its connection ended.
    Trouble { peer: RegionId, error: String },
    /// The log is durable further.
    Durable(Arc<VersionVector>),
    /// A feed has come to where the log jumps over what its subscriber lacks.
    FeedPastLog { peer: RegionId, session: u64, subscription: u64 },
    /// A peer was asked whether this region may begin anew.
    AskedToBeginAnew { peer: RegionId, outcome: Result<bool, SeedError> },
    /// Taking over a peer's state has ended.
    Reseeded { donor: RegionId, outcome: Result<TakenOver<quinn::SendStream>, SeedError> },
}

pub(super) struct Hub {
    region: Arc<Region>,
    replica: Replica<Bytes>,
    dials: Dials,
    applier: Applier,
    names: BTreeMap<RegionId, String>,
    wires: BTreeMap<RegionId, (u64, Wire)>,
    feeds: BTreeMap<(RegionId, u64), AbortHandle>,
    last_session: u64,
    states: LinkStates,
    troubles: BTreeMap<RegionId, String>,
    /// Where the log begins and what it jumped over, as last told.
    truncated: Option<(Lsn, VersionVector)>,
    duplicates: BTreeMap<RegionId, u64>,
    waits: u64,
    /// The last hold told of each peer.
    holds: BTreeMap<RegionId, replica::Hold>,
    pending_shown: BTreeSet<Origin>,
    /// Who feeds whose ops, as the metric says.
    routes_shown: BTreeSet<(RegionId, RegionId)>,
    reroutes: BTreeMap<RegionId, u64>,
    reseed: Reseed,
    /// Of what the region was last told is durable elsewhere.
    stability_told: u64,
    clock: KeptClock,
    /// What hooks were asked elsewhere, for [`hooks`](super::hooks).
    questions: mpsc::Sender<Waiting>,
    /// Answers of hooks that were equal in two regions, as the metric says.
    compared: u64,
    /// Whether it was said that the quarantine is full.
    told_full: bool,
}

/// Runs the links of a region until it drains.
pub(super) async fn run(
    region: Arc<Region>,
    endpoint: Arc<Endpoint>,
    allowed: AllowedRegions,
    identity: watch::Receiver<Arc<Identity>>,
    states: LinkStates,
    questions: mpsc::Sender<Waiting>,
) {
    let (events, mut inbox) = mpsc::channel(EVENTS);
    let mut membership = region.membership.subscribe();
    let mut policies = region.policies().subscribe();
    let mut quarantine = region.policies().subscribe_quarantine();
    let dials = Dials::start(Arc::clone(&region), endpoint, allowed, identity, events.clone());
    let mut hub = Hub::new(Arc::clone(&region), states, dials, events.clone(), questions);
    let reporting = tokio::spawn(report_durable(Arc::clone(&region), events.clone()));
    // Whoever is to dial us may have backed off while we were away.
    let (graph, own) = (&region.settings().topology.graph, &region.settings().region);
    graph.neighbours(own).iter().filter(|name| *name < own).for_each(|name| {
        hub.dials.announce(RegionId::of(name.as_str()));
    });
    hub.tell_policies();
    hub.tell_quarantine();
    hub.replica.handle_timeout(region.mono(), region.wall());
    hub.carry_out().await;
    let drained = region.drain.notified();
    tokio::pin!(drained);
    drained.as_mut().enable();
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    while !region.is_draining() {
        let due = hub.replica.poll_timeout().map(|at| at.since(region.mono()));
        let due = if region.is_confirmed() { due } else { Some(due.unwrap_or(50).min(50)) };
        let timer = tokio::time::sleep(Duration::from_millis(due.unwrap_or(1_000).min(1_000)));
        tokio::select! {
            () = &mut drained => break,
            Some(event) = inbox.recv() => hub.handle(event).await,
            () = timer => hub.replica.handle_timeout(region.mono(), region.wall()),
            _ = housekeeping.tick() => {
                hub.keep_house();
                hub.compare_policies();
                hub.tell_answers();
                hub.tell_settled();
                hub.consider_reseeding();
                hub.look_for_what_is_lost().await;
            }
            // The sender lives as long as the region.
            Ok(()) = membership.changed() => {
                let changed = Arc::clone(&membership.borrow_and_update());
                hub.change_membership(&changed);
            }
            Ok(()) = policies.changed() => hub.tell_policies(),
            Ok(()) = quarantine.changed() => hub.tell_quarantine(),
        }
        hub.carry_out().await;
        hub.confirm().await;
    }
    // A start that is being waited for ends, too.
    region.confirm();
    hub.replica.end(GoodbyeReason::Stopping);
    hub.carry_out().await;
    // The goodbyes leave with the connections' close.
    tokio::time::sleep(Duration::from_millis(100)).await;
    reporting.abort();
    hub.reseed.end();
    hub.dials.end();
    hub.keep_house();
}

/// Tells the hub whenever more of the log is durable.
async fn report_durable(region: Arc<Region>, events: mpsc::Sender<Event>) {
    let log = region.log().clone();
    loop {
        let (lsn, mark) = log.durable();
        if events.send(Event::Durable(mark.0)).await.is_err() || log.wait_durable(lsn).await.is_err() {
            return;
        }
    }
}

impl Hub {
    fn new(
        region: Arc<Region>,
        states: LinkStates,
        dials: Dials,
        events: mpsc::Sender<Event>,
        questions: mpsc::Sender<Waiting>,
    ) -> Self {
        let settings = region.settings();
        let membership = region.membership();
        let names = names(&membership);
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let boot = region.boot();
        let parameters = replica::Settings {
            max_skew_ms: millis(settings.clock.max_skew),
            heal_after_ms: millis(settings.topology.heal_after),
            lease_ms: millis(settings.log.retention.max(settings.topology.heal_after * LEASE_LEAST)),
            young_ms: settling::young_ms(settings.log.sync),
            pending_bytes_max: usize::try_from(settings.limits.pending_max).unwrap_or(usize::MAX),
            ..replica::Settings::new(&settings.cluster, &settings.region, boot)
        };
        let (_, mark) = region.log().durable();
        let graph = membership.topology.graph.clone();
        let mut replica = Replica::new(parameters, graph, region.origin(), mark.0.as_ref().clone());
        match retired::load(&settings.data_dir) {
            Ok(lives) => replica.handle_retired(lives),
            Err(error) => tracing::error!(%error, "cannot read which regions have left; they may come back"),
        }
        // Before anything is told to anybody.
        replica.handle_loading(region.seeding().base());
        let applier = Applier::new(names.clone());
        Self {
            dials,
            replica,
            applier,
            names,
            wires: BTreeMap::new(),
            feeds: BTreeMap::new(),
            last_session: 0,
            states,
            troubles: BTreeMap::new(),
            truncated: None,
            duplicates: BTreeMap::new(),
            waits: 0,
            holds: BTreeMap::new(),
            pending_shown: Default::default(),
            routes_shown: Default::default(),
            reroutes: BTreeMap::new(),
            reseed: Reseed::new(events),
            stability_told: 0,
            clock: KeptClock::of(&region),
            questions,
            compared: 0,
            told_full: false,
            region,
        }
    }

    /// Regions joined or left, or the shape changed. Names of those that left are kept for their ops.
    fn change_membership(&mut self, membership: &Membership) {
        self.names.extend(names(membership));
        self.applier.name(self.names.clone());
        self.dials.set_members(membership);
        self.replica.handle_topology(self.region.mono(), membership.topology.graph.clone());
        let data_dir = &self.region.settings().data_dir;
        if let Err(error) = retired::store(data_dir, self.replica.retired()) {
            tracing::error!(%error, "cannot note the regions that left; after a restart they may come back");
        }
    }

    fn name(&self, peer: RegionId) -> String {
        self.names.get(&peer).cloned().unwrap_or_else(|| format!("{:08x}", peer.0))
    }

    /// Sees to it that the incarnation is safe to write under; see [`Region::confirmed`].
    ///
    /// A region without a past has given out nothing. It asks how far the others are, and serves no client before it
    /// is as far; but it does not wait for those that do not answer.
    async fn confirm(&mut self) {
        if self.region.is_confirmed() {
            return;
        }
        let all_answered = self.replica.unconfirmed().next().is_none();
        if !all_answered && self.region.uptime() < CONFIRM_WITHIN {
            return;
        }
        if self.region.is_new() {
            return self.begin_from_nothing().await;
        }
        if all_answered {
            return self.region.confirm();
        }
        self.take_new_incarnation(
            "not all neighbours answered at the start, so what was given out is not known",
        );
        self.region.confirm();
    }

    fn take_new_incarnation(&mut self, because: &str) {
        match self.region.take_new_incarnation(because) {
            Ok(origin) => {
                let durable = self.region.log().durable().1;
                self.replica.handle_reincarnated(origin, &self.region.sequencer().applied(), &durable.0);
                self.region.confirm();
            }
            Err(error) => tracing::error!(%error, "cannot take a new incarnation; links stay closed"),
        }
    }

    async fn handle(&mut self, event: Event) {
        let (now, wall) = (self.region.mono(), self.region.wall());
        self.tell_progress();
        match event {
            Event::Connected { peer, wire, .. } if self.is_surplus(peer, &wire) => {
                let reason = CloseReason::Replaced;
                wire.connection.close(quinn::VarInt::from_u32(reason.code()), reason.text().as_bytes());
            }
            Event::Connected { peer, wire, session } => {
                self.last_session += 1;
                let number = self.last_session;
                self.region.metrics().links.connections.with_label_values(&[&self.name(peer)]).inc();
                if session.send(number).is_ok() {
                    self.stop_feeds(peer);
                    self.replica.handle_connected(now, peer, number);
                    // The effects so far close the old connection, over its own wire.
                    self.carry_out_for(peer, number, wire).await;
                }
            }
            Event::Disconnected { peer, session } => {
                self.replica.handle_disconnected(now, peer, session);
                if self.wires.get(&peer).is_some_and(|(current, _)| *current == session) {
                    self.wires.remove(&peer);
                    self.stop_feeds(peer);
                }
            }
            Event::Control { peer, session, control } => {
                self.replica.handle_control(now, wall, peer, session, control);
            }
            // It comes again: subscriptions are taken up anew afterwards. Nothing is applied to objects that a merge has
            // brought further than the applied vector says, whether a stream stands or broke off.
            Event::Batch { .. } if self.reseed.is_running() || self.region.seeding().is_merging() => {}
            Event::Batch { peer, session, subscription, batch, room } => {
                self.wait_for_log().await;
                self.batch(peer, session, subscription, &batch).await;
                drop(room);
            }
            Event::Trouble { peer, error } => self.trouble(peer, error),
            Event::Durable(vector) => {
                self.replica.handle_durable(now, &vector);
                self.end_loading().await;
            }
            Event::FeedPastLog { peer, session, subscription } => {
                self.replica.handle_feed_past_log(now, peer, session, subscription);
            }
            Event::AskedToBeginAnew { peer, outcome } => self.asked_to_begin_anew(peer, outcome).await,
            Event::Reseeded { donor, outcome } => self.reseeded(donor, outcome),
        }
    }

    /// Whether a connection came to be at the same time as the one that stands, by each side dialling
    /// the other. Both sides keep the one that the region with the smaller name dialled.
    fn is_surplus(&self, peer: RegionId, wire: &Wire) -> bool {
        let Some((_, standing)) = self.wires.get(&peer) else { return false };
        let we_are_smaller = self.region.settings().region.as_str() < self.name(peer).as_str();
        standing.since.elapsed() < DIALLED_AT_ONCE
            && standing.connection.close_reason().is_none()
            && standing.dialled == we_are_smaller
            && wire.dialled != we_are_smaller
    }

    fn trouble(&mut self, peer: RegionId, error: String) {
        if self.troubles.get(&peer) != Some(&error) {
            tracing::warn!(peer = self.name(peer), error, "link error");
            self.troubles.insert(peer, error);
        }
    }

    /// Receiving pauses while the log takes nothing, or has much to write: what is not taken stays
    /// in the sender's log.
    async fn wait_for_log(&self) {
        loop {
            let healthy = self.region.log().health() == LogHealth::Ok;
            let backlog = self.region.sequencer().end().since(self.region.log().written_lsn());
            if (healthy && backlog <= LOG_BACKLOG_MAX) || self.region.is_draining() {
                return;
            }
            if healthy {
                self.region.log().wake();
                let _ = self.region.log().wait_written(self.region.log().written_lsn()).await;
            } else {
                tokio::time::sleep(LOG_RETRY).await;
            }
        }
    }

    async fn batch(&mut self, peer: RegionId, session: u64, subscription: u64, batch: &Bytes) {
        let (now, wall) = (self.region.mono(), self.region.wall());
        let protocol = self.replica.protocol(peer).unwrap_or(Protocol::GREETING);
        let ops = match protocol.batch(batch) {
            Ok(decoder) => decoder.collect::<Result<Vec<_>, _>>(),
            Err(error) => Err(error),
        };
        match ops {
            Ok(ops) => {
                let ops = ops.into_iter().map(|op| Op { body: batch.slice_ref(op.body), header: op.header });
                self.replica.handle_batch(now, wall, peer, session, subscription, ops);
            }
            Err(error) => {
                tracing::error!(peer = self.name(peer), %error, "a batch does not decode");
                self.close(peer, session, CloseReason::ProtocolError, &error.to_string()).await;
            }
        }
    }
}
