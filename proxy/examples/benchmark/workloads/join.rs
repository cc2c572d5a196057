//! A new region joins two that are under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::lag::{pause_until, percentile};
use crate::Bench;
use crate::cluster::{Cluster, Region, Sync, vector};
use crate::load::{VALUE_BYTES, fill};
use crate::process::PATIENCE;
use crate::report::{Bar, Row, Side};

/// 5,000 writes a second at each region.
const INTERVAL: Duration = Duration::from_micros(200);

/// How long writes are measured before the region joins.
const CALM: Duration = Duration::from_secs(5);

/// Between two looks at the region that joins.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Two regions hold the keys and are written to; the third, which has nothing, is started. Ready is
/// when it serves clients and has all that the others had when it was started.
pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = if bench.quick { 100_000 } else { 1_000_000 };
    let mut cluster = Cluster::start_without_last(bench, 3, Sync::Everysec)?;
    fill(&mut cluster.first()?.server.client()?, 0, keys)?;
    cluster.rest()?;
    let before = write_while(&cluster, keys, |_| {
        thread::sleep(CALM);
        Ok(())
    })?;
    let sent = cluster.bytes_sent()?;
    let mut took = Duration::ZERO;
    let (mut joined, mut live) = (None, 0.0);
    let during = write_while(&cluster, keys, |cluster| {
        let began = Instant::now();
        let wanted = vector(&mut cluster.first()?.server.client()?)?;
        let region = cluster.start_absent(bench)?;
        let deadline = began + PATIENCE;
        let mut client = region.server.client()?;
        loop {
            let has = vector(&mut client)?;
            if wanted.iter().all(|(origin, sequence)| has.get(origin).is_some_and(|has| has >= sequence)) {
                break;
            }
            if Instant::now() >= deadline {
                bail!("the region does not catch up: {has:?} of {wanted:?}");
            }
            thread::sleep(LOOK_EVERY);
        }
        while client.call(&[b"GET", b"started"]).is_err() {
            thread::sleep(LOOK_EVERY);
        }
        joined = Some(region);
        took = began.elapsed();
        live = cluster.bytes_sent()? - sent;
        Ok(())
    })?;
    let joined = joined.context("nobody joined")?;
    joined.server.client()?.call(&[b"SET", b"started", b"last"])?;
    cluster.regions.push(joined);
    let began = Instant::now();
    cluster.settle()?;
    let settled = began.elapsed().as_secs_f64();
    let donor = cluster.first()?.server.peak_memory()?;
    let newcomer = cluster.regions.last().context("a cluster of none")?.server.peak_memory()?;
    let what = format!("a region joins two with {keys} keys, 5,000 writes/s at each");
    let peaks = Side { peak: Some(donor.max(newcomer)), ..Side::default() };
    let row = |name: &str, unit: &str, value: f64| Row {
        ours: peaks,
        ..Row::plain(&format!("{what}: {name}"), unit, value, Bar::None)
    };
    Ok(vec![
        row("until it has and serves what there was", "s", took.as_secs_f64()),
        row("from the last write until all are equal", "s", settled),
        row("p99 of writes at the others before", "ms", before.p99),
        row("p99 of writes at the others meanwhile", "ms", during.p99),
        row("writes that each of the others took meanwhile", "ops/s", during.rate),
        row("sent by the others meanwhile", "MiB", live / f64::from(1 << 20)),
        row("peak memory of the first", "MiB", donor as f64 / f64::from(1 << 20)),
        row("peak memory of the one that joins", "MiB", newcomer as f64 / f64::from(1 << 20)),
    ])
}

/// What the writers saw.
struct Written {
    /// In milliseconds.
    p99: f64,
    /// At each region, a second.
    rate: f64,
}

/// Writes to the running regions at a fixed pace while `work` is done.
fn write_while(
    cluster: &Cluster,
    keys: usize,
    work: impl FnOnce(&Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<Written> {
    let began = Instant::now();
    let stop = AtomicBool::new(false);
    let mut times = thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let writers: Vec<_> =
            cluster.regions.iter().map(|region| scope.spawn(|| write(region, keys, &stop))).collect();
        let worked = work(cluster);
        stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for writer in writers {
            times.extend(writer.join().map_err(|_| anyhow!("a writer ended badly"))??);
        }
        worked.map(|()| times)
    })?;
    if times.is_empty() {
        bail!("nothing was written");
    }
    let rate = times.len() as f64 / cluster.regions.len() as f64 / began.elapsed().as_secs_f64();
    Ok(Written { p99: percentile(&mut times, 0.99)?, rate })
}

/// Writes until told to stop, each at its time or as soon after it as the one before is answered; how
/// long each took to be answered.
fn write(region: &Region, keys: usize, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut client = region.server.client()?;
    let began = Instant::now();
    let mut times = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        pause_until(began + INTERVAL * u32::try_from(number)?);
        let key = format!("key:{:012}", number * 7_919 % keys);
        let asked = Instant::now();
        client.call(&[b"SET", key.as_bytes(), &[b'y'; VALUE_BYTES]])?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        number += 1;
    }
    Ok(times)
}
