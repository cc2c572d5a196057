//! The one task that owns the state machine of all links, and applies ops in its order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::{Origin, RegionId, VersionVector};
use meridian_conflict::op::Op;
use meridian_topology::frame::batch::BatchDecoder;
use meridian_topology::frame::{Control, GoodbyeReason};
use meridian_topology::replica::{self, CloseReason as ReplicaClose, Effect, Notice, Phase, Replica};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::apply::Applier;
use super::peer::{self, Outbound, Wire};
use super::{frame_limit, names, outgoing, routes};
use crate::link::close::CloseReason;
use crate::link::endpoint::Endpoint;
use crate::oplog::{LogHealth, Lsn};
use crate::region::Region;
use crate::sequencer::AppliedMark;
use crate::service::LinkStates;

/// Events that wait: batches of at most a frame each, so this bounds memory too.
const EVENTS: usize = 64;

/// How long a start waits for all neighbours to confirm the incarnation before it takes a new one.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

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
    Batch { peer: RegionId, session: u64, subscription: u64, batch: Bytes },
    /// A peer could not be reached, or why its connection ended.
    Trouble { peer: RegionId, error: String },
    /// The log is durable further.
    Durable(Arc<VersionVector>),
}

struct Hub {
    region: Arc<Region>,
    replica: Replica<Bytes>,
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
    pending_shown: std::collections::BTreeSet<Origin>,
}

