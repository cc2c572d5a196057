//! What a topology means: the path of each origin's ops, and what happens when a region fails.
//!
//! This is what `meridian check` puts into words. It answers for one failure at a time. What the live routing
//! does is decided by who is heard from, not by this plan: [`rehearse`] lets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::graph::{Feed, Graph, RegionName, hops_from};
use crate::route;
use crate::shape::{Shape, spokes};

mod rehearsal;
#[cfg(test)]
mod tests;

pub use rehearsal::{Fault, MAX_REHEARSED, Rehearsal, dials, rehearse};

/// The paths of a [`Graph`] and its answers to the failure of each single region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    paths: BTreeMap<RegionName, BTreeMap<RegionName, Path>>,
    failures: BTreeMap<RegionName, Failure>,
}

/// The way of an op from its origin to one destination while every region is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    regions: Vec<RegionName>,
}

/// What happens among the other regions while one region is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The region that is down.
    pub region: RegionName,
    /// How many ordered pairs of the other regions still have a path over the remaining feeds.
    pub connected: usize,
    /// For each origin, the live regions that its ops no longer reach over the remaining feeds.
    pub cut: BTreeMap<RegionName, BTreeSet<RegionName>>,
    /// What joins the cut pairs again.
    pub recovery: Recovery,
}

/// What joins regions again that a failure has cut from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing is cut.
    Unneeded,
    /// Routes go around the failed region by these additional feeds.
    Around {
        /// Enough feeds that every live region's ops reach every other.
        feeds: BTreeSet<Feed>,
    },
    /// The first standby hub that is up takes over.
    Standby {
        /// The region that becomes the hub.
        hub: RegionName,
    },
}

impl Plan {
    /// Works out the paths and failures of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let routes: BTreeMap<_, _> =
            graph.members().iter().map(|at| (at.clone(), graph.routes(at))).collect();
        let paths = graph
            .members()
            .iter()
            .map(|origin| {
                let others = graph.members().iter().filter(|destination| *destination != origin);
                let paths = others.map(|to| (to.clone(), Path::back(&routes, origin, to))).collect();
                (origin.clone(), paths)
            })
            .collect();
        let failures =
            graph.members().iter().map(|region| (region.clone(), Failure::of(graph, region))).collect();
        Self { paths, failures }
    }

    /// The path of `origin`'s ops to `destination`; `None` if they are the same or strangers.
    pub fn path(&self, origin: &RegionName, destination: &RegionName) -> Option<&Path> {
        self.paths.get(origin)?.get(destination)
    }

    /// Every path, by origin, then destination.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.values().flat_map(BTreeMap::values)
    }

    /// What happens when `region` fails; `None` for a stranger.
    pub fn failure(&self, region: &RegionName) -> Option<&Failure> {
        self.failures.get(region)
    }

    /// The failure of each region, in the order of names.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.values()
    }

    /// The longest path, the first by origin and destination; none for a single region.
    pub fn longest(&self) -> Option<&Path> {
        self.paths().reduce(|longest, path| if path.hops() > longest.hops() { path } else { longest })
    }

    /// How many paths `fault` is in the way of.
    pub fn broken_by(&self, fault: &Fault) -> usize {
        self.paths().filter(|path| path.is_broken_by(fault)).count()
    }
}

impl Path {
    /// Follows the feeders from `destination` back to `origin`; they get nearer with each step.
    fn back(
        routes: &BTreeMap<RegionName, BTreeMap<RegionName, RegionName>>,
        origin: &RegionName,
        destination: &RegionName,
    ) -> Self {
        let mut regions = vec![destination.clone()];
        let mut at = destination;
        while let Some(feeder) = routes.get(at).and_then(|routes| routes.get(origin)) {
            regions.push(feeder.clone());
            at = feeder;
        }
        regions.reverse();
        Self { regions }
    }

    /// The regions an op passes, from its origin to the destination.
    pub fn regions(&self) -> &[RegionName] {
        &self.regions
    }

    /// Whether `fault` is on the way. A region that is down is in the way of others' ops only.
    fn is_broken_by(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Region(region) => {
                let inner = self.regions.len().saturating_sub(1);
                self.regions.get(1..inner).is_some_and(|between| between.contains(region))
            }
            Fault::Line(one, other) => {
                self.regions.windows(2).any(|pair| pair.contains(one) && pair.contains(other))
            }
        }
    }

    /// The feeds an op passes.
    pub fn hops(&self) -> usize {
        self.regions.len().saturating_sub(1)
    }
}

impl Failure {
    fn of(graph: &Graph, region: &RegionName) -> Self {
        let live: BTreeSet<&RegionName> = graph.members().iter().filter(|member| *member != region).collect();
        let mut connected = 0;
        let mut cut = BTreeMap::new();
        for origin in &live {
            let reached = hops_from(graph.edges(), live.len(), origin, Some(region));
            let missed: BTreeSet<RegionName> =
                live.iter().filter(|to| !reached.contains_key(**to)).map(|to| (*to).clone()).collect();
            connected += reached.len().saturating_sub(1);
            if !missed.is_empty() {
                cut.insert((*origin).clone(), missed);
            }
        }
        let recovery = if cut.is_empty() { Recovery::Unneeded } else { Recovery::of(graph, region, &live) };
        Self { region: region.clone(), connected, cut, recovery }
    }
}

impl Recovery {
    /// For a region whose failure cuts others from each other.
    fn of(graph: &Graph, region: &RegionName, live: &BTreeSet<&RegionName>) -> Self {
        match graph.shape() {
            // Only the hub's failure cuts anything in a star.
            Shape::Star { standby_hubs, .. } if !standby_hubs.is_empty() => {
                let hub = standby_hubs.first().unwrap_or(region);
                Self::Standby { hub: hub.clone() }
            }
            _ => Self::Around { feeds: around(graph, region, live) },
        }
    }

    /// The feeds that this recovery adds among the `live` regions.
    pub fn feeds(&self, live: &BTreeSet<RegionName>) -> BTreeSet<Feed> {
        match self {
            Self::Unneeded => BTreeSet::new(),
            Self::Around { feeds } => feeds.clone(),
            Self::Standby { hub } => spokes(live, hub),
        }
    }
}

/// The feeds that the live regions take up when `region` is lost, by the rule they route by.
fn around(graph: &Graph, region: &RegionName, live: &BTreeSet<&RegionName>) -> BTreeSet<Feed> {
    let lost = BTreeSet::from([region.clone()]);
    let present: BTreeSet<Feed> = graph.feeds().collect();
    let taken = |to: &&RegionName| -> Vec<Feed> {
        let feeders = route::around(graph, to, &lost, false).into_values().flatten();
        feeders.map(|from| Feed { from, to: (*to).clone() }).collect()
    };
    live.iter().flat_map(taken).filter(|feed| !present.contains(feed)).collect()
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, region) in self.regions.iter().enumerate() {
            write!(f, "{}{region}", if at == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}
