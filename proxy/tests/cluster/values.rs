//! A huge value among small ones.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use meridian_proxy::link::random::SplitMix64;
use meridian_proxy::link::relay::Conditions;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, wait_for};

const VALUE_BYTES: usize = 64 << 20;

/// Bytes a second on the way of the huge value: it takes more than twice `heal_after`.
const LINE_BYTES: u64 = 4_000_000;

/// Limits under which such a value is accepted, with room for little more.
const LIMITS: &str = "[limits]\nproto_max_bulk_len = \"64MiB\"\nquery_buffer_max = \"65MiB\"\n\
    client_output_max = \"65MiB\"\nmax_op = \"65MiB\"\npending_max = \"65MiB\"\n";

/// What a small write may take longer while the huge one is on its way: less than anything it could wait for.
const SLACK: Duration = Duration::from_millis(300);

/// Copies of the value that one region may hold at once: what arrives, the log's, the object's, the store's rows and
/// journal, each up to twice while it grows, and three for each feed.
const COPIES_MAX: u64 = 16;

fn noise() -> Vec<u8> {
    let mut random = SplitMix64::new(2);
    (0..VALUE_BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

/// How long a write takes from one region to another.
fn lag(from: &mut Client, to: &mut Client, number: usize) -> Duration {
    let (key, began) = (format!("small:{number}"), Instant::now());
    from.ok(&["SET", &key, "1"]);
    wait_for("a small write to arrive", PATIENCE, || to.maybe(&["GET", &key]));
    began.elapsed()
}

fn median(mut lags: Vec<Duration>) -> Duration {
    lags.sort_unstable();
    lags[lags.len() / 2]
}

/// The most memory that a process has had, in bytes.
fn memory(cluster: &Cluster, i: usize) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(i))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn q2_a_huge_value_delays_neither_heartbeats_nor_what_other_regions_write() {
    let mut options = Options::new(Shape::Mesh, 3);
    options.heal_after = "6s";
    options.extra = LIMITS.into();
    let mut cluster = Cluster::start(options);
    let line = Conditions { rate_bytes: LINE_BYTES, ..Conditions::default() };
    [1, 2].into_iter().for_each(|to| cluster.conditions(0, to, line));
    let (mut at_b, mut at_c) = (cluster.client(1), cluster.client(2));
    let usual = median((0..20).map(|number| lag(&mut at_c, &mut at_b, number)).collect());
    let before: Vec<u64> = cluster.all().map(|i| memory(&cluster, i)).collect();

    let (value, arrived) = (noise(), AtomicBool::new(false));
    let began = Instant::now();
    cluster.client(0).ok(&[b"SET", &b"huge"[..], &value]);
    let lags = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at_b = cluster.client(1);
            let length = i64::try_from(VALUE_BYTES).unwrap();
            wait_for("the huge value", PATIENCE, || (at_b.int(&["STRLEN", "huge"]) == length).then_some(()));
            arrived.store(true, Relaxed);
        });
        let mut lags = Vec::new();
        while !arrived.load(Relaxed) {
            lags.push(lag(&mut at_c, &mut at_b, 20 + lags.len()));
            for i in cluster.all() {
                let states = cluster.links_of(i);
                assert!(states.values().all(|state| state == "up"), "{}: {states:?}", cluster.name(i));
            }
        }
        lags
    });
    let least = Duration::from_secs_f64(VALUE_BYTES as f64 / LINE_BYTES as f64 / 2.0);
    assert!(began.elapsed() > least, "{:?} is too fast to have crossed the line", began.elapsed());
    assert!(lags.len() > 10, "{lags:?}");
    let (worst, middle) = (*lags.iter().max().unwrap(), median(lags));
    assert!(middle < usual + SLACK, "{middle:?} instead of {usual:?}, at worst {worst:?}");
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let (grown, most) = (memory(&cluster, i) - before[i], COPIES_MAX * VALUE_BYTES as u64);
        assert!(grown < most, "{} took {} MiB more", cluster.name(i), grown >> 20);
        assert_eq!(cluster.metric(i, "meridian_reroutes_total", &[]), 0.0, "{} went around", cluster.name(i));
    }
    for i in cluster.all() {
        cluster.stop(i);
    }
}

#[test]
fn q2_a_value_beyond_the_limits_is_refused_by_name_and_changes_nothing() {
    let mut options = Options::new(Shape::Mesh, 1);
    options.extra = LIMITS.into();
    let mut cluster = Cluster::start(options);
    let over = vec![b'x'; VALUE_BYTES + 1];
    let mut client = cluster.client(0);
    // The one who sends on may find the connection closed before it has read why.
    if let Ok(reply) = client.try_call(&[b"SET", &b"over"[..], &over]) {
        assert_eq!(reply.text(), Some("ERR Protocol error: invalid bulk length"));
    }
    let mut client = cluster.client(0);
    client.ok(&[b"SET", &b"largest"[..], &over[1..]]);
    let told = client.call(&[b"APPEND", &b"largest"[..], &over[1..]]);
    assert!(told.is_error(), "twice the largest value");
    assert_eq!(client.int(&["STRLEN", "largest"]), i64::try_from(VALUE_BYTES).unwrap());
    assert_eq!(client.maybe(&["GET", "over"]), None);
    cluster.stop(0);
}
