//! `kill -9` of any region at any moment, under `sync = "always"`: what was acknowledged stays, and no
//! number is ever used for two ops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use meridian_proxy::link::relay::Conditions;
use meridian_proxy::resp::Value;

use crate::fold::fold;
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, scale, wait_for};
use crate::load::Random;

/// Connections that write to each region.
const WRITERS: usize = 2;

/// What a writer knows for certain, and what it only tried.
#[derive(Default)]
struct Record {
    acknowledged: Vec<String>,
    increments_tried: i64,
    increments_acknowledged: i64,
}

/// What is going on, for the one who kills.
struct Watch {
    done: AtomicBool,
    /// Acknowledged writes by region.
    progress: Vec<AtomicU64>,
}

impl Watch {
    fn total(&self) -> u64 {
        self.progress.iter().map(|p| p.load(Relaxed)).sum()
    }
}

/// Writes until told to end, over as many connections as that takes.
fn write(address: std::net::SocketAddr, id: &str, progress: &AtomicU64, done: &AtomicBool) -> Record {
    let mut record = Record::default();
    let mut n = 0u64;
    while !done.load(Relaxed) {
        // While the region is down there is nothing to do until it is back.
        let Some(mut client) = Client::connect_until(address, done) else { break };
        while !done.load(Relaxed) {
            n += 1;
            let key = format!("{id}:{n}");
            match client.try_call(&["SET", &key, &key]) {
                Ok(reply) => assert_eq!(reply, Value::Simple(b"OK".to_vec()), "{key}"),
                Err(_) => break,
            }
            record.acknowledged.push(key);
            progress.fetch_add(1, Relaxed);
            record.increments_tried += 1;
            match client.try_call(&["INCR", "counter"]) {
                Ok(reply) => assert!(matches!(reply, Value::Int(_)), "{reply:?}"),
                Err(_) => break,
            }
            record.increments_acknowledged += 1;
        }
    }
    record
}

/// Kills and restarts regions in `rounds`, at moments that the load decides. Returns the number of kills.
fn kill_about(cluster: &mut Cluster, watch: &Watch, rounds: usize, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut kills = 0;
    for round in 0..rounds {
        let until = watch.total() + random.below(150);
        wait_for("writes", PATIENCE, || (watch.total() >= until).then_some(()));
        let victim = usize::try_from(random.below(cluster.all().len() as u64)).unwrap();
        cluster.kill9(victim);
        kills += 1;
        match random.below(5) {
            // In the middle of its start.
            0 => {
                cluster.spawn(victim);
                cluster.kill9(victim);
                kills += 1;
            }
            // As soon as it serves, while it catches up.
            1 => {
                cluster.restart(victim);
                cluster.kill9(victim);
                kills += 1;
            }
            // Together with all others.
            2 => {
                let others: Vec<usize> = cluster.all().filter(|i| *i != victim).collect();
                others.iter().for_each(|other| cluster.kill9(*other));
                others.iter().for_each(|other| cluster.restart(*other));
                kills += others.len();
            }
            // After the others have gone on.
            _ => {
                let until = watch.total() + random.below(100);
                wait_for("writes elsewhere", PATIENCE, || (watch.total() >= until).then_some(()));
            }
        }
        cluster.restart(victim);
        if round % 20 == 19 {
            println!("{kills} kills, {} writes", watch.total());
        }
    }
    kills
}

fn survives_kills(shape: Shape, rounds: usize, seed: u64) {
    let line = Conditions {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
        loss_ppm: 5_000,
        ..Conditions::default()
    };
    let mut cluster = Cluster::start(Options { conditions: line, ..Options::new(shape, 3) });
    let watch =
        Watch { done: AtomicBool::new(false), progress: cluster.all().map(|_| AtomicU64::new(0)).collect() };
    let (kills, records): (usize, Vec<Record>) = std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for i in cluster.all() {
            let address = cluster.resp_address(i);
            for writer in 0..WRITERS {
                let id = format!("{}{writer}", cluster.name(i));
                let watch = &watch;
                writers.push(scope.spawn(move || write(address, &id, &watch.progress[i], &watch.done)));
            }
        }
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            kill_about(&mut cluster, &watch, rounds, seed)
        }));
        watch.done.store(true, Relaxed);
        let records = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        match killed {
            Ok(kills) => (kills, records),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    cluster.await_links();
    let took = cluster.await_converged(PATIENCE);
    check(&cluster, &records);
    let writes: usize = records.iter().map(|r| r.acknowledged.len()).sum();
    println!("{shape:?}: {kills} kills, {writes} writes, equal after {took:?}, nothing lost");
    for i in cluster.all() {
        cluster.stop(i);
    }
    no_number_was_used_twice(&cluster);
}

fn check(cluster: &Cluster, records: &[Record]) {
    let tried: i64 = records.iter().map(|r| r.increments_tried).sum();
    let acknowledged: i64 = records.iter().map(|r| r.increments_acknowledged).sum();
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for chunk in records.iter().flat_map(|r| r.acknowledged.chunks(500)) {
            let mut command = vec!["MGET"];
            command.extend(chunk.iter().map(String::as_str));
            let reply = client.call(&command);
            for (key, value) in chunk.iter().zip(reply.elements().unwrap()) {
                assert_eq!(value.text(), Some(key.as_str()), "{key} at {}", cluster.name(i));
            }
        }
        let counter = client.int(&["GET", "counter"]);
        assert!((acknowledged..=tried).contains(&counter), "{acknowledged} <= {counter} <= {tried}");
    }
}

/// The ops that the regions' logs, over all their lives, have under one dot are one op.
pub fn no_number_was_used_twice(cluster: &Cluster) {
    let mut known = BTreeMap::new();
    for i in cluster.all() {
        for (dot, record) in fold(&cluster.archived(i), cluster.name(i)).records {
            let first = known.entry(dot).or_insert_with(|| record.clone());
            assert_eq!(*first, record, "{dot:?} at {}", cluster.name(i));
        }
    }
}

#[test]
fn a_mesh_survives_kills() {
    survives_kills(Shape::Mesh, 6 * scale().min(17), 1);
}

#[test]
fn a_ring_survives_kills() {
    survives_kills(Shape::Ring, 6 * scale().min(17), 2);
}
