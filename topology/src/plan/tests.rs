#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<RegionName> {
    texts.iter().map(|text| name(text)).collect()
}

fn star(hub: &str, standby: &[&str], members: &[&str]) -> Graph {
    let shape = Shape::Star { hub: name(hub), standby_hubs: names(standby) };
    shape.graph(&names(members)).unwrap()
}

fn ring(order: &[&str]) -> Graph {
    Shape::Ring { order: names(order) }.graph(&names(order)).unwrap()
}

/// Every region and every line between neighbours.
fn faults(graph: &Graph) -> Vec<Fault> {
    let lines: BTreeSet<Fault> = graph
        .feeds()
        .map(|feed| Fault::Line(feed.from.clone().min(feed.to.clone()), feed.from.max(feed.to)))
        .collect();
    graph.members().iter().cloned().map(Fault::Region).chain(lines).collect()
}

/// `to<-from:origins` of what is taken up.
fn taken(rehearsal: &Rehearsal) -> Vec<String> {
    let from = |to: &RegionName, from: &RegionName, origins: &BTreeSet<RegionName>| {
        let origins: Vec<&str> = origins.iter().map(RegionName::as_str).collect();
        format!("{to}<-{from}:{}", origins.join("+"))
    };
    rehearsal.taken.iter().flat_map(|(to, by)| by.iter().map(move |(f, o)| from(to, f, o))).collect()
}

#[test]
fn the_paths_of_a_ring() {
    let plan = Plan::of(&ring(&["eu", "us", "ap"]));
    let shown: Vec<String> = plan.paths().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["ap -> eu", "ap -> eu -> us", "eu -> us -> ap", "eu -> us", "us -> ap", "us -> ap -> eu"]
    );
    assert_eq!(plan.longest().unwrap().hops(), 2);
    assert_eq!(plan.broken_by(&Fault::Region(name("eu"))), 1);
    assert_eq!(plan.broken_by(&Fault::Line(name("us"), name("eu"))), 3);
}

#[test]
fn a_lost_hub_is_replaced_by_the_first_standby() {
    let graph = star("eu", &["us", "ap"], &["eu", "us", "ap", "sa"]);
    let plan = Plan::of(&graph);
    assert_eq!(plan.failure(&name("eu")).unwrap().recovery, Recovery::Standby { hub: name("us") });
    assert_eq!(plan.failure(&name("us")).unwrap().recovery, Recovery::Unneeded);
    let rehearsal = rehearse(&graph, &Fault::Region(name("eu"))).unwrap();
    assert_eq!(rehearsal.healed, Some(1));
    assert_eq!(taken(&rehearsal), ["ap<-us:sa+us", "sa<-us:ap+us", "us<-ap:ap", "us<-sa:sa"]);
    assert_eq!(rehearsal.opened.len(), 2, "{:?}", rehearsal.opened);
}

#[test]
fn the_spokes_of_a_lost_hub_without_standby_feed_each_other() {
    let graph = star("eu", &[], &["eu", "us", "ap"]);
    let failure = Plan::of(&graph).failure(&name("eu")).unwrap().clone();
    assert_eq!((failure.connected, failure.cut.len()), (0, 2));
    let rehearsal = rehearse(&graph, &Fault::Region(name("eu"))).unwrap();
    assert_eq!(taken(&rehearsal), ["ap<-us:us", "us<-ap:ap"]);
    assert_eq!(rehearsal.opened, BTreeSet::from([(name("ap"), name("us"))]));
}

#[test]
fn a_ring_goes_around_a_cut_line() {
    let graph = ring(&["eu", "us", "ap"]);
    let rehearsal = rehearse(&graph, &Fault::Line(name("eu"), name("us"))).unwrap();
    assert_eq!(rehearsal.stalled[&name("us")], names(&["ap", "eu"]).into_iter().collect());
    assert_eq!(rehearsal.stalled[&name("ap")], names(&["eu"]).into_iter().collect());
    assert_eq!(taken(&rehearsal), ["ap<-eu:eu", "us<-ap:ap+eu"]);
    assert!(rehearsal.opened.is_empty() && rehearsal.level);
}

#[test]
fn a_mesh_needs_no_healing_when_a_region_fails() {
    let graph = Shape::Mesh.graph(&names(&["eu", "us", "ap", "sa"])).unwrap();
    let plan = Plan::of(&graph);
    assert!(plan.failures().all(|f| f.recovery == Recovery::Unneeded && f.connected == 6));
    assert_eq!(plan.longest().unwrap().hops(), 1);
    let rehearsal = rehearse(&graph, &Fault::Region(name("eu"))).unwrap();
    assert!(rehearsal.stalled.is_empty() && rehearsal.taken.is_empty() && rehearsal.level);
    assert_eq!(rehearsal.healed, Some(0));
}

#[test]
fn one_region_has_nothing_to_lose() {
    let graph = Shape::Mesh.graph(&names(&["eu"])).unwrap();
    let plan = Plan::of(&graph);
    assert!(plan.longest().is_none());
    assert!(rehearse(&graph, &Fault::Region(name("eu"))).unwrap().stalled.is_empty());
    assert_eq!(rehearse(&graph, &Fault::Region(name("us"))), None, "a stranger");
}

#[test]
fn of_two_neighbours_the_smaller_name_dials() {
    let graph = ring(&["eu", "us", "ap"]);
    assert_eq!(dials(&graph, &name("ap")), names(&["eu", "us"]).into_iter().collect());
    assert_eq!(dials(&graph, &name("us")), BTreeSet::new());
}

/// Every way that a fault is on stalls and no other, and all heal.
fn assert_heals(graph: &Graph) {
    let plan = Plan::of(graph);
    for fault in faults(graph) {
        let rehearsal = rehearse(graph, &fault).unwrap();
        let stalled: usize = rehearsal.stalled.values().map(BTreeSet::len).sum();
        assert_eq!(stalled, plan.broken_by(&fault), "{rehearsal:?}");
        assert!(rehearsal.level, "{rehearsal:?}");
        assert!(rehearsal.healed.is_some_and(|healed| healed <= 3), "{rehearsal:?}");
    }
}

#[test]
fn two_regions_without_a_line_are_apart() {
    let rehearsal = rehearse(&ring(&["eu", "us"]), &Fault::Line(name("eu"), name("us"))).unwrap();
    assert_eq!((rehearsal.healed, rehearsal.level), (None, false));
    assert!(rehearsal.taken.is_empty());
}

#[test]
fn regular_shapes_heal_whatever_single_thing_fails() {
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for size in 3..=all.len() {
        let members = &all[..size];
        assert_heals(&ring(members));
        assert_heals(&star("a", &[], members));
        assert_heals(&star("a", &["b"], members));
        assert_heals(&Shape::Mesh.graph(&names(members)).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Also where nobody drew it for that.
    #[test]
    fn custom_feeds_heal_whatever_single_thing_fails(
        pairs in prop::collection::btree_set((0..5_usize, 0..5_usize), 5..15)
    ) {
        let members = names(&["a", "b", "c", "d", "e"]);
        let pairs = pairs.into_iter().filter(|(from, to)| from != to);
        let feeds = pairs.map(|(from, to)| Feed { from: members[from].clone(), to: members[to].clone() });
        if let Ok(graph) = (Shape::Custom { feeds: feeds.collect() }).graph(&members) {
            assert_heals(&graph);
        }
    }
}
