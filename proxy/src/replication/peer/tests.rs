//! What an op stream may hold.

use meridian_topology::frame::batch::BatchDecoder;

use super::*;

const LIMIT: usize = 20_000;

#[test]
fn the_head_of_an_op_stream_is_its_version_and_subscription() {
    let right = [&[Protocol::GREETING.stream_form()][..], &77u64.to_le_bytes()].concat();
    assert_eq!(head(Protocol::GREETING, &right), Ok(77));
    assert_eq!(head(Protocol::GREETING, &[]).unwrap_err(), "empty head of an op stream");
    assert_eq!(head(Protocol::GREETING, &[2, 0, 0]).unwrap_err(), "op stream of version 2");
    for wrong in [&right[..8], &[&right[..], &[0]].concat()] {
        assert_eq!(head(Protocol::GREETING, wrong).unwrap_err(), "malformed head of an op stream");
    }
}

/// Fuzz target: a stream of any frames ends in batches or in an error.
#[test]
fn fuzz_op_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    bolero::check!().with_type::<(Vec<u8>, Vec<Vec<u8>>)>().for_each(|(first, frames)| {
        if let Ok(subscription) = head(Protocol::GREETING, first) {
            assert_eq!(first[1..], subscription.to_le_bytes());
        }
        for frame in frames {
            let decompressor = Decompressor::new().unwrap();
            let unpacked = runtime.block_on(unpack(decompressor, frame.clone().into(), LIMIT));
            let Ok((_, batch)) = unpacked else { continue };
            assert!(batch.len() <= LIMIT);
            let Ok(ops) = BatchDecoder::new(&batch) else { continue };
            for op in ops.map_while(Result::ok) {
                // The hub hands bodies on as parts of the batch.
                assert_eq!(batch.slice_ref(op.body), op.body);
            }
        }
    });
}

#[tokio::test]
async fn q2_what_waits_for_the_hub_is_bounded_and_a_batch_larger_than_the_room_still_passes() {
    let room = Room::new(64 << 10);
    let small = room.take(1).await.unwrap();
    let waiting = tokio::spawn({
        let room = room.clone();
        async move { room.take(1 << 20).await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(small);
    let all = waiting.await.unwrap();
    assert_eq!(room.kibibytes.available_permits(), 0);
    drop(all);
    assert_eq!(room.kibibytes.available_permits(), 64);
}
