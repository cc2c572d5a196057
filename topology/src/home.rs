//! Who is the home of a pattern of keys, and whether it may grant writes now.
//!
//! One [`Seat`] is what one region knows of one pattern. An [`Appointment`] names the holder; greater terms replace
//! lesser ones wherever they are heard of. Being appointed is not enough: the holder grants writes only while
//! [`to_lease`] members, itself among them, have confirmed its term within the lease, counted from when they were asked.
//! A member that confirmed confirms nobody else, and votes for nobody else, before that has run out on its own
//! clock ([`guard`]).
//!
//! A holder hands over by an appointment that says which term it has given up ([`Seat::hand_over`]): who is bound to that
//! term is free at once. Where the holder is not heard of, another region needs the votes of [`to_win`] members, each given
//! only by one that is not bound. A set that confirmed and a set that voted always have a member in common, so
//! between them nobody grants twice. [`Seat::force`] does without votes: that is the operator's word.
//!
//! # Callers
//!
//! Whatever [`Seat::kept`] gives has to be stored before anything is told or done that follows from it: compare before and
//! after each call. Time is a clock that goes on while the process stands still.

pub mod message;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod way;

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{RegionId, VersionVector};
use serde::{Deserialize, Serialize};

use crate::time::MonoMs;

/// How much longer than a lease, as a part of it, a member that confirmed is bound: clocks may differ in speed by that.
const GUARD_PART: u64 = 8;

/// How many of `members` have to confirm a lease, the holder among them.
pub fn to_lease(members: usize) -> usize {
    members.div_ceil(2)
}

/// How many of `members` have to vote for a new holder, itself among them.
pub fn to_win(members: usize) -> usize {
    members / 2 + 1
}

/// How long a member is bound by confirming a lease of `lease_ms`.
pub fn guard(lease_ms: u64) -> u64 {
    lease_ms.saturating_add(lease_ms / GUARD_PART)
}

/// A number and who holds it; of equal numbers the greater region's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Rises with every change of the home. Zero is what the configuration says.
    pub number: u64,
    /// The home.
    pub holder: RegionId,
}

/// Who is home, and from when on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// Which term.
    pub term: Term,
    /// What the holder has to have applied before it grants anything.
    pub after: VersionVector,
    /// The term that its holder has given up for this one.
    pub released: Option<Term>,
}

impl Appointment {
    /// What the configuration says.
    pub fn first(holder: RegionId) -> Self {
        Self { term: Term { number: 0, holder }, after: VersionVector::new(), released: None }
    }
}

/// What of a seat is kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The greatest appointment heard of.
    pub appointment: Appointment,
    /// For which term this region has voted last.
    pub promised: Option<Term>,
    /// Whether this region has confirmed the appointment: then it is not bound to an earlier one.
    pub settled: bool,
    /// Whether nothing is known yet but the configuration. What was known may have been lost with the disk.
    pub fresh: bool,
}

/// What a member says to a holder that asks to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is, for the lease.
    Confirmed,
    /// There is a greater term.
    Outdone(Appointment),
    /// A vote was given for a greater term.
    Promised(Term),
    /// Another holder was confirmed, and its lease may still run.
    Bound {
        /// For so long.
        for_ms: u64,
    },
    /// This member has just begun, and has not heard all others yet.
    Learning,
    /// This member has no such rule.
    Unknown,
}

/// What a member says to a region that asks for its vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ballot {
    /// It has the vote, or would have it.
    Given {
        /// What the member has applied.
        applied: VersionVector,
    },
    /// There is a term as great already.
    Outdone(Appointment),
    /// A vote was given for a term as great.
    Promised(Term),
    /// The holder was confirmed, and its lease may still run.
    Bound {
        /// For so long, if it does not ask again.
        for_ms: u64,
    },
    /// This member has just begun, and has not heard all others yet.
    Learning,
    /// This member has no such rule.
    Unknown,
}

/// Whom this region has confirmed, and until when that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// `None`: it may have been anybody.
    to: Option<Term>,
    until: MonoMs,
}

/// One region's part in who is home of one pattern.
#[derive(Clone, Debug)]
pub struct Seat {
    me: RegionId,
    kept: Kept,
    learning_until: Option<MonoMs>,
    bound: Option<Bound>,
    /// When those were asked who confirmed the present term: the holder's own list.
    confirmed: BTreeMap<RegionId, MonoMs>,
    /// The holder is about to hand over.
    stopped: bool,
    /// The holder was appointed in this run, and has not had a lease yet.
    beginning: bool,
}

impl Seat {
    /// The seat of a region that knows its configuration alone. It takes no part until [`Seat::learned`], or for as
    /// long as somebody might count on what it has forgotten.
    pub fn fresh(me: RegionId, holder: RegionId, now: MonoMs, lease_ms: u64) -> Self {
        let appointment = Appointment::first(holder);
        let kept = Kept { appointment, promised: None, settled: false, fresh: true };
        Self::again(me, kept, now, lease_ms)
    }

