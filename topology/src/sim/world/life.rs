//! Processes: starts, crashes, clients, flushes, and what their replicas want.

use super::*;
use crate::sim::seeding::Stage;

impl World<'_> {
    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].process.is_some() || self.nodes[node].out {
            return Ok(());
        }
        let incarnation = self.random.between(2, u64::from(u32::MAX)) as u32;
        let (boot, graph) = (self.random.next(), self.nodes[node].graph.clone());
        let always = self.options.sync == Sync::Always;
        let this = &mut self.nodes[node];
        let unclean = !this.disk.clean;
        let life = (EPOCH_MS + self.now).saturating_add_signed(this.clock_offset);
        if unclean && !always && self.mutant != Mutant::IncarnationKept {
            this.disk.origin = Origin::new(self.ids[node], incarnation);
            this.disk.life = life;
            self.report.incarnations += 1;
        }
        let (sequencer, objects) = recover(&this.disk, self.mutant)?;
        let settings = Settings {
            pending_bytes_max: self.options.pending_bytes_max,
            redundant: self.options.redundant(),
            life: this.disk.life,
            young_ms: if always { 0 } else { 30_000 },
            lease_ms: if self.mutant == Mutant::FenceNever { FOR_EVER } else { self.options.lease_ms },
            ..Settings::new("sim", &this.name, boot)
        };
        let mut replica = Replica::new(settings, graph, this.disk.origin, sequencer.applied().clone());
        replica.handle_truncated(this.disk.truncated(), &this.disk.jumped(self.mutant));
        replica.handle_donor(MonoMs(self.now), this.disk.stage.as_ref().and_then(Stage::donor));
        replica.handle_loading(this.disk.stage.is_some().then(|| this.disk.base.clone()));
        let generation = self.next_number;
        let mut process = Process::start(generation, &mut this.disk, sequencer, objects, replica);
        raise_all(&mut this.ever_durable, &process.durable_vector);
        process.serving = !this.restored || !always;
        process.takeover.born = self.now;
        this.process = Some(process);
        self.note(|| format!("start {node}"));
        self.after(20, 120, Event::Commit { node, generation });
        self.drain(node)
    }

    /// One command of a client. Returns whether it wrote.
    pub(super) fn write(&mut self, node: usize, pick: u64) -> Result<bool, String> {
        let (wall, full) = (self.wall(node), self.is_full(node));
        self.next_number += 1;
        let unique = self.next_number;
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(false) };
        process.serving |= process.replica.unconfirmed().next().is_none();
        if !process.serving || full || process.takeover.stage.is_some() {
            return Ok(false);
        }
        if std::mem::take(&mut this.restored) {
            self.begin_anew(node);
        }
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(false) };
        let origin = process.sequencer.origin();
        let mut random = Random::new(pick);
        let body = command(&mut random, &process.objects, origin, wall.0, self.options.keys, unique);
        if body.is_empty() {
            return Ok(false);
        }
        let header = process.sequencer.local(wall);
        self.history.stamped(node, header.hlc)?;
        let (dot, hlc) = (header.dot, header.hlc);
        process.apply_local(&mut this.disk, header, &body, self.mutant)?;
        if self.mutant == Mutant::AcknowledgeBeforeDurable && self.options.sync == Sync::Always {
            self.history.acknowledge(&dot);
        }
        if self.nodes[node].removed_at.is_some_and(|at| at < self.now) {
            self.history.written_outside(&dot);
        }
        self.report.ops += 1;
        self.fingerprint(hlc.0 ^ dot.counter);
        self.note(|| format!("write {dot:?} at {node}"));
        self.appended(node);
        Ok(true)
    }

    pub(super) fn appended(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if !std::mem::replace(&mut process.flushing, true) {
            let generation = process.generation;
            self.after(1, 3, Event::Flush { node, generation });
        }
    }

    pub(super) fn flush(&mut self, node: usize, generation: u64) -> Result<(), String> {
        let length = self.nodes[node].disk.log.len();
        let (sync, full) = (self.options.sync, self.is_full(node));
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        if full {
            self.after(10, 60, Event::Flush { node, generation });
            return Ok(());
        }
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

    pub(super) fn synced(&mut self, node: usize, generation: u64, upto: Option<usize>) -> Result<(), String> {
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
        raise_all(&mut this.ever_durable, &durable);
        process.tell_local(self.mutant);
        process.replica.handle_durable(now, &durable);
        let more = this.disk.log.len() > process.written;
        for op in this.disk.log.get(from..upto).unwrap_or_default() {
            self.history.register(op)?;
        }
        if !self.nodes[node].out {
            acknowledged.iter().for_each(|dot| self.history.acknowledge(dot));
        }
        if more {
            self.appended(node);
        }
        self.end_loading(node);
        self.pump(node)?;
        self.drain(node)
    }

    pub(super) fn commit(&mut self, node: usize, generation: u64) -> Result<(), String> {
        if self.running(node, generation).is_none() {
            return Ok(());
        }
        let full = self.is_full(node);
        let this = &mut self.nodes[node];
        if let Some(process) = this.process.as_mut().filter(|_| !full) {
            process.step_commit(&mut this.disk, &mut self.disks, self.mutant);
        }
        self.after(5, 40, Event::Commit { node, generation });
        Ok(())
    }

    pub(super) fn timer(&mut self, node: usize, generation: u64) -> Result<(), String> {
        let (now, wall) = (MonoMs(self.now), self.wall(node));
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        process.timer_at = u64::MAX;
        // The clock goes on, too, while nobody writes.
        process.sequencer.merge_clock(Hlc::from_ms(wall.0));
        let ahead = Hlc::from_ms(process.sequencer.hlc().ms() + CLOCK_AHEAD_MS);
        let bound = &mut self.nodes[node].disk.clock_bound;
        *bound = (*bound).max(ahead);
        let mutant = self.mutant;
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        process.tell_local(mutant);
        process.replica.handle_timeout(now, wall);
        self.drain(node)?;
        self.consider_takeover(node);
        Ok(())
    }

    /// Carries out what the replica wants.
    pub(super) fn drain(&mut self, node: usize) -> Result<(), String> {
        let mut applied = false;
        while let Some(effect) = self.nodes[node].process.as_mut().and_then(|p| p.replica.poll_effect()) {
            match effect {
                Effect::Deliver(op) => {
                    self.deliver(node, op)?;
                    applied = true;
                }
                Effect::Send { peer: _, session, control } => self.send_control(node, session, &control)?,
                Effect::StartFeed { peer, session, subscription, mut feed } => {
                    if self.mutant == Mutant::CursorSurvives
                        && let Some(cursor) = self.cursors.get(&(node, peer))
                    {
                        cursor.iter().for_each(|dot| {
                            let dot = Dot::new(*dot.actor, dot.counter);
                            feed.offer(&Header { dot, hlc: Default::default(), deps: Default::default() });
                        });
                    }
                    let at = self.nodes[node].disk.start;
                    if let Some(process) = &mut self.nodes[node].process {
                        process.feeds.insert((peer, session), Running { subscription, feed, at });
                    }
                    self.pump(node)?;
                }
                Effect::StopFeed { peer, session, .. } => {
                    let process = self.nodes[node].process.as_mut();
                    if let Some(running) = process.and_then(|p| p.feeds.remove(&(peer, session))) {
                        self.cursors.insert((node, peer), running.feed.cursor().clone());
                    }
                }
                Effect::CloseLink { reason: CloseReason::Unneeded, .. }
                    if self.mutant == Mutant::LinksKept => {}
                Effect::CloseLink { session, .. } => {
                    self.close_side(node, session, 5);
                    self.seed_stream_lost(node, session)?;
                }
                // Simulated regions have no hooks.
                Effect::AskHook(_) => {}
                Effect::Dial { peer }
                    if self.mutant == Mutant::DialsIgnored && !self.are_neighbours(node, peer) => {}
                Effect::Dial { peer } => self.wanted(node, peer, true),
                Effect::Undial { peer } => self.wanted(node, peer, false),
                Effect::TakeNewIncarnation(amnesia) => self.reincarnate(node, &format!("{amnesia:?}")),
                Effect::Notice(notice) => {
                    match notice {
                        Notice::Held { peer, hold } => {
                            self.report.holds += 1;
                            self.refused(node, peer, hold);
                        }
                        Notice::Fenced { .. } => self.report.fenced += 1,
                        Notice::Unfenced { .. } => self.report.unfenced += 1,
                        Notice::Rerouted(_) => {
                            (self.rerouted, self.report.reroutes) = (true, self.report.reroutes + 1)
                        }
                        _ => {}
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

    pub(super) fn are_neighbours(&self, node: usize, peer: RegionId) -> bool {
        let neighbours = self.nodes[node].graph.neighbours(&self.nodes[node].name);
        neighbours.iter().any(|name| RegionId::of(name.as_str()) == peer)
    }

    fn wanted(&mut self, node: usize, peer: RegionId, dial: bool) {
        let Some(to) = self.ids.iter().position(|id| *id == peer) else { return };
        self.note(|| format!("region {node} {} {to}", if dial { "dials" } else { "does not dial" }));
        let Some(process) = &mut self.nodes[node].process else { return };
        let generation = process.generation;
        if !dial {
            process.dials.remove(&to);
        } else if process.dials.insert(to) && process.dialling.insert(to) {
            self.after(1, 20, Event::Dial { node, peer: to, generation });
        }
    }

    pub(super) fn watch(&mut self, node: usize) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let delivery = process.replica.delivery();
        if delivery.pending_bytes() > self.options.pending_bytes_max {
            return Err(format!("region {node} holds {} bytes", delivery.pending_bytes()));
        }
        self.report.most_pending_bytes = self.report.most_pending_bytes.max(delivery.pending_bytes());
        let waits = delivery.causal_waits();
        self.report.causal_waits = self.report.causal_waits.max(waits);
        if waits > 0 && !self.rerouted && self.options.never_waits() && self.mutant == Mutant::None {
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

    pub(super) fn deliver(&mut self, node: usize, mut op: Op<Body>) -> Result<(), String> {
        let key = (op.header.dot.actor, op.header.dot.counter);
        if self.mutant == Mutant::NoCausalGate
            && let Some(header) = self.headers.get(&key)
        {
            op.header = header.clone();
        }
        self.history.register(&op)?;
        if self.history.is_outside(&op.header.dot) && !self.nodes[node].out {
            return Err(format!("region {node} takes an op that a removed region wrote later"));
        }
        self.fingerprint(mix(key.0.0 ^ key.1) ^ node as u64);
        self.note(|| format!("apply {:?} at {node}", op.header.dot));
        let this = &mut self.nodes[node];
        // What a fenced or restored region comes back with may be older.
        let fresh = !self.report.fenced_or_lost() && !self.options.is_changing();
        if op.header.hlc <= this.passed && fresh {
            return Err(format!("{:?} comes to region {node} after its time has passed", op.header.dot));
        }
        match &mut this.process {
            Some(process) => process.apply_remote(&mut this.disk, op, self.mutant)?,
            None => return Ok(()),
        }
        self.look_at_watched();
        Ok(())
    }

    /// Whether scripted writes have come everywhere.
    pub(super) fn look_at_watched(&mut self) {
        let (nodes, options, report, now) = (&self.nodes, &self.options, &mut self.report, self.now);
        self.watched.retain(|watched| {
            let has = |node: &Node| {
                node.out
                    || node
                        .process
                        .as_ref()
                        .is_none_or(|process| covers(process.sequencer.applied(), &watched.dot))
            };
            let narrow = |at: &usize| options.narrow.iter().any(|(_, to, _)| to == at);
            let mut others = nodes.iter().enumerate().filter(|(at, _)| !narrow(at));
            let reached = Some(now - watched.written);
            if others.all(|(_, node)| has(node)) {
                report.others_ms[watched.place] = report.others_ms[watched.place].or(reached);
            }
            let everywhere = nodes.iter().all(has);
            if everywhere {
                report.reached_ms[watched.place] = reached;
            }
            !everywhere
        });
    }

    pub(super) fn reincarnate(&mut self, node: usize, why: &str) {
        let incarnation = self.random.between(2, u64::from(u32::MAX)) as u32;
        let origin = Origin::new(self.ids[node], incarnation);
        self.note(|| format!("region {node} takes a new incarnation: {why}"));
        self.report.amnesia += 1;
        let life = self.wall(node).0;
        let this = &mut self.nodes[node];
        (this.disk.origin, this.disk.life) = (origin, life);
        if let Some(process) = &mut this.process {
            // Nobody knows anything of this life that it does not know itself.
            process.serving = true;
            process.sequencer.reincarnate(origin);
            let durable = process.durable_vector.clone();
            process.replica.handle_reincarnated(origin, process.sequencer.applied(), &durable);
        }
    }
}

pub(super) fn raise_all(into: &mut VersionVector, other: &VersionVector) {
    other.iter().for_each(|dot| raise(into, *dot.actor, dot.counter));
}
