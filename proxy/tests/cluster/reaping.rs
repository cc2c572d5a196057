//! What nobody needs any more goes, and does not come back. Named after the failures they rehearse.

use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};

fn reaped(cluster: &Cluster, i: usize, what: &str) -> f64 {
    cluster.metric(i, "meridian_reaped_total", &[("what", what)])
}

/// Waits until none of these regions remembers anything.
fn await_nothing_left(cluster: &Cluster, regions: &[usize]) {
    for i in regions {
        wait_for("everything to be reaped", PATIENCE, || {
            (cluster.metric(*i, "meridian_tombstones", &[]) == 0.0).then_some(())
        });
    }
}

fn digest(cluster: &Cluster, i: usize) -> String {
    cluster.client(i).text(&["MERIDIAN.DIGEST"])
}

#[test]
fn d3_sums_and_expired_keys_go_once_every_region_has_passed_them() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for n in 0..20 {
            client.int(&["INCRBY", &format!("deleted:{n}"), "3"]);
            client.int(&["HINCRBY", "hash", &format!("field:{n}"), "3"]);
        }
        client.int(&["INCRBY", "stays", "3"]);
    }
    cluster.await_converged(PATIENCE);
    let mut client = cluster.client(1);
    for n in 0..20 {
        assert_eq!(client.int(&["DEL", &format!("deleted:{n}")]), 1);
        assert_eq!(client.int(&["HDEL", "hash", &format!("field:{n}")]), 1);
        client.ok(&["SET", &format!("session:{n}"), "s", "PX", "1000"]);
    }
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        wait_for("sums to be reaped", PATIENCE, || (reaped(&cluster, i, "sums") >= 21.0).then_some(()));
    }
    // One region clears them for all.
    let cleared = || cluster.all().map(|i| reaped(&cluster, i, "expired")).sum::<f64>();
    wait_for("sessions to be reaped", PATIENCE, || (cleared() >= 20.0).then_some(()));
    cluster.await_converged(PATIENCE);
    await_nothing_left(&cluster, &[0, 1, 2]);
    assert_eq!(cleared(), 20.0);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["DBSIZE"]), 1, "expired keys are not counted any more");
    }
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!(client.int(&["INCRBY", "stays", "1"]), 10 + i64::try_from(i).unwrap());
        cluster.await_converged(PATIENCE);
        assert_eq!(client.int(&["INCRBY", "deleted:0", "1"]), 1 + i64::try_from(i).unwrap());
        cluster.await_converged(PATIENCE);
    }
}

#[test]
fn d1_what_everyone_forgot_while_a_region_was_dead_stays_gone_and_its_own_writes_survive() {
    let options = Options { retention: "1s", heal_after: "300ms", ..Options::new(Shape::Mesh, 3) };
    let mut cluster = Cluster::start(options);
    let mut client = cluster.client(0);
    client.ok(&["SET", "deleted", "v"]);
    client.int(&["INCRBY", "counter", "5"]);
    client.int(&["SADD", "session", "old"]);
    cluster.client(2).int(&["INCRBY", "counter", "2"]);
    cluster.await_converged(PATIENCE);
    client.int(&["PEXPIRE", "session", "5000"]);
    cluster.await_converged(PATIENCE);
    // The third is cut off, holds on to what is to expire, and dies with writes that nobody has.
    cluster.cut(2, 0);
    cluster.cut(2, 1);
    let mut third = cluster.client(2);
    assert_eq!(third.int(&["PERSIST", "session"]), 1);
    third.int(&["SADD", "session", "late"]);
    third.int(&["INCRBY", "counter", "10"]);
    third.ok(&["SET", "own", "v"]);
    cluster.stop(2);
    client.int(&["DEL", "deleted"]);
    client.int(&["DEL", "counter"]);
    for i in [0, 1] {
        wait_for("the third to be fenced", PATIENCE, || {
            (cluster.metric(i, "meridian_fenced", &[("region", "c")]) == 1.0).then_some(())
        });
    }
    wait_for("the session to be forgotten", PATIENCE, || {
        ([0, 1].iter().map(|i| reaped(&cluster, *i, "expired")).sum::<f64>() >= 1.0).then_some(())
    });
    for i in [0, 1] {
        wait_for("sums that are not the third's to go", PATIENCE, || {
            (reaped(&cluster, i, "sums") >= 1.0).then_some(())
        });
    }
    cluster.mend_all();
    cluster.restart(2);
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!(client.int(&["EXISTS", "deleted"]), 0, "at {}", cluster.name(i));
        assert_eq!(client.int(&["SCARD", "session"]), 1, "at {}", cluster.name(i));
        assert_eq!(client.int(&["SISMEMBER", "session", "late"]), 1, "at {}", cluster.name(i));
        assert_eq!(client.text(&["GET", "counter"]), "10", "at {}", cluster.name(i));
        assert_eq!(client.text(&["GET", "own"]), "v");
        wait_for("the third to be let back", PATIENCE, || {
            (cluster.metric(i, "meridian_fenced", &[("region", "c")]) == 0.0).then_some(())
        });
    }
    let before = digest(&cluster, 0);
    cluster.client(1).int(&["DEL", "counter"]);
    cluster.client(1).int(&["INCRBY", "counter", "10"]);
    cluster.await_converged(PATIENCE);
    await_nothing_left(&cluster, &[0, 1, 2]);
    for i in cluster.all() {
        assert_eq!(digest(&cluster, i), before, "reaping does not show");
    }
}

#[test]
fn d4_a_key_that_expired_while_a_region_wrote_to_it_is_reaped_at_last() {
    let cluster = Cluster::start(Options::new(Shape::Ring, 3));
    let mut client = cluster.client(0);
    client.int(&["SADD", "session", "first"]);
    client.int(&["PEXPIRE", "session", "4000"]);
    cluster.await_converged(PATIENCE);
    cluster.cut(2, 0);
    cluster.cut(2, 1);
    cluster.client(2).int(&["SADD", "session", "second"]);
    wait_for("the session to expire", PATIENCE, || (client.int(&["EXISTS", "session"]) == 0).then_some(()));
    // Nothing is forgotten before the third has passed the deadline, too.
    assert_eq!(cluster.all().map(|i| reaped(&cluster, i, "expired")).sum::<f64>(), 0.0);
    cluster.mend_all();
    cluster.await_links();
    wait_for("the session to be reaped", PATIENCE, || {
        (cluster.all().map(|i| reaped(&cluster, i, "expired")).sum::<f64>() == 1.0).then_some(())
    });
    cluster.await_converged(PATIENCE);
    await_nothing_left(&cluster, &[0, 1, 2]);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["DBSIZE"]), 0);
    }
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!(client.int(&["SADD", "session", "third"]), i64::from(i == 0));
        assert_eq!(client.int(&["PTTL", "session"]), -1);
        cluster.await_converged(PATIENCE);
    }
}
