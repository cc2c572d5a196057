//! A region's side of all its links: a state machine without I/O.
//!
//! # Order of calls
//!
//! 1. [`Replica::new`] with the recovered origin and applied vector.
//! 2. Whenever something happens, one `handle_*`. Before handling what came from a peer, call
//!    [`Replica::handle_local`] with the sequencer's present state, so that the replica knows
//!    every sequence number that a peer could have heard of.
//! 3. Then [`Replica::poll_effect`] until it returns `None`, carrying out each effect in order.
//! 4. Then [`Replica::poll_timeout`]: call [`Replica::handle_timeout`] at that time at the latest.
//!
//! A connection is named by the peer's region (from its certificate) and a session number, larger
//! for every connection of this process. Two regions that dial each other at once have to agree
//! on one connection before they tell the replica (the one dialled by the smaller region stays):
//! here the newest replaces the others.
//!
//! # What it guarantees
//!
//! - Every op is delivered once, after everything its writer had seen ([`crate::delivery`]).
//! - Only durable vectors are acknowledged, at most once per `ack_every_ms` and link.
//! - A stamp too far ahead is not admitted, nor anything after it from that peer, and the link is
//!   held with the reason; it is tried again each second (K2).
//! - A peer that knows more of our own origin than we gave out makes us take a new incarnation
//!   (R1); a peer that presents our identity, or one that runs twice, is refused (R3).

mod effect;
mod intake;
mod link;
mod settings;
mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector};
use meridian_conflict::op::Op;

use crate::delivery::Delivery;
use crate::feed::Feed;
use crate::frame::{Control, GoodbyeReason, Heartbeat, Hello, PROTOCOLS, Refusal};
use crate::time::{MonoMs, WallMs};
use link::{Holder, Holders, Intake, Link, distance, merge};

pub use effect::Effect;
pub use link::Routes;
pub use settings::Settings;
pub use status::{Amnesia, CloseReason, Hold, Notice, PeerStatus, Phase};

/// The state machine. `B` is an op's encoded body.
#[derive(Clone, Debug)]
pub struct Replica<B> {
    settings: Settings,
    region: RegionId,
    origin: Origin,
    own_sequence: u64,
    hlc: Hlc,
    routes: Routes,
    delivery: Delivery<B>,
    durable: VersionVector,
    oldest: VersionVector,
    links: BTreeMap<RegionId, Link>,
    holders: BTreeMap<RegionId, Holders>,
    next_subscription: u64,
    amnesiac: bool,
    forget_held_at: Option<MonoMs>,
    effects: VecDeque<Effect<B>>,
}

