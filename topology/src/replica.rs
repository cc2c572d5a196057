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
//! - Routes heal by themselves ([`crate::route`]); every region learns what every region has durably
//!   applied ([`crate::stability`]).
//! - A stamp too far ahead is not admitted, nor anything after it from that peer, and the link is
//!   held with the reason; it is tried again each second (K2).
//! - A peer that knows more of our own origin than we gave out makes us take a new incarnation
//!   (R1); a peer that presents our identity, or one that runs twice, is refused (R3).

mod effect;
mod greeting;
mod hooks;
mod intake;
mod link;
mod loading;
mod policies;
mod routing;
mod rows;
mod settings;
mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
mod timing;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meridian_conflict::clock::{Hlc, Origin, RegionId, VersionVector};
use meridian_conflict::hook::quarantine::Quarantine;
use meridian_conflict::op::Op;

use crate::delivery::Delivery;
use crate::feed::Feed;
use crate::frame::{Announced, Control, GoodbyeReason, Hello, Refusal};
use crate::graph::Graph;
use crate::ledger::Ledger;
use crate::route::{Router, lives};
use crate::stability::Stability;
use crate::time::{MonoMs, WallMs};
use link::{Holders, Intake, Link, merge};

pub use effect::Effect;
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
    topology_digest: u64,
    router: Router,
    /// By feeder, the regions subscribed to there.
    subscriptions: BTreeMap<RegionId, BTreeSet<RegionId>>,
    /// Whom to dial, as last told.
    dials: BTreeSet<RegionId>,
    reroutes: BTreeMap<RegionId, u64>,
    delivery: Delivery<B>,
    stability: Stability,
    /// When members were last looked at.
    reviewed: MonoMs,
    /// What the log does not have, and what of that is before its beginning.
    oldest: VersionVector,
    truncated: VersionVector,
    links: BTreeMap<RegionId, Link>,
    holders: BTreeMap<RegionId, Holders>,
    next_subscription: u64,
    amnesiac: bool,
    /// While another region's state is taken over: what was here before.
    base: Option<VersionVector>,
    /// Whose objects are being merged.
    donor: Option<RegionId>,
    forget_held_at: Option<MonoMs>,
    /// Lives of regions that were removed: refused even when the region is a member again.
    retired: BTreeSet<Origin>,
    /// Regions with an op too far ahead of our clock, and when it came: no way around that.
    skewed: BTreeMap<RegionId, MonoMs>,
    /// Regions whose ops are lacked by ops that there was no room to hold.
    short_of: BTreeSet<RegionId>,
    /// Every member's policies, as far as they are known.
    announced: BTreeMap<RegionId, Announced>,
    quarantine: Quarantine,
    ledger: Ledger,
    /// When answers of hooks are told next.
    answers_at: Option<MonoMs>,
    effects: VecDeque<Effect<B>>,
}

impl<B: AsRef<[u8]>> Replica<B> {
    /// A replica without connections in the cluster `graph`, writing as `origin`, that has durably
    /// applied `applied`. The first [`Replica::handle_timeout`] says whom to dial.
    pub fn new(settings: Settings, graph: Graph, origin: Origin, applied: VersionVector) -> Self {
        let delivery = Delivery::new(applied.clone(), settings.pending_bytes_max);
        let own_sequence = applied.get(&origin);
        let members = graph.members().iter().map(|name| RegionId::of(name.as_str()));
        let Settings { life, lease_ms, young_ms, .. } = settings;
        let stability = Stability::new(origin, life, applied, members, lease_ms, young_ms);
        Self {
            region: RegionId::of(settings.region.as_str()),
            topology_digest: graph.digest(),
            router: Router::new(graph, settings.region.clone(), settings.heal_after_ms, settings.redundant),
            subscriptions: BTreeMap::new(),
            dials: BTreeSet::new(),
            reroutes: BTreeMap::new(),
            own_sequence,
            hlc: Hlc::default(),
            settings,
            origin,
            delivery,
            stability,
            reviewed: MonoMs(0),
            oldest: VersionVector::new(),
            truncated: VersionVector::new(),
            links: BTreeMap::new(),
            holders: BTreeMap::new(),
            next_subscription: 1,
            amnesiac: false,
            base: None,
            donor: None,
            forget_held_at: None,
            retired: BTreeSet::new(),
            skewed: BTreeMap::new(),
            short_of: BTreeSet::new(),
            announced: BTreeMap::new(),
            quarantine: Quarantine::default(),
            ledger: Ledger::default(),
            answers_at: None,
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
        self.stability.own_clock(sequence, hlc);
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
        } else if !self.router.is_peer(peer) {
            Some(CloseReason::NotMember)
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
            protocols: self.settings.protocols,
            cluster: self.settings.cluster.clone(),
            region: self.settings.region.to_string(),
            origin: self.origin,
            boot: self.settings.boot,
            topology_digest: self.topology_digest,
            policy_digest: self.settings.policy_digest,
            applied: self.delivery.admitted().clone(),
            held: self.delivery.held_of(peer),
        };
        self.send(peer, Control::Hello(Box::new(hello)));
    }

