//! Why a topology was refused.

use std::collections::BTreeSet;
use std::fmt;

use super::{Feed, MAX_REGIONS, RegionName};

/// The part of a shape's description that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The list of regions.
    Regions,
    /// A ring's order.
    Order,
    /// A star's hub.
    Hub,
    /// A star's standby hubs.
    StandbyHubs,
    /// A custom shape's feeds.
    Feeds,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regions => "regions",
            Self::Order => "order",
            Self::Hub => "hub",
            Self::StandbyHubs => "standby_hubs",
            Self::Feeds => "feeds",
        })
    }
}

/// One reason why a topology was refused. No graph was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A cluster has at least one region.
    #[error("there are no regions")]
    NoRegions,
    /// A cluster has at most [`MAX_REGIONS`] regions.
    #[error("there are {count} regions, more than the {MAX_REGIONS} supported")]
    TooManyRegions {
        /// How many there are.
        count: usize,
    },
    /// A region that is not a member is named.
    #[error("region \"{region}\" is not in [[regions]]")]
    UnknownRegion {
        /// Where it is named.
        place: Place,
        /// The stranger.
        region: RegionName,
    },
    /// A region is named more than once.
    #[error("region \"{region}\" is named more than once")]
    DuplicateRegion {
        /// Where it is named.
        place: Place,
        /// The region.
        region: RegionName,
    },
    /// A member has no place in the ring.
    #[error("region \"{region}\" is missing")]
    MissingFromOrder {
        /// The member.
        region: RegionName,
    },
    /// The hub stands by for itself.
    #[error("region \"{region}\" is the hub already")]
    HubStandsBy {
        /// The hub.
        region: RegionName,
    },
    /// A feed is named more than once.
    #[error("the feed {feed} is named more than once")]
    DuplicateFeed {
        /// The feed.
        feed: Feed,
    },
    /// A region feeds itself.
    #[error("region \"{region}\" feeds itself")]
    SelfFeed {
        /// The region.
        region: RegionName,
    },
    /// An origin's ops never reach some regions, so the cluster can never converge.
    #[error("the ops of \"{from}\" never reach {}: this can never converge", list(to))]
    Unreachable {
        /// The origin.
        from: RegionName,
        /// All regions that its ops do not reach.
        to: BTreeSet<RegionName>,
    },
}

impl TopologyError {
    /// The part of the description to mend.
    pub fn place(&self) -> Place {
        match self {
            Self::NoRegions | Self::TooManyRegions { .. } => Place::Regions,
            Self::UnknownRegion { place, .. } | Self::DuplicateRegion { place, .. } => *place,
            Self::MissingFromOrder { .. } => Place::Order,
            Self::HubStandsBy { .. } => Place::StandbyHubs,
            Self::DuplicateFeed { .. } | Self::SelfFeed { .. } | Self::Unreachable { .. } => Place::Feeds,
        }
    }
}

/// Every reason why a topology was refused: at least one. Displays one per line.
///
/// Reachability is judged only where nothing else is wrong, as its answers would be about a graph
/// that nobody meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyErrors(Vec<TopologyError>);

impl TopologyErrors {
    /// Fails if there is any error.
    pub(crate) fn check(errors: Vec<TopologyError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The reasons.
    pub fn iter(&self) -> std::slice::Iter<'_, TopologyError> {
        self.0.iter()
    }
}

impl IntoIterator for TopologyErrors {
    type Item = TopologyError;
    type IntoIter = std::vec::IntoIter<TopologyError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a TopologyErrors {
    type Item = &'a TopologyError;
    type IntoIter = std::slice::Iter<'a, TopologyError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for TopologyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {error}", error.place())?;
        }
        Ok(())
    }
}

impl std::error::Error for TopologyErrors {}

/// `"a", "b" and "c"`.
fn list(names: &BTreeSet<RegionName>) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    }
}
