//! Which live neighbour feeds each region's ops: routes that heal by themselves.
//!
//! Routes are pulled by the receiver. Every region decides alone, from what it sees itself: the
//! graph, who is heard, and what each peer says it has applied. Nothing has to be agreed on, and no
//! decision can do harm: duplicates are dropped by their dots, and any region may serve any origin.
//!
//! # Rules
//!
//! 1. **Lost.** A feeder that was not heard for `heal_after` is lost. The shape closes over the gap
//!    ([`around`]) and the origins it fed come from the feeders that are left.
//! 2. **Gradient.** When a connected peer has said to have more of a region's ops than we have, and
//!    none of them arrived for `heal_after`, that peer is taken as the *helper* for this region, beside
//!    its feeders. At once when it has no feeder to wait for: an origin that is lost, or feeders that
//!    refused. So whatever reached anyone reaches everyone over whatever links stand: along any
//!    path of links somebody is ahead of his neighbour.
//! 3. **Back.** A feeder that is heard again takes over once it has, within `heal_after`, everything
//!    that we had: it has caught up, so the change makes no gap. Helpers are let go then, too; one
//!    that is needed again and again is kept longer each time.
//!
//! A feeder that gets a region's ops through us has not caught up by itself: it would fall back the
//! moment we relied on it. So every region says with its heartbeats through whom each region's ops
//! come to it ([`Router::via`]), as sets, and who has us in the set is not counted on. Routes
//! return to the usual from the origin outwards.
//!
//! Helpers are added and feeders kept, where a plain move would do in most cases: a move cancels a
//! stream that may be slow rather than dead, and begins again what was half through.
//!
//! A peer that is neither a neighbour in the graph nor feeding is not to be dialled
//! ([`Router::dials`]).

mod around;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
mod way;

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Origin, RegionId, VersionVector};

use crate::graph::{Graph, RegionName};
use crate::time::MonoMs;

pub use around::around;
use way::Way;

/// Lost for this many times `heal_after`, a region that is no neighbour may be tried again.
const RETRY_LOST: u64 = 10;

/// Why a region's ops come by another way from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RerouteReason {
    /// The feeder was not heard for `heal_after`.
    Lost,
    /// A peer has more, and nothing arrives.
    Ahead,
    /// The usual feeder has caught up.
    Back,
    /// Another topology is in force.
    Topology,
}

/// A region's ops come by another way from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reroute {
    /// Whose ops.
    pub region: RegionId,
    /// From whom until now.
    pub from: Option<RegionId>,
    /// From whom now.
    pub to: Option<RegionId>,
    /// Why.
    pub why: RerouteReason,
}

/// What is known of a connected peer that has said hello.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Which region.
    pub peer: RegionId,
    /// When it was last heard.
    pub heard: MonoMs,
    /// It was heard within `heal_after`.
    pub live: bool,
    /// It serves us: it has not refused.
    pub serves: bool,
    /// What it says it has applied.
    pub advertised: &'a VersionVector,
    /// Its [`Router::via`]; empty if its graph is another.
    pub via: &'a [u128],
}

/// Everything a review looks at.
#[derive(Debug)]
pub struct View<'a> {
    /// What we have applied.
    pub applied: &'a VersionVector,
    /// Everyone connected.
    pub peers: &'a [Peer<'a>],
    /// Regions whose next op is here and waits, or which must wait for lack of memory: not stalled.
    pub waiting: &'a BTreeSet<RegionId>,
}

impl View<'_> {
    fn peer(&self, region: RegionId) -> Option<&Peer<'_>> {
        self.peers.iter().find(|peer| peer.peer == region)
    }

    fn is_live(&self, region: RegionId) -> bool {
        self.peer(region).is_some_and(|peer| peer.live)
    }
}

/// The origins of `region` in `vector`.
pub(crate) fn lives(vector: &VersionVector, region: RegionId) -> impl Iterator<Item = (Origin, u64)> + '_ {
    let (first, last) = (Origin::new(region, 0), Origin::new(region, u32::MAX));
    vector.dots.range(first..=last).map(|(origin, sequence)| (*origin, *sequence))
}

/// Decides where each region's ops come from.
#[derive(Clone, Debug)]
pub struct Router {
    at: RegionName,
    region: RegionId,
    graph: Graph,
    names: BTreeMap<RegionId, RegionName>,
    /// The members in the order of their names: the bits of `via`.
    places: BTreeMap<RegionId, usize>,
    via: Vec<u128>,
    neighbours: BTreeSet<RegionId>,
    /// Pairs of neighbours, both ways.
    pairs: BTreeSet<(RegionId, RegionId)>,
    /// Members of whom nothing was heard for long, by any way.
    unheard: BTreeSet<RegionId>,
    redundant: bool,
    heal_after_ms: u64,
    lost: BTreeSet<RegionId>,
    /// When a watched region was last heard, or began to be waited for.
    heard: BTreeMap<RegionId, MonoMs>,
    /// The feeders by the graph and what is lost.
    base: BTreeMap<RegionId, BTreeSet<RegionId>>,
    ways: BTreeMap<RegionId, Way>,
    review_at: Option<MonoMs>,
}

