//! Op bodies and stored records: what is encoded decodes to the same, and nothing malformed panics.

use meridian_conflict::clock::{Seen, VersionVector};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{BodyBuilder, Effect, Facet, Header, changes, validate};
use meridian_conflict::outcome::Outcome;
use proptest::prelude::*;

use crate::harness::{Dice, Travelling, World, history};

/// Decodes a body and builds it anew.
fn rebuild(body: &[u8]) -> Vec<u8> {
    let mut builder = BodyBuilder::default();
    for change in changes(body) {
        let change = change.unwrap();
        for effect in change.effects() {
            builder.push(&effect.unwrap());
        }
        builder.finish_key(change.database, change.key);
    }
    builder.body().to_vec()
}

/// Validates any bytes as a body and applies what decodes to one object, as a hostile peer could
/// make us do, then stores and loads the object.
pub fn survive_body(body: &[u8], op: &Travelling, object: &mut Object) {
    let valid = validate(body).is_ok();
    let seen = Seen::Vector { deps: &op.deps, dot: op.stamp.dot };
    let how = Applying { stamp: op.stamp, seen };
    let mut all = true;
    for change in changes(body) {
        let Ok(change) = change else {
            all = false;
            break;
        };
        for effect in change.effects() {
            match effect {
                Ok(Effect::Flush { baselines }) => {
                    let own: Vec<_> = baselines.iter().map(|b| b.element.clone()).collect();
                    object.apply_flush(&own, how, &mut Outcome::default());
                }
                Ok(effect) => object.apply(&effect, how, &mut Outcome::default()),
                Err(_) => all = false,
            }
        }
    }
    assert_eq!(valid, all);
    exercise(object);
}

/// Everything a reader or a store may ask of an object.
pub fn exercise(object: &mut Object) {
    let mut record = Vec::new();
    object.encode_head(&mut record);
    let mut reloaded = Object::decode_head(&record).unwrap();
    object.for_each_element(|facet, element| {
        let mut record = Vec::new();
        assert!(object.encode_element(facet, element, &mut record));
        reloaded.restore_element(facet, element, &record).unwrap();
    });
    assert_eq!(*object, reloaded);
    assert_eq!(object.heap_bytes(), reloaded.heap_bytes());
    let _ = meridian_conflict::digest::digest(0, b"k", object, 5);
    let none = VersionVector::new();
    let _ = object.baselines(0b1111);
    object.merge(&none, &reloaded, &none);
    object.reclaim(|_| false, &mut Outcome::default());
    let _ = (object.facet(), object.hidden_facets(), object.is_vacant());
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(4) {
        0 => bytes.truncate(dice.below(bytes.len() + 1)),
        1 => bytes.insert(dice.below(bytes.len() + 1), dice.below(256) as u8),
        _ if bytes.is_empty() => {}
        2 => {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        _ => {
            let at = dice.below(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)];
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) })]

    #[test]
    fn bodies_round_trip_and_damaged_ones_do_not_panic(steps in history(25), seed: u64) {
        let mut dice = Dice(seed);
        let world = World::run(3, &steps);
        let mut object = Object::default();
        for op in &world.ops {
            prop_assert!(validate(&op.body).is_ok());
            prop_assert_eq!(&rebuild(&op.body), &op.body);
            let mut body = op.body.clone();
            for _ in 0..1 + dice.below(3) {
                damage(&mut body, &mut dice);
            }
            survive_body(&body, op, &mut object);
        }
    }

    #[test]
    fn damaged_records_do_not_panic(steps in history(25), seed: u64) {
        let mut dice = Dice(seed);
        let world = World::run(2, &steps);
        for object in world.replicas.iter().flat_map(|r| r.data.values()) {
            let mut record = Vec::new();
            object.encode_head(&mut record);
            damage(&mut record, &mut dice);
            let mut loaded = Object::decode_head(&record).unwrap_or_default();
            object.for_each_element(|facet, element| {
                let mut record = Vec::new();
                object.encode_element(facet, element, &mut record);
                damage(&mut record, &mut dice);
                let before = loaded.clone();
                if loaded.restore_element(facet, element, &record).is_err() {
                    assert_eq!(loaded, before);
                }
            });
            exercise(&mut loaded);
        }
    }

    #[test]
    fn headers_round_trip(dot: (u64, u64), hlc: u64, deps in proptest::collection::vec(any::<(u64, u64)>(), 0..9)) {
        let header = header(dot, hlc, &deps);
        let bytes = postcard::to_stdvec(&header).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Header>(&bytes).unwrap(), header);
    }
}

pub fn header(dot: (u64, u64), hlc: u64, deps: &[(u64, u64)]) -> Header {
    use meridian_conflict::clock::{Dot, Hlc, Origin};
    Header {
        dot: Dot::new(Origin(dot.0), dot.1),
        hlc: Hlc(hlc),
        deps: deps.iter().map(|(origin, sequence)| (Origin(*origin), *sequence)).collect(),
    }
}

#[test]
fn a_declared_length_allocates_nothing() {
    // A baseline and a list of siblings that claim 2^60 entries.
    let mut huge = vec![0xff; 8];
    huge.push(0x0f);
    let mut body = vec![0, 1, b'k', 1];
    let effect: Vec<u8> = [&[0u8, 1, b'v'][..], &huge].concat();
    body.push(effect.len() as u8);
    body.extend(effect);
    assert!(validate(&body).is_err());
    let record: Vec<u8> = [&[1u8][..], &huge].concat();
    assert!(Object::decode_head(&record).is_err());
    assert!(Object::default().restore_element(Facet::Set, b"m", &huge).is_err());
}
