//! Clocks that are wrong or step while real regions run. Named after the failures they rehearse.

use std::time::Duration;

use crate::harness::{Cluster, Options, PATIENCE, Shape, is_full, wait_for};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

fn start(regions: usize, max_skew: &str) -> Cluster {
    let extra = format!("[clock]\nmax_skew = \"{max_skew}\"\n");
    Cluster::start(Options { shim: true, extra, ..Options::new(Shape::Mesh, regions) })
}

/// Waits until `key` is `value` at region `i`.
fn await_value(cluster: &Cluster, i: usize, key: &str, value: &str, within: Duration) {
    let mut client = cluster.client(i);
    wait_for(&format!("{key} = {value} at {}", cluster.name(i)), within, || {
        (client.maybe(&["GET", key]).as_deref() == Some(value)).then_some(())
    });
}

fn conflicts(cluster: &Cluster) -> f64 {
    cluster.all().map(|i| cluster.metric(i, "meridian_conflicts_total", &[])).sum()
}

#[test]
fn k1_a_region_five_minutes_behind_overwrites_what_it_saw() {
    // With less skew allowed, b would hold what a writes: to b it is from the future.
    let cluster = start(3, "10m");
    cluster.shim(1).set_clock_ms(-5 * MINUTE_MS);
    for n in 0..20 {
        let (first, second) = (format!("a{n}"), format!("b{n}"));
        cluster.client(0).ok(&["SET", "key", &first]);
        await_value(&cluster, 1, "key", &first, PATIENCE);
        cluster.client(1).ok(&["SET", "key", &second]);
        for i in [0, 2] {
            await_value(&cluster, i, "key", &second, PATIENCE);
        }
    }
    cluster.await_converged(PATIENCE);
    assert_eq!(conflicts(&cluster), 0.0);
}

#[test]
fn k2_a_region_with_a_fast_clock_is_held_and_drags_nobody() {
    let ahead = Duration::from_secs(if is_full() { 300 } else { 8 });
    let cluster = start(3, "500ms");
    cluster.client(1).ok(&["SET", "before", "v"]);
    cluster.await_converged(PATIENCE);
    cluster.shim(1).set_clock_ms(i64::try_from(ahead.as_millis()).unwrap());
    cluster.client(1).ok(&["SET", "key", "from the future"]);
    for i in [0, 2] {
        wait_for("the stamp to be refused", PATIENCE, || {
            (cluster.metric(i, "meridian_clock_rejected_total", &[("peer", "b")]) > 0.0).then_some(())
        });
    }
    // Nobody else is held up, and later writes of theirs are still of today.
    cluster.client(0).ok(&["SET", "other", "v"]);
    await_value(&cluster, 2, "other", "v", PATIENCE);
    assert_eq!(cluster.client(0).maybe(&["GET", "key"]), None);
    for i in [0, 2] {
        let skew = || cluster.metric(i, "meridian_peer_clock_skew_seconds", &[("peer", "b")]);
        wait_for("the skew to be seen", PATIENCE, || (skew() > ahead.as_secs_f64() / 2.0).then_some(()));
    }
    // What was stamped ahead comes when the time has come, without restart or help.
    cluster.shim(1).set_clock_ms(0);
    cluster.client(1).ok(&["SET", "last", "v"]);
    for i in [0, 2] {
        await_value(&cluster, i, "key", "from the future", ahead + PATIENCE);
    }
    cluster.await_converged(PATIENCE);
}

#[test]
fn k3_a_clock_that_steps_back_an_hour_leaves_stamps_rising() {
    let mut cluster = start(2, "500ms");
    let overwrite = |cluster: &Cluster, value: &str| {
        cluster.client(0).ok(&["SET", "key", value]);
        cluster.client(0).int(&["ZADD", "sorted", &value.len().to_string(), "m"]);
        await_value(cluster, 1, "key", value, PATIENCE);
    };
    overwrite(&cluster, "before");
    cluster.shim(0).set_clock_ms(-HOUR_MS);
    overwrite(&cluster, "an hour back");
    for end in [Cluster::kill9, Cluster::stop] {
        end(&mut cluster, 0);
        cluster.restart(0);
        // What it wrote in its former life is not what shows: later is greater, over the restart too.
        cluster.client(0).ok(&["SET", "key", "after the restart"]);
        assert_eq!(cluster.client(0).text(&["GET", "key"]), "after the restart");
    }
    cluster.shim(0).set_clock_ms(0);
    cluster.await_links();
    overwrite(&cluster, "today again");
    cluster.shim(0).set_clock_ms(5 * MINUTE_MS);
    cluster.shim(1).set_clock_ms(5 * MINUTE_MS);
    overwrite(&cluster, "both ahead");
    // What b had not heard by now it would hold, for as long as it is from the future.
    cluster.await_converged(PATIENCE);
    cluster.shim(1).set_clock_ms(0);
    // b has seen stamps of later today, and its own are greater still.
    cluster.client(1).ok(&["SET", "key", "b has the last word"]);
    await_value(&cluster, 0, "key", "b has the last word", PATIENCE);
    cluster.await_converged(PATIENCE);
    assert_eq!(conflicts(&cluster), 0.0);
}
