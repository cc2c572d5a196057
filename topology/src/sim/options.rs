//! What a seed stands for: shape, rates, faults. Printed with every failure.

use std::collections::BTreeSet;

use super::random::Random;
use crate::graph::{Feed, Graph, RegionName};
use crate::shape as topology;

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
    /// The same, and region 1 stands by.
    StandbyStar,
    /// Everyone feeds everyone its own ops.
    Mesh,
    /// Everyone feeds everyone everything: every op comes many times.
    FullMesh,
    /// A ring with random feeds added, all regions from each.
    Custom,
    /// The same, each region's ops from the nearest alone.
    NarrowCustom,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Shape; 8] = [
        Shape::Ring,
        Shape::DoubleRing,
        Shape::Star,
        Shape::StandbyStar,
        Shape::Mesh,
        Shape::FullMesh,
        Shape::Custom,
        Shape::NarrowCustom,
    ];
}

/// Something that happens at a given time, beside what the seed chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power fails at a region; it is back after some milliseconds, or never.
    Down {
        /// Which.
        node: usize,
        /// For how long, in milliseconds; for good if `None`.
        ms: Option<u64>,
    },
    /// Nothing passes from one region to another.
    Cut {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// For how long, in milliseconds; for good if `None`.
        ms: Option<u64>,
    },
    /// Some ops at once; how long the last of them takes to all that are alive is reported.
    Write {
        /// Where.
        node: usize,
        /// How many.
        ops: u64,
    },
    /// Notes how many bytes were sent until now.
    Mark,
    /// A region becomes a member, with nothing; one that left before under a new incarnation.
    Join {
        /// Which.
        node: usize,
    },
    /// A region is removed. It is not told, and goes on.
    Leave {
        /// Which.
        node: usize,
    },
    /// Another shape is put in force.
    Reshape {
        /// Which.
        shape: Shape,
    },
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
    /// Links with little bandwidth for ops: from, to, bytes per second.
    pub narrow: Vec<(usize, usize, u64)>,
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
    /// After this silence a member is fenced.
    pub lease_ms: u64,
    /// No members at the beginning.
    pub absent: Vec<usize>,
    /// What happens when, in virtual milliseconds.
    pub script: Vec<(u64, Fault)>,
}

impl Options {
    /// What `seed` stands for.
    pub fn of_seed(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let regions = [3, 3, 3, 4, 4, 5, 7][random.index(7)];
        let shape = Shape::ALL[random.index(Shape::ALL.len())];
        let sync = [Sync::Always, Sync::Always, Sync::EverySecond, Sync::Never][random.index(4)];
        let calm = random.percent(10);
        let up_to = |random: &mut Random, most: u64| if calm { 0 } else { random.below(most + 1) };
        let slow = if random.percent(30) {
            let (from, to) = (random.index(regions), random.index(regions));
            vec![(from, to, random.between(100, 800))]
        } else {
            Vec::new()
        };
        let mut options = Self {
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
            narrow: Vec::new(),
            lease_ms: [8_000, 20_000, 600_000][random.index(3)],
            absent: Vec::new(),
            script: Vec::new(),
        };
        if !calm && random.percent(25) {
            options.long_faults(random);
        }
        if !calm && !options.restore && !options.is_maimed() && random.percent(25) {
            options.membership(random);
        }
        options
    }

    /// Virtual milliseconds with clients and faults.
    pub(super) fn span(&self) -> u64 {
        let commands = (self.commands * self.pace_ms / self.regions as u64).max(200);
        let ends = self.script.iter().map(|(at, fault)| match fault {
            Fault::Down { ms: Some(ms), .. } | Fault::Cut { ms: Some(ms), .. } => at + ms,
            _ => *at,
        });
        ends.max().unwrap_or(0).max(commands)
    }

    /// Whether something never comes back.
    pub fn is_maimed(&self) -> bool {
        self.script
            .iter()
            .any(|(_, fault)| matches!(fault, Fault::Down { ms: None, .. } | Fault::Cut { ms: None, .. }))
    }

