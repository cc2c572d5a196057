//! Hooks that loop or allocate, asked about a key that is written and read all the time: what that costs others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, PATIENCE, Shape};
use crate::meetings::{hook, later};

/// How long each round takes, quiet or not.
const ROUND: Duration = Duration::from_millis(1_500);

/// Rounds of each kind, in turn.
const ROUNDS: usize = 5;

/// Other keys: many, so that some share a lock with the hot one.
const OTHERS: usize = 2_000;

/// What the p99 of other keys may be beside a hook that uses up all it is given: a multiple of that without, and as
/// much as this machine may keep one of its threads from running.
const TIMES: u32 = 3;
const SLACK: Duration = Duration::from_millis(20);

/// The p99 of SET and GET of other keys in one round.
fn p99_of_others(cluster: &Cluster) -> Duration {
    let mut client = cluster.client(0);
    let end = Instant::now() + ROUND;
    let mut times = Vec::new();
    while Instant::now() < end {
        let key = format!("other:{}", times.len() / 2 % OTHERS);
        for args in [&["SET", &key, "v"][..], &["GET", &key]] {
            let asked = Instant::now();
            assert!(!client.call(args).is_error());
            times.push(asked.elapsed());
        }
    }
    times.sort();
    times[times.len() * 99 / 100]
}

/// Writes the hot key, or reads what its hook makes of it, until told to end; how often.
fn heat(cluster: &Cluster, writes: bool, done: &AtomicBool, count: &AtomicU64) {
    let mut client = cluster.client(0);
    while !done.load(Ordering::Relaxed) {
        let n = count.fetch_add(1, Ordering::Relaxed).to_string();
        if writes {
            client.int(&["HSET", "hot:h", "written", &n]);
        } else {
            // What shows of a hook that fails is the newest value.
            assert_eq!(client.text(&["HGET", "hot:h", "both"]), "b");
        }
    }
}

fn others_do_not_feel(name: &str, reason: &str) {
    let extra = format!("[[conflicts]]\nkeys = \"hot:*\"\npolicy = \"hook\"\nhook = {:?}\n", hook(name));
    let cluster = Cluster::start(Options { extra, sync: "everysec", ..Options::new(Shape::Mesh, 2) });
    cluster.cut(0, 1);
    for i in cluster.all() {
        cluster.client(i).int(&["HSET", "hot:h", "both", cluster.name(i)]);
        later();
    }
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let failed = || cluster.metric(0, "meridian_hook_failures_total", &[("reason", reason)]);
    let before = failed();
    p99_of_others(&cluster);
    for _ in 0..ROUNDS {
        quiet.push(p99_of_others(&cluster));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writes, count) in [true, false].into_iter().zip(&counts) {
                let (cluster, done) = (&cluster, &done);
                scope.spawn(move || heat(cluster, writes, done, count));
            }
            beside.push(p99_of_others(&cluster));
            done.store(true, Ordering::Relaxed);
        });
    }
    quiet.sort();
    beside.sort();
    let [writes, reads] = counts.map(AtomicU64::into_inner);
    println!(
        "{name}: p99 of other keys {quiet:?} alone, {beside:?} beside {writes} writes and {reads} reads of the hot key \
         that had its hook fail {} times",
        failed() - before
    );
    assert!(failed() - before > ROUNDS as f64, "the hook was hardly asked");
    let (alone, hot) = (quiet[ROUNDS / 2], beside[ROUNDS / 2]);
    assert!(hot <= alone * TIMES + SLACK, "{hot:?} beside the hook, {alone:?} without");
}

#[test]
fn h1_a_hook_that_loops_does_not_slow_other_keys() {
    others_do_not_feel("loop", "fuel");
}

#[test]
fn h1_a_hook_that_allocates_does_not_slow_other_keys() {
    others_do_not_feel("grow", "memory");
}
