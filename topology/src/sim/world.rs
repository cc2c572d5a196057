//! Regions, links, clients and faults in virtual time.

mod ending;
mod life;
mod membership;
mod wire;

use std::collections::BTreeMap;

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector, covers, covers_all, raise};
use meridian_conflict::op::{Header, Op};

use super::check::{History, same};
use super::network::{Connection, Payload, StreamId};
use super::options::{Fault, Options, Shape, Sync};
use super::process::{Body, CLOCK_AHEAD_MS, Disk, Process, Running, recover};
use super::random::{Random, mix};
use super::workload::command;
use super::{Failure, Mutant, Report};
use crate::frame::Control;
use crate::frame::batch::{BatchDecoder, BatchEncoder};
use crate::graph::{Graph, RegionName};
use crate::replica::{CloseReason, Effect, Notice, Replica, Settings};
use crate::time::{MonoMs, WallMs};

/// Wall clocks start here.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// From the end of faults, regions have this long to converge.
const LIVENESS_MS: u64 = 90_000;
/// After that, routes have this long to be as usual again.
const SETTLE_MS: u64 = 120_000;
/// After that, everybody has this long to know that all have everything.
const STABLE_MS: u64 = 10_000;
const DIAL_MS: u64 = 100;
/// Both ends give a connection up when nothing passes for this long.
const IDLE_MS: u64 = 5_000;
/// Ops on their way over a narrow link take at most about this long.
const WINDOW_MS: u64 = 300;
/// In events, as it is the dearest check.
const STABLE_CHECK_EVERY: u64 = 23;
const FOR_EVER: u64 = u64::MAX;
const BATCH_OPS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Arrive { connection: u64, stream: StreamId },
    Lost { node: usize, connection: u64 },
    Dial { node: usize, peer: usize, generation: u64 },
    Pump { node: usize, generation: u64 },
    Fault(Fault),
    Idle { from: usize, to: usize },
    Reload { node: usize, graph: u64 },
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
    name: RegionName,
    /// Does not count: gone for good, removed, or no member yet.
    out: bool,
    /// The topology as this region knows it.
    graph: Graph,
    disk: Disk,
    /// All that was ever safe here, in whatever copy of the disk.
    ever_durable: VersionVector,
    /// No op stamped up to here is to come.
    passed: Hlc,
    backup: Option<Disk>,
    restored: bool,
    process: Option<Process>,
    clock_offset: i64,
    delays: Vec<u64>,
}

/// A scripted write: its place in the report, and when it was made.
#[derive(Clone, Debug)]
struct Watched {
    place: usize,
    dot: Dot,
    written: u64,
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
    shape: Shape,
    connections: BTreeMap<u64, Connection>,
    /// Directions that carry nothing, and until when.
    cuts: BTreeMap<(usize, usize), u64>,
    /// Until when narrow links are busy with ops.
    busy: BTreeMap<(usize, usize), u64>,
    /// Scripted writes on their way.
    watched: Vec<Watched>,
    /// Topologies that were put in force, by number.
    graphs: BTreeMap<u64, Graph>,
    /// Whether any route ever changed.
    rerouted: bool,
    commands_left: u64,
    healed: bool,
    history: History,
    /// For mutants: true headers, cursors that should have been forgotten.
    headers: BTreeMap<(Origin, u64), Header>,
    cursors: BTreeMap<(usize, RegionId), VersionVector>,
    report: Report,
    trace: Option<&'a mut Vec<String>>,
}

fn region_name(number: usize) -> RegionName {
    match RegionName::new(&format!("region-{number}")) {
        Ok(name) => name,
        Err(error) => unreachable!("a valid name: {error}"),
    }
}

