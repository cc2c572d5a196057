//! One region: what is on its disk, and the process that runs on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, Seen, VersionVector, covers_all, raise};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{Header, Op, changes};
use meridian_conflict::outcome::Outcome;

use super::Mutant;
use super::random::Random;
use super::seeding::{Stage, Takeover};
use crate::feed::Feed;
use crate::replica::Replica;
use crate::sequence::{Position, Sequencer};

pub(super) type Body = Arc<[u8]>;
pub(super) type Key = (u8, Box<[u8]>);
pub(super) type Objects = BTreeMap<Key, Object>;

/// The stored bound is this far ahead of the readings given out.
pub(super) const CLOCK_AHEAD_MS: u64 = 100;

/// The store's last commit: rows and the position they belong to, always together.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) position: Position,
    /// Log records the position includes.
    pub(super) at: usize,
    pub(super) rows: Objects,
}

/// What survives a crash, but for the log's records past `durable`.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) log: Vec<Op<Body>>,
    pub(super) durable: usize,
    pub(super) store: Stored,
    pub(super) origin: Origin,
    /// When this life began.
    pub(super) life: u64,
    pub(super) clean: bool,
    /// Readings may have been given out up to here.
    pub(super) clock_bound: Hlc,
    /// Records before this one were dropped: nothing but the bookkeeping of the simulator reads them.
    pub(super) start: usize,
    /// Takeovers: what was adopted between the records, by the number of the one that follows.
    pub(super) jumps: BTreeMap<usize, Vec<Position>>,
    /// What the log has jumped over.
    pub(super) floor: VersionVector,
    /// Where a takeover stands.
    pub(super) stage: Option<Stage>,
    /// What was here before it.
    pub(super) base: VersionVector,
}

impl Disk {
    pub(super) fn new(origin: Origin) -> Self {
        let store = Stored::default();
        Self {
            log: Vec::new(),
            durable: 0,
            store,
            origin,
            life: 0,
            clean: true,
            clock_bound: Hlc(0),
            start: 0,
            jumps: BTreeMap::new(),
            floor: VersionVector::new(),
            stage: None,
            base: VersionVector::new(),
        }
    }

    /// What this disk is counted on for: while it takes over, what it had before.
    pub(super) fn kept(&self) -> VersionVector {
        let mut kept = self.durable_vector();
        if self.stage.is_some() {
            kept.glb(&self.base);
        }
        kept
    }

    /// What the first `end` records and the takeovers among them include.
    pub(super) fn vector_at(&self, end: usize) -> VersionVector {
        let mut vector: VersionVector = self.log.iter().take(end).map(|op| op.header.dot).collect();
        for dot in self.jumps.range(..=end).flat_map(|(_, jumps)| jumps).flat_map(|p| p.applied.iter()) {
            raise(&mut vector, *dot.actor, dot.counter);
        }
        vector
    }

    /// What the log does not have because it begins later.
    pub(super) fn truncated(&self) -> VersionVector {
        if self.start == 0 { VersionVector::new() } else { self.vector_at(self.start) }
    }

    /// What it does not have because it has jumped over it.
    pub(super) fn jumped(&self, mutant: Mutant) -> VersionVector {
        if mutant == Mutant::FloorIgnored { VersionVector::new() } else { self.floor.clone() }
    }

    /// Whether the record at `at` follows on what a feed has sent, without a jump over what its subscriber lacks.
    pub(super) fn goes_on(&self, at: usize, feed: &Feed, mutant: Mutant) -> bool {
        let mut jumps = self.jumps.get(&at).into_iter().flatten();
        mutant == Mutant::FloorIgnored || jumps.all(|jump| feed.is_within(&jump.applied))
    }

    /// Power fails: any suffix of what was not synced is gone. Returns whether there was any.
    pub(super) fn crash(&mut self, written: usize, random: &mut Random) -> bool {
        let kept = random.between(self.durable as u64, written.max(self.durable) as u64) as usize;
        let lost = kept < self.log.len();
        self.log.truncate(kept);
        self.durable = kept;
        self.clean = false;
        lost
    }

    pub(super) fn durable_vector(&self) -> VersionVector {
        self.vector_at(self.durable)
    }
}

/// A commit of the store on its way: rows are copied one after the other while writes go on.
#[derive(Debug)]
pub(super) struct Commit {
    position: Position,
    at: usize,
    rows: BTreeMap<Key, Object>,
    left: Vec<Key>,
    /// Records that the rows may include.
    end: usize,
}

pub(super) struct Running {
    pub(super) subscription: u64,
    pub(super) feed: Feed,
    pub(super) at: usize,
}

