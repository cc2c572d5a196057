//! What order costs on the wire.

use anyhow::{Context, anyhow, bail};
use meridian_conflict::clock::RegionId;
use meridian_proxy::oplog;
use meridian_proxy::sequencer::read_record;
use meridian_topology::frame::batch::BatchEncoder;

use crate::Bench;
use crate::cluster::{Cluster, Region, Sync};
use crate::load::{KEY_BYTES, Load, VALUE_BYTES};
use crate::report::{Bar, Row};

const SET: Load = Load::new("SET key:KEY VALUE", 16);

/// Writes of each region.
const REQUESTS: usize = 100_000;

/// A batch of a link under moderate load; larger ones cost less per op.
const BATCH_BYTES: usize = 16 << 10;

/// Length and packing of a batch's frame.
const FRAME_BYTES: usize = 5;

/// Three regions write at once, so that ops depend on each other's. Then the first one's own ops are read
/// from its log and encoded as its links do; the link's own counters would count compressed bytes.
pub fn run(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut cluster = Cluster::start(bench, 3, Sync::Everysec)?;
    std::thread::scope(|scope| {
        let loads: Vec<_> = cluster
            .regions
            .iter()
            .map(|region| scope.spawn(|| SET.run(bench, &region.server, REQUESTS, 0)))
            .collect();
        loads
            .into_iter()
            .try_for_each(|load| load.join().map_err(|_| anyhow!("a load ended badly"))?.map(drop))
    })?;
    cluster.settle()?;
    let first = cluster.regions.first_mut().context("a cluster of none")?;
    first.server.stop()?;
    let (ops, bytes) = encoded(first)?;
    // Older segments go once every peer has them; what is left must still be a sample.
    if ops < REQUESTS / 10 {
        bail!("the log holds {ops} ops of {REQUESTS}");
    }
    let beyond = bytes as f64 / ops as f64 - (KEY_BYTES + VALUE_BYTES) as f64;
    let workload = "bytes per op on the wire beyond key and value, uncompressed, three regions writing";
    Ok(vec![Row::plain(workload, "bytes", beyond, Bar::AtMost(32.0, 16.0))])
}

/// How many ops of its own a region's log holds, and the bytes of their batches.
fn encoded(region: &Region) -> anyhow::Result<(usize, usize)> {
    let own = RegionId::of(region.name);
    let (log, _) = oplog::open(&region.log_directory(), oplog::Settings::default())?;
    let start = log.segments().first().context("the log is empty")?.start;
    let mut replay = log.replay(start);
    let mut encoder = BatchEncoder::default();
    let mut batch = Vec::new();
    let (mut ops, mut bytes) = (0, 0);
    loop {
        let chunk = replay.next_chunk()?;
        for (_, record) in chunk.iter().flat_map(oplog::Chunk::records) {
            let (header, body) = read_record(record).context("a record that is no op")?;
            if header.dot.actor.region() == own {
                encoder.push(&header, body);
                ops += 1;
            }
            if encoder.bytes() >= BATCH_BYTES {
                bytes += finish(&mut encoder, &mut batch);
            }
        }
        if chunk.is_none() {
            return Ok((ops, bytes + finish(&mut encoder, &mut batch)));
        }
    }
}

fn finish(encoder: &mut BatchEncoder, batch: &mut Vec<u8>) -> usize {
    batch.clear();
    encoder.finish(batch);
    batch.len() + FRAME_BYTES
}