    /// Whether the topology changes.
    pub fn is_changing(&self) -> bool {
        let changes =
            |fault| matches!(fault, Fault::Join { .. } | Fault::Leave { .. } | Fault::Reshape { .. });
        self.script.iter().any(|(_, fault)| changes(*fault))
    }

    /// Regions that join and leave, and other shapes.
    fn membership(&mut self, random: &mut Random) {
        let (at, node) = (random.between(50, self.span()), random.index(self.regions));
        match random.below(4) {
            0 => {
                self.absent.push(node);
                self.script.push((at, Fault::Join { node }));
            }
            1 => self.script.push((at, Fault::Leave { node })),
            2 => {
                self.script.push((at, Fault::Leave { node }));
                self.script.push((at + random.between(1_000, 6_000), Fault::Join { node }));
            }
            _ => {
                let shape = Shape::ALL[random.index(Shape::ALL.len())];
                self.script.push((at, Fault::Reshape { shape }));
            }
        }
    }

    /// What routes have to go around: a region away for long or for good, or a link cut.
    fn long_faults(&mut self, random: &mut Random) {
        let (at, n) = (random.between(50, self.span()), self.regions);
        let (node, other) = (random.index(n), random.index(n));
        let for_good = random.percent(50);
        if for_good {
            self.lease_ms = self.lease_ms.min(20_000);
        }
        let ms = (!for_good).then(|| random.between(4_000, 15_000));
        match random.below(3) {
            0 => {
                // What only the dead region has would be missed by the restored one, and is no loss.
                self.restore &= !for_good;
                self.script.push((at, Fault::Down { node, ms }));
            }
            1 => self.script.push((at, Fault::Cut { from: node, to: other, ms })),
            _ => {
                self.script.push((at, Fault::Cut { from: node, to: other, ms }));
                self.script.push((at, Fault::Cut { from: other, to: node, ms }));
            }
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
            narrow: Vec::new(),
            lease_ms: 20_000,
            absent: Vec::new(),
            script: Vec::new(),
        }
    }

    /// Whether an op never has to wait: one path for each op, and nothing that left is ever lost.
    pub fn never_waits(&self) -> bool {
        matches!(self.shape, Shape::Ring | Shape::Star | Shape::StandbyStar)
            && self.sync == Sync::Always
            && !self.restore
    }

    /// Whether every op is taken from every feeder.
    pub(super) fn redundant(&self) -> bool {
        matches!(self.shape, Shape::DoubleRing | Shape::FullMesh | Shape::Custom)
    }

    /// The topology among `names`, numbers of regions.
    pub(super) fn graph(names: &[RegionName], shape: Shape, random: &mut Random) -> Result<Graph, String> {
        let n = names.len();
        let feed = |from: usize, to: usize| Feed { from: names[from].clone(), to: names[to].clone() };
        let shape = match shape {
            Shape::Ring => topology::Shape::Ring { order: names.to_vec() },
            Shape::Star | Shape::StandbyStar => topology::Shape::Star {
                hub: names[0].clone(),
                standby_hubs: if shape == Shape::Star { Vec::new() } else { names[1..2.min(n)].to_vec() },
            },
            Shape::Mesh | Shape::FullMesh => topology::Shape::Mesh,
            Shape::DoubleRing | Shape::Custom | Shape::NarrowCustom => {
                let mut feeds = BTreeSet::new();
                for to in 0..n {
                    let before = (to + n - 1) % n;
                    let other = if shape == Shape::DoubleRing { (to + 1) % n } else { random.index(n) };
                    feeds.extend(
                        [before, other].into_iter().filter(|from| *from != to).map(|from| feed(from, to)),
                    );
                }
                topology::Shape::Custom { feeds: feeds.into_iter().collect() }
            }
        };
        shape.graph(names).map_err(|errors| errors.to_string())
    }
}
