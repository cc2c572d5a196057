//! The shapes a cluster can be described by, and the feeds they stand for.

use std::collections::BTreeSet;
use std::fmt;

use crate::graph::{Feed, Graph, MAX_REGIONS, Place, RegionName, TopologyError, TopologyErrors};

#[cfg(test)]
mod tests;

/// How the regions of a cluster are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each region is fed by the one before it, the first by the last.
    Ring {
        /// Every region once.
        order: Vec<RegionName>,
    },
    /// The hub feeds every other region and is fed by each.
    Star {
        /// The region in the middle.
        hub: RegionName,
        /// Who takes over as hub while the hub is away, first come first. They have no feeds of their
        /// own before that: in peace a standby hub is a region like the others.
        standby_hubs: Vec<RegionName>,
    },
    /// Every region feeds every other.
    Mesh,
    /// The feeds as given.
    Custom {
        /// Every feed once.
        feeds: Vec<Feed>,
    },
}

impl Shape {
    /// Joins `members` in this shape. A single region is a valid cluster in any shape.
    ///
    /// # Errors
    ///
    /// All that is wrong with the description, at once; see [`TopologyErrors`].
    pub fn graph(&self, members: &[RegionName]) -> Result<Graph, TopologyErrors> {
        let mut errors = Vec::new();
        let set = unique(members, Place::Regions, &mut errors);
        if set.is_empty() {
            errors.push(TopologyError::NoRegions);
        }
        if set.len() > MAX_REGIONS {
            errors.push(TopologyError::TooManyRegions { count: set.len() });
            TopologyErrors::check(std::mem::take(&mut errors))?;
        }
        let feeds = match self {
            Self::Ring { order } => ring(&set, order, &mut errors),
            Self::Star { hub, standby_hubs } => star(&set, hub, standby_hubs, &mut errors),
            Self::Mesh => mesh(&set),
            Self::Custom { feeds } => custom(&set, feeds, &mut errors),
        };
        TopologyErrors::check(errors)?;
        Graph::join(self.clone(), set, &feeds)
    }

    /// The word for this shape in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ring { .. } => "ring",
            Self::Star { .. } => "star",
            Self::Mesh => "mesh",
            Self::Custom { .. } => "custom",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring { order } => {
                f.write_str("ring")?;
                for (at, region) in order.iter().chain(order.first()).enumerate() {
                    write!(f, "{}{region}", if at == 0 { " " } else { " -> " })?;
                }
                Ok(())
            }
            Self::Star { hub, standby_hubs } => {
                write!(f, "star around {hub}")?;
                for (at, standby) in standby_hubs.iter().enumerate() {
                    write!(f, "{}{standby}", if at == 0 { ", standing by: " } else { ", " })?;
                }
                Ok(())
            }
            Self::Mesh => f.write_str("mesh"),
            Self::Custom { feeds } => {
                f.write_str("custom")?;
                for (at, feed) in feeds.iter().enumerate() {
                    write!(f, "{}{feed}", if at == 0 { " " } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

fn ring(
    members: &BTreeSet<RegionName>,
    order: &[RegionName],
    errors: &mut Vec<TopologyError>,
) -> BTreeSet<Feed> {
    let placed = unique(order, Place::Order, errors);
    for region in &placed {
        known(members, Place::Order, region, errors);
    }
    for region in members.difference(&placed) {
        errors.push(TopologyError::MissingFromOrder { region: region.clone() });
    }
    let next = order.iter().cycle().skip(1);
    order
        .iter()
        .zip(next)
        .filter(|(from, to)| from != to)
        .map(|(from, to)| Feed { from: from.clone(), to: to.clone() })
        .collect()
}

fn star(
    members: &BTreeSet<RegionName>,
    hub: &RegionName,
    standby_hubs: &[RegionName],
    errors: &mut Vec<TopologyError>,
) -> BTreeSet<Feed> {
    known(members, Place::Hub, hub, errors);
    for standby in unique(standby_hubs, Place::StandbyHubs, errors) {
        known(members, Place::StandbyHubs, &standby, errors);
        if standby == *hub {
            errors.push(TopologyError::HubStandsBy { region: standby });
        }
    }
    spokes(members, hub)
}

/// The feeds of a star without checks.
pub(crate) fn spokes(members: &BTreeSet<RegionName>, hub: &RegionName) -> BTreeSet<Feed> {
    members
        .iter()
        .filter(|spoke| *spoke != hub)
        .flat_map(|spoke| {
            [Feed { from: hub.clone(), to: spoke.clone() }, Feed { from: spoke.clone(), to: hub.clone() }]
        })
        .collect()
}

fn mesh(members: &BTreeSet<RegionName>) -> BTreeSet<Feed> {
    members.iter().flat_map(|hub| spokes(members, hub)).collect()
}

fn custom(members: &BTreeSet<RegionName>, feeds: &[Feed], errors: &mut Vec<TopologyError>) -> BTreeSet<Feed> {
    let mut seen = BTreeSet::new();
    let mut strangers = BTreeSet::new();
    for feed in feeds {
        if !seen.insert(feed.clone()) {
            errors.push(TopologyError::DuplicateFeed { feed: feed.clone() });
            continue;
        }
        if feed.from == feed.to {
            errors.push(TopologyError::SelfFeed { region: feed.from.clone() });
        }
        strangers.extend([&feed.from, &feed.to].into_iter().filter(|region| !members.contains(*region)));
    }
    for region in strangers {
        known(members, Place::Feeds, region, errors);
    }
    seen
}

/// `names` as a set; a name found again is an error, reported once.
fn unique(names: &[RegionName], place: Place, errors: &mut Vec<TopologyError>) -> BTreeSet<RegionName> {
    let mut set = BTreeSet::new();
    let mut again = BTreeSet::new();
    for name in names {
        if !set.insert(name.clone()) {
            again.insert(name.clone());
        }
    }
    errors.extend(again.into_iter().map(|region| TopologyError::DuplicateRegion { place, region }));
    set
}

fn known(members: &BTreeSet<RegionName>, place: Place, region: &RegionName, errors: &mut Vec<TopologyError>) {
    if !members.contains(region) {
        errors.push(TopologyError::UnknownRegion { place, region: region.clone() });
    }
}
