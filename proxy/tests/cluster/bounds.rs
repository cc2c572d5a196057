//! What a slow or a dead peer may cost the others: memory that is bounded, and no time.

use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;

use crate::harness::shim::{Action, SYNCS};
use crate::harness::{Cluster, Options, PATIENCE, Shape, is_full, until, wait_for};

const MIB: u64 = 1 << 20;

/// Objects in memory and the log's cache, as the regions of [`Q1`](q1_a_slow_and_a_dead_region_cost_bounded_memory_and_nobody_time) are
/// configured.
const CONFIGURED: u64 = (128 + 8) * MIB;

/// What the program takes on top of what is configured under any load, whatever its peers do: the
/// store's caches and buffers, the log's buffers, connections' windows.
const OVERHEAD: u64 = 256 * MIB;

/// What a peer that falls behind may add to that.
const OF_A_SLOW_PEER: u64 = 48 * MIB;

/// A hundredth of what the other links do under this load.
const SLOW_BYTES: u64 = 50_000;

/// How long each write at a takes to show at b, one after the other until `end`.
fn lags(cluster: &Cluster, prefix: &str, end: Instant) -> Vec<Duration> {
    let (mut a, mut b) = (cluster.client(0), cluster.client(1));
    let mut lags: Vec<Duration> = (0..)
        .take_while(|_| Instant::now() < end)
        .map(|n| {
            let key = format!("{prefix}:{n}");
            let began = Instant::now();
            a.ok(&["SET", &key, "v"]);
            wait_for("the probe at b", PATIENCE, || b.maybe(&["GET", &key]));
            began.elapsed()
        })
        .collect();
    lags.sort();
    lags
}

/// Values of 10 KiB, eight of them every ten milliseconds, as far as the machine keeps up.
const LOAD_EVERY: Duration = Duration::from_millis(10);
const LOAD_KEYS: usize = 6_000;

/// Writes at a until `end`; how many bytes.
fn load(cluster: &Cluster, end: Instant) -> u64 {
    let mut client = cluster.client(0);
    let (value, mut written, mut next) = (incompressible(10 << 10), 0u64, Instant::now());
    for n in 0_usize.. {
        if Instant::now() >= end {
            break;
        }
        let set = |k| vec!["SET".into(), format!("load:{}", (n * 8 + k) % LOAD_KEYS), value.clone()];
        let batch: Vec<Vec<String>> = (0..8).map(set).collect();
        assert!(client.pipeline(&batch).unwrap().iter().all(|reply| !reply.is_error()));
        written += 8 * value.len() as u64;
        next += LOAD_EVERY;
        until(next);
    }
    written
}

fn incompressible(length: usize) -> String {
    let mut random = crate::load::Random::new(5);
    (0..length).map(|_| char::from(b'!' + u8::try_from(random.below(90)).unwrap())).collect()
}

#[test]
fn q1_a_slow_and_a_dead_region_cost_bounded_memory_and_nobody_time() {
    let extra = "[store]\nmemory_max = \"128MiB\"\n[limits]\ntail_cache = \"8MiB\"\n".to_owned();
    let mut cluster = Cluster::start(Options { sync: "everysec", extra, ..Options::new(Shape::Mesh, 4) });
    let phase = Duration::from_secs(if is_full() { 60 } else { 8 });
    cluster.kill9(3);
    let mut written = 0u64;
    let mut under_load = |what: &str| {
        let end = Instant::now() + phase;
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&cluster, end));
            let lags = lags(&cluster, what, end);
            written += loading.join().unwrap();
            lags
        })
    };
    // Caches fill for a while, whatever the peers do.
    under_load("first");
    let usual = under_load("usual");
    let peaks: Vec<u64> = (0..3).map(|i| cluster.peak_resident(i)).collect();
    for peer in [0, 1] {
        let slow = Conditions { rate_bytes: SLOW_BYTES, ..Conditions::default() };
        cluster.conditions(peer, 2, slow);
        cluster.conditions(2, peer, slow);
    }
    let beside = under_load("beside");
    let middle = |lags: &[Duration]| (lags[lags.len() / 2], lags[lags.len() * 95 / 100]);
    println!(
        "lag from a to b, median and 95%: {:?}; beside a slow region {:?}",
        middle(&usual),
        middle(&beside)
    );
    assert!(
        middle(&beside).0 < middle(&usual).0 * 3 + Duration::from_millis(20),
        "a slow region slows others"
    );
    // Further behind than what memory keeps of the log.
    let behind = wait_for("c to be far behind", PATIENCE, || {
        written += load(&cluster, Instant::now() + LOAD_EVERY);
        let behind = cluster.metric(0, "meridian_unacked_bytes", &[("peer", "c")]);
        (behind > 10.0 * MIB as f64).then_some(behind)
    });
    println!("{} MiB were written, c is {:.0} MiB behind", written / MIB, behind / MIB as f64);
    for (i, before) in peaks.into_iter().enumerate() {
        let peak = cluster.peak_resident(i);
        println!("{}: at most {} MiB in memory, {} before", cluster.name(i), peak / MIB, before / MIB);
        assert!(peak < CONFIGURED + OVERHEAD, "{} took {} MiB", cluster.name(i), peak / MIB);
        assert!(
            peak < before + OF_A_SLOW_PEER,
            "{} took {} MiB more",
            cluster.name(i),
            (peak - before) / MIB
        );
    }
    for peer in [0, 1] {
        cluster.conditions(peer, 2, Conditions::default());
        cluster.conditions(2, peer, Conditions::default());
    }
    cluster.restart(3);
    cluster.await_converged(2 * PATIENCE);
}

