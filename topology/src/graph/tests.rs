#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::plan::Plan;

fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<RegionName> {
    texts.iter().map(|text| name(text)).collect()
}

fn feed(from: &str, to: &str) -> Feed {
    Feed { from: name(from), to: name(to) }
}

fn ring(order: &[&str]) -> Graph {
    Shape::Ring { order: names(order) }.graph(&names(order)).unwrap()
}

#[test]
fn names_follow_the_rule() {
    for good in ["a", "eu", "eu-west-1", "0", &"x".repeat(32)] {
        assert_eq!(name(good).as_str(), good);
    }
    for (bad, error) in [
        ("", NameError::Empty),
        (&*"x".repeat(33), NameError::TooLong { bytes: 33 }),
        ("-eu", NameError::DashAtEnd),
        ("eu-", NameError::DashAtEnd),
        ("eu.west", NameError::Character { character: '.' }),
        ("EU", NameError::Character { character: 'E' }),
        ("eü", NameError::Character { character: 'ü' }),
    ] {
        assert_eq!(RegionName::new(bad), Err(error));
    }
}

#[test]
fn on_a_ring_all_comes_from_the_predecessor() {
    let graph = ring(&["eu", "us", "ap"]);
    assert_eq!(graph.feeders(&name("us")), &BTreeSet::from([name("eu")]));
    assert_eq!(graph.fed_by(&name("us")), &BTreeSet::from([name("ap")]));
    assert_eq!(graph.neighbours(&name("us")), BTreeSet::from([name("ap"), name("eu")]));
    let routes = graph.routes(&name("us"));
    assert_eq!(routes, BTreeMap::from([(name("ap"), name("eu")), (name("eu"), name("eu"))]));
    assert_eq!(graph.hops(&name("ap"), &name("us")), Some(2));
}

#[test]
fn on_a_star_all_comes_from_the_hub() {
    let members = names(&["eu", "us", "ap"]);
    let graph = Shape::Star { hub: name("us"), standby_hubs: vec![] }.graph(&members).unwrap();
    assert!(graph.routes(&name("eu")).values().all(|feeder| *feeder == name("us")));
    assert!(graph.routes(&name("us")).iter().all(|(origin, feeder)| origin == feeder));
}

#[test]
fn in_a_mesh_all_comes_directly() {
    let graph = Shape::Mesh.graph(&names(&["eu", "us", "ap", "sa"])).unwrap();
    for at in graph.members() {
        assert_eq!(graph.routes(at).len(), 3);
        assert!(graph.routes(at).iter().all(|(origin, feeder)| origin == feeder));
    }
}

#[test]
fn a_tie_goes_to_the_first_name() {
    // Two equal ways from a to d: by b and by c.
    let feeds = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "a")];
    let feeds = feeds.iter().map(|(from, to)| feed(from, to)).collect();
    let graph = Shape::Custom { feeds }.graph(&names(&["a", "b", "c", "d"])).unwrap();
    assert_eq!(graph.routes(&name("d"))[&name("a")], name("b"));
}

#[test]
fn the_digest_is_of_the_graph_and_never_changes() {
    let drawn = Shape::Custom { feeds: vec![feed("us", "ap"), feed("ap", "eu"), feed("eu", "us")] };
    let drawn = drawn.graph(&names(&["ap", "us", "eu"])).unwrap();
    assert_eq!(ring(&["eu", "us", "ap"]).digest(), drawn.digest());
    assert_ne!(ring(&["us", "eu", "ap"]).digest(), drawn.digest());
    let members = names(&["a", "b", "c"]);
    let star = |standby: &[&str]| Shape::Star { hub: name("a"), standby_hubs: names(standby) };
    let digest = |standby: &[&str]| star(standby).graph(&members).unwrap().digest();
    let digests = BTreeSet::from([digest(&[]), digest(&["b"]), digest(&["b", "c"]), digest(&["c", "b"])]);
    assert_eq!(digests.len(), 4);
    // Peers of other versions compute it too: a new value needs a new protocol version.
    assert_eq!(ring(&["eu", "us", "ap"]).digest(), GOLDEN_RING_DIGEST);
}

const GOLDEN_RING_DIGEST: u64 = 1_375_956_658_901_679_412;

#[test]
fn strangers_have_no_feeds() {
    let graph = ring(&["eu", "us"]);
    assert!(graph.feeders(&name("xx")).is_empty() && graph.fed_by(&name("xx")).is_empty());
    assert!(graph.routes(&name("xx")).is_empty());
    assert_eq!(graph.hops(&name("xx"), &name("eu")), None);
}

fn members() -> impl Strategy<Value = Vec<RegionName>> {
    proptest::collection::btree_set("[a-z][a-z0-9]{0,3}", 1..9)
        .prop_map(|texts| texts.iter().map(|text| name(text)).collect::<Vec<_>>())
        .prop_shuffle()
}

