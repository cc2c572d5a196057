//! Regions, links, clients and faults in virtual time.

mod donor;
mod ending;
mod faults;
mod life;
mod membership;
mod seeding;
mod wire;

use std::collections::BTreeMap;

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector, covers, covers_all, raise};
use meridian_conflict::op::{Header, Op};

use super::check::{History, same};
use super::network::{Connection, Payload, StreamId};
use super::options::{Options, Sync};
use super::process::{Body, CLOCK_AHEAD_MS, Disk, Key, Process, Running, recover};
use super::random::{Random, mix};
use super::workload::command;
use super::{Failure, Fault, Mutant, Report, Schedule, Shape};
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
    Echo { number: u64 },
    Consider { node: usize, generation: u64 },
    Donate { node: usize, generation: u64, session: u64 },
    Lost { node: usize, connection: u64 },
    Ended { node: usize, connection: u64 },
    Dial { node: usize, peer: usize, generation: u64 },
    Pump { node: usize, generation: u64 },
    Fault(Fault),
    Idle { from: usize, to: usize },
    Reload { node: usize, graph: u64 },
    Flush { node: usize, generation: u64 },
    Synced { node: usize, generation: u64, upto: Option<usize> },
    Timer { node: usize, generation: u64 },
    Commit { node: usize, generation: u64 },
    Start { node: usize },
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
    /// From when on every member knows that it is removed.
    removed_at: Option<u64>,
    /// Until when the disk takes no writes.
    full_until: u64,
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
    /// Chance, apart for each use: a schedule with fewer events stays like the longer one.
    random: Random,
    network: Random,
    disks: Random,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_number: u64,
    nodes: Vec<Node>,
    ids: Vec<RegionId>,
    shape: Shape,
    connections: BTreeMap<u64, Connection>,
    /// Directions that carry nothing, and until when.
    cuts: BTreeMap<(usize, usize), u64>,
    /// Directions in which packets are lost and batches repeated, and until when.
    noise: BTreeMap<(usize, usize), u64>,
    /// Batches that come once more, or late.
    echoes: BTreeMap<u64, (u64, StreamId, Payload)>,
    /// Until when narrow links are busy with ops.
    busy: BTreeMap<(usize, usize), u64>,
    /// Scripted writes on their way.
    watched: Vec<Watched>,
    /// Topologies that were put in force, by number.
    graphs: BTreeMap<u64, Graph>,
    /// Whether any route ever changed.
    rerouted: bool,
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
    pub(super) fn new(schedule: &Schedule, mutant: Mutant, trace: Option<&'a mut Vec<String>>) -> Self {
        let Schedule { seed, options } = schedule.clone();
        let end = schedule.end();
        let mut random = Random::new(seed ^ 0x5eed);
        let names: Vec<RegionName> = (0..options.regions).map(region_name).collect();
        let ids: Vec<RegionId> = names.iter().map(|name| RegionId::of(name.as_str())).collect();
        let members: Vec<RegionName> = names
            .iter()
            .enumerate()
            .filter(|(at, _)| !options.absent.contains(at))
            .map(|(_, n)| n.clone())
            .collect();
        let graph = match options.shape.graph(&members, &mut random) {
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
                removed_at: None,
                full_until: 0,
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
            network: Random::new(seed ^ 0x0e7),
            disks: Random::new(seed ^ 0xd15c),
            now: 0,
            events: BTreeMap::new(),
            next_number: 1,
            nodes,
            ids,
            shape: options.shape,
            connections: BTreeMap::new(),
            cuts: BTreeMap::new(),
            noise: BTreeMap::new(),
            echoes: BTreeMap::new(),
            busy: BTreeMap::new(),
            watched: Vec::new(),
            graphs: BTreeMap::new(),
            rerouted: false,
            healed: false,
            history: History::default(),
            headers: BTreeMap::new(),
            cursors: BTreeMap::new(),
            report: Report::default(),
            trace,
            options,
        };
        world.schedule(end);
        world
    }

    /// Everything that is known from the start.
    fn schedule(&mut self, end: u64) {
        for node in 0..self.options.regions {
            self.at(0, Event::Start { node });
        }
        for (time, fault) in self.options.script.clone() {
            self.at(time, Event::Fault(fault));
        }
        self.at(end + 300, Event::Heal);
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
        let schedule = Schedule { seed, options };
        match outcome {
            Ok(()) => Ok(report),
            Err(what) => Err(Box::new(Failure { schedule, mutant, what, at_ms: now })),
        }
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
            Event::Echo { number } => self.echo(number),
            Event::Consider { node, generation } => {
                if self.running(node, generation).is_some() {
                    self.consider_takeover(node);
                }
                Ok(())
            }
            Event::Donate { node, generation, session } => self.donate(node, generation, session),
            Event::Ended { node, connection } => self.ended(node, connection),
            Event::Lost { node, connection } => self.lost(node, connection),
            Event::Dial { node, peer, generation } => self.dial(node, peer, generation),
            Event::Pump { node, generation } => match self.running(node, generation) {
                Some(_) => self.pump(node),
                None => Ok(()),
            },
            Event::Fault(fault) => self.fault(fault),
            Event::Idle { from, to } => self.idle(from, to),
            Event::Reload { node, graph } => self.reload(node, graph),
            Event::Flush { node, generation } => self.flush(node, generation),
            Event::Synced { node, generation, upto } => self.synced(node, generation, upto),
            Event::Timer { node, generation } => self.timer(node, generation),
            Event::Commit { node, generation } => self.commit(node, generation),
            Event::Start { node } => self.start(node),
            Event::Heal => self.heal(),
            Event::Check => Ok(()),
        }
    }

    fn running(&mut self, node: usize, generation: u64) -> Option<&mut Process> {
        self.nodes[node].process.as_mut().filter(|process| process.generation == generation)
    }
}
