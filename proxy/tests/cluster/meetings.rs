//! Two and three regions, cut apart, write under each policy and meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_proxy::resp::Value;
use serde_json::Value as Json;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, until, wait_for};
use crate::inbox::{agreed, await_recorded, counted, each, listed, words};
use crate::process;

/// Later than anything before by any clock of this machine.
pub fn later() {
    until(Instant::now() + Duration::from_millis(5));
}

fn cut_apart(cluster: &Cluster) {
    cluster.all().for_each(|i| (0..i).for_each(|other| cluster.cut(i, other)));
}

fn meet(cluster: &Cluster) {
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    cluster.all().for_each(|i| await_recorded(cluster, i, counted(cluster, i)));
}

/// Who notices the conflict of a row.
#[derive(Clone, Copy, PartialEq)]
enum Noticed {
    /// There is none.
    Nowhere,
    /// Every region, under one id.
    Everywhere,
    /// The second region and whoever hears of it first: where the first one's removal arrives, something stands.
    AtSecond,
}

use Noticed::{AtSecond, Everywhere, Nowhere};

/// A row of the table: `k` is its key, `k2` another one.
struct Row {
    /// At the first region, before the links are cut.
    before: &'static [&'static str],
    /// At the first region.
    first: &'static [&'static str],
    /// At the second, later.
    second: &'static [&'static str],
    read: &'static [&'static str],
    shows: &'static str,
    noticed: Noticed,
}

const fn row(
    before: &'static [&'static str],
    [first, second]: [&'static [&'static str]; 2],
    (read, shows): (&'static [&'static str], &'static str),
    noticed: Noticed,
) -> Row {
    Row { before, first, second, read, shows, noticed }
}

/// The table of `docs/conflicts.md`, type by type.
const TABLE: &[Row] = &[
    row(&["SET k a"], [&[], &["SET k b"]], (&["GET k"], "b"), Nowhere),
    row(&[], [&["SET k a"], &["SET k b"]], (&["GET k"], "b"), Everywhere),
    row(&[], [&["INCRBY k 7"], &["INCRBY k 3"]], (&["GET k"], "10"), Nowhere),
    row(&["SET k 10"], [&["DEL k"], &["INCR k"]], (&["GET k"], "1"), AtSecond),
    row(&[], [&["INCRBYFLOAT k 0.1"], &["INCRBYFLOAT k 0.2"]], (&["GET k"], "0.3"), Nowhere),
    row(&["SET k 1"], [&["INCR k"], &["SET k 10"]], (&["GET k"], "11"), Nowhere),
    row(&["SET k -"], [&["APPEND k x"], &["APPEND k y"]], (&["GET k"], "-y"), Everywhere),
    row(&["SET k abc"], [&["SETRANGE k 0 x"], &["SETRANGE k 2 y"]], (&["GET k"], "aby"), Everywhere),
    row(&[], [&["HSET k f1 a"], &["HSET k f2 b"]], (&["HGET k f1", "HGET k f2"], "a b"), Nowhere),
    row(&[], [&["HSET k f x"], &["HSET k f y"]], (&["HGET k f"], "y"), Everywhere),
    row(&["HSET k f x"], [&["HDEL k f"], &["HSET k f y"]], (&["HGET k f"], "y"), AtSecond),
    row(&["HSET k f x"], [&["DEL k"], &["HSET k new v"]], (&["HGETALL k"], "new v"), AtSecond),
    row(&[], [&["HINCRBY k f 2"], &["HINCRBY k f 3"]], (&["HGET k f"], "5"), Nowhere),
    row(&["SADD k a b"], [&["SREM k a", "SREM k c"], &["SADD k c"]], (&["SMEMBERS k"], "b c"), Nowhere),
    row(&["SADD k a"], [&["SREM k a"], &["SADD k a"]], (&["SMEMBERS k"], "a"), AtSecond),
    row(&["SADD k a"], [&["SPOP k"], &["SPOP k"]], (&["SCARD k"], "0"), Nowhere),
    row(&[], [&["ZADD k 1 x"], &["ZADD k 2 x"]], (&["ZSCORE k x"], "2"), Everywhere),
    row(&["ZADD k 1 x"], [&["ZINCRBY k 1 x"], &["ZINCRBY k 1 x"]], (&["ZSCORE k x"], "3"), Nowhere),
    row(&["ZADD k 4.1 x"], [&["ZREM k x"], &["ZINCRBY k 2 x"]], (&["ZSCORE k x"], "2"), AtSecond),
    row(&["ZADD k 1 x"], [&["ZPOPMIN k"], &["ZPOPMIN k"]], (&["ZCARD k"], "0"), Nowhere),
    row(
        &["SET k v"],
        [&["PEXPIREAT k 5000000000000"], &["PEXPIREAT k 4000000000000"]],
        (&["PEXPIRETIME k"], "5000000000000"),
        Nowhere,
    ),
    row(
        &["SET k v PXAT 3000000000000"],
        [&["PEXPIREAT k 4000000000000"], &["PERSIST k"]],
        (&["PEXPIRETIME k"], "-1"),
        Nowhere,
    ),
    row(&["SET k v"], [&["PEXPIREAT k 4000000000000"], &["DEL k"]], (&["EXISTS k"], "0"), Nowhere),
    row(&["SET k 1"], [&["RENAME k k2"], &["SET k 2"]], (&["GET k", "GET k2"], "2 1"), AtSecond),
    row(&[], [&["SET k text"], &["SADD k m"]], (&["TYPE k", "SMEMBERS k"], "set m"), Everywhere),
];

