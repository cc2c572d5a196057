//! What an op stream may hold.

use meridian_topology::frame::batch::BatchDecoder;

use super::*;

const LIMIT: usize = 20_000;

#[test]
fn the_head_of_an_op_stream_is_its_version_and_subscription() {
    let right = [&[STREAM_VERSION][..], &77u64.to_le_bytes()].concat();
    assert_eq!(head(&right), Ok(77));
    assert_eq!(head(&[]).unwrap_err(), "empty head of an op stream");
    assert_eq!(head(&[2, 0, 0]).unwrap_err(), "op stream of version 2");
    for wrong in [&right[..8], &[&right[..], &[0]].concat()] {
        assert_eq!(head(wrong).unwrap_err(), "malformed head of an op stream");
    }
}

/// Fuzz target: a stream of any frames ends in batches or in an error.
#[test]
fn fuzz_op_stream() {
    let mut decompressor = Decompressor::new().unwrap();
    bolero::check!().with_type::<(Vec<u8>, Vec<Vec<u8>>)>().for_each(|(first, frames)| {
        if let Ok(subscription) = head(first) {
            assert_eq!(first[1..], subscription.to_le_bytes());
        }
        for frame in frames {
            let Ok(batch) = unpack(&mut decompressor, frame.clone().into(), LIMIT) else { continue };
            assert!(batch.len() <= LIMIT);
            let Ok(ops) = BatchDecoder::new(&batch) else { continue };
            for op in ops.map_while(Result::ok) {
                // The hub hands bodies on as parts of the batch.
                assert_eq!(batch.slice_ref(op.body), op.body);
            }
        }
    });
}
