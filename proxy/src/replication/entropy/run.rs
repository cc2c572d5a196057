//! The task that compares this region with its neighbours, one question at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use meridian_conflict::clock::RegionId;
use meridian_topology::entropy::{Pace, Rounds};

use super::compare::Comparison;
use super::{EntropyError, Peer, SUSPECTS_MAX, verify};
use crate::keyspace::DATABASES;
use crate::region::Region;

/// How long the task rests between its turns.
const TICK: Duration = Duration::from_millis(500);

/// The least time between the rounds with one peer, however few keys there are.
const ROUND_LEAST: Duration = Duration::from_secs(10);

/// How much slower a round goes for which nothing was written.
const SLOWER: u64 = 8;

/// How long a peer is left alone that did not answer: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What is known of comparing with one peer.
#[derive(Default)]
struct Walk {
    rounds: Rounds,
    /// Up to where the sample of keys committed lately was compared.
    recent: u64,
    /// Since when it is left alone, and for how long.
    failed: Option<(Instant, Duration)>,
    shown: u64,
    /// Keys named in the log during this round.
    named: u64,
}

impl Walk {
    fn may_ask(&self) -> bool {
        self.failed.is_none_or(|(since, wait)| since.elapsed() >= wait)
    }

    fn failed(&mut self) {
        let wait = self.failed.map_or(RETRY.0, |(_, wait)| wait.saturating_mul(2).min(RETRY.1));
        self.failed = Some((Instant::now(), wait));
    }
}

/// Compares until the region drains.
pub(in crate::replication) async fn run(region: Arc<Region>) {
    let mut walks: BTreeMap<RegionId, Walk> = BTreeMap::new();
    let drained = region.drain.notified();
    tokio::pin!(drained);
    drained.as_mut().enable();
    while !region.is_draining() {
        let turn = async {
            if region.entropy().verify_wanted.swap(false, Ordering::AcqRel) {
                verify::run(&region).await;
            }
            if region.is_loading() {
                return TICK;
            }
            turn(&region, &mut walks).await
        };
        let pause = tokio::select! {
            () = &mut drained => return,
            pause = turn => pause,
        };
        tokio::select! {
            () = &mut drained => return,
            () = region.entropy().wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One turn: a bit with every peer that is to be asked. Returns how long to pause.
async fn turn(region: &Arc<Region>, walks: &mut BTreeMap<RegionId, Walk>) -> Duration {
    let peers = region.entropy().peers();
    walks.retain(|id, _| peers.contains_key(id));
    region.entropy().forget_looks(&peers);
    for (id, peer) in &peers {
        let walk = walks.entry(*id).or_default();
        if walk.may_ask() {
            match ask(region, *id, peer, walk).await {
                Ok(()) => walk.failed = None,
                Err(error) => {
                    tracing::debug!(peer = peer.name, %error, "a comparison broke off");
                    walk.failed();
                }
            }
        }
        show(region, &peer.name, walk);
    }
    TICK
}

async fn ask(region: &Arc<Region>, id: RegionId, peer: &Peer, walk: &mut Walk) -> Result<(), EntropyError> {
    let settings = region.settings().anti_entropy;
    let per_second = u64::from(settings.keys_per_second);
    let mut hot = Comparison::new(region, &peer.connection, &peer.name, Some(per_second));
    hot.named = walk.named;
    hot.look_all(id).await?;
    if !settings.enabled {
        return Ok(());
    }
    let (recent, noted) = region.keyspace().recent_since(walk.recent, SUSPECTS_MAX);
    walk.recent = noted;
    let mut by_database: BTreeMap<u8, Vec<Box<[u8]>>> = BTreeMap::new();
    recent.into_iter().for_each(|(database, key)| by_database.entry(database).or_default().push(key));
    for (database, keys) in by_database {
        hot.check(database, keys).await?;
    }
    walk.named = hot.named;
    let applied = region.sequencer().applied();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (least, every) = (ROUND_LEAST.min(settings.every), settings.every);
    let per_second = match walk.rounds.pace(region.mono(), &applied, millis(least), millis(every)) {
        Pace::Rest => return Ok(()),
        Pace::Slow => per_second.div_ceil(SLOWER),
        Pace::Full => per_second,
    };
    let mut comparison = Comparison::new(region, &peer.connection, &peer.name, Some(per_second));
    comparison.named = walk.named;
    let place = comparison.step(walk.rounds.place()).await;
    walk.named = comparison.named;
    let place = place?;
    let is_clean = comparison.tally.is_clean();
    if walk.rounds.advance(region.mono(), place, DATABASES as u8, is_clean, &applied) {
        walk.named = 0;
    }
    Ok(())
}

fn show(region: &Region, name: &str, walk: &mut Walk) {
    let metrics = region.metrics();
    let ended = walk.rounds.ended();
    metrics.seeding.entropy_rounds.with_label_values(&[name]).inc_by(ended - walk.shown);
    walk.shown = ended;
    if let Some(at) = walk.rounds.last() {
        let seconds = i64::try_from(region.mono().since(at) / 1_000).unwrap_or(i64::MAX);
        metrics.seeding.entropy_age.with_label_values(&[name]).set(seconds);
    }
}
