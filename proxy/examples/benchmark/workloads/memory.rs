//! Memory per key.

use crate::Bench;
use crate::cluster::{Cluster, Sync, redis};
use crate::load::{KEY_BYTES, VALUE_BYTES, fill};
use crate::process::Server;
use crate::report::{Bar, Row};

fn keys(bench: &Bench) -> usize {
    if bench.quick { 200_000 } else { 1_000_000 }
}

/// Growth of the resident size per key that is added, once the server is idle.
fn growth(
    server: &Server,
    from: usize,
    to: usize,
    rest: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    rest()?;
    let before = server.memory()?;
    fill(&mut server.client()?, from, to)?;
    rest()?;
    Ok((server.memory()? as f64 - before as f64) / (to - from) as f64)
}

/// Everything a server takes for its keys, buffers and caches among it.
pub fn key(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = keys(bench);
    let cluster = Cluster::start(bench, 1, Sync::Everysec)?;
    let region = &cluster.first()?.server;
    let ours = growth(region, 0, keys, || region.rest())?;
    let redis = redis(bench, Sync::Everysec)?;
    let theirs = growth(&redis, 0, keys, || redis.rest())?;
    let workload = format!("memory per key of 16 + 64 bytes, {keys} keys");
    let mut row = Row::plain(&workload, "Redis, everysec", ours / theirs, Bar::AtMost(1.3, 1.0));
    row.ours.key_bytes = Some(ours);
    row.theirs.key_bytes = Some(theirs);
    row.ours.peak = Some(region.peak_memory()?);
    row.theirs.peak = Some(redis.peak_memory()?);
    Ok(vec![row])
}

/// What a key costs beyond its bytes, in one of three regions.
///
/// From N keys to 2N, so that buffers and caches of fixed size are full before. Tables double at equal
/// shares, so growth from N to 2N is what a key costs on the average.
pub fn lww(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let keys = keys(bench);
    let cluster = Cluster::start(bench, 3, Sync::Everysec)?;
    let region = &cluster.first()?.server;
    fill(&mut region.client()?, 0, keys)?;
    let whole = growth(region, keys, 2 * keys, || cluster.rest())?;
    cluster.settle()?;
    let beyond = whole - (KEY_BYTES + VALUE_BYTES) as f64;
    let workload = "LWW string, three regions: memory per key beyond key and value";
    let mut row = Row::plain(workload, "bytes", beyond, Bar::AtMost(80.0, 40.0));
    row.ours.key_bytes = Some(whole);
    row.ours.peak = Some(region.peak_memory()?);
    Ok(vec![row])
}
