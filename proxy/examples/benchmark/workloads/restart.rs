//! From the start of a process that has keys to its first reply.

use std::time::Instant;

use anyhow::{Context, bail};

use crate::Bench;
use crate::cluster::{Cluster, Region, Sync};
use crate::load::{VALUE_BYTES, fill};
use crate::report::{Bar, Row, Spread};

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = match (bench.huge, bench.quick) {
        (true, _) => 10_000_000,
        (false, true) => 200_000,
        (false, false) => 1_000_000,
    };
    let mut cluster = Cluster::start(bench, 1, Sync::Everysec)?;
    let region = cluster.regions.first_mut().context("a cluster of none")?;
    fill(&mut region.server.client()?, 0, keys)?;
    region.server.rest()?;
    let (mut stopped, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        region.server.stop()?;
        stopped.push(start(bench, region, keys)?);
        // So that there is something to recover.
        fill(&mut region.server.client()?, 0, keys / 10)?;
        region.server.kill();
        killed.push(start(bench, region, keys)?);
    }
    let bar = Bar::AtMost(5.0, 1.0);
    let workload = format!("restart with {keys} keys, to the first reply");
    let crash = format!("{workload}, killed under load");
    Ok(vec![
        Row::plain(&workload, "s", Spread::of(stopped), bar),
        Row::plain(&crash, "s", Spread::of(killed), bar),
    ])
}

/// Starts it and looks at keys at both ends. Seconds to the first reply.
fn start(bench: &Bench, region: &mut Region, keys: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    region.restart(bench)?;
    let seconds = began.elapsed().as_secs_f64();
    let mut client = region.server.client()?;
    for key in [0, keys - 1] {
        let reply = client.call(&[b"GET", format!("key:{key:012}").as_bytes()])?;
        if reply.bytes().map(<[u8]>::len) != Some(VALUE_BYTES) {
            bail!("key {key} is gone after a restart: {reply:?}");
        }
    }
    region.server.rest()?;
    Ok(seconds)
}