/// Where the system takes a limit for a process and its user may set one: a kernel that ends what goes beyond.
const LIMITED: &str = "for kind in memory/:memory.limit_in_bytes :memory.max; do \
     group=/sys/fs/cgroup/${kind%%:*}meridian-test-$$; \
     if mkdir \"$group\" && echo 320M > \"$group/${kind#*:}\" && echo $$ > \"$group/cgroup.procs\"; then break; fi; \
     rmdir \"$group\"; \
     done 2>/dev/null; exec \"$@\"";

/// Ends what [`LIMITED`] made for a process that is gone.
fn remove_limit(pid: u32) {
    for parent in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
        // One of them at most is there.
        let _ = std::fs::remove_dir(format!("{parent}/meridian-test-{pid}"));
    }
}

#[test]
fn q4_what_memory_cannot_hold_is_refused_and_reads_go_on() {
    let extra = "[store]\nmemory_max = \"64MiB\"\n[limits]\ntail_cache = \"8MiB\"\n".to_owned();
    let mut options = Options { sync: "everysec", extra, shim: true, ..Options::new(Shape::Mesh, 2) };
    options.launcher = Some(LIMITED);
    let mut cluster = Cluster::start(options);
    let pids = [cluster.pid(0), cluster.pid(1)];
    cluster.kill9(1);
    // After that the store takes nothing more, and what it lacks must stay in memory.
    cluster.shim(0).arm_within("store/", SYNCS, 1, Action::Fail);
    let (mut client, value) = (cluster.client(0), incompressible(64 << 10));
    let mut kept = 0;
    let told = loop {
        let reply = client.call(&["SET", &format!("key:{kept}"), &value]);
        if reply.is_error() {
            break reply;
        }
        kept += 1;
        assert!(kept < 8_000, "half a gigabyte found room");
    };
    assert!(told.text().unwrap().starts_with("OOM the local store cannot keep up"), "{told:?}");
    for n in [0, kept / 2, kept - 1] {
        assert_eq!(client.text(&["GET", &format!("key:{n}")]), value, "reads go on");
    }
    assert_eq!(client.int(&["DEL", "key:0"]), 1, "so does what frees memory");
    let peak = cluster.peak_resident(0);
    println!("{kept} values of 64 KiB, {} MiB in memory", peak / MIB);
    assert!(peak < 320 * MIB, "{} MiB in memory", peak / MIB);
    cluster.kill9(0);
    cluster.restart(0);
    cluster.restart(1);
    cluster.await_converged(PATIENCE);
    let mut client = cluster.client(1);
    (1..kept).for_each(|n| assert_eq!(client.text(&["GET", &format!("key:{n}")]), value));
    let pids = [pids[0], pids[1], cluster.pid(0), cluster.pid(1)];
    drop(cluster);
    pids.into_iter().for_each(remove_limit);
}

/// Delays what goes from a to c more and more, up to `delay`: the connection lives, as over a line
/// whose queue grows.
fn delay_gradually(cluster: &Cluster, delay: Duration) {
    // Half as fast as time goes by: meanwhile half of what is sent arrives.
    let step = Duration::from_millis(50);
    let mut now = Duration::ZERO;
    while now < delay {
        now += step;
        cluster.conditions(0, 2, Conditions { delay: now, ..Conditions::default() });
        until(Instant::now() + 2 * step);
    }
}

#[test]
fn c2_many_ops_wait_for_one_that_is_long_under_way() {
    const OPS: usize = 10_000;
    let delay = Duration::from_secs(if is_full() { 60 } else { 6 });
    // So patient that nobody goes around: what is asked is what waiting costs.
    let options = Options { heal_after: "10m", ..Options::new(Shape::Mesh, 3) };
    let cluster = Cluster::start(options);
    delay_gradually(&cluster, delay);
    let before = cluster.resident(2);
    cluster.client(0).ok(&["SET", "question", "?"]);
    let asked = Instant::now();
    let mut b = cluster.client(1);
    wait_for("the question at b", PATIENCE, || b.maybe(&["GET", "question"]));
    let value = incompressible(1 << 10);
    for from in (0..OPS).step_by(500) {
        let answers: Vec<Vec<String>> =
            (from..from + 500).map(|n| vec!["SET".into(), format!("answer:{n}"), value.clone()]).collect();
        assert!(b.pipeline(&answers).unwrap().iter().all(|reply| !reply.is_error()));
    }
    // The alarm: what waits, and for how long.
    wait_for("all to be held at c", delay, || {
        (cluster.metric(2, "meridian_pending_ops", &[]) >= OPS as f64).then_some(())
    });
    let mut c = cluster.client(2);
    assert_eq!(c.int(&["EXISTS", "question", "answer:0", "answer:9999"]), 0, "shown before its cause");
    let grown = cluster.resident(2).saturating_sub(before);
    let held = cluster.metric(2, "meridian_pending_bytes", &[]);
    println!("{OPS} ops held after {:?}: {held} bytes, {} MiB more in memory", asked.elapsed(), grown / MIB);
    assert!(grown < 64 * MIB, "{grown} bytes for {held}");
    wait_for("the last answer", delay + PATIENCE, || c.maybe(&["GET", "answer:9999"]));
    println!("delivered {:?} after the question, with {delay:?} of delay", asked.elapsed());
    assert_eq!(c.maybe(&["GET", "question"]).as_deref(), Some("?"));
    assert!(cluster.metric(2, "meridian_causal_waits_total", &[]) >= OPS as f64);
    cluster.conditions(0, 2, Conditions::default());
    cluster.await_converged(delay + PATIENCE);
    wait_for("nothing pending at c", PATIENCE, || {
        (cluster.metric(2, "meridian_pending_bytes", &[]) == 0.0).then_some(())
    });
}
