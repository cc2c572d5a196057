//! Processes that stand still and links that carry one way only.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, is_full, until, wait_for};

fn options(shape: Shape, regions: usize) -> Options {
    Options { heal_after: "1s", ..Options::new(shape, regions) }
}

/// Writes a key at each region of `among` and waits until all of them show it; how long that took.
fn spreads(cluster: &Cluster, key: &str, among: &[usize]) -> Duration {
    let began = Instant::now();
    for from in among {
        let key = format!("{key}:{from}");
        cluster.client(*from).ok(&["SET", &key, "v"]);
        for to in among {
            let mut client = cluster.client(*to);
            wait_for(&format!("{key} at {}", cluster.name(*to)), PATIENCE, || client.maybe(&["GET", &key]));
        }
    }
    began.elapsed()
}

#[test]
fn a_region_that_stands_still_holds_up_nobody_and_goes_on() {
    let pause = Duration::from_secs(if is_full() { 10 } else { 4 });
    let cluster = Cluster::start(options(Shape::Ring, 4));
    let done = AtomicBool::new(false);
    let counted: i64 = std::thread::scope(|scope| {
        let count = |i: usize| {
            let (address, done) = (cluster.resp_address(i), &done);
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let mut counted = 0;
                // Whoever asks a region that stands still waits, and is answered.
                while !done.load(Relaxed) {
                    client.int(&["INCR", "counter"]);
                    counted += 1;
                }
                counted
            })
        };
        let counting: Vec<_> = cluster.all().map(count).collect();
        for i in cluster.all() {
            cluster.suspend(i);
            let over = Instant::now() + pause;
            let others: Vec<usize> = cluster.all().filter(|other| *other != i).collect();
            let took = spreads(&cluster, &format!("without:{i}"), &others);
            println!("without {}: three writes reach three regions after {took:?}", cluster.name(i));
            assert!(took < Duration::from_secs(10), "{took:?}");
            until(over);
            cluster.resume(i);
            spreads(&cluster, &format!("again:{i}"), &[0, 1, 2, 3]);
        }
        done.store(true, Relaxed);
        counting.into_iter().map(|counting| counting.join().unwrap()).sum()
    });
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["INCRBY", "counter", "0"]), counted, "at {}", cluster.name(i));
    }
}

#[test]
fn a_link_that_carries_one_way_only_is_gone_around() {
    for (from, to) in [(0, 1), (1, 0)] {
        let cluster = Cluster::start(options(Shape::Mesh, 3));
        cluster.cut_one_way(from, to);
        let took = spreads(&cluster, "cut", &[0, 1, 2]);
        println!("nothing from {from} to {to}: all three writes everywhere after {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        cluster.mend_all();
        cluster.await_links();
        spreads(&cluster, "mended", &[0, 1, 2]);
        cluster.await_converged(PATIENCE);
    }
}
