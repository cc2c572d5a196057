//! What a seed stands for: shape, rates, faults. Printed with every failure.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::RegionId;

use super::random::Random;
use crate::replica::Routes;

/// When ops are flushed, and so when they may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Replies and feeds wait for the disk.
    Always,
    /// The disk follows at intervals. An unclean start takes a new incarnation.
    EverySecond,
    /// The disk follows some time.
    Never,
}

/// Who feeds whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each region is fed by the one before it.
    Ring,
    /// Feeds in both directions around, all regions from both sides: every op comes twice.
    DoubleRing,
    /// All through region 0.
    Star,
    /// Everyone feeds everyone its own ops.
    Mesh,
    /// Everyone feeds everyone everything: every op comes many times.
    FullMesh,
    /// A ring with random feeds added, all regions from each.
    Custom,
}

/// Everything that is fixed about a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of regions.
    pub regions: usize,
    /// Who feeds whom.
    pub shape: Shape,
    /// When ops are flushed.
    pub sync: Sync,
    /// Client commands, over all regions.
    pub commands: u64,
    /// Mean milliseconds between two commands at a region.
    pub pace_ms: u64,
    /// Number of keys written to.
    pub keys: u64,
    /// Usual one-way delay of links, at most.
    pub delay_ms: u64,
    /// Links with another delay: from, to, milliseconds.
    pub slow: Vec<(usize, usize, u64)>,
    /// Wall clocks differ by at most this.
    pub skew_ms: u64,
    /// Crashes, with loss of what was not synced.
    pub crashes: u64,
    /// Clean restarts.
    pub restarts: u64,
    /// Cuts of a link, one or both ways.
    pub cuts: u64,
    /// Connections reset with loss of what was on the way, or doubled.
    pub resets: u64,
    /// Steps of a wall clock, forth or back.
    pub clock_steps: u64,
    /// Whether a region comes back with an old copy of its disk.
    pub restore: bool,
    /// Bound on held ops.
    pub pending_bytes_max: usize,
}

impl Options {
    /// What `seed` stands for.
    pub fn of_seed(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let regions = [3, 3, 3, 4, 4, 5, 7][random.index(7)];
        let shape =
            [Shape::Ring, Shape::DoubleRing, Shape::Star, Shape::Mesh, Shape::FullMesh, Shape::Custom]
                [random.index(6)];
        let sync = [Sync::Always, Sync::Always, Sync::EverySecond, Sync::Never][random.index(4)];
        let calm = random.percent(10);
        let up_to = |random: &mut Random, most: u64| if calm { 0 } else { random.below(most + 1) };
        let slow = if random.percent(30) {
            let (from, to) = (random.index(regions), random.index(regions));
            vec![(from, to, random.between(100, 800))]
        } else {
            Vec::new()
        };
        Self {
            regions,
            shape,
            sync,
            commands: random.between(100, 600),
            pace_ms: random.between(2, 16),
            keys: random.between(1, 8),
            delay_ms: random.between(1, 30),
            slow,
            skew_ms: random.below(250),
            crashes: up_to(random, 4),
            restarts: up_to(random, 2),
            cuts: up_to(random, 4),
            resets: up_to(random, 4),
            clock_steps: up_to(random, 2),
            restore: !calm && random.percent(12),
            pending_bytes_max: if random.percent(25) { 2_000 } else { 1 << 20 },
        }
    }

    /// C1: a mesh of three, the link from region 0 to region 2 slow, nothing else wrong.
    pub fn slow_mesh() -> Self {
        Self { shape: Shape::Mesh, slow: vec![(0, 2, 300)], ..Self::calm(3, Shape::Mesh) }
    }

    /// Nothing goes wrong.
    pub fn calm(regions: usize, shape: Shape) -> Self {
        Self {
            regions,
            shape,
            sync: Sync::Always,
            commands: 300,
            pace_ms: 5,
            keys: 6,
            delay_ms: 8,
            slow: Vec::new(),
            skew_ms: 100,
            crashes: 0,
            restarts: 0,
            cuts: 0,
            resets: 0,
            clock_steps: 0,
            restore: false,
            pending_bytes_max: 1 << 20,
        }
    }

    /// Whether an op never has to wait: one path for each op, and nothing that left is ever lost.
    pub fn never_waits(&self) -> bool {
        matches!(self.shape, Shape::Ring | Shape::Star) && self.sync == Sync::Always && !self.restore
    }

    /// Everyone's routes. `wide`: all regions from every feeder, as after healing around a loss.
    pub(super) fn routes(&self, ids: &[RegionId], random: &mut Random, wide: bool) -> Vec<Routes> {
        let n = self.regions;
        let everyone: BTreeSet<usize> = (0..n).collect();
        // By subscriber and feeder: which regions.
        let mut feeds: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
        let mut feed = |to: usize, from: usize, what: &BTreeSet<usize>| {
            let what = if wide { &everyone } else { what };
            feeds.entry((to, from)).or_default().extend(what.iter().copied().filter(|r| *r != to));
        };
        for to in 0..n {
            let before = (to + n - 1) % n;
            match self.shape {
                Shape::Ring => feed(to, before, &everyone),
                Shape::DoubleRing => {
                    feed(to, before, &everyone);
                    feed(to, (to + 1) % n, &everyone);
                }
                Shape::Star if to == 0 => (1..n).for_each(|spoke| feed(0, spoke, &[spoke].into())),
                Shape::Star => feed(to, 0, &everyone),
                Shape::Mesh => {
                    (0..n).filter(|from| *from != to).for_each(|from| feed(to, from, &[from].into()))
                }
                Shape::FullMesh => {
                    (0..n).filter(|from| *from != to).for_each(|from| feed(to, from, &everyone))
                }
                Shape::Custom => {
                    feed(to, before, &everyone);
                    let other = random.index(n);
                    if other != to {
                        feed(to, other, &everyone);
                    }
                }
            }
        }
        let mut routes = vec![Routes::default(); n];
        for ((to, from), regions) in feeds {
            routes[to].feeders.insert(ids[from], regions.into_iter().map(|r| ids[r]).collect());
            routes[from].subscribers.insert(ids[to]);
        }
        routes
    }
}