impl<'a> World<'a> {
    pub(super) fn new(
        seed: u64,
        options: Options,
        mutant: Mutant,
        trace: Option<&'a mut Vec<String>>,
    ) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let names: Vec<RegionName> = (0..options.regions).map(region_name).collect();
        let ids: Vec<RegionId> = names.iter().map(|name| RegionId::of(name.as_str())).collect();
        let members: Vec<RegionName> = names
            .iter()
            .enumerate()
            .filter(|(at, _)| !options.absent.contains(at))
            .map(|(_, n)| n.clone())
            .collect();
        let graph = match Options::graph(&members, options.shape, &mut random) {
            Ok(graph) => graph,
            Err(error) => unreachable!("shapes of the simulator are valid: {error}"),
        };
        let nodes = names
            .into_iter()
            .zip(&ids)
            .enumerate()
            .map(|(at, (name, id))| Node {
                name,
                out: options.absent.contains(&at),
                graph: graph.clone(),
                disk: Disk::new(Origin::new(*id, 1)),
                ever_durable: VersionVector::new(),
                passed: Hlc(0),
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
            shape: options.shape,
            connections: BTreeMap::new(),
            cuts: BTreeMap::new(),
            busy: BTreeMap::new(),
            watched: Vec::new(),
            graphs: BTreeMap::new(),
            rerouted: false,
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
        let span = self.options.span();
        let options = self.options.clone();
        for (time, fault) in &options.script {
            self.at(*time, Event::Fault(*fault));
        }
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
                    Ok(()) if self.settled()? => return self.finish(),
                    Ok(()) => self.at(self.now + 500, Event::Check),
                    Err(why) if self.now > self.report.healed_ms + LIVENESS_MS => {
                        return Err(format!("never converges: {why}"));
                    }
                    Err(_) => self.at(self.now + 50, Event::Check),
                }
                continue;
            }
            self.step(event)?;
            if self.report.events.is_multiple_of(STABLE_CHECK_EVERY) {
                self.check_stability()?;
                self.check_passed();
            }
        }
        Err("nothing happens any more".into())
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrive { connection, stream } => self.arrive(connection, stream),
            Event::Lost { node, connection } => self.lost(node, connection),
            Event::Dial { node, peer, generation } => self.dial(node, peer, generation),
            Event::Pump { node, generation } => match self.running(node, generation) {
                Some(_) => self.pump(node),
                None => Ok(()),
            },
            Event::Fault(fault) => self.fault(fault),
            Event::Idle { from, to } => self.idle(from, to),
            Event::Reload { node, graph } => self.reload(node, graph),
            Event::Client { node } => self.client(node),
            Event::Flush { node, generation } => self.flush(node, generation),
            Event::Synced { node, generation, upto } => self.synced(node, generation, upto),
            Event::Timer { node, generation } => self.timer(node, generation),
            Event::Commit { node, generation } => self.commit(node, generation),
            Event::Crash { node, clean, restore } => self.crash(node, clean, restore, None),
            Event::Start { node } => self.start(node),
            Event::BackUp { node } => {
                let node = &mut self.nodes[node];
                let mut copy = node.disk.clone();
                copy.log.truncate(copy.durable);
                node.backup = Some(copy);
                Ok(())
            }
            Event::Cut { from, to, until } => {
                self.cut(from, to, until);
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

    fn fault(&mut self, fault: Fault) -> Result<(), String> {
        self.report.long_faults += 1;
        match fault {
            Fault::Down { node, ms } => {
                self.crash(node, false, false, ms.or(Some(FOR_EVER)))?;
                if ms.is_none() {
                    self.bury(node);
                }
            }
            Fault::Cut { from, to, ms } => self.cut(from, to, ms.map_or(FOR_EVER, |ms| self.now + ms)),
            Fault::Write { node, ops } => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let before = process.sequencer.sequence();
                // Not every command writes.
                for _ in 0..ops.saturating_mul(4) + 100 {
                    self.write(node)?;
                    let process = self.nodes[node].process.as_ref();
                    if process.is_some_and(|process| process.sequencer.sequence() >= before + ops) {
                        break;
                    }
                }
                if let Some(process) = &self.nodes[node].process {
                    let dot = Dot::new(process.sequencer.origin(), process.sequencer.sequence());
                    let place = self.report.reached_ms.len();
                    self.watched.push(Watched { place, dot, written: self.now });
                    self.report.reached_ms.push(None);
                    self.report.others_ms.push(None);
                    self.look_at_watched();
                }
            }
            Fault::Join { node } => self.join(node)?,
            Fault::Leave { node } => self.leave(node)?,
            Fault::Reshape { shape } => {
                self.shape = shape;
                self.change_topology()?;
            }
            Fault::Mark => self.report.marks.push(self.report.sent_bytes),
        }
        Ok(())
    }

    fn running(&mut self, node: usize, generation: u64) -> Option<&mut Process> {
        self.nodes[node].process.as_mut().filter(|process| process.generation == generation)
    }
}
