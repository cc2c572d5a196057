//! What goes wrong.

use super::life::raise_all;
use super::*;

impl World<'_> {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Command { node, pick } => {
                // A removed region goes on serving clients, whom nobody promises anything.
                return self.write(node, pick).map(|_| ());
            }
            Fault::Down { node, ms: None } if self.is_last_whole(node) => {}
            Fault::Down { node, ms } => {
                self.happens("power failure", self.nodes[node].process.is_some());
                self.crash(node, false, ms.unwrap_or(FOR_EVER))?;
                if ms.is_none() {
                    self.happens("loss for good", true);
                    self.bury(node);
                }
            }
            Fault::Stop { node, ms } => {
                self.happens("restart", self.nodes[node].process.is_some());
                self.crash(node, !self.is_full(node), ms)?;
            }
            Fault::BackUp { node } => {
                let node = &mut self.nodes[node];
                let mut copy = node.disk.clone();
                copy.log.truncate(copy.durable);
                node.backup = Some(copy);
            }
            Fault::Restore { node, ms } => self.restore(node, ms)?,
            Fault::Wipe { node, ms } => self.wipe(node, ms)?,
            Fault::Full { node, ms } => {
                self.happens("full disk", self.nodes[node].process.is_some());
                let until = &mut self.nodes[node].full_until;
                *until = (*until).max(self.now + ms);
                self.note(|| format!("disk of {node} is full"));
            }
            Fault::Truncate { node } => self.truncate(node),
            Fault::Cut { from, to, ms } => {
                let back = self.is_cut(to, from);
                self.happens(if back { "cut both ways" } else { "cut one way" }, from != to);
                self.cut(from, to, ms.map_or(FOR_EVER, |ms| self.now + ms));
            }
            Fault::Noise { from, to, ms } => {
                let until = self.now + ms;
                self.noise.insert((from, to), until);
                self.note(|| format!("noise {from} -> {to} until {until}"));
            }
            Fault::Reset { pick } => self.reset(pick, false)?,
            Fault::Double { pick } => self.reset(pick, true)?,
            Fault::Step { node, by } => {
                self.note(|| format!("clock of {node} steps by {by}"));
                self.nodes[node].clock_offset += by;
                self.happens(if by < 0 { "clock back" } else { "clock forth" }, true);
            }
            Fault::Write { node, ops } => self.burst(node, ops)?,
            Fault::Join { node } => self.join(node)?,
            Fault::Leave { node } => self.leave(node)?,
            Fault::Reshape { shape } => {
                self.happens("other shape", true);
                self.shape = shape;
                self.change_topology()?;
            }
            Fault::LoseDonor { pick } => self.lose_donor(pick)?,
            Fault::Mark => self.report.marks.push(self.report.sent_bytes),
        }
        Ok(())
    }

    /// Counts what happened, if it did.
    pub(super) fn happens(&mut self, what: &'static str, really: bool) {
        if really {
            *self.report.happened.entry(what).or_default() += 1;
        }
    }

    fn lose_donor(&mut self, pick: u64) -> Result<(), String> {
        let gives = |node: &Node| node.process.as_ref().is_some_and(|p| !p.takeover.donations.is_empty());
        let donors = self.nodes.iter().enumerate().filter(|(_, node)| !node.out && gives(node));
        let donors: Vec<usize> = donors.map(|(at, _)| at).collect();
        let Some(node) = (pick as usize / 3).checked_rem(donors.len()).and_then(|at| donors.get(at)) else {
            return Ok(());
        };
        if self.report.happened.contains_key("lost donor") || self.is_last_whole(*node) {
            return Ok(());
        }
        self.happens("lost donor", true);
        self.fault(Fault::loses(pick, *node))
    }

    /// Whether without `node` some other region could not begin anew: nobody would be left who is whole and has, or gets
    /// from its log, what it has or had before a takeover.
    pub(super) fn is_last_whole(&self, node: usize) -> bool {
        let others = self.nodes.iter().enumerate().filter(|(at, other)| *at != node && !other.out);
        let others: Vec<&Node> = others.map(|(_, other)| other).collect();
        let takes_over = |other: &Node| {
            let asks = other.process.as_ref().is_some_and(|process| process.takeover.is_running());
            asks || other.disk.stage.is_some()
        };
        let keeps = |whole: &Disk, other: &Disk| {
            let (kept, mut before) = (whole.durable_vector(), other.truncated());
            if other.stage.is_none() {
                raise_all(&mut before, &other.floor);
            }
            covers_all(&kept, &other.kept()) || covers_all(&kept, &before)
        };
        let is_kept = |other: &Node| {
            let mut whole = others.iter().filter(|whole| whole.name != other.name && !takes_over(whole));
            whole.any(|whole| keeps(&whole.disk, &other.disk))
        };
        match others.as_slice() {
            [alone] => takes_over(alone),
            others => !others.iter().all(|other| is_kept(other)),
        }
    }

    /// Some ops at once.
    fn burst(&mut self, node: usize, ops: u64) -> Result<(), String> {
        let (mut wrote, mut pick) = (0, self.random.next());
        // Not every command writes.
        for _ in 0..ops.saturating_mul(4) + 100 {
            pick = mix(pick);
            wrote += u64::from(self.write(node, pick)?);
            if wrote >= ops {
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
        Ok(())
    }

    /// A process ends, and starts again after a time.
    pub(super) fn crash(&mut self, node: usize, clean: bool, ms: u64) -> Result<(), String> {
        let Some(process) = self.nodes[node].process.take() else {
            return Ok(());
        };
        self.note(|| format!("{} {node}", if clean { "stop" } else { "crash" }));
        let disk = &mut self.nodes[node].disk;
        if clean {
            let mut process = process;
            let length = disk.log.len();
            let acknowledged = process.synced(disk, length);
            disk.clean = true;
            if !self.nodes[node].out {
                acknowledged.iter().for_each(|dot| self.history.acknowledge(dot));
            }
            for op in &self.nodes[node].disk.log {
                self.history.register(op)?;
            }
        } else {
            let safe = disk.durable;
            let lost = disk.crash(process.written, &mut self.disks);
            // What was not known to be safe and is, may come to others by a takeover alone.
            self.nodes[node].disk.log.iter().skip(safe).try_for_each(|op| self.history.register(op))?;
            self.happens("lost tail", lost);
        }
        let open: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.ends.contains(&node)).map(|(n, _)| *n).collect();
        for connection in open {
            self.send_nothing_again(node, connection);
            self.close_side(node, connection, 300);
        }
        self.at(self.now.saturating_add(ms), Event::Start { node });
        Ok(())
    }

    /// What was acknowledged and is safe nowhere any more is excused.
    fn excuse_lost(&mut self) {
        let there = self.nodes.iter().filter(|node| !node.out);
        let safe: Vec<VersionVector> = there.map(|node| node.disk.kept()).collect();
        self.history.excuse(|dot| safe.iter().any(|vector| covers(vector, dot)));
    }

    /// A region never comes back: what nobody else has safe is gone with it.
    pub(super) fn bury(&mut self, node: usize) {
        self.nodes[node].out = true;
        self.excuse_lost();
    }

    /// The log goes as far as the store, or somebody who takes over, allows.
    fn truncate(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let pinned = this.process.as_ref().and_then(|process| process.takeover.least_pin());
        let upto = this.disk.store.at.min(this.disk.durable).min(pinned.unwrap_or(usize::MAX));
        if upto <= this.disk.start {
            return;
        }
        this.disk.start = upto;
        let (truncated, floor) = (this.disk.truncated(), this.disk.jumped(self.mutant));
        let Some(process) = &mut this.process else { return };
        process.replica.handle_truncated(truncated, &floor);
        let short = process.feeds.iter().filter(|(_, running)| running.at < upto);
        let short: Vec<u64> = short.map(|((_, session), _)| *session).collect();
        self.note(|| format!("log of {node} is truncated"));
        self.happens("truncated log", true);
        // Who is in the middle of what is gone begins anew.
        short.into_iter().for_each(|session| self.end_session(node, session));
    }

    fn restore(&mut self, node: usize, ms: u64) -> Result<(), String> {
        let there = self.nodes[node].backup.is_some() && self.nodes[node].process.is_some();
        if !there || self.nodes[node].out || self.is_last_whole(node) {
            return Ok(());
        }
        self.crash(node, false, ms)?;
        let Some(disk) = self.nodes[node].backup.take() else { return Ok(()) };
        self.note(|| format!("restore {node}"));
        self.happens("old disk", true);
        let this = &mut self.nodes[node];
        this.disk = Disk { clean: false, ..disk };
        this.restored = true;
        self.excuse_lost();
        self.history.begun_anew(node);
        Ok(())
    }

    fn wipe(&mut self, node: usize, ms: u64) -> Result<(), String> {
        if self.nodes[node].process.is_none() || self.nodes[node].out || self.is_last_whole(node) {
            return Ok(());
        }
        self.crash(node, false, ms)?;
        self.note(|| format!("wipe {node}"));
        self.happens("wipe", true);
        self.empty(node);
        self.excuse_lost();
        Ok(())
    }

    /// A region begins with an empty disk, and so under a new incarnation.
    pub(super) fn empty(&mut self, node: usize) {
        let incarnation = self.random.between(2, u64::from(u32::MAX)) as u32;
        let life = self.wall(node).0;
        let this = &mut self.nodes[node];
        let origin = match self.mutant {
            Mutant::IdentityOutlivesDisk => this.disk.origin,
            _ => Origin::new(self.ids[node], incarnation),
        };
        this.disk = Disk { life, ..Disk::new(origin) };
        this.restored = false;
        self.history.begun_anew(node);
    }

    pub(super) fn is_full(&self, node: usize) -> bool {
        self.nodes[node].full_until > self.now
    }

    /// A restored region knows by now what its neighbours have heard of it.
    pub(super) fn begin_anew(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let (origin, applied) = (process.sequencer.origin(), process.sequencer.applied().clone());
        let others: Vec<&Node> =
            self.nodes.iter().enumerate().filter(|(at, _)| *at != node).map(|(_, n)| n).collect();
        let heard = |dot: &Dot| {
            others.iter().any(|other| {
                other.disk.log.iter().any(|op| op.header.dot == *dot)
                    || other.process.as_ref().is_some_and(|process| {
                        let delivery = process.replica.delivery();
                        covers(delivery.admitted(), dot) || covers(&delivery.held_of(dot.actor.region()), dot)
                    })
            })
        };
        self.history.forget_unheard(origin, &applied, heard);
    }
}
