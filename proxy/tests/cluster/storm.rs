//! A storm: random cuts, losses and kills under a mixed load, whose history is checked afterwards.
//! `MERIDIAN_TEST_SCALE=full` makes it ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;
use meridian_proxy::resp;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, scale, until as until_time};
use crate::history::{Call, Session, check};
use crate::load::Random;

const KEYS: u64 = 6;
const COUNTERS: u64 = 3;

/// What one client did and was told.
#[derive(Default)]
struct Report {
    session: Session,
    /// Elements whose addition was acknowledged, and those that may have been added.
    added: BTreeSet<String>,
    perhaps_added: BTreeSet<String>,
    /// What was acknowledged to be added to each counter, and what may have been on top.
    counted: BTreeMap<String, i64>,
    perhaps_counted: BTreeMap<String, i64>,
    /// Fields that were acknowledged: each is written once.
    fields: BTreeMap<String, String>,
}

struct Worker<'a> {
    region: SocketAddr,
    random: Random,
    values: &'a AtomicU64,
    stop: &'a AtomicBool,
    report: Report,
}

impl Worker<'_> {
    fn run(mut self) -> Report {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(mut client) = Client::connect_until(self.region, self.stop) else { break };
            while !self.stop.load(Ordering::Relaxed) && self.step(&mut client).is_ok() {}
        }
        self.report
    }

    /// One call. An error of the connection, or of the region, ends the connection.
    fn step(&mut self, client: &mut Client) -> Result<(), ()> {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let key = self.random.below(KEYS);
        match self.random.below(10) {
            0..3 => {
                let done = ask(client, &["SET", &format!("key:{key}"), &value.to_string()]);
                let key = usize::try_from(key).unwrap();
                self.report.session.push(Call::Write { key, value, acknowledged: done.is_ok() });
                done.map(drop)
            }
            3..6 => {
                let read = ask(client, &["GET", &format!("key:{key}")])?;
                let value = match read {
                    resp::Value::Bulk(text) => Some(String::from_utf8(text).unwrap().parse().unwrap()),
                    _ => None,
                };
                self.report.session.push(Call::Read { key: usize::try_from(key).unwrap(), value });
                Ok(())
            }
            6 | 7 => {
                let counter = format!("counter:{}", key % COUNTERS);
                let done = ask(client, &["INCR", &counter]);
                let counted =
                    if done.is_ok() { &mut self.report.counted } else { &mut self.report.perhaps_counted };
                *counted.entry(counter).or_default() += 1;
                done.map(drop)
            }
            8 => {
                let element = value.to_string();
                let done = ask(client, &["SADD", "set", &element]);
                let added =
                    if done.is_ok() { &mut self.report.added } else { &mut self.report.perhaps_added };
                added.insert(element);
                done.map(drop)
            }
            _ => {
                let (field, text) = (format!("field:{value}"), value.to_string());
                ask(client, &["HSET", "hash", &field, &text])?;
                self.report.fields.insert(field, text);
                Ok(())
            }
        }
    }
}

fn ask(client: &mut Client, args: &[&str]) -> Result<resp::Value, ()> {
    match client.try_call(args) {
        Ok(reply) if !reply.is_error() => Ok(reply),
        _ => Err(()),
    }
}

/// One fault after the other until `until`. All is mended and every region runs at the end.
fn rage(cluster: &mut Cluster, random: &mut Random, until: Instant, kills: &mut Vec<(usize, Instant)>) {
    let count = cluster.all().len() as u64;
    while Instant::now() < until {
        let a = random.below(count) as usize;
        let b = (a + 1 + random.below(count - 1) as usize) % count as usize;
        match random.below(4) {
            0 => cluster.cut(a, b),
            1 => cluster.mend_all(),
            2 => {
                let loss_ppm = 50_000 * random.below(4) as u32;
                cluster.conditions(a, b, Conditions { loss_ppm, ..Conditions::default() });
            }
            _ if cluster.is_up(a) => {
                cluster.kill9(a);
                kills.push((a, Instant::now() + Duration::from_millis(random.below(2_000))));
            }
            _ => {}
        }
        until_time(Instant::now() + Duration::from_millis(100 + random.below(500)));
        let (due, later) = std::mem::take(kills).into_iter().partition(|(_, at)| *at <= Instant::now());
        *kills = later;
        let due: Vec<(usize, Instant)> = due;
        due.iter().for_each(|(i, _)| cluster.spawn(*i));
    }
    cluster.mend_all();
    kills.drain(..).for_each(|(i, _)| cluster.spawn(i));
}

