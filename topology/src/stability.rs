//! Who has durably applied what: the basis of truncation, of reaping, and of `WAIT`.
//!
//! Every region keeps a [`Row`] of every member and passes on what rose, over the links that stand
//! anyway. A row only ever says what is on that region's disk, so whatever is concluded from rows
//! holds, however old they are.
//!
//! A member not heard of for its lease is *fenced*: left out of [`Stability::stable`], so that one
//! dead region does not stop the others for ever. It counts again once it is heard of and has all
//! that became stable without it. A member never heard of blocks until its lease is over.
//!
//! A region that has lost its disk begins a new *life*, with a row that starts low: then what was
//! stable is so no more, which is the truth. Life numbers rise: a region that hears of a row of
//! its own with a number not below its own takes a greater one. A region that hears that it once
//! had, in its present life, what it does not have now, has been put back to an old state.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector, covers, covers_all, raise};

use crate::frame::Row;
use crate::time::MonoMs;

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Known already, or of a stranger.
    Nothing,
    /// Only its beat or clock rose: it lives.
    Beat,
    /// Its vector rose, or a new life began.
    Risen,
    /// It is about this region, and says that we had an op durably that we do not have.
    Forgotten(Dot),
}

/// What is waited for until another time has passed; see [`Stability::passed`].
#[derive(Clone, Debug)]
struct Cut {
    /// Begun when nobody had been fenced, joined or begun a new life since.
    epoch: u64,
    /// The time.
    hlc: Hlc,
    /// What everyone has to have.
    target: VersionVector,
    /// Everyone has the ops up to that time; what was given out meanwhile is waited for.
    is_second: bool,
}

/// A point in a region's clock: it has given out `sequence` ops up to there.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    hlc: Hlc,
}

#[derive(Clone, Debug)]
struct Member {
    row: Option<Row>,
    heard: Option<MonoMs>,
    fenced: bool,
    /// When its present life was first heard of.
    reborn: Option<MonoMs>,
}

impl Member {
    fn new(row: Option<Row>) -> Self {
        Self { row, heard: None, fenced: false, reborn: None }
    }
}

/// The rows of all members.
#[derive(Clone, Debug)]
pub struct Stability {
    region: RegionId,
    lease_ms: u64,
    young_ms: u64,
    /// Every member; of this region without the row.
    members: BTreeMap<RegionId, Member>,
    own: Row,
    /// How far the own clock is known and not yet told, because ops before it are not durable.
    given: Option<Mark>,
    beat_at: MonoMs,
    passed: Hlc,
    /// Whose ops up to `passed` are settled.
    waited_for: BTreeSet<RegionId>,
    cut: Option<Cut>,
    /// Rises when somebody joins, leaves, is fenced or let back, or begins a new life.
    epoch: u64,
    version: u64,
}

impl Stability {
    /// The rows as `origin` sees them at its start, having durably applied `durable`. `life` is
    /// greater for every life of a region; the clock's milliseconds at its beginning will do. For
    /// `lease_ms` and `young_ms` see [`crate::replica::Settings`].
    pub fn new(
        origin: Origin,
        life: u64,
        durable: VersionVector,
        members: impl Iterator<Item = RegionId>,
        lease_ms: u64,
        young_ms: u64,
    ) -> Self {
        let region = origin.region();
        let own = Row { region, origin, life, beat: 0, hlc: Hlc(0), durable };
        let mut stability = Self {
            region,
            lease_ms,
            young_ms,
            members: BTreeMap::new(),
            own,
            given: None,
            beat_at: MonoMs(0),
            passed: Hlc(0),
            waited_for: BTreeSet::new(),
            cut: None,
            epoch: 0,
            version: 0,
        };
        stability.set_members(members);
        stability
    }

    /// Other members are in force. Rows of those that left are dropped.
    pub fn set_members(&mut self, members: impl Iterator<Item = RegionId>) {
        let wanted: BTreeSet<RegionId> = members.chain([self.region]).collect();
        self.members.retain(|member, _| wanted.contains(member));
        for member in wanted {
            self.members.entry(member).or_insert_with(|| Member::new(None));
        }
        self.epoch += 1;
        self.version += 1;
    }