/// Commands of a row with its keys in place. Those of one row lie in one database of their own where it is flushed.
fn line(text: &str, at: usize) -> Vec<String> {
    let word = |word: &str| match word {
        "k" => format!("row:{at}"),
        "k2" => format!("row:{at}:2"),
        other => other.to_owned(),
    };
    text.split(' ').map(word).collect()
}

fn do_all(client: &mut Client, lines: &[&str], at: usize) {
    for text in lines {
        let reply = client.call(&line(text, at));
        assert!(!reply.is_error(), "{text}: {reply:?}");
    }
}

/// What a region answers, numbers and nested words alike, sorted where the order says nothing.
fn shown(client: &mut Client, row: &Row, at: usize) -> String {
    let flat = |reply: Value| match reply {
        Value::Int(number) => vec![number.to_string()],
        other => words(&other),
    };
    let mut all: Vec<String> = Vec::new();
    for text in row.read {
        let mut told = flat(client.call(&line(text, at)));
        if text.starts_with("SMEMBERS") {
            told.sort();
        }
        all.extend(told);
    }
    all.join(" ")
}

fn the_table_holds(shape: Shape, regions: usize) {
    let cluster = Cluster::start(Options::new(shape, regions));
    let mut clients: Vec<Client> = cluster.all().map(|i| cluster.client(i)).collect();
    for (at, row) in TABLE.iter().enumerate() {
        do_all(&mut clients[0], row.before, at);
    }
    each(&mut clients[0], &["SELECT 5", "SET seen 1", "SELECT 0"]);
    cluster.await_converged(PATIENCE);
    cut_apart(&cluster);
    for (at, row) in TABLE.iter().enumerate() {
        do_all(&mut clients[0], row.first, at);
    }
    each(&mut clients[0], &["SELECT 5", "FLUSHDB", "SELECT 0"]);
    later();
    for (at, row) in TABLE.iter().enumerate() {
        do_all(&mut clients[1], row.second, at);
    }
    each(&mut clients[1], &["SELECT 5", "SET unseen 1", "SELECT 0"]);
    meet(&cluster);
    let all: Vec<Vec<Json>> = cluster.all().map(|i| listed(&cluster, i, "limit=1000")).collect();
    for (at, row) in TABLE.iter().enumerate() {
        let what = format!("{:?} beside {:?}", row.first, row.second);
        for client in &mut clients {
            assert_eq!(shown(client, row, at), row.shows, "{what}");
        }
        let ids: Vec<BTreeSet<&str>> =
            all.iter().map(|records| ids_of(records, &format!("row:{at}"))).collect();
        match row.noticed {
            Nowhere => assert!(ids.iter().all(BTreeSet::is_empty), "{what}: {ids:?}"),
            Everywhere => {
                assert_eq!(ids[0].len(), 1, "{what}: {ids:?}");
                assert!(ids.iter().all(|found| *found == ids[0]), "{what}: {ids:?}");
            }
            AtSecond => {
                assert_eq!((ids[0].len(), ids[1].len()), (0, 1), "{what}: {ids:?}");
                assert!(ids.iter().all(|found| found.is_subset(&ids[1])), "{what}: {ids:?}");
            }
        }
    }
    for client in &mut clients {
        each(client, &["SELECT 5"]);
        assert_eq!(words(&client.call(&["KEYS", "*"])), ["unseen"], "a flush removes what it saw");
    }
}

