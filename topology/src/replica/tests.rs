mod hooks;
mod loading;

use meridian_conflict::clock::{Dot, covers_all};
use meridian_conflict::op::Header;

use super::*;
use crate::frame::{Announced, Heartbeat, PROTOCOLS, Protocols};
use crate::graph::RegionName;
use crate::shape::Shape;

type Rep = Replica<Vec<u8>>;

const NOW: MonoMs = MonoMs(10_000);
const WALL: WallMs = WallMs(1_000_000);

fn id(name: &str) -> RegionId {
    RegionId::of(name)
}

fn origin(name: &str) -> Origin {
    Origin::new(id(name), 1)
}

fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

/// A mesh of `members` in which everyone takes everything from everyone.
fn mesh(members: &[&str]) -> Graph {
    let members: Vec<RegionName> = members.iter().map(|member| name(member)).collect();
    Shape::Mesh.graph(&members).unwrap()
}

/// `region`, in a mesh with `peers`.
fn replica(region: &str, peers: &[&str]) -> Rep {
    let members: Vec<&str> = peers.iter().copied().chain([region]).collect();
    let settings = Settings { redundant: true, ..Settings::new("shop", &name(region), 1) };
    Replica::new(settings, mesh(&members), origin(region), VersionVector::new())
}

fn hello(name: &str, boot: u64) -> Hello {
    Hello {
        protocols: PROTOCOLS,
        cluster: "shop".into(),
        region: name.into(),
        origin: origin(name),
        boot,
        topology_digest: 0,
        policy_digest: 0,
        applied: VersionVector::new(),
        held: VersionVector::new(),
    }
}

fn op(name: &str, sequence: u64, deps: &[(&str, u64)]) -> Op<Vec<u8>> {
    let deps = deps.iter().map(|(o, s)| (origin(o), *s)).collect();
    let hlc = Hlc::from_ms(WALL.0);
    Op { header: Header { dot: Dot::new(origin(name), sequence), hlc, deps }, body: vec![0; 8] }
}

fn drain(replica: &mut Rep) -> Vec<Effect<Vec<u8>>> {
    std::iter::from_fn(|| replica.poll_effect()).collect()
}

fn greet(replica: &mut Rep, peer: &str, session: u64, hello: Hello) -> Vec<Effect<Vec<u8>>> {
    replica.handle_connected(NOW, id(peer), session);
    replica.handle_control(NOW, WALL, id(peer), session, Control::Hello(Box::new(hello)));
    drain(replica)
}

fn closed(effects: &[Effect<Vec<u8>>]) -> Option<CloseReason> {
    effects.iter().find_map(|effect| match effect {
        Effect::CloseLink { reason, .. } => Some(*reason),
        _ => None,
    })
}

fn subscription(effects: &[Effect<Vec<u8>>]) -> Option<(u64, VersionVector)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { control: Control::Subscribe { id, from, .. }, .. } => Some((*id, from.clone())),
        _ => None,
    })
}

fn delivered(effects: &[Effect<Vec<u8>>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Deliver(_))).count()
}

fn sent(effects: &[Effect<Vec<u8>>], wanted: impl Fn(&Control) -> bool) -> usize {
    let is = |effect: &&Effect<Vec<u8>>| matches!(effect, Effect::Send { control, .. } if wanted(control));
    effects.iter().filter(is).count()
}

#[test]
fn a_hello_is_answered_with_a_subscription_and_ops_are_delivered() {
    let mut eu = replica("eu", &["us"]);
    let effects = greet(&mut eu, "us", 1, hello("us", 5));
    let (subscription, _) = subscription(&effects).unwrap();
    eu.handle_batch(NOW, WALL, id("us"), 1, subscription, [op("us", 1, &[]), op("us", 2, &[])]);
    assert_eq!(delivered(&drain(&mut eu)), 2);
    eu.handle_batch(NOW, WALL, id("us"), 1, subscription + 1, [op("us", 3, &[])]);
    assert_eq!(delivered(&drain(&mut eu)), 0, "not the subscription in force");
}

