//! Frames and close codes over real connections.

use std::time::Instant;

use bytes::Bytes;

use crate::link::close::{CloseReason, Ended};
use crate::link::framing::{FrameError, FrameReader, write_frame};
use crate::link::random::SplitMix64;

use super::*;

const FRAME_BYTES: usize = 64 << 10;

/// Sends `frames` frames on one stream and checks each at the other end; returns MB/s.
pub(super) async fn transfer(pair: &Pair, frames: usize) -> f64 {
    let mut random = SplitMix64::new(42);
    let payload: Bytes = (0..FRAME_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let expected = payload.clone();
    let start = Instant::now();
    let connection = pair.dialled.connection.clone();
    let sender = tokio::spawn(async move {
        let mut stream = connection.open_uni().await.unwrap();
        for number in 0..frames {
            // Every frame has another length and content.
            write_frame(&mut stream, payload.slice(number % 1000..), FRAME_BYTES).await.unwrap();
        }
        stream.finish().unwrap();
        stream.stopped().await.unwrap();
    });
    let stream = pair.accepted.connection.accept_uni().await.unwrap();
    let mut reader = FrameReader::new(stream, FRAME_BYTES);
    let (mut number, mut bytes) = (0, 0);
    while let Some(frame) = reader.next().await.unwrap() {
        assert!(frame == expected.slice(number % 1000..), "frame {number}");
        number += 1;
        bytes += frame.len();
    }
    assert_eq!(number, frames);
    sender.await.unwrap();
    bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_frames_arrives_intact() {
    let pair = Pair::new().await;
    let rate = within(transfer(&pair, 2048)).await;
    println!("one stream, 64 KiB frames, loopback: {rate:.0} MB/s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_limit_ends_the_connection() {
    let pair = Pair::new().await;
    let mut stream = pair.dialled.connection.open_uni().await.unwrap();
    let refused = write_frame(&mut stream, Bytes::from_static(b"12345"), 4).await;
    assert!(matches!(refused, Err(FrameError::TooLarge { bytes: 5, limit: 4 })));
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();

    let mut reader = FrameReader::new(pair.accepted.connection.accept_uni().await.unwrap(), 1 << 20);
    let error = within(reader.next()).await.unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { limit: 1_048_576, .. }));
    pair.accepted.close(CloseReason::FrameTooLarge, &error.to_string());
    let ended = Ended::from(&within(pair.dialled.connection.closed()).await);
    assert!(matches!(ended, Ended::ByPeer { reason: CloseReason::FrameTooLarge, .. }), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_reasons_reach_the_other_side() {
    let pair = Pair::new().await;
    let target = address(&pair.us);
    for reason in CloseReason::ALL {
        let (dialled, accepted) = tokio::join!(pair.eu.dial("us", target), accept(&pair.us));
        accepted.unwrap().close(*reason, &"é".repeat(1000));
        let ended = Ended::from(&within(dialled.unwrap().connection.closed()).await);
        let Ended::ByPeer { reason: told, detail } = ended else { panic!("{ended}") };
        assert!(told == *reason && detail == "é".repeat(128), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_an_endpoint_tells_its_peers_and_ends_accept() {
    let pair = Pair::new().await;
    within(pair.us.close(CloseReason::ShuttingDown)).await;
    let ended = Ended::from(&within(pair.dialled.connection.closed()).await);
    assert!(matches!(ended, Ended::ByPeer { reason: CloseReason::ShuttingDown, .. }), "{ended}");
    assert!(within(pair.us.accept()).await.is_none());
}

/// Whoever does not read holds one stream window of the sender's bytes, and not one more.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stream_is_bounded_by_its_window() {
    let limits = TransportLimits { stream_window_bytes: 100_000, ..TransportLimits::default() };
    let pair = Pair::through(limits, |address| async move { address }).await;
    let mut stream = pair.dialled.connection.open_uni().await.unwrap();
    within(stream.write_all(&[0; 100_000])).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.write(&[0])).await.is_err());

    let mut reader = within(pair.accepted.connection.accept_uni()).await.unwrap();
    within(reader.read_exact(&mut [0; 100_000])).await.unwrap();
    within(stream.write_all(&[0])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_in_number() {
    let pair = Pair::new().await;
    let connection = &pair.dialled.connection;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(within(connection.open_uni()).await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), connection.open_uni()).await.is_err());
    assert_eq!(connection.max_datagram_size(), None);
}