    /// The seat of a region that starts again with what it kept.
    pub fn again(me: RegionId, kept: Kept, now: MonoMs, lease_ms: u64) -> Self {
        let until = now.after(guard(lease_ms));
        let to = kept.settled.then_some(kept.appointment.term);
        // What is fresh learns first; and who is asked knows what it was bound to.
        let bound = (!kept.fresh).then_some(Bound { to, until });
        let learning_until = kept.fresh.then_some(until);
        Self { me, kept, learning_until, bound, confirmed: BTreeMap::new(), stopped: false, beginning: false }
    }

    /// Whoever it was bound to before its rule was taken away and came back, it is for the rest of that lease.
    #[must_use]
    pub fn wary(mut self, now: MonoMs, lease_ms: u64) -> Self {
        self.bound = Some(Bound { to: None, until: now.after(guard(lease_ms)) });
        self
    }

    /// All other members were heard.
    pub fn learned(&mut self) {
        self.learning_until = None;
    }

    /// What has to be stored.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The greatest appointment heard of.
    pub fn appointment(&self) -> &Appointment {
        &self.kept.appointment
    }

    /// The present term.
    pub fn term(&self) -> Term {
        self.kept.appointment.term
    }

    /// Whether this region is the home.
    pub fn is_mine(&self) -> bool {
        self.term().holder == self.me
    }

    /// Whether this region still has to hear the others.
    pub fn is_learning(&self, now: MonoMs) -> bool {
        self.learning_until.is_some_and(|until| now < until)
    }

    /// Takes note of an appointment. Returns whether it is news.
    pub fn adopt(&mut self, heard: &Appointment) -> bool {
        if heard.term <= self.term() {
            return false;
        }
        let was_mine = |bound: &Bound| bound.to.is_some_and(|to| to.holder == self.me);
        let given_up = |bound: &Bound| bound.to.is_some() && bound.to == heard.released;
        // What this region was bound to itself it has given up by this.
        if self.bound.as_ref().is_some_and(|bound| was_mine(bound) || given_up(bound)) {
            self.bound = None;
        }
        self.kept.appointment = heard.clone();
        self.kept.settled = false;
        self.confirmed.clear();
        self.stopped = false;
        self.beginning = self.is_mine();
        true
    }

    /// Answers a holder that asks to be confirmed for `lease_ms`.
    pub fn claim(&mut self, now: MonoMs, claimed: &Appointment, lease_ms: u64) -> Verdict {
        self.adopt(claimed);
        if claimed.term < self.term() {
            return Verdict::Outdone(self.appointment().clone());
        }
        if let Some(promised) = self.promised_beyond(claimed.term) {
            return Verdict::Promised(promised);
        }
        if self.is_learning(now) {
            return Verdict::Learning;
        }
        let bound = self.bound.filter(|bound| bound.to != Some(claimed.term) && now < bound.until);
        if let Some(bound) = bound {
            return Verdict::Bound { for_ms: bound.until.since(now) };
        }
        self.kept.settled = true;
        // A holder forgets that it is fresh only once most others have confirmed it.
        self.kept.fresh &= self.is_mine();
        let until = now.after(guard(lease_ms));
        let longest =
            self.bound.filter(|bound| bound.to == Some(claimed.term)).map_or(until, |b| b.until.max(until));
        self.bound = Some(Bound { to: Some(claimed.term), until: longest });
        Verdict::Confirmed
    }

    /// The holder begins to ask: confirms itself, if it may. Others were asked at `now`, too.
    pub fn claim_own(&mut self, now: MonoMs, lease_ms: u64) -> Verdict {
        let own = self.appointment().clone();
        let verdict = self.claim(now, &own, lease_ms);
        if verdict == Verdict::Confirmed {
            self.confirmed_by(self.me, own.term, now);
        }
        verdict
    }

    /// A member that was asked at `asked` has confirmed the term.
    pub fn confirmed_by(&mut self, member: RegionId, term: Term, asked: MonoMs) {
        if term == self.term() && self.is_mine() {
            let latest = self.confirmed.entry(member).or_insert(asked);
            *latest = asked.max(*latest);
        }
    }

    /// Until when this region may grant writes, whether or not that has passed.
    pub fn lease_until(&self, members: &BTreeSet<RegionId>, lease_ms: u64) -> Option<MonoMs> {
        let is_out = !self.is_mine() || self.stopped || self.promised_beyond(self.term()).is_some();
        if is_out || !self.confirmed.contains_key(&self.me) {
            return None;
        }
        let needed = if self.kept.fresh { to_win(members.len()) } else { to_lease(members.len()) };
        let mut asked: Vec<MonoMs> =
            members.iter().filter_map(|member| self.confirmed.get(member)).copied().collect();
        asked.sort_unstable_by(|a, b| b.cmp(a));
        asked.get(needed.saturating_sub(1)).map(|asked| asked.after(lease_ms))
    }

