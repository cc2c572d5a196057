//! One region's way to us: its feeders, and the helper beside them.

use std::collections::BTreeSet;

use meridian_conflict::clock::{Origin, RegionId};

use super::{Peer, Reroute, RerouteReason, View, lives};
use crate::time::MonoMs;

/// A helper is kept for twice `heal_after` at first, and up to two to this power times as long.
const BACKOFF_MAX: u32 = 3;

/// After this many times `heal_after` without a helper, the next is kept no longer than the first.
const CALM: u64 = 60;

#[derive(Clone, Copy, Debug)]
struct Helper {
    peer: RegionId,
    /// Not let go before, so that a slow feeder does not make it come and go.
    keep_until: MonoMs,
}

/// What a feeder has to reach to be as good as those it is to replace.
#[derive(Clone, Debug)]
struct Target {
    since: MonoMs,
    vector: Vec<(Origin, u64)>,
}

/// Where one region's ops come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    feeders: BTreeSet<RegionId>,
    helper: Option<Helper>,
    /// How many of its ops we have, all lives together: a rise is progress.
    have: u64,
    /// Since when somebody has more and nothing arrives.
    stalled: Option<MonoMs>,
    /// Whether nothing is waited for: the helper is taken at once.
    hopeless: bool,
    target: Option<Target>,
    helped: u32,
    calm_since: MonoMs,
}

/// One look at one region's way.
pub(super) struct Review<'a> {
    pub(super) now: MonoMs,
    pub(super) region: RegionId,
    pub(super) heal_after_ms: u64,
    pub(super) view: &'a View<'a>,
    pub(super) base: &'a BTreeSet<RegionId>,
    pub(super) lost: &'a BTreeSet<RegionId>,
    /// The region is this one: its other lives come along with every subscription.
    pub(super) own: bool,
    /// The region has left the cluster.
    pub(super) former: bool,
    /// All feeders at once, so no change has to wait.
    pub(super) quick: bool,
    /// Where the region stands in `via`, and our bit there.
    pub(super) place: Option<usize>,
    pub(super) us: u128,
}

impl Review<'_> {
    /// How many ops of the region `peer` has that we have not.
    fn excess(&self, peer: &Peer<'_>) -> u64 {
        let ours = self.view.applied;
        lives(peer.advertised, self.region)
            .map(|(origin, sequence)| sequence.saturating_sub(ours.get(&origin)))
            .fold(0, u64::saturating_add)
    }

    fn reaches(&self, feeder: RegionId, target: &[(Origin, u64)]) -> bool {
        self.view.peer(feeder).is_some_and(|peer| {
            let via = self.place.and_then(|place| peer.via.get(place)).copied().unwrap_or(0);
            let by_itself = self.quick || via & self.us == 0;
            peer.live && peer.serves && by_itself && target.iter().all(|(o, s)| peer.advertised.get(o) >= *s)
        })
    }
}

impl Way {
    pub(super) fn sources(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.feeders.iter().copied().chain(self.helper.map(|helper| helper.peer))
    }

    pub(super) fn feeders(&self) -> &BTreeSet<RegionId> {
        &self.feeders
    }

    pub(super) fn helper(&self) -> Option<RegionId> {
        self.helper.map(|helper| helper.peer)
    }

    /// Forgets whoever left the cluster.
    pub(super) fn keep_members(&mut self, is_member: impl Fn(RegionId) -> bool) {
        self.feeders.retain(|feeder| is_member(*feeder));
        self.helper = self.helper.filter(|helper| is_member(helper.peer));
    }

    /// When time alone changes something.
    pub(super) fn review_at(&self, heal_after_ms: u64) -> Option<MonoMs> {
        let stalled =
            self.stalled.map(|since| if self.hopeless { since } else { since.after(heal_after_ms) });
        let target = self.target.as_ref().map(|target| target.since.after(heal_after_ms));
        stalled.into_iter().chain(target).min()
    }

    pub(super) fn review(&mut self, review: &Review<'_>, moves: &mut Vec<Reroute>) {
        let have: u64 = lives(review.view.applied, review.region).map(|(_, s)| s).sum();
        let progress = have != self.have;
        self.have = have;
        let back = self.feeders_review(review, moves);
        self.helper_review(review, progress, back, moves);
        if self.feeders == *review.base && self.helper.is_none() {
            self.target = None;
        }
    }

