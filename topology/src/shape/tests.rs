#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn names(texts: &[&str]) -> Vec<RegionName> {
    texts.iter().map(|text| RegionName::new(text).unwrap()).collect()
}

fn custom(feeds: &[(&str, &str)]) -> Shape {
    let name = |text: &str| RegionName::new(text).unwrap();
    Shape::Custom { feeds: feeds.iter().map(|(a, b)| Feed { from: name(a), to: name(b) }).collect() }
}

fn refused(shape: &Shape, members: &[&str]) -> String {
    shape.graph(&names(members)).unwrap_err().to_string()
}

#[test]
fn a_single_region_is_a_cluster_in_any_shape() {
    let eu = names(&["eu"]);
    let star = Shape::Star { hub: eu[0].clone(), standby_hubs: vec![] };
    for shape in [Shape::Ring { order: eu.clone() }, star, Shape::Mesh, custom(&[])] {
        let graph = shape.graph(&eu).unwrap();
        assert_eq!(graph.feeds().count(), 0);
        assert!(graph.routes(&eu[0]).is_empty());
    }
}

#[test]
fn every_fault_of_a_ring_is_reported() {
    let shape = Shape::Ring { order: names(&["eu", "ux", "eu", "zz"]) };
    assert_eq!(
        refused(&shape, &["eu", "us", "ap", "us"]),
        "regions: region \"us\" is named more than once\n\
         order: region \"eu\" is named more than once\n\
         order: region \"ux\" is not in [[regions]]\n\
         order: region \"zz\" is not in [[regions]]\n\
         order: region \"ap\" is missing\n\
         order: region \"us\" is missing"
    );
}

#[test]
fn every_fault_of_a_star_is_reported() {
    let hub = names(&["ux"])[0].clone();
    let shape = Shape::Star { hub, standby_hubs: names(&["us", "us", "zz"]) };
    assert_eq!(
        refused(&shape, &["eu", "us"]),
        "hub: region \"ux\" is not in [[regions]]\n\
         standby_hubs: region \"us\" is named more than once\n\
         standby_hubs: region \"zz\" is not in [[regions]]"
    );
    let hub = names(&["eu"])[0].clone();
    let shape = Shape::Star { hub, standby_hubs: names(&["eu"]) };
    assert_eq!(refused(&shape, &["eu", "us"]), "standby_hubs: region \"eu\" is the hub already");
}

#[test]
fn every_fault_of_custom_feeds_is_reported() {
    let shape = custom(&[("eu", "us"), ("eu", "us"), ("us", "us"), ("us", "zz")]);
    assert_eq!(
        refused(&shape, &["eu", "us"]),
        "feeds: the feed eu -> us is named more than once\n\
         feeds: region \"us\" feeds itself\n\
         feeds: region \"zz\" is not in [[regions]]"
    );
}

/// T1 of the failures to survive: what can never converge is refused.
#[test]
fn an_unreachable_pair_is_refused() {
    let shape = custom(&[("eu", "us"), ("us", "eu"), ("eu", "ap")]);
    assert_eq!(
        refused(&shape, &["eu", "us", "ap"]),
        "feeds: the ops of \"ap\" never reach \"eu\" and \"us\": this can never converge"
    );
}

#[test]
fn the_number_of_regions_is_bounded() {
    assert_eq!(refused(&Shape::Mesh, &[]), "regions: there are no regions");
    let many: Vec<RegionName> =
        (0..=MAX_REGIONS).map(|n| RegionName::new(&format!("r{n}")).unwrap()).collect();
    assert!(Shape::Mesh.graph(&many[1..]).is_ok());
    assert_eq!(
        Shape::Mesh.graph(&many).unwrap_err().to_string(),
        "regions: there are 129 regions, more than the 128 supported"
    );
}
