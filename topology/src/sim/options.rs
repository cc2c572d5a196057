//! What a seed stands for: shape, rates, faults. Printed with every failure.

use super::random::Random;
use super::{Fault, Shape};

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

impl Sync {
    /// Reads a mode's name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Sync::Always, Sync::EverySecond, Sync::Never].into_iter().find(|sync| format!("{sync:?}") == name)
    }
}

/// Everything that is fixed about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Times of lost packets and of batches that come twice or out of order.
    pub noises: u64,
    /// Disks lost.
    pub wipes: u64,
    /// Disks that are full for a while.
    pub full_disks: u64,
    /// Times at which logs are truncated, some at all regions.
    pub truncations: u64,
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
            noises: if random.percent(25) { up_to(random, 3) } else { 0 },
            wipes: u64::from(!calm && random.percent(12)),
            full_disks: u64::from(!calm && random.percent(12)),
            truncations: if random.percent(30) { up_to(random, 3) } else { 0 },
            pending_bytes_max: if random.percent(25) { 2_000 } else { 1 << 20 },
            narrow: if !calm && random.percent(8) { vec![Self::narrow(regions, random)] } else { Vec::new() },
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

    /// A link with little bandwidth.
    fn narrow(regions: usize, random: &mut Random) -> (usize, usize, u64) {
        (random.index(regions), random.index(regions), random.between(3_000, 20_000))
    }

    /// Virtual milliseconds with clients and faults.
    fn span(&self) -> u64 {
        let commands = (self.commands * self.pace_ms / self.regions as u64).max(200);
        let ends = self.script.iter().map(|(at, fault)| at + fault.lasts().unwrap_or(0));
        ends.max().unwrap_or(0).max(commands)
    }

    /// Whether something never comes back.
    pub fn is_maimed(&self) -> bool {
        self.script.iter().any(|(_, fault)| fault.lasts().is_none())
    }

    /// Whether the topology changes.
    pub fn is_changing(&self) -> bool {
        self.script.iter().any(|(_, fault)| fault.is_change())
    }

    /// Chooses what is left to chance: every event is in the script then, and no rate is left.
    pub(super) fn expand(mut self, random: &mut Random) -> Self {
        let (n, span) = (self.regions, self.span());
        let mut events = std::mem::take(&mut self.script);
        self.clients(random, &mut events);
        for _ in 0..std::mem::take(&mut self.crashes) {
            let (at, node, ms) = (random.between(30, span), random.index(n), random.between(1, 400));
            events.push((at, Fault::Down { node, ms: Some(ms) }));
        }
        for _ in 0..std::mem::take(&mut self.restarts) {
            let (at, node, ms) = (random.between(30, span), random.index(n), random.between(1, 400));
            events.push((at, Fault::Stop { node, ms }));
        }
        for _ in 0..std::mem::take(&mut self.cuts) {
            let (from, to) = (random.index(n), random.index(n));
            let (at, ms) = (random.below(span), Some(random.between(20, 3_000)));
            events.push((at, Fault::Cut { from, to, ms }));
            if random.percent(50) {
                events.push((at, Fault::Cut { from: to, to: from, ms }));
            }
        }
        for _ in 0..std::mem::take(&mut self.resets) {
            let (at, pick) = (random.below(span), random.below(1_000));
            let double = random.percent(40);
            events.push((at, if double { Fault::Double { pick } } else { Fault::Reset { pick } }));
        }
        for _ in 0..std::mem::take(&mut self.clock_steps) {
            let (at, node, by) =
                (random.below(span), random.index(n), random.between(0, 6_000) as i64 - 4_000);
            events.push((at, Fault::Step { node, by }));
        }
        for _ in 0..std::mem::take(&mut self.noises) {
            let (from, to) = (random.index(n), random.index(n));
            events.push((random.below(span), Fault::Noise { from, to, ms: random.between(50, 2_000) }));
        }
        for _ in 0..std::mem::take(&mut self.wipes) {
            let (at, node, ms) = (random.between(30, span), random.index(n), random.between(1, 800));
            events.push((at, Fault::Wipe { node, ms }));
        }
        for _ in 0..std::mem::take(&mut self.full_disks) {
            let (at, node, ms) = (random.below(span), random.index(n), random.between(50, 2_000));
            events.push((at, Fault::Full { node, ms }));
        }
        if self.truncations > 0 {
            self.late_faults(random, span, &mut events);
        }
        for _ in 0..std::mem::take(&mut self.truncations) {
            let (at, node, all) = (random.below(span + 200), random.index(n), random.percent(60));
            let which = if all { 0..n } else { node..node + 1 };
            events.extend(which.map(|node| (at, Fault::Truncate { node })));
        }
        if std::mem::take(&mut self.restore) {
            let (at, node) = (random.between(30, span / 2), random.index(n));
            events.push((at, Fault::BackUp { node }));
            let later = random.between(at + 50, span + 60);
            events.push((later, Fault::Restore { node, ms: random.between(401, 800) }));
        }
        // Stable: what happens at the same time stays in this order.
        events.sort_by_key(|(at, _)| *at);
        self.script = events;
        self
    }

    /// What happens while regions that lack what was truncated take over from others.
    fn late_faults(&mut self, random: &mut Random, span: u64, events: &mut Vec<(u64, Fault)>) {
        for _ in 0..random.between(2, 10) {
            let (at, node, other) =
                (random.between(span, span + 4_000), random.index(self.regions), random.index(self.regions));
            let fault = match random.below(8) {
                0 | 4 | 5 => Fault::Reset { pick: random.below(1_000) },
                1 => Fault::Down { node, ms: Some(random.between(1, 400)) },
                2 => Fault::Cut { from: node, to: other, ms: Some(random.between(20, 1_000)) },
                3 => Fault::Truncate { node },
                _ => Fault::Command { node, pick: random.below(100_000) },
            };
            events.push((at, fault));
        }
        // What only the lost one has would be missed by a restored one, and is no loss.
        let whole = !self.restore && !events.iter().any(|(_, f)| f.lasts().is_none() || f.is_change());
        if whole && random.percent(50) {
            let pick = random.below(10_000);
            let at = (0..random.between(2, 8)).map(|_| random.between(span, span + 4_000));
            events.extend(at.map(|at| (at, Fault::LoseDonor { pick })));
            self.lease_ms = self.lease_ms.min(20_000);
        }
    }

    /// Commands of clients, each region's at its own pace.
    fn clients(&mut self, random: &mut Random, events: &mut Vec<(u64, Fault)>) {
        let mut next: Vec<u64> = (0..self.regions).map(|_| random.between(1, 60)).collect();
        for _ in 0..std::mem::take(&mut self.commands) {
            let Some((node, at)) = next.iter_mut().enumerate().min_by_key(|(_, at)| **at) else { return };
            // Small numbers read better.
            events.push((*at, Fault::Command { node, pick: random.below(100_000) }));
            *at += random.between(1, 2 * self.pace_ms);
        }
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
            noises: 0,
            wipes: 0,
            full_disks: 0,
            truncations: 0,
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
            && self.script.iter().all(|(_, fault)| {
                !matches!(
                    fault,
                    Fault::Restore { .. } | Fault::Wipe { .. } | Fault::Noise { .. } | Fault::Truncate { .. }
                )
            })
    }

    /// Whether every op is taken from every feeder.
    pub(super) fn redundant(&self) -> bool {
        matches!(self.shape, Shape::DoubleRing | Shape::FullMesh | Shape::Custom)
    }
}
