//! Regions, links, clients and faults in virtual time.

mod ending;
mod life;
mod wire;

use std::collections::BTreeMap;

use meridian_conflict::clock::{Dot, Origin, RegionId, VersionVector, covers, covers_all};
use meridian_conflict::op::{Header, Op};

use super::check::{History, same};
use super::network::{Connection, Payload, StreamId};
use super::options::{Options, Shape, Sync};
use super::process::{Body, Disk, Process, Running, recover};
use super::random::{Random, mix};
use super::workload::command;
use super::{Failure, Mutant, Report};
use crate::frame::Control;
use crate::frame::batch::{BatchDecoder, BatchEncoder};
use crate::replica::{Effect, Notice, Replica, Routes, Settings};
use crate::time::{MonoMs, WallMs};

/// Wall clocks start here.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// From the end of faults, regions have this long to converge.
const LIVENESS_MS: u64 = 90_000;
const DIAL_MS: u64 = 100;
const BATCH_OPS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Arrive { connection: u64, stream: StreamId },
    Lost { node: usize, connection: u64 },
    Dial { low: usize, high: usize },
    Client { node: usize },
    Flush { node: usize, generation: u64 },
    Synced { node: usize, generation: u64, upto: Option<usize> },
    Timer { node: usize, generation: u64 },
    Commit { node: usize, generation: u64 },
    Crash { node: usize, clean: bool, restore: bool },
    Start { node: usize },
    BackUp { node: usize },
    Cut { from: usize, to: usize, until: u64 },
    Reset { pick: u64, double: bool },
    Step { node: usize, by: i64 },
    Heal,
    Check,
}

struct Node {
    name: String,
    disk: Disk,
    backup: Option<Disk>,
    restored: bool,
    process: Option<Process>,
    clock_offset: i64,
    delays: Vec<u64>,
}

