//! Links: dials, deliveries, feeds, resets.

use super::*;

impl World<'_> {
    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now)
    }

    pub(super) fn dial(&mut self, node: usize, peer: usize, generation: u64) -> Result<(), String> {
        let Some(process) = self.running(node, generation) else { return Ok(()) };
        if !process.dials.contains(&peer) {
            process.dialling.remove(&peer);
            return Ok(());
        }
        self.after(DIAL_MS / 2, DIAL_MS, Event::Dial { node, peer, generation });
        // Either side may have dialled: one connection is enough.
        let between = |c: &&Connection| c.ends == [node, peer] || c.ends == [peer, node];
        let believed = self.connections.values().filter(between).any(|c| c.open[c.side(node)]);
        if believed { Ok(()) } else { self.connect(node, peer) }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.note(|| format!("cut {from} -> {to} until {until}"));
        self.cuts.insert((from, to), until);
        if until > self.now.saturating_add(IDLE_MS) {
            self.at(self.now + IDLE_MS, Event::Idle { from, to });
        }
    }

    /// Nothing passed for long: both ends give up.
    pub(super) fn idle(&mut self, from: usize, to: usize) -> Result<(), String> {
        if !self.is_cut(from, to) {
            return Ok(());
        }
        let between = |c: &Connection| c.ends == [from, to] || c.ends == [to, from];
        let stalled: Vec<u64> =
            self.connections.iter().filter(|(_, c)| between(c)).map(|(number, _)| *number).collect();
        stalled.into_iter().try_for_each(|number| self.break_connection(number))
    }

    pub(super) fn connect(&mut self, low: usize, high: usize) -> Result<(), String> {
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

    pub(super) fn connected(&mut self, node: usize, peer: usize, session: u64) -> Result<(), String> {
        let (now, peer) = (MonoMs(self.now), self.ids[peer]);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.tell_local(self.mutant);
        process.replica.handle_connected(now, peer, session);
        self.drain(node)
    }

    pub(super) fn transmit(&mut self, node: usize, session: u64, stream: u64, payload: Payload) {
        let Some(connection) = self.connections.get_mut(&session) else { return };
        let side = connection.side(node);
        if !connection.open[side] || connection.is_broken() {
            return;
        }
        let peer = connection.ends[1 - side];
        let delay = self.nodes[node].delays[peer];
        let mut start = self.now;
        if let Payload::Control(bytes) | Payload::Batch(bytes) = &payload {
            self.report.sent_bytes += bytes.len() as u64;
            if let Some((_, _, rate)) = self.options.narrow.iter().find(|(a, b, _)| (*a, *b) == (node, peer))
                && stream != 0
            {
                let busy = self.busy.entry((node, peer)).or_default();
                *busy = start.max(*busy) + bytes.len() as u64 * 1_000 / rate.max(&1);
                start = *busy;
                *self.report.happened.entry("slow link").or_default() += 1;
            }
        }
        let mut arrival = start + delay + self.network.below(delay / 2 + 1);
        let stream = (side == 0, stream);
        if self.noise.get(&(node, peer)).is_some_and(|until| *until > self.now) {
            arrival += self.lose(peer);
            if matches!(payload, Payload::Batch(_)) && self.network.percent(25) {
                self.happens("repeated batch", true);
                self.send_apart(session, stream, payload.clone(), arrival);
            } else if matches!(payload, Payload::Batch(_)) && self.network.percent(25) {
                self.happens("batch out of order", true);
                self.send_apart(session, stream, payload, arrival);
                return;
            }
        }
        let Some(connection) = self.connections.get_mut(&session) else { return };
        let arrival = connection.send(stream, payload, arrival);
        self.at(arrival, Event::Arrive { connection: session, stream });
    }

    /// The process of `node` ends. What was lost of what it sent, or had still to leave, is so for good: a process that
    /// was started anew must not meet its own past on the way.
    pub(super) fn send_nothing_again(&mut self, node: usize, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let side = connection.side(node);
        let delay = self.nodes[node].delays[connection.ends[1 - side]];
        connection.lose_later(side, self.now + delay + delay / 2);
    }

    /// A packet is lost by chance: how much later what was in it comes.
    fn lose(&mut self, peer: usize) -> u64 {
        if !self.network.percent(20) {
            return 0;
        }
        self.happens("lost packet", self.nodes[peer].process.is_some());
        self.network.between(30, 400)
    }

    /// A batch comes by itself, whatever else is on its stream: QUIC never does this.
    fn send_apart(&mut self, session: u64, stream: StreamId, payload: Payload, arrival: u64) {
        self.next_number += 1;
        let number = self.next_number;
        self.echoes.insert(number, (session, stream, payload));
        let at = arrival + self.network.between(1, 2_000);
        self.at(at, Event::Echo { number });
    }

    pub(super) fn echo(&mut self, number: u64) -> Result<(), String> {
        let Some((session, stream, payload)) = self.echoes.remove(&number) else { return Ok(()) };
        let Some(connection) = self.connections.get(&session) else { return Ok(()) };
        let (from, to) = connection.direction(stream);
        if connection.is_broken() || !connection.open[connection.side(to)] || self.is_cut(from, to) {
            // With what is missing the whole connection goes.
            return self.break_connection(session);
        }
        self.take_in(session, stream, payload)
    }

    pub(super) fn send_control(
        &mut self,
        node: usize,
        session: u64,
        control: &Control,
    ) -> Result<(), String> {
        if let (Control::Stability { rows }, Some(process)) = (control, &self.nodes[node].process) {
            let own = rows.iter().filter(|row| row.origin == process.replica.origin());
            if !own.map(|row| &row.durable).all(|durable| covers_all(&process.durable_vector, durable)) {
                return Err(format!("region {node} acknowledges to a peer what is not durable"));
            }
        }
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        self.transmit(node, session, 0, Payload::Control(bytes));
        Ok(())
    }

    pub(super) fn arrive(&mut self, number: u64, stream: StreamId) -> Result<(), String> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let (from, to) = connection.direction(stream);
        if !connection.open[connection.side(to)] {
            return Ok(());
        }
        if self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now) {
            if !connection.open[connection.side(from)] {
                // Nobody sends it again, so what follows it is of no use.
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.lose(stream);
                }
                return Ok(());
            }
            self.at(self.now + 25, Event::Arrive { connection: number, stream });
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let Some(payload) = connection.receive(stream) else { return Ok(()) };
        self.take_in(number, stream, payload)
    }

    /// What arrived is handled.
    fn take_in(&mut self, number: u64, stream: StreamId, payload: Payload) -> Result<(), String> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let (from, to) = connection.direction(stream);
        if self.nodes[to].process.is_none() {
            self.close_side(to, number, 30);
            return Ok(());
        }
        let peer = self.ids[from];
        let (now, wall) = (MonoMs(self.now), self.wall(to));
        match payload {
            Payload::Connected => return self.connected(to, from, number),
            Payload::Control(bytes) => {
                let mut control = Control::decode(&bytes).map_err(|e| format!("control: {e}"))?;
                self.spoil(to, from, &mut control);
                let Some(process) = &mut self.nodes[to].process else { return Ok(()) };
                process.tell_local(self.mutant);
                process.replica.handle_control(now, wall, peer, number, control);
            }
            Payload::Batch(bytes) => {
                let ops = self.decode(to, &bytes)?;
                let Some(process) = &mut self.nodes[to].process else { return Ok(()) };
                process.tell_local(self.mutant);
                if process.takeover.takes_ops() {
                    process.replica.handle_batch(now, wall, peer, number, stream.1, ops);
                }
            }
            Payload::SeedRequest(asked, bytes) => self.asked(to, from, number, asked, &bytes)?,
            Payload::SeedRows(asked, bytes) => self.take_rows(to, number, asked, &bytes)?,
            Payload::SeedDone => self.donated(to, number),
        }
        self.drain(to)
    }

    /// What planted bugs make of a message.
    fn spoil(&mut self, node: usize, from: usize, control: &mut Control) {
        let first = self.ids[0];
        match (self.mutant, control) {
            (Mutant::GradientOff, Control::Heartbeat(heartbeat)) => heartbeat.applied = VersionVector::new(),
            (Mutant::NoReturn, Control::Heartbeat(heartbeat)) => heartbeat.via.fill(u128::MAX),
            (Mutant::RowsNotRelayed, Control::Stability { rows }) => {
                let from = self.ids[from];
                rows.retain(|row| row.region == from);
            }
            (Mutant::StableIgnoresOne, Control::Stability { rows }) if node != 0 => {
                let Some(process) = &self.nodes[node].process else { return };
                let ours = process.replica.stability().own().durable.clone();
                let first = rows.iter_mut().filter(|row| row.region == first);
                first.for_each(|row| row.durable = ours.clone());
            }
            (Mutant::RowsOfApplied, Control::Stability { rows }) => {
                // As if rows told what is applied instead of what is durable.
                let from = self.nodes[from].process.as_ref();
                let applied = from.map(|process| process.sequencer.applied().clone()).unwrap_or_default();
                let origin = from.map(|process| process.replica.origin());
                let own = rows.iter_mut().filter(|row| Some(row.origin) == origin);
                own.for_each(|row| row.durable = applied.clone());
            }
            _ => {}
        }
    }

    pub(super) fn decode(&mut self, node: usize, bytes: &[u8]) -> Result<Vec<Op<Body>>, String> {
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
    pub(super) fn pump(&mut self, node: usize) -> Result<(), String> {
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
        let (mut later, mut short) = (false, Vec::new());
        for ((peer, session), running) in &mut process.feeds {
            let narrow = self.options.narrow.iter().any(|(a, b, _)| *a == node && self.ids[*b] == *peer);
            let mut limit = limit;
            if narrow {
                let to = self.ids.iter().position(|id| id == peer).unwrap_or(node);
                let busy = self.busy.get(&(node, to)).is_some_and(|busy| *busy > self.now + WINDOW_MS);
                let few = if busy { running.at } else { running.at + BATCH_OPS };
                later |= few < limit;
                limit = limit.min(few.max(running.at));
            }
            let mut encoder = BatchEncoder::default();
            for at in running.at..=limit.max(running.at) {
                if !this.disk.goes_on(at, &running.feed, self.mutant) {
                    // What went before is good; the subscriber asks anew, and is told no if it still lacks the rest.
                    short.push((*peer, *session, running.subscription));
                    limit = at;
                }
                let Some(op) = this.disk.log.get(at).filter(|_| at < limit) else { break };
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
        if later {
            let generation = process.generation;
            self.after(WINDOW_MS / 3, WINDOW_MS / 2, Event::Pump { node, generation });
        }
        for (session, subscription, bytes) in batches {
            self.transmit(node, session, subscription, Payload::Batch(bytes));
        }
        let Some(process) = self.nodes[node].process.as_mut().filter(|_| !short.is_empty()) else {
            return Ok(());
        };
        for (peer, session, subscription) in short {
            process.replica.handle_feed_past_log(MonoMs(self.now), peer, session, subscription);
        }
        self.drain(node)
    }

    /// `node` ends its side; the other side notices after what was sent before has arrived.
    pub(super) fn close_side(&mut self, node: usize, number: u64, at_most: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let side = connection.side(node);
        if !std::mem::replace(&mut connection.open[side], false) {
            return;
        }
        let other = connection.ends[1 - side];
        let noticed = connection.last_arrival(side).max(self.now) + 1 + self.network.below(at_most);
        self.at(noticed, Event::Lost { node: other, connection: number });
    }

    /// `node` has ended its side itself: its replica is told.
    pub(super) fn ended(&mut self, node: usize, number: u64) -> Result<(), String> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let peer = self.ids[connection.ends[1 - connection.side(node)]];
        let now = MonoMs(self.now);
        self.seed_stream_lost(node, number)?;
        if let Some(process) = &mut self.nodes[node].process {
            process.replica.handle_disconnected(now, peer, number);
        }
        self.drain(node)
    }

    pub(super) fn lost(&mut self, node: usize, number: u64) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let side = connection.side(node);
        let peer = self.ids[connection.ends[1 - side]];
        let (now, open) = (MonoMs(self.now), std::mem::replace(&mut connection.open[side], false));
        if connection.open == [false, false] {
            self.connections.remove(&number);
        }
        self.seed_stream_lost(node, number)?;
        if open && let Some(process) = &mut self.nodes[node].process {
            process.replica.handle_disconnected(now, peer, number);
        }
        self.drain(node)
    }

    pub(super) fn reset(&mut self, pick: u64, double: bool) -> Result<(), String> {
        // One that carries a takeover, if there is any: they are few, and a cut there is worth most.
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let carrying = processes.filter_map(|process| process.takeover.stream);
        let mut numbers: Vec<u64> = carrying.filter(|number| self.connections.contains_key(number)).collect();
        if numbers.is_empty() {
            numbers.extend(self.connections.keys());
        }
        let at = pick.checked_rem(numbers.len() as u64).unwrap_or(0) as usize;
        let Some(number) = numbers.get(at).copied() else { return Ok(()) };
        let Some(ends) = self.connections.get(&number).map(|connection| connection.ends) else {
            return Ok(());
        };
        if double {
            self.happens("second connection", true);
            // The old connection still looks alive: the new one has to replace it.
            self.note(|| format!("second connection between {ends:?}"));
            return self.connect(ends[0], ends[1]);
        }
        self.happens("reset", true);
        self.break_connection(number)
    }

    /// What is on the way is lost at once; each side notices in its own time.
    fn break_connection(&mut self, number: u64) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let ends = connection.ends;
        connection.lose_everything();
        self.note(|| format!("reset between {ends:?}"));
        for node in ends {
            self.after(1, 200, Event::Lost { node, connection: number });
        }
        Ok(())
    }
}
