//! Taking over another region's state, when and how production does it.

use super::donor::SEED_STREAM;
use super::life::raise_all;
use super::*;
use crate::replica::{Hold, PeerStatus, Phase};
use crate::seed::{Cursor, Record, Request, SeedRefusal};
use crate::sequence::Position;
use crate::sim::seeding::{DATABASES, Merging, Stage, Takeover, assembler, hash};
use crate::takeover::may_begin_anew;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;

/// How long a refusal has to stand before another way is not looked for any more.
const PATIENCE_MS: u64 = 500;
/// A restored region whose neighbours do not all answer within this time takes a new incarnation.
const CONFIRM_WITHIN_MS: u64 = 1_000;
/// How long until a takeover that broke off is tried again.
const RETRY_MS: u64 = 1_000;
/// How long a takeover that has begun waits for its donor before any other will do.
const DONOR_WITHIN_MS: u64 = 10_000;
/// Silence after which a region is gone around.
const HEAL_AFTER_MS: u64 = 3_000;

impl World<'_> {
    /// A peer's log does not reach back to where we stand.
    pub(super) fn refused(&mut self, node: usize, peer: RegionId, hold: Hold) {
        let now = self.now;
        let Some(process) = self.nodes[node].process.as_mut().filter(|_| matches!(hold, Hold::Refused(_)))
        else {
            return;
        };
        process.takeover.refused.entry(peer).or_insert(now);
        let generation = process.generation;
        self.after(PATIENCE_MS, PATIENCE_MS + 200, Event::Consider { node, generation });
    }

    /// Begins a takeover if one is needed and somebody can give.
    pub(super) fn consider_takeover(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        process.serving |= process.replica.unconfirmed().next().is_none();
        if !process.serving && now >= process.takeover.born + CONFIRM_WITHIN_MS {
            self.reincarnate(node, "not all neighbours answered");
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let takeover = &mut process.takeover;
        if takeover.is_running() || now < takeover.retry_at || !process.serving {
            return;
        }
        let peers = process.replica.status();
        let up = |status: &&PeerStatus| matches!(status.phase, Phase::Up | Phase::Held(_)) && !status.silent;
        let peers: Vec<&PeerStatus> = peers.iter().filter(up).collect();
        if let Some(stage) = &takeover.stage {
            let (stability, applied) = (process.replica.stability(), process.sequencer.applied());
            let lost = takeover.lack.review(MonoMs(now), HEAL_AFTER_MS, stability, applied, stage.wanted());
            takeover.lost = lost.is_some();
        }
        takeover.refused.retain(|peer, _| {
            peers.iter().find(|status| status.peer == *peer).is_none_or(|status| status.lag_ops > 0)
        });
        let donor = match takeover.stage.clone() {
            Some(_) if takeover.lost => takeover.next_of(&peers),
            Some(Stage::Merging { donor, .. }) => {
                let late = now >= takeover.started + DONOR_WITHIN_MS;
                let known = peers.iter().find(|status| status.peer == donor);
                match known {
                    Some(status) => Some(status.peer),
                    None if late => takeover.next_of(&peers),
                    None => None,
                }
            }
            _ => {
                let mut ahead = peers.iter().filter(|status| status.lag_ops > 0);
                let since = |status: &PeerStatus| takeover.refused.get(&status.peer).map(|at| now - at);
                let most = ahead.clone().max_by_key(|status| status.lag_ops);
                let all = ahead.all(|status| since(status).is_some());
                most.filter(|most| all && since(most).is_some_and(|ms| ms >= PATIENCE_MS)).map(|m| m.peer)
            }
        };
        if let Some(donor) = donor {
            self.ask(node, donor);
        }
    }

    fn ask(&mut self, node: usize, donor: RegionId) {
        let between = |c: &Connection| c.ends.contains(&node) && c.open[c.side(node)];
        let to = |c: &Connection| self.ids[c.ends[1 - c.side(node)]] == donor;
        let Some(session) =
            self.connections.iter().rev().find(|(_, c)| between(c) && to(c)).map(|(number, _)| *number)
        else {
            return;
        };
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        let resume = match &process.takeover.stage {
            Some(Stage::Merging { begin: Some(begin), from, .. }) if !process.takeover.lost => {
                Some((begin.applied.clone(), *from))
            }
            _ => None,
        };
        let gone_on = resume.as_ref().is_some_and(|(_, from)| *from > Cursor::default());
        let awaited = process.takeover.stage.as_ref().and_then(Stage::donor);
        if awaited.is_none_or(|awaited| awaited == donor) {
            process.takeover.started = now;
        }
        process.takeover.stream = Some(session);
        process.takeover.number += 1;
        let number = process.takeover.number;
        process.takeover.merging = None;
        self.happens("takeover gone on with", gone_on);
        self.note(|| format!("{node} takes over the state of {donor:?}"));
        let request = Request { resume }.encode();
        self.transmit(node, session, SEED_STREAM, Payload::SeedRequest(number, request));
    }

    /// The stream broke off, or the donor gave nothing: tried again.
    fn break_off(&mut self, node: usize, why: &str) -> Result<(), String> {
        self.note(|| format!("takeover of {node} breaks off: {why}"));
        let (now, mono) = (self.now, MonoMs(self.now));
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let begun = process.takeover.merging.take().is_some();
        process.takeover.stream = None;
        process.takeover.retry_at = now + RETRY_MS;
        let applied = process.sequencer.applied().clone();
        process.replica.handle_taken_over(mono, &applied);
        let generation = process.generation;
        self.happens("takeover broken off", begun);
        self.after(RETRY_MS, RETRY_MS + 100, Event::Consider { node, generation });
        self.drain(node)
    }

    pub(super) fn seed_stream_lost(&mut self, node: usize, session: u64) -> Result<(), String> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.takeover.donations.remove(&session);
        if process.takeover.lease == Some(session) {
            process.takeover.lease = None;
        }
        if process.takeover.stream == Some(session) { self.break_off(node, "a cut") } else { Ok(()) }
    }

    /// This side ends a connection of its own accord.
    pub(super) fn end_session(&mut self, node: usize, session: u64) {
        self.close_side(node, session, 5);
        self.at(self.now, Event::Ended { node, connection: session });
    }

    pub(super) fn take_rows(
        &mut self,
        node: usize,
        session: u64,
        number: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let mut assembler = assembler();
        // However it was cut on the way.
        let (first, rest) = bytes.split_at(self.network.index(bytes.len()));
        for part in [first, rest] {
            assembler.push(part);
            while let Some(record) = assembler.next_record().map_err(|e| e.to_string())? {
                let process = self.nodes[node].process.as_ref();
                let of_this =
                    |takeover: &Takeover| takeover.stream == Some(session) && takeover.number == number;
                if process.is_none_or(|process| !of_this(&process.takeover)) {
                    return Ok(());
                }
                if let Err(why) = self.take_record(node, session, record)? {
                    return self.break_off(node, &why);
                }
            }
        }
        if assembler.is_between_records() { Ok(()) } else { Err("a record of a takeover was cut".into()) }
    }

    /// The outer error is a broken rule, the inner one ends the stream.
    fn take_record(
        &mut self,
        node: usize,
        session: u64,
        record: Record<'_>,
    ) -> Result<Result<(), String>, String> {
        let mutant = self.mutant;
        let Some(process) = &mut self.nodes[node].process else { return Ok(Ok(())) };
        let merging = process.takeover.merging.as_mut();
        match (merging, record) {
            (None, Record::Head { position, from, .. }) => {
                let position = position.to_vec();
                return self.begin_merging(node, session, &position, from);
            }
            (None, Record::Refused { reason }) => {
                if let (SeedRefusal::StartOver, Some(Stage::Merging { begin, from, .. })) =
                    (reason, &mut process.takeover.stage)
                {
                    (*begin, *from) = (None, Cursor::default());
                }
                return Ok(Err(format!("refused, {reason}")));
            }
            (Some(merging), Record::Object { database, key, head }) => {
                let object = Object::decode_head(head).map_err(|_| "a malformed head")?;
                let before = merging.open.replace(((database, key.into()), object));
                merge(process, before, mutant);
            }
            (Some(merging), Record::Element { facet, element, record }) => {
                let facet = Facet::ALL.into_iter().find(|known| *known as u8 == facet).ok_or("no facet")?;
                let (_, object) = merging.open.as_mut().ok_or("an element of nothing")?;
                object.restore_element(facet, element, record).map_err(|_| "a malformed element")?;
            }
            (Some(merging), Record::Ahead { applied }) => raise_all(&mut merging.ahead, &applied),
            (Some(_), Record::Passed { cursor }) => return self.pass(node, cursor),
            (Some(_), Record::End) => return self.adopt(node, session),
            (_, record) => return Err(format!("{record:?} cannot come here")),
        }
        Ok(Ok(()))
    }

    fn begin_merging(
        &mut self,
        node: usize,
        session: u64,
        position: &[u8],
        from: Cursor,
    ) -> Result<Result<(), String>, String> {
        let donor = self.donor_of(node, session);
        let (ahead_most, mutant) = (Hlc::from_ms(self.wall(node).0 + 500), self.mutant);
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(Ok(())) };
        if process.takeover.lost {
            let position = Position::decode(position).map_err(|e| e.to_string())?;
            if !may_begin_anew(&this.disk.base, &position.applied) {
                return Ok(Err(
                    "what was taken over is lost, and the donor lacks what was here before".into()
                ));
            }
            return self.begin_with_nothing(node).map(Ok);
        }
        let (known, mut ahead) = match process.takeover.stage.clone() {
            Some(Stage::Merging { begin, from: expected, ahead, .. }) => {
                (begin.filter(|_| expected == from), ahead)
            }
            Some(Stage::CatchingUp { until }) => (None, until),
            None => (None, VersionVector::new()),
        };
        let begin = match known {
            Some(known) if position.is_empty() => known,
            _ => Position::decode(position).map_err(|e| e.to_string())?,
        };
        if begin.applied.get(&process.sequencer.origin()) > process.sequencer.sequence() {
            return Ok(Err("the donor knows more of our own life".into()));
        }
        if begin.hlc > ahead_most {
            return Ok(Err("the donor's clock is too far ahead".into()));
        }
        raise_all(&mut ahead, &begin.applied);
        let (ours, came) = (VersionVector::new(), Default::default());
        let merging = Merging { donor, begin, ours, cursor: from, ahead, open: None, came };
        self.remember(node, merging.stage());
        if mutant == Mutant::VectorBeforeState {
            self.jump(node, &merging.begin)?;
        }
        if !self.commit_all(node)? {
            return Ok(Err("the disk is full".into()));
        }
        let Some(process) = &mut self.nodes[node].process else { return Ok(Ok(())) };
        let ours = process.sequencer.applied().clone();
        process.takeover.merging = Some(Merging { ours, ..merging });
        Ok(Ok(()))
    }

    fn donor_of(&self, node: usize, session: u64) -> RegionId {
        let connection = self.connections.get(&session);
        connection.map_or(RegionId(0), |c| self.ids[c.ends[1 - c.side(node)]])
    }

    /// What was taken over is lost in part, and somebody else has all that was here before.
    fn begin_with_nothing(&mut self, node: usize) -> Result<(), String> {
        self.happens("takeover given up", true);
        let restart = self.random.between(1, 500);
        self.crash(node, false, restart)?;
        self.note(|| format!("{node} begins with nothing"));
        let clock_bound = self.nodes[node].disk.clock_bound;
        self.empty(node);
        self.nodes[node].disk.clock_bound = clock_bound;
        Ok(())
    }

    /// On disk, too.
    fn remember(&mut self, node: usize, stage: Stage) {
        let this = &mut self.nodes[node];
        if let Some(process) = this.process.as_mut().filter(|_| this.disk.stage.is_none()) {
            this.disk.base = process.sequencer.applied().clone();
            process.replica.handle_loading(Some(this.disk.base.clone()));
        }
        this.disk.stage = Some(stage.clone());
        if let Some(process) = &mut this.process {
            process.replica.handle_donor(MonoMs(self.now), stage.donor());
            process.takeover.stage = Some(stage);
        }
    }

    /// Log and store have everything. Not while the disk is full.
    fn commit_all(&mut self, node: usize) -> Result<bool, String> {
        if self.is_full(node) {
            return Ok(false);
        }
        let length = self.nodes[node].disk.log.len();
        let Some(process) = &mut self.nodes[node].process else { return Ok(false) };
        process.written = length;
        let generation = process.generation;
        self.synced(node, generation, Some(length))?;
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(false) };
        process.commit_all(&mut this.disk);
        Ok(true)
    }

    /// Everything before `cursor` has come: what is here and did not, the donor has deleted or never had.
    fn pass(&mut self, node: usize, cursor: Cursor) -> Result<Result<(), String>, String> {
        let (mutant, checkpoint) = (self.mutant, self.disks.percent(40));
        let Some(process) = &mut self.nodes[node].process else { return Ok(Ok(())) };
        let Some(merging) = &mut process.takeover.merging else { return Ok(Ok(())) };
        let before = merging.open.take();
        merge(process, before, mutant);
        let Some(merging) = &mut process.takeover.merging else { return Ok(Ok(())) };
        let intervals = merging.cursor.until(cursor, DATABASES);
        let inside = |hash: u64| intervals.iter().any(|i| hash >= i.from && i.to.is_none_or(|to| hash < to));
        let missing = process.objects.keys().filter(|key| inside(hash(key)) && !merging.came.contains(*key));
        let missing: Vec<_> = missing.cloned().collect();
        merging.cursor = cursor;
        for key in missing {
            merge(process, Some((key, Object::default())), mutant);
        }
        let Some(merging) = &mut process.takeover.merging else { return Ok(Ok(())) };
        merging.came.clear();
        let stage = merging.stage();
        process.takeover.stage = Some(stage.clone());
        if checkpoint && self.commit_all(node)? {
            self.remember(node, stage);
        }
        Ok(Ok(()))
    }

    /// What is adopted stands in the log; everything of it is in the store already.
    fn jump(&mut self, node: usize, begin: &Position) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(()) };
        process.sequencer.adopt(begin).map_err(|e| e.to_string())?;
        this.disk.jumps.entry(this.disk.log.len()).or_default().push(begin.clone());
        this.disk.floor = process.sequencer.floor().clone();
        raise_all(&mut process.durable_vector, &begin.applied);
        raise_all(&mut this.ever_durable, &begin.applied);
        Ok(())
    }

    fn adopt(&mut self, node: usize, session: u64) -> Result<Result<(), String>, String> {
        if !self.commit_all(node)? {
            return Ok(Err("the disk is full".into()));
        }
        let now = MonoMs(self.now);
        let Some(process) = &mut self.nodes[node].process else { return Ok(Ok(())) };
        let Some(merging) = process.takeover.merging.take() else { return Ok(Ok(())) };
        if merging.cursor != Cursor::END {
            return Err("a takeover ended before its last row".into());
        }
        if *process.sequencer.applied() != merging.ours {
            return Err("something was applied during a takeover".into());
        }
        process.takeover.stream = None;
        process.takeover.lease = Some(session);
        process.takeover.refused.clear();
        self.jump(node, &merging.begin)?;
        self.remember(node, Stage::CatchingUp { until: merging.ahead });
        self.note(|| format!("{node} has taken over"));
        self.happens("takeover", true);
        let this = &mut self.nodes[node];
        let (truncated, floor) = (this.disk.truncated(), this.disk.jumped(self.mutant));
        let Some(process) = &mut this.process else { return Ok(Ok(())) };
        let (applied, durable) = (process.sequencer.applied().clone(), process.durable_vector.clone());
        process.replica.handle_durable(now, &durable);
        process.replica.handle_taken_over(now, &applied);
        process.replica.handle_truncated(truncated, &floor);
        self.end_loading(node);
        self.look_at_watched();
        // Feeds meet the jump.
        self.pump(node)?;
        self.drain(node)?;
        Ok(Ok(()))
    }

    /// Serves clients again once everything that was taken over is durable.
    pub(super) fn end_loading(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return };
        let over = match &process.takeover.stage {
            Some(Stage::CatchingUp { until }) => covers_all(&process.durable_vector, until),
            _ => false,
        };
        if !over {
            return;
        }
        (process.takeover.stage, this.disk.stage) = (None, None);
        process.takeover.lack.clear();
        process.takeover.lost = false;
        process.replica.handle_loading(None);
        process.replica.handle_durable(MonoMs(self.now), &process.durable_vector);
        if let Some(session) = process.takeover.lease.take() {
            self.transmit(node, session, SEED_STREAM, Payload::SeedDone);
        }
    }
}

/// Merges an object that has come whole.
fn merge(process: &mut Process, object: Option<(Key, Object)>, mutant: Mutant) {
    let (Some((key, object)), Some(merging)) = (object, &mut process.takeover.merging) else { return };
    let (ours, theirs) = (merging.ours.clone(), merging.begin.applied.clone());
    merging.came.insert(key.clone());
    process.merge(&key, &ours, &object, &theirs, mutant);
}
