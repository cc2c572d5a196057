//! Starting, crashing, recovering, staying within bounds.

mod lost_store;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId};
use meridian_conflict::op::{BodyBuilder, Effect, ElementBaseline, Facet, Header, Op};
use meridian_topology::time::WallMs;
use tempfile::TempDir;

use super::Region;
use super::clock::ClockFile;
use super::reaper::Settled;
use super::recover::Threads;
use crate::command::execute::{Scratch, run};
use crate::command::find;
use crate::config::FileChecks;
use crate::config::settings::Settings;
use crate::metrics::Metrics;
use crate::replication::apply::Applier;
use crate::resp::scan::ScanLimits;
use crate::resp::{OwnedArgs, Protocol, Reply, Value, value};
use crate::store::Batch;

fn settings(directory: &Path, sync: &str, more: &str) -> Settings {
    let text = format!(
        "cluster = \"test\"\nregion = \"eu\"\ndata_dir = {:?}\n[log]\nsync = \"{sync}\"\n{more}",
        directory.join("data")
    );
    Settings::parse(&text, directory, FileChecks::Skip).unwrap()
}

fn open(directory: &Path, sync: &str, more: &str) -> (Arc<Region>, Threads) {
    Region::open(settings(directory, sync, more), Arc::new(Metrics::new().unwrap())).unwrap()
}

fn ask(region: &Region, line: &str) -> Value {
    let args: OwnedArgs = line.split(' ').collect();
    let command = find(args.args().first().unwrap()).unwrap();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    run(region, &mut Scratch::new(1), command, args.args(), 0, region.wall(), &mut reply);
    value::decode(&out, &ScanLimits::default()).unwrap().unwrap().0
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

#[test]
fn what_was_written_is_there_after_an_orderly_stop() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "never", "");
    let origin = region.origin();
    ask(&region, "SET a 1");
    ask(&region, "HSET h f x g y");
    ask(&region, "ZADD z 1 one 2 two");
    ask(&region, "SADD s m");
    ask(&region, "INCRBY n 5");
    ask(&region, "SET gone 1");
    ask(&region, "DEL gone");
    threads.stop().unwrap();
    drop(region);
    let (region, threads) = open(directory.path(), "never", "");
    assert_eq!(region.origin(), origin, "an orderly stop keeps the incarnation");
    assert_eq!(region.recovered().replayed, 0);
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(5));
    assert_eq!(ask(&region, "GET a"), bulk("1"));
    assert_eq!(ask(&region, "HGET h g"), bulk("y"));
    assert_eq!(ask(&region, "ZSCORE z two"), bulk("2"));
    assert_eq!(ask(&region, "SISMEMBER s m"), Value::Int(1));
    assert_eq!(ask(&region, "INCR n"), Value::Int(6));
    assert!(ask(&region, "GET gone").is_null());
    threads.stop().unwrap();
}

#[tokio::test]
async fn r4_a_crash_loses_nothing_durable_and_keeps_the_incarnation_under_always() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "always", "");
    let origin = region.origin();
    for n in 0..100 {
        ask(&region, &format!("SET k{n} v{n}"));
        ask(&region, "INCR n");
    }
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "always", "");
    assert_eq!(region.origin(), origin);
    assert_eq!(region.recovered().replayed, 200);
    assert_eq!(ask(&region, "GET n"), bulk("100"));
    assert_eq!(ask(&region, "GET k99"), bulk("v99"));
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(101));
    // Numbers go on where they were.
    ask(&region, "SET more 1");
    assert_eq!(region.sequencer().progress().0, 201);
    threads.stop().unwrap();
}

#[tokio::test]
async fn r4_a_crash_after_a_commit_replays_over_it() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "always", "");
    ask(&region, "SET a 1");
    ask(&region, "INCR n");
    ask(&region, "SADD s x");
    assert!(region.committer().commit_now().await);
    ask(&region, "DEL a");
    ask(&region, "INCR n");
    ask(&region, "SREM s x");
    ask(&region, "SADD s y");
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "always", "");
    assert_eq!(region.recovered().replayed, 4);
    assert!(ask(&region, "GET a").is_null());
    assert_eq!(ask(&region, "GET n"), bulk("2"));
    assert_eq!(ask(&region, "SMEMBERS s"), Value::Array(vec![bulk("y")]));
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(2));
    threads.stop().unwrap();
}

#[tokio::test]
async fn a_crash_under_everysec_takes_a_new_incarnation() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "everysec", "");
    let origin = region.origin();
    ask(&region, "INCR n");
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "everysec", "");
    assert_ne!(region.origin(), origin);
    assert!(region.recovered().new_incarnation.is_some());
    assert_eq!(ask(&region, "INCR n"), Value::Int(2));
    assert_eq!(region.sequencer().progress().0, 1, "numbers of the new life start at one");
    threads.stop().unwrap();
}