fn id(name: &RegionName) -> RegionId {
    RegionId::of(name.as_str())
}

impl Router {
    /// The router of region `at`. With `redundant` every origin is taken from every feeder.
    pub fn new(graph: Graph, at: RegionName, heal_after_ms: u64, redundant: bool) -> Self {
        let mut router = Self {
            region: id(&at),
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            via: Vec::new(),
            neighbours: BTreeSet::new(),
            pairs: BTreeSet::new(),
            unheard: BTreeSet::new(),
            redundant,
            heal_after_ms,
            lost: BTreeSet::new(),
            heard: BTreeMap::new(),
            base: BTreeMap::new(),
            ways: BTreeMap::new(),
            review_at: Some(MonoMs(0)),
            at,
            graph,
        };
        router.read_graph();
        router
    }

    fn read_graph(&mut self) {
        self.names = self.graph.members().iter().map(|name| (id(name), name.clone())).collect();
        self.places = self.graph.members().iter().enumerate().map(|(at, name)| (id(name), at)).collect();
        self.neighbours = self.graph.neighbours(&self.at).iter().map(id).collect();
        let feeds = self.graph.feeds().map(|feed| (id(&feed.from), id(&feed.to)));
        self.pairs = feeds.flat_map(|(from, to)| [(from, to), (to, from)]).collect();
        self.lost.retain(|region| self.names.contains_key(region));
        self.find_base();
    }

    fn find_base(&mut self) {
        let lost = self.lost.iter().filter_map(|region| self.names.get(region)).cloned().collect();
        self.base = around(&self.graph, &self.at, &lost, self.redundant)
            .iter()
            .map(|(origin, feeders)| (id(origin), feeders.iter().map(id).collect()))
            .collect();
    }

    /// Puts another graph in force. Follow with [`Router::review`].
    pub fn set_graph(&mut self, graph: Graph) {
        self.graph = graph;
        self.read_graph();
        self.heard.retain(|region, _| self.names.contains_key(region));
        let names = &self.names;
        self.ways.values_mut().for_each(|way| way.keep_members(|region| names.contains_key(&region)));
        self.review_at = Some(MonoMs(0));
    }

    /// The graph in force.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether `region` belongs to the cluster, and is not this one.
    pub fn is_peer(&self, region: RegionId) -> bool {
        region != self.region && self.names.contains_key(&region)
    }

    /// Every member, this region included.
    pub fn members(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.names.keys().copied()
    }

    /// Members that share a feed with this region by the graph.
    pub fn neighbours(&self) -> &BTreeSet<RegionId> {
        &self.neighbours
    }

    /// Whether two regions share a feed by the graph, in either direction.
    pub fn are_neighbours(&self, a: RegionId, b: RegionId) -> bool {
        self.pairs.contains(&(a, b))
    }

    /// Members of whom nothing was heard for long, by any way, are dialled too: where cuts leave
    /// groups of regions that all have live feeders among themselves, somebody has to look further.
    pub fn set_unheard(&mut self, unheard: BTreeSet<RegionId>) {
        self.unheard = unheard;
    }

    /// Members not heard for `heal_after`, of those that matter here.
    pub fn lost(&self) -> &BTreeSet<RegionId> {
        &self.lost
    }

