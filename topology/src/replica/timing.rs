//! What time alone brings: heartbeats, acknowledgements, retries, silence.

use meridian_conflict::clock::RegionId;

use super::link::{Intake, Link};
use super::{CloseReason, Effect, Hold, Notice, Replica};
use crate::frame::{Control, Heartbeat};
use crate::time::{MonoMs, WallMs};

impl<B: AsRef<[u8]>> Replica<B> {
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
        if self.router.review_at().is_some_and(|at| at <= now) || self.close_unneeded(now) {
            self.review(now);
        }
    }

    /// When [`Replica::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<MonoMs> {
        let links = self.links.values().flat_map(|link| self.deadlines(link)).flatten();
        links.chain(self.forget_held_at).chain(self.router.review_at()).min()
    }

    fn deadlines(&self, link: &Link) -> [Option<MonoMs>; 5] {
        if link.greeted.is_none() {
            return [Some(link.since.after(self.settings.hello_within_ms)), None, None, None, None];
        }
        let intake = match link.intake {
            Intake::Held { retry_at, .. } => Some(retry_at),
            Intake::Open { dropped: true, last_batch, .. } => {
                Some(last_batch.after(self.settings.retry_ms / 10))
            }
            _ => None,
        };
        let silence = (!link.silent).then(|| link.last_heard.after(self.settings.heal_after_ms));
        let unneeded = link.unneeded_since.map(|since| since.after(self.settings.heal_after_ms));
        [Some(link.heartbeat_at), link.ack_at, intake, silence, unneeded]
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
            self.review(now);
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
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
            topology_digest: self.topology_digest,
            policy_digest: self.settings.policy_digest,
            via: self.router.via().to_vec(),
        };
        self.send(peer, Control::Heartbeat(heartbeat));
    }

    pub(super) fn acknowledge(&mut self, now: MonoMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let durable = link.take_ack(now, &self.durable);
        if !durable.is_empty() {
            self.send(peer, Control::Ack { durable });
        }
    }
}
