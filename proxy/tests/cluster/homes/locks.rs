//! Locks by `SET NX PX` while links are cut and homes change: no two clients ever hold one at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_proxy::resp::Value;

use super::{await_leases, homes, rule, start_with};
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, scale, until, wait_for};
use crate::load::Random;

/// How long a lock is held: it is never given back, it runs out.
const HELD_MS: u64 = 150;

const LOCKS: u64 = 5;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_millis(400);

/// A lock that a client was told to have.
#[derive(Debug)]
struct Grant {
    lock: u64,
    /// When it was told.
    from: Instant,
    /// Until when it may count on it: from when it asked.
    until: Instant,
    region: usize,
}

struct Taker<'a> {
    cluster: &'a Cluster,
    region: usize,
    random: Random,
    tokens: &'a AtomicU64,
    stop: &'a AtomicBool,
    /// A lock counts only once another region has it: what a home that is lost had told nobody, is lost with it.
    waits: bool,
}

impl Taker<'_> {
    fn run(mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(mut client) = self.cluster.try_client(self.region) else { continue };
            while !self.stop.load(Ordering::Relaxed) {
                match self.take(&mut client) {
                    Ok(grant) => grants.extend(grant),
                    Err(_) => break,
                }
            }
        }
        grants
    }

    fn take(&mut self, client: &mut Client) -> std::io::Result<Option<Grant>> {
        let lock = self.random.below(LOCKS);
        let token = self.tokens.fetch_add(1, Ordering::Relaxed).to_string();
        let asked = Instant::now();
        let key = format!("lock:{lock}");
        let reply = client.try_call(&["SET", &key, &token, "NX", "PX", &HELD_MS.to_string()])?;
        match reply {
            Value::Simple(_) => {}
            Value::Error(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(text.starts_with("HOME ") || text.starts_with("UNCERTAIN "), "{text}");
                return Ok(None);
            }
            _ => return Ok(None),
        }
        if self.waits {
            let had = client.try_call(&["WAIT", "1", &HELD_MS.to_string()])?;
            if had == Value::Int(0) {
                return Ok(None);
            }
        }
        // Deadlines are of whole milliseconds, rounded down.
        let (from, until) = (Instant::now(), asked + Duration::from_millis(HELD_MS - 1));
        Ok((from < until).then_some(Grant { lock, from, until, region: self.region }))
    }
}

/// Takers in all regions while `faults` does its work; what they were granted.
fn storm(
    cluster: &Cluster,
    seconds: u64,
    waits: bool,
    faults: impl FnOnce(&mut Random, Instant),
) -> Vec<Grant> {
    let (stop, tokens) = (AtomicBool::new(false), AtomicU64::new(1));
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..6)
            .map(|n| {
                let random = Random::new(n as u64 + 1);
                let (stop, tokens) = (&stop, &tokens);
                let taker = Taker { cluster, region: n % 3, random, tokens, stop, waits };
                scope.spawn(move || taker.run())
            })
            .collect();
        let ends = Instant::now() + Duration::from_secs(seconds * scale() as u64);
        faults(&mut Random::new(99), ends);
        cluster.mend_all();
        stop.store(true, Ordering::Relaxed);
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    })
}

fn check(mut grants: Vec<Grant>) {
    grants.sort_by_key(|grant| (grant.lock, grant.from));
    for pair in grants.windows(2).filter(|pair| pair[0].lock == pair[1].lock) {
        assert!(pair[0].until <= pair[1].from, "two held a lock at a time: {pair:?}");
    }
    for region in 0..3 {
        let had = grants.iter().filter(|grant| grant.region == region).count();
        assert!(had > 5, "{had} grants in region {region} of {}", grants.len());
    }
    println!("{} grants", grants.len());
}

fn options() -> Options {
    let mut rules = rule("lock:*", "a", "forward", "900ms");
    rules = rules.replace("timeout = \"2s\"", "timeout = \"700ms\"");
    Options { heal_after: "300ms", extra: rules, ..Options::new(Shape::Mesh, 3) }
}

fn cut_some(cluster: &Cluster, random: &mut Random) {
    match random.below(4) {
        0 => cluster.mend_all(),
        1 => {
            let from = random.below(3) as usize;
            cluster.cut_one_way(from, (from + 1) % 3);
        }
        _ => {
            let one = random.below(3) as usize;
            cluster.cut(one, (one + 1) % 3);
        }
    }
}

#[test]
fn a_lock_is_never_granted_twice_whatever_is_cut() {
    let cluster = start_with(options());
    let grants = storm(&cluster, 8, false, |random, ends| {
        while Instant::now() < ends {
            cut_some(&cluster, random);
            until(Instant::now() + FAULT);
        }
    });
    check(grants);
    cluster.await_converged(PATIENCE);
}

#[test]
fn a_lock_that_another_region_has_is_never_granted_twice_though_homes_are_taken() {
    let cluster = start_with(options());
    let mut changes = 0;
    let grants = storm(&cluster, 15, true, |random, ends| {
        while Instant::now() < ends || (changes < 3 && Instant::now() < ends + PATIENCE) {
            // Mostly the home itself is lost.
            let home = homes(&cluster, 0)[0].1.clone();
            let home = cluster.all().find(|i| cluster.name(*i) == home).unwrap();
            let lost = if random.below(4) > 0 { home } else { random.below(3) as usize };
            cluster.cut(lost, (lost + 1) % 3);
            cluster.cut(lost, (lost + 2) % 3);
            let at = (lost + 1 + random.below(2) as usize) % 3;
            // It may be the home already, or lack votes.
            let taken = cluster.client(at).call(&["MERIDIAN.HOME", "TAKE", "lock:*"]);
            changes += u64::from(!taken.is_error());
            cluster.mend_all();
            until(Instant::now() + FAULT);
            let to = ["a", "b", "c"][random.below(3) as usize];
            let moved = cluster.client(at).call(&["MERIDIAN.HOME", "MOVE", "lock:*", to]);
            changes += u64::from(!moved.is_error());
            cut_some(&cluster, random);
            until(Instant::now() + FAULT);
            cluster.mend_all();
        }
    });
    assert!(changes > 2, "{changes} changes of the home");
    check(grants);
    wait_for("a lease", PATIENCE, || {
        let took = cluster.client(0).call(&["SET", "lock:end", "x"]);
        (!took.is_error()).then_some(())
    });
    await_leases(&cluster);
    cluster.await_converged(PATIENCE);
}
