//! Carries out what the [`Router`](crate::route::Router) decides: subscriptions, dials, and links
//! that nobody needs any more.

use std::collections::BTreeSet;

use meridian_conflict::clock::RegionId;

use super::link::Intake;
use super::{CloseReason, Effect, Notice, Replica};
use crate::route::{Peer, RerouteReason, View};
use crate::time::MonoMs;

/// A peer that refused is not counted on for this many times `retry_ms`.
const REFUSED_FOR: u64 = 10;

/// An op too far ahead of our clock is met again within this many times `retry_ms`.
const SKEWED_FOR: u64 = 3;

/// Changes of routes are told with a heartbeat this soon.
const TELL_VIA_MS: u64 = 50;

impl<B: AsRef<[u8]>> Replica<B> {
    /// Looks at all routes anew, and changes what has to change.
    pub(super) fn review(&mut self, now: MonoMs) {
        if self.amnesiac {
            return;
        }
        self.reviewed = now;
        self.review_members(now);
        let heal_after_ms = self.settings.heal_after_ms;
        let refused_ms = self.settings.retry_ms.saturating_mul(REFUSED_FOR);
        let greeted = self.links.iter().filter(|(_, link)| link.greeted.is_some());
        let peers: Vec<Peer<'_>> = greeted
            .map(|(peer, link)| Peer {
                peer: *peer,
                heard: link.last_heard,
                live: now.since(link.last_heard) < heal_after_ms,
                serves: link.refused_at.is_none_or(|at| now.since(at) >= refused_ms),
                advertised: &link.peer_applied,
                via: match &link.greeted {
                    Some(greeted) if greeted.topology_digest == self.topology_digest => &link.via,
                    _ => &[],
                },
            })
            .collect();
        let skewed_ms = self.settings.retry_ms.saturating_mul(SKEWED_FOR);
        self.skewed.retain(|_, at| now.since(*at) < skewed_ms);
        let mut waiting = self.waiting(&peers);
        waiting.extend(self.skewed.keys());
        let view = View { applied: self.delivery.admitted(), peers: &peers, waiting: &waiting };
        let before = self.router.via().to_vec();
        let moves = self.router.review(now, &view);
        if self.router.via() != before {
            let soon = now.after(TELL_VIA_MS);
            self.links.values_mut().for_each(|link| link.heartbeat_at = link.heartbeat_at.min(soon));
        }
        if moves.iter().any(|reroute| reroute.why == RerouteReason::Lost) {
            self.forget_held_soon(now);
        }
        for reroute in moves {
            *self.reroutes.entry(reroute.region).or_default() += 1;
            self.effects.push_back(Effect::Notice(Notice::Rerouted(reroute)));
        }
        self.take_up(now);
        self.tell_dials();
        self.find_unneeded(now);
    }

    /// Regions that another way would not help: their next op is here and waits for others. While
    /// memory is short, all but those that are waited for.
    fn waiting(&self, peers: &[Peer<'_>]) -> BTreeSet<RegionId> {
        if self.delivery.pending_ops() == 0 {
            return BTreeSet::new();
        }
        let admitted = self.delivery.admitted();
        let origins = peers.iter().flat_map(|peer| peer.advertised.dots.keys());
        if self.delivery.is_drained() {
            let next_waits = origins
                .filter(|origin| self.delivery.holds(**origin, admitted.get(origin).saturating_add(1)));
            return next_waits.map(|origin| origin.region()).collect();
        }
        let missing = self.delivery.missing().map(|dot| dot.actor.region());
        let missing: BTreeSet<RegionId> = missing.chain(self.short_of.iter().copied()).collect();
        origins.map(|origin| origin.region()).filter(|region| !missing.contains(region)).collect()
    }

    /// Subscribes where the regions to take have changed or a link is new.
    fn take_up(&mut self, now: MonoMs) {
        let wanted = self.router.subscriptions();
        let before = std::mem::replace(&mut self.subscriptions, wanted);
        let peers: Vec<RegionId> = self.links.keys().copied().collect();
        for peer in peers {
            let Some(link) = self.links.get_mut(&peer).filter(|link| link.greeted.is_some()) else {
                continue;
            };
            let same = self.subscriptions.get(&peer) == before.get(&peer);
            match (self.subscriptions.contains_key(&peer), link.intake) {
                (false, Intake::None) => {}
                (false, Intake::Held { .. }) => link.intake = Intake::None,
                (false, Intake::Open { .. }) => self.unsubscribe(peer),
                (true, Intake::None) => self.subscribe(now, peer, false),
                (true, Intake::Open { .. }) if !same => {
                    self.unsubscribe(peer);
                    self.subscribe(now, peer, false);
                }
                (true, _) => {}
            }
        }
    }

    pub(super) fn tell_dials(&mut self) {
        let mut wanted = self.router.dials();
        wanted.extend(self.donor.filter(|donor| self.router.is_peer(*donor)));
        for peer in self.dials.difference(&wanted) {
            self.effects.push_back(Effect::Undial { peer: *peer });
        }
        for peer in wanted.difference(&self.dials) {
            self.effects.push_back(Effect::Dial { peer: *peer });
        }
        self.dials = wanted;
    }

    /// Notes since when each link is of no use to either side.
    pub(super) fn find_unneeded(&mut self, now: MonoMs) {
        let (neighbours, dials) = (self.router.neighbours(), &self.dials);
        for (peer, link) in &mut self.links {
            let needed = neighbours.contains(peer)
                || dials.contains(peer)
                || link.feed.is_some()
                || self.subscriptions.contains_key(peer);
            link.unneeded_since = (!needed).then(|| link.unneeded_since.unwrap_or(now));
        }
    }

    /// Closes links that nobody needed for twice `heal_after`: time enough for one that was made to
    /// look further to show whether there is anything to fetch. Returns whether there were any.
    pub(super) fn close_unneeded(&mut self, now: MonoMs) -> bool {
        let grace_ms = self.settings.heal_after_ms.saturating_mul(2);
        let over = |since: Option<MonoMs>| since.is_some_and(|since| now.since(since) >= grace_ms);
        let unneeded: Vec<RegionId> =
            self.links.iter().filter(|(_, link)| over(link.unneeded_since)).map(|(peer, _)| *peer).collect();
        for peer in &unneeded {
            self.close(*peer, CloseReason::Unneeded);
        }
        !unneeded.is_empty()
    }
}