    /// Whether this region may grant writes now, if it has applied what it has to.
    pub fn may_grant(&self, now: MonoMs, members: &BTreeSet<RegionId>, lease_ms: u64) -> bool {
        self.lease_until(members, lease_ms).is_some_and(|until| now < until)
    }

    /// Whether it is the home since a moment ago, and has not had its first lease.
    pub fn is_beginning(&self) -> bool {
        self.beginning
    }

    /// A holder has its first lease: a fresh one, which most members have confirmed, is fresh no more.
    pub fn settle(&mut self, members: &BTreeSet<RegionId>, lease_ms: u64) {
        if self.lease_until(members, lease_ms).is_some() {
            self.kept.fresh = false;
            self.beginning = false;
        }
    }

    /// Answers `candidate`, which wants to hold the term of this number. `dry`: whether it would have the vote.
    pub fn vote(
        &mut self,
        now: MonoMs,
        wanted: Term,
        dry: bool,
        applied: impl FnOnce() -> VersionVector,
        members: &BTreeSet<RegionId>,
        lease_ms: u64,
    ) -> Ballot {
        if wanted.number <= self.term().number {
            return Ballot::Outdone(self.appointment().clone());
        }
        if let Some(promised) = self.promised_beyond(wanted) {
            return Ballot::Promised(promised);
        }
        if self.is_learning(now) {
            return Ballot::Learning;
        }
        let for_ms = self.bound_ms(now, wanted.holder, members, lease_ms);
        if for_ms > 0 {
            return Ballot::Bound { for_ms };
        }
        if !dry {
            self.kept.promised = Some(wanted);
        }
        Ballot::Given { applied: applied() }
    }

    /// The greatest number that this region knows of, whoever has it.
    pub fn greatest(&self) -> u64 {
        self.kept.promised.map_or(0, |promised| promised.number).max(self.term().number)
    }

    /// This region has the votes for the term that it has promised itself. `after` is all that the voters have
    /// applied. `None` if it has heard of a greater term meanwhile.
    pub fn win(&mut self, number: u64, after: VersionVector) -> Option<Appointment> {
        let term = Term { number, holder: self.me };
        let won = self.kept.promised == Some(term) && number > self.term().number;
        won.then(|| self.appoint(Appointment { term, after, released: None }))
    }

    /// This region is home from now on by the operator's word, without votes.
    pub fn force(&mut self, after: VersionVector) -> Appointment {
        let term = Term { number: self.greatest().saturating_add(1), holder: self.me };
        self.kept.promised = Some(term);
        self.appoint(Appointment { term, after, released: None })
    }

    /// The holder stops granting, to hand over. Returns `false` if it may not grant now: then there is nothing to hand over.
    pub fn stop(&mut self, now: MonoMs, members: &BTreeSet<RegionId>, lease_ms: u64) -> bool {
        let may = self.may_grant(now, members, lease_ms);
        self.stopped |= may;
        may
    }

    /// Whether it has stopped to hand over.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The holder does not hand over after all.
    pub fn go_on(&mut self) {
        self.stopped = false;
    }

    /// The holder, which has stopped, hands over to `heir`, which has to have applied `after`.
    pub fn hand_over(&mut self, heir: RegionId, after: VersionVector) -> Appointment {
        let released = self.term();
        let term = Term { number: released.number.saturating_add(1), holder: heir };
        self.appoint(Appointment { term, after, released: Some(released) })
    }

    fn appoint(&mut self, appointment: Appointment) -> Appointment {
        self.adopt(&appointment);
        self.kept.fresh = false;
        self.learning_until = None;
        appointment
    }

    /// The vote that keeps this region from confirming `term`.
    fn promised_beyond(&self, term: Term) -> Option<Term> {
        self.kept.promised.filter(|promised| {
            promised.number > term.number
                || (promised.number == term.number && promised.holder != term.holder)
        })
    }

    /// How long this region is still bound to another than `candidate`.
    fn bound_ms(&self, now: MonoMs, candidate: RegionId, members: &BTreeSet<RegionId>, lease_ms: u64) -> u64 {
        let Some(bound) = self.bound else { return 0 };
        match bound.to {
            Some(to) if to.holder == candidate => 0,
            // Bound to itself, it is so only while it may grant.
            Some(to) if to.holder == self.me => {
                self.lease_until(members, lease_ms).map_or(0, |until| until.since(now))
            }
            _ => bound.until.since(now),
        }
    }
}
