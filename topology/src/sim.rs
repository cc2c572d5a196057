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
//! | nothing is taken that a removed region wrote once all knew | each apply |
//! | all regions have the same vector, the same full states, show the same | the end |
//! | every acknowledged write is everywhere | the end |
//! | a region's state is what all ops lead to in another order, and what recovery of its disk does | the end |
//!
//! # What is modelled
//!
//! Connections: ordered streams each for itself, one-way delay with jitter, lost packets that hold up
//! what follows, cuts one way or both, resets that lose what is on the way, second connections beside a
//! living one, links with little bandwidth; batches that come twice or out of order, which QUIC would
//! never do. Disks: written and synced records, crashes that lose any suffix of what is not synced, store
//! commits that copy rows one after the other while writes go on, disks that are full for a while, lost
//! and put back to an old copy, logs that are truncated. Takeovers: by merge, in the forms and the order
//! of production, cut anywhere, with ops going on at the donor, which may be removed, wiped or dead in the
//! middle. Clocks: skew and steps. Processes:
//! crashes, clean restarts. Members: regions join, leave and come back as new; shapes change. Not here:
//! torn and flipped bytes (the log's own tests have those), and the loss of the last region that is whole and
//! has, or can get from the logs, what those had before that are taking over: then nobody can begin anew.
//!
//! A failing run [`shrink`]s to few events and is written down as a [`Schedule`], which replays it
//! whatever seeds stand for by then.
//!
//! [`Mutant`]s are planted in this harness, never in production code: a checker that does not find
//! them is worth nothing.
#![allow(
    clippy::indexing_slicing,
    missing_debug_implementations,
    reason = "a test harness: a failed index is a found bug"
)]

mod check;
mod fault;
mod mutant;
mod network;
mod options;
mod process;
mod random;
mod report;
mod schedule;
mod seeding;
mod shape;
mod shrink;
mod workload;
mod world;

pub use fault::Fault;
pub use mutant::Mutant;
pub use options::{Options, Sync};
pub use report::{Failure, Report};
pub use schedule::Schedule;
pub use shape::Shape;
pub use shrink::shrink;

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
    run_schedule(&Schedule::new(seed, options), mutant, trace)
}

/// Runs a schedule, collecting what happens in `trace`.
///
/// # Errors
/// [`Failure`] when a rule was broken.
pub fn run_schedule(
    schedule: &Schedule,
    mutant: Mutant,
    trace: Option<&mut Vec<String>>,
) -> Result<Report, Box<Failure>> {
    world::World::new(schedule, mutant, trace).run()
}