fn policies_sent(effects: &[Effect<Vec<u8>>]) -> Vec<(RegionId, Announced)> {
    let of = |effect: &Effect<Vec<u8>>| match effect {
        Effect::Send { peer, control: Control::Policies(announced), .. } => Some((*peer, announced.clone())),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn policies_are_told_once_to_everybody_and_passed_on() {
    let mut eu = replica("eu", &["us", "ap"]);
    let known = |eu: &Rep| eu.policies().map(|(region, table)| (region, table.to_vec())).collect::<Vec<_>>();
    eu.handle_policies(Hlc(5), 9, vec![1]);
    let to_us = policies_sent(&greet(&mut eu, "us", 1, hello("us", 1)));
    assert_eq!(to_us.len(), 1, "a new peer is told what is known");
    assert!(eu.status().iter().any(|status| status.peer == id("us") && status.policies_differ));
    greet(&mut eu, "ap", 2, hello("ap", 1));
    let of_us = |told, table| Announced { region: id("us"), told: Hlc(told), table };
    let hear = |eu: &mut Rep, announced: &Announced| {
        eu.handle_control(NOW, WALL, id("us"), 1, Control::Policies(announced.clone()));
        drain(eu)
    };
    let news = of_us(7, vec![2]);
    let effects = hear(&mut eu, &news);
    assert_eq!(policies_sent(&effects), [(id("ap"), news.clone())]);
    assert!(effects.contains(&Effect::Notice(Notice::PoliciesHeard)));
    assert!(hear(&mut eu, &news).is_empty(), "it is known");
    assert!(hear(&mut eu, &of_us(6, vec![3])).is_empty(), "it is old");
    assert!(hear(&mut eu, &Announced { region: id("xx"), ..news.clone() }).is_empty(), "no member");
    assert_eq!(known(&eu).len(), 2);
    // What a former life of this region had told is not what is true now.
    let former = Announced { region: id("eu"), told: Hlc(50), table: vec![9] };
    let told: Vec<_> = policies_sent(&hear(&mut eu, &former)).into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, vec![Announced { told: Hlc(51), table: vec![1], ..former }; 2]);
    eu.handle_policies(Hlc(5), 9, vec![4]);
    assert!(policies_sent(&drain(&mut eu)).iter().all(|(_, own)| own.told == Hlc(52)));
    // Who left has no say.
    eu.handle_topology(NOW, mesh(&["eu", "ap"]));
    assert_eq!(known(&eu), [(id("eu"), vec![4])]);
}

#[test]
fn strangers_are_closed_and_other_digests_only_shown() {
    let wrong = [
        (Hello { cluster: "other".into(), ..hello("us", 1) }, CloseReason::WrongCluster),
        (hello("ap", 1), CloseReason::WrongRegion),
        (Hello { origin: origin("ap"), ..hello("us", 1) }, CloseReason::WrongRegion),
        (Hello { origin: origin("eu"), ..hello("us", 1) }, CloseReason::OwnIdentity),
        (
            Hello { protocols: Protocols { lowest: 7, highest: 9 }, ..hello("us", 1) },
            CloseReason::NoCommonProtocol { ours: PROTOCOLS, theirs: Protocols { lowest: 7, highest: 9 } },
        ),
    ];
    for (hello, reason) in wrong {
        let mut eu = replica("eu", &["us"]);
        assert_eq!(closed(&greet(&mut eu, "us", 1, hello)), Some(reason));
        assert_eq!(eu.status()[0].phase, Phase::Down);
    }
    let mut eu = replica("eu", &["us"]);
    let effects = greet(
        &mut eu,
        "us",
        1,
        Hello { policy_digest: 8, topology_digest: mesh(&["eu", "us"]).digest(), ..hello("us", 1) },
    );
    assert_eq!(closed(&effects), None);
    assert!(eu.status()[0].policies_differ);
    assert!(!eu.status()[0].topology_differs);
    eu.handle_connected(NOW, id("mars"), 4);
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::NotMember));
}

#[test]
fn l4_a_new_connection_replaces_the_old_at_once() {
    let mut eu = replica("eu", &["us"]);
    greet(&mut eu, "us", 1, hello("us", 5));
    let subscribe = Control::Subscribe { id: 1, regions: BTreeSet::new(), from: VersionVector::new() };
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe);
    drain(&mut eu);
    let effects = greet(&mut eu, "us", 2, hello("us", 5));
    assert!(matches!(effects[0], Effect::StopFeed { session: 1, .. }));
    assert_eq!(closed(&effects), Some(CloseReason::Replaced));
    eu.handle_disconnected(NOW, id("us"), 1);
    assert_eq!(eu.status()[0].phase, Phase::Up);
    eu.handle_disconnected(NOW, id("us"), 2);
    assert_eq!(eu.status()[0].phase, Phase::Down);
}

