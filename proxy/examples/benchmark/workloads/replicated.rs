//! Several regions on this machine against one Redis without persistence.

use std::time::Instant;

use anyhow::anyhow;

use crate::Bench;
use crate::cluster::Sync;
use crate::contest::Contest;
use crate::load::Load;
use crate::report::{Bar, Row};

const SET: Load = Load::new("SET key:KEY VALUE", 16);

/// Keys that only one region writes.
const OWN: [Load; 2] = [Load::new("SET one:KEY VALUE", 16), Load::new("SET two:KEY VALUE", 16)];

fn mesh(bench: &Bench, regions: usize, workload: &str, load: Load, bar: Bar) -> anyhow::Result<Vec<Row>> {
    let contest = Contest::start(bench, regions, Sync::Everysec, Sync::No)?;
    Ok(vec![contest.run(workload, load, bar)?])
}

pub fn three_set(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    mesh(bench, 3, "three regions in mesh, everysec, SET P16 to one", SET, Bar::AtLeast(0.4, 0.6))
}

pub fn three_incr(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let load = Load::new("INCR count:KEY", 16);
    mesh(bench, 3, "three regions in mesh, everysec, INCR P16 to one", load, Bar::AtLeast(0.4, 0.6))
}

pub fn two_set(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    mesh(bench, 2, "two regions, everysec, SET P16 to one", SET, Bar::AtLeast(0.5, 0.8))
}

/// Both regions are loaded until both have everything.
pub fn both_loaded(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut contest = Contest::start(bench, 2, Sync::Everysec, Sync::No)?;
    let requests = contest.requests(SET)?;
    let each = requests / OWN.len();
    for round in 0..bench.rounds {
        contest.our_round(each * OWN.len(), |contest| {
            let regions = &contest.cluster.regions;
            let began = Instant::now();
            std::thread::scope(|scope| {
                let loads: Vec<_> = regions
                    .iter()
                    .zip(OWN)
                    .map(|(region, load)| scope.spawn(move || load.run(bench, &region.server, each, round)))
                    .collect();
                loads
                    .into_iter()
                    .try_for_each(|load| load.join().map_err(|_| anyhow!("a load ended badly"))?.map(drop))
            })?;
            contest.cluster.converge()?;
            Ok((each * OWN.len()) as f64 / began.elapsed().as_secs_f64())
        })?;
        contest.their_round(requests, SET, round)?;
    }
    let workload = "two regions, both loaded, disjoint keys, SET P16 until converged";
    Ok(vec![contest.finish(workload, Bar::AtLeast(0.6, 0.9))?])
}