fn regular() -> impl Strategy<Value = Graph> {
    (members(), 0..3u8, any::<proptest::sample::Index>()).prop_map(|(members, kind, hub)| {
        let shape = match kind {
            0 => Shape::Ring { order: members.clone() },
            1 => Shape::Star { hub: hub.get(&members).clone(), standby_hubs: vec![] },
            _ => Shape::Mesh,
        };
        shape.graph(&members).expect("a ring, star or mesh of distinct regions is valid")
    })
}

fn custom() -> impl Strategy<Value = (Vec<RegionName>, Vec<Feed>)> {
    members().prop_flat_map(|members| {
        let all: Vec<Feed> = members
            .iter()
            .flat_map(|from| members.iter().map(move |to| Feed { from: from.clone(), to: to.clone() }))
            .filter(|feed| feed.from != feed.to)
            .collect();
        let most = all.len();
        (Just(members), proptest::sample::subsequence(all, 0..=most).prop_shuffle())
    })
}

/// Hops between all pairs by Floyd and Warshall: another way than the code under test.
fn all_hops(members: &[RegionName], feeds: &[Feed]) -> Vec<Vec<Option<u32>>> {
    let at = |region: &RegionName| members.iter().position(|m| m == region).unwrap();
    let n = members.len();
    let mut hops: Vec<Vec<Option<u32>>> =
        (0..n).map(|i| (0..n).map(|j| (i == j).then_some(0)).collect()).collect();
    for feed in feeds {
        hops[at(&feed.from)][at(&feed.to)] = Some(1);
    }
    for via in 0..n {
        for from in 0..n {
            for to in 0..n {
                if let (Some(a), Some(b)) = (hops[from][via], hops[via][to]) {
                    hops[from][to] = Some(hops[from][to].map_or(a + b, |direct| direct.min(a + b)));
                }
            }
        }
    }
    hops
}

/// Each path of the plan follows feeds, repeats no region and is as short as can be.
fn assert_routes(graph: &Graph) {
    let members: Vec<RegionName> = graph.members().iter().cloned().collect();
    let feeds: Vec<Feed> = graph.feeds().collect();
    let hops = all_hops(&members, &feeds);
    let plan = Plan::of(graph);
    for (i, origin) in members.iter().enumerate() {
        for (j, destination) in members.iter().enumerate() {
            if i == j {
                assert!(plan.path(origin, destination).is_none());
                continue;
            }
            let path = plan.path(origin, destination).unwrap();
            assert_eq!(path.regions().first(), Some(origin));
            assert_eq!(path.regions().last(), Some(destination));
            assert_eq!(Some(path.hops() as u32), hops[i][j]);
            assert_eq!(path.regions().iter().collect::<BTreeSet<_>>().len(), path.regions().len());
            for pair in path.regions().windows(2) {
                assert!(graph.feeders(&pair[1]).contains(&pair[0]));
                assert_eq!(graph.routes(&pair[1])[origin], pair[0]);
            }
        }
    }
}

/// The recovery of each failure leaves every live pair joined.
fn assert_recoveries(graph: &Graph) {
    for failure in Plan::of(graph).failures() {
        let live: Vec<RegionName> =
            graph.members().iter().filter(|member| **member != failure.region).cloned().collect();
        let mut feeds: Vec<Feed> =
            graph.feeds().filter(|feed| feed.from != failure.region && feed.to != failure.region).collect();
        let cut = all_hops(&live, &feeds).iter().flatten().filter(|hops| hops.is_none()).count();
        assert_eq!(failure.cut.values().map(BTreeSet::len).sum::<usize>(), cut);
        assert_eq!(failure.connected + cut, live.len() * live.len().saturating_sub(1));
        feeds.extend(failure.recovery.feeds(&live.iter().cloned().collect()));
        let healed = all_hops(&live, &feeds).iter().flatten().all(Option::is_some);
        assert!(healed, "{failure:?}");
    }
}

proptest! {
    #[test]
    fn regular_shapes_are_valid_with_shortest_acyclic_routes(graph in regular()) {
        assert_routes(&graph);
        assert_recoveries(&graph);
    }

    #[test]
    fn custom_feeds_are_accepted_exactly_if_strongly_connected((members, feeds) in custom()) {
        let hops = all_hops(&members, &feeds);
        let connected = hops.iter().flatten().all(Option::is_some);
        match (Shape::Custom { feeds }).graph(&members) {
            Ok(graph) => {
                prop_assert!(connected);
                assert_routes(&graph);
                assert_recoveries(&graph);
            }
            Err(errors) => {
                prop_assert!(!connected);
                let missed = hops.iter().flatten().filter(|hops| hops.is_none()).count();
                let reported: usize = errors.iter().map(|error| match error {
                    TopologyError::Unreachable { to, .. } => to.len(),
                    other => panic!("not about reachability: {other}"),
                }).sum();
                prop_assert_eq!(reported, missed);
            }
        }
    }

    #[test]
    fn the_digest_ignores_the_order_of_writing((members, feeds) in custom()) {
        let mut backwards = feeds.clone();
        backwards.reverse();
        let digest = |feeds| Shape::Custom { feeds }.graph(&members).ok().map(|graph| graph.digest());
        prop_assert_eq!(digest(feeds), digest(backwards));
    }
}
