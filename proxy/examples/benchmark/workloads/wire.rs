//! What order costs on the wire.

use anyhow::anyhow;

use crate::Bench;
use crate::cluster::{Cluster, Sync};
use crate::load::{KEY_BYTES, Load, VALUE_BYTES};
use crate::report::{Bar, Row};

const SET: Load = Load::new("SET key:KEY VALUE", 16);

/// Three regions write at once, so that ops depend on each other's. All bytes of the first region's
/// streams are counted, less keys and values: order, shape and frames. Batches are not compressed on
/// lines as short as loopback.
pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let requests = if bench.quick { 100_000 } else { 500_000 };
    let cluster = Cluster::start(bench, 3, Sync::Everysec)?;
    cluster.rest()?;
    let region = cluster.first()?;
    let before = region.sent_ops_bytes()?;
    std::thread::scope(|scope| {
        let loads: Vec<_> = cluster
            .regions
            .iter()
            .map(|region| scope.spawn(|| SET.run(bench, &region.server, requests, 0)))
            .collect();
        loads
            .into_iter()
            .try_for_each(|load| load.join().map_err(|_| anyhow!("a load ended badly"))?.map(drop))
    })?;
    cluster.rest()?;
    let sent = region.sent_ops_bytes()? - before;
    cluster.settle()?;
    // In a mesh each op of its own goes to both peers.
    let ops = requests * (cluster.regions.len() - 1);
    let beyond = sent as f64 / ops as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
    if beyond < 0.0 {
        return Err(anyhow!("{sent} bytes for {ops} ops: link_bytes_total does not tell"));
    }
    let workload = "bytes per op on the wire beyond key and value, uncompressed, three regions writing";
    Ok(vec![Row::plain(workload, "bytes", beyond, Bar::AtMost(32.0, 16.0))])
}
