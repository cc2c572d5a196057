//! The validated directed feeds between the regions of a cluster.
//!
//! A [`Feed`] `from -> to` means that `to` may subscribe to `from`: it is fed every op that `from`
//! has applied of the origins it asks for. A [`Graph`] exists only if every region's ops reach every
//! other region, so nothing that holds one has to ask whether the cluster can converge.

mod error;
mod name;

#[cfg(test)]
mod tests;

pub use error::{Place, TopologyError, TopologyErrors};
pub use name::{NameError, RegionName, check_name};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::shape::Shape;

/// The most regions a cluster may have: bounds the work of validation and what a plan prints.
pub const MAX_REGIONS: usize = 128;

/// Names the canonical encoding under [`Graph::digest`]; changes whenever that encoding does.
const DIGEST_DOMAIN: &[u8] = b"meridian topology 1";

static NO_REGIONS: BTreeSet<RegionName> = BTreeSet::new();

/// For each region, the regions it feeds (or, reversed, that feed it).
pub(crate) type Edges = BTreeMap<RegionName, BTreeSet<RegionName>>;

/// One directed edge: `to` may subscribe to `from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feed {
    /// The region that serves ops.
    pub from: RegionName,
    /// The region that is fed.
    pub to: RegionName,
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// The feeds of a cluster.
///
/// # Invariants
///
/// Has 1 to [`MAX_REGIONS`] members, feeds join members only, no region feeds itself, and every
/// member is reachable from every other. Made by [`Shape::graph`] and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    shape: Shape,
    members: BTreeSet<RegionName>,
    fed_by: Edges,
    feeders: Edges,
    /// origin -> destination -> hops on a shortest path; an origin is at 0 hops from itself.
    hops: BTreeMap<RegionName, BTreeMap<RegionName, u32>>,
}

impl Graph {
    /// Joins `members` by `feeds`, both already checked by `shape`.
    ///
    /// # Errors
    ///
    /// One [`TopologyError::Unreachable`] for each origin whose ops do not reach every region.
    pub(crate) fn join(
        shape: Shape,
        members: BTreeSet<RegionName>,
        feeds: &BTreeSet<Feed>,
    ) -> Result<Self, TopologyErrors> {
        let mut fed_by: Edges = members.iter().map(|m| (m.clone(), BTreeSet::new())).collect();
        let mut feeders = fed_by.clone();
        for Feed { from, to } in feeds {
            fed_by.entry(from.clone()).or_default().insert(to.clone());
            feeders.entry(to.clone()).or_default().insert(from.clone());
        }
        let mut hops = BTreeMap::new();
        let mut errors = Vec::new();
        for origin in &members {
            let reached = hops_from(&fed_by, members.len(), origin, None);
            let missed: BTreeSet<_> = members.iter().filter(|m| !reached.contains_key(*m)).cloned().collect();
            if !missed.is_empty() {
                errors.push(TopologyError::Unreachable { from: origin.clone(), to: missed });
            }
            hops.insert(origin.clone(), reached);
        }
        TopologyErrors::check(errors)?;
        Ok(Self { shape, members, fed_by, feeders, hops })
    }

    /// The shape this graph was made from.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Every region of the cluster, in the order of names.
    pub fn members(&self) -> &BTreeSet<RegionName> {
        &self.members
    }

