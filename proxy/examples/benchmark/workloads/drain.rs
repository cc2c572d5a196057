//! A peer that was paused during a load catches up.

use std::time::Instant;

use rustix::process::Signal;

use crate::Bench;
use crate::cluster::{Cluster, Sync};
use crate::load::fill;
use crate::report::{Bar, Row, Spread};

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = if bench.quick { 200_000 } else { 1_000_000 };
    let mut rates = Vec::new();
    let mut peak = 0;
    for _ in 0..bench.rounds {
        // Afresh: a peer that has the keys already would have less to do.
        let cluster = Cluster::start(bench, 2, Sync::Everysec)?;
        cluster.rest()?;
        cluster.signal_peers(Signal::STOP)?;
        let first = cluster.first()?;
        fill(&mut first.server.client()?, 0, keys)?;
        first.server.rest()?;
        let began = Instant::now();
        cluster.signal_peers(Signal::CONT)?;
        cluster.converge()?;
        rates.push(keys as f64 / began.elapsed().as_secs_f64());
        peak = peak.max(cluster.second()?.server.peak_memory()?);
        cluster.settle()?;
    }
    let workload = format!("backlog of {keys} SETs, drain by a peer that was paused");
    let mut row = Row::plain(&workload, "ops/s", Spread::of(rates), Bar::AtLeast(300_000.0, 600_000.0));
    row.ours.peak = Some(peak);
    Ok(vec![row])
}
