//! The feeds that are left when regions are lost: the shape closes over the gap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::graph::{Edges, Graph, RegionName, hops_from};
use crate::shape::{Shape, spokes};

/// For each origin, the regions that feed its ops to `at` while `lost` are not to be heard.
///
/// A lost feeder is replaced by its own feeders, breadth first. That closes a ring over the gap,
/// joins the spokes of a star without hub to each other, and leaves a mesh less the lost. In a star
/// with standby hubs the first that is not lost becomes the hub. Every survivor's ops still reach
/// every other: contracting a region keeps all paths that led through it.
///
/// Of each origin one feeder, the first by name on a shortest path; with `redundant`, every feeder.
/// An origin that is lost itself has none: whoever has more of its ops than we do is found by what
/// the neighbours advertise.
pub fn around(
    graph: &Graph,
    at: &RegionName,
    lost: &BTreeSet<RegionName>,
    redundant: bool,
) -> BTreeMap<RegionName, BTreeSet<RegionName>> {
    let live: BTreeSet<RegionName> =
        graph.members().iter().filter(|member| *member == at || !lost.contains(*member)).cloned().collect();
    let edges = feeds_among(graph, &live, lost);
    let feeders: Vec<&RegionName> =
        edges.iter().filter(|(_, fed)| fed.contains(at)).map(|(feeder, _)| feeder).collect();
    let mut routes = BTreeMap::new();
    for origin in live.iter().filter(|origin| *origin != at) {
        if redundant {
            routes.insert(origin.clone(), feeders.iter().map(|feeder| (*feeder).clone()).collect());
            continue;
        }
        let reached = hops_from(&edges, live.len(), origin, None);
        let Some(hops) = reached.get(at) else { continue };
        let nearer = |feeder: &&&RegionName| reached.get(**feeder).is_some_and(|h| h + 1 == *hops);
        if let Some(feeder) = feeders.iter().find(nearer) {
            routes.insert(origin.clone(), BTreeSet::from([(*feeder).clone()]));
        }
    }
    routes
}

/// The feeds among `live`, by source.
fn feeds_among(graph: &Graph, live: &BTreeSet<RegionName>, lost: &BTreeSet<RegionName>) -> Edges {
    let mut edges: Edges = BTreeMap::new();
    let mut join = |from: &RegionName, to: &RegionName| {
        edges.entry(from.clone()).or_default().insert(to.clone());
    };
    if let Shape::Star { hub, standby_hubs } = graph.shape()
        && lost.contains(hub)
        && !live.contains(hub)
        && let Some(standby) = standby_hubs.iter().find(|standby| live.contains(*standby))
    {
        spokes(live, standby).iter().for_each(|feed| join(&feed.from, &feed.to));
        return edges;
    }
    for to in live {
        live_feeders(graph, to, live).iter().for_each(|from| join(from, to));
    }
    edges
}

/// The feeders of `to`, each lost one replaced by its own feeders.
fn live_feeders(graph: &Graph, to: &RegionName, live: &BTreeSet<RegionName>) -> BTreeSet<RegionName> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::from([to.clone()]);
    let mut queue = VecDeque::from([to.clone()]);
    while let Some(at) = queue.pop_front() {
        for feeder in graph.feeders(&at) {
            if !seen.insert(feeder.clone()) {
                continue;
            }
            if live.contains(feeder) {
                found.insert(feeder.clone());
            } else {
                queue.push_back(feeder.clone());
            }
        }
    }
    found
}
