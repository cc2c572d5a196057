//! Two regions have written the same keys without hearing of each other, and meet: a conflict for every op.

use std::time::Instant;

use anyhow::bail;
use rustix::process::Signal;

use crate::Bench;
use crate::cluster::{Cluster, Sync};
use crate::load::fill_with;
use crate::report::{Bar, Row, Side, Spread};

/// An inbox that takes nothing in; conflicts are counted all the same.
const UNRECORDED: &str = "[inbox]\nrecords_per_second = 0\nburst = 0\n";

/// The share of the writes that has to conflict: some wait for the second region already when it begins to write.
const CONFLICTING: f64 = 0.75;

#[derive(Default)]
struct Taken {
    rates: Vec<f64>,
    cpu: Vec<f64>,
    peak: u64,
}

impl Taken {
    fn side(&self) -> Side {
        Side {
            rate: Some(Spread::of(self.rates.clone()).median),
            cpu: Some(Spread::of(self.cpu.clone()).median),
            peak: Some(self.peak),
            key_bytes: None,
        }
    }

    /// Regions with `more` in their configurations write `keys` keys each, the second from `from` on, and meet.
    fn round(&mut self, bench: &Bench, more: &str, keys: usize, from: usize) -> anyhow::Result<()> {
        let cluster = Cluster::start_with(bench, 2, Sync::Everysec, more)?;
        cluster.rest()?;
        let (first, second) = (cluster.first()?, cluster.second()?);
        cluster.signal_peers(Signal::STOP)?;
        fill_with(&mut first.server.client()?, 0, keys, b'x')?;
        cluster.signal_first(Signal::STOP)?;
        cluster.signal_peers(Signal::CONT)?;
        fill_with(&mut second.server.client()?, from, from + keys, b'y')?;
        let (began, before) = (Instant::now(), cluster.cpu_seconds()?);
        cluster.signal_first(Signal::CONT)?;
        cluster.converge()?;
        let ops = (2 * keys) as f64;
        self.rates.push(ops / began.elapsed().as_secs_f64());
        cluster.rest()?;
        self.cpu.push((cluster.cpu_seconds()? - before) * 1e6 / ops);
        for region in [first, second] {
            self.peak = self.peak.max(region.server.peak_memory()?);
            let (conflicts, expected) = (region.conflicts()?, if from == 0 { keys as f64 } else { 0.0 });
            if conflicts < expected * CONFLICTING {
                bail!("{conflicts} conflicts, where {expected} were expected");
            }
        }
        cluster.settle()
    }
}

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = if bench.quick { 100_000 } else { 500_000 };
    let (mut recorded, mut counted, mut apart) = (Taken::default(), Taken::default(), Taken::default());
    for _ in 0..bench.rounds {
        recorded.round(bench, "", keys, 0)?;
        counted.round(bench, UNRECORDED, keys, 0)?;
        apart.round(bench, "", keys, keys)?;
    }
    let against = |other: &Taken, what: &str| {
        let ratios = recorded.rates.iter().zip(&other.rates).map(|(ours, theirs)| ours / theirs);
        let workload =
            format!("{keys} SETs in each of two regions meet, nearly all of them conflicts, both drain");
        Row {
            ours: recorded.side(),
            theirs: other.side(),
            ..Row::plain(&workload, what, Spread::of(ratios.collect()), Bar::None)
        }
    };
    Ok(vec![against(&counted, "the same, none recorded"), against(&apart, "other keys, no conflicts")])
}