#[test]
fn r1_a_peer_that_knows_our_later_ops_makes_us_take_a_new_incarnation() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_local(3, Hlc(1));
    let knows = |sequence| [Dot::new(origin("eu"), sequence)].into_iter().collect();
    assert_eq!(closed(&greet(&mut eu, "us", 1, Hello { applied: knows(3), ..hello("us", 1) })), None);
    assert_eq!(eu.unconfirmed().count(), 0);
    let effects = greet(&mut eu, "us", 2, Hello { applied: knows(4), ..hello("us", 1) });
    let amnesia = Amnesia { peer: id("us"), known: Dot::new(origin("eu"), 4), remembered: 3 };
    assert!(effects.contains(&Effect::TakeNewIncarnation(amnesia)));
    eu.handle_connected(NOW, id("us"), 3);
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::Ending));
    let second_life = Origin::new(id("eu"), 2);
    let applied = knows(3);
    eu.handle_reincarnated(second_life, &applied, &applied);
    let effects = greet(&mut eu, "us", 4, Hello { applied: knows(4), ..hello("us", 1) });
    let (number, from) = subscription(&effects).unwrap();
    assert_eq!(from.get(&origin("eu")), 3);
    eu.handle_batch(NOW, WALL, id("us"), 4, number, [op("eu", 4, &[])]);
    assert_eq!(delivered(&drain(&mut eu)), 1, "our own lost op comes back");
}

#[test]
fn r3_the_second_of_two_processes_with_one_identity_is_refused() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_connected(NOW, id("eu"), 1);
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::OwnIdentity));
    greet(&mut eu, "us", 2, hello("us", 100));
    greet(&mut eu, "us", 3, hello("us", 200));
    // It may be its last words, late.
    let effects = greet(&mut eu, "us", 4, hello("us", 100));
    assert!(!effects.contains(&Effect::Notice(Notice::SecondHolder { peer: id("us") })));
    assert_eq!(closed(&effects), Some(CloseReason::Replaced));
    assert_eq!(closed(&greet(&mut eu, "us", 5, hello("us", 200))), None, "whoever took its place goes on");
    let later = NOW.after(5_000);
    eu.handle_connected(later, id("us"), 6);
    eu.handle_control(later, WALL, id("us"), 6, Control::Hello(Box::new(hello("us", 100))));
    let effects = drain(&mut eu);
    assert!(effects.contains(&Effect::Notice(Notice::SecondHolder { peer: id("us") })));
    let effects = greet(&mut eu, "us", 7, hello("us", 200));
    assert!(effects.contains(&Effect::CloseLink {
        peer: id("us"),
        session: 7,
        reason: CloseReason::SecondHolder
    }));
}