    /// Rises whenever anything known here changes: whoever waits may look again.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The own row.
    pub fn own(&self) -> &Row {
        &self.own
    }

    /// The row of a member, this region included.
    pub fn row(&self, region: RegionId) -> Option<&Row> {
        if region == self.region { Some(&self.own) } else { self.members.get(&region)?.row.as_ref() }
    }

    /// More is durable here. Returns whether anything rose.
    pub fn own_durable(&mut self, durable: &VersionVector) -> bool {
        let mut risen = false;
        for (origin, sequence) in &durable.dots {
            if self.own.durable.get(origin) < *sequence {
                raise(&mut self.own.durable, *origin, *sequence);
                risen = true;
            }
        }
        if risen {
            self.version += 1;
            self.tell_clock();
        }
        risen
    }

    /// No more than `most` is told to be durable here.
    pub(crate) fn own_at_most(&mut self, most: &VersionVector) {
        self.own.durable.glb(most);
    }

    /// The last local op is number `sequence`, and later ones are stamped after `hlc`.
    pub fn own_clock(&mut self, sequence: u64, hlc: Hlc) {
        if self.given.is_none() && hlc > self.own.hlc {
            self.given = Some(Mark { sequence, hlc });
            self.tell_clock();
        }
    }

    fn tell_clock(&mut self) {
        if let Some(Mark { sequence, hlc }) = self.given
            && self.own.durable.get(&self.own.origin) >= sequence
        {
            self.own.hlc = self.own.hlc.max(hlc);
            self.given = None;
        }
    }

    /// Shows that this region lives, at most once in `every_ms`.
    pub fn own_beat(&mut self, now: MonoMs, every_ms: u64) {
        if now.since(self.beat_at) >= every_ms {
            self.beat_at = now;
            self.own.beat += 1;
        }
    }

    /// This region goes on as `origin`.
    pub fn reincarnate(&mut self, origin: Origin, life: u64, durable: VersionVector) {
        let life = life.max(self.own.life + 1);
        self.own = Row { origin, life, durable, ..self.own.clone() };
        self.given = None;
        self.epoch += 1;
        self.version += 1;
        if let Some(member) = self.members.get_mut(&self.region) {
            *member = Member { heard: member.heard, ..Member::new(None) };
        }
    }

    /// Takes what a peer says of `row.region`.
    pub fn merge(&mut self, now: MonoMs, row: &Row) -> Merged {
        if row.region == self.region {
            return self.merge_own(row);
        }
        let Some(member) = self.members.get_mut(&row.region) else { return Merged::Nothing };
        if row.origin.region() != row.region {
            return Merged::Nothing;
        }
        let merged = match &mut member.row {
            Some(known) if known.origin == row.origin => raise_row(known, row),
            Some(known) if (known.life, known.origin) > (row.life, row.origin) => Merged::Nothing,
            other => {
                *other = Some(row.clone());
                member.reborn = Some(now);
                self.epoch += 1;
                Merged::Risen
            }
        };
        if merged != Merged::Nothing {
            member.heard = Some(now);
            self.version += 1;
        }
        merged
    }

    fn merge_own(&mut self, row: &Row) -> Merged {
        let own = &mut self.own;
        if row.origin != own.origin {
            if row.life < own.life {
                return Merged::Nothing;
            }
            own.life = row.life + 1;
            return Merged::Risen;
        }
        let lost = row.durable.dots.iter().find(|(origin, sequence)| own.durable.get(origin) < **sequence);
        if let Some((origin, sequence)) = lost {
            return Merged::Forgotten(Dot::new(*origin, *sequence));
        }
        own.life = own.life.max(row.life);
        // After a restart: what others have heard of us must not hide that we live.
        own.beat = own.beat.max(row.beat);
        Merged::Nothing
    }

