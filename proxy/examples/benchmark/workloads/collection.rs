//! One element's write in a large collection against one in a small.

use std::time::Instant;

use crate::Bench;
use crate::client::{Client, put};
use crate::cluster::{Cluster, Sync, redis};
use crate::load::VALUE_BYTES;
use crate::process::Server;
use crate::report::{Bar, Row, Spread};

const SMALL: usize = 100;

/// Elements of one command while a collection is built.
const BUILD: usize = 100;

/// A kind of collection.
#[derive(Clone, Copy)]
enum Kind {
    Hash,
    SortedSet,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Hash => "HSET",
            Self::SortedSet => "ZADD",
        }
    }

    /// A command that writes these elements, with values or scores made from `salt`.
    fn put(self, out: &mut Vec<u8>, key: &str, elements: &[usize], salt: usize) {
        let mut words = vec![self.name().as_bytes().to_vec(), key.as_bytes().to_vec()];
        for element in elements {
            let name = format!("element:{element:012}").into_bytes();
            match self {
                Self::Hash => words.extend([name, format!("{salt:0VALUE_BYTES$}").into_bytes()]),
                Self::SortedSet => {
                    words.extend([((element ^ salt) % 1_000_003).to_string().into_bytes(), name])
                }
            }
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        put(out, &words);
    }
}

pub fn hash(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    run(bench, Kind::Hash)
}

pub fn sorted_set(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    run(bench, Kind::SortedSet)
}

fn run(bench: &Bench, kind: Kind) -> anyhow::Result<Vec<Row>> {
    let large = if bench.quick { 100_000 } else { 1_000_000 };
    let cluster = Cluster::start(bench, 1, Sync::Everysec)?;
    let ours = ratios(bench, &cluster.first()?.server, kind, large)?;
    // Redis pays for a larger collection too: the processor's caches are what they are.
    let theirs = ratios(bench, &redis(bench, Sync::Everysec)?, kind, large)?.median;
    let workload = format!("{} of one element among {large} against among {SMALL}", kind.name());
    let against = format!("time ratio (Redis {theirs:.2})");
    Ok(vec![Row::plain(&workload, &against, ours, Bar::AtMost(1.5, 1.2))])
}

fn ratios(bench: &Bench, server: &Server, kind: Kind, large: usize) -> anyhow::Result<Spread> {
    let mut client = server.client()?;
    for (key, size) in [("small", SMALL), ("large", large)] {
        let elements: Vec<usize> = (0..size).collect();
        // Not all in one piece: the commands of a million elements take more memory than they.
        for part in elements.chunks(BUILD * 100) {
            let mut commands = Vec::new();
            part.chunks(BUILD).for_each(|elements| kind.put(&mut commands, key, elements, 0));
            client.burst(commands, part.len().div_ceil(BUILD))?;
        }
    }
    server.rest()?;
    let writes = if bench.quick { 100_000 } else { 300_000 };
    let mut ratios = Vec::new();
    for round in 0..=bench.rounds {
        let small = seconds(&mut client, kind, "small", SMALL, writes, round + 1)?;
        server.rest()?;
        let large = seconds(&mut client, kind, "large", large, writes, round + 1)?;
        server.rest()?;
        // The first warms up.
        if round > 0 {
            ratios.push(large / small);
        }
    }
    Ok(Spread::of(ratios))
}

/// Time that writing random elements, one a command, takes.
fn seconds(
    client: &mut Client,
    kind: Kind,
    key: &str,
    size: usize,
    writes: usize,
    salt: usize,
) -> anyhow::Result<f64> {
    let mut commands = Vec::new();
    let mut random = salt as u64;
    for _ in 0..writes {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let element = (random >> 33) as usize % size;
        kind.put(&mut commands, key, &[element], salt);
    }
    let began = Instant::now();
    client.burst(commands, writes)?;
    Ok(began.elapsed().as_secs_f64())
}
