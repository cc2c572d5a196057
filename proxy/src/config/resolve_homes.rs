//! Which keys are written where.

use std::collections::BTreeMap;
use std::time::Duration;

use meridian_conflict::policy::MAX_PATTERN_BYTES;

use super::error::Problem;
use super::file::{Field, HomeFile};
use super::resolve::{HOUR, Resolver, SECOND};
use super::settings::{Elsewhere, HomeRule, Region, Role, Topology};

/// The most rules: every write without a match tries them all, and regions tell each other of each.
pub const HOMES_MAX: usize = 256;

/// Without a word of it, a lease is so many times `topology.heal_after`.
const LEASE_HEALS: u32 = 3;

/// The shortest lease: it is confirmed three times while it lasts.
const LEASE_LEAST: Duration = Duration::from_millis(300);

/// How long a forwarded write may take, without a word of it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest it may take: the client's connection waits.
const TIMEOUT_MOST: Duration = Duration::from_secs(60);

/// Resolves `[[homes]]`. Regions and topology are none if they are wrong, which was reported.
pub(super) fn homes(
    resolver: &mut Resolver<'_>,
    field: Field<Vec<Field<HomeFile>>>,
    regions: Option<&[Region]>,
    topology: Option<&Topology>,
) -> Vec<HomeRule> {
    let rules = resolver.collector.optional("homes", field).unwrap_or_default();
    if rules.len() > HOMES_MAX {
        resolver.collector.push("homes", Problem::TooMany { count: rules.len(), most: HOMES_MAX });
        return Vec::new();
    }
    let heal_after = topology.map_or(SECOND, |topology| topology.heal_after);
    let lease = (heal_after * LEASE_HEALS).clamp(LEASE_LEAST, HOUR);
    let mut resolved: Vec<HomeRule> = Vec::new();
    let mut known = BTreeMap::new();
    for (at, field) in rules.into_iter().enumerate() {
        let path = format!("homes[{at}]");
        let Some(rule) = rule(resolver, &path, field, regions, lease) else { continue };
        let key = format!("{path}.keys");
        // The second would never match, and a home is known by its pattern.
        if let Some(other) = known.insert(rule.keys.clone(), key.clone()) {
            resolver.collector.push(key, Problem::SameAs { value: rule.keys.clone(), other });
        }
        resolved.push(rule);
    }
    resolved
}

fn rule(
    resolver: &mut Resolver<'_>,
    path: &str,
    field: Field<HomeFile>,
    regions: Option<&[Region]>,
    default_lease: Duration,
) -> Option<HomeRule> {
    let file = resolver.collector.optional(path, field)?;
    resolver.collector.unknown(path, &file.unknown);
    let key = |name: &str| format!("{path}.{name}");
    let keys = resolver.collector.text(&key("keys"), file.keys);
    if let Some(bytes) = keys.as_ref().map(String::len).filter(|bytes| *bytes > MAX_PATTERN_BYTES) {
        resolver.collector.push(key("keys"), Problem::TooLong { bytes, most: MAX_PATTERN_BYTES });
    }
    let region = resolver.collector.required(&key("region"), file.region);
    let region = region.and_then(|name| resolver.collector.name(key("region"), &name));
    if let (Some(region), Some(regions)) = (&region, regions) {
        let found = regions.iter().find(|known| known.name == *region);
        let named = || region.to_string();
        match found.map(|found| found.role) {
            None => resolver.collector.push(key("region"), Problem::NotARegion { region: named() }),
            Some(Role::Follower) => {
                resolver.collector.push(key("region"), Problem::FollowerHome { region: named() });
            }
            Some(Role::Leader) => {}
        }
    }
    let allowed = &["forward", "refuse", "accept"];
    let meanings = [Elsewhere::Forward, Elsewhere::Refuse, Elsewhere::Accept];
    if file.elsewhere.is_absent() {
        resolver.collector.push(key("elsewhere"), Problem::Missing);
    }
    let elsewhere =
        resolver.collector.word(&key("elsewhere"), file.elsewhere, allowed, &meanings, Elsewhere::Refuse);
    let lease = resolver.collector.duration(&key("lease"), file.lease, default_lease, LEASE_LEAST..=HOUR);
    let least = Duration::from_millis(10);
    let timeout = resolver.collector.duration(&key("timeout"), file.timeout, TIMEOUT, least..=TIMEOUT_MOST);
    Some(HomeRule { keys: keys?, region: region?, elsewhere, lease, timeout })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{FileChecks, Settings};

    const CLUSTER: &str = "cluster = \"shop\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
        [tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[topology]\nshape = \"mesh\"\nheal_after = \"2s\"\n\
        [[regions]]\nname = \"eu\"\n[[regions]]\nname = \"us\"\naddress = \"h:1\"\n\
        [[regions]]\nname = \"ap\"\naddress = \"h:2\"\nrole = \"follower\"\n";

    fn parse(homes: &str) -> Result<Vec<HomeRule>, String> {
        let text = format!("{CLUSTER}{homes}");
        let parsed = Settings::parse(&text, Path::new("/nonexistent"), FileChecks::Skip);
        parsed.map(|settings| settings.homes).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_home_rule_has_its_defaults() {
        let rules =
            parse("[[homes]]\nkeys = \"user:eu:*\"\nregion = \"eu\"\nelsewhere = \"forward\"\n").unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!((rules[0].keys.as_str(), rules[0].region.as_str()), ("user:eu:*", "eu"));
        assert_eq!(rules[0].elsewhere, Elsewhere::Forward);
        assert_eq!((rules[0].lease, rules[0].timeout), (Duration::from_secs(6), TIMEOUT));
    }

    #[test]
    fn what_is_wrong_with_home_rules_is_reported_at_once() {
        let wrong = "[[homes]]\nkeys = \"a\"\nregion = \"nowhere\"\nelsewhere = \"forward\"\n\
            [[homes]]\nkeys = \"b\"\nregion = \"ap\"\nelsewhere = \"forward\"\n\
            [[homes]]\nkeys = \"a\"\nregion = \"eu\"\nelsewhere = \"away\"\nlease = \"1ms\"\n\
            [[homes]]\nkeys = \"\"\nregion = \"eu\"\nother = 1\n";
        let errors = parse(wrong).unwrap_err();
        for part in [
            "homes[0].region: \"nowhere\" is not in [[regions]]",
            "homes[1].region: \"ap\" is a follower",
            "homes[2].keys: \"a\" is used by homes[0].keys too",
            "homes[2].elsewhere: \"away\" is not one of forward, refuse, accept",
            "homes[2].lease: 1ms is not between",
            "homes[3].keys: must not be empty",
            "homes[3].elsewhere: missing",
            "homes[3].other: unknown key",
        ] {
            assert!(errors.contains(part), "{part}\n{errors}");
        }
        let many = (0..=HOMES_MAX).fold(String::new(), |text, n| {
            text + &format!("[[homes]]\nkeys = \"k{n}\"\nregion = \"eu\"\nelsewhere = \"accept\"\n")
        });
        assert!(parse(&many).unwrap_err().contains("257 are more than the 256 accepted"));
    }
}
