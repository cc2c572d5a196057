//! A neighbour that sends what cannot be applied.

use bytes::{BufMut, BytesMut};
use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId};
use meridian_conflict::op::{BodyBuilder, Effect, Header};
use meridian_proxy::link::framing::{FrameReader, put_frame, write_frame};
use meridian_topology::frame::batch::BatchEncoder;
use meridian_topology::frame::{Control, PROTOCOLS, Protocols};

use crate::harness::peer::{INCARNATION, endpoint, hello_speaking};
use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};

/// The number of an effect that nobody knows yet.
const LATER_EFFECT: u8 = 100;

/// J5: region b is of the next version, and speaks ours as well.
const NEIGHBOURING: Protocols = Protocols { highest: PROTOCOLS.highest + 1, ..PROTOCOLS };

fn assignment(key: &[u8]) -> Vec<u8> {
    let mut body = BodyBuilder::default();
    body.push(&Effect::Assign { value: b"here", baseline: Default::default() });
    body.finish_key(0, key);
    body.body().to_vec()
}

/// An effect of a kind that only a later version knows, in a body that is well formed otherwise.
fn of_a_later_version(key: u8) -> Vec<u8> {
    let (database, key_bytes, effects, bytes) = (0, 1, 1, 2);
    vec![database, key_bytes, key, effects, bytes, LATER_EFFECT, 7]
}

/// A frame with these bodies as ops 1, 2 and so on.
fn batch(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut encoder = BatchEncoder::default();
    for (sequence, body) in (1..).zip(bodies) {
        let dot = Dot::new(Origin::new(RegionId::of("b"), INCARNATION), sequence);
        let hlc = Hlc::from_ms(1_700_000_000_000 + sequence);
        encoder.push(&Header { dot, hlc, deps: Default::default() }, body);
    }
    let mut frame = vec![0];
    encoder.finish(&mut frame);
    frame
}

/// Behaves as region b towards region a until a has subscribed and has been sent `bodies`; stays
/// while `meanwhile` runs.
fn as_region_b(cluster: &Cluster, bodies: &[Vec<u8>], meanwhile: impl FnOnce()) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let endpoint = endpoint(cluster.directory(), "b");
        let peer = endpoint.dial("a", cluster.link_address(0)).await.unwrap();
        let (mut control, receive) = peer.connection.open_bi().await.unwrap();
        write_frame(&mut control, hello_speaking(NEIGHBOURING, "test", "b").into(), 1 << 20).await.unwrap();
        let mut frames = FrameReader::new(receive, 1 << 20);
        let id = loop {
            let frame = frames.next().await.unwrap().expect("a subscription");
            if let Control::Subscribe { id, .. } = Control::decode(&frame).unwrap() {
                break id;
            }
        };
        let mut wire = BytesMut::new();
        let mut head = BytesMut::new();
        head.put_u8(1);
        head.put_u64_le(id);
        put_frame(&mut wire, &head, 100).unwrap();
        put_frame(&mut wire, &batch(bodies), 1 << 20).unwrap();
        let mut ops = peer.connection.open_uni().await.unwrap();
        ops.write_all(&wire).await.unwrap();
        tokio::task::block_in_place(meanwhile);
    });
}

/// What is there of the ops, and how far region `i` is with them.
fn has_all(cluster: &Cluster, i: usize, ops: i64) -> bool {
    let mut client = cluster.client(i);
    let key = ("b".to_owned(), i64::from(INCARNATION), ops);
    client.vector().contains(&key)
        && ["first", "middle", "last"].iter().all(|key| client.maybe(&["GET", key]).is_some())
}

#[test]
fn q3_an_op_that_cannot_be_applied_is_parked_everywhere_and_over_restarts() {
    // c hears of b's ops from a only.
    let mut cluster = Cluster::prepare(Options::new(Shape::Star, 3));
    for i in [0, 2] {
        cluster.restart(i);
    }
    cluster.await_links();
    let whole = assignment(b"cut short");
    let bodies = [
        assignment(b"first"),
        whole[..whole.len() - 2].to_vec(),
        assignment(b"middle"),
        assignment(&[b'x'; 70_000]),
        vec![0xff; 100],
        of_a_later_version(b'k'),
        assignment(b"last"),
    ];
    let ops = i64::try_from(bodies.len()).unwrap();
    as_region_b(&cluster, &bodies, || {
        for i in [0, 2] {
            wait_for("the ops to flow", PATIENCE, || has_all(&cluster, i, ops).then_some(()));
            assert_eq!(cluster.metric(i, "meridian_parked_ops_total", &[]), 4.0, "at {}", cluster.name(i));
            assert!(cluster.said(i).contains("parked an op that cannot be applied"), "{}", cluster.said(i));
            let listed = cluster.status(i)["parked"].as_array().unwrap().clone();
            let numbers =
                listed.iter().map(|parked| parked["op"].as_str().unwrap().rsplit_once(':').unwrap().1);
            assert_eq!(numbers.collect::<Vec<_>>(), ["2", "4", "5", "6"]);
        }
        let links = cluster.status(0)["links"].as_array().unwrap().clone();
        let with_b = links.iter().find(|link| link["peer"] == "b").unwrap();
        assert_eq!(with_b["protocol"], PROTOCOLS.highest, "what both speak");
        assert_eq!(cluster.metric(0, "meridian_link_up", &[("peer", "b")]), 1.0, "not a reason to part");
    });
    // One replays its log, one goes on from its store.
    cluster.kill9(0);
    cluster.stop(2);
    for i in [0, 2] {
        cluster.restart(i);
        assert!(has_all(&cluster, i, ops), "{} after its restart", cluster.name(i));
    }
    // The real b hears of what it is said to have written, and parks the same.
    cluster.restart(1);
    cluster.await_links();
    for i in cluster.all() {
        cluster.client(i).ok(&["SET", cluster.name(i), "well"]);
    }
    cluster.await_converged(PATIENCE);
    assert!(has_all(&cluster, 1, ops));
    assert_eq!(cluster.metric(1, "meridian_parked_ops_total", &[]), 4.0);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["DBSIZE"]), 3 + 3);
        cluster.stop(i);
    }
}
