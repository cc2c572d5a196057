//! J5: two regions of neighbouring versions of the link protocol, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector};
use meridian_conflict::op::{Header, Op};
use meridian_topology::frame::{PROTOCOLS, Protocol, Protocols};
use meridian_topology::graph::{Graph, RegionName};
use meridian_topology::replica::{CloseReason, Effect, Phase, Replica, Settings};
use meridian_topology::shape::Shape;
use meridian_topology::time::{MonoMs, WallMs};

const NOW: MonoMs = MonoMs(10_000);
const WALL: WallMs = WallMs(1_000_000);
const SESSION: u64 = 1;

fn graph() -> Graph {
    Shape::Mesh.graph(&["eu", "us"].map(|name| RegionName::new(name).unwrap())).unwrap()
}

/// A region and what it has done.
struct Side {
    name: &'static str,
    replica: Replica<Vec<u8>>,
    /// The number of the peer's subscription.
    subscription: Option<u64>,
    delivered: Vec<Op<Vec<u8>>>,
    closed: Option<CloseReason>,
}

impl Side {
    fn new(name: &'static str, protocols: Protocols) -> Self {
        let settings = Settings { protocols, ..Settings::new("shop", &RegionName::new(name).unwrap(), 1) };
        let replica = Replica::new(settings, graph(), origin(name), VersionVector::new());
        Self { name, replica, subscription: None, delivered: Vec::new(), closed: None }
    }

    fn id(&self) -> RegionId {
        RegionId::of(self.name)
    }

    /// What this side speaks with `peer`.
    fn speaks(&self, peer: RegionId) -> Protocol {
        self.replica.protocol(peer).unwrap_or(Protocol::GREETING)
    }
}

fn origin(name: &str) -> Origin {
    Origin::new(RegionId::of(name), 1)
}

/// Carries every message over as bytes until nothing more is said.
fn talk(sides: &mut [Side; 2]) {
    loop {
        let mut said = false;
        for (from, to) in [(0, 1), (1, 0)] {
            let (speaker, hearer) = (sides[from].id(), sides[to].id());
            while let Some(effect) = sides[from].replica.poll_effect() {
                match effect {
                    Effect::Send { control, .. } => {
                        let mut bytes = Vec::new();
                        sides[from].speaks(hearer).encode(&control, &mut bytes);
                        let control = sides[to].speaks(speaker).decode(&bytes).unwrap();
                        sides[to].replica.handle_control(NOW, WALL, speaker, SESSION, control);
                        said = true;
                    }
                    Effect::StartFeed { subscription, .. } => sides[from].subscription = Some(subscription),
                    Effect::Deliver(op) => sides[from].delivered.push(op),
                    Effect::CloseLink { reason, .. } => sides[from].closed = Some(reason),
                    _ => {}
                }
            }
        }
        if !said {
            return;
        }
    }
}

fn meet(ours: Protocols, theirs: Protocols) -> [Side; 2] {
    let mut sides = [Side::new("eu", ours), Side::new("us", theirs)];
    let (eu, us) = (sides[0].id(), sides[1].id());
    sides[0].replica.handle_connected(NOW, us, SESSION);
    sides[1].replica.handle_connected(NOW, eu, SESSION);
    talk(&mut sides);
    sides
}

fn range(lowest: u16, highest: u16) -> Protocols {
    Protocols { lowest, highest }
}

#[test]
fn j5_neighbouring_versions_speak_the_newest_both_know_and_replicate_both_ways() {
    let pairs = [
        (range(1, 1), range(1, 2), 1),
        (range(1, 2), range(1, 2), 2),
        (range(1, 2), range(2, 3), 2),
        (PROTOCOLS, range(PROTOCOLS.highest, PROTOCOLS.highest + 1), PROTOCOLS.highest),
    ];
    for (older, newer, spoken) in
        pairs.into_iter().flat_map(|(a, b, spoken)| [(a, b, spoken), (b, a, spoken)])
    {
        let mut sides = meet(older, newer);
        for (from, to) in [(0, 1), (1, 0)] {
            let (writer, reader) = (sides[from].id(), sides[to].id());
            let status = sides[from].replica.status();
            assert_eq!(status[0].phase, Phase::Up);
            assert_eq!(status[0].protocol.map(Protocol::number), Some(spoken), "{older} with {newer}");
            let dot = Dot::new(origin(sides[from].name), 1);
            let header = Header { dot, hlc: Hlc::from_ms(WALL.0), deps: Default::default() };
            let mut encoder = sides[from].speaks(reader).batch_encoder();
            encoder.push(&header, b"opaque");
            let mut bytes = Vec::new();
            encoder.finish(&mut bytes);
            let decoder = sides[to].speaks(writer).batch(&bytes).unwrap();
            let ops =
                decoder.map(|op| op.map(|op| Op { header: op.header, body: op.body.to_vec() }).unwrap());
            let (subscription, ops) = (sides[from].subscription.unwrap(), ops.collect::<Vec<_>>());
            sides[to].replica.handle_batch(NOW, WALL, writer, SESSION, subscription, ops);
            talk(&mut sides);
            assert_eq!(sides[to].delivered.len(), 1);
            assert_eq!(sides[to].delivered[0].body, b"opaque");
        }
    }
}

#[test]
fn j5_without_a_common_version_both_sides_refuse_and_say_why() {
    for (ours, theirs) in [(range(1, 1), range(2, 3)), (range(2, 3), range(1, 1))] {
        for (side, (ours, theirs)) in meet(ours, theirs).into_iter().zip([(ours, theirs), (theirs, ours)]) {
            let reason = side.closed.expect("closed");
            assert_eq!(reason, CloseReason::NoCommonProtocol { ours, theirs });
            let text = format!("no protocol version in common: {ours} here, {theirs} at the peer");
            assert_eq!(reason.to_string(), text);
            assert_eq!(side.replica.status()[0].phase, Phase::Down);
            assert_eq!(side.replica.status()[0].protocol, None);
        }
    }
}
