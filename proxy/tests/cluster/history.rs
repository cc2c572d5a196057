//! Histories of clients' calls, and whether they could have happened in a store that is causally
//! consistent and converges.
//!
//! Every value is written once, so a read names the write it saw. With that, causal convergence is
//! the absence of five patterns (Bouajjani, Enea, Guerraoui and Hamza, POPL 2017), which are looked for
//! here in time linear in calls and sessions, as AWDIT does: what a call has in its causal past is a
//! vector of one number per session.

mod check;

pub use check::check;

/// A write's value: unique in a history.
pub type Value = u64;

/// What a call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Wrote the value, or may have: without an answer it counts if somebody read it.
    Write {
        /// Which key.
        key: usize,
        /// The value.
        value: Value,
        /// Whether it was acknowledged.
        acknowledged: bool,
    },
    /// Read a value, or nothing.
    Read {
        /// Which key.
        key: usize,
        /// What was there.
        value: Option<Value>,
    },
}

/// The calls of one session, in order. A session stays with its region.
pub type Session = Vec<Call>;
