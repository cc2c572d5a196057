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
        if self.answers_at.is_some_and(|at| at <= now) {
            self.tell_answers(now);
        }
        self.resume_if_drained(now);
        let due = |at: Option<MonoMs>| at.is_some_and(|at| at <= now);
        if due(self.router.review_at()) || due(self.members_at(self.reviewed)) || self.close_unneeded(now) {
            self.review(now);
        }
    }

    /// Held ops may lack what nobody has any more: unless that comes soon, they are dropped, and
    /// whatever the peers still have is fetched again.
    pub(super) fn forget_held_soon(&mut self, now: MonoMs) {
        if self.delivery.pending_ops() > 0 {
            let at = now.after(self.settings.forget_held_ms);
            self.forget_held_at = Some(self.forget_held_at.map_or(at, |before| before.min(at)));
        }
    }

    /// When [`Replica::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<MonoMs> {
        let links = self.links.values().flat_map(|link| self.deadlines(link)).flatten();
        links
            .chain(self.forget_held_at)
            .chain(self.answers_at)
            .chain(self.router.review_at())
            .chain(self.members_at(self.reviewed))
            .min()
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
        let unneeded =
            link.unneeded_since.map(|since| since.after(self.settings.heal_after_ms.saturating_mul(2)));
        [Some(link.heartbeat_at), link.rows_at, intake, silence, unneeded]
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
        let (intake, rows_at, heartbeat_at) = (link.intake, link.rows_at, link.heartbeat_at);
        if rows_at.is_some_and(|at| at <= now) {
            self.send_rows(now, peer);
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
        self.beat_rows(now, peer);
    }
}
