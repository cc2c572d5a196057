//! Policies change while the regions run, one region after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};
use crate::inbox::words;

const MISMATCH: &str = "meridian_config_mismatch";

fn policy(cluster: &Cluster, i: usize) -> String {
    let words = words(&cluster.client(i).call(&["MERIDIAN.EXPLAIN", "l:h"]));
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

/// What a region has written while policies changed.
#[derive(Default)]
struct Written {
    /// The last value of each field of a hash that nobody else writes.
    own: BTreeMap<String, String>,
    /// Elements of a set that all regions add to, once it merges.
    added: BTreeSet<String>,
}

/// The load of all regions.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    /// Whether concurrent writes to sets and counters are kept everywhere.
    merges: AtomicBool,
    /// Writes that were acknowledged.
    writes: AtomicU64,
}

impl Load {
    /// Writes in region `i` until the end.
    fn run(&self, cluster: &Cluster, i: usize) -> Written {
        let mut client = cluster.client(i);
        let mut written = Written::default();
        for n in 0.. {
            if self.done.load(Ordering::Relaxed) {
                break;
            }
            let (value, field) = (format!("{i}-{n}"), format!("f{}", n % 20));
            client.int(&["HSET", &format!("l:own:{i}"), &field, &value]);
            written.own.insert(field.clone(), value.clone());
            client.ok(&["SET", &format!("l:s:{}", n % 4), &value]);
            client.int(&["HSET", &format!("l:h:{}", n % 2), &field, &value]);
            self.writes.fetch_add(3, Ordering::Relaxed);
            if self.merges.load(Ordering::Relaxed) {
                assert_eq!(client.int(&["SADD", "l:added", &value]), 1);
                client.int(&["INCR", "l:count"]);
                written.added.insert(value);
            }
        }
        written
    }

    /// Waits until much has been written since.
    fn go_on(&self) {
        let before = self.writes.load(Ordering::Relaxed);
        wait_for("more to be written", PATIENCE, || {
            (self.writes.load(Ordering::Relaxed) > before + 300).then_some(())
        });
    }
}

/// Gives the regions new rules, one after the other in this order; meanwhile `former` is in force and the mismatch shows.
fn change_one_by_one(
    cluster: &Cluster,
    load: &Load,
    order: [usize; 3],
    rules: &str,
    [former, new]: [&str; 2],
) {
    let [first, second, last] = order;
    load.go_on();
    for i in [first, second] {
        change(cluster, i, rules);
        wait_for("the mismatch to show", PATIENCE, || {
            (differs(cluster, i) || differs(cluster, last)).then_some(())
        });
        load.go_on();
        wait_for("the former policies to be in force", PATIENCE, || {
            cluster.all().all(|i| policy(cluster, i) == former).then_some(())
        });
        assert!(differs(cluster, i) || differs(cluster, last), "the mismatch shows as long as it lasts");
    }
    change(cluster, last, rules);
    wait_for("the new policies to be in force", PATIENCE, || {
        cluster.all().all(|i| policy(cluster, i) == new).then_some(())
    });
    wait_for("the mismatch to be gone", PATIENCE, || {
        cluster.all().all(|i| !differs(cluster, i)).then_some(())
    });
    load.go_on();
}

#[test]
fn policies_change_twice_under_load_and_nothing_is_lost() {
    let rule = |policy: &str| format!("[[conflicts]]\nkeys = \"l:*\"\npolicy = {policy}\n");
    let cluster =
        Cluster::start(Options { extra: rule("\"lww\""), sync: "everysec", ..Options::new(Shape::Ring, 3) });
    cluster.client(0).call(&["HSET", "l:h", "f", "0"]);
    cluster.await_converged(PATIENCE);
    let load = Load::default();
    let all: Vec<Written> = std::thread::scope(|scope| {
        let (cluster, load) = (&cluster, &load);
        let writers: Vec<_> = cluster.all().map(|i| scope.spawn(move || load.run(cluster, i))).collect();
        change_one_by_one(cluster, load, [0, 1, 2], &rule("\"crdt\""), ["lww", "crdt"]);
        load.merges.store(true, Ordering::Relaxed);
        let lines = rule("\"hook\"\nhook = \"concat-unique-lines\"");
        change_one_by_one(cluster, load, [2, 0, 1], &lines, ["crdt", "hook"]);
        load.done.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for (region, written) in all.iter().enumerate() {
            for (field, value) in &written.own {
                assert_eq!(client.text(&["HGET", &format!("l:own:{region}"), field]), *value);
            }
        }
        let added: BTreeSet<String> = all.iter().flat_map(|written| written.added.iter().cloned()).collect();
        assert_eq!(words(&client.call(&["SMEMBERS", "l:added"])).into_iter().collect::<BTreeSet<_>>(), added);
        assert_eq!(client.int(&["INCRBY", "l:count", "0"]), added.len() as i64);
        for policy in ["lww", "crdt", "hook"] {
            let met = cluster.metric(i, "meridian_conflicts_total", &[("policy", policy)]);
            println!("{}: {met} conflicts under {policy}", cluster.name(i));
            assert!(met > 0.0, "no conflict under {policy}: the load is too tame");
        }
    }
    println!("{} writes while the policies changed", load.writes.into_inner());
}
