//! How homes stand, as `MERIDIAN.HOMES` and `/status` tell it.

use meridian_conflict::clock::RegionId;
use serde::{Deserialize, Serialize};

use super::now;
use crate::config::settings::Elsewhere;
use crate::region::Region;

/// A rule with who is home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HomeStatus {
    /// The pattern, readable.
    pub keys: String,
    /// The region that is home; its number in hexadecimal if it is not configured any more.
    pub home: String,
    /// What becomes of a write in another region: `forward`, `refuse` or `accept`.
    pub elsewhere: String,
    /// `held`, `none` or `moving` at the home; `elsewhere` where another region is, `unneeded` where every
    /// region writes.
    pub lease: String,
    /// How long this region may go on granting writes without hearing from the others.
    pub lease_ms: u64,
    /// The home's term.
    pub term: u64,
}

/// Every rule in force, first match first. `name` names regions.
pub fn statuses(region: &Region, name: impl Fn(RegionId) -> String) -> Vec<HomeStatus> {
    let (rules, now) = (region.homes().rules(), now());
    let me = RegionId::of(region.settings().region.as_str());
    let status = |rule: &std::sync::Arc<super::rule::Rule>| {
        let standing = rule.standing();
        let lease_ms = standing.until.since(now);
        let lease = if rule.elsewhere == Elsewhere::Accept {
            "unneeded"
        } else if standing.term.holder != me {
            "elsewhere"
        } else if standing.moving {
            "moving"
        } else if lease_ms > 0 {
            "held"
        } else {
            "none"
        };
        HomeStatus {
            // Patterns come from a text.
            keys: String::from_utf8_lossy(&rule.keys).into_owned(),
            home: name(standing.term.holder),
            elsewhere: rule.elsewhere.name().to_owned(),
            lease: lease.to_owned(),
            lease_ms,
            term: standing.term.number,
        }
    };
    rules.iter().map(status).collect()
}
