//! What a single failure does, found out by letting it happen.
//!
//! The routers of all regions run in virtual time as they run in regions, with nothing around them: every
//! region writes an op per tick, every connection carries what is subscribed over it one hop per tick,
//! every peer tells what it has. Then one region or one line fails. What stalls, for how long, and from
//! whom it comes afterwards is observed, not reasoned.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Origin, RegionId, VersionVector, raise};

use crate::graph::{Graph, RegionName};
use crate::route::{Peer, Router, View};
use crate::time::MonoMs;

/// More regions are not rehearsed: the work grows with their fourth power.
pub const MAX_REHEARSED: usize = 8;

/// Ticks within `heal_after`. More than the hops of any way, so that one that only is long does not look
/// like one that has stalled.
const TICKS: u64 = 24;

/// How long the regions run before the failure, in `heal_after`.
const BEFORE: u64 = 2;

/// How long the failure lasts, likewise. What has not healed by then does not.
const LASTS: u64 = 10;

/// What fails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A region is down.
    Region(RegionName),
    /// Two regions hear nothing of each other; everything else is well.
    Line(RegionName, RegionName),
}

/// What a [`Fault`] did among the regions that are up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// What failed.
    pub fault: Fault,
    /// By destination, the origins whose ops stopped to arrive there.
    pub stalled: BTreeMap<RegionName, BTreeSet<RegionName>>,
    /// How many `heal_after` it took until they arrived again, rounded; none if they never did.
    pub healed: Option<u64>,
    /// By region, then feeder: origins whose ops it takes from there, and did not before.
    pub taken: BTreeMap<RegionName, BTreeMap<RegionName, BTreeSet<RegionName>>>,
    /// Links that were opened for that, the smaller name first.
    pub opened: BTreeSet<(RegionName, RegionName)>,
    /// All have all that any of them has of every region's ops, of one that is down included.
    pub level: bool,
}

/// Lets `fault` happen in `graph`; none if the cluster is too large or `fault` is not of it.
pub fn rehearse(graph: &Graph, fault: &Fault) -> Option<Rehearsal> {
    let is_member = |name: &RegionName| graph.members().contains(name);
    let belongs = match fault {
        Fault::Region(region) => is_member(region),
        Fault::Line(one, other) => is_member(one) && is_member(other),
    };
    if graph.members().len() > MAX_REHEARSED || !belongs {
        return None;
    }
    let mut world = World::new(graph);
    (0..BEFORE * TICKS).for_each(|_| world.tick());
    let (sources, links) = (world.sources(), world.links.clone());
    world.fault = Some(fault.clone());
    let mut stalled: BTreeMap<RegionName, BTreeSet<RegionName>> = BTreeMap::new();
    let mut last = None;
    for tick in 0..LASTS * TICKS {
        world.tick();
        for (to, origin) in world.behind() {
            stalled.entry(to).or_default().insert(origin);
            last = Some(tick + 1);
        }
    }
    let healed = match last {
        Some(last) if last == LASTS * TICKS => None,
        Some(last) => Some(((last + TICKS / 2) / TICKS).max(1)),
        None => Some(0),
    };
    let mut taken: BTreeMap<RegionName, BTreeMap<RegionName, BTreeSet<RegionName>>> = BTreeMap::new();
    for (to, from, origin) in world.sources().difference(&sources) {
        if world.is_up(origin) && world.connected(to, from) {
            taken.entry(to.clone()).or_default().entry(from.clone()).or_default().insert(origin.clone());
        }
    }
    let used = |(one, other): &&(RegionName, RegionName)| {
        taken.get(one).is_some_and(|from| from.contains_key(other))
            || taken.get(other).is_some_and(|from| from.contains_key(one))
    };
    let opened = world.links.difference(&links).filter(used).cloned().collect();
    Some(Rehearsal { fault: fault.clone(), stalled, healed, opened, level: world.is_level(), taken })
}

/// Whom region `at` dials while nothing is wrong; the other neighbours dial it.
pub fn dials(graph: &Graph, at: &RegionName) -> BTreeSet<RegionName> {
    let dialled = Router::new(graph.clone(), at.clone(), TICKS, false).dials();
    graph.members().iter().filter(|name| dialled.contains(&id(name))).cloned().collect()
}

fn id(name: &RegionName) -> RegionId {
    RegionId::of(name.as_str())
}

fn origin(name: &RegionName) -> Origin {
    Origin::new(id(name), 1)
}

struct Node {
    router: Router,
    applied: VersionVector,
}

struct World {
    now: MonoMs,
    nodes: BTreeMap<RegionName, Node>,
    links: BTreeSet<(RegionName, RegionName)>,
    fault: Option<Fault>,
}

