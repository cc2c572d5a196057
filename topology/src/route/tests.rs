use meridian_conflict::clock::{Dot, raise};

use super::*;
use crate::graph::Feed;
use crate::shape::Shape;

const HEAL: u64 = 3_000;

fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<RegionName> {
    texts.iter().map(|text| name(text)).collect()
}

fn region(text: &str) -> RegionId {
    RegionId::of(text)
}

fn ring(order: &[&str]) -> Graph {
    Shape::Ring { order: names(order) }.graph(&names(order)).unwrap()
}

fn star(members: &[&str], standby: &[&str]) -> Graph {
    let shape = Shape::Star { hub: name(members[0]), standby_hubs: names(standby) };
    shape.graph(&names(members)).unwrap()
}

fn mesh(members: &[&str]) -> Graph {
    Shape::Mesh.graph(&names(members)).unwrap()
}

/// `origin<-feeder` for every origin at `at`.
fn shown(graph: &Graph, at: &str, lost: &[&str]) -> Vec<String> {
    let lost = lost.iter().map(|lost| name(lost)).collect();
    let routes = around(graph, &name(at), &lost, false);
    routes.iter().map(|(o, feeders)| format!("{o}<-{}", feeders.first().unwrap())).collect()
}

#[test]
fn without_losses_the_routes_are_those_of_the_graph() {
    let custom = Shape::Custom {
        feeds: [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")]
            .map(|(from, to)| Feed { from: name(from), to: name(to) })
            .to_vec(),
    };
    let custom = custom.graph(&names(&["a", "b", "c"])).unwrap();
    for graph in [ring(&["a", "b", "c", "d"]), star(&["a", "b", "c"], &["b"]), mesh(&["a", "b", "c"]), custom]
    {
        for at in graph.members() {
            let found = around(&graph, at, &BTreeSet::new(), false);
            let found: BTreeMap<_, _> = found
                .into_iter()
                .map(|(origin, feeders)| (origin, feeders.first().unwrap().clone()))
                .collect();
            assert_eq!(found, graph.routes(at));
        }
    }
}

#[test]
fn l2_a_ring_closes_over_the_gap() {
    let graph = ring(&["a", "b", "c", "d", "e"]);
    assert_eq!(shown(&graph, "c", &["b"]), ["a<-a", "d<-a", "e<-a"]);
    assert_eq!(shown(&graph, "c", &["a", "b"]), ["d<-e", "e<-e"]);
    assert_eq!(shown(&graph, "c", &["a", "b", "e"]), ["d<-d"]);
    assert_eq!(shown(&graph, "c", &["a", "b", "d", "e"]), [""; 0]);
}

#[test]
fn a_star_falls_to_the_first_standby_that_is_left_or_to_a_mesh_of_spokes() {
    let graph = star(&["h", "a", "b", "c"], &["b", "a"]);
    assert_eq!(shown(&graph, "a", &["h"]), ["b<-b", "c<-b"]);
    assert_eq!(shown(&graph, "b", &["h"]), ["a<-a", "c<-c"]);
    assert_eq!(shown(&graph, "c", &["b", "h"]), ["a<-a"]);
    assert_eq!(shown(&graph, "c", &["b"]), ["a<-h", "h<-h"]);
    assert_eq!(shown(&star(&["h", "a", "b", "c"], &[]), "c", &["h"]), ["a<-a", "b<-b"]);
}

#[test]
fn in_a_mesh_a_lost_region_has_no_feeder() {
    assert_eq!(shown(&mesh(&["a", "b", "c"]), "a", &["c"]), ["b<-b"]);
}

/// Survivors' routes of any graph, each computed alone, lead back to every origin.
#[test]
fn around_any_loss_every_survivor_still_reaches_every_other() {
    let members = ["a", "b", "c", "d", "e", "f"];
    let mut feeds: BTreeSet<(usize, usize)> = (0..6).map(|n| (n, (n * 5 + 1) % 6)).collect();
    feeds.extend([(0, 3), (4, 2)]);
    feeds.extend((0..6).map(|n| (n, (n + 1) % 6)));
    let feeds = feeds.into_iter().filter(|(a, b)| a != b);
    let feeds = feeds.map(|(a, b)| Feed { from: name(members[a]), to: name(members[b]) }).collect();
    let custom = Shape::Custom { feeds }.graph(&names(&members)).unwrap();
    for graph in [custom, ring(&members), star(&members, &["b"]), mesh(&members)] {
        for (first, second) in [("a", "b"), ("c", "c"), ("a", "e")] {
            let lost: BTreeSet<RegionName> = [name(first), name(second)].into();
            let live: Vec<&RegionName> = graph.members().iter().filter(|m| !lost.contains(*m)).collect();
            for (at, origin) in live.iter().flat_map(|at| live.iter().map(move |origin| (*at, *origin))) {
                let mut step = at.clone();
                for _ in 0..=live.len() {
                    if step != *origin {
                        step = around(&graph, &step, &lost, false)[origin].first().unwrap().clone();
                    }
                }
                assert_eq!(step, *origin, "from {at} without {lost:?} in {graph:?}");
            }
        }
    }
}

/// A router and what it is shown.
struct Bench {
    router: Router,
    now: u64,
    applied: VersionVector,
    /// By peer: last heard, refuses, advertised.
    peers: BTreeMap<&'static str, (u64, bool, VersionVector)>,
}

impl Bench {
    fn new(graph: Graph, at: &str, peers: &[&'static str]) -> Self {
        let router = Router::new(graph, name(at), HEAL, false);
        let peers = peers.iter().map(|peer| (*peer, (0, false, VersionVector::new()))).collect();
        let mut bench = Self { router, now: 0, applied: VersionVector::new(), peers };
        bench.review(&[]);
        bench
    }

    /// Everyone but `silent` is heard.
    fn review(&mut self, silent: &[&str]) -> Vec<(RegionId, Option<RegionId>, RerouteReason)> {
        let now = self.now;
        self.peers
            .iter_mut()
            .filter(|(peer, _)| !silent.contains(*peer))
            .for_each(|(_, state)| state.0 = now);
        let peers: Vec<Peer<'_>> = self
            .peers
            .iter()
            .map(|(peer, (heard, refuses, advertised))| Peer {
                peer: region(peer),
                heard: MonoMs(*heard),
                live: now - heard < HEAL,
                serves: !refuses,
                advertised,
                via: &[],
            })
            .collect();
        let view = View { applied: &self.applied, peers: &peers, waiting: &BTreeSet::new() };
        let moves = self.router.review(MonoMs(now), &view);
        moves.into_iter().map(|reroute| (reroute.region, reroute.to, reroute.why)).collect()
    }

    fn advertise(&mut self, peer: &'static str, origin: &str, sequence: u64) {
        let (_, _, advertised) = self.peers.entry(peer).or_default();
        raise(advertised, Origin::new(region(origin), 1), sequence);
    }

    fn feeders(&self, origin: &str) -> Vec<RegionId> {
        self.router.feeders(region(origin)).collect()
    }
}

#[test]
fn a_lost_feeder_is_gone_around_at_its_deadline_and_taken_back_once_it_has_caught_up() {
    let mut c = Bench::new(ring(&["a", "b", "c", "d"]), "c", &["b", "d"]);
    assert_eq!(c.feeders("a"), [region("b")]);
    assert_eq!(c.router.dials(), [region("d")].into());
    c.now = HEAL - 1;
    assert_eq!(c.review(&["b"]), []);
    c.now = HEAL;
    c.review(&["b"]);
    assert_eq!(c.feeders("a"), [region("a")]);
    assert_eq!(c.feeders("b"), [], "nobody was said to have more of it");
    assert_eq!(c.router.dials(), [region("a"), region("d")].into());
    // The lost one comes back with nothing: what we have goes on to come from where it does.
    raise(&mut c.applied, Origin::new(region("a"), 1), 5);
    c.peers.insert("a", (HEAL, false, VersionVector::new()));
    c.now = 2 * HEAL;
    c.review(&[]);
    assert_eq!((c.feeders("a"), c.feeders("d")), (vec![region("a")], vec![region("b")]));
    c.advertise("b", "a", 5);
    c.now += 10;
    let moves = c.review(&[]);
    assert!(moves.contains(&(region("a"), Some(region("b")), RerouteReason::Back)), "{moves:?}");
    assert!(c.router.is_usual());
    assert_eq!(c.router.dials(), [region("d")].into());
}

#[test]
fn what_stalls_is_fetched_from_whoever_is_ahead() {
    let mut d = Bench::new(ring(&["a", "b", "c", "d"]), "d", &["c", "a"]);
    d.advertise("a", "a", 7);
    d.review(&[]);
    d.now = HEAL - 1;
    assert_eq!(d.review(&[]), []);
    d.now = HEAL;
    assert_eq!(d.review(&[]), [(region("a"), Some(region("a")), RerouteReason::Ahead)]);
    assert_eq!(d.feeders("a"), [region("c"), region("a")]);
    assert_eq!(d.feeders("b"), [region("c")]);
    // Held as long as the feeder stays behind, let go after it has caught up.
    raise(&mut d.applied, Origin::new(region("a"), 1), 7);
    d.now = 3 * HEAL;
    assert_eq!(d.review(&[]), []);
    d.advertise("c", "a", 7);
    assert_eq!(d.review(&[]).len(), 1);
    assert!(d.router.is_usual());
}

#[test]
fn progress_is_no_stall_however_far_behind() {
    let mut d = Bench::new(ring(&["a", "b", "c", "d"]), "d", &["c", "a"]);
    d.advertise("a", "a", 1_000);
    for sequence in 1..20 {
        raise(&mut d.applied, Origin::new(region("a"), 1), sequence);
        d.now += HEAL / 2;
        assert_eq!(d.review(&[]), []);
    }
}

#[test]
fn c4_what_a_lost_region_gave_to_one_survivor_comes_from_there_at_once() {
    let mut c = Bench::new(mesh(&["a", "b", "c"]), "c", &["a", "b"]);
    c.advertise("b", "a", 1);
    c.now = HEAL - 1;
    assert_eq!(c.review(&["a"]), []);
    c.now = HEAL;
    assert!(c.review(&["a"]).contains(&(region("a"), Some(region("b")), RerouteReason::Ahead)));
    assert_eq!(c.feeders("a"), [region("b")]);
}

#[test]
fn a_feeder_that_refuses_is_not_waited_for() {
    let mut d = Bench::new(ring(&["a", "b", "c", "d"]), "d", &["c", "a"]);
    d.peers.get_mut("c").unwrap().1 = true;
    d.advertise("a", "b", 2);
    assert_eq!(d.review(&[]), [(region("b"), Some(region("a")), RerouteReason::Ahead)]);
}

#[test]
fn a_slow_feeder_does_not_make_the_helper_come_and_go() {
    let mut d = Bench::new(ring(&["a", "b", "c", "d"]), "d", &["c", "a"]);
    let mut moves = 0;
    for round in 1..200_u64 {
        // Everyone is ahead by the word; only the helper delivers.
        d.advertise("a", "a", round);
        d.advertise("c", "a", round);
        if d.feeders("a").len() > 1 {
            raise(&mut d.applied, Origin::new(region("a"), 1), round);
        }
        d.now += HEAL / 3;
        moves += d.review(&[]).len();
    }
    assert!((2..=12).contains(&moves), "{moves}");
}

#[test]
fn ops_of_a_region_that_left_and_of_our_own_former_lives_are_fetched_too() {
    let mut c = Bench::new(mesh(&["a", "b", "c"]), "c", &["a", "b"]);
    c.advertise("b", "gone", 3);
    c.advertise("b", "c", 9);
    c.review(&[]);
    assert_eq!(c.feeders("gone"), [region("b")]);
    c.now = HEAL;
    c.review(&[]);
    assert_eq!(c.feeders("c"), [region("b")]);
    c.applied
        .apply_all([Dot::new(Origin::new(region("c"), 1), 9), Dot::new(Origin::new(region("gone"), 1), 3)]);
    c.now = 3 * HEAL;
    c.review(&[]);
    assert_eq!((c.feeders("c"), c.feeders("gone")), (vec![], vec![]));
}

trait ApplyAll {
    fn apply_all<const N: usize>(&mut self, dots: [Dot; N]);
}

impl ApplyAll for VersionVector {
    fn apply_all<const N: usize>(&mut self, dots: [Dot; N]) {
        dots.into_iter().for_each(|dot| raise(self, dot.actor, dot.counter));
    }
}

#[test]
fn another_graph_takes_effect_at_the_next_review() {
    let mut c = Bench::new(ring(&["a", "b", "c", "d"]), "c", &["b", "d"]);
    c.router.set_graph(ring(&["d", "c", "a"]));
    c.now = 5;
    let moves = c.review(&[]);
    assert!(moves.iter().all(|(_, _, why)| *why != RerouteReason::Lost), "{moves:?}");
    assert_eq!(c.feeders("a"), [region("d")]);
    assert_eq!(c.feeders("b"), [], "left");
}