    /// Fences whoever was not heard of for the lease, and lets back whoever has caught up. Returns
    /// those for whom that changed, and whether they are fenced now.
    pub fn review(&mut self, now: MonoMs) -> Vec<(RegionId, bool)> {
        let lease_ms = self.lease_ms;
        let mut changed = Vec::new();
        if let Some(member) = self.members.get_mut(&self.region) {
            member.heard = Some(now);
            member.reborn.get_or_insert(now);
        }
        for (region, member) in &mut self.members {
            let heard = *member.heard.get_or_insert(now);
            if !member.fenced && now.since(heard) >= lease_ms {
                member.fenced = true;
                changed.push((*region, true));
            }
        }
        if self.members.values().any(|member| member.fenced) {
            let stable = self.stable();
            for (region, member) in &mut self.members {
                let heard = member.heard.is_some_and(|heard| now.since(heard) < lease_ms);
                let covers = member.row.as_ref().is_some_and(|row| covers_all(&row.durable, &stable));
                if member.fenced && heard && covers {
                    member.fenced = false;
                    changed.push((*region, false));
                }
            }
        }
        self.epoch += changed.len() as u64;
        self.version += changed.len() as u64;
        changed
    }

    /// When [`Stability::review`] has something to do if nothing is heard.
    pub fn review_at(&self) -> Option<MonoMs> {
        let leases = self.members.iter().filter(|(region, member)| **region != self.region && !member.fenced);
        leases.filter_map(|(_, member)| Some(member.heard?.after(self.lease_ms))).min()
    }

    fn unfenced(&self) -> impl Iterator<Item = (RegionId, Option<&Row>)> {
        let members = self.members.iter().filter(|(_, member)| !member.fenced);
        members.map(|(region, _)| (*region, self.row(*region)))
    }

    /// What every member that is not fenced has durably applied.
    pub fn stable(&self) -> VersionVector {
        let mut stable = self.own.durable.clone();
        for (_, row) in self.unfenced() {
            match row {
                Some(row) => stable.glb(&row.durable),
                None => return VersionVector::new(),
            }
        }
        stable
    }

    /// How many members are known to have durably applied `dot`, this region included.
    pub fn regions_with(&self, dot: &Dot) -> usize {
        let rows = self.members.keys().filter_map(|region| self.row(*region));
        rows.filter(|row| covers(&row.durable, dot)).count()
    }

    /// Whether `region` is known to have durably applied all of `vector`.
    pub fn has(&self, region: RegionId, vector: &VersionVector) -> bool {
        self.row(region).is_some_and(|row| covers_all(&row.durable, vector))
    }

    /// A time such that every op stamped up to it, by any member that is not fenced, is durable at all
    /// of them, and that every op still to come was written by one that had applied all those and
    /// whose clock was past it: such ops are *settled*. What they left behind may be forgotten; see
    /// [`Stability::is_waited_for`].
    ///
    /// Stands still on a side that has no quorum, so that two sides never go on without each other,
    /// and while some region's life is young here: under `everysec` and `never` ops of the former one
    /// may have left that are durable nowhere yet.
    pub fn passed(&mut self, now: MonoMs) -> Hlc {
        if self.cut.as_ref().is_some_and(|cut| cut.epoch != self.epoch) {
            self.cut = None;
        }
        if self.has_quorum() && !self.is_any_young(now) {
            while self.advance_cut() {}
        }
        self.passed
    }

    /// One step towards the next time that has passed; returns whether there was one to make.
    ///
    /// Readings of all clocks are taken with all ops given out before them. Once everyone has those,
    /// whatever anyone gives out from then on depends on them; once everyone has what was given out
    /// until then, nothing else is to come.
    fn advance_cut(&mut self) -> bool {
        let Some(cut) = &self.cut else { return self.begin_cut() };
        if !covers_all(&self.stable(), &cut.target) {
            return false;
        }
        if cut.is_second {
            self.passed = cut.hlc;
            self.waited_for = self.unfenced().map(|(region, _)| region).collect();
            self.cut = None;
        } else {
            self.cut = Some(Cut { is_second: true, target: self.known(), ..*cut });
        }
        true
    }

