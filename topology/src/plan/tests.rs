#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<RegionName> {
    texts.iter().map(|text| name(text)).collect()
}

fn star(hub: &str, standby: &[&str], members: &[&str]) -> Plan {
    let shape = Shape::Star { hub: name(hub), standby_hubs: names(standby) };
    Plan::of(&shape.graph(&names(members)).unwrap())
}

#[test]
fn the_report_of_a_ring() {
    let order = names(&["eu", "us", "ap"]);
    let plan = Plan::of(&Shape::Ring { order: order.clone() }.graph(&order).unwrap());
    assert_eq!(
        plan.to_string(),
        "\
topology: ring eu -> us -> ap -> eu
regions: 3, feeds: 3, longest path: 2 hops

Paths while every region is up
  ap -> eu (1 hop)
  ap -> eu -> us (2 hops)
  eu -> us -> ap (2 hops)
  eu -> us (1 hop)
  us -> ap (1 hop)
  us -> ap -> eu (2 hops)

When a region fails
  ap: 1 of 2 pairs keep their path
    the ops of us no longer reach eu
    after heal_after ops go around it: us -> eu
  eu: 1 of 2 pairs keep their path
    the ops of ap no longer reach us
    after heal_after ops go around it: ap -> us
  us: 1 of 2 pairs keep their path
    the ops of eu no longer reach ap
    after heal_after ops go around it: eu -> ap
"
    );
}

#[test]
fn a_lost_hub_is_replaced_by_the_first_standby() {
    let plan = star("eu", &["us", "ap"], &["eu", "us", "ap"]);
    assert_eq!(plan.failure(&name("eu")).unwrap().recovery, Recovery::Standby { hub: name("us") });
    assert_eq!(plan.failure(&name("us")).unwrap().recovery, Recovery::Unneeded);
    assert!(plan.to_string().contains("after heal_after us takes over as hub"));
}

#[test]
fn the_spokes_of_a_lost_hub_without_standby_feed_each_other() {
    let plan = star("eu", &[], &["eu", "us", "ap"]);
    let failure = plan.failure(&name("eu")).unwrap();
    assert_eq!((failure.connected, failure.cut.len()), (0, 2));
    assert!(plan.to_string().contains("after heal_after ops go around it: ap -> us, us -> ap"));
}

#[test]
fn a_mesh_needs_no_healing() {
    let plan = Plan::of(&Shape::Mesh.graph(&names(&["eu", "us", "ap", "sa"])).unwrap());
    assert!(plan.failures().all(|f| f.recovery == Recovery::Unneeded && f.connected == 6));
    assert_eq!(plan.longest(), 1);
}

#[test]
fn one_region_has_nothing_to_lose() {
    let plan = Plan::of(&Shape::Mesh.graph(&names(&["eu"])).unwrap());
    assert_eq!(plan.longest(), 0);
    assert!(plan.to_string().contains("none: there is one region"));
    assert!(plan.to_string().contains("no two regions are left"));
}
