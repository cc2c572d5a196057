//! Links: dials, deliveries, feeds, resets.

use super::*;

impl World<'_> {
    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now)
    }

    pub(super) fn dial(&mut self, low: usize, high: usize) -> Result<(), String> {
        self.after(DIAL_MS / 2, DIAL_MS, Event::Dial { low, high });
        let believed = self.connections.values().any(|c| c.ends == [low, high] && c.open[0]);
        if believed { Ok(()) } else { self.connect(low, high) }
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
        process.replica.handle_local(process.sequencer.sequence(), process.sequencer.hlc());
        process.replica.handle_connected(now, peer, session);
        self.drain(node)
    }

    pub(super) fn transmit(&mut self, node: usize, session: u64, stream: u64, payload: Payload) {
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

    pub(super) fn send_control(
        &mut self,
        node: usize,
        session: u64,
        control: &Control,
    ) -> Result<(), String> {
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

    pub(super) fn arrive(&mut self, number: u64, stream: StreamId) -> Result<(), String> {
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
    pub(super) fn close_side(&mut self, node: usize, number: u64, at_most: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let side = connection.side(node);
        if !std::mem::replace(&mut connection.open[side], false) {
            return;
        }
        let other = connection.ends[1 - side];
        let noticed = connection.last_arrival(side).max(self.now) + 1 + self.random.below(at_most);
        self.at(noticed, Event::Lost { node: other, connection: number });
    }

    pub(super) fn lost(&mut self, node: usize, number: u64) -> Result<(), String> {
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

    pub(super) fn reset(&mut self, pick: u64, double: bool) -> Result<(), String> {
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
}
