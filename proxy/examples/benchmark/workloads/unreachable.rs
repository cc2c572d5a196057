//! Local writes do not feel that peers are away.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::lag::{pause_until, percentile};
use crate::Bench;
use crate::cluster::{Cluster, Region, Sync};
use crate::load::VALUE_BYTES;
use crate::report::{Bar, Row, Spread};

/// 2,000 writes a second: the other regions have processor time left to apply them.
const INTERVAL: Duration = Duration::from_micros(500);

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let writes = if bench.quick { 6_000 } else { 20_000 };
    let cluster = Cluster::start(bench, 3, Sync::Everysec)?;
    let region = cluster.first()?;
    p99(region, writes / 4)?;
    let mut ratios = Vec::new();
    for _ in 0..bench.rounds {
        cluster.rest()?;
        let connected = p99(region, writes)?;
        cluster.rest()?;
        cluster.signal_peers(Signal::STOP)?;
        let alone = p99(region, writes);
        cluster.signal_peers(Signal::CONT)?;
        ratios.push(alone? / connected);
    }
    cluster.settle()?;
    let workload = "p99 of local writes, all peers unreachable against connected";
    Ok(vec![Row::plain(workload, "ratio", Spread::of(ratios), Bar::AtMost(1.1, 1.0))])
}

fn p99(region: &Region, writes: usize) -> anyhow::Result<f64> {
    let mut client = region.server.client()?;
    let began = Instant::now();
    let mut times = Vec::with_capacity(writes);
    for number in 0..writes {
        pause_until(began + INTERVAL * u32::try_from(number)?);
        let key = format!("key:{:012}", number % 1000);
        let asked = Instant::now();
        client.call(&[b"SET", key.as_bytes(), &[b'x'; VALUE_BYTES]])?;
        times.push(asked.elapsed().as_secs_f64());
    }
    percentile(&mut times, 0.99)
}
