//! Regions, links, clients and faults in virtual time.

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
    pub(super) fn run(mut self) -> Result<Report, Failure> {
        let outcome = self.steps();
        let Self { seed, options, mutant, report, now, .. } = self;
        outcome.map_err(|what| Failure { seed, mutant, options: options.clone(), what, at_ms: now })?;
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

    // --- The process ---

    fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        let incarnation = self.random.between(2, u64::from(u32::MAX)) as u32;
        let (boot, wide) = (self.random.next(), self.routes[node].clone());
        let always = self.options.sync == Sync::Always;
        let this = &mut self.nodes[node];
        let unclean = !this.disk.clean;
        if unclean && !always && self.mutant != Mutant::IncarnationKept {
            this.disk.origin = Origin::new(self.ids[node], incarnation);
            self.report.incarnations += 1;
        }
        let (sequencer, objects) = recover(&this.disk, self.mutant)?;
        let settings = Settings {
            pending_bytes_max: self.options.pending_bytes_max,
            ..Settings::new("sim", &this.name, boot)
        };
        let replica = Replica::new(settings, wide, this.disk.origin, sequencer.applied().clone());
        let generation = self.next_number;
        let mut process = Process::start(generation, &mut this.disk, sequencer, objects, replica);
        process.serving = !this.restored || !always;
        this.process = Some(process);
        self.note(|| format!("start {node}"));
        self.after(20, 120, Event::Commit { node, generation });
        Ok(())
    }

    fn crash(&mut self, node: usize, clean: bool, restore: bool) -> Result<(), String> {
        if restore && self.nodes[node].backup.is_none() {
            return Ok(());
        }
        let Some(process) = self.nodes[node].process.take() else {
            return Ok(());
        };
        self.note(|| format!("{} {node}", if clean { "stop" } else { "crash" }));
        self.report.crashes += 1;
        let disk = &mut self.nodes[node].disk;
        if clean {
            let mut process = process;
            let length = disk.log.len();
            let acknowledged = process.synced(disk, length);
            disk.clean = true;
            acknowledged.iter().for_each(|dot| self.history.acknowledge(dot));
            for op in &self.nodes[node].disk.log {
                self.history.register(op)?;
            }
        } else {
            disk.crash(process.written, &mut self.random);
        }
        let open: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.ends.contains(&node)).map(|(n, _)| *n).collect();
        for connection in open {
            self.close_side(node, connection, 300);
        }
        let mut down = self.random.between(1, 400);
        if restore {
            self.restore(node);
            down += 400;
        }
        self.at(self.now + down, Event::Start { node });
        Ok(())
    }

    fn restore(&mut self, node: usize) {
        let Some(disk) = self.nodes[node].backup.take() else { return };
        self.note(|| format!("restore {node}"));
        self.report.restores += 1;
        let others =
            || self.nodes.iter().enumerate().filter(move |(at, _)| *at != node).map(|(_, other)| other);
        let safe: Vec<VersionVector> = others().map(|other| other.disk.durable_vector()).collect();
        let heard = |dot: &Dot| {
            others().any(|other| {
                other.disk.log.iter().any(|op| op.header.dot == *dot)
                    || other.process.as_ref().is_some_and(|process| {
                        let delivery = process.replica.delivery();
                        covers(delivery.admitted(), dot) || covers(&delivery.held_of(dot.actor.region()), dot)
                    })
            })
        };
        self.history.restored(node, &disk, |dot| safe.iter().any(|vector| covers(vector, dot)), heard);
        let this = &mut self.nodes[node];
        this.disk = Disk { clean: false, ..disk };
        this.restored = true;
    }

    fn client(&mut self, node: usize) -> Result<(), String> {
        if self.healed || self.commands_left == 0 {
            return Ok(());
        }
        self.after(1, 2 * self.options.pace_ms, Event::Client { node });
        let wall = self.wall(node);
        let unique = self.next_number;
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(()) };
        process.serving |= process.replica.unconfirmed().next().is_none();
        if !process.serving {
            return Ok(());
        }
        this.restored = false;
        self.commands_left -= 1;
        let origin = process.sequencer.origin();
        let body = command(&mut self.random, &process.objects, origin, wall.0, self.options.keys, unique);
        if body.is_empty() {
            return Ok(());
        }
        let header = process.sequencer.local(wall);
        self.history.stamped(node, header.hlc)?;
        let (dot, hlc) = (header.dot.clone(), header.hlc);
        process.apply_local(&mut this.disk, header, &body, self.mutant)?;
        if self.mutant == Mutant::AcknowledgeBeforeDurable && self.options.sync == Sync::Always {
            self.history.acknowledge(&dot);
        }
        self.report.ops += 1;
        self.fingerprint(hlc.0 ^ dot.counter);
        self.note(|| format!("write {dot:?} at {node}"));
        self.appended(node);
        Ok(())
    }

    fn appended(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if !std::mem::replace(&mut process.flushing, true) {
            let generation = process.generation;
            self.after(1, 3, Event::Flush { node, generation });
        }
    }

    fn flush(&mut self, node: usize, generation: u64) -> Result<(), String> {
        let length = self.nodes[node].disk.log.len();
        let sync = self.options.sync;
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        process.written = length;
        if sync == Sync::Always {
            self.after(1, 8, Event::Synced { node, generation, upto: Some(length) });
            if self.mutant != Mutant::ReplicateBeforeDurable {
                return Ok(());
            }
        } else {
            process.flushing = false;
            if !std::mem::replace(&mut process.syncing, true) {
                let (low, high) = if sync == Sync::EverySecond { (150, 150) } else { (300, 1_500) };
                self.after(low, high, Event::Synced { node, generation, upto: None });
            }
        }
        if self.mutant == Mutant::PeerAckBeforeDurable {
            let now = MonoMs(self.now);
            if let Some(process) = self.running(node, generation) {
                let applied = process.sequencer.applied().clone();
                process.replica.handle_durable(now, &applied);
            }
        }
        self.pump(node)?;
        self.drain(node)
    }

    fn synced(&mut self, node: usize, generation: u64, upto: Option<usize>) -> Result<(), String> {
        let now = MonoMs(self.now);
        if self.running(node, generation).is_none() {
            return Ok(());
        }
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(()) };
        let upto = upto.unwrap_or(process.written);
        let from = this.disk.durable;
        let acknowledged = process.synced(&mut this.disk, upto);
        (process.syncing, process.flushing) = (false, false);
        let durable = process.durable_vector.clone();
        process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
        process.replica.handle_durable(now, &durable);
        let more = this.disk.log.len() > process.written;
        for op in this.disk.log.get(from..upto).unwrap_or_default() {
            self.history.register(op)?;
        }
        acknowledged.iter().for_each(|dot| self.history.acknowledge(dot));
        if more {
            self.appended(node);
        }
        self.pump(node)?;
        self.drain(node)
    }

    fn commit(&mut self, node: usize, generation: u64) -> Result<(), String> {
        if self.running(node, generation).is_none() {
            return Ok(());
        }
        let this = &mut self.nodes[node];
        if let Some(process) = &mut this.process {
            process.step_commit(&mut this.disk, &mut self.random, self.mutant);
        }
        self.after(5, 40, Event::Commit { node, generation });
        Ok(())
    }

    fn timer(&mut self, node: usize, generation: u64) -> Result<(), String> {
        let (now, wall) = (MonoMs(self.now), self.wall(node));
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        process.timer_at = u64::MAX;
        process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
        process.replica.handle_timeout(now, wall);
        self.drain(node)
    }

    /// Carries out what the replica wants.
    fn drain(&mut self, node: usize) -> Result<(), String> {
        let mut applied = false;
        while let Some(effect) = self.nodes[node].process.as_mut().and_then(|p| p.replica.poll_effect()) {
            match effect {
                Effect::Deliver(op) => {
                    self.deliver(node, op)?;
                    applied = true;
                }
                Effect::Send { peer: _, session, control } => self.send_control(node, session, &control)?,
                Effect::StartFeed { peer, session, subscription, mut feed } => {
                    if self.mutant == Mutant::CursorSurvives {
                        if let Some(cursor) = self.cursors.get(&(node, peer)) {
                            cursor.iter().for_each(|dot| {
                                let dot = Dot::new(*dot.actor, dot.counter);
                                feed.offer(&Header {
                                    dot,
                                    hlc: Default::default(),
                                    deps: Default::default(),
                                });
                            });
                        }
                    }
                    if let Some(process) = &mut self.nodes[node].process {
                        process.feeds.insert((peer, session), Running { subscription, feed, at: 0 });
                    }
                    self.pump(node)?;
                }
                Effect::StopFeed { peer, session, .. } => {
                    let process = self.nodes[node].process.as_mut();
                    if let Some(running) = process.and_then(|p| p.feeds.remove(&(peer, session))) {
                        self.cursors.insert((node, peer), running.feed.cursor().clone());
                    }
                }
                Effect::CloseLink { session, .. } => self.close_side(node, session, 5),
                Effect::TakeNewIncarnation(amnesia) => self.reincarnate(node, &format!("{amnesia:?}")),
                Effect::Notice(notice) => {
                    if let Notice::Held { .. } = notice {
                        self.report.holds += 1;
                    }
                    self.note(|| format!("region {node}: {notice:?}"));
                }
            }
        }
        if applied {
            self.appended(node);
        }
        self.watch(node)
    }

    fn watch(&mut self, node: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let delivery = process.replica.delivery();
        if delivery.pending_bytes() > self.options.pending_bytes_max {
            return Err(format!("region {node} holds {} bytes", delivery.pending_bytes()));
        }
        self.report.most_pending_bytes = self.report.most_pending_bytes.max(delivery.pending_bytes());
        let waits = delivery.causal_waits();
        self.report.causal_waits = self.report.causal_waits.max(waits);
        if waits > 0 && self.options.never_waits() && self.mutant == Mutant::None {
            return Err(format!("an op waited in a {:?}", self.options.shape));
        }
        if let Some(MonoMs(at)) = process.replica.poll_timeout()
            && at < process.timer_at
        {
            process.timer_at = at;
            let generation = process.generation;
            self.at(at, Event::Timer { node, generation });
        }
        Ok(())
    }

    fn deliver(&mut self, node: usize, mut op: Op<Body>) -> Result<(), String> {
        let key = (op.header.dot.actor, op.header.dot.counter);
        if self.mutant == Mutant::NoCausalGate
            && let Some(header) = self.headers.get(&key)
        {
            op.header = header.clone();
        }
        self.history.register(&op)?;
        self.fingerprint(mix(key.0.0 ^ key.1) ^ node as u64);
        self.note(|| format!("apply {:?} at {node}", op.header.dot));
        let this = &mut self.nodes[node];
        match &mut this.process {
            Some(process) => process.apply_remote(&mut this.disk, op, self.mutant),
            None => Ok(()),
        }
    }

    fn reincarnate(&mut self, node: usize, why: &str) {
        let incarnation = self.random.between(2, u64::from(u32::MAX)) as u32;
        let origin = Origin::new(self.ids[node], incarnation);
        self.note(|| format!("region {node} takes a new incarnation: {why}"));
        self.report.amnesia += 1;
        let this = &mut self.nodes[node];
        this.disk.origin = origin;
        if let Some(process) = &mut this.process {
            process.sequencer.reincarnate(origin);
            process.replica.handle_reincarnated(origin);
        }
    }

    // --- The network ---

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now)
    }

    fn dial(&mut self, low: usize, high: usize) -> Result<(), String> {
        self.after(DIAL_MS / 2, DIAL_MS, Event::Dial { low, high });
        let believed = self.connections.values().any(|c| c.ends == [low, high] && c.open[0]);
        if believed { Ok(()) } else { self.connect(low, high) }
    }

    fn connect(&mut self, low: usize, high: usize) -> Result<(), String> {
        let up = |node: usize| self.nodes[node].process.is_some();
        if !up(low) || !up(high) || self.is_cut(low, high) || self.is_cut(high, low) {
            return Ok(());
        }
        self.next_number += 1;
        let number = self.next_number;
        self.connections.insert(number, Connection::new(low, high));
        self.transmit(low, number, 0, Payload::Connected);
        self.connected(low, high, number)
    }

    fn connected(&mut self, node: usize, peer: usize, session: u64) -> Result<(), String> {
        let (now, peer) = (MonoMs(self.now), self.ids[peer]);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
        process.replica.handle_connected(now, peer, session);
        self.drain(node)
    }

    fn transmit(&mut self, node: usize, session: u64, stream: u64, payload: Payload) {
        let Some(connection) = self.connections.get_mut(&session) else { return };
        let side = connection.side(node);
        if !connection.open[side] || connection.is_broken() {
            return;
        }
        let delay = self.nodes[node].delays[connection.ends[1 - side]];
        let arrival = self.now + delay + self.random.below(delay / 2 + 1);
        let stream = (side == 0, stream);
        let arrival = connection.send(stream, payload, arrival);
        self.at(arrival, Event::Arrive { connection: session, stream });
    }

    fn send_control(&mut self, node: usize, session: u64, control: &Control) -> Result<(), String> {
        if let (Control::Ack { durable }, Some(process)) = (control, &self.nodes[node].process)
            && !covers_all(&process.durable_vector, durable)
        {
            return Err(format!("region {node} acknowledges to a peer what is not durable"));
        }
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        self.transmit(node, session, 0, Payload::Control(bytes));
        Ok(())
    }

    fn arrive(&mut self, number: u64, stream: StreamId) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let (from, to) = match stream.0 {
            true => (connection.ends[0], connection.ends[1]),
            false => (connection.ends[1], connection.ends[0]),
        };
        let side = connection.side(to);
        if !connection.open[side] {
            return Ok(());
        }
        if self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now) {
            self.at(self.now + 25, Event::Arrive { connection: number, stream });
            return Ok(());
        }
        let Some(payload) = connection.receive(stream) else { return Ok(()) };
        if self.nodes[to].process.is_none() {
            self.close_side(to, number, 30);
            return Ok(());
        }
        let peer = self.ids[from];
        let (now, wall) = (MonoMs(self.now), self.wall(to));
        match payload {
            Payload::Connected => return self.connected(to, from, number),
            Payload::Control(bytes) => {
                let control = Control::decode(&bytes).map_err(|e| format!("control: {e}"))?;
                let Some(process) = &mut self.nodes[to].process else { return Ok(()) };
                process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
                process.replica.handle_control(now, wall, peer, number, control);
            }
            Payload::Batch(bytes) => {
                let ops = self.decode(to, &bytes)?;
                let Some(process) = &mut self.nodes[to].process else { return Ok(()) };
                process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
                process.replica.handle_batch(now, wall, peer, number, stream.1, ops);
            }
        }
        self.drain(to)
    }

    fn decode(&mut self, node: usize, bytes: &[u8]) -> Result<Vec<Op<Body>>, String> {
        let mut ops = Vec::new();
        for op in BatchDecoder::new(bytes).map_err(|e| format!("batch: {e}"))? {
            let op = op.map_err(|e| format!("batch: {e}"))?;
            let mut op = Op { header: op.header, body: Body::from(op.body) };
            self.report.received += 1;
            let applied = self.nodes[node].process.as_ref().map(|p| p.sequencer.applied());
            if applied.is_some_and(|applied| covers(applied, &op.header.dot)) {
                self.report.duplicates += 1;
                if self.mutant == Mutant::NoDedupe {
                    self.deliver(node, op)?;
                    continue;
                }
            }
            if self.mutant == Mutant::NoCausalGate {
                let key = (op.header.dot.actor, op.header.dot.counter);
                self.headers.insert(key, op.header.clone());
                op.header.deps.clear();
            }
            ops.push(op);
        }
        Ok(ops)
    }

    /// Sends what the feeds take from the log, as far as it may leave.
    fn pump(&mut self, node: usize) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(()) };
        let early = self.mutant == Mutant::ReplicateBeforeDurable;
        let limit = match self.options.sync {
            Sync::Always if early => this.disk.log.len(),
            Sync::Always => this.disk.durable,
            _ => process.written,
        };
        let own = process.sequencer.origin();
        let mut batches = Vec::new();
        for ((_, session), running) in &mut process.feeds {
            let mut encoder = BatchEncoder::default();
            for op in this.disk.log.get(running.at..limit).unwrap_or_default() {
                let skipped = self.mutant == Mutant::ForwardOwnOnly && op.header.dot.actor != own;
                if skipped || !running.feed.offer(&op.header) {
                    continue;
                }
                self.history.register(op)?;
                encoder.push(&op.header, &op.body);
                if encoder.count() == BATCH_OPS {
                    let mut bytes = Vec::new();
                    encoder.finish(&mut bytes);
                    batches.push((*session, running.subscription, bytes));
                }
            }
            if !encoder.is_empty() {
                let mut bytes = Vec::new();
                encoder.finish(&mut bytes);
                batches.push((*session, running.subscription, bytes));
            }
            running.at = running.at.max(limit);
        }
        for (session, subscription, bytes) in batches {
            self.transmit(node, session, subscription, Payload::Batch(bytes));
        }
        Ok(())
    }

    /// `node` ends its side; the other side notices after what was sent before has arrived.
    fn close_side(&mut self, node: usize, number: u64, at_most: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let side = connection.side(node);
        if !std::mem::replace(&mut connection.open[side], false) {
            return;
        }
        let other = connection.ends[1 - side];
        let noticed = connection.last_arrival(side).max(self.now) + 1 + self.random.below(at_most);
        self.at(noticed, Event::Lost { node: other, connection: number });
    }

    fn lost(&mut self, node: usize, number: u64) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let side = connection.side(node);
        let peer = self.ids[connection.ends[1 - side]];
        let open = std::mem::replace(&mut connection.open[side], false);
        if connection.open == [false, false] {
            self.connections.remove(&number);
        }
        if open && let Some(process) = &mut self.nodes[node].process {
            process.replica.handle_disconnected(peer, number);
        }
        self.drain(node)
    }

    fn reset(&mut self, pick: u64, double: bool) -> Result<(), String> {
        let count = self.connections.len() as u64;
        let at = pick.checked_rem(count).unwrap_or(0) as usize;
        let Some((number, connection)) = self.connections.iter_mut().nth(at) else { return Ok(()) };
        let (number, ends) = (*number, connection.ends);
        self.report.resets += 1;
        if double {
            // The old connection still looks alive: the new one has to replace it.
            self.note(|| format!("second connection between {ends:?}"));
            return self.connect(ends[0], ends[1]);
        }
        // What is on the way is lost at once; each side notices in its own time.
        connection.lose_everything();
        self.note(|| format!("reset between {ends:?}"));
        for node in ends {
            self.after(1, 200, Event::Lost { node, connection: number });
        }
        Ok(())
    }

    // --- The end ---

    fn heal(&mut self) -> Result<(), String> {
        self.note(|| "heal".into());
        self.healed = true;
        self.report.healed_ms = self.now;
        self.cuts.clear();
        self.events.retain(|_, event| {
            !matches!(
                event,
                Event::Crash { .. }
                    | Event::Cut { .. }
                    | Event::Reset { .. }
                    | Event::Step { .. }
                    | Event::Client { .. }
            )
        });
        let wide =
            self.options.sync != Sync::Always && matches!(self.options.shape, Shape::Star | Shape::Mesh);
        for node in 0..self.nodes.len() {
            self.nodes[node].clock_offset = 0;
        }
        if wide {
            let (ids, mut unused) = (self.ids.clone(), Random::new(0));
            self.routes = self.options.routes(&ids, &mut unused, true);
            for node in 0..self.nodes.len() {
                let (now, routes) = (MonoMs(self.now), self.routes[node].clone());
                if let Some(process) = &mut self.nodes[node].process {
                    process.replica.handle_routes(now, routes, 0);
                }
                self.drain(node)?;
            }
        }
        self.at(self.now + 50, Event::Check);
        Ok(())
    }

    /// Whether nothing is left to do.
    fn converged(&self) -> Result<(), String> {
        let mut first: Option<&VersionVector> = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Err(format!("region {at} is down")) };
            let applied = process.sequencer.applied();
            if process.replica.delivery().pending_ops() > 0 {
                let missing: Vec<Dot> = process.replica.delivery().missing().collect();
                return Err(format!("region {at} holds ops back that lack {missing:?}"));
            }
            if node.disk.durable < node.disk.log.len() {
                return Err(format!("region {at} is not flushed"));
            }
            if first.is_some_and(|first| first != applied) {
                return Err(format!("region {at} has {applied}, region 0 has {first:?}"));
            }
            first.get_or_insert(applied);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.report.converged_ms = self.now;
        let wall = EPOCH_MS + self.now;
        let mut first = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Err("down".into()) };
            self.history.all_acknowledged_in(at, process.sequencer.applied())?;
            let first = *first.get_or_insert(&process.objects);
            same(&format!("regions 0 and {at}"), first, &process.objects, wall)?;
            // The state is a fold of the log, and what is on disk leads to it.
            if self.mutant == Mutant::None {
                let fresh = Disk { store: Default::default(), ..node.disk.clone() };
                let (_, folded) = recover(&fresh, self.mutant)?;
                same(&format!("region {at} and its log"), &process.objects, &folded, wall)?;
            }
            let (sequencer, recovered) = recover(&node.disk, self.mutant)?;
            same(&format!("region {at} and its disk"), &process.objects, &recovered, wall)?;
            if sequencer.applied() != process.sequencer.applied() {
                return Err(format!("region {at} would recover to another vector"));
            }
            for op in &node.disk.log {
                self.history.register(op)?;
            }
        }
        Ok(())
    }
}