fn storm(shape: Shape, seed: u64, length: Duration) {
    let options = Options { heal_after: "1s", ..Options::new(shape, 4) };
    let mut cluster = Cluster::start(options);
    let (values, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    // The workers know addresses alone: faults need the cluster for themselves.
    let addresses: Vec<SocketAddr> = cluster.all().map(|i| cluster.resp_address(i)).collect();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let (values, stop) = (&values, &stop);
        let workers: Vec<_> = (0..2 * addresses.len())
            .map(|number| {
                let region = addresses[number % addresses.len()];
                let random = Random::new(seed ^ ((number as u64 + 1) << 8));
                let worker = Worker { region, random, values, stop, report: Report::default() };
                scope.spawn(move || worker.run())
            })
            .collect();
        rage(&mut cluster, &mut Random::new(seed), Instant::now() + length, &mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let calm = Instant::now();
    for i in cluster.all() {
        cluster.await_ready_of(i);
    }
    cluster.await_converged(PATIENCE);
    println!("equal {:?} after the last fault", calm.elapsed());
    verify(&cluster, reports);
}

fn verify(cluster: &Cluster, reports: Vec<Report>) {
    let ends: Vec<BTreeMap<usize, u64>> = cluster
        .all()
        .map(|i| {
            let mut client = cluster.client(i);
            let shown = |key: u64| {
                let value = client.maybe(&["GET", &format!("key:{key}")])?;
                Some((usize::try_from(key).unwrap(), value.parse().unwrap()))
            };
            (0..KEYS).filter_map(shown).collect()
        })
        .collect();
    let mut client = cluster.client(0);
    let all = client.call(&["SMEMBERS", "set"]);
    let text = |member: &resp::Value| match member {
        resp::Value::Bulk(text) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let members: BTreeSet<String> = all.elements().unwrap().iter().map(text).collect();
    let calls: usize = reports.iter().map(|report| report.session.len()).sum();
    for report in &reports {
        let lost: Vec<_> = report.added.difference(&members).collect();
        assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
        for (field, value) in &report.fields {
            assert_eq!(client.maybe(&["HGET", "hash", field]).as_ref(), Some(value), "{field}");
        }
    }
    let tried: BTreeSet<&String> =
        reports.iter().flat_map(|r| r.added.iter().chain(&r.perhaps_added)).collect();
    assert!(members.iter().all(|member| tried.contains(member)));
    for counter in (0..COUNTERS).map(|n| format!("counter:{n}")) {
        let sum = |of: fn(&Report) -> &BTreeMap<String, i64>| -> i64 {
            reports.iter().filter_map(|report| of(report).get(&counter)).sum()
        };
        let (sure, perhaps) = (sum(|report| &report.counted), sum(|report| &report.perhaps_counted));
        let shown = client.int(&["INCRBY", &counter, "0"]);
        assert!((sure..=sure + perhaps).contains(&shown), "{counter}: {shown}, {sure} to {perhaps} more");
    }
    let sessions: Vec<Session> = reports.into_iter().map(|report| report.session).collect();
    if let Err(fault) = check(&sessions, &ends) {
        panic!("{fault:?}");
    }
    println!("{calls} calls of {} sessions are causally convergent", sessions.len());
}

#[test]
fn a_ring_weathers_a_storm() {
    storm(Shape::Ring, 1, Duration::from_secs(15 * scale() as u64));
}

#[test]
fn a_mesh_weathers_a_storm() {
    storm(Shape::Mesh, 2, Duration::from_secs(15 * scale() as u64));
}

#[test]
fn a_star_weathers_a_storm() {
    storm(Shape::Star, 3, Duration::from_secs(15 * scale() as u64));
}