impl<B: AsRef<[u8]>> Replica<B> {
    /// A replica without connections, writing as `origin`, that has durably applied `applied`.
    pub fn new(settings: Settings, routes: Routes, origin: Origin, applied: VersionVector) -> Self {
        let delivery = Delivery::new(applied.clone(), settings.pending_bytes_max);
        Self {
            region: RegionId::of(&settings.region),
            own_sequence: applied.get(&origin),
            hlc: Hlc::default(),
            settings,
            origin,
            routes,
            delivery,
            durable: applied,
            oldest: VersionVector::new(),
            links: BTreeMap::new(),
            holders: BTreeMap::new(),
            next_subscription: 1,
            amnesiac: false,
            forget_held_at: None,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do, or `None` when all is done for now.
    pub fn poll_effect(&mut self) -> Option<Effect<B>> {
        self.effects.pop_front()
    }

    /// Tells how far the sequencer has come: the last sequence number given out under the current
    /// origin, and its clock.
    pub fn handle_local(&mut self, sequence: u64, hlc: Hlc) {
        self.hlc = self.hlc.max(hlc);
        if sequence > self.own_sequence {
            self.own_sequence = sequence;
            let effects = &mut self.effects;
            self.delivery.advance(self.origin, sequence, &mut |op| effects.push_back(Effect::Deliver(op)));
        }
    }

    /// A connection to `peer` stands. An older one is replaced at once, however alive it looks (L4).
    pub fn handle_connected(&mut self, now: MonoMs, peer: RegionId, session: u64) {
        let reason = if peer == self.region {
            Some(CloseReason::OwnIdentity)
        } else if !self.routes.has(peer) {
            Some(CloseReason::NotNeighbour)
        } else if self.amnesiac {
            Some(CloseReason::Ending)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.effects.push_back(Effect::CloseLink { peer, session, reason });
            return;
        }
        self.close(peer, CloseReason::Replaced);
        self.links.insert(peer, Link::new(now, session));
        let hello = Hello {
            protocols: PROTOCOLS,
            cluster: self.settings.cluster.clone(),
            region: self.settings.region.clone(),
            origin: self.origin,
            boot: self.settings.boot,
            topology_digest: self.settings.topology_digest,
            policy_digest: self.settings.policy_digest,
            applied: self.delivery.admitted().clone(),
            held: self.delivery.held_of(peer),
        };
        self.send(peer, Control::Hello(Box::new(hello)));
    }

    /// The connection is gone. Ignored for one that was replaced.
    pub fn handle_disconnected(&mut self, peer: RegionId, session: u64) {
        if self.is_current(peer, session) {
            self.drop_link(peer);
        }
    }

    /// A message came on the control stream. Ignored on a connection that was replaced.
    pub fn handle_control(
        &mut self,
        now: MonoMs,
        wall: WallMs,
        peer: RegionId,
        session: u64,
        control: Control,
    ) {
        if !self.is_current(peer, session) {
            return;
        }
        self.heard(now, peer);
        let greeted = self.links.get(&peer).is_some_and(|link| link.greeted.is_some());
        match control {
            Control::Hello(hello) if !greeted => self.hello(now, peer, &hello),
            Control::Hello(_) => self.close(peer, CloseReason::Protocol("a second hello")),
            _ if !greeted => self.close(peer, CloseReason::Protocol("no hello first")),
            Control::Subscribe { id, regions, from } => {
                if self.believes(peer, &from) {
                    self.subscribed(peer, id, regions, from);
                }
            }
            Control::Unsubscribe { id } => self.stop_feed(peer, Some(id)),
            Control::SubscribeRefused { id, reason } => self.subscription_refused(now, peer, id, reason),
            Control::Ack { durable } => {
                if self.believes(peer, &durable)
                    && let Some(link) = self.links.get_mut(&peer)
                {
                    merge(&mut link.acknowledged, &durable);
                    merge(&mut link.peer_applied, &durable);
                }
            }
            Control::Heartbeat(heartbeat) => {
                if self.believes(peer, &heartbeat.applied)
                    && let Some(link) = self.links.get_mut(&peer)
                {
                    link.heartbeat(now, wall, &heartbeat);
                }
            }
            Control::Goodbye { .. } => self.close(peer, CloseReason::Goodbye),
        }
    }

    /// Ops came on the stream of `subscription`. Those of a subscription given up are ignored.
    pub fn handle_batch(
        &mut self,
        now: MonoMs,
        wall: WallMs,
        peer: RegionId,
        session: u64,
        subscription: u64,
        ops: impl IntoIterator<Item = Op<B>>,
    ) {
        if !self.is_current(peer, session) {
            return;
        }
        self.heard(now, peer);
        let before = self.delivery.delivered();
        for op in ops {
            let Some(Link { intake: Intake::Open { id, last_batch, .. }, .. }) = self.links.get_mut(&peer)
            else {
                return;
            };
            if *id != subscription {
                return;
            }
            *last_batch = now;
            self.receive(now, wall, peer, op);
        }
        self.resume_if_drained(now);
        if self.delivery.delivered() > before {
            self.hurry_probes(now);
        }
    }

    /// Everything up to `durable` is safe on disk here.
    pub fn handle_durable(&mut self, now: MonoMs, durable: &VersionVector) {
        merge(&mut self.durable, durable);
        let due: Vec<RegionId> = self
            .links
            .iter_mut()
            .filter(|(peer, link)| link.greeted.is_some() && self.routes.feeders.contains_key(*peer))
            .filter(|(_, link)| distance(&self.durable, &link.ack_sent) > 0)
            .filter_map(|(peer, link)| {
                let at = link.ack_sent_at.map_or(now, |sent| sent.after(self.settings.ack_every_ms));
                link.ack_at = Some(at);
                (at <= now).then_some(*peer)
            })
            .collect();
        due.into_iter().for_each(|peer| self.acknowledge(now, peer));
    }

    /// The log no longer holds ops up to `oldest`.
    pub fn handle_truncated(&mut self, oldest: VersionVector) {
        self.oldest = oldest;
    }

    /// This region goes on as `origin`, having applied `applied`: local ops given out under the
    /// former origin up to the change are not to be taken from peers again. All links were closed
    /// when the need for it was found; connections made from now on present the new identity.
    pub fn handle_reincarnated(&mut self, origin: Origin, applied: &VersionVector) {
        self.end(GoodbyeReason::NewIncarnation);
        self.handle_local(applied.get(&self.origin), Hlc::default());
        self.origin = origin;
        self.own_sequence = applied.get(&origin);
        self.amnesiac = false;
    }

    /// Other feeds are in force. Links without a feed close; subscriptions are taken up anew.
    pub fn handle_routes(&mut self, now: MonoMs, routes: Routes, topology_digest: u64) {
        self.settings.topology_digest = topology_digest;
        self.routes = routes;
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            if !self.routes.has(peer) {
                self.close(peer, CloseReason::NotNeighbour);
                continue;
            }
            if !self.routes.subscribers.contains(&peer) {
                self.stop_feed(peer, None);
            }
            self.unsubscribe(peer);
            self.subscribe(now, peer, false);
        }
    }

    /// Says goodbye to every peer and closes its link.
    pub fn end(&mut self, reason: GoodbyeReason) {
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            self.send(peer, Control::Goodbye { reason });
            self.close(peer, CloseReason::Ending);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: MonoMs, wall: WallMs) {
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            self.link_timeout(now, wall, peer);
        }
        if self.delivery.pending_ops() == 0 {
            self.forget_held_at = None;
        }
        if self.forget_held_at.is_some_and(|at| at <= now) {
            self.forget_held_at = None;
            self.delivery.forget_held();
            let peers: Vec<RegionId> = self.links.keys().copied().collect();
            for peer in peers {
                self.unsubscribe(peer);
                self.subscribe(now, peer, false);
            }
        }
        self.resume_if_drained(now);
    }

