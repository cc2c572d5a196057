use super::*;

const LEASE: u64 = 10_000;

fn region(name: &str) -> RegionId {
    RegionId::of(name)
}

fn origin(name: &str) -> Origin {
    Origin::new(region(name), 1)
}

fn vector(entries: &[(&str, u64)]) -> VersionVector {
    entries.iter().map(|(name, sequence)| Dot::new(origin(name), *sequence)).collect()
}

fn row(name: &str, beat: u64, durable: &[(&str, u64)]) -> Row {
    let hlc = Hlc::from_ms(beat);
    Row { region: region(name), origin: origin(name), life: 1, beat, hlc, durable: vector(durable) }
}

/// What `a` knows in a cluster of `a`, `b` and `c`.
fn stability(durable: &[(&str, u64)]) -> Stability {
    let members = ["a", "b", "c"].map(region).into_iter();
    let mut stability = Stability::new(origin("a"), 1, vector(durable), members, LEASE, 0);
    assert_eq!(stability.review(MonoMs(0)), []);
    stability
}

#[test]
fn what_every_member_has_is_stable_and_nothing_else() {
    let mut a = stability(&[("a", 5), ("b", 3)]);
    assert!(a.stable().is_empty(), "nothing is known of the others");
    assert_eq!(a.merge(MonoMs(1), &row("b", 1, &[("a", 2), ("b", 4)])), Merged::Risen);
    assert!(a.stable().is_empty());
    assert_eq!(a.merge(MonoMs(1), &row("c", 1, &[("a", 4)])), Merged::Risen);
    assert_eq!(a.stable(), vector(&[("a", 2)]));
    let dot = |sequence| Dot::new(origin("a"), sequence);
    assert_eq!([2, 3, 5, 6].map(|sequence| a.regions_with(&dot(sequence))), [3, 2, 1, 0]);
    assert!(a.has(region("c"), &vector(&[("a", 4)])) && !a.has(region("c"), &vector(&[("a", 5)])));
    assert_eq!(a.blocked_by(), Some(region("b")).max(a.blocked_by()));
}

#[test]
fn rows_rise_whatever_order_they_come_in_and_strangers_are_ignored() {
    let mut a = stability(&[]);
    a.merge(MonoMs(1), &row("b", 5, &[("b", 9)]));
    assert_eq!(a.merge(MonoMs(1), &row("b", 4, &[("b", 7)])), Merged::Nothing);
    assert_eq!(a.merge(MonoMs(1), &row("b", 6, &[])), Merged::Beat);
    assert_eq!(a.row(region("b")).unwrap().durable, vector(&[("b", 9)]));
    assert_eq!(a.merge(MonoMs(1), &row("mars", 1, &[("a", 1)])), Merged::Nothing);
    let lie = Row { region: region("b"), ..row("c", 9, &[("a", 9)]) };
    assert_eq!(a.merge(MonoMs(1), &lie), Merged::Nothing);
}

#[test]
fn j3_a_silent_member_is_fenced_after_its_lease_and_back_once_it_has_what_became_stable() {
    let mut a = stability(&[("a", 5)]);
    a.merge(MonoMs(0), &row("b", 1, &[("a", 5)]));
    a.merge(MonoMs(0), &row("c", 1, &[("a", 1)]));
    assert_eq!(a.blocked_by(), Some(region("c")));
    assert_eq!(a.review_at(), Some(MonoMs(LEASE)));
    a.merge(MonoMs(LEASE - 1), &row("b", 2, &[]));
    assert_eq!(a.fenced_in_ms(MonoMs(LEASE - 1), region("c")), Some(1));
    assert_eq!(a.review(MonoMs(LEASE)), [(region("c"), true)]);
    assert_eq!(a.stable(), vector(&[("a", 5)]));
    assert_eq!((a.blocked_by(), a.fenced_in_ms(MonoMs(LEASE), region("c"))), (None, Some(0)));
    // Heard of, but behind what became stable without it.
    a.merge(MonoMs(LEASE + 1), &row("c", 2, &[("a", 4)]));
    assert_eq!(a.review(MonoMs(LEASE + 1)), []);
    a.merge(MonoMs(LEASE + 2), &row("c", 3, &[("a", 5)]));
    assert_eq!(a.review(MonoMs(LEASE + 2)), [(region("c"), false)]);
}

#[test]
fn a_member_never_heard_of_blocks_until_its_lease_is_over() {
    let mut a = stability(&[("a", 5)]);
    a.merge(MonoMs(LEASE - 1), &row("b", 1, &[("a", 5)]));
    assert!(a.stable().is_empty());
    assert_eq!(a.blocked_by(), Some(region("c")));
    a.review(MonoMs(LEASE));
    assert_eq!(a.stable(), vector(&[("a", 5)]));
}

#[test]
fn a_new_life_replaces_the_old_row_though_it_has_less() {
    let mut a = stability(&[("a", 5)]);
    a.merge(MonoMs(0), &row("b", 9, &[("a", 5)]));
    let reborn = Row { origin: Origin::new(region("b"), 7), life: 2, ..row("b", 1, &[("a", 2)]) };
    assert_eq!(a.merge(MonoMs(1), &reborn), Merged::Risen);
    assert_eq!(a.merge(MonoMs(1), &row("b", 10, &[("a", 5)])), Merged::Nothing, "the former life");
    assert_eq!(a.row(region("b")).unwrap().durable, vector(&[("a", 2)]));
}

