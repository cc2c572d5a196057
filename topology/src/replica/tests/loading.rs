//! What a region tells and gives while it takes over another's state.

use super::*;

fn vector(dots: &[(&str, u64)]) -> VersionVector {
    dots.iter().map(|(region, sequence)| Dot::new(origin(region), *sequence)).collect()
}

fn own_durable(replica: &Rep) -> VersionVector {
    replica.stability().own().durable.clone()
}

#[test]
fn j1_while_it_takes_over_a_region_counts_as_having_what_it_had_before() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_durable(NOW, &vector(&[("us", 3)]));
    eu.handle_loading(Some(vector(&[("us", 3)])));
    eu.handle_durable(NOW, &vector(&[("us", 8), ("ap", 2)]));
    assert_eq!(own_durable(&eu), vector(&[("us", 3)]));
    // Nor does another life, or another process, count for more.
    let second = Origin::new(id("eu"), 2);
    eu.handle_reincarnated(second, &vector(&[("us", 8)]), &vector(&[("us", 8)]));
    assert_eq!(own_durable(&eu), vector(&[("us", 3)]));
    let settings = Settings::new("shop", &name("eu"), 1);
    let mut again = Replica::<Vec<u8>>::new(settings, mesh(&["eu", "us"]), second, vector(&[("us", 8)]));
    again.handle_loading(Some(vector(&[("us", 3)])));
    assert_eq!(own_durable(&again), vector(&[("us", 3)]));
    again.handle_loading(None);
    again.handle_durable(NOW, &vector(&[("us", 8)]));
    assert_eq!(own_durable(&again), vector(&[("us", 8)]));
}

#[test]
fn j1_what_was_here_before_a_takeover_is_given_up_to_where_the_log_jumps() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_local(4, Hlc(1));
    eu.handle_truncated(VersionVector::new(), &vector(&[("ap", 9)]));
    greet(&mut eu, "us", 1, hello("us", 5));
    let subscribe = |id: u64, from: &[(&str, u64)]| Control::Subscribe {
        id,
        regions: ["eu", "ap"].map(super::id).into(),
        from: vector(from),
    };
    let refused = |id| Control::SubscribeRefused { id, reason: Refusal::PastLog };
    let starts = |effects: &[Effect<Vec<u8>>]| effects.iter().any(|e| matches!(e, Effect::StartFeed { .. }));
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(1, &[]));
    assert_eq!(sent(&drain(&mut eu), |control| *control == refused(1)), 1);
    eu.handle_loading(Some(vector(&[("eu", 4)])));
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(2, &[("eu", 3)]));
    assert!(starts(&drain(&mut eu)));
    eu.handle_feed_past_log(NOW, id("us"), 1, 1);
    assert!(drain(&mut eu).is_empty(), "not the feed in force");
    eu.handle_feed_past_log(NOW, id("us"), 1, 2);
    let effects = drain(&mut eu);
    assert!(effects.iter().any(|e| matches!(e, Effect::StopFeed { subscription: 2, .. })));
    assert_eq!(sent(&effects, |control| *control == refused(2)), 1);
    // It has all that was here before: nothing more is to be had.
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(3, &[("eu", 4)]));
    let effects = drain(&mut eu);
    assert!(!starts(&effects) && sent(&effects, |control| *control == refused(3)) == 1);
    // What the log has lost for good is not had either way.
    eu.handle_truncated(vector(&[("eu", 2)]), &VersionVector::new());
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(4, &[("eu", 1)]));
    assert_eq!(sent(&drain(&mut eu), |control| *control == refused(4)), 1);
}

#[test]
fn j1_a_donor_is_dialled_while_it_gives_whatever_the_topology_is() {
    let members = ["ap", "eu", "us"].map(name);
    let star = Shape::Star { hub: name("ap"), standby_hubs: Vec::new() }.graph(&members).unwrap();
    let mut eu = Rep::new(Settings::new("shop", &name("eu"), 1), star, origin("eu"), VersionVector::new());
    eu.handle_timeout(NOW, WALL);
    let dials = |replica: &mut Rep, wanted: fn(RegionId) -> Effect<Vec<u8>>, peer: &str| {
        drain(replica).contains(&wanted(id(peer)))
    };
    assert!(!dials(&mut eu, |peer| Effect::Dial { peer }, "us"));
    eu.handle_donor(NOW, Some(id("us")));
    assert!(dials(&mut eu, |peer| Effect::Dial { peer }, "us"));
    eu.handle_donor(NOW, Some(id("mars")));
    assert!(dials(&mut eu, |peer| Effect::Undial { peer }, "us"));
    eu.handle_donor(NOW, None);
    assert!(drain(&mut eu).is_empty());
}

/// The peer had a row of the present life, and dropped it for one of a former life with a greater number.
#[test]
fn r1_a_row_that_took_a_greater_number_is_told_as_a_whole() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_durable(NOW, &vector(&[("ap", 3)]));
    let rows = |effects: &[Effect<Vec<u8>>]| -> Vec<VersionVector> {
        let of = |effect: &Effect<Vec<u8>>| match effect {
            Effect::Send { control: Control::Stability { rows }, .. } => rows.clone(),
            _ => Vec::new(),
        };
        let own = |row: &crate::frame::Row| row.region == id("eu");
        effects.iter().flat_map(of).filter(own).map(|row| row.durable).collect()
    };
    assert_eq!(rows(&greet(&mut eu, "us", 1, hello("us", 5))), [vector(&[("ap", 3)])]);
    let former = crate::frame::Row {
        region: id("eu"),
        origin: Origin::new(id("eu"), 7),
        life: 9,
        beat: 0,
        hlc: Hlc(0),
        durable: VersionVector::new(),
    };
    eu.handle_control(NOW, WALL, id("us"), 1, Control::Stability { rows: vec![former] });
    eu.handle_durable(NOW.after(1_000), &vector(&[("ap", 4), ("us", 1)]));
    eu.handle_timeout(NOW.after(2_000), WALL);
    let told = rows(&drain(&mut eu));
    assert_eq!(told.first(), Some(&vector(&[("ap", 4), ("us", 1)])));
    assert!(eu.stability().own().life > 9);
}
