//! From a write's sending at one region to its being visible at another.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::Bench;
use crate::client::{Client, put};
use crate::cluster::{Cluster, Sync};
use crate::report::{Bar, Row, Spread};

/// 10,000 writes a second.
const INTERVAL: Duration = Duration::from_micros(100);

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let writes = if bench.quick { 20_000 } else { 50_000 };
    let cluster = Cluster::start(bench, 2, Sync::Everysec)?;
    let (mut median, mut high) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        let mut lags = measure(&cluster, writes, &format!("lag:{round}"))?;
        cluster.rest()?;
        // The first warms up.
        if round > 0 {
            median.push(percentile(&mut lags, 0.50)?);
            high.push(percentile(&mut lags, 0.99)?);
        }
    }
    cluster.settle()?;
    let workload = "lag on loopback at 10,000 ops/s";
    Ok(vec![
        Row::plain(&format!("{workload}, p50"), "ms", Spread::of(median), Bar::AtMost(1.0, 0.3)),
        Row::plain(&format!("{workload}, p99"), "ms", Spread::of(high), Bar::AtMost(5.0, 1.0)),
    ])
}

/// The lag of each write, in milliseconds.
///
/// Writes carry their number; a reader polls the key at the other region. When it sees a number, all
/// writes up to it that it had not seen have become visible since its last look, and are given the whole
/// time until now: what is measured is the lag and at most one poll more.
fn measure(cluster: &Cluster, writes: usize, key: &str) -> anyhow::Result<Vec<f64>> {
    let began = Instant::now();
    let micros = move || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..writes).map(|_| AtomicU64::new(0)).collect());
    let client = cluster.first()?.server.client()?;
    let mut stream = client.writer()?;
    let writer = thread::spawn({
        let (sent, key) = (Arc::clone(&sent), key.to_owned());
        move || -> anyhow::Result<()> {
            let mut command = Vec::new();
            for (number, at) in sent.iter().enumerate() {
                pause_until(began + INTERVAL * u32::try_from(number)?);
                command.clear();
                put(&mut command, &[b"SET", key.as_bytes(), format!("{number:064}").as_bytes()]);
                at.store(micros(), Ordering::Release);
                stream.write_all(&command)?;
            }
            Ok(())
        }
    });
    thread::spawn(move || client.discard());
    let mut reader = cluster.second()?.server.client()?;
    let mut lags = Vec::with_capacity(writes);
    while lags.len() < writes {
        let seen = number(&mut reader, key)?.map_or(0, |number| number + 1);
        let now = micros();
        for at in sent.get(lags.len()..seen).unwrap_or_default() {
            lags.push(now.saturating_sub(at.load(Ordering::Acquire)) as f64 / 1e3);
        }
        if writer.is_finished()
            && lags.len() < writes
            && began.elapsed() > INTERVAL * 4 * u32::try_from(writes)?
        {
            break;
        }
    }
    writer.join().map_err(|_| anyhow!("the writer ended badly"))??;
    if lags.len() < writes {
        return Err(anyhow!("{} of {writes} writes became visible", lags.len()));
    }
    Ok(lags)
}

fn number(reader: &mut Client, key: &str) -> anyhow::Result<Option<usize>> {
    let reply = reader.call(&[b"GET", key.as_bytes()])?;
    if reply.is_null() {
        return Ok(None);
    }
    let number = reply.text().and_then(|text| text.parse().ok());
    Ok(Some(number.context("a value that was not written")?))
}

/// Paces a client.
pub fn pause_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// Of values in any order.
pub fn percentile(values: &mut [f64], share: f64) -> anyhow::Result<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().context("nothing was measured")
}