/// Runs the links of a region until it drains.
pub(super) async fn run(region: Arc<Region>, endpoint: Arc<Endpoint>, states: LinkStates) {
    let (events, mut inbox) = mpsc::channel(EVENTS);
    let mut hub = Hub::new(Arc::clone(&region), states);
    let mut tasks = hub.start_peers(&endpoint, &events);
    tasks.push(tokio::spawn(report_durable(Arc::clone(&region), events.clone())).abort_handle());
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
            _ = housekeeping.tick() => hub.keep_house(),
        }
        hub.carry_out().await;
        hub.confirm();
    }
    // A start that is being waited for ends, too.
    region.confirm();
    hub.replica.end(GoodbyeReason::Stopping);
    hub.carry_out().await;
    // The goodbyes leave with the connections' close.
    tokio::time::sleep(Duration::from_millis(100)).await;
    tasks.iter().for_each(AbortHandle::abort);
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
    fn new(region: Arc<Region>, states: LinkStates) -> Self {
        let settings = region.settings();
        let names = names(settings);
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let boot = region.boot();
        let parameters = replica::Settings {
            topology_digest: settings.topology.graph.digest(),
            max_skew_ms: millis(settings.clock.max_skew),
            heal_after_ms: millis(settings.topology.heal_after),
            pending_bytes_max: usize::try_from(settings.limits.pending_max).unwrap_or(usize::MAX),
            ..replica::Settings::new(&settings.cluster, settings.region.as_str(), boot)
        };
        let (lsn, mark) = region.log().durable();
        let _ = lsn;
        let replica = Replica::new(parameters, routes(settings), region.origin(), mark.0.as_ref().clone());
        let applier = Applier::new(names.clone());
        for (origin, feeder) in settings.topology.graph.routes(&settings.region) {
            region.metrics().route.with_label_values(&[origin.as_str(), feeder.as_str()]).set(1);
        }
        Self {
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
            region,
        }
    }

    fn name(&self, peer: RegionId) -> String {
        self.names.get(&peer).cloned().unwrap_or_else(|| format!("{:08x}", peer.0))
    }

    /// Dials the neighbours with greater names, accepts those with smaller ones: one connection per
    /// pair. At the start the others are dialled once, too.
    fn start_peers(&self, endpoint: &Arc<Endpoint>, events: &mpsc::Sender<Event>) -> Vec<AbortHandle> {
        let settings = self.region.settings();
        let mut tasks = Vec::new();
        let contexts: BTreeMap<String, peer::Context> = settings
            .topology
            .graph
            .neighbours(&settings.region)
            .iter()
            .map(|name| (name.to_string(), self.context(name.as_str(), events.clone())))
            .collect();
        for (name, context) in &contexts {
            let Some(configured) = settings.regions.values().find(|r| r.name.as_str() == name) else {
                continue;
            };
            let peer = RegionId::of(name);
            let (endpoint, name, context) = (Arc::clone(endpoint), name.clone(), context.clone());
            let address = configured.address.clone();
            let task = if name.as_str() > settings.region.as_str() {
                let seed = self.region.boot() ^ u64::from(peer.0);
                tokio::spawn(peer::dial(endpoint, name, address, peer, context, seed))
            } else {
                tokio::spawn(peer::announce(endpoint, name, address, peer, context))
            };
            tasks.push(task.abort_handle());
        }
        let metrics = Arc::clone(self.region.metrics());
        let endpoint = Arc::clone(endpoint);
        tasks.push(
            tokio::spawn(async move {
                while let Some(accepted) = endpoint.accept().await {
                    match accepted {
                        Ok(connection) => {
                            let Some(context) = contexts.get(&connection.region).cloned() else { continue };
                            let peer = RegionId::of(&connection.region);
                            tokio::spawn(peer::run(connection, peer, context, false));
                        }
                        Err(refused) => {
                            let reason = format!("{:?}", refused.refusal.close_reason());
                            metrics.link_refusals.with_label_values(&[&reason]).inc();
                        }
                    }
                }
            })
            .abort_handle(),
        );
        tasks
    }

    fn context(&self, name: &str, events: mpsc::Sender<Event>) -> peer::Context {
        let bytes = &self.region.metrics().link_bytes;
        peer::Context {
            standing: Arc::default(),
            events,
            frame_limit: frame_limit(self.region.settings()),
            received: bytes.with_label_values(&[name, "received", "ops"]),
            received_control: bytes.with_label_values(&[name, "received", "control"]),
            sent_control: bytes.with_label_values(&[name, "sent", "control"]),
        }
    }

    /// Sees to it that the incarnation is safe to write under; see [`Region::confirmed`].
    fn confirm(&mut self) {
        if self.region.is_confirmed() {
            return;
        }
        if self.replica.unconfirmed().next().is_none() {
            return self.region.confirm();
        }
        if self.region.uptime() < CONFIRM_WITHIN {
            return;
        }
        self.take_new_incarnation(
            "not all neighbours answered at the start, so what was given out is not known",
        );
        self.region.confirm();
    }

    fn take_new_incarnation(&mut self, because: &str) {
        match self.region.take_new_incarnation(because) {
            Ok(origin) => {
                self.replica.handle_reincarnated(origin, &self.region.sequencer().applied());
                self.region.confirm();
            }
            Err(error) => tracing::error!(%error, "cannot take a new incarnation; links stay closed"),
        }
    }

    async fn handle(&mut self, event: Event) {
        let (now, wall) = (self.region.mono(), self.region.wall());
        let (sequence, hlc) = self.region.sequencer().progress();
        self.replica.handle_local(sequence, hlc);
        match event {
            Event::Connected { peer, wire, session } => {
                self.last_session += 1;
                let number = self.last_session;
                if session.send(number).is_ok() {
                    self.stop_feeds(peer);
                    self.replica.handle_connected(now, peer, number);
                    // The effects so far close the old connection, over its own wire.
                    self.carry_out_for(peer, number, wire).await;
                }
            }
            Event::Disconnected { peer, session } => {
                self.replica.handle_disconnected(peer, session);
                if self.wires.get(&peer).is_some_and(|(current, _)| *current == session) {
                    self.wires.remove(&peer);
                    self.stop_feeds(peer);
                }
            }
            Event::Control { peer, session, control } => {
                self.replica.handle_control(now, wall, peer, session, control);
            }
            Event::Batch { peer, session, subscription, batch } => {
                self.wait_for_log().await;
                self.batch(peer, session, subscription, &batch).await;
            }
            Event::Trouble { peer, error } => self.trouble(peer, error),
            Event::Durable(vector) => self.replica.handle_durable(now, &vector),
        }
    }

    fn trouble(&mut self, peer: RegionId, error: String) {
        if self.troubles.get(&peer) != Some(&error) {
            tracing::warn!(peer = self.name(peer), error, "link");
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
        let ops = match BatchDecoder::new(batch) {
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

    async fn carry_out(&mut self) {
        let mut applied = false;
        while let Some(effect) = self.replica.poll_effect() {
            applied |= matches!(effect, Effect::Deliver(_));
            self.effect(effect).await;
        }
        self.region.log().wake();
        if applied {
            self.region.progress.notify_waiters();
        }
    }

    /// Carries out what a new connection brings: first what concerns the old one, then over the new.
    async fn carry_out_for(&mut self, peer: RegionId, session: u64, wire: Wire) {
        let mut later = Vec::new();
        while let Some(effect) = self.replica.poll_effect() {
            let concerns_new = matches!(
                &effect,
                Effect::Send { session: s, .. } | Effect::CloseLink { session: s, .. } if *s == session
            );
            if concerns_new {
                later.push(effect);
            } else {
                self.effect(effect).await;
            }
        }
        self.wires.insert(peer, (session, wire));
        for effect in later {
            self.effect(effect).await;
        }
    }

    async fn effect(&mut self, effect: Effect<Bytes>) {
        match effect {
            Effect::Deliver(op) => {
                if let Err(error) = self.applier.apply(&self.region, &op).await {
                    tracing::error!(%error, dot = ?op.header.stamp(), "cannot place an op; restart this region");
                }
            }
            Effect::Send { peer, session, control } => {
                if let Some((current, wire)) = self.wires.get(&peer)
                    && *current == session
                    && wire.outbound.try_send(Outbound::Control(control)).is_err()
                {
                    // It does not read, or is gone: a new connection starts from the vectors.
                    wire.connection.close(
                        quinn::VarInt::from_u32(CloseReason::Silent.code()),
                        CloseReason::Silent.text().as_bytes(),
                    );
                }
            }
            Effect::StartFeed { peer, session, subscription, feed } => {
                self.start_feed(peer, session, subscription, feed);
            }
            Effect::StopFeed { peer, subscription, .. } => {
                if let Some(task) = self.feeds.remove(&(peer, subscription)) {
                    task.abort();
                }
            }
            Effect::CloseLink { peer, session, reason } => {
                tracing::info!(peer = self.name(peer), %reason, "closing a link");
                self.trouble(peer, reason.to_string());
                self.close(peer, session, close_reason(reason), &reason.to_string()).await;
            }
            Effect::TakeNewIncarnation(amnesia) => {
                let because = format!(
                    "{} knows op {} of this region's, which remembers {} only",
                    self.name(amnesia.peer),
                    amnesia.known.counter,
                    amnesia.remembered
                );
                self.take_new_incarnation(&because);
            }
            Effect::Notice(notice) => self.notice(&notice),
        }
    }

    fn start_feed(
        &mut self,
        peer: RegionId,
        session: u64,
        subscription: u64,
        feed: meridian_topology::feed::Feed,
    ) {
        let Some((current, wire)) = self.wires.get(&peer) else { return };
        if *current != session {
            return;
        }
        let (region, connection) = (Arc::clone(&self.region), wire.connection.clone());
        let name = self.name(peer);
        let sent = region.metrics().link_bytes.with_label_values(&[&name, "sent", "ops"]);
        let unsent = region.metrics().unacked_bytes.with_label_values(&[&name]);
        let task = tokio::spawn(async move {
            let closing = connection.clone();
            if let Err(error) = outgoing::send(region, connection, subscription, feed, sent, unsent).await {
                tracing::debug!(peer = name, %error, "a feed ended");
                // If the connection still stands, the subscriber must ask anew.
                closing.close(
                    quinn::VarInt::from_u32(CloseReason::Internal.code()),
                    error.to_string().as_bytes(),
                );
            }
        });
        self.feeds.insert((peer, subscription), task.abort_handle());
    }

    fn stop_feeds(&mut self, peer: RegionId) {
        self.feeds.retain(|(subscriber, _), task| {
            if *subscriber == peer {
                task.abort();
            }
            *subscriber != peer
        });
    }

    async fn close(&mut self, peer: RegionId, session: u64, reason: CloseReason, detail: &str) {
        if self.wires.get(&peer).is_some_and(|(current, _)| *current == session)
            && let Some((_, wire)) = self.wires.remove(&peer)
        {
            self.stop_feeds(peer);
            if wire.outbound.try_send(Outbound::Close(reason, detail.to_owned())).is_err() {
                wire.connection.close(quinn::VarInt::from_u32(reason.code()), detail.as_bytes());
            }
        }
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Up { peer } => {
                self.troubles.remove(peer);
                self.holds.remove(peer);
                tracing::info!(peer = self.name(*peer), "link up");
            }
            Notice::Down { peer } => tracing::warn!(peer = self.name(*peer), "link down"),
            Notice::Held { peer, hold } => {
                let name = self.name(*peer);
                if let replica::Hold::Skew { .. } = hold {
                    self.region.metrics().clock_rejected.with_label_values(&[&name]).inc();
                }
                // A hold is tried again each second: told once.
                if self.holds.insert(*peer, *hold) != Some(*hold) {
                    tracing::warn!(peer = name, ?hold, "link held: nothing is lost, ops wait at the peer");
                }
            }
            Notice::Resumed { peer } => tracing::debug!(peer = self.name(*peer), "link tried again"),
            Notice::Silent { peer } => tracing::warn!(peer = self.name(*peer), "a neighbour is silent"),
            Notice::Heard { peer } => tracing::info!(peer = self.name(*peer), "a neighbour is heard again"),
            Notice::DigestsDiffer { peer, topology, policies } => {
                tracing::error!(peer = self.name(*peer), topology, policies, "configurations differ");
            }
            Notice::SecondHolder { peer } => {
                tracing::error!(peer = self.name(*peer), "this region runs twice; the second is refused");
            }
        }
        self.keep_house();
    }

    /// Status, metrics, and what the log may forget.
    fn keep_house(&mut self) {
        let metrics = Arc::clone(self.region.metrics());
        let wall = self.region.wall().0;
        let mut have_all: Option<VersionVector> = None;
        for status in self.replica.status() {
            let name = self.name(status.peer);
            let label = [name.as_str()];
            let up = matches!(status.phase, Phase::Up | Phase::Held(_));
            metrics.link_up.with_label_values(&label).set(i64::from(up));
            if let Some(ms) = status.round_trip_ms {
                metrics.link_rtt.with_label_values(&label).set(ms as f64 / 1e3);
            }
            if let Some(ms) = status.clock_offset_ms {
                metrics.peer_clock_skew.with_label_values(&label).set(ms as f64 / 1e3);
            }
            metrics
                .unacked_ops
                .with_label_values(&label)
                .set(i64::try_from(status.behind_ops).unwrap_or(i64::MAX));
            for (what, differs) in
                [("topology", status.topology_differs), ("policies", status.policies_differ)]
            {
                metrics.config_mismatch.with_label_values(&[&name, what]).set(i64::from(differs));
            }
            self.show(&name, &status, up, wall);
            if self.is_subscriber(status.peer) {
                have_all = Some(match have_all {
                    Some(mut known) => {
                        known.glb(&status.acknowledged);
                        known
                    }
                    None => status.acknowledged.clone(),
                });
            }
        }
        let delivery = self.replica.delivery();
        metrics.pending_bytes.set(i64::try_from(delivery.pending_bytes()).unwrap_or(i64::MAX));
        self.show_pending(&metrics);
        let delivery = self.replica.delivery();
        let waits = delivery.causal_waits();
        metrics.causal_waits.inc_by(waits.saturating_sub(self.waits));
        self.waits = waits;
        for (peer, count) in delivery.duplicates() {
            let known = self.duplicates.entry(*peer).or_default();
            let name = self.names.get(peer).cloned().unwrap_or_default();
            metrics.duplicate_ops.with_label_values(&[&name]).inc_by(count.saturating_sub(*known));
            *known = *count;
        }
        self.tell_truncation(have_all);
    }

    /// Held ops by origin; a gauge that was set once is set to zero when nothing is held any more.
    fn show_pending(&mut self, metrics: &crate::metrics::Metrics) {
        let held = self.replica.delivery().pending_by_origin();
        self.pending_shown.extend(held.keys().copied());
        for origin in &self.pending_shown {
            let name = self.names.get(&origin.region()).cloned().unwrap_or_default();
            let label = format!("{name}.{:08x}", origin.incarnation());
            let count = held.get(origin).copied().unwrap_or(0);
            metrics.pending_ops.with_label_values(&[&label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn is_subscriber(&self, peer: RegionId) -> bool {
        let settings = self.region.settings();
        settings.topology.graph.fed_by(&settings.region).iter().any(|r| RegionId::of(r.as_str()) == peer)
    }

    fn show(&mut self, name: &str, status: &replica::PeerStatus, up: bool, wall: u64) {
        let bytes = &self.region.metrics().link_bytes;
        let total = |direction| {
            bytes.with_label_values(&[name, direction, "ops"]).get()
                + bytes.with_label_values(&[name, direction, "control"]).get()
        };
        let text = match status.phase {
            Phase::Down => "down".to_owned(),
            Phase::Greeting => "greeting".to_owned(),
            Phase::Up if status.silent => "silent".to_owned(),
            Phase::Up => "up".to_owned(),
            Phase::Held(hold) => format!("held: {hold:?}"),
        };
        let mut states = self.states.lock();
        let state = states.entry(name.to_owned()).or_default();
        state.peer = name.to_owned();
        if state.state != text {
            state.state = text;
            state.since_ms = wall;
        }
        state.connected = up;
        state.rtt_ms = status.round_trip_ms.map(|ms| ms as f64);
        state.unacked_ops = status.behind_ops;
        state.sent_bytes = total("sent");
        state.received_bytes = total("received");
        state.last_error = self.troubles.get(&status.peer).cloned();
        state.protocol = up.then_some(1);
        state.mismatches = [("topology", status.topology_differs), ("policies", status.policies_differ)]
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(what, _)| what.to_owned())
            .collect();
    }

    /// Tells the committer what every subscriber has, and the state machine what the log has lost.
    fn tell_truncation(&mut self, have_all: Option<VersionVector>) {
        let segments = self.region.log().segments();
        let subscribers = {
            let settings = self.region.settings();
            settings.topology.graph.fed_by(&settings.region).len()
        };
        let below = match have_all {
            None if subscribers == 0 => self.region.log().written_lsn(),
            None => Lsn(0),
            Some(vector) => segments
                .iter()
                .rev()
                .find(|segment| {
                    AppliedMark::decode(&segment.mark)
                        .is_some_and(|mark| meridian_conflict::clock::covers_all(&vector, &mark.0))
                })
                .map_or(Lsn(0), |segment| segment.previous_end),
        };
        self.region.committer().set_peers_have(below);
        let Some(oldest) = segments.first() else { return };
        let known = Some((oldest.start, self.region.sequencer().floor()));
        if self.truncated != known
            && let Some(mark) = AppliedMark::decode(&oldest.mark)
        {
            let mut lost = mark.0.as_ref().clone();
            crdts::CvRDT::merge(&mut lost, self.region.sequencer().floor());
            self.replica.handle_truncated(lost);
            self.truncated = known;
        }
    }
}

fn close_reason(reason: ReplicaClose) -> CloseReason {
    match reason {
        ReplicaClose::Replaced => CloseReason::Replaced,
        ReplicaClose::NotNeighbour => CloseReason::UnknownRegion,
        ReplicaClose::WrongCluster => CloseReason::WrongCluster,
        ReplicaClose::WrongRegion => CloseReason::WrongRegion,
        ReplicaClose::NoCommonProtocol => CloseReason::VersionMismatch,
        ReplicaClose::OwnIdentity | ReplicaClose::SecondHolder => CloseReason::IncarnationConflict,
        ReplicaClose::Protocol(_) => CloseReason::ProtocolError,
        ReplicaClose::NoHello => CloseReason::Silent,
        ReplicaClose::Goodbye | ReplicaClose::Ending => CloseReason::ShuttingDown,
    }
}
