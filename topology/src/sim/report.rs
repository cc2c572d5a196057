//! What a run did, and how a broken rule is told.

use std::collections::BTreeMap;
use std::fmt;

use super::{Mutant, Schedule};

/// What a run did. Two runs of a seed give equal reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Over every write and apply, in order.
    pub trace_hash: u64,
    /// Events handled.
    pub events: u64,
    /// Local ops.
    pub ops: u64,
    /// Ops received from peers, and how many of them were known already.
    pub received: u64,
    /// See `received`.
    pub duplicates: u64,
    /// Most ops that waited in one process of a region.
    pub causal_waits: u64,
    /// Most bytes held by a region.
    pub most_pending_bytes: usize,
    /// Links held for skew, memory or refusal.
    pub holds: u64,
    /// How often each kind of fault happened, and what a region did because of one.
    pub happened: BTreeMap<&'static str, u64>,
    /// New incarnations after unclean starts.
    pub incarnations: u64,
    /// New incarnations because a peer knew more.
    pub amnesia: u64,
    /// How often a region's ops took another way.
    pub reroutes: u64,
    /// Scripted writes: milliseconds until all that are alive had the last of each, if they had.
    pub reached_ms: Vec<Option<u64>>,
    /// The same without regions at the end of narrow links.
    pub others_ms: Vec<Option<u64>>,
    /// Bytes sent by all at each mark.
    pub marks: Vec<u64>,
    /// Bytes sent by all.
    pub sent_bytes: u64,
    /// The latest time found to have passed everywhere, virtual milliseconds.
    pub passed_ms: u64,
    /// Members fenced after their lease, and let back.
    pub fenced: u64,
    /// See `fenced`.
    pub unfenced: u64,
    /// When faults ended, virtual milliseconds.
    pub healed_ms: u64,
    /// When all was equal.
    pub converged_ms: u64,
    /// When routes were as usual again.
    pub settled_ms: u64,
}

impl Report {
    /// Whether what comes later may be older.
    pub(super) fn fenced_or_lost(&self) -> bool {
        self.fenced > 0 || self.happened.contains_key("old disk") || self.happened.contains_key("wipe")
    }
}

/// A rule was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was run.
    pub schedule: Schedule,
    /// The mutant planted.
    pub mutant: Mutant,
    /// Which rule, and how.
    pub what: String,
    /// When, virtual milliseconds.
    pub at_ms: u64,
}

impl Failure {
    /// Which rule, without the names and numbers of this run.
    pub fn rule(&self) -> String {
        let rule = self.what.split(':').next().unwrap_or_default().split_whitespace();
        let words = rule.filter(|word| !word.contains(|c: char| c.is_ascii_digit() || "{}()".contains(c)));
        words.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedule, mutant, what, at_ms } = self;
        let events = schedule.options.script.len();
        write!(f, "seed {} with {events} events at {at_ms} ms: {what}", schedule.seed)?;
        if *mutant == Mutant::None { Ok(()) } else { write!(f, " (planted: {mutant:?})") }
    }
}

impl std::error::Error for Failure {}
