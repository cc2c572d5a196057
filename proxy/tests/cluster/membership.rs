//! Members, addresses, roles and topology change while the regions run.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};

const RING: &str = "shape = \"ring\"\norder = [\"a\", \"b\", \"c\", \"d\"]";

fn rewrite(cluster: &Cluster, i: usize, from: &str, to: &str) {
    let text = fs::read_to_string(cluster.config(i)).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(cluster.config(i), text.replacen(from, to, 1)).unwrap();
}

fn reload(cluster: &Cluster, i: usize) -> (u16, String) {
    cluster.post(i, "/reload", "")
}

/// Takes the `[[regions]]` table of `name` out of the configuration of region `i`; returns it.
fn without(cluster: &Cluster, i: usize, name: &str) -> String {
    let text = fs::read_to_string(cluster.config(i)).unwrap();
    let tables: Vec<&str> = text.split("[[regions]]\n").collect();
    let (gone, kept): (Vec<&str>, Vec<&str>) =
        tables.into_iter().partition(|table| table.starts_with(&format!("name = \"{name}\"")));
    assert_eq!(gone.len(), 1, "{text}");
    fs::write(cluster.config(i), kept.join("[[regions]]\n")).unwrap();
    gone[0].to_owned()
}

#[test]
fn the_shape_changes_under_load_and_nothing_is_lost() {
    let cluster = Cluster::start(Options { heal_after: "1s", ..Options::new(Shape::Ring, 4) });
    let stop = AtomicBool::new(false);
    let counted: i64 = std::thread::scope(|scope| {
        let count = |i: usize| {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || {
                let mut client = cluster.client(i);
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.int(&["INCR", "counter"]);
                    done += 1;
                }
                done
            })
        };
        let counting: Vec<_> = cluster.all().map(count).collect();
        let mut now = RING;
        for next in ["shape = \"mesh\"", "shape = \"star\"\nhub = \"c\"", RING] {
            // Not at once: for a while the regions do not agree.
            for i in cluster.all() {
                rewrite(&cluster, i, now, next);
                let (status, body) = reload(&cluster, i);
                assert_eq!(status, 200, "{body}");
                let mut client = cluster.client(i);
                let before = client.int(&["INCRBY", "counter", "0"]);
                wait_for("others' counts to arrive", PATIENCE, || {
                    (client.int(&["INCRBY", "counter", "0"]) > before).then_some(())
                });
            }
            now = next;
        }
        stop.store(true, Ordering::Relaxed);
        counting.into_iter().map(|counting| counting.join().unwrap()).sum()
    });
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["INCRBY", "counter", "0"]), counted);
        wait_for("the mismatch to be gone", PATIENCE, || {
            (cluster.metric(i, "meridian_config_mismatch", &[]) == 0.0).then_some(())
        });
    }
}

#[test]
fn a_region_that_left_is_refused_until_it_is_a_member_again() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    cluster.client(2).ok(&["SET", "while-a-member", "v"]);
    cluster.await_converged(PATIENCE);
    let tables: Vec<String> = [0, 1].map(|i| without(&cluster, i, "c")).into();
    for i in [0, 1] {
        assert_eq!(reload(&cluster, i).0, 200);
        wait_for("the link to end", PATIENCE, || (!cluster.links_of(i).contains_key("c")).then_some(()));
    }
    cluster.client(2).ok(&["SET", "as-a-stranger", "v"]);
    wait_for("c to have no links", PATIENCE, || {
        cluster.links_of(2).values().all(|state| state != "up").then_some(())
    });
    let mut a = cluster.client(0);
    assert_eq!(a.maybe(&["GET", "as-a-stranger"]), None);
    assert_eq!(a.maybe(&["GET", "while-a-member"]), Some("v".to_owned()));
    for (i, table) in tables.iter().enumerate() {
        let text = fs::read_to_string(cluster.config(i)).unwrap();
        fs::write(cluster.config(i), format!("{text}[[regions]]\n{table}")).unwrap();
        let hangup = Command::new("kill").args(["-HUP", &cluster.pid(i).to_string()]).status().unwrap();
        assert!(hangup.success());
    }
    cluster.await_converged(PATIENCE);
    assert_eq!(a.maybe(&["GET", "as-a-stranger"]), Some("v".to_owned()));
}

#[test]
fn a_role_changes_at_run_time() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let mut a = cluster.client(0);
    a.ok(&["SET", "k", "1"]);
    rewrite(&cluster, 0, "[[regions]]\nname = \"a\"\n", "[[regions]]\nname = \"a\"\nrole = \"follower\"\n");
    assert_eq!(reload(&cluster, 0).0, 200);
    assert!(a.call(&["SET", "k", "2"]).is_error());
    assert_eq!(a.maybe(&["GET", "k"]), Some("1".to_owned()));
    rewrite(&cluster, 0, "role = \"follower\"", "role = \"leader\"");
    assert_eq!(reload(&cluster, 0).0, 200);
    a.ok(&["SET", "k", "2"]);
}

#[test]
fn a_reload_is_refused_as_a_whole() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let good = fs::read_to_string(cluster.config(0)).unwrap();
    let digest = || cluster.status(0)["topology"]["digest"].clone();
    let before = digest();
    for (from, to, told) in [
        ("sync = \"always\"", "sync = \"never\"", "log.sync"),
        ("shape = \"mesh\"", "shape = \"ring\"\norder = [\"a\"]", "topology.order"),
        ("shape = \"mesh\"", "shape = \"mesh\"\nnonsense = 1", "nonsense"),
    ] {
        rewrite(&cluster, 0, from, to);
        let (status, body) = reload(&cluster, 0);
        assert!(status == 409 && body.contains(told), "{status} {body}");
        assert_eq!(digest(), before);
        fs::write(cluster.config(0), &good).unwrap();
    }
    assert_eq!(reload(&cluster, 0), (200, "{\"changed\":false,\"reloaded\":true}".to_owned()));
}
