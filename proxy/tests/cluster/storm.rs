//! A storm: random cuts, losses and kills under a mixed load, whose history is checked afterwards.
//! `MERIDIAN_TEST_SCALE=full` makes it ten minutes for each shape.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;
use meridian_proxy::resp;

use crate::harness::{Client, Cluster, Options, Shape, is_full, scale, until as until_time};
use crate::history::{Call, Session, check};
use crate::load::Random;

const KEYS: u64 = 6;
const COUNTERS: u64 = 3;

/// How long after the last fault all regions may still differ.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

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
    /// Fields and scored members that were acknowledged: each is written once.
    fields: BTreeMap<String, String>,
    scores: BTreeMap<String, String>,
    /// Calls that were answered.
    answered: u64,
}

/// The faults there were.
#[derive(Debug, Default)]
struct Faults {
    cuts: u64,
    one_way_cuts: u64,
    mends: u64,
    losses: u64,
    kills: u64,
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
            while !self.stop.load(Ordering::Relaxed) && self.step(&mut client).is_ok() {
                self.report.answered += 1;
            }
        }
        self.report
    }

    /// One call. An error of the connection, or of the region, ends the connection.
    fn step(&mut self, client: &mut Client) -> Result<(), ()> {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let key = self.random.below(KEYS);
        match self.random.below(11) {
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
            9 => {
                let (field, text) = (format!("field:{value}"), value.to_string());
                ask(client, &["HSET", "hash", &field, &text])?;
                self.report.fields.insert(field, text);
                Ok(())
            }
            _ => {
                let (member, score) = (format!("member:{value}"), value.to_string());
                ask(client, &["ZADD", "sorted", &score, &member])?;
                self.report.scores.insert(member, score);
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
fn rage(cluster: &mut Cluster, random: &mut Random, until: Instant) -> Faults {
    let (mut faults, mut kills) = (Faults::default(), Vec::<(usize, Instant)>::new());
    let count = cluster.all().len() as u64;
    while Instant::now() < until {
        let a = random.below(count) as usize;
        let b = (a + 1 + random.below(count - 1) as usize) % count as usize;
        match random.below(5) {
            0 => {
                cluster.cut(a, b);
                faults.cuts += 1;
            }
            1 => {
                cluster.mend_all();
                faults.mends += 1;
            }
            2 => {
                cluster.cut_one_way(a, b);
                faults.one_way_cuts += 1;
            }
            3 => {
                faults.losses += 1;
                let loss_ppm = 50_000 * random.below(4) as u32;
                cluster.conditions(a, b, Conditions { loss_ppm, ..Conditions::default() });
            }
            _ if cluster.is_up(a) => {
                cluster.kill9(a);
                faults.kills += 1;
                kills.push((a, Instant::now() + Duration::from_millis(random.below(2_000))));
            }
            _ => {}
        }
        until_time(Instant::now() + Duration::from_millis(100 + random.below(500)));
        let (due, later): (Vec<_>, Vec<_>) = kills.into_iter().partition(|(_, at)| *at <= Instant::now());
        kills = later;
        due.iter().for_each(|(i, _)| cluster.spawn(*i));
    }
    cluster.mend_all();
    kills.iter().for_each(|(i, _)| cluster.spawn(*i));
    faults
}

fn storm(shape: Shape, seed: u64, length: Duration) {
    let options = Options { heal_after: "1s", ..Options::new(shape, 4) };
    let mut cluster = Cluster::start(options);
    let (values, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    // The workers know addresses alone: faults need the cluster for themselves.
    let addresses: Vec<SocketAddr> = cluster.all().map(|i| cluster.resp_address(i)).collect();
    let (faults, reports): (Faults, Vec<Report>) = std::thread::scope(|scope| {
        let (values, stop) = (&values, &stop);
        let workers: Vec<_> = (0..2 * addresses.len())
            .map(|number| {
                let region = addresses[number % addresses.len()];
                let random = Random::new(seed ^ ((number as u64 + 1) << 8));
                let worker = Worker { region, random, values, stop, report: Report::default() };
                scope.spawn(move || worker.run())
            })
            .collect();
        let faults = rage(&mut cluster, &mut Random::new(seed), Instant::now() + length);
        stop.store(true, Ordering::Relaxed);
        (faults, workers.into_iter().map(|worker| worker.join().unwrap()).collect())
    });
    let calm = Instant::now();
    for i in cluster.all() {
        cluster.await_ready_of(i);
    }
    cluster.await_converged(SETTLE_WITHIN.saturating_sub(calm.elapsed()));
    let answered: u64 = reports.iter().map(|report| report.answered).sum();
    println!("{shape:?}, {length:?}: {answered} calls answered, {faults:?}");
    println!("{shape:?}: equal {:?} after the last fault", calm.elapsed());
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
        for (member, score) in &report.scores {
            assert_eq!(client.maybe(&["ZSCORE", "sorted", member]).as_ref(), Some(score), "{member}");
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

fn length() -> Duration {
    if is_full() { Duration::from_secs(600) } else { Duration::from_secs(15 * scale() as u64) }
}

#[test]
fn a_ring_weathers_a_storm() {
    storm(Shape::Ring, 1, length());
}

#[test]
fn a_mesh_weathers_a_storm() {
    storm(Shape::Mesh, 2, length());
}

#[test]
fn a_star_weathers_a_storm() {
    storm(Shape::Star, 3, length());
}