    fn begin_cut(&mut self) -> bool {
        let readings: Option<Vec<Hlc>> = self.unfenced().map(|(_, row)| Some(row?.hlc)).collect();
        let Some(hlc) = readings.and_then(|readings| readings.into_iter().min()) else { return false };
        let same = self.unfenced().all(|(region, _)| self.waited_for.contains(&region));
        if hlc.0 == 0 || (hlc <= self.passed && same) {
            return false;
        }
        self.cut = Some(Cut { epoch: self.epoch, hlc, target: self.known(), is_second: false });
        true
    }

    /// Whether ops of this region count among those that are settled up to [`Stability::passed`]. One
    /// that does not, for it was fenced then, may yet bring ops that are older. Nothing more is to
    /// come of regions that are no members.
    pub fn is_waited_for(&self, region: RegionId) -> bool {
        !self.members.contains_key(&region) || self.waited_for.contains(&region)
    }

    /// Whether the members that are not fenced are most of all, or half of them with the least.
    pub fn has_quorum(&self) -> bool {
        let unfenced = self.unfenced().count();
        let least = self.members.values().next().is_some_and(|member| !member.fenced);
        unfenced * 2 > self.members.len() || (unfenced * 2 == self.members.len() && least)
    }

    fn is_any_young(&self, now: MonoMs) -> bool {
        let unfenced = self.members.values().filter(|member| !member.fenced);
        unfenced.into_iter().any(|member| member.reborn.is_none_or(|at| now.since(at) < self.young_ms))
    }

    /// What any member that is not fenced is known to have durably applied.
    fn known(&self) -> VersionVector {
        let mut known = VersionVector::new();
        for (_, row) in self.unfenced() {
            for dot in row.into_iter().flat_map(|row| row.durable.iter()) {
                raise(&mut known, *dot.actor, dot.counter);
            }
        }
        known
    }

    /// The member that holds [`Stability::stable`] back furthest, if any does; without a quorum, the
    /// fenced one that was heard of last.
    pub fn blocked_by(&self) -> Option<RegionId> {
        if !self.has_quorum() {
            let fenced = self.members.iter().filter(|(_, member)| member.fenced);
            return fenced.max_by_key(|(_, member)| member.heard).map(|(region, _)| *region);
        }
        let most = self.known();
        let behind = |row: Option<&Row>| {
            most.iter()
                .map(|dot| dot.counter - row.map_or(0, |row| row.durable.get(dot.actor)))
                .fold(0_u64, u64::saturating_add)
        };
        let furthest = self.unfenced().map(|(region, row)| (behind(row), region)).max();
        furthest.filter(|(behind, _)| *behind > 0).map(|(_, region)| region)
    }

    /// Whether a member is fenced.
    pub fn is_fenced(&self, region: RegionId) -> bool {
        self.members.get(&region).is_some_and(|member| member.fenced)
    }

    /// Per other member, since when nothing new was heard of it.
    pub fn heard(&self) -> impl Iterator<Item = (RegionId, Option<MonoMs>)> + '_ {
        let others = self.members.iter().filter(|(region, _)| **region != self.region);
        others.map(|(region, member)| (*region, member.heard))
    }

    /// Milliseconds until a member is fenced if nothing is heard of it; zero if it is.
    pub fn fenced_in_ms(&self, now: MonoMs, region: RegionId) -> Option<u64> {
        let member = self.members.get(&region)?;
        if member.fenced {
            return Some(0);
        }
        Some(self.lease_ms.saturating_sub(now.since(member.heard?)))
    }
}

/// Raises `known` by `row`, of the same life.
fn raise_row(known: &mut Row, row: &Row) -> Merged {
    let mut merged = Merged::Nothing;
    if row.beat > known.beat || row.hlc > known.hlc || row.life > known.life {
        known.beat = known.beat.max(row.beat);
        known.hlc = known.hlc.max(row.hlc);
        known.life = known.life.max(row.life);
        merged = Merged::Beat;
    }
    for (origin, sequence) in &row.durable.dots {
        if known.durable.get(origin) < *sequence {
            raise(&mut known.durable, *origin, *sequence);
            merged = Merged::Risen;
        }
    }
    merged
}
