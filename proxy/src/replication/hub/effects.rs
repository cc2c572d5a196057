//! Carrying out what the state machine decided: what goes to peers, which feeds run, what is logged and counted.

use std::sync::Arc;

use bytes::Bytes;
use meridian_conflict::clock::RegionId;
use meridian_topology::frame::Refusal;
use meridian_topology::replica::{self, CloseReason as ReplicaClose, Effect, Notice};
use meridian_topology::route::Reroute;

use super::{Event, Hub};
use crate::link::close::CloseReason;
use crate::replication::outgoing;
use crate::replication::peer::{Outbound, Wire};

impl Hub {
    pub(super) async fn carry_out(&mut self) {
        let mut applied = false;
        while let Some(effect) = self.replica.poll_effect() {
            applied |= matches!(effect, Effect::Deliver(_));
            self.effect(effect).await;
        }
        self.region.log().wake();
        if applied {
            self.region.progress.notify_waiters();
        }
        self.tell_elsewhere();
    }

    /// Tells the region what is durable elsewhere, for those who wait for it.
    fn tell_elsewhere(&mut self) {
        let stability = self.replica.stability();
        if stability.version() == self.stability_told {
            return;
        }
        self.stability_told = stability.version();
        let own = self.region.origin().region();
        let others = stability.heard().map(|(region, _)| region).filter(|region| *region != own);
        let rows = others.filter_map(|region| Some((region, stability.row(region)?.durable.clone())));
        self.region.set_elsewhere(rows.collect());
    }

    /// Carries out what a new connection brings: first what concerns the old one, then over the new.
    pub(super) async fn carry_out_for(&mut self, peer: RegionId, session: u64, wire: Wire) {
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
                if reason != ReplicaClose::Replaced {
                    self.trouble(peer, reason.to_string());
                }
                let code = close_reason(reason);
                if code.is_refusal() {
                    self.region.metrics().links.refused(code);
                }
                self.close(peer, session, code, &reason.to_string()).await;
            }
            Effect::Dial { peer } => self.dials.dial(peer),
            Effect::Undial { peer } => self.dials.undial(peer),
            Effect::TakeNewIncarnation(amnesia) => {
                let because = format!(
                    "{} knows op {} of this region's, which remembers {} only",
                    self.name(amnesia.peer),
                    amnesia.known.counter,
                    amnesia.remembered
                );
                self.take_new_incarnation(&because);
            }
            Effect::AskHook(waiting) => self.ask_hook(waiting),
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
        let Some(protocol) = self.replica.protocol(peer) else { return };
        let (region, connection) = (Arc::clone(&self.region), wire.connection.clone());
        let name = self.name(peer);
        let sent = region.metrics().links.bytes.with_label_values(&[&name, "sent", "ops"]);
        let unsent = region.metrics().links.unacked_bytes.with_label_values(&[&name]);
        let events = self.reseed.events().clone();
        let task = tokio::spawn(async move {
            let closing = connection.clone();
            let sending = outgoing::send(region, connection, protocol, subscription, feed, sent, unsent);
            let ended = sending.await;
            if let Err(outgoing::FeedEnd::PastLog) = ended {
                // Without a hub the region stops.
                let _ = events.send(Event::FeedPastLog { peer, session, subscription }).await;
            } else if let Err(error) = ended {
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

    pub(super) fn stop_feeds(&mut self, peer: RegionId) {
        self.feeds.retain(|(subscriber, _), task| {
            if *subscriber == peer {
                task.abort();
            }
            *subscriber != peer
        });
    }

    pub(super) async fn close(&mut self, peer: RegionId, session: u64, reason: CloseReason, detail: &str) {
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
                if *hold == replica::Hold::Refused(Refusal::PastLog) {
                    self.reseed.refused(*peer);
                }
                if let replica::Hold::Skew { .. } = hold {
                    self.region.metrics().ops.clock_rejected.with_label_values(&[&name]).inc();
                }
                // A hold is tried again each second: told once.
                if self.holds.insert(*peer, *hold) != Some(*hold) {
                    tracing::warn!(peer = name, ?hold, "link held: nothing is lost, ops wait at the peer");
                }
            }
            Notice::Resumed { peer } => tracing::debug!(peer = self.name(*peer), "link tried again"),
            Notice::Silent { peer } => tracing::warn!(peer = self.name(*peer), "a neighbour is silent"),
            Notice::Heard { peer } => tracing::info!(peer = self.name(*peer), "a neighbour is heard again"),
            Notice::Fenced { region } => tracing::error!(
                region = self.name(*region),
                "fenced a region: not heard of for log.retention, the others go on without it"
            ),
            Notice::Unfenced { region } => {
                tracing::info!(
                    region = self.name(*region),
                    "a region is fenced no more: heard of again and caught up"
                );
            }
            Notice::Rerouted(Reroute { region, from, to, why }) => {
                let name = |region: &Option<RegionId>| region.map_or("nobody".to_owned(), |id| self.name(id));
                let (from, to) = (name(from), name(to));
                tracing::info!(origin = self.name(*region), from, to, ?why, "rerouted: ops take another way");
            }
            Notice::DigestsDiffer { peer, topology, policies } => {
                tracing::error!(peer = self.name(*peer), topology, policies, "configurations differ");
            }
            Notice::PoliciesHeard => self.compare_policies(),
            Notice::QuarantineHeard => self.heed_quarantine(),
            Notice::QuarantineFull { hook } => self.quarantine_is_full(hook),
            Notice::SecondHolder { peer } => {
                tracing::error!(peer = self.name(*peer), "this region runs twice; the second is refused");
            }
        }
        self.keep_house();
    }
}

fn close_reason(reason: ReplicaClose) -> CloseReason {
    match reason {
        ReplicaClose::Replaced => CloseReason::Replaced,
        ReplicaClose::NotMember => CloseReason::UnknownRegion,
        ReplicaClose::Removed => CloseReason::Fenced,
        ReplicaClose::Unneeded => CloseReason::Unneeded,
        ReplicaClose::WrongCluster => CloseReason::WrongCluster,
        ReplicaClose::WrongRegion => CloseReason::WrongRegion,
        ReplicaClose::NoCommonProtocol { .. } => CloseReason::VersionMismatch,
        ReplicaClose::OwnIdentity | ReplicaClose::SecondHolder => CloseReason::IncarnationConflict,
        ReplicaClose::Protocol(_) => CloseReason::ProtocolError,
        ReplicaClose::NoHello => CloseReason::Silent,
        ReplicaClose::Goodbye | ReplicaClose::Ending => CloseReason::ShuttingDown,
    }
}
