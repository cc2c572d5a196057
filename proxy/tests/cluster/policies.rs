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