#[test]
fn r1_a_copied_data_directory_takes_a_new_incarnation() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "always", "");
    let origin = region.origin();
    ask(&region, "SET a 1");
    threads.stop().unwrap();
    drop(region);
    let copy = TempDir::new().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(directory.path().join("data"))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let (region, threads) = open(copy.path(), "always", "");
    assert_ne!(region.origin(), origin);
    assert_eq!(ask(&region, "GET a"), bulk("1"));
    threads.stop().unwrap();
}

#[test]
fn r3_a_second_holder_of_the_data_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    let (_region, threads) = open(directory.path(), "never", "");
    let second = Region::open(settings(directory.path(), "never", ""), Arc::new(Metrics::new().unwrap()));
    assert!(second.is_err());
    threads.stop().unwrap();
}

#[test]
fn a_data_directory_of_another_region_is_refused() {
    let directory = TempDir::new().unwrap();
    let (_, threads) = open(directory.path(), "never", "");
    threads.stop().unwrap();
    let mut other = settings(directory.path(), "never", "");
    other.cluster = "else".into();
    let error = Region::open(other, Arc::new(Metrics::new().unwrap())).err().unwrap();
    assert!(error.to_string().contains("belongs to region \"eu\" of cluster \"test\""), "{error}");
}

#[tokio::test]
async fn data_larger_than_memory_stays_readable() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "never", "[store]\nmemory_max = \"1MiB\"\n");
    let filler = "x".repeat(1_000);
    for n in 0..5_000 {
        if region.is_strained() {
            region.wait_for_relief().await.unwrap();
        }
        ask(&region, &format!("SET k{n} {n}{filler}"));
    }
    assert!(region.committer().commit_now().await);
    // The next look at memory finds everything clean.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while region.keyspace().memory_bytes() > 1 << 20 {
        assert!(std::time::Instant::now() < deadline, "memory is not bounded");
        tokio::task::yield_now().await;
    }
    for n in (0..5_000).step_by(7) {
        assert_eq!(ask(&region, &format!("GET k{n}")), bulk(&format!("{n}{filler}")));
    }
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(5_000));
    ask(&region, "APPEND k3 !");
    assert_eq!(ask(&region, "STRLEN k3"), Value::Int(1_002));
    ask(&region, "FLUSHDB");
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(0));
    assert!(ask(&region, "GET k4000").is_null());
    threads.stop().unwrap();
}

/// An op of another region, with this body.
fn foreign_op(sequence: u64, body: &[u8]) -> Op<Bytes> {
    let dot = Dot::new(Origin::new(RegionId::of("us"), 7), sequence);
    let hlc = Hlc::from_ms(1_700_000_000_000 + sequence);
    Op { header: Header { dot, hlc, deps: Default::default() }, body: Bytes::copy_from_slice(body) }
}

fn body(key: &[u8], effect: &Effect<'_>) -> Vec<u8> {
    let mut body = BodyBuilder::default();
    body.push(effect);
    body.finish_key(0, key);
    body.body().to_vec()
}

fn assign<'a>(value: &'a [u8]) -> Effect<'a> {
    Effect::Assign { value, baseline: Default::default() }
}

/// Bodies that no region writes: cut short, nonsense, and names that no row of the store can hold.
fn unfit_bodies() -> Vec<Vec<u8>> {
    let whole = body(b"key", &assign(b"value"));
    let huge = vec![b'x'; 70_000];
    let removed = ElementBaseline { facet: Facet::Hash, element: &huge, baseline: Default::default() };
    vec![
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"more"].concat(),
        vec![0xff; 40],
        // A whole change of database 0, key "key", one effect of three bytes; and one with a second effect.
        [&[0, 3][..], b"key", &[1, 3], &[0xff; 3]].concat(),
        [&[0, 3][..], b"key", &[2, 4, 12], &[0xff; 3]].concat(),
        body(&huge, &assign(b"value")),
        body(&huge[..40_000], &Effect::MemberAdd { member: &huge[..40_000] }),
        body(b"key", &Effect::FieldAssign { field: &huge, value: b"v", baseline: Default::default() }),
        body(b"key", &Effect::Clear { facets: 15, deadline: true, baselines: vec![removed] }),
    ]
}