impl World {
    fn new(graph: &Graph) -> Self {
        let node = |at: &RegionName| Node {
            router: Router::new(graph.clone(), at.clone(), TICKS, false),
            applied: VersionVector::default(),
        };
        let nodes = graph.members().iter().map(|at| (at.clone(), node(at))).collect();
        Self { now: MonoMs(0), nodes, links: BTreeSet::new(), fault: None }
    }

    fn is_up(&self, region: &RegionName) -> bool {
        self.fault != Some(Fault::Region(region.clone()))
    }

    fn connected(&self, a: &RegionName, b: &RegionName) -> bool {
        let pair = if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        self.links.contains(&pair)
    }

    /// The pairs of which one dials the other and nothing is in the way.
    fn find_links(&self) -> BTreeSet<(RegionName, RegionName)> {
        let dials = |a: &RegionName, b: &RegionName| {
            self.nodes.get(a).is_some_and(|node| node.router.dials().contains(&id(b)))
        };
        let stands = |a: &RegionName, b: &RegionName| match &self.fault {
            Some(Fault::Line(one, other)) => ![(one, other), (other, one)].contains(&(a, b)),
            _ => self.is_up(a) && self.is_up(b),
        };
        let pairs = self.nodes.keys().flat_map(|a| self.nodes.keys().map(move |b| (a, b)));
        pairs
            .filter(|(a, b)| a < b && stands(a, b) && (dials(a, b) || dials(b, a)))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect()
    }

    /// One tick: everyone writes, what is subscribed moves a hop, everyone looks at its routes.
    fn tick(&mut self) {
        self.now = self.now.after(1);
        self.links = self.find_links();
        let names: Vec<RegionName> = self.nodes.keys().filter(|name| self.is_up(name)).cloned().collect();
        let told: BTreeMap<RegionName, (VersionVector, Vec<u128>)> = self
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), (node.applied.clone(), node.router.via().to_vec())))
            .collect();
        let peers_of = |at: &RegionName| -> Vec<&RegionName> {
            names.iter().filter(|peer| self.connected(at, peer)).collect()
        };
        let peers: BTreeMap<&RegionName, Vec<&RegionName>> =
            names.iter().map(|at| (at, peers_of(at))).collect();
        let none = BTreeSet::new();
        for (at, peers) in peers {
            let Some(node) = self.nodes.get_mut(at) else { continue };
            let own = origin(at);
            let next = node.applied.get(&own) + 1;
            raise(&mut node.applied, own, next);
            let subscriptions = node.router.subscriptions();
            let mut seen = Vec::new();
            for peer in peers {
                let Some((advertised, via)) = told.get(peer) else { continue };
                for dot in advertised.iter() {
                    let region = dot.actor.region();
                    if subscriptions.get(&id(peer)).is_some_and(|regions| regions.contains(&region)) {
                        raise(&mut node.applied, *dot.actor, dot.counter);
                    }
                }
                let (peer, heard) = (id(peer), self.now);
                seen.push(Peer { peer, heard, live: true, serves: true, advertised, via });
            }
            let view = View { applied: &node.applied, peers: &seen, waiting: &none };
            node.router.review(self.now, &view);
        }
    }

    /// Who takes from whom the ops of which region, other than its own.
    fn sources(&self) -> BTreeSet<(RegionName, RegionName, RegionName)> {
        let mut found = BTreeSet::new();
        for (to, node) in self.nodes.iter().filter(|(to, _)| self.is_up(to)) {
            for region in self.nodes.keys().filter(|region| *region != to) {
                let feeders: BTreeSet<RegionId> = node.router.feeders(id(region)).collect();
                let from = self.nodes.keys().filter(|from| feeders.contains(&id(from)));
                found.extend(from.map(|from| (to.clone(), from.clone(), region.clone())));
            }
        }
        found
    }

    /// Destinations and origins of what should have arrived by now.
    fn behind(&self) -> Vec<(RegionName, RegionName)> {
        let up: Vec<_> = self.nodes.iter().filter(|(name, _)| self.is_up(name)).collect();
        let late = |node: &Node, written: &Node, origin: &Origin| {
            node.applied.get(origin) + self.nodes.len() as u64 + 1 < written.applied.get(origin)
        };
        let mut found = Vec::new();
        for (to, node) in &up {
            let behind = up.iter().filter(|(from, written)| late(node, written, &origin(from)));
            found.extend(behind.map(|(from, _)| ((*to).clone(), (*from).clone())));
        }
        found
    }

    /// Whether what is down is known alike, and nobody is behind of the others.
    fn is_level(&self) -> bool {
        let up = || self.nodes.iter().filter(|(name, _)| self.is_up(name)).map(|(_, node)| node);
        let known = |region: &RegionName| up().map(|node| node.applied.get(&origin(region))).collect();
        let down = self.nodes.keys().filter(|name| !self.is_up(name));
        self.behind().is_empty() && down.map(known).all(|known: BTreeSet<u64>| known.len() <= 1)
    }
}
