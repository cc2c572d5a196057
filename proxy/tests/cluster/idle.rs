//! What regions cost while nobody writes.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, PATIENCE, Shape, is_full, until};

/// Bytes a second that an idle link may cost, both ways together.
const LINK_BYTES: f64 = 1_000.0;

/// Share of a core that an idle process may take.
const CORE_SHARE: f64 = 0.01;

/// How long nothing happens before it is measured: connections have been made and shut down by then.
const SETTLE: Duration = Duration::from_secs(3);

#[test]
fn a_cluster_without_writes_costs_next_to_nothing() {
    let length = Duration::from_secs(if is_full() { 60 } else { 20 });
    let cluster = Cluster::start(Options::new(Shape::Ring, 3));
    for i in cluster.all() {
        cluster.client(i).ok(&["SET", cluster.name(i), "v"]);
    }
    cluster.await_converged(PATIENCE);
    until(Instant::now() + SETTLE);
    let sent =
        |i, peer| cluster.metric(i, "meridian_link_bytes_total", &[("peer", peer), ("direction", "sent")]);
    let links: Vec<(usize, usize)> =
        cluster.all().flat_map(|i| cluster.all().map(move |peer| (i, peer))).filter(|(i, p)| i < p).collect();
    let look = || -> (Vec<f64>, Vec<f64>) {
        let both = |(i, peer): &(usize, usize)| sent(*i, cluster.name(*peer)) + sent(*peer, cluster.name(*i));
        (links.iter().map(both).collect(), cluster.all().map(|i| cluster.cpu_seconds(i)).collect())
    };
    let (began, before) = (Instant::now(), look());
    until(began + length);
    let (after, seconds) = (look(), began.elapsed().as_secs_f64());
    for (link, (before, after)) in links.iter().zip(before.0.iter().zip(&after.0)) {
        let rate = (after - before) / seconds;
        println!("link {link:?}: {rate:.0} bytes a second, both ways");
        assert!(rate < LINK_BYTES, "{rate} bytes a second on the link {link:?}");
    }
    for (i, (before, after)) in before.1.iter().zip(&after.1).enumerate() {
        let share = (after - before) / seconds;
        println!("{}: {:.2}% of a core", cluster.name(i), share * 100.0);
        assert!(share < CORE_SHARE, "{} takes {share} of a core", cluster.name(i));
    }
}