pub(super) struct World<'a> {
    seed: u64,
    options: Options,
    mutant: Mutant,
    random: Random,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_number: u64,
    nodes: Vec<Node>,
    ids: Vec<RegionId>,
    routes: Vec<Routes>,
    connections: BTreeMap<u64, Connection>,
    /// Directions that carry nothing, and until when.
    cuts: BTreeMap<(usize, usize), u64>,
    commands_left: u64,
    healed: bool,
    history: History,
    /// For mutants: true headers, cursors that should have been forgotten.
    headers: BTreeMap<(Origin, u64), Header>,
    cursors: BTreeMap<(usize, RegionId), VersionVector>,
    report: Report,
    trace: Option<&'a mut Vec<String>>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        seed: u64,
        options: Options,
        mutant: Mutant,
        trace: Option<&'a mut Vec<String>>,
    ) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let names: Vec<String> = (0..options.regions).map(|n| format!("region-{n}")).collect();
        let ids: Vec<RegionId> = names.iter().map(|name| RegionId::of(name)).collect();
        let routes = options.routes(&ids, &mut random, false);
        let nodes = names
            .into_iter()
            .zip(&ids)
            .enumerate()
            .map(|(at, (name, id))| Node {
                name,
                disk: Disk::new(Origin::new(*id, 1)),
                backup: None,
                restored: false,
                process: None,
                clock_offset: random.between(0, 2 * options.skew_ms) as i64 - options.skew_ms as i64,
                delays: (0..options.regions)
                    .map(|to| {
                        let slow = options.slow.iter().find(|(a, b, _)| (*a, *b) == (at, to));
                        slow.map_or_else(|| random.between(1, options.delay_ms.max(1)), |(_, _, ms)| *ms)
                    })
                    .collect(),
            })
            .collect();
        let mut world = Self {
            seed,
            mutant,
            random,
            now: 0,
            events: BTreeMap::new(),
            next_number: 1,
            nodes,
            ids,
            routes,
            connections: BTreeMap::new(),
            cuts: BTreeMap::new(),
            commands_left: options.commands,
            healed: false,
            history: History::default(),
            headers: BTreeMap::new(),
            cursors: BTreeMap::new(),
            report: Report::default(),
            trace,
            options,
        };
        world.schedule();
        world
    }

    /// Everything that is known from the start: clients, dials, faults.
    fn schedule(&mut self) {
        let n = self.options.regions;
        for node in 0..n {
            self.at(0, Event::Start { node });
            let first = self.random.between(1, 60);
            self.at(first, Event::Client { node });
        }
        for low in 0..n {
            for high in low + 1..n {
                if self.routes[low].has(self.ids[high]) {
                    let first = self.random.between(1, 20);
                    self.at(first, Event::Dial { low, high });
                }
            }
        }
        let span = (self.options.commands * self.options.pace_ms / n as u64).max(200);
        let options = self.options.clone();
        for _ in 0..options.crashes {
            let (time, node) = (self.random.between(30, span), self.random.index(n));
            self.at(time, Event::Crash { node, clean: false, restore: false });
        }
        for _ in 0..options.restarts {
            let (time, node) = (self.random.between(30, span), self.random.index(n));
            self.at(time, Event::Crash { node, clean: true, restore: false });
        }
        for _ in 0..options.cuts {
            let (from, to) = (self.random.index(n), self.random.index(n));
            let (time, length) = (self.random.below(span), self.random.between(20, 3_000));
            self.at(time, Event::Cut { from, to, until: time + length });
            if self.random.percent(50) {
                self.at(time, Event::Cut { from: to, to: from, until: time + length });
            }
        }
        for _ in 0..options.resets {
            let (time, pick) = (self.random.below(span), self.random.next());
            let double = self.random.percent(40);
            self.at(time, Event::Reset { pick, double });
        }
        for _ in 0..options.clock_steps {
            let (time, node) = (self.random.below(span), self.random.index(n));
            let by = self.random.between(0, 6_000) as i64 - 4_000;
            self.at(time, Event::Step { node, by });
        }
        if options.restore {
            let (time, node) = (self.random.between(30, span / 2), self.random.index(n));
            self.at(time, Event::BackUp { node });
            let later = self.random.between(time + 50, span + 60);
            self.at(later, Event::Crash { node, clean: false, restore: true });
        }
        self.at(span + 300, Event::Heal);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.next_number += 1;
        self.events.insert((time.max(self.now), self.next_number), event);
    }

    fn after(&mut self, low: u64, high: u64, event: Event) {
        let delay = self.random.between(low, high);
        self.at(self.now + delay, event);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.now, what()));
        }
    }

    fn fingerprint(&mut self, word: u64) {
        self.report.trace_hash = mix(self.report.trace_hash ^ word);
    }

    fn wall(&self, node: usize) -> WallMs {
        WallMs((EPOCH_MS + self.now).saturating_add_signed(self.nodes[node].clock_offset))
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Report, Box<Failure>> {
        let outcome = self.steps();
        let Self { seed, options, mutant, report, now, .. } = self;
        outcome
            .map_err(|what| Box::new(Failure { seed, mutant, options: options.clone(), what, at_ms: now }))?;
        Ok(report)
    }

    fn steps(&mut self) -> Result<(), String> {
        while let Some(((time, _), event)) = self.events.pop_first() {
            self.now = time;
            self.report.events += 1;
            if self.report.events > 2_000_000 {
                return Err("the run does not end".into());
            }
            if event == Event::Check {
                match self.converged() {
                    Ok(()) => return self.finish(),
                    Err(why) if self.now > self.report.healed_ms + LIVENESS_MS => {
                        return Err(format!("never converges: {why}"));
                    }
                    Err(_) => self.at(self.now + 50, Event::Check),
                }
                continue;
            }
            self.step(event)?;
        }
        Err("nothing happens any more".into())
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive { connection, stream } => self.arrive(connection, stream),
            Event::Lost { node, connection } => self.lost(node, connection),
            Event::Dial { low, high } => self.dial(low, high),
            Event::Client { node } => self.client(node),
            Event::Flush { node, generation } => self.flush(node, generation),
            Event::Synced { node, generation, upto } => self.synced(node, generation, upto),
            Event::Timer { node, generation } => self.timer(node, generation),
            Event::Commit { node, generation } => self.commit(node, generation),
            Event::Crash { node, clean, restore } => self.crash(node, clean, restore),
            Event::Start { node } => self.start(node),
            Event::BackUp { node } => {
                let node = &mut self.nodes[node];
                let mut copy = node.disk.clone();
                copy.log.truncate(copy.durable);
                node.backup = Some(copy);
                Ok(())
            }
            Event::Cut { from, to, until } => {
                self.note(|| format!("cut {from} -> {to} until {until}"));
                self.cuts.insert((from, to), until);
                Ok(())
            }
            Event::Reset { pick, double } => self.reset(pick, double),
            Event::Step { node, by } => {
                self.note(|| format!("clock of {node} steps by {by}"));
                self.nodes[node].clock_offset += by;
                self.report.clock_steps += 1;
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Check => Ok(()),
        }
    }

    fn running(&mut self, node: usize, generation: u64) -> Option<&mut Process> {
        self.nodes[node].process.as_mut().filter(|process| process.generation == generation)
    }
}