pub(super) struct Process {
    pub(super) generation: u64,
    pub(super) sequencer: Sequencer,
    pub(super) replica: Replica<Body>,
    pub(super) objects: Objects,
    pub(super) written: usize,
    pub(super) durable_vector: VersionVector,
    pub(super) feeds: BTreeMap<(RegionId, u64), Running>,
    pub(super) unacknowledged: VecDeque<(usize, Dot)>,
    pub(super) flushing: bool,
    pub(super) syncing: bool,
    pub(super) timer_at: u64,
    /// Whom the replica wants dialled, and for whom a dial is due.
    pub(super) dials: BTreeSet<usize>,
    pub(super) dialling: BTreeSet<usize>,
    /// A restored region waits for its neighbours before it takes writes.
    pub(super) serving: bool,
    dirty: BTreeSet<Key>,
    commit: Option<Commit>,
    pub(super) takeover: Takeover,
}

/// The state that a disk stands for.
pub(super) fn recover(disk: &Disk, mutant: Mutant) -> Result<(Sequencer, Objects), String> {
    let mut position = disk.store.position.clone();
    if mutant == Mutant::ContextsForgotten {
        position.contexts = Default::default();
    }
    if mutant == Mutant::ClockNotRestored {
        position.hlc = Hlc(0);
    }
    let mut sequencer = Sequencer::recover(disk.origin, position);
    let mut objects = disk.store.rows.clone();
    sequencer.raise_floor(&disk.floor);
    let adopt = |sequencer: &mut Sequencer, at: usize| {
        let mut jumps = disk.jumps.get(&at).into_iter().flatten();
        jumps.try_for_each(|position| sequencer.adopt(position)).map_err(|e| format!("replay: {e}"))
    };
    for (at, op) in disk.log.iter().enumerate().skip(disk.store.at) {
        adopt(&mut sequencer, at)?;
        let header = match mutant {
            Mutant::ClockNotRestored => Header { hlc: Hlc(0), ..op.header.clone() },
            _ => op.header.clone(),
        };
        if let Some(deps) = sequencer.replay(&header).map_err(|e| format!("replay: {e}"))? {
            let seen = Seen::Vector { deps, dot: header.dot };
            apply(
                &mut objects,
                &op.header,
                &op.body,
                seen,
                mutant == Mutant::NoTieBreak,
                disk.origin,
                |_| {},
            )?;
        }
    }
    adopt(&mut sequencer, disk.log.len())?;
    if mutant != Mutant::ClockNotRestored {
        sequencer.merge_clock(disk.clock_bound);
    }
    Ok((sequencer, objects))
}

pub(super) fn apply(
    objects: &mut Objects,
    header: &Header,
    body: &[u8],
    seen: Seen<'_>,
    local_wins: bool,
    own: Origin,
    mut touched: impl FnMut(&Key),
) -> Result<(), String> {
    let mut stamp = header.stamp();
    if local_wins {
        stamp.hlc.0 |= 0xffff;
        if header.dot.actor != own {
            stamp.hlc.0 &= !0xffff;
        }
    }
    for change in changes(body) {
        let change = change.map_err(|e| e.to_string())?;
        let key = (change.database, change.key.into());
        let object = objects.entry(key).or_default();
        for effect in change.effects() {
            let effect = effect.map_err(|e| e.to_string())?;
            object.apply(&effect, Applying { stamp, seen }, &mut Outcome::default());
        }
        let key = (change.database, change.key.into());
        touched(&key);
        if object.is_vacant() {
            objects.remove(&key);
        }
    }
    Ok(())
}

impl Process {
    pub(super) fn start(
        generation: u64,
        disk: &mut Disk,
        sequencer: Sequencer,
        objects: Objects,
        replica: Replica<Body>,
    ) -> Self {
        disk.clean = false;
        let durable_vector = disk.durable_vector();
        Self {
            generation,
            sequencer,
            replica,
            objects,
            written: disk.log.len(),
            durable_vector,
            feeds: BTreeMap::new(),
            unacknowledged: VecDeque::new(),
            flushing: false,
            syncing: false,
            timer_at: u64::MAX,
            serving: true,
            dials: BTreeSet::new(),
            dialling: BTreeSet::new(),
            // Rows of replayed records are not in the store yet.
            dirty: disk.log[disk.store.at.min(disk.log.len())..]
                .iter()
                .flat_map(|op| {
                    changes(&op.body).flatten().map(|c| (c.database, c.key.into())).collect::<Vec<_>>()
                })
                .collect(),
            commit: None,
            takeover: Takeover { stage: disk.stage.clone(), ..Takeover::default() },
        }
    }