    /// When [`Replica::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<MonoMs> {
        let links = self.links.values().flat_map(|link| self.deadlines(link)).flatten();
        links.chain(self.forget_held_at).min()
    }

    fn deadlines(&self, link: &Link) -> [Option<MonoMs>; 4] {
        if link.greeted.is_none() {
            return [Some(link.since.after(self.settings.hello_within_ms)), None, None, None];
        }
        let intake = match link.intake {
            Intake::Held { retry_at, .. } => Some(retry_at),
            Intake::Open { dropped: true, last_batch, .. } => {
                Some(last_batch.after(self.settings.retry_ms / 10))
            }
            _ => None,
        };
        let silence = (!link.silent).then(|| link.last_heard.after(self.settings.heal_after_ms));
        [Some(link.heartbeat_at), link.ack_at, intake, silence]
    }

    fn link_timeout(&mut self, now: MonoMs, wall: WallMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.greeted.is_none() {
            if now.since(link.since) >= self.settings.hello_within_ms {
                self.close(peer, CloseReason::NoHello);
            }
            return;
        }
        if !link.silent && now.since(link.last_heard) >= self.settings.heal_after_ms {
            link.silent = true;
            self.effects.push_back(Effect::Notice(Notice::Silent { peer }));
        }
        let (intake, ack_at, heartbeat_at) = (link.intake, link.ack_at, link.heartbeat_at);
        if ack_at.is_some_and(|at| at <= now) {
            self.acknowledge(now, peer);
        }
        if heartbeat_at <= now {
            self.beat(now, wall, peer);
        }
        match intake {
            Intake::Held { hold, retry_at } if retry_at <= now => {
                self.subscribe(now, peer, hold == Hold::PendingFull);
            }
            Intake::Open { dropped: true, last_batch, .. }
                if now.since(last_batch) >= self.settings.retry_ms / 10 =>
            {
                self.hold(now, peer, Hold::PendingFull);
            }
            _ => {}
        }
    }

    fn beat(&mut self, now: MonoMs, wall: WallMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.heartbeat_at = now.after(self.settings.heartbeat_ms);
        let heartbeat = Heartbeat {
            sent: now,
            wall,
            hlc: self.hlc,
            echo: link.echo(now),
            applied: self.delivery.admitted().clone(),
        };
        self.send(peer, Control::Heartbeat(heartbeat));
    }

    fn acknowledge(&mut self, now: MonoMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let durable = link.take_ack(now, &self.durable);
        if !durable.is_empty() {
            self.send(peer, Control::Ack { durable });
        }
    }

    fn hello(&mut self, now: MonoMs, peer: RegionId, hello: &Hello) {
        if let Err(reason) = self.check_hello(peer, hello) {
            self.close(peer, reason);
            return;
        }
        if !self.believes(peer, &hello.applied) || !self.believes(peer, &hello.held) {
            return;
        }
        match self.holders.entry(peer).or_default().present(hello.origin, hello.boot) {
            Holder::Fine => {}
            Holder::Restarted if self.delivery.pending_ops() > 0 => {
                self.forget_held_at = Some(now.after(self.settings.forget_held_ms));
            }
            Holder::Restarted => {}
            Holder::FirstIsBack => self.effects.push_back(Effect::Notice(Notice::SecondHolder { peer })),
            Holder::Second => {
                self.effects.push_back(Effect::Notice(Notice::SecondHolder { peer }));
                self.close(peer, CloseReason::SecondHolder);
                return;
            }
        }
        self.holders.entry(peer).or_default().confirmed = true;
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.greet(hello, self.settings.topology_digest, self.settings.policy_digest);
        let (topology, policies) = (
            hello.topology_digest != self.settings.topology_digest,
            hello.policy_digest != self.settings.policy_digest,
        );
        self.effects.push_back(Effect::Notice(Notice::Up { peer }));
        if topology || policies {
            self.effects.push_back(Effect::Notice(Notice::DigestsDiffer { peer, topology, policies }));
        }
        self.subscribe(now, peer, false);
        if self.routes.feeders.contains_key(&peer) {
            self.acknowledge(now, peer);
        }
    }

    fn check_hello(&self, peer: RegionId, hello: &Hello) -> Result<(), CloseReason> {
        if hello.cluster != self.settings.cluster {
            return Err(CloseReason::WrongCluster);
        }
        if hello.origin == self.origin || hello.region == self.settings.region {
            return Err(CloseReason::OwnIdentity);
        }
        if RegionId::of(&hello.region) != peer || hello.origin.region() != peer {
            return Err(CloseReason::WrongRegion);
        }
        PROTOCOLS.common(hello.protocols).map(|_| ()).ok_or(CloseReason::NoCommonProtocol)
    }

    /// Whether what the peer knows of our own origin can be true. If not, we have forgotten ops
    /// that others have: the present origin must not be used any more.
    fn believes(&mut self, peer: RegionId, vector: &VersionVector) -> bool {
        self.believes_own(peer, vector.get(&self.origin))
    }

    fn believes_own(&mut self, peer: RegionId, sequence: u64) -> bool {
        if sequence <= self.own_sequence {
            return true;
        }
        if !self.amnesiac {
            self.amnesiac = true;
            let known = Dot::new(self.origin, sequence);
            let amnesia = Amnesia { peer, known, remembered: self.own_sequence };
            self.effects.push_back(Effect::TakeNewIncarnation(amnesia));
            self.end(GoodbyeReason::NewIncarnation);
        }
        false
    }

    fn subscribed(
        &mut self,
        peer: RegionId,
        id: u64,
        regions: std::collections::BTreeSet<RegionId>,
        from: VersionVector,
    ) {
        self.stop_feed(peer, None);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(subscriber) = link.greeted.as_ref().map(|greeted| greeted.origin) else { return };
        merge(&mut link.peer_applied, &from);
        let feed = Feed::new(regions, subscriber, from);
        let refusal = if !self.routes.subscribers.contains(&peer) {
            Some(Refusal::NotNeighbour)
        } else if !feed.is_within(&self.oldest) {
            Some(Refusal::PastLog)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.send(peer, Control::SubscribeRefused { id, reason });
            return;
        }
        link.feed = Some(id);
        let session = link.session;
        self.effects.push_back(Effect::StartFeed { peer, session, subscription: id, feed });
    }

    fn stop_feed(&mut self, peer: RegionId, only: Option<u64>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(subscription) = link.feed else { return };
        if only.is_none_or(|only| only == subscription) {
            link.feed = None;
            let session = link.session;
            self.effects.push_back(Effect::StopFeed { peer, session, subscription });
        }
    }

    fn send(&mut self, peer: RegionId, control: Control) {
        if let Some(link) = self.links.get(&peer) {
            self.effects.push_back(Effect::Send { peer, session: link.session, control });
        }
    }

    fn heard(&mut self, now: MonoMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.last_heard = now;
        if std::mem::replace(&mut link.silent, false) {
            self.effects.push_back(Effect::Notice(Notice::Heard { peer }));
        }
    }

    fn close(&mut self, peer: RegionId, reason: CloseReason) {
        if let Some(session) = self.drop_link(peer) {
            self.effects.push_back(Effect::CloseLink { peer, session, reason });
        }
    }

    fn drop_link(&mut self, peer: RegionId) -> Option<u64> {
        self.stop_feed(peer, None);
        let link = self.links.remove(&peer)?;
        if link.greeted.is_some() {
            self.effects.push_back(Effect::Notice(Notice::Down { peer }));
        }
        Some(link.session)
    }

    fn is_current(&self, peer: RegionId, session: u64) -> bool {
        self.links.get(&peer).is_some_and(|link| link.session == session)
    }

    /// Who writes here.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Dedupe, held ops and their counters.
    pub fn delivery(&self) -> &Delivery<B> {
        &self.delivery
    }

    /// Neighbours that have not said hello since this replica was made. Once it is empty, no
    /// neighbour knows more of our origin than we do: a region that may have been restored from a
    /// copy has to wait for that before it gives out its first sequence number (and has to remember
    /// over restarts that it is still waiting).
    pub fn unconfirmed(&self) -> impl Iterator<Item = RegionId> + '_ {
        let confirmed = |peer: &RegionId| self.holders.get(peer).is_some_and(|h| h.confirmed);
        self.routes.neighbours().into_iter().filter(move |peer| !confirmed(peer))
    }

    /// What `peer` has acknowledged as durable on its present link.
    pub fn acknowledged(&self, peer: RegionId) -> Option<&VersionVector> {
        self.links.get(&peer).map(|link| &link.acknowledged)
    }

    /// Every neighbour, connected or not.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.routes.neighbours().into_iter().map(|peer| self.peer_status(peer)).collect()
    }

    fn peer_status(&self, peer: RegionId) -> PeerStatus {
        let none = Link::new(MonoMs(0), 0);
        let (phase, link) = match self.links.get(&peer) {
            Some(link) => (link.phase(), link),
            None => (Phase::Down, &none),
        };
        let admitted = self.delivery.admitted();
        PeerStatus {
            peer,
            phase,
            silent: link.silent,
            round_trip_ms: link.round_trip_ms,
            clock_offset_ms: link.clock_offset_ms,
            acknowledged: link.acknowledged.clone(),
            lag_ops: distance(&link.peer_applied, admitted),
            behind_ops: distance(admitted, &link.peer_applied),
            topology_differs: link.greeted.as_ref().is_some_and(|g| g.topology_differs),
            policies_differ: link.greeted.as_ref().is_some_and(|g| g.policies_differ),
        }
    }
}