    /// Every feed, ordered by `from`, then `to`.
    pub fn feeds(&self) -> impl Iterator<Item = Feed> + '_ {
        self.fed_by
            .iter()
            .flat_map(|(from, tos)| tos.iter().map(|to| Feed { from: from.clone(), to: to.clone() }))
    }

    /// The regions that feed `of`; none for a stranger.
    pub fn feeders(&self, of: &RegionName) -> &BTreeSet<RegionName> {
        self.feeders.get(of).unwrap_or(&NO_REGIONS)
    }

    /// The regions that `from` feeds; none for a stranger.
    pub fn fed_by(&self, from: &RegionName) -> &BTreeSet<RegionName> {
        self.fed_by.get(from).unwrap_or(&NO_REGIONS)
    }

    /// The regions that share a feed with `region`, in either direction: one link each.
    pub fn neighbours(&self, region: &RegionName) -> BTreeSet<RegionName> {
        self.feeders(region).union(self.fed_by(region)).cloned().collect()
    }

    /// The hops of an op of `origin` to `destination` on a shortest path: 0 for the origin itself,
    /// `None` if either is a stranger.
    pub fn hops(&self, origin: &RegionName, destination: &RegionName) -> Option<u32> {
        self.hops.get(origin)?.get(destination).copied()
    }

    /// For each other origin, the region that feeds its ops to `at` while every region is up.
    ///
    /// The feeder is the first by name among those on a shortest path. Each step back along feeders
    /// is one hop closer to the origin, so as every region computes the same answer, following them
    /// leads to the origin without a cycle. Turned around, the origins of one feeder are the
    /// subscription that `at` holds there. Empty for a stranger.
    pub fn routes(&self, at: &RegionName) -> BTreeMap<RegionName, RegionName> {
        let mut routes = BTreeMap::new();
        for (origin, reached) in &self.hops {
            let Some(hops) = reached.get(at).filter(|hops| **hops > 0) else { continue };
            let nearer = |feeder: &&RegionName| reached.get(*feeder).is_some_and(|h| h + 1 == *hops);
            if let Some(feeder) = self.feeders(at).iter().find(nearer) {
                routes.insert(origin.clone(), feeder.clone());
            }
        }
        routes
    }

    /// A stable digest of everything in which two regions must agree about the topology: members,
    /// feeds, hub and standby hubs. Exchanged in the hello. The way a graph was written down does not
    /// enter: a ring and the custom feeds that draw the same ring have the same digest.
    ///
    /// xxh3-64 over a constant and four lists of names: members, feeds as `from, to` in order,
    /// hub (none or one), standby hubs in their order. A list is its length, a name its bytes after
    /// their length; lengths are 4 bytes, little endian.
    pub fn digest(&self) -> u64 {
        let feeds: Vec<Feed> = self.feeds().collect();
        let (hub, standby): (Option<&RegionName>, &[RegionName]) = match &self.shape {
            Shape::Star { hub, standby_hubs } => (Some(hub), standby_hubs),
            Shape::Ring { .. } | Shape::Mesh | Shape::Custom { .. } => (None, &[]),
        };
        let mut bytes = DIGEST_DOMAIN.to_vec();
        encode(&mut bytes, self.members.iter());
        encode(&mut bytes, feeds.iter().flat_map(|feed| [&feed.from, &feed.to]));
        encode(&mut bytes, hub.into_iter());
        encode(&mut bytes, standby.iter());
        xxh3_64(&bytes)
    }

    /// The feeds by source, for what-if questions of the plan.
    pub(crate) fn edges(&self) -> &Edges {
        &self.fed_by
    }
}

fn encode<'a>(bytes: &mut Vec<u8>, names: impl Iterator<Item = &'a RegionName> + Clone) {
    // Both lengths are bounded far below 2^32 by MAX_REGIONS and the bound on names.
    bytes.extend_from_slice(&(names.clone().count() as u32).to_le_bytes());
    for name in names {
        bytes.extend_from_slice(&(name.as_str().len() as u32).to_le_bytes());
        bytes.extend_from_slice(name.as_str().as_bytes());
    }
}

/// Breadth-first hops from `origin` along `edges`, as if the region `down` were not there. Stops as
/// soon as `total` regions are reached, which keeps dense graphs cheap.
pub(crate) fn hops_from(
    edges: &Edges,
    total: usize,
    origin: &RegionName,
    down: Option<&RegionName>,
) -> BTreeMap<RegionName, u32> {
    let mut reached = BTreeMap::from([(origin.clone(), 0)]);
    let mut queue = VecDeque::from([(origin, 0)]);
    while let Some((at, hops)) = queue.pop_front() {
        if reached.len() >= total {
            break;
        }
        for next in edges.get(at).unwrap_or(&NO_REGIONS) {
            if Some(next) != down && !reached.contains_key(next) {
                reached.insert(next.clone(), hops + 1);
                queue.push_back((next, hops + 1));
            }
        }
    }
    reached
}