    /// Whether one of `feeders` has, within `heal_after`, what we had.
    fn caught_up(&mut self, review: &Review<'_>, feeders: &BTreeSet<RegionId>) -> bool {
        if feeders.is_empty() {
            self.target = None;
            return false;
        }
        let fresh =
            || Target { since: review.now, vector: lives(review.view.applied, review.region).collect() };
        let target = self.target.get_or_insert_with(fresh);
        if feeders.iter().any(|feeder| review.reaches(*feeder, &target.vector)) {
            self.target = None;
            return true;
        }
        if review.now.since(target.since) >= review.heal_after_ms {
            *target = fresh();
        }
        false
    }

    /// Chooses the feeders. Returns whether they are the usual ones and have caught up.
    fn feeders_review(&mut self, review: &Review<'_>, moves: &mut Vec<Reroute>) -> bool {
        let base = review.base;
        if base.is_empty() {
            // Nobody to wait for, so no deadline either.
            self.target = None;
        }
        if review.former {
            // Nothing more is to come; what somebody is still ahead by, a helper fetches.
            self.feeders.clear();
        }
        if self.feeders == *base {
            return self.helper.is_some() && self.caught_up(review, base);
        }
        let adding = review.quick || self.feeders.is_subset(base);
        let all_lost = self.feeders.iter().all(|feeder| review.lost.contains(feeder));
        let live = |feeders: &BTreeSet<RegionId>| feeders.iter().any(|feeder| review.view.is_live(*feeder));
        let idle = !live(&self.feeders) && live(base);
        let back = !adding && !all_lost && !base.is_empty() && (idle || self.caught_up(review, base));
        if !adding && !all_lost && !back {
            return false;
        }
        let from = self.feeders.first().copied();
        let first = self.feeders.is_empty() && !review.own;
        self.feeders.clone_from(base);
        if !first || self.helper.is_some() {
            let why = match (back, all_lost) {
                (true, _) => RerouteReason::Back,
                (false, true) => RerouteReason::Lost,
                (false, false) => RerouteReason::Topology,
            };
            moves.push(Reroute { region: review.region, from, to: base.first().copied(), why });
        }
        back
    }

    fn helper_review(&mut self, review: &Review<'_>, progress: bool, back: bool, moves: &mut Vec<Reroute>) {
        let (now, region) = (review.now, review.region);
        if let Some(helper) = self.helper {
            let gone = !review.view.is_live(helper.peer);
            if gone || self.feeders.contains(&helper.peer) || (back && helper.keep_until <= now) {
                self.helper = None;
                self.calm_since = now;
                let (from, to) = (Some(helper.peer), self.feeders.first().copied());
                let why = if gone { RerouteReason::Lost } else { RerouteReason::Back };
                moves.push(Reroute { region, from, to, why });
            }
        }
        let ahead = review.view.peers.iter().filter(|peer| peer.live && peer.serves);
        let ahead = ahead.map(|peer| (review.excess(peer), peer.peer)).filter(|(excess, _)| *excess > 0);
        let ahead: Vec<(u64, RegionId)> = ahead.collect();
        if (review.own || review.former) && ahead.is_empty() {
            self.helper = self.helper.filter(|helper| helper.keep_until > now);
        }
        if ahead.is_empty() || progress || review.view.waiting.contains(&region) {
            self.stalled = None;
            if ahead.is_empty() || review.view.waiting.contains(&region) {
                return;
            }
        }
        let since = *self.stalled.get_or_insert(now);
        let serves = |feeder: &RegionId| match review.view.peer(*feeder) {
            Some(peer) => peer.serves,
            None => !review.lost.contains(feeder),
        };
        self.hopeless = !review.own && self.helper.is_none() && !self.feeders.iter().any(serves);
        if !self.hopeless && now.since(since) < review.heal_after_ms {
            return;
        }
        self.stalled = Some(now);
        let current = self.helper.map(|helper| helper.peer);
        let fresh = ahead.iter().filter(|(_, peer)| !self.feeders.contains(peer) && current != Some(*peer));
        let best = fresh.max_by_key(|(excess, peer)| (*excess, std::cmp::Reverse(*peer)));
        let Some(&(_, peer)) = best else {
            self.hopeless = false;
            return;
        };
        if now.since(self.calm_since) > review.heal_after_ms.saturating_mul(CALM) {
            self.helped = 0;
        }
        let keep_ms = review.heal_after_ms.saturating_mul(2) << self.helped.min(BACKOFF_MAX);
        self.helped = self.helped.saturating_add(1);
        self.helper = Some(Helper { peer, keep_until: now.after(keep_ms) });
        self.hopeless = false;
        let from = current.or(self.feeders.first().copied());
        moves.push(Reroute { region, from, to: Some(peer), why: RerouteReason::Ahead });
    }
}
