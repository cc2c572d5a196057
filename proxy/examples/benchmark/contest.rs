//! Rounds that alternate between Meridian and Redis.

use crate::Bench;
use crate::cluster::{Cluster, Sync, redis};
use crate::load::{KEYS, Load, fill};
use crate::process::Server;
use crate::report::{Bar, Row, Side, Spread};

/// Requests of the rounds that find out how fast the servers are, per command in a pipeline.
const WARM_UP_REQUESTS: usize = 100_000;
const WARM_UP_REQUESTS_SINGLE: usize = 20_000;

/// Both servers of a row, and what they took so far.
pub struct Contest<'a> {
    bench: &'a Bench,
    /// Meridian.
    pub cluster: Cluster,
    /// Redis.
    pub redis: Server,
    sync: Sync,
    ours: Taken,
    theirs: Taken,
}

#[derive(Default)]
struct Taken {
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl Taken {
    fn side(self, peak: u64) -> Side {
        Side {
            rate: Some(Spread::of(self.rates).median),
            cpu: Some(Spread::of(self.cpu).median),
            peak: Some(peak),
            key_bytes: None,
        }
    }
}

impl<'a> Contest<'a> {
    /// Starts `regions` regions under `ours` and a Redis under `theirs`.
    pub fn start(bench: &'a Bench, regions: usize, ours: Sync, theirs: Sync) -> anyhow::Result<Self> {
        Ok(Self {
            bench,
            cluster: Cluster::start(bench, regions, ours)?,
            redis: redis(bench, theirs)?,
            sync: theirs,
            ours: Taken::default(),
            theirs: Taken::default(),
        })
    }

    /// Writes every key on both sides, for workloads that read.
    pub fn fill(&self) -> anyhow::Result<()> {
        fill(&mut self.cluster.first()?.server.client()?, 0, KEYS)?;
        fill(&mut self.redis.client()?, 0, KEYS)
    }

    /// The load against the first region and against Redis, in turns.
    pub fn run(mut self, workload: &str, load: Load, bar: Bar) -> anyhow::Result<Row> {
        let requests = self.requests(load)?;
        for round in 0..self.bench.rounds {
            self.our_round(requests, |contest| {
                load.run(contest.bench, &contest.cluster.first()?.server, requests, round)
            })?;
            self.their_round(requests, load, round)?;
        }
        self.finish(workload, bar)
    }

    /// A round of Meridian: `work` does `operations` and says how many a second.
    pub fn our_round(
        &mut self,
        operations: usize,
        work: impl FnOnce(&Self) -> anyhow::Result<f64>,
    ) -> anyhow::Result<()> {
        let before = self.cluster.cpu_seconds()?;
        let rate = work(self)?;
        self.cluster.rest()?;
        let used = self.cluster.cpu_seconds()? - before;
        self.ours.rates.push(rate);
        self.ours.cpu.push(used * 1e6 / operations as f64);
        Ok(())
    }

    /// A round of Redis.
    pub fn their_round(&mut self, requests: usize, load: Load, round: usize) -> anyhow::Result<()> {
        let before = self.redis.cpu_seconds()?;
        let rate = load.run(self.bench, &self.redis, requests, round)?;
        self.redis.rest()?;
        let used = self.redis.cpu_seconds()? - before;
        self.theirs.rates.push(rate);
        self.theirs.cpu.push(used * 1e6 / requests as f64);
        Ok(())
    }

    /// How many requests keep the slower side busy for a round.
    pub fn requests(&self, load: Load) -> anyhow::Result<usize> {
        let requests = if load.pipeline == 1 { WARM_UP_REQUESTS_SINGLE } else { WARM_UP_REQUESTS };
        // A round of its own, where the command names the round.
        let round = self.bench.rounds;
        let ours = load.run(self.bench, &self.cluster.first()?.server, requests, round)?;
        let theirs = load.run(self.bench, &self.redis, requests, round)?;
        self.cluster.rest()?;
        self.redis.rest()?;
        let seconds = if self.bench.quick { 1.0 } else { 2.0 };
        let rounded = (ours.min(theirs) * seconds / 1000.0).ceil() * 1000.0;
        Ok(rounded as usize)
    }

    /// The row: ratio of the rates, round by round.
    pub fn finish(self, workload: &str, bar: Bar) -> anyhow::Result<Row> {
        self.cluster.settle()?;
        let ratios = self.ours.rates.iter().zip(&self.theirs.rates).map(|(ours, theirs)| ours / theirs);
        let mut row = Row::plain(workload, self.sync.redis(), Spread::of(ratios.collect()), bar);
        let mut peak = 0;
        for region in &self.cluster.regions {
            peak += region.server.peak_memory()?;
        }
        row.theirs = self.theirs.side(self.redis.peak_memory()?);
        row.ours = self.ours.side(peak);
        Ok(row)
    }
}
