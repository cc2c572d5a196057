//! Every shape ends with the same data everywhere, exact counters, and exactly the conflicts that the
//! regions' own logs tell of.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use meridian_proxy::link::relay::Conditions;

use crate::fold::{Labels, fold};
use crate::harness::{Cluster, Options, Shape, scale};
use crate::load;

/// 20 to 60 ms each way, one datagram in a hundred lost.
pub fn bad_weather() -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(40),
        loss_ppm: 10_000,
        ..Conditions::default()
    }
}

/// How long after the last write all regions may still differ.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

fn converges(shape: Shape, regions: usize, sync: &'static str) {
    let options = Options { conditions: bad_weather(), sync, ..Options::new(shape, regions) };
    let mut cluster = Cluster::start(options);
    let tally = load::run(&cluster, 2, 120 * scale());
    let took = cluster.await_converged(SETTLE_WITHIN);
    load::check(&cluster, &tally);
    load::run_with_flushes(&cluster, 2, 30 * scale());
    cluster.await_converged(SETTLE_WITHIN);
    for i in cluster.all() {
        if shape != Shape::Mesh {
            assert_eq!(cluster.metric(i, "meridian_causal_waits_total", &[]), 0.0, "at {}", cluster.name(i));
        }
        assert_eq!(cluster.metric(i, "meridian_parked_ops_total", &[]), 0.0);
    }
    let counted: Vec<_> = cluster.all().map(|i| conflicts(&cluster, i)).collect();
    // Keys expire all the while: the digest is of a moment between these two.
    let met_flush = |counts: &BTreeMap<Labels, u64>| counts.keys().any(|labels| labels[0] == "clear_write");
    assert!(counted.iter().any(met_flush), "no flush met a write: the load is too tame");
    let moments = (now_ms(), cluster.client(0).text(&["MERIDIAN.DIGEST"]), now_ms());
    for i in cluster.all() {
        cluster.stop(i);
    }
    for i in cluster.all() {
        let folded = fold(&cluster.archived(i), cluster.name(i));
        assert_eq!(counted[i], folded.conflicts, "conflicts at {}", cluster.name(i));
        let (before, shown, after) = &moments;
        let told = [folded.digest(*before), folded.digest(*after)];
        assert!(told.contains(shown), "data of {}: {shown}, by its log {told:?}", cluster.name(i));
        let total: u64 = folded.conflicts.values().sum();
        assert!(total > 0, "no conflict at {}: the load is too tame", cluster.name(i));
        println!("{shape:?} {}: {} ops, {total} conflicts", cluster.name(i), folded.records.len());
    }
    println!("{shape:?} of {regions}, sync {sync}: equal {took:?} after the last write");
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn conflicts(cluster: &Cluster, i: usize) -> BTreeMap<Labels, u64> {
    let series = cluster.series(i, "meridian_conflicts_total");
    let labels = |found: &BTreeMap<String, String>| {
        ["kind", "rule", "outcome", "policy", "type"].map(|label| found[label].clone())
    };
    // Counts are whole numbers far below what a float holds exactly.
    series
        .iter()
        .filter(|(_, count)| *count > 0.0)
        .map(|(found, count)| (labels(found), *count as u64))
        .collect()
}

#[test]
fn a_ring_of_three_converges() {
    converges(Shape::Ring, 3, "always");
}

#[test]
fn a_star_of_three_converges() {
    converges(Shape::Star, 3, "always");
}

#[test]
fn c3_three_regions_that_write_fast_to_each_other_converge() {
    converges(Shape::Mesh, 3, "always");
}

#[test]
fn a_mesh_of_five_converges() {
    converges(Shape::Mesh, 5, "everysec");
}

#[test]
fn a_ring_of_five_converges() {
    converges(Shape::Ring, 5, "always");
}

#[test]
fn a_star_of_five_converges() {
    converges(Shape::Star, 5, "everysec");
}