    /// From whom the ops of `region` come, or would come once connected.
    pub fn feeders(&self, region: RegionId) -> impl Iterator<Item = RegionId> + '_ {
        self.ways.get(&region).into_iter().flat_map(Way::sources)
    }

    /// Whether every region's ops come from where they do when nothing is wrong.
    pub fn is_usual(&self) -> bool {
        self.lost.is_empty()
            && self.ways.iter().all(|(region, way)| {
                let base = self.base.get(region);
                way.helper().is_none() && base.is_none_or(|base| way.feeders() == base)
            })
    }

    /// By feeder, the regions to subscribe to there.
    pub fn subscriptions(&self) -> BTreeMap<RegionId, BTreeSet<RegionId>> {
        let mut found: BTreeMap<RegionId, BTreeSet<RegionId>> = BTreeMap::new();
        for (region, way) in &self.ways {
            for source in way.sources() {
                found.entry(source).or_default().insert(*region);
            }
        }
        found
    }

    /// Whom to dial and keep connected: neighbours with greater names (those with smaller ones dial
    /// us), and whoever else feeds us or is to.
    pub fn dials(&self) -> BTreeSet<RegionId> {
        let greater = |peer: &&RegionId| self.names.get(peer).is_some_and(|name| *name > self.at);
        let sources = self.ways.values().flat_map(Way::sources);
        let wanted = sources.chain(self.base.values().flatten().copied());
        let alternatives = wanted.filter(|peer| !self.neighbours.contains(peer));
        let unheard = self.unheard.iter().filter(|peer| !self.neighbours.contains(peer)).copied();
        self.neighbours.iter().filter(greater).copied().chain(alternatives).chain(unheard).collect()
    }

    /// For each member, in the order of names, the set of members through which its ops come here, a
    /// bit each by the same order (a cluster has at most 128).
    pub fn via(&self) -> &[u128] {
        &self.via
    }

    fn find_via(&self, view: &View<'_>) -> Vec<u128> {
        let set = |region: &RegionId, place: usize| -> u128 {
            let sources = self.ways.get(region).into_iter().flat_map(Way::sources);
            let beyond = |source: RegionId| view.peer(source).and_then(|peer| peer.via.get(place).copied());
            sources.fold(0, |set, source| set | self.bit(source) | beyond(source).unwrap_or(0))
        };
        let mut via = vec![0; self.places.len()];
        for (region, place) in self.places.iter().filter(|(region, _)| **region != self.region) {
            if let Some(slot) = via.get_mut(*place) {
                *slot = set(region, *place);
            }
        }
        via
    }

    fn bit(&self, region: RegionId) -> u128 {
        let place = self.places.get(&region).and_then(|place| u32::try_from(*place).ok());
        place.and_then(|place| 1_u128.checked_shl(place)).unwrap_or(0)
    }

    /// When [`Router::review`] has something to do at the latest, if nothing happens before.
    pub fn review_at(&self) -> Option<MonoMs> {
        self.review_at
    }

    /// Looks at everything anew; returns what changed.
    pub fn review(&mut self, now: MonoMs, view: &View<'_>) -> Vec<Reroute> {
        self.find_lost(now, view);
        let mut regions: BTreeSet<RegionId> = self.names.keys().copied().collect();
        let vectors = view.peers.iter().map(|peer| peer.advertised).chain([view.applied]);
        regions.extend(vectors.flat_map(|vector| vector.dots.keys().map(|origin| origin.region())));
        // A region that left and never wrote: its way would keep a deadline that nobody meets.
        self.ways.retain(|region, _| regions.contains(region));
        let mut moves = Vec::new();
        let none = BTreeSet::new();
        for region in regions {
            let review = way::Review {
                now,
                region,
                heal_after_ms: self.heal_after_ms,
                view,
                base: self.base.get(&region).unwrap_or(&none),
                lost: &self.lost,
                own: region == self.region,
                former: !self.names.contains_key(&region),
                quick: self.redundant,
                place: self.places.get(&region).copied(),
                us: self.bit(self.region),
            };
            self.ways.entry(region).or_default().review(&review, &mut moves);
        }
        self.via = self.find_via(view);
        self.review_at = self.next_review(now, view);
        moves
    }

    /// Regions whose silence matters: neighbours, and all that feed or are to feed.
    fn watched(&self) -> BTreeSet<RegionId> {
        let sources = self.ways.values().flat_map(Way::sources);
        let base = self.base.values().flatten().copied();
        self.neighbours.iter().copied().chain(sources).chain(base).collect()
    }

    fn find_lost(&mut self, now: MonoMs, view: &View<'_>) {
        // Each loss can bring a feeder into play that is heard of here for the first time.
        let watched = self.watched();
        let (heal, retry) = (self.heal_after_ms, self.heal_after_ms.saturating_mul(RETRY_LOST));
        for region in &watched {
            self.heard.entry(*region).or_insert(now);
        }
        self.heard.extend(view.peers.iter().map(|peer| (peer.peer, peer.heard)));
        let (neighbours, lost) = (&self.neighbours, &mut self.lost);
        let before = lost.clone();
        self.heard.retain(|region, heard| {
            let silence = now.since(*heard);
            let stays = neighbours.contains(region) || silence < retry;
            if silence >= heal && stays {
                lost.insert(*region);
            } else {
                lost.remove(region);
            }
            stays && (watched.contains(region) || silence >= heal)
        });
        if self.lost != before {
            self.find_base();
            for region in self.watched() {
                self.heard.entry(region).or_insert(now);
            }
        }
    }

    fn next_review(&self, now: MonoMs, view: &View<'_>) -> Option<MonoMs> {
        let heal = self.heal_after_ms;
        let silences = self.heard.iter().filter_map(|(region, heard)| {
            if view.is_live(*region) {
                None
            } else if !self.lost.contains(region) {
                Some(heard.after(heal))
            } else if !self.neighbours.contains(region) {
                Some(heard.after(heal.saturating_mul(RETRY_LOST)))
            } else {
                None
            }
        });
        let ways = self.ways.values().filter_map(|way| way.review_at(heal));
        silences.chain(ways).min().map(|at| at.max(now.after(1)))
    }
}