    /// The connection is gone. Ignored for one that was replaced.
    pub fn handle_disconnected(&mut self, now: MonoMs, peer: RegionId, session: u64) {
        if self.is_current(peer, session) {
            self.drop_link(peer);
            // What it had begun to give may depend on what it alone has.
            self.forget_held_soon(now);
            self.review(now);
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
            Control::Unsubscribe { id } => {
                self.stop_feed(peer, Some(id));
                self.find_unneeded(now);
            }
            Control::SubscribeRefused { id, reason } => self.subscription_refused(now, peer, id, reason),
            Control::Stability { rows } => self.take_rows(now, peer, &rows),
            Control::Heartbeat(heartbeat) => {
                if self.believes(peer, &heartbeat.applied)
                    && let Some(link) = self.links.get_mut(&peer)
                {
                    let other_topology = link.heartbeat(now, wall, &heartbeat);
                    if other_topology {
                        // Rows of regions that were no members there were not kept.
                        link.rows_known.clear();
                        self.introduce_rows(now, peer);
                        self.introduce_policies(peer);
                    }
                    self.review(now);
                }
            }
            Control::Goodbye { .. } => self.close(peer, CloseReason::Goodbye),
            Control::Policies(announced) => self.take_policies(peer, announced),
            Control::Answers(answers) => self.take_answers(now, wall, peer, answers),
            Control::Quarantine(entries) => self.take_quarantine(peer, entries),
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

    /// The log no longer holds ops up to `truncated`, because it begins later; nor ops up to `floor`, because it has
    /// jumped over them.
    pub fn handle_truncated(&mut self, truncated: VersionVector, floor: &VersionVector) {
        self.oldest = truncated.clone();
        merge(&mut self.oldest, floor);
        self.truncated = truncated;
    }

    /// This region goes on as `origin`, having applied `applied`: local ops given out under the
    /// former origin up to the change are not to be taken from peers again. All links were closed
    /// when the need for it was found; connections made from now on present the new identity.
    ///
    /// `durable` is what is durable here now.
    pub fn handle_reincarnated(&mut self, origin: Origin, applied: &VersionVector, durable: &VersionVector) {
        self.end(GoodbyeReason::NewIncarnation);
        self.handle_local(applied.get(&self.origin), Hlc::default());
        self.origin = origin;
        self.own_sequence = applied.get(&origin);
        self.amnesiac = false;
        let life = self.hlc.ms();
        self.stability.reincarnate(origin, life, self.told(durable));
    }

    /// Another topology is in force: regions joined or left, or the shape changed. Links to regions
    /// that left close, and so do those that are not needed any more; subscriptions that change are
    /// taken up anew from the vector.
    ///
    /// A region that left is refused from now on, and its lives that are known here are when it is a
    /// member again: it has to join as new, without its data and under a new incarnation.
    ///
    /// Ops of a region that left and that any member has still reach every member. A region that is
    /// not a member of `graph` itself has no peers any more.
    pub fn handle_topology(&mut self, now: MonoMs, graph: Graph) {
        self.topology_digest = graph.digest();
        let before: Vec<RegionId> = self.router.members().collect();
        self.router.set_graph(graph);
        let left: Vec<RegionId> = before
            .into_iter()
            .filter(|member| *member != self.region && !self.router.is_peer(*member))
            .collect();
        if !left.is_empty() {
            // Connected or not: what a region that left gave may depend on what it alone still has.
            self.forget_held_soon(now);
        }
        for left in left {
            self.retired.extend(lives(self.delivery.admitted(), left).map(|(origin, _)| origin));
            let greeted = self.links.get(&left).and_then(|link| link.greeted.as_ref());
            self.retired.extend(greeted.map(|greeted| greeted.origin));
            self.retired.extend(self.stability.row(left).map(|row| row.origin));
        }
        self.stability.set_members(self.router.members());
        self.forget_policies_of_strangers();
        let gone: Vec<RegionId> =
            self.links.keys().filter(|peer| !self.router.is_peer(**peer)).copied().collect();
        for peer in gone {
            self.close(peer, CloseReason::NotMember);
        }
        self.review(now);
    }

    /// Refuses these lives, too: those that were [`Replica::retired`] before a restart.
    pub fn handle_retired(&mut self, origins: impl IntoIterator<Item = Origin>) {
        self.retired.extend(origins);
    }

    /// Says goodbye to every peer and closes its link.
    pub fn end(&mut self, reason: GoodbyeReason) {
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            self.send(peer, Control::Goodbye { reason });
            self.close(peer, CloseReason::Ending);
        }
    }

    fn subscribed(&mut self, peer: RegionId, id: u64, regions: BTreeSet<RegionId>, from: VersionVector) {
        self.stop_feed(peer, None);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(subscriber) = link.greeted.as_ref().map(|greeted| greeted.origin) else { return };
        merge(&mut link.peer_applied, &from);
        let feed = Feed::new(regions, subscriber, from);
        // What was here before a takeover is still in the log, before the place where it jumps.
        let base = self.base.as_ref().filter(|base| !feed.is_within(base));
        let oldest = if base.is_some() { &self.truncated } else { &self.oldest };
        if !feed.is_within(oldest) {
            self.send(peer, Control::SubscribeRefused { id, reason: Refusal::PastLog });
            return;
        }
        link.feed = Some(id);
        link.unneeded_since = None;
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
            self.review(now);
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
}