    /// Applies a remote op and appends it to the log. Checks causal order on the way.
    pub(super) fn apply_remote(
        &mut self,
        disk: &mut Disk,
        op: Op<Body>,
        mutant: Mutant,
    ) -> Result<(), String> {
        let before = self.sequencer.applied().clone();
        match self.sequencer.remote(&op.header) {
            Ok(_) => {}
            Err(error) => return Err(format!("not in order: {error}")),
        }
        let deps = self.sequencer.context(op.header.dot.actor).cloned().unwrap_or_default();
        if !covers_all(&before, &deps) {
            return Err(format!("causal order: {:?} applied before its deps {deps}", op.header.dot));
        }
        let seen = match mutant {
            Mutant::SeenEverything => Seen::All,
            _ => Seen::Vector { deps: &deps, dot: op.header.dot },
        };
        let (dirty, own) = (&mut self.dirty, self.sequencer.origin());
        apply(&mut self.objects, &op.header, &op.body, seen, mutant == Mutant::NoTieBreak, own, |key| {
            dirty.insert(key.clone());
        })?;
        disk.log.push(op);
        Ok(())
    }

    /// Executes a local command's effects.
    pub(super) fn apply_local(
        &mut self,
        disk: &mut Disk,
        header: Header,
        body: &[u8],
        mutant: Mutant,
    ) -> Result<(), String> {
        let (dirty, own) = (&mut self.dirty, self.sequencer.origin());
        apply(&mut self.objects, &header, body, Seen::All, mutant == Mutant::NoTieBreak, own, |key| {
            dirty.insert(key.clone());
        })?;
        if header.hlc >= disk.clock_bound {
            disk.clock_bound = Hlc::from_ms(header.hlc.ms() + CLOCK_AHEAD_MS);
        }
        self.unacknowledged.push_back((disk.log.len() + 1, header.dot));
        disk.log.push(Op { header, body: body.into() });
        Ok(())
    }

    pub(super) fn tell_local(&mut self, mutant: Mutant) {
        let ahead_ms = if mutant == Mutant::ClockToldAhead { 2_000 } else { 0 };
        let hlc = self.sequencer.hlc();
        self.replica.handle_local(self.sequencer.sequence(), Hlc(hlc.0 + Hlc::from_ms(ahead_ms).0));
    }

    /// Records up to `upto` are safe. Returns the local ops among them that can be acknowledged.
    pub(super) fn synced(&mut self, disk: &mut Disk, upto: usize) -> Vec<Dot> {
        for op in disk.log.get(disk.durable..upto).unwrap_or_default() {
            raise(&mut self.durable_vector, op.header.dot.actor, op.header.dot.counter);
        }
        disk.durable = disk.durable.max(upto);
        let safe = self.unacknowledged.iter().take_while(|(at, _)| *at <= disk.durable).count();
        self.unacknowledged.drain(..safe).map(|(_, dot)| dot).collect()
    }

    /// Everything is in the store, which must not be ahead of the log: sync that first.
    pub(super) fn commit_all(&mut self, disk: &mut Disk) {
        (self.commit, self.dirty) = (None, BTreeSet::new());
        let rows = self.objects.iter().filter(|(_, object)| !object.is_vacant());
        let rows = rows.map(|(key, object)| (key.clone(), object.clone())).collect();
        disk.store = Stored { position: self.sequencer.position(), at: disk.log.len(), rows };
    }

    /// Merges another region's state of a key.
    pub(super) fn merge(
        &mut self,
        key: &Key,
        ours: &VersionVector,
        other: &Object,
        theirs: &VersionVector,
        mutant: Mutant,
    ) {
        let object = self.objects.entry(key.clone()).or_default();
        match mutant {
            Mutant::SeedNotMerged => *object = other.clone(),
            _ => object.merge(ours, other, theirs),
        }
        self.dirty.insert(key.clone());
        if object.is_vacant() {
            self.objects.remove(key);
        }
    }

    /// Goes on with a commit of the store, or begins one.
    pub(super) fn step_commit(&mut self, disk: &mut Disk, random: &mut Random, mutant: Mutant) {
        let Some(commit) = &mut self.commit else {
            if !self.dirty.is_empty() {
                let left = std::mem::take(&mut self.dirty).into_iter().collect();
                let (position, at) = (self.sequencer.position(), disk.log.len());
                self.commit = Some(Commit { position, at, rows: BTreeMap::new(), left, end: at });
            }
            return;
        };
        for _ in 0..random.between(1, 4) {
            let Some(key) = commit.left.pop() else { break };
            let row = self.objects.get(&key).cloned().unwrap_or_default();
            commit.rows.insert(key, row);
            commit.end = disk.log.len();
        }
        if !commit.left.is_empty() {
            return;
        }
        if mutant == Mutant::PositionAfterRows {
            (commit.position, commit.at) = (self.sequencer.position(), disk.log.len());
            commit.end = commit.at;
        }
        if commit.end > disk.durable && mutant != Mutant::StoreBeforeLog {
            return;
        }
        if let Some(commit) = self.commit.take() {
            disk.store.position = commit.position;
            disk.store.at = commit.at;
            disk.store.rows.extend(commit.rows);
            disk.store.rows.retain(|_, row| !row.is_vacant());
        }
    }
}
