//! Routes that go around what failed, and back.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, PATIENCE, Shape, until, wait_for};

/// Short, so that the tests are.
const HEAL_AFTER: Duration = Duration::from_secs(1);

fn options(shape: Shape, regions: usize) -> Options {
    Options { heal_after: "1s", ..Options::new(shape, regions) }
}

/// Writes at `from` and waits until every region of `to` shows it; returns how long that took.
fn travels(cluster: &Cluster, key: &str, from: usize, to: &[usize]) -> Duration {
    let began = Instant::now();
    cluster.client(from).ok(&["SET", key, "v"]);
    for i in to {
        let mut client = cluster.client(*i);
        wait_for(&format!("{key} at {}", cluster.name(*i)), PATIENCE, || client.maybe(&["GET", key]));
    }
    began.elapsed()
}

/// Waits until every region's ops come from where they do when nothing is wrong: nobody but the
/// one before it feeds a region of a ring.
fn await_usual_ring(cluster: &Cluster) {
    let count = cluster.all().len();
    for i in cluster.all() {
        let feeder = cluster.name((i + count - 1) % count);
        wait_for(&format!("{}'s usual routes", cluster.name(i)), PATIENCE, || {
            let series = cluster.series(i, "meridian_route");
            let fed = |name: &str| series.iter().filter(|(l, v)| l["peer"] == name && *v == 1.0).count();
            let all: usize = cluster.all().map(|peer| fed(cluster.name(peer))).sum();
            (fed(feeder) == count - 1 && all == count - 1).then_some(())
        });
    }
}

fn bytes_over_links(cluster: &Cluster) -> f64 {
    cluster.all().map(|i| cluster.metric(i, "meridian_link_bytes_total", &[("direction", "sent")])).sum()
}

#[test]
fn l2_a_dead_member_of_a_ring_is_gone_around_until_it_returns() {
    let mut cluster = Cluster::start(options(Shape::Ring, 4));
    travels(&cluster, "before", 0, &[1, 2, 3]);
    cluster.kill9(1);
    let took = travels(&cluster, "around", 0, &[2, 3]);
    println!("one of four is dead: a write reaches the others after {took:?}, heal_after {HEAL_AFTER:?}");
    assert!(took < HEAL_AFTER + Duration::from_secs(1), "{took:?}");
    // Later writes wait for nothing.
    let took = travels(&cluster, "later", 3, &[0, 2]);
    assert!(took < HEAL_AFTER, "{took:?}");
    assert!(cluster.metric(2, "meridian_reroutes_total", &[]) > 0.0);
    let back = Instant::now();
    cluster.restart(1);
    cluster.await_converged(PATIENCE);
    println!("back: equal {:?} after its start", back.elapsed());
    await_usual_ring(&cluster);
    println!("usual routes {:?} after its start", back.elapsed());
    // Nothing circles: from here on there are heartbeats alone.
    let (began, before) = (Instant::now(), bytes_over_links(&cluster));
    until(began + Duration::from_secs(3));
    let a_second = (bytes_over_links(&cluster) - before) / began.elapsed().as_secs_f64();
    println!("then {a_second:.0} bytes a second over four links");
    assert!(a_second < 4.0 * 2.0 * 1_000.0, "{a_second} bytes a second over four links");
}

#[test]
fn l2_the_spokes_of_a_dead_hub_feed_each_other() {
    let mut cluster = Cluster::start(options(Shape::Star, 4));
    travels(&cluster, "before", 1, &[0, 2, 3]);
    cluster.kill9(0);
    let took = travels(&cluster, "around", 1, &[2, 3]);
    assert!(took < HEAL_AFTER + Duration::from_secs(1), "{took:?}");
    travels(&cluster, "more", 2, &[1, 3]);
    cluster.restart(0);
    cluster.await_converged(PATIENCE);
}

#[test]
fn a_cut_link_between_live_regions_is_gone_around() {
    for shape in [Shape::Ring, Shape::Mesh] {
        let cluster = Cluster::start(options(shape, 3));
        cluster.cut(0, 1);
        travels(&cluster, "from-a", 0, &[1, 2]);
        travels(&cluster, "from-b", 1, &[0, 2]);
        cluster.mend_all();
        cluster.await_converged(PATIENCE);
    }
}

#[test]
fn c4_what_a_dead_region_had_told_one_reaches_all() {
    let mut cluster = Cluster::start(options(Shape::Mesh, 3));
    cluster.cut(0, 2);
    let mut b = cluster.client(1);
    cluster.client(0).ok(&["SET", "last-words", "v"]);
    wait_for("b to hear it", PATIENCE, || b.maybe(&["GET", "last-words"]));
    cluster.kill9(0);
    b.ok(&["SET", "after", "v"]);
    let mut c = cluster.client(2);
    wait_for("c to hear what depends on it", PATIENCE, || c.maybe(&["GET", "after"]));
    assert_eq!(c.maybe(&["GET", "last-words"]), Some("v".to_owned()));
}

#[test]
fn fault_knobs_cut_a_link_and_mend_it() {
    let extra = "[dev]\nfaults = true\n".to_owned();
    let cluster = Cluster::start(Options { extra, ..options(Shape::Mesh, 2) });
    let turn = |body: &str| cluster.post(0, "/faults", body);
    assert_eq!(turn("{\"peer\": \"b\", \"cut\": true}").0, 200);
    let (mut a, mut b) = (cluster.client(0), cluster.client(1));
    a.ok(&["SET", "k", "v"]);
    wait_for("a to miss b", PATIENCE, || {
        cluster.links_of(0).get("b").is_some_and(|state| state != "up").then_some(())
    });
    assert_eq!(b.maybe(&["GET", "k"]), None);
    let (status, body) = turn("{\"peer\": \"b\", \"delay\": \"20ms\", \"loss\": 0.01}");
    assert!(status == 200 && body.contains("20ms"), "{body}");
    wait_for("b to hear of it", PATIENCE, || b.maybe(&["GET", "k"]));
    for nonsense in ["", "{}", "{\"peer\": \"a\"}", "{\"peer\": \"zz\"}", "{\"peer\": \"b\", \"loss\": 2}"] {
        assert_eq!(turn(nonsense).0, 400, "{nonsense}");
    }
}