fn ids_of<'a>(records: &'a [Json], key: &str) -> BTreeSet<&'a str> {
    records
        .iter()
        .filter(|record| record["key"] == key)
        .map(|record| record["id"].as_str().unwrap())
        .collect()
}

#[test]
fn under_crdt_the_table_holds_between_two_regions() {
    the_table_holds(Shape::Mesh, 2);
}

#[test]
fn under_crdt_the_table_holds_between_three_regions() {
    the_table_holds(Shape::Ring, 3);
}

/// Keys of each type that all regions write under `lww`.
const DISPUTED: usize = 3;

/// What a region states of each disputed key.
fn statements(region: &str) -> Vec<(String, Vec<String>)> {
    let of = |n: usize| {
        [
            ("string", vec!["SET", "", region]),
            ("hash", vec!["HSET", "", "by", region, region, "1"]),
            ("set", vec!["SADD", "", region, "all"]),
            ("zset", vec!["ZADD", "", "1", region, "2", "all"]),
        ]
        .map(|(kind, mut words)| {
            let key = format!("l:{kind}:{n}");
            words[1] = &key;
            let words = words.into_iter().map(str::to_owned).collect();
            (key, words)
        })
    };
    (0..DISPUTED).flat_map(of).collect()
}

/// Whose statement a key shows; fails if it is a mixture.
fn author(client: &mut Client, key: &str) -> String {
    let read: &[&str] = match key.split(':').nth(1).unwrap() {
        "string" => &["GET", key],
        "hash" => &["HGETALL", key],
        "set" => &["SMEMBERS", key],
        _ => &["ZRANGE", key, "0", "-1"],
    };
    let mut told: BTreeSet<String> = words(&client.call(read)).into_iter().collect();
    told.retain(|word| !["by", "1", "all"].contains(&word.as_str()));
    assert_eq!(told.len(), 1, "{key} shows {told:?}");
    told.pop_first().unwrap()
}

/// The region whose write lost in this record.
fn loser(record: &Json) -> String {
    let rivals = record["rivals"].as_array().unwrap();
    let lost = rivals.iter().find(|rival| rival["dot"] == record["loser"]).unwrap();
    lost["origin"].as_str().unwrap().to_owned()
}

