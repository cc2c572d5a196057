//! The regions of the cluster and how they are joined.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use meridian_conflict::clock::RegionId;
use meridian_topology::graph::{Feed, Place, RegionName};
use meridian_topology::shape::Shape;

use super::error::Problem;
use super::file::{Field, RegionFile, TopologyFile};
use super::resolve::Resolver;
use super::settings::{Region, Role, Topology};

/// The longest host name of the DNS.
const MAX_HOST_BYTES: usize = 253;

/// Resolves `[[regions]]`; without any, the cluster is this region alone.
///
/// Gives none if a name is wrong, as judging the topology by the others would report nothing but
/// consequences. May hold a name twice: the topology reports that.
pub(super) fn regions(
    resolver: &mut Resolver<'_>,
    field: Field<Vec<Field<RegionFile>>>,
    own: Option<&RegionName>,
    link: SocketAddr,
) -> Option<Vec<Region>> {
    if field.is_absent() {
        return own
            .map(|name| vec![Region { name: name.clone(), address: link.to_string(), role: Role::Leader }]);
    }
    let files = resolver.collector.optional("regions", field)?;
    let mut addresses = BTreeMap::new();
    let mut regions = Vec::new();
    let mut all_named = true;
    let mut names = BTreeMap::new();
    for (at, file) in files.into_iter().enumerate() {
        match region(resolver, at, file, own, link, &mut addresses) {
            Some(region) => {
                check_number(resolver, at, &region.name, &mut names);
                regions.push(region);
            }
            None => all_named = false,
        }
    }
    if !all_named {
        return None;
    }
    if let Some(own) = own.filter(|own| !regions.iter().any(|region| region.name == **own)) {
        resolver.collector.push("region", Problem::NotARegion { region: own.to_string() });
    }
    if !regions.is_empty() && regions.iter().all(|region| region.role == Role::Follower) {
        resolver.collector.push("regions", Problem::NoLeader);
    }
    Some(regions)
}

/// Regions travel as numbers made from their names, so no two names may give the same number.
fn check_number(
    resolver: &mut Resolver<'_>,
    at: usize,
    name: &RegionName,
    names: &mut BTreeMap<RegionId, RegionName>,
) {
    let other = names.entry(RegionId::of(name.as_str())).or_insert_with(|| name.clone());
    if other != name {
        let problem = Problem::SameNumber { name: name.to_string(), other: other.to_string() };
        resolver.collector.push(format!("regions[{at}].name"), problem);
    }
}

/// One region; none if it has no valid name.
fn region(
    resolver: &mut Resolver<'_>,
    at: usize,
    field: Field<RegionFile>,
    own: Option<&RegionName>,
    link: SocketAddr,
    addresses: &mut BTreeMap<String, usize>,
) -> Option<Region> {
    let path = format!("regions[{at}]");
    let file = resolver.collector.optional(&path, field)?;
    resolver.collector.unknown(&path, &file.unknown);
    let name_key = format!("{path}.name");
    let name = resolver.collector.required(&name_key, file.name);
    let name = name.and_then(|name| resolver.collector.name(name_key, &name));
    let address_key = format!("{path}.address");
    // Nobody dials itself, so this region's own address may be left out.
    let address = match file.address {
        Field::Absent if name.is_some() && name.as_ref() == own => Some(link.to_string()),
        field => resolver.collector.required(&address_key, field),
    };
    if let Some(address) = &address {
        check_address(resolver, at, &address_key, address, addresses);
    }
    let roles = [Role::Leader, Role::Follower];
    let allowed = &["leader", "follower"];
    let role = resolver.collector.word(&format!("{path}.role"), file.role, allowed, &roles, Role::Leader);
    Some(Region { name: name?, address: address.unwrap_or_default(), role })
}

fn check_address(
    resolver: &mut Resolver<'_>,
    at: usize,
    key: &str,
    address: &str,
    addresses: &mut BTreeMap<String, usize>,
) {
    if !is_peer_address(address) {
        resolver.collector.push(key, Problem::PeerAddress { value: address.to_owned() });
    } else if let Some(other) = addresses.insert(address.to_owned(), at) {
        let other = format!("regions[{other}].address");
        resolver.collector.push(key, Problem::SameAs { value: address.to_owned(), other });
    }
}

