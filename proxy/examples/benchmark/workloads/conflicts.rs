//! Two regions have written the same keys without hearing of each other, and meet: a conflict for every key.

use std::time::Instant;

use anyhow::ensure;
use rustix::process::Signal;

use crate::Bench;
use crate::cluster::{Cluster, Region, Sync};
use crate::load::fill_with;
use crate::report::{Bar, Row, Side, Spread};

/// An inbox that takes nothing in; conflicts are counted all the same.
const UNRECORDED: &str = "[inbox]\nrecords_per_second = 0\nburst = 0\n";

/// What `inbox.max` is unless it is configured.
const INBOX_BYTES: f64 = (64 << 20) as f64;

/// Writes that the first region does before those that conflict. They are more than what may be on its way to the
/// second one when that begins to write, so that it has heard of none of the keys that both write.
const FIRST: usize = 50_000;

/// What is done with the backlog.
#[derive(Clone, Copy)]
struct Way {
    /// More of the regions' configurations.
    config: &'static str,
    /// Whether the second region writes the keys that the first has written.
    conflicts: bool,
}

/// All of it recorded as far as the inbox takes it, counted alone, and without a conflict.
const WAYS: [Way; 3] = [
    Way { config: "", conflicts: true },
    Way { config: UNRECORDED, conflicts: true },
    Way { config: "", conflicts: false },
];

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

    /// Both regions write `keys` keys each, alone, and meet.
    fn round(&mut self, bench: &Bench, way: Way, keys: usize) -> anyhow::Result<()> {
        let cluster = Cluster::start_with(bench, 2, Sync::Everysec, way.config)?;
        cluster.rest()?;
        let (first, second) = (cluster.first()?, cluster.second()?);
        // Starting has met a conflict or two.
        let known = [first.conflicts()?, second.conflicts()?];
        cluster.signal_peers(Signal::STOP)?;
        fill_with(&mut first.server.client()?, 0, FIRST + keys, b'x')?;
        cluster.signal_first(Signal::STOP)?;
        cluster.signal_peers(Signal::CONT)?;
        let from = if way.conflicts { FIRST } else { FIRST + keys };
        fill_with(&mut second.server.client()?, from, from + keys, b'y')?;
        let (began, before) = (Instant::now(), cluster.cpu_seconds()?);
        cluster.signal_first(Signal::CONT)?;
        cluster.converge()?;
        let ops = (FIRST + 2 * keys) as f64;
        self.rates.push(ops / began.elapsed().as_secs_f64());
        cluster.rest()?;
        self.cpu.push((cluster.cpu_seconds()? - before) * 1e6 / ops);
        for (region, known) in [first, second].into_iter().zip(known) {
            self.peak = self.peak.max(region.server.peak_memory()?);
            check(region, known + if way.conflicts { keys as f64 } else { 0.0 })?;
        }
        cluster.settle()
    }
}

/// Every conflict is counted, and recorded or counted as dropped; the inbox is within its bound.
fn check(region: &Region, expected: f64) -> anyhow::Result<()> {
    let conflicts = region.conflicts()?;
    ensure!(conflicts == expected, "{conflicts} conflicts were counted, there were {expected}");
    let [records, dropped, bytes] = region.inbox()?;
    ensure!(records + dropped == conflicts, "{records} recorded, {dropped} not, of {conflicts} conflicts");
    ensure!(bytes <= INBOX_BYTES, "the inbox has {bytes} bytes");
    Ok(())
}

pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = if bench.quick { 100_000 } else { 500_000 };
    let mut taken: [Taken; 3] = Default::default();
    for round in 0..bench.rounds {
        // Each is first, second and last in turn.
        for turn in 0..WAYS.len() {
            let at = (round + turn) % WAYS.len();
            if let (Some(taken), Some(way)) = (taken.get_mut(at), WAYS.get(at)) {
                taken.round(bench, *way, keys)?;
            }
        }
    }
    let [recorded, counted, apart] = taken;
    let workload = format!("{keys} SETs in each of two regions meet, each a conflict, both drain");
    let against = |other: &Taken, what: &str| {
        let ratios = recorded.rates.iter().zip(&other.rates).map(|(ours, theirs)| ours / theirs);
        Row {
            ours: recorded.side(),
            theirs: other.side(),
            ..Row::plain(&workload, what, Spread::of(ratios.collect()), Bar::None)
        }
    };
    let drained = Row::plain(
        &workload,
        "ops/s",
        Spread::of(recorded.rates.clone()),
        Bar::AtLeast(300_000.0, 600_000.0),
    );
    Ok(vec![
        drained,
        against(&counted, "the same, none recorded"),
        against(&apart, "other keys, no conflicts"),
    ])
}