#[test]
fn only_durable_vectors_are_acknowledged_and_not_too_often() {
    let mut eu = replica("eu", &["us"]);
    let is_ack = |control: &Control| match control {
        Control::Stability { rows } => {
            rows.iter().any(|row| row.region == id("eu") && !row.durable.is_empty())
        }
        _ => false,
    };
    let (number, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    eu.handle_batch(NOW, WALL, id("us"), 1, number, [op("us", 1, &[]), op("us", 2, &[])]);
    eu.handle_timeout(NOW.after(50), WALL);
    assert_eq!(sent(&drain(&mut eu), is_ack), 0);
    let durable = |sequence| [Dot::new(origin("us"), sequence)].into_iter().collect();
    eu.handle_durable(NOW.after(60), &durable(1));
    assert_eq!(sent(&drain(&mut eu), is_ack), 1);
    eu.handle_durable(NOW.after(61), &durable(2));
    assert_eq!(sent(&drain(&mut eu), is_ack), 0);
    assert_eq!(eu.poll_timeout(), Some(NOW.after(70)));
    eu.handle_timeout(NOW.after(70), WALL);
    assert_eq!(sent(&drain(&mut eu), is_ack), 1);
}

#[test]
fn k2_a_stamp_too_far_ahead_holds_the_link_until_the_clock_is_right() {
    let mut eu = replica("eu", &["us"]);
    let (number, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    let mut early = op("us", 2, &[]);
    early.header.hlc = Hlc::from_ms(WALL.0 + 5_000);
    let ops = [op("us", 1, &[]), early.clone(), op("us", 3, &[])];
    eu.handle_batch(NOW, WALL, id("us"), 1, number, ops);
    let effects = drain(&mut eu);
    assert_eq!(delivered(&effects), 1);
    assert_eq!(eu.status()[0].phase, Phase::Held(Hold::Skew { ahead_ms: 5_000 }));
    eu.handle_timeout(NOW.after(1_000), WALL);
    let (number, from) = subscription(&drain(&mut eu)).unwrap();
    assert_eq!(from.get(&origin("us")), 1);
    let right = WallMs(WALL.0 + 4_900);
    eu.handle_batch(NOW.after(1_001), right, id("us"), 1, number, [early, op("us", 3, &[])]);
    assert_eq!(delivered(&drain(&mut eu)), 2);
    assert_eq!(eu.status()[0].phase, Phase::Up);
}

#[test]
fn c2_full_memory_pauses_the_peer_and_loses_nothing() {
    let mut eu = replica("eu", &["us", "ap"]);
    eu.delivery = Delivery::new(VersionVector::new(), 3 * 200);
    let (from_us, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    let (from_ap, _) = subscription(&greet(&mut eu, "ap", 2, hello("ap", 5))).unwrap();
    let late = |sequence| op("us", sequence, if sequence == 1 { &[("ap", 1)] } else { &[] });
    eu.handle_batch(NOW, WALL, id("us"), 1, from_us, (1..=10).map(late));
    assert_eq!(delivered(&drain(&mut eu)), 0);
    assert_eq!(eu.delivery().pending_ops(), 3);
    assert_eq!(eu.status().iter().filter(|s| s.phase == Phase::Held(Hold::PendingFull)).count(), 1);
    // A try though memory is full: nothing is kept, the link goes back to waiting.
    eu.handle_timeout(NOW.after(1_000), WALL);
    let (again, _) = subscription(&drain(&mut eu)).unwrap();
    eu.handle_batch(NOW.after(1_001), WALL, id("us"), 1, again, (1..=10).map(late));
    assert_eq!(eu.delivery().pending_ops(), 3);
    eu.handle_timeout(NOW.after(2_001), WALL);
    drain(&mut eu);
    // What all wait for arrives.
    eu.handle_batch(NOW.after(2_002), WALL, id("ap"), 2, from_ap, [op("ap", 1, &[])]);
    let effects = drain(&mut eu);
    assert_eq!(delivered(&effects), 4);
    let (again, from) = subscription(&effects).unwrap();
    assert_eq!(from.get(&origin("us")), 3);
    eu.handle_batch(NOW.after(2_003), WALL, id("us"), 1, again, (4..=10).map(late));
    assert_eq!(delivered(&drain(&mut eu)), 7);
}

#[test]
fn a_subscriber_older_than_the_log_is_refused() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_truncated([Dot::new(origin("eu"), 7)].into_iter().collect(), &VersionVector::new());
    greet(&mut eu, "us", 1, hello("us", 5));
    let subscribe = |from: u64| Control::Subscribe {
        id: from,
        regions: [id("eu")].into(),
        from: [Dot::new(origin("eu"), from)].into_iter().collect(),
    };
    eu.handle_local(9, Hlc(1));
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(6));
    let refused = Control::SubscribeRefused { id: 6, reason: Refusal::PastLog };
    assert_eq!(sent(&drain(&mut eu), |control| *control == refused), 1);
    eu.handle_control(NOW, WALL, id("us"), 1, subscribe(7));
    assert!(drain(&mut eu).iter().any(|e| matches!(e, Effect::StartFeed { subscription: 7, .. })));
}

#[test]
fn j3_after_a_takeover_subscriptions_begin_at_what_was_taken_over() {
    let mut eu = replica("eu", &["us", "ap"]);
    let (first, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    // Held: what it depends on is in no log any more.
    eu.handle_batch(NOW, WALL, id("us"), 1, first, [op("us", 1, &[("ap", 4)])]);
    assert_eq!((delivered(&drain(&mut eu)), eu.delivery().pending_ops()), (0, 1));
    let applied = [Dot::new(origin("us"), 7), Dot::new(origin("ap"), 4)].into_iter().collect();
    eu.handle_taken_over(NOW, &applied);
    let effects = drain(&mut eu);
    assert_eq!((delivered(&effects), eu.delivery().pending_ops()), (0, 0));
    let (number, from) = subscription(&effects).unwrap();
    assert!(number > first && covers_all(&from, &applied));
    eu.handle_batch(NOW, WALL, id("us"), 1, number, [op("us", 7, &[]), op("us", 8, &[])]);
    assert_eq!(delivered(&drain(&mut eu)), 1, "what was taken over is not delivered again");
}

#[test]
fn heartbeats_measure_the_round_trip_and_silence_is_noticed() {
    let (mut eu, mut us) = (replica("eu", &["us"]), replica("us", &["eu"]));
    greet(&mut eu, "us", 1, hello("us", 5));
    greet(&mut us, "eu", 1, hello("eu", 5));
    let beat = |replica: &mut Rep, now: MonoMs| {
        replica.handle_timeout(now, WALL);
        drain(replica).into_iter().find_map(|effect| match effect {
            Effect::Send { control: Control::Heartbeat(heartbeat), .. } => {
                Some(Control::Heartbeat(heartbeat))
            }
            _ => None,
        })
    };
    let first = beat(&mut eu, NOW).unwrap();
    us.handle_control(NOW.after(20), WALL, id("eu"), 1, first);
    let answer = beat(&mut us, NOW.after(500)).unwrap();
    eu.handle_control(NOW.after(520), WALL, id("us"), 1, answer);
    assert_eq!(eu.status()[0].round_trip_ms, Some(40));
    eu.handle_timeout(NOW.after(520 + 3_000), WALL);
    assert!(eu.status()[0].silent);
}

#[test]
fn messages_before_the_hello_close_the_link() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_connected(NOW, id("us"), 1);
    eu.handle_control(NOW, WALL, id("us"), 1, Control::Unsubscribe { id: 1 });
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::Protocol("no hello first")));
    eu.handle_connected(NOW, id("us"), 2);
    eu.handle_timeout(NOW.after(10_000), WALL);
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::NoHello));
}

