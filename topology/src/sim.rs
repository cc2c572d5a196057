//! A deterministic simulator: the real sequencer, replica, feeds, codecs and objects over a
//! simulated network, disk and clock.
//!
//! One seed is one run, on every machine. A seed stands for a shape, a sync mode, a workload and
//! faults ([`Options`]); after a time with faults everything is healed, and within bounded virtual
//! time all regions have to have the same ops and the same state.
//!
//! # What is checked
//!
//! | rule | when |
//! |---|---|
//! | an op is applied once, in order, after everything its writer had seen | each apply |
//! | a dot stands for one content for ever | each send, flush and apply |
//! | stamps of a region rise, over restarts and steps of its clock | each write |
//! | only durable vectors are acknowledged to peers | each acknowledgement |
//! | held ops stay within their bound; on rings and stars none is held | each step |
//! | nothing is said to be stable, or durable somewhere, that is not on those disks | now and then |
//! | routes are as usual again unless something is broken for good, and all is stable | the end |
//! | all regions have the same vector, the same full states, show the same | the end |
//! | every acknowledged write is everywhere | the end |
//! | a region's state is the fold of its log, and what recovery of its disk leads to | the end |
//!
//! # What is modelled
//!
//! Connections: ordered streams each for itself, one-way delay with jitter, cuts one way or both,
//! resets that lose what is on the way, second connections beside a living one. Disks: written and
//! synced records, crashes that lose any suffix of what is not synced, store commits that copy rows
//! one after the other while writes go on. Clocks: skew and steps. Processes: crashes, clean
//! restarts, an old copy of the disk put back. Not yet: truncated logs and re-seeding, torn and
//! flipped bytes (the log's own tests have those), wiped disks.
//!
//! [`Mutant`]s are planted in this harness, never in production code: a checker that does not find
//! them is worth nothing.
#![allow(
    clippy::indexing_slicing,
    missing_debug_implementations,
    reason = "a test harness: a failed index is a found bug"
)]

mod check;
mod network;
mod options;
mod process;
mod random;
mod workload;
mod world;

use std::fmt;

pub use options::{Fault, Options, Shape, Sync};

/// A rule left out, to see whether its absence is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing is wrong.
    None,
    /// What was applied is applied again when it comes again.
    NoDedupe,
    /// Deps are not looked at.
    NoCausalGate,
    /// Clients get their reply before the flush.
    AcknowledgeBeforeDurable,
    /// Peers get an acknowledgement before the flush.
    PeerAckBeforeDurable,
    /// Ops leave before they are durable, under `always`.
    ReplicateBeforeDurable,
    /// After losing the tail of the log, numbering goes on where it broke off.
    IncarnationKept,
    /// The clock starts from the wall clock after a restart.
    ClockNotRestored,
    /// Ops of others are not passed on.
    ForwardOwnOnly,
    /// Of two writes at the same time each region prefers its own.
    NoTieBreak,
    /// A feed goes on where it was, whatever the subscriber asks for.
    CursorSurvives,
    /// A store commit carries the position of its end, not of its beginning.
    PositionAfterRows,
    /// The store is written ahead of the log.
    StoreBeforeLog,
    /// The position is stored without the contexts.
    ContextsForgotten,
    /// Removals and overwrites take along what their writer had not seen.
    SeenEverything,
    /// Nobody is ever seen to be ahead.
    GradientOff,
    /// Links beyond those of the topology are not dialled.
    DialsIgnored,
    /// Feeders that come back seem to live on what we give them.
    NoReturn,
    /// Links that nobody needs are not closed.
    LinksKept,
    /// Of who has applied what, only the neighbours' own word is taken.
    RowsNotRelayed,
    /// Region 0 is taken to have applied whatever we have.
    StableIgnoresOne,
    /// Rows tell what is applied, durable or not.
    RowsOfApplied,
    /// A dead region is waited for for ever.
    FenceNever,
    /// A region tells a later clock than it will stamp with.
    ClockToldAhead,
}

impl Mutant {
    /// All that have to be found.
    pub const ALL: [Mutant; 23] = [
        Mutant::NoDedupe,
        Mutant::NoCausalGate,
        Mutant::AcknowledgeBeforeDurable,
        Mutant::PeerAckBeforeDurable,
        Mutant::ReplicateBeforeDurable,
        Mutant::IncarnationKept,
        Mutant::ClockNotRestored,
        Mutant::ForwardOwnOnly,
        Mutant::NoTieBreak,
        Mutant::CursorSurvives,
        Mutant::PositionAfterRows,
        Mutant::StoreBeforeLog,
        Mutant::ContextsForgotten,
        Mutant::SeenEverything,
        Mutant::GradientOff,
        Mutant::DialsIgnored,
        Mutant::NoReturn,
        Mutant::LinksKept,
        Mutant::RowsNotRelayed,
        Mutant::StableIgnoresOne,
        Mutant::RowsOfApplied,
        Mutant::FenceNever,
        Mutant::ClockToldAhead,
    ];
}

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
    /// Crashes and restarts.
    pub crashes: u64,
    /// Disks put back.
    pub restores: u64,
    /// Connections reset or doubled.
    pub resets: u64,
    /// Clocks stepped.
    pub clock_steps: u64,
    /// New incarnations after unclean starts.
    pub incarnations: u64,
    /// New incarnations because a peer knew more.
    pub amnesia: u64,
    /// Regions away for good, and links cut for long.
    pub long_faults: u64,
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

/// A rule was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// The mutant planted.
    pub mutant: Mutant,
    /// What the seed stands for.
    pub options: Options,
    /// Which rule, and how.
    pub what: String,
    /// When, virtual milliseconds.
    pub at_ms: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, mutant, options, what, at_ms } = self;
        writeln!(f, "seed {seed} at {at_ms} ms: {what}")?;
        writeln!(f, "{options:?}")?;
        write!(
            f,
            "replay: cargo run --release -p meridian-topology --features sim --example simulate -- --seed {seed} --trace"
        )?;
        if *mutant == Mutant::None { Ok(()) } else { write!(f, " --mutant {mutant:?}") }
    }
}

impl std::error::Error for Failure {}

/// Runs what `seed` stands for.
///
/// # Errors
/// [`Failure`] when a rule was broken.
pub fn run(seed: u64, mutant: Mutant) -> Result<Report, Box<Failure>> {
    run_with(seed, Options::of_seed(seed), mutant, None)
}

/// Runs `options` with the choices of `seed`, collecting what happens in `trace`.
///
/// # Errors
/// [`Failure`] when a rule was broken.
pub fn run_with(
    seed: u64,
    options: Options,
    mutant: Mutant,
    trace: Option<&mut Vec<String>>,
) -> Result<Report, Box<Failure>> {
    world::World::new(seed, options, mutant, trace).run()
}
