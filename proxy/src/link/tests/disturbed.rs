//! Links through a relay that loses, delays and cuts; strangers in numbers.

use std::cell::OnceCell;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UdpSocket;

use crate::link::close::{CloseReason, Ended};
use crate::link::endpoint::LinkError;
use crate::link::relay::{Conditions, Direction, Relay};

use super::streams::transfer;
use super::*;

/// Short enough for a test to see a link die.
fn impatient() -> TransportLimits {
    TransportLimits {
        keep_alive: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(600),
        handshake_timeout: Duration::from_secs(2),
        ..TransportLimits::default()
    }
}

async fn relayed(limits: TransportLimits, seed: u64) -> (Pair, Relay) {
    let relay = OnceCell::new();
    let slot = &relay;
    let pair = Pair::through(limits, |target| async move {
        let started = Relay::start(any_port(), target, seed).await.unwrap();
        slot.get_or_init(|| started).address()
    })
    .await;
    (pair, relay.into_inner().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_line_delivers_everything_intact() {
    let (pair, relay) = relayed(TransportLimits::default(), 7).await;
    relay.control().set_both(Conditions {
        jitter: Duration::from_millis(1),
        loss_ppm: 1_000,
        duplicate_ppm: 1_000,
        reorder_ppm: 200,
        ..Conditions::default()
    });
    within(transfer(&pair, 1024)).await;
    let counts = relay.control().counts(Direction::ToTarget);
    assert!(counts.lost > 0 && counts.duplicated > 0 && counts.reordered > 0, "{counts:?}");
    assert!(counts.forwarded_bytes > 60 << 20, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_with_a_short_queue_drops_and_delivers() {
    let (pair, relay) = relayed(TransportLimits::default(), 8).await;
    relay.control().set_both(Conditions {
        delay: Duration::from_millis(5),
        rate_bytes: 20_000_000,
        queue_bytes: 150_000,
        ..Conditions::default()
    });
    let rate = within(transfer(&pair, 256)).await;
    assert!(rate < 22.0, "{rate} MB/s through a line of 20");
    assert!(relay.control().counts(Direction::ToTarget).overflowed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_either_way_is_noticed_by_both_sides() {
    for direction in [Direction::ToTarget, Direction::FromTarget] {
        let (pair, relay) = relayed(impatient(), 9).await;
        relay.control().cut(direction, true);
        for end in [&pair.dialled, &pair.accepted] {
            let ended = Ended::from(&within(end.connection.closed()).await);
            assert_eq!(ended, Ended::Silent, "{direction:?}");
        }
        let error = within(pair.eu.dial("us", relay.address())).await.unwrap_err();
        assert!(matches!(error, LinkError::NoAnswer { .. }), "{error}");
        relay.control().cut(direction, false);
        // Whatever is left of the failed attempt, the next one gets through.
        within(async {
            let dialled = pair.eu.dial("us", relay.address()).await.unwrap();
            assert_eq!(dialled.region, "us");
            while pair.us.accept().await.unwrap().is_err() {}
        })
        .await;
    }
}

/// Strangers that send and never answer hold sixteen handshakes; the rest must prove their address first.
#[tokio::test(flavor = "multi_thread")]
async fn s1_silent_strangers_hold_few_handshakes_and_peers_get_in() {
    const STRANGERS: usize = 200;
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    let relay = Relay::start(any_port(), address(&us), 1).await.unwrap();
    relay.control().cut(Direction::FromTarget, true);
    let stranger = open(&TestCa::new().identity("eu"), &["us"], TransportLimits::default());
    let attempts: Vec<_> = (0..STRANGERS).map(|_| stranger.connecting("us", relay.address())).collect();

    // Retries are answers too: when as many have been lost as strangers came, all have been seen.
    within(async {
        while (relay.control().counts(Direction::FromTarget).cut as usize) < STRANGERS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(us.open_connections(), TransportLimits::default().retry_above);

    // A peer proves its address by a retry and gets in while they stall.
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (dialled, accepted) = tokio::join!(eu.dial("us", address(&us)), async {
        loop {
            if let Ok(peer) = accept(&us).await {
                return peer;
            }
        }
    });
    assert_eq!((dialled.unwrap().region, accepted.region), ("us".to_owned(), "eu".to_owned()));
    drop(attempts);
}

/// One address cannot take every place, even when it answers retries.
#[tokio::test(flavor = "multi_thread")]
async fn s1_one_address_has_a_share_of_the_handshakes() {
    let limits = TransportLimits { handshakes_per_address_max: 0, ..TransportLimits::default() };
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], limits);
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (dialled, accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert!(accepted.is_err());
    assert!(matches!(dialled, Err(LinkError::Handshake { ended: Ended::Busy, .. })));
}

/// Datagrams that are no QUIC, or broken QUIC, leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn s1_garbage_datagrams_hold_nothing() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    let socket = std::net::UdpSocket::bind(any_port()).unwrap();
    let mut random = crate::link::random::SplitMix64::new(3);
    for length in 0..1400usize {
        let mut datagram: Vec<u8> = (0..length).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        // Half of them look like a QUIC version 1 Initial at first.
        if length >= 5 && length % 2 == 0 {
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, address(&us)).unwrap();
    }
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (dialled, accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert!(dialled.is_ok() && accepted.is_ok());
    assert_eq!(us.open_connections(), 1);
}

/// Every datagram of a real connection, sent again while it lives and after its end.
#[tokio::test(flavor = "multi_thread")]
async fn s1_a_replayed_handshake_opens_nothing() {
    let ca = TestCa::new();
    let limits =
        TransportLimits { handshake_timeout: Duration::from_millis(300), ..TransportLimits::default() };
    let us = open(&ca.identity("us"), &["eu"], limits);
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let recorder = Recorder::start(address(&us)).await;
    let (dialled, accepted) = tokio::join!(eu.dial("us", recorder.address), accept(&us));
    let mut stream = dialled.as_ref().unwrap().connection.open_uni().await.unwrap();
    stream.write_all(b"once").await.unwrap();
    stream.finish().unwrap();
    let accepted = accepted.unwrap();
    let mut stream = within(accepted.connection.accept_uni()).await.unwrap();
    assert_eq!(within(stream.read_to_end(10)).await.unwrap(), b"once");

    // While the connection lives, the copies belong to it and change nothing.
    let datagrams = recorder.datagrams.lock().clone();
    assert!(datagrams.len() >= 3);
    for datagram in &datagrams {
        recorder.back.send(datagram).await.unwrap();
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), accepted.connection.accept_uni()).await.is_err()
    );
    assert_eq!(accepted.connection.close_reason(), None);

    // Afterwards the copied Initial begins a handshake that its sender cannot finish.
    accepted.close(CloseReason::Replaced, "");
    within(async {
        while us.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let elsewhere = std::net::UdpSocket::bind(any_port()).unwrap();
    for datagram in &datagrams {
        elsewhere.send_to(datagram, address(&us)).unwrap();
    }
    assert!(accept(&us).await.is_err());
}

/// Forwards one flow and keeps what went to the target.
struct Recorder {
    address: SocketAddr,
    back: Arc<UdpSocket>,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    async fn start(target: SocketAddr) -> Self {
        let front = UdpSocket::bind(any_port()).await.unwrap();
        let back = Arc::new(UdpSocket::bind(any_port()).await.unwrap());
        back.connect(target).await.unwrap();
        let recorder =
            Self { address: front.local_addr().unwrap(), back: back.clone(), datagrams: Arc::default() };
        let datagrams = recorder.datagrams.clone();
        tokio::spawn(async move {
            let (mut there, mut again) = (vec![0; 2000], vec![0; 2000]);
            let mut source = None;
            loop {
                tokio::select! {
                    Ok((bytes, from)) = front.recv_from(&mut there) => {
                        source = Some(from);
                        datagrams.lock().push(there[..bytes].to_vec());
                        let _ = back.send(&there[..bytes]).await;
                    }
                    Ok(bytes) = back.recv(&mut again) => {
                        if let Some(source) = source {
                            let _ = front.send_to(&again[..bytes], source).await;
                        }
                    }
                }
            }
        });
        recorder
    }
}