/// Found by the simulator: two regions lose the tails of their logs together, and a third holds an
/// op of one of them that depends on what both have lost.
#[test]
fn an_op_whose_deps_nobody_has_any_more_is_not_held_for_ever() {
    let mut eu = replica("eu", &["us"]);
    let (number, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    eu.handle_batch(NOW, WALL, id("us"), 1, number, [op("us", 1, &[("ap", 1)])]);
    eu.handle_timeout(NOW.after(100_000), WALL);
    assert_eq!(eu.delivery().pending_ops(), 1);
    let reborn = Hello { origin: Origin::new(id("us"), 2), ..hello("us", 6) };
    greet(&mut eu, "us", 2, reborn);
    eu.handle_timeout(NOW.after(29_999), WALL);
    assert_eq!(eu.delivery().pending_ops(), 1, "it may still be saved");
    let heartbeat = Heartbeat {
        sent: NOW,
        wall: WALL,
        hlc: Hlc(0),
        echo: None,
        applied: VersionVector::new(),
        topology_digest: 0,
        policy_digest: 0,
        via: Vec::new(),
    };
    eu.handle_control(NOW.after(29_999), WALL, id("us"), 2, Control::Heartbeat(heartbeat));
    drain(&mut eu);
    eu.handle_timeout(NOW.after(30_000), WALL);
    assert_eq!(eu.delivery().pending_ops(), 0);
    assert!(subscription(&drain(&mut eu)).is_some());
}

/// The giver may have been alone in having what the op depends on, and need not come back.
#[test]
fn an_op_that_waits_is_fetched_again_when_its_giver_is_gone_or_has_left() {
    for leaves in [false, true] {
        let mut replica = replica("a", &["b", "c"]);
        let (id_of_feed, _) = subscription(&greet(&mut replica, "b", 1, hello("b", 5))).unwrap();
        greet(&mut replica, "c", 2, hello("c", 6));
        replica.handle_batch(NOW, WALL, id("b"), 1, id_of_feed, [op("b", 1, &[("c", 9)])]);
        assert_eq!(replica.delivery().pending_ops(), 1);
        if leaves {
            replica.handle_disconnected(NOW, id("b"), 1);
            replica.handle_topology(NOW, mesh(&["a", "c"]));
        } else {
            replica.handle_disconnected(NOW, id("b"), 1);
        }
        replica.handle_timeout(NOW.after(29_999), WALL);
        assert_eq!(replica.delivery().pending_ops(), 1, "it may still come");
        replica.handle_timeout(NOW.after(30_000), WALL);
        assert_eq!(replica.delivery().pending_ops(), 0);
    }
}

#[test]
fn any_member_is_let_in_and_served_and_strangers_are_not() {
    let order: Vec<RegionName> = ["ap", "eu", "us", "za"].map(name).to_vec();
    let graph = Shape::Ring { order: order.clone() }.graph(&order).unwrap();
    let settings = Settings::new("shop", &name("ap"), 1);
    let mut ap: Rep = Replica::new(settings, graph, origin("ap"), VersionVector::new());
    ap.handle_timeout(NOW, WALL);
    let dials: Vec<_> = drain(&mut ap).into_iter().filter(|e| matches!(e, Effect::Dial { .. })).collect();
    assert_eq!(dials.len(), 2, "both neighbours have greater names");
    greet(&mut ap, "us", 1, hello("us", 5));
    let subscribe = Control::Subscribe { id: 1, regions: [id("ap")].into(), from: VersionVector::new() };
    ap.handle_control(NOW, WALL, id("us"), 1, subscribe);
    assert!(drain(&mut ap).iter().any(|effect| matches!(effect, Effect::StartFeed { .. })));
    ap.handle_control(NOW, WALL, id("us"), 1, Control::Unsubscribe { id: 1 });
    ap.handle_timeout(NOW.after(5_999), WALL);
    assert_eq!(closed(&drain(&mut ap)), None);
    ap.handle_timeout(NOW.after(6_000), WALL);
    assert_eq!(closed(&drain(&mut ap)), Some(CloseReason::Unneeded), "no neighbour, and nothing to do");
    ap.handle_connected(NOW, id("mars"), 2);
    assert_eq!(closed(&drain(&mut ap)), Some(CloseReason::NotMember));
}

#[test]
fn a_region_that_left_is_closed_and_its_return_refused() {
    let mut eu = replica("eu", &["us", "ap"]);
    greet(&mut eu, "us", 1, hello("us", 5));
    greet(&mut eu, "ap", 2, hello("ap", 5));
    eu.handle_topology(NOW, mesh(&["eu", "ap"]));
    let effects = drain(&mut eu);
    assert_eq!(closed(&effects), Some(CloseReason::NotMember));
    assert_eq!(eu.status().len(), 1);
    eu.handle_connected(NOW, id("us"), 3);
    assert_eq!(closed(&drain(&mut eu)), Some(CloseReason::NotMember));
}

#[test]
fn a_removed_region_comes_back_only_as_new() {
    let mut eu = replica("eu", &["us", "ap"]);
    let (number, _) = subscription(&greet(&mut eu, "us", 1, hello("us", 5))).unwrap();
    eu.handle_batch(NOW, WALL, id("us"), 1, number, [op("us", 1, &[])]);
    eu.handle_topology(NOW, mesh(&["eu", "ap"]));
    eu.handle_topology(NOW, mesh(&["eu", "ap", "us"]));
    drain(&mut eu);
    assert_eq!(closed(&greet(&mut eu, "us", 2, hello("us", 5))), Some(CloseReason::Removed));
    let new = Hello { origin: Origin::new(id("us"), 2), ..hello("us", 6) };
    assert_eq!(closed(&greet(&mut eu, "us", 3, new)), None);
    let mut restarted = replica("eu", &["us", "ap"]);
    restarted.handle_retired(eu.retired().iter().copied());
    assert_eq!(closed(&greet(&mut restarted, "us", 1, hello("us", 5))), Some(CloseReason::Removed));
}
