use meridian_conflict::amount::Amount;
use meridian_conflict::clock::{Seen, VersionVector};
use meridian_conflict::object::{ALL_FACETS, Applying};
use meridian_conflict::op::Effect;
use meridian_conflict::outcome::Outcome;

use super::super::record::tests::stamp;
use super::*;

/// Applies effects that saw nothing, each by an op of its own region; the evidence of the conflicts met.
fn evidence(effects: &[(&str, Effect<'_>)]) -> Vec<Evidence> {
    let mut object = Object::default();
    let mut found = Vec::new();
    let deps = VersionVector::new();
    for (at, (region, effect)) in effects.iter().enumerate() {
        let stamp = stamp(region, at as u64 + 1);
        let mut outcome = Outcome::default();
        let how = Applying { stamp, seen: Seen::Vector { deps: &deps, dot: stamp.dot } };
        object.apply(effect, how, &mut outcome);
        found.extend(outcome.conflicts.iter().map(|conflict| Evidence::of(&object, conflict, false)));
    }
    found
}

fn assign(value: &[u8]) -> Effect<'_> {
    Effect::Assign { value, baseline: Vec::new() }
}

fn field<'a>(field: &'a [u8], value: &'a [u8]) -> Effect<'a> {
    Effect::FieldAssign { field, value, baseline: Vec::new() }
}

fn clear<'a>() -> Effect<'a> {
    Effect::Clear { facets: ALL_FACETS, deadline: true, baselines: Vec::new() }
}

fn bytes(value: &[u8]) -> Written {
    Written::Bytes(ByteBuf::from(value))
}

fn contents(facet: Facet, elements: &[(&str, &str)]) -> Written {
    let pair = |(name, value): &(&str, &str)| (ByteBuf::from(*name), ByteBuf::from(*value));
    let elements: Vec<_> = elements.iter().map(pair).collect();
    let total = elements.len() as u64;
    Written::Contents(Contents { facet: facet.name().into(), elements, total })
}

fn values(evidence: &Evidence) -> [&Written; 3] {
    let [first, second] = &evidence.rivals;
    [&first.wrote, &second.wrote, &evidence.shown]
}

#[test]
fn both_values_of_a_string_are_there_and_the_older_lost() {
    let found = evidence(&[("eu", assign(b"a")), ("us", assign(b"b"))]);
    assert_eq!(found.len(), 1);
    assert_eq!(values(&found[0]), [&bytes(b"a"), &bytes(b"b"), &bytes(b"b")]);
    assert_eq!(found[0].loser, 0);
}

#[test]
fn a_field_a_score_and_a_member_are_told_by_themselves() {
    let found = evidence(&[("eu", field(b"f", b"x")), ("us", field(b"f", b"y"))]);
    assert_eq!(values(&found[0]), [&bytes(b"x"), &bytes(b"y"), &bytes(b"y")]);
    let score =
        |score: f64| Effect::ScoreAssign { member: b"m", score: score.to_bits(), baseline: Vec::new() };
    let found = evidence(&[("eu", score(1.5)), ("us", score(f64::INFINITY))]);
    let (low, high) = (Written::Score("1.5".into()), Written::Score("inf".into()));
    assert_eq!(values(&found[0]), [&low, &high, &high]);
    let found = evidence(&[
        ("eu", Effect::MemberAdd { member: b"m" }),
        ("us", Effect::MemberRemove { member: b"m" }),
    ]);
    assert_eq!(values(&found[0]), [&bytes(b"m"), &Written::Nothing, &bytes(b"m")]);
    assert_eq!(found[0].loser, 1, "the removal spared what it had not seen");
}

#[test]
fn a_delete_lost_to_what_it_had_not_seen() {
    let found = evidence(&[("eu", assign(b"a")), ("us", clear())]);
    assert_eq!(values(&found[0]), [&bytes(b"a"), &Written::Nothing, &bytes(b"a")]);
    assert_eq!(found[0].loser, 1);
    // Of two writers of a hash, each conflict tells of its own fields.
    let found = evidence(&[("eu", field(b"f", b"x")), ("ap", field(b"g", b"y")), ("us", clear())]);
    let both = contents(Facet::Hash, &[("f", "x"), ("g", "y")]);
    assert_eq!(found.len(), 2);
    assert_eq!(values(&found[0]), [&contents(Facet::Hash, &[("f", "x")]), &Written::Nothing, &both]);
    assert_eq!(values(&found[1]), [&contents(Facet::Hash, &[("g", "y")]), &Written::Nothing, &both]);
}

#[test]
fn a_hidden_type_is_recorded_whole() {
    let found = evidence(&[("eu", field(b"f", b"x")), ("us", assign(b"text"))]);
    assert_eq!(values(&found[0]), [&contents(Facet::Hash, &[("f", "x")]), &bytes(b"text"), &bytes(b"text")]);
    let found = evidence(&[("eu", assign(b"text")), ("us", Effect::MemberAdd { member: b"m" })]);
    let set = contents(Facet::Set, &[("m", "")]);
    assert_eq!(values(&found[0]), [&bytes(b"text"), &set, &set]);
    assert_eq!(found[0].loser, 0);
}

#[test]
fn increments_of_what_is_no_number_are_told_as_such() {
    let add = Effect::Add { total: Amount::parse(b"7").unwrap(), fresh: true, index: 2 };
    let found = evidence(&[("eu", add), ("us", assign(b"text"))]);
    assert_eq!(values(&found[0]), [&Written::Increments("7".into()), &bytes(b"text"), &bytes(b"text")]);
}

#[test]
fn what_is_too_large_is_told_by_length_and_digest_and_collections_in_part() {
    let large = vec![b'x'; VALUE_MAX + 1];
    let found = evidence(&[("eu", assign(&large)), ("us", assign(b"b"))]);
    let told = Written::Large { bytes: large.len() as u64, digest: xxh3_128(&large) };
    assert_eq!(values(&found[0])[0], &told);
    assert!(found[0].len() < 10);
    let half = vec![b'x'; VALUE_MAX / 2];
    let fields = [b"f", b"g", b"h"].map(|name| ("eu", field(name, &half)));
    let found = evidence(&[&fields[..], &[("us", assign(b"text"))]].concat());
    let Written::Contents(contents) = values(&found[0])[0] else { panic!("{found:?}") };
    assert_eq!((contents.elements.len(), contents.total, contents.is_whole()), (1, 3, false));
}

#[test]
fn an_arriving_write_that_is_older_loses() {
    let mut object = Object::default();
    let deps = VersionVector::new();
    let mut outcome = Outcome::default();
    for (stamp, value) in [(stamp("us", 9), b"newer"), (stamp("eu", 3), b"older")] {
        let how = Applying { stamp, seen: Seen::Vector { deps: &deps, dot: stamp.dot } };
        object.apply(&assign(value), how, &mut outcome);
    }
    let evidence = Evidence::of(&object, &outcome.conflicts[0], false);
    assert_eq!(values(&evidence), [&bytes(b"older"), &bytes(b"newer"), &bytes(b"newer")]);
    assert_eq!(evidence.loser, 0);
}