#[test]
fn r1_a_region_hears_that_it_had_more_in_its_present_life() {
    let mut a = stability(&[("a", 5)]);
    assert_eq!(a.merge(MonoMs(0), &row("a", 7, &[("a", 5)])), Merged::Nothing);
    let lost = Merged::Forgotten(Dot::new(origin("b"), 3));
    assert_eq!(a.merge(MonoMs(0), &row("a", 7, &[("b", 3)])), lost);
    // A new life takes a number above the former one's, whatever its clock says.
    a.reincarnate(Origin::new(region("a"), 2), 0, vector(&[("a", 5)]));
    let former = Row { life: 40, ..row("a", 7, &[("b", 3)]) };
    assert_eq!(a.merge(MonoMs(0), &former), Merged::Risen);
    assert_eq!(a.own().life, 41);
}

#[test]
fn time_has_passed_once_everyone_has_what_was_stamped_before() {
    let mut a = stability(&[]);
    a.own_durable(&vector(&[("a", 2), ("b", 1)]));
    a.own_clock(2, Hlc::from_ms(50));
    a.merge(MonoMs(0), &row("b", 60, &[("a", 2), ("b", 1)]));
    a.merge(MonoMs(0), &row("c", 70, &[("a", 1), ("b", 1)]));
    assert_eq!(a.passed(MonoMs(0)), Hlc(0), "c lacks an op of a");
    // More is given out meanwhile: the mark stays where it is.
    a.own_clock(3, Hlc::from_ms(80));
    a.own_durable(&vector(&[("a", 3)]));
    a.merge(MonoMs(0), &row("c", 71, &[("a", 2)]));
    assert_eq!(a.passed(MonoMs(0)), Hlc(0), "an op may have been given out without having seen a's second");
    a.merge(MonoMs(0), &row("b", 90, &[("a", 3)]));
    a.merge(MonoMs(0), &row("c", 91, &[("a", 3)]));
    assert_eq!(a.passed(MonoMs(0)), Hlc::from_ms(80));
    assert!(a.is_waited_for(region("c")));
}

#[test]
fn time_passes_without_a_fenced_member_only_where_most_members_are() {
    let mut a = stability(&[]);
    a.own_clock(0, Hlc::from_ms(50));
    a.merge(MonoMs(0), &row("b", 60, &[]));
    a.merge(MonoMs(0), &row("c", 40, &[("c", 1)]));
    a.own_durable(&vector(&[("c", 1)]));
    assert_eq!(a.passed(MonoMs(0)), Hlc(0));
    a.merge(MonoMs(1), &row("b", 61, &[]));
    assert_eq!(a.review(MonoMs(LEASE)), [(region("c"), true)], "b was heard of later");
    a.merge(MonoMs(LEASE), &row("b", 62, &[("c", 1)]));
    assert_eq!(a.passed(MonoMs(LEASE)), Hlc::from_ms(50));
    assert!(!a.is_waited_for(region("c")) && a.is_waited_for(region("b")));
    // Back again, it may bring ops that are older, until time has passed with it.
    a.merge(MonoMs(LEASE), &row("c", 45, &[("c", 1)]));
    assert_eq!(a.review(MonoMs(LEASE)), [(region("c"), false)]);
    assert!(!a.is_waited_for(region("c")));
    assert_eq!(a.passed(MonoMs(LEASE)), Hlc::from_ms(45));
    assert!(a.is_waited_for(region("c")));
    // Alone among three it stands still, and says for whom.
    a.own_clock(0, Hlc::from_ms(99));
    assert_eq!(a.review(MonoMs(3 * LEASE)).len(), 2);
    assert!(!a.has_quorum() && a.blocked_by().is_some());
    assert_eq!(a.passed(MonoMs(3 * LEASE)), Hlc::from_ms(45));
}

#[test]
fn of_two_halves_only_the_one_with_the_least_member_goes_on() {
    for (own, goes_on) in [("a", region("a") < region("b")), ("b", region("b") < region("a"))] {
        let members = ["a", "b"].map(region).into_iter();
        let mut alone = Stability::new(origin(own), 1, VersionVector::new(), members, LEASE, 0);
        alone.review(MonoMs(0));
        alone.own_clock(0, Hlc::from_ms(7));
        alone.review(MonoMs(LEASE));
        assert_eq!(alone.passed(MonoMs(LEASE)) == Hlc::from_ms(7), goes_on);
    }
}

#[test]
fn a_clock_is_told_once_the_ops_before_it_are_durable() {
    let mut a = stability(&[]);
    a.own_clock(3, Hlc::from_ms(10));
    a.own_clock(9, Hlc::from_ms(20));
    assert_eq!(a.own().hlc, Hlc(0));
    a.own_durable(&vector(&[("a", 3)]));
    assert_eq!(a.own().hlc, Hlc::from_ms(10));
}

#[test]
fn who_left_blocks_nothing() {
    let mut a = stability(&[("a", 5)]);
    a.merge(MonoMs(0), &row("b", 1, &[("a", 5)]));
    a.set_members(["a", "b"].map(region).into_iter());
    assert_eq!(a.stable(), vector(&[("a", 5)]));
    assert_eq!(a.row(region("c")), None);
}