#[tokio::test]
async fn q3_an_op_that_cannot_be_applied_is_parked_and_stops_nothing() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "always", "");
    let mut applier = Applier::new(Default::default());
    let unfit = unfit_bodies();
    let mut sequence = 0;
    for unfit in &unfit {
        for body in [unfit, &body(format!("after{sequence}").as_bytes(), &assign(b"here"))] {
            sequence += 1;
            applier.apply(&region, &foreign_op(sequence, body)).await.unwrap();
        }
    }
    let parked = unfit.len() as u64;
    assert_eq!(region.metrics().ops.parked_ops.get(), parked);
    let everything = |region: &Region| {
        assert_eq!(ask(region, "DBSIZE"), Value::Int(i64::try_from(parked).unwrap()));
        assert_eq!(ask(region, &format!("GET after{}", 2 * parked - 2)), bulk("here"));
        let origin = Origin::new(RegionId::of("us"), 7);
        assert_eq!(region.sequencer().applied().get(&origin), 2 * parked);
    };
    // Once from the log alone, once with the store's help.
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "always", "");
    assert_eq!(region.recovered().replayed, 2 * parked);
    everything(&region);
    assert!(region.committer().commit_now().await, "the store still takes commits");
    threads.stop().unwrap();
    drop(region);
    let (region, threads) = open(directory.path(), "always", "");
    assert_eq!(region.recovered().replayed, 0);
    everything(&region);
    applier.apply(&region, &foreign_op(2 * parked + 1, &body(b"last", &assign(b"1")))).await.unwrap();
    assert_eq!(ask(&region, "GET last"), bulk("1"));
    threads.stop().unwrap();
}

/// A round of the committer, stopped after each of its steps while everything is flushed.
#[test]
fn a_flush_sees_keys_that_a_commit_has_taken_and_not_written_yet() {
    for step in 0..3 {
        let directory = TempDir::new().unwrap();
        let (region, threads) = open(directory.path(), "never", "");
        ask(&region, "SET a 1");
        ask(&region, "SADD s m");
        let (keyspace, mut batch) = (region.keyspace(), Batch::new());
        let mut round = keyspace.begin_round(keyspace.stored_counts().unwrap());
        while step > 0 && keyspace.fill_batch(&mut round, &mut batch, &Hlc::default).unwrap() {
            if step > 1 {
                keyspace.store().commit(&batch).unwrap();
            }
        }
        ask(&region, "SET b 1");
        ask(&region, "FLUSHALL");
        assert_eq!(ask(&region, "EXISTS a s b"), Value::Int(0), "step {step}");
        assert_eq!(ask(&region, "DBSIZE"), Value::Int(0), "step {step}");
        threads.stop().unwrap();
    }
}

#[tokio::test]
async fn d3_what_only_remembers_leaves_the_store_and_no_row_finds_it_any_more() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "never", "");
    for line in ["INCRBY n 1", "HINCRBY h f 1", "ZINCRBY z 1 m", "HSET stays f v", "HINCRBY stays n 1"] {
        ask(&region, line);
    }
    for line in
        ["DEL n", "HDEL h f", "ZREM z m", "HDEL stays n", "SET s v PX 1", "SADD set m", "PEXPIRE set 1"]
    {
        ask(&region, line);
    }
    // The deadline of a key that is written again and again has one row.
    for n in 0..3 {
        ask(&region, &format!("SET hot v PXAT {}", region.wall().0 + 1_000_000 + n));
        region.commit_all().await.unwrap();
    }
    let rows = || {
        let mut rows = Vec::new();
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let mut visit = |key: &[u8], _: &[u8]| {
            rows.push(char::from(key[0]));
            std::ops::ControlFlow::Continue(())
        };
        region.keyspace().store().scan(all, usize::MAX, &mut visit).unwrap();
        rows.into_iter().collect::<String>()
    };
    assert_eq!(rows().matches('s').count(), 4, "{}", rows());
    assert_eq!(rows().matches('d').count(), 3, "{}", rows());
    region.set_settled(Settled { alone: true, ..Settled::default() });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    // A due row, an element, the counts, and two heads.
    while rows() != "demoo" {
        assert!(std::time::Instant::now() < deadline, "{}", rows());
        region.commit_all().await.unwrap();
    }
    assert_eq!(ask(&region, "DBSIZE"), Value::Int(2));
    assert_eq!(ask(&region, "HGET stays f"), bulk("v"));
    assert_eq!(ask(&region, "INCR n"), Value::Int(1));
    threads.stop().unwrap();
}

#[tokio::test]
async fn k3_stamps_rise_over_a_crash_under_everysec_though_the_clock_steps_back() {
    let directory = TempDir::new().unwrap();
    let (region, threads) = open(directory.path(), "everysec", "");
    let hour = WallMs(region.wall().0 + 3_600_000);
    // What was told while nobody wrote is kept in a file, what ops were stamped with in the log.
    let told = region.sequencer().progress_at(hour).1;
    ClockFile::of(&region.settings().data_dir).store(told).unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "everysec", "");
    ask(&region, "SET k v");
    let stamped = region.sequencer().progress().1;
    assert!(stamped > told);
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(directory.path(), "everysec", "");
    ask(&region, "SET k w");
    assert!(region.sequencer().progress().1 > stamped);
    threads.stop().unwrap();
}