fn under_lww_every_loser_is_known_and_can_be_had_again(shape: Shape, regions: usize) {
    let extra = "[[conflicts]]\nkeys = \"l:*\"\npolicy = \"lww\"\n".to_owned();
    let cluster = Cluster::start(Options { extra, ..Options::new(shape, regions) });
    cut_apart(&cluster);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for (_, words) in statements(cluster.name(i)) {
            let reply = client.call(&words);
            assert!(!reply.is_error(), "{reply:?}");
        }
        later();
    }
    meet(&cluster);
    let keys: Vec<String> = statements("a").into_iter().map(|(key, _)| key).collect();
    // Each two of the regions have met once on each key.
    let pairs = keys.len() * regions * (regions - 1) / 2;
    let all: Vec<Vec<Json>> = cluster.all().map(|i| listed(&cluster, i, "policy=lww")).collect();
    let fixed = |records: &[Json]| -> BTreeMap<_, _> {
        // What showed when the second of three had come is no matter of agreement, nor the order of elements.
        let same = |[key, kind, mut rivals, _, loser]: [Json; 5]| {
            for rival in rivals.as_array_mut().unwrap() {
                if let Some(elements) = rival["value"].get_mut("elements").and_then(Json::as_array_mut) {
                    elements.sort_by_key(Json::to_string);
                }
            }
            [key, kind, rivals, loser]
        };
        agreed(records).into_iter().map(|(id, record)| (id, same(record))).collect()
    };
    let winner = cluster.name(regions - 1);
    for (i, records) in all.iter().enumerate() {
        assert_eq!(counted(&cluster, i), pairs as f64, "in {}", cluster.name(i));
        assert_eq!(fixed(records).len(), pairs, "each once, in {}", cluster.name(i));
        assert_eq!(fixed(records), fixed(&all[0]), "in {}", cluster.name(i));
        assert!(records.iter().all(|record| record["kind"] == "write_write" && record["rule"] == "lww"));
        for key in &keys {
            assert_eq!(author(&mut cluster.client(i), key), winner, "{key}");
            let of_key = records.iter().filter(|record| record["key"] == **key);
            let lost: BTreeSet<String> = of_key.map(loser).collect();
            let others: BTreeSet<String> = (0..regions - 1).map(|i| cluster.name(i).to_owned()).collect();
            assert_eq!(lost, others, "every loser of {key} is listed");
        }
    }
    restore_each(&cluster, &all);
    cluster.await_converged(PATIENCE);
    cluster.all().for_each(|i| assert_eq!(counted(&cluster, i), pairs as f64, "what was seen is no rival"));
}