/// Whether `address` is `host:port`: an IPv4 address, an IPv6 address in brackets or a DNS name.
fn is_peer_address(address: &str) -> bool {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return socket.port() != 0 && !socket.ip().is_unspecified();
    }
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // An address that looks like IPv4 and did not parse above is a mistyped one.
    let is_name = host.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.');
    let port_is_good =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    is_name && port_is_good && host.len() <= MAX_HOST_BYTES && host.split('.').all(is_label)
}

/// Resolves `[topology]` over `regions`. A single region needs none.
pub(super) fn topology(
    resolver: &mut Resolver<'_>,
    field: Field<TopologyFile>,
    regions: Option<&[Region]>,
    single: bool,
) -> Option<Topology> {
    let mut file = resolver.section("topology", field);
    resolver.collector.unknown("topology", &file.unknown);
    let (default, least) = (Duration::from_secs(3), Duration::from_millis(100));
    let key = "topology.heal_after";
    let most = Duration::from_secs(86_400);
    let heal_after =
        resolver.collector.duration(key, std::mem::take(&mut file.heal_after), default, least..=most);
    let shape = shape(resolver, file, single)?;
    let members: Vec<RegionName> = regions?.iter().map(|region| region.name.clone()).collect();
    match shape.graph(&members) {
        Ok(graph) => Some(Topology { shape, graph, heal_after }),
        Err(errors) => {
            for error in errors {
                let key = match error.place() {
                    Place::Regions => "regions".to_owned(),
                    place => format!("topology.{place}"),
                };
                resolver.collector.push(key, Problem::Topology(error));
            }
            None
        }
    }
}

/// The shape, if all that describes it is there. A key of another shape is an error.
fn shape(resolver: &mut Resolver<'_>, file: TopologyFile, single: bool) -> Option<Shape> {
    let kind = match file.shape {
        Field::Absent if single => "mesh".to_owned(),
        field => resolver.collector.required("topology.shape", field)?,
    };
    let allowed = &["ring", "star", "mesh", "custom"];
    if !allowed.contains(&kind.as_str()) {
        resolver.collector.push("topology.shape", Problem::NotOneOf { value: kind, allowed });
        return None;
    }
    if kind != "ring" {
        resolver.only_with("topology.order", "topology.shape = \"ring\"", &file.order);
    }
    if kind != "star" {
        resolver.only_with("topology.hub", "topology.shape = \"star\"", &file.hub);
        resolver.only_with("topology.standby_hubs", "topology.shape = \"star\"", &file.standby_hubs);
    }
    if kind != "custom" {
        resolver.only_with("topology.feeds", "topology.shape = \"custom\"", &file.feeds);
    }
    match kind.as_str() {
        "ring" => {
            let order = resolver.collector.required("topology.order", file.order)?;
            Some(Shape::Ring { order: names(resolver, "topology.order", &order)? })
        }
        "star" => {
            let hub = resolver.collector.required("topology.hub", file.hub);
            let hub = hub.and_then(|hub| resolver.collector.name("topology.hub", &hub));
            let standby = resolver.collector.optional("topology.standby_hubs", file.standby_hubs);
            let standby_hubs = names(resolver, "topology.standby_hubs", &standby.unwrap_or_default());
            Some(Shape::Star { hub: hub?, standby_hubs: standby_hubs? })
        }
        "custom" => {
            let pairs = resolver.collector.required("topology.feeds", file.feeds)?;
            Some(Shape::Custom { feeds: feeds(resolver, &pairs)? })
        }
        _ => Some(Shape::Mesh),
    }
}

/// All of `texts` as names, or all errors.
fn names(resolver: &mut Resolver<'_>, key: &str, texts: &[String]) -> Option<Vec<RegionName>> {
    let parsed: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| resolver.collector.name(format_args!("{key}[{at}]"), text))
        .collect();
    parsed.into_iter().collect()
}

/// All of `pairs` as feeds, or all errors.
fn feeds(resolver: &mut Resolver<'_>, pairs: &[Vec<String>]) -> Option<Vec<Feed>> {
    let mut feeds = Some(Vec::new());
    for (at, pair) in pairs.iter().enumerate() {
        let key = format!("topology.feeds[{at}]");
        let feed = match names(resolver, &key, pair) {
            Some(names) => match <[RegionName; 2]>::try_from(names) {
                Ok([from, to]) => Some(Feed { from, to }),
                Err(names) => {
                    resolver.collector.push(key, Problem::NotAPair { count: names.len() });
                    None
                }
            },
            None => None,
        };
        feeds = feeds.zip(feed).map(|(mut feeds, feed)| {
            feeds.push(feed);
            feeds
        });
    }
    feeds
}
