//! Policies change while the regions run, one region after the other.

use std::fs;

use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};

const MISMATCH: &str = "meridian_config_mismatch";

fn policy(cluster: &Cluster, i: usize) -> String {
    let explained = cluster.client(i).call(&["MERIDIAN.EXPLAIN", "l:h"]);
    let words: Vec<String> = explained
        .elements()
        .unwrap_or_default()
        .iter()
        .filter_map(|value| Some(String::from_utf8_lossy(value.bytes()?).into_owned()))
        .collect();
    let at = words.iter().position(|word| word == "policy").expect("it names the policy");
    words[at + 1].clone()
}

fn change(cluster: &Cluster, i: usize, rules: &str) {
    let text = fs::read_to_string(cluster.config(i)).unwrap();
    let kept = text.split("[[conflicts]]").next().unwrap();
    fs::write(cluster.config(i), format!("{kept}{rules}")).unwrap();
    let (status, body) = cluster.post(i, "/reload", "");
    assert_eq!(status, 200, "{body}");
}

fn differs(cluster: &Cluster, i: usize) -> bool {
    cluster.metric(i, MISMATCH, &[("what", "policies")]) > 0.0
}

/// A ring: not everybody has a link with everybody.
#[test]
fn a_policy_is_in_force_once_the_last_region_has_it_and_until_then_the_mismatch_shows() {
    let cluster = Cluster::start(Options::new(Shape::Ring, 4));
    cluster.client(0).call(&["HSET", "l:h", "f", "0"]);
    cluster.await_converged(PATIENCE);
    let lww = "[[conflicts]]\nkeys = \"l:*\"\npolicy = \"lww\"\n";
    for i in 0..3 {
        change(&cluster, i, lww);
        wait_for("the mismatch to show", PATIENCE, || {
            (differs(&cluster, i) || differs(&cluster, 3)).then_some(())
        });
        // The last of them is not the neighbour of all, and all wait for it.
        wait_for("the oldest policies to be in force", PATIENCE, || {
            cluster.all().all(|i| policy(&cluster, i) == "crdt").then_some(())
        });
        cluster.client(i).call(&["HSET", "l:h", &format!("f{i}"), "1"]);
    }
    change(&cluster, 3, lww);
    wait_for("the new policies to be in force", PATIENCE, || {
        cluster.all().all(|i| policy(&cluster, i) == "lww").then_some(())
    });
    wait_for("the mismatch to be gone", PATIENCE, || {
        cluster.all().all(|i| !differs(&cluster, i)).then_some(())
    });
    for i in cluster.all() {
        cluster.client(i).call(&["HSET", "l:h", &format!("g{i}"), "1"]);
    }
    cluster.await_converged(PATIENCE);
}

const EVERY: &str = "[[conflicts]]\nkeys = \"l:*\"\npolicy = \"lww\"\n\
    [[conflicts]]\nkeys = \"m:*\"\npolicy = \"multi-value\"\n\
    [[conflicts]]\nkeys = \"c:*\"\npolicy = \"hook\"\nhook = \"concat-unique-lines\"\n";

/// Writes of all types to few keys of every policy, so that regions meet on them.
fn quarrel(cluster: &Cluster, i: usize) {
    let mut client = cluster.client(i);
    for n in 0..200 {
        for policy in ["l", "m", "c"] {
            let key = |kind: &str| format!("{policy}:{kind}{}", n % 5);
            let (value, field) = (format!("{i}-{n}"), format!("f{}", n % 3));
            client.call(&["SET", &key("s"), &value]);
            client.call(&["HSET", &key("h"), &field, &value]);
            client.call(&["SADD", &key("t"), &value]);
            client.call(&["INCRBY", &key("n"), "1"]);
            if n % 7 == i {
                client.call(&["DEL", &key("h"), &key("t")]);
            }
        }
    }
}

#[test]
fn regions_that_quarrel_under_every_policy_end_alike_and_fall_silent() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    cluster.client(0).call(&["HSET", "l:h", "f", "0"]);
    cluster.await_converged(PATIENCE);
    cluster.all().for_each(|i| change(&cluster, i, EVERY));
    wait_for("the policies to be in force", PATIENCE, || {
        cluster.all().all(|i| policy(&cluster, i) == "lww").then_some(())
    });
    std::thread::scope(|scope| {
        for i in cluster.all() {
            let cluster = &cluster;
            scope.spawn(move || quarrel(cluster, i));
        }
    });
    cluster.await_converged(PATIENCE);
    for policy in ["lww", "multi-value", "hook"] {
        for i in cluster.all() {
            assert!(cluster.metric(i, "meridian_conflicts_total", &[("policy", policy)]) > 0.0, "{policy}");
        }
    }
    let vector = cluster.client(0).vector();
    for key in (0..5).flat_map(|n| ["l", "m", "c"].map(|policy| format!("{policy}:s{n}"))) {
        let shown: Vec<_> = cluster.all().map(|i| cluster.client(i).maybe(&["GET", &key])).collect();
        assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{key}: {shown:?}");
    }
    assert!(cluster.metric(0, "meridian_hook_calls_total", &[("hook", "concat-unique-lines")]) > 0.0);
    // What lost under lww is let go of, region by region, and nobody sees anything of it.
    wait_for("what lost to be gone", PATIENCE, || {
        cluster.all().all(|i| cluster.metric(i, "meridian_tombstones", &[]) == 0.0).then_some(())
    });
    cluster.await_converged(PATIENCE);
    assert_eq!(cluster.client(0).vector(), vector, "neither merging nor letting go is a write");
}
