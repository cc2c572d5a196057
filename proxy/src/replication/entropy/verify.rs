//! A full comparison with every neighbour, on request: what `meridian verify` shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meridian_conflict::clock::RegionId;
use meridian_topology::entropy::Place;
use meridian_topology::time::MonoMs;
use serde::{Deserialize, Serialize};

use super::compare::{Comparison, shown};
use super::{EntropyError, Peer, SUSPECTS_MAX, Wire};
use crate::keyspace::{DATABASES, PlacedKey};
use crate::region::Region;

/// How long both sides may take to mend what was found.
const MENDED_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks whether it is mended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often what could not be settled is tried again.
const TRIES: usize = 5;

/// Divergent keys that are named.
const NAMED_MAX: usize = 100;

/// How far a full comparison has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// None was asked for since the region's start.
    #[default]
    None,
    /// It goes on.
    Running,
    /// It has ended.
    Done,
}

/// A full comparison, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// How far it has come.
    pub stage: Stage,
    /// By neighbour.
    pub peers: BTreeMap<String, PeerProgress>,
    /// Neighbours that no link is up to.
    pub absent: Vec<String>,
    /// Keys that had diverged, not more than a hundred: database and escaped key.
    pub divergent: Vec<(u8, String)>,
}

/// The comparison with one neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerProgress {
    /// Keys compared so far.
    pub keys: u64,
    /// About how many there are.
    pub keys_expected: u64,
    /// Keys that had diverged.
    pub divergent: u64,
    /// Of those, how many were mended here; the others were for the neighbour to mend.
    pub mended: u64,
    /// Of those, how many still differ.
    pub remaining: u64,
    /// Keys of which nothing could be said, for they are being written all the time.
    pub unsettled: u64,
    /// Whether all keys were compared.
    pub done: bool,
    /// Why they were not.
    pub error: Option<String>,
}

impl Progress {
    pub(super) fn beginning(region: &Region, peers: &BTreeMap<RegionId, Peer>) -> Self {
        let keys_expected = (0..DATABASES as u8).map(|database| region.keyspace().len(database)).sum();
        let fresh = PeerProgress { keys_expected, ..PeerProgress::default() };
        let names: Vec<&str> = peers.values().map(|peer| peer.name.as_str()).collect();
        let membership = region.membership();
        let neighbours = membership.topology.graph.neighbours(&region.settings().region);
        let absent =
            neighbours.iter().map(ToString::to_string).filter(|name| !names.contains(&name.as_str()));
        Self {
            stage: if peers.is_empty() { Stage::Done } else { Stage::Running },
            peers: names.iter().map(|name| ((*name).to_owned(), fresh.clone())).collect(),
            absent: absent.collect(),
            divergent: Vec::new(),
        }
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether every neighbour was compared with to the end.
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Done && self.absent.is_empty() && self.peers.values().all(|peer| peer.done)
    }

    /// Keys that had diverged.
    pub fn found(&self) -> u64 {
        self.peers.values().map(|peer| peer.divergent).sum()
    }
}

/// Compares with all that are there.
pub(super) async fn run(region: &Arc<Region>) {
    for (id, peer) in region.entropy().peers() {
        let told = with(region, id, &peer.connection, &peer.name).await;
        let mut progress = region.entropy().verify.lock();
        let of_peer = progress.peers.entry(peer.name).or_default();
        match told {
            Ok(()) => of_peer.done = true,
            Err(error) => of_peer.error = Some(error.to_string()),
        }
    }
    region.entropy().verify.lock().stage = Stage::Done;
}

/// Compares everything with one neighbour, and waits until what was found is mended on both sides.
pub(super) async fn with<W: Wire>(
    region: &Arc<Region>,
    id: RegionId,
    wire: &W,
    peer: &str,
) -> Result<(), EntropyError> {
    let mut comparison = Comparison::new(region, wire, peer, None);
    let mut place = Place::default();
    while usize::from(place.database) < DATABASES {
        let before = region.mono();
        place = comparison.step(place).await?;
        tell(region, peer, &comparison, 0);
        // As long again is left to clients.
        tokio::time::sleep(Duration::from_millis(region.mono().since(before))).await;
    }
    comparison.settle_left(TRIES).await?;
    let (deadline, mut remaining) =
        (region.mono().after(millis(MENDED_WITHIN)), comparison.tally.found.clone());
    loop {
        tell(region, peer, &comparison, remaining.len() as u64);
        if remaining.is_empty() || region.mono() >= deadline {
            return Ok(());
        }
        // The neighbour may be at a full comparison, too, and wait for what is to be mended here.
        Comparison::new(region, wire, peer, None).look_all(id).await?;
        remaining = still_divergent(region, &mut comparison, remaining, deadline).await?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn still_divergent<W: Wire>(
    region: &Region,
    comparison: &mut Comparison<'_, W>,
    keys: Vec<PlacedKey>,
    deadline: MonoMs,
) -> Result<Vec<PlacedKey>, EntropyError> {
    let mut remaining = Vec::new();
    for (database, key) in keys {
        // One by one: after a divergence was found there are few, or time is up anyway.
        let left = remaining.len() < SUSPECTS_MAX && region.mono() < deadline;
        if !left || !comparison.is_equal(database, &key).await? {
            remaining.push((database, key));
        }
    }
    Ok(remaining)
}

fn tell<W>(region: &Region, peer: &str, comparison: &Comparison<'_, W>, remaining: u64) {
    let tally = &comparison.tally;
    let mut progress = region.entropy().verify.lock();
    let of_peer = progress.peers.entry(peer.to_owned()).or_default();
    (of_peer.keys, of_peer.divergent, of_peer.mended) = (tally.keys, tally.divergent, tally.mended);
    (of_peer.unsettled, of_peer.remaining) = (tally.unsettled, remaining);
    for (database, key) in &tally.found {
        let named = (*database, shown(key));
        if progress.divergent.len() < NAMED_MAX && !progress.divergent.contains(&named) {
            progress.divergent.push(named);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
