//! Formats are promises: bytes written by version 1 must stay readable and be written the same.
//! A changed format needs a new version beside these files, not new files. To add a file, run the
//! tests with `WRITE_GOLDEN=1`; files that exist are never overwritten.

use std::path::Path;

use meridian_conflict::amount::Amount;
use meridian_conflict::clock::{Dot, Hlc, Origin, Seen, Stamp};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{
    BodyBuilder, Effect, ElementBaseline, Facet, Header, KeyBaseline, Position, SeenDelta, changes, validate,
};
use meridian_conflict::outcome::Outcome;

use crate::records::header;

fn compare(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} is written differently now");
}

fn amount(text: &str) -> Amount {
    Amount::parse(text.as_bytes()).unwrap()
}

/// Every effect, every kind of amount, under two keys and a flush.
fn body() -> Vec<u8> {
    let position = Position { sequence: 300, index: 2 };
    let seen = |total: &str| {
        vec![SeenDelta { origin: Origin(0x0102_0304_0000_0001), position, total: amount(total) }]
    };
    let element =
        |total: &str| ElementBaseline { facet: Facet::Hash, element: b"field", baseline: seen(total) };
    let mut out = BodyBuilder::default();
    let (total, fresh, index) = (amount("-7"), true, 1);
    out.push(&Effect::Assign { value: b"value", baseline: seen("12") });
    out.push(&Effect::Add { total: total.clone(), fresh, index });
    out.push(&Effect::Clear { facets: 0b1111, deadline: true, baselines: vec![element("0.25")] });
    out.push(&Effect::Deadline { at_ms: 1_700_000_000_000 });
    out.push(&Effect::Persist);
    out.push(&Effect::ForgetDeadline);
    out.finish_key(0, b"key");
    out.push(&Effect::FieldAssign { field: b"field", value: b"", baseline: vec![] });
    out.push(&Effect::FieldAdd { field: b"field", total: amount("1e300"), fresh: false, index: 2 });
    out.push(&Effect::FieldRemove {
        field: b"field",
        baseline: seen("170141183460469231731687303715884105727"),
    });
    out.push(&Effect::MemberAdd { member: b"member" });
    out.push(&Effect::MemberRemove { member: b"member" });
    out.push(&Effect::ScoreAssign { member: b"member", score: 2.5f64.to_bits(), baseline: vec![] });
    out.push(&Effect::ScoreAdd { member: b"member", total, fresh, index: 3 });
    out.push(&Effect::ScoreRemove { member: b"member", baseline: seen("-1e-300") });
    out.finish_key(15, b"");
    out.push(&Effect::Flush { baselines: vec![KeyBaseline { key: b"key", element: element("3") }] });
    out.finish_key(3, b"");
    out.body().to_vec()
}

#[test]
fn op_body() {
    let body = body();
    validate(&body).unwrap();
    assert_eq!(changes(&body).count(), 3);
    compare("op_body_v1.bin", &body);
}

/// What was added to version 1 without a change to what there was.
#[test]
fn additions() {
    let mut out = BodyBuilder::default();
    out.push(&Effect::Whole);
    out.finish_key(0, b"key");
    validate(out.body()).unwrap();
    compare("op_body_whole_v1.bin", out.body());
    let stamp = Stamp { hlc: Hlc::from_ms(1_001), dot: Dot::new(Origin(1), 9) };
    let mut object = Object::default();
    object.apply(&Effect::Whole, Applying { stamp, seen: Seen::All }, &mut Outcome::default());
    let mut record = Vec::new();
    object.encode_head(&mut record);
    compare("stored_head_marked_v1.bin", &record);
}

#[test]
fn op_header() {
    let header = header(
        (0x0102_0304_0000_0001, 300),
        0x0001_8bcf_e568_0007,
        &[(2, 1), (0xffff_0000_0000_0001, u64::MAX)],
    );
    let bytes = postcard::to_stdvec(&header).unwrap();
    assert_eq!(postcard::from_bytes::<Header>(&bytes).unwrap(), header);
    compare("op_header_v1.bin", &bytes);
}

#[test]
fn stored_records() {
    let mut object = Object::default();
    let body = body();
    // Two origins that had not seen each other, so that everything has siblings.
    for (n, skip) in [(1u64, 0), (2, 2)] {
        let stamp = Stamp { hlc: Hlc::from_ms(1_000 + n), dot: Dot::new(Origin(n), 9) };
        let deps = Default::default();
        let how = Applying { stamp, seen: Seen::Vector { deps: &deps, dot: stamp.dot } };
        let kept = |e: &Effect<'_>| {
            !matches!(
                e,
                Effect::Clear { .. }
                    | Effect::FieldRemove { .. }
                    | Effect::MemberRemove { .. }
                    | Effect::ScoreRemove { .. }
            )
        };
        let effects = changes(&body).flat_map(|change| change.unwrap().effects()).map(Result::unwrap);
        for effect in effects.filter(kept).skip(skip) {
            object.apply(&effect, how, &mut Outcome::default());
        }
    }
    let mut record = Vec::new();
    object.encode_head(&mut record);
    compare("stored_head_v1.bin", &record);
    for (facet, element, name) in [
        (Facet::Hash, &b"field"[..], "stored_field_v1.bin"),
        (Facet::Set, b"member", "stored_member_v1.bin"),
        (Facet::SortedSet, b"member", "stored_score_v1.bin"),
    ] {
        let mut record = Vec::new();
        assert!(object.encode_element(facet, element, &mut record));
        compare(name, &record);
    }
}
