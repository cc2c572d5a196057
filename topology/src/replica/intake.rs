//! Taking ops in: subscriptions, what holds them up, and what takes them up again.

use meridian_conflict::clock::{RegionId, VersionVector, covers};
use meridian_conflict::op::{Header, Op};
use smallvec::SmallVec;

use super::link::Intake;
use super::{CloseReason, Effect, Hold, Notice, Replica};
use crate::delivery::Verdict;
use crate::frame::{Control, Refusal};
use crate::time::{MonoMs, WallMs};

impl<B: AsRef<[u8]>> Replica<B> {
    pub(super) fn subscription_refused(&mut self, now: MonoMs, peer: RegionId, id: u64, reason: Refusal) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if matches!(link.intake, Intake::Open { id: open, .. } if open == id) {
            link.intake = Intake::None;
            link.refused_at = Some(now);
            self.hold(now, peer, Hold::Refused(reason));
            self.review(now);
        }
    }

    /// This region has applied `applied` by another way than [`Effect::Deliver`]: it took over another
    /// region's state. Every subscription is taken up anew from there; so is what the caller left
    /// unheard meanwhile.
    pub fn handle_taken_over(&mut self, now: MonoMs, applied: &VersionVector) {
        self.delivery.forget_held();
        for dot in applied.iter() {
            // Nothing is held, so nothing is delivered.
            self.delivery.advance(*dot.actor, dot.counter, &mut |_| {});
        }
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.links.get_mut(&peer) {
                link.refused_at = None;
            }
            self.unsubscribe(peer);
            self.subscribe(now, peer, false);
        }
        self.review(now);
    }

    pub(super) fn receive(&mut self, now: MonoMs, wall: WallMs, peer: RegionId, op: Op<B>) {
        if let Err(broken) = self.check_op(peer, &op.header) {
            self.close(peer, CloseReason::Protocol(broken));
            return;
        }
        let own = op.header.deps.iter().find(|(origin, _)| *origin == self.origin);
        if !self.believes_own(peer, own.map_or(0, |(_, sequence)| *sequence)) {
            return;
        }
        let ahead_ms = op.header.hlc.ms().saturating_sub(wall.0);
        let covered = covers(self.delivery.admitted(), &op.header.dot);
        if ahead_ms > self.settings.max_skew_ms && !covered {
            self.skewed.insert(op.header.dot.actor.region(), now);
            self.hold(now, peer, Hold::Skew { ahead_ms });
            return;
        }
        let admitted = self.delivery.admitted();
        let lacks = op.header.deps.iter().filter(|(origin, sequence)| admitted.get(origin) < *sequence);
        let lacks: SmallVec<[RegionId; 4]> = match self.delivery.is_drained() {
            true => SmallVec::new(),
            false => lacks.map(|(origin, _)| origin.region()).collect(),
        };
        let effects = &mut self.effects;
        let verdict = self.delivery.offer(peer, op, &mut |op| effects.push_back(Effect::Deliver(op)));
        if verdict != Verdict::Refused {
            return;
        }
        // Nobody holds it, so nobody would know that these are waited for.
        self.short_of.extend(lacks);
        match self.links.get_mut(&peer).map(|link| &mut link.intake) {
            Some(Intake::Open { skimming: true, dropped, .. }) => *dropped = true,
            _ => self.hold(now, peer, Hold::PendingFull),
        }
    }

    pub(super) fn check_op(&self, peer: RegionId, header: &Header) -> Result<(), &'static str> {
        let origin = header.dot.actor;
        if origin == self.origin {
            return Err("an op of our own origin");
        }
        let wanted = self.subscriptions.get(&peer).is_some_and(|r| r.contains(&origin.region()));
        if !wanted && origin.region() != self.region {
            return Err("an op that was not subscribed to");
        }
        if header.dot.counter == 0 { Err("sequence number 0") } else { Ok(()) }
    }

    pub(super) fn hold(&mut self, now: MonoMs, peer: RegionId, hold: Hold) {
        self.unsubscribe(peer);
        let retry_ms = self.settings.retry_ms;
        let Some(link) = self.links.get_mut(&peer) else { return };
        let retry_at = if hold == Hold::PendingFull { link.next_probe(now) } else { now.after(retry_ms) };
        link.intake = Intake::Held { hold, retry_at };
        self.effects.push_back(Effect::Notice(Notice::Held { peer, hold }));
    }

    /// Takes up the subscriptions that gave way to full memory once there is room.
    pub(super) fn resume_if_drained(&mut self, now: MonoMs) {
        if !self.delivery.is_drained() {
            return;
        }
        self.short_of.clear();
        let waiting: Vec<RegionId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                matches!(
                    link.intake,
                    Intake::Held { hold: Hold::PendingFull, .. } | Intake::Open { dropped: true, .. }
                )
            })
            .map(|(peer, _)| *peer)
            .collect();
        for peer in waiting {
            self.unsubscribe(peer);
            self.subscribe(now, peer, false);
            if let Some(link) = self.links.get_mut(&peer) {
                link.reset_probe();
            }
        }
    }

    /// Something moved while memory is full: what other links wait for may be there soon.
    pub(super) fn hurry_probes(&mut self, now: MonoMs) {
        if self.delivery.is_drained() {
            return;
        }
        let soon = now.after(self.settings.retry_ms / 10);
        for link in self.links.values_mut() {
            link.reset_probe();
            if let Intake::Held { hold: Hold::PendingFull, retry_at } = &mut link.intake {
                *retry_at = (*retry_at).min(soon);
            }
        }
    }

    pub(super) fn subscribe(&mut self, now: MonoMs, peer: RegionId, skimming: bool) {
        let Some(regions) = self.subscriptions.get(&peer).cloned() else { return };
        let Some(link) = self.links.get_mut(&peer).filter(|link| link.greeted.is_some()) else { return };
        let id = self.next_subscription;
        self.next_subscription += 1;
        let held = matches!(link.intake, Intake::Held { .. });
        link.intake = Intake::Open { id, skimming, dropped: false, last_batch: now };
        let from = self.delivery.admitted().clone();
        self.send(peer, Control::Subscribe { id, regions, from });
        if held {
            self.effects.push_back(Effect::Notice(Notice::Resumed { peer }));
        }
    }

    pub(super) fn unsubscribe(&mut self, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if let Intake::Open { id, .. } = link.intake {
            link.intake = Intake::None;
            self.send(peer, Control::Unsubscribe { id });
        }
    }
}