/// Writes every loser back, of region after region's records, while all regions are written to.
fn restore_each(cluster: &Cluster, all: &[Vec<Json>]) {
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for i in cluster.all() {
            let (done, written) = (&done, &written);
            scope.spawn(move || {
                let mut client = cluster.client(i);
                while !done.load(Ordering::Relaxed) {
                    let n = written.fetch_add(1, Ordering::Relaxed);
                    client.ok(&["SET", &format!("l:other:{i}:{}", n % 50), &n.to_string()]);
                }
            });
        }
        let mut clients: Vec<Client> = cluster.all().map(|i| cluster.client(i)).collect();
        for (at, record) in all[0].iter().enumerate() {
            let region = at % clients.len();
            let (id, key, lost) =
                (record["id"].as_str().unwrap(), record["key"].as_str().unwrap(), loser(record));
            assert!(
                all[region].iter().any(|known| known["id"] == record["id"]),
                "it is the same record there"
            );
            clients[region].ok(&["MERIDIAN.RESTORE", id]);
            for client in &mut clients {
                wait_for("the loser to show", PATIENCE, || (author(client, key) == lost).then_some(()));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let restored: f64 = cluster.all().map(|i| cluster.metric(i, "meridian_restored_total", &[])).sum();
    assert_eq!(restored, all[0].len() as f64);
    println!("{restored} losers written back during {} writes", written.load(Ordering::Relaxed));
}

#[test]
fn under_lww_every_loser_of_two_regions_is_known_and_can_be_had_again() {
    under_lww_every_loser_is_known_and_can_be_had_again(Shape::Mesh, 2);
}

#[test]
fn under_lww_every_loser_of_three_regions_is_known_and_can_be_had_again() {
    under_lww_every_loser_is_known_and_can_be_had_again(Shape::Ring, 3);
}

/// A hook of the tests.
pub fn hook(name: &str) -> String {
    format!("{}/tests/cluster/hooks/{name}.wat", env!("CARGO_MANIFEST_DIR"))
}

/// Bytes a second that a link may cost once nothing is written; what idle ones cost.
const SILENCE: f64 = 1_000.0;

/// How long the links are watched.
const WATCHED: Duration = Duration::from_secs(5);

/// How long after the last write they may still say that they have everything.
const SETTLE: Duration = Duration::from_secs(3);

fn several_values_show_alike_and_nothing_is_sent(shape: Shape, regions: usize) {
    let extra = format!(
        "[[conflicts]]\nkeys = \"m:*\"\npolicy = \"multi-value\"\n\
         [[conflicts]]\nkeys = \"h:*\"\npolicy = \"hook\"\nhook = {:?}\n",
        hook("echo")
    );
    let cluster = Cluster::start(Options { extra, ..Options::new(shape, regions) });
    cut_apart(&cluster);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        let name = cluster.name(i);
        for (key, hash) in [("m:s", "m:h"), ("h:s", "h:h")] {
            client.ok(&["SET", key, name]);
            client.int(&["HSET", hash, "both", name, name, "1"]);
        }
        later();
    }
    meet(&cluster);
    let mut clients: Vec<Client> = cluster.all().map(|i| cluster.client(i)).collect();
    let reads: [&[&str]; 6] = [
        &["GET", "m:s"],
        &["HMGET", "m:h", "both", "a", "b"],
        &["MERIDIAN.SIBLINGS", "m:s"],
        &["MERIDIAN.SIBLINGS", "h:h", "both"],
        &["GET", "h:s"],
        &["HMGET", "h:h", "both", "a", "b"],
    ];
    let mut look = || -> Vec<Value> {
        let all: Vec<Vec<Value>> =
            clients.iter_mut().map(|client| reads.iter().map(|read| client.call(read)).collect()).collect();
        all.iter().for_each(|shown| assert_eq!(*shown, all[0]));
        all.into_iter().next().unwrap()
    };
    let first = look();
    assert_eq!(first[0].text(), Some(cluster.name(regions - 1)), "the newest");
    for at in [2, 3] {
        assert_eq!(first[at].elements().unwrap().len(), regions, "{:?}", first[at]);
    }
    // The whole call: a stamp, a length and a value of each region.
    let Value::Bulk(merged) = &first[4] else { panic!("{:?}", first[4]) };
    assert_eq!(merged.len(), 4 + 3 + 4 + 4 + regions * (24 + 4 + 1));
    let vector = cluster.client(0).vector();
    until(Instant::now() + SETTLE);
    let sent = || -> f64 {
        cluster.all().map(|i| cluster.metric(i, "meridian_link_bytes_total", &[("direction", "sent")])).sum()
    };
    let (began, before) = (Instant::now(), sent());
    let mut looks = 0;
    while began.elapsed() < WATCHED {
        assert_eq!(look(), first);
        looks += 1;
    }
    let links = cluster.all().map(|i| cluster.links_of(i).len()).sum::<usize>() as f64 / 2.0;
    let rate = (sent() - before) / began.elapsed().as_secs_f64() / links;
    println!("{regions} regions: {rate:.0} bytes a second on each link during {looks} looks at all values");
    assert!(rate < SILENCE, "{rate} bytes a second");
    assert_eq!(cluster.client(0).vector(), vector, "a merge was written");
    for i in cluster.all() {
        assert!(cluster.metric(i, "meridian_hook_calls_total", &[]) > 0.0);
        assert_eq!(cluster.metric(i, "meridian_hook_failures_total", &[]), 0.0);
    }
    // A write that has seen them leaves one.
    each(&mut cluster.client(1), &["SET m:s one", "SET h:s one"]);
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!([client.text(&["GET", "m:s"]), client.text(&["GET", "h:s"])], ["one", "one"]);
    }
}

#[test]
fn two_regions_show_alike_what_a_hook_without_any_law_makes_and_fall_silent() {
    let told = process::run(&["hook", "test", &hook("echo"), "--cases", "200"]);
    let told = String::from_utf8(told.stdout).unwrap();
    for (law, holds) in
        [("deterministic", "yes"), ("symmetric", "no"), ("idempotent", "no"), ("associative", "no")]
    {
        let line = told.lines().find(|line| line.trim_start().starts_with(law)).unwrap();
        assert!(line.split_whitespace().nth(1) == Some(holds), "{told}");
    }
    several_values_show_alike_and_nothing_is_sent(Shape::Mesh, 2);
}

#[test]
fn three_regions_show_alike_what_a_hook_without_any_law_makes_and_fall_silent() {
    several_values_show_alike_and_nothing_is_sent(Shape::Ring, 3);
}
