//! Fuzz targets. Under `cargo test` each tries random inputs for a second, or for as long as
//! `BOLERO_RANDOM_TEST_TIME_MS` says; `cargo bolero test fuzz::fuzz_op_body` drives it by coverage.

use meridian_conflict::clock::{Dot, Hlc, Origin, Stamp};
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;

use crate::harness::Travelling;
use crate::records::{exercise, survive_body};

#[test]
fn fuzz_op_body() {
    bolero::check!().with_max_len(256).for_each(|body: &[u8]| {
        let stamp = Stamp { hlc: Hlc::from_ms(5), dot: Dot::new(Origin(1), 3) };
        let op = Travelling { stamp, deps: [Dot::new(Origin(1), 2)].into_iter().collect(), body: vec![] };
        survive_body(body, &op, &mut Object::default());
    });
}

#[test]
fn fuzz_stored_record() {
    bolero::check!().with_max_len(256).for_each(|record: &[u8]| {
        let mut object = Object::decode_head(record).unwrap_or_default();
        for facet in Facet::ALL {
            if object.restore_element(facet, b"element", record).is_ok() {
                exercise(&mut object.clone());
            }
        }
        exercise(&mut object);
    });
}
