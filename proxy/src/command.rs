//! The commands: what Redis 7.2 clients may ask for, one module per family.
//!
//! A command's handler works on a [`Context`]: it reads objects as they show, and writes by editing
//! keys, which collects effects. Nothing changes while a handler runs; the executor gives the
//! collected effects their place in the order and applies them, or throws them away when the
//! handler returns an error.
//!
//! Rules for handlers: judge everything that can fail before the first edit; do not expect to read
//! what the same command has edited; name each element once.

pub mod context;
pub mod elements;
pub mod error;
pub mod execute;
pub mod hash;
pub mod keys;
pub mod meridian;
pub mod server;
pub mod set;
pub mod sorted_set;
pub mod string;
pub mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(crate) mod testing;

pub use context::Context;
pub use error::CommandError;
pub use table::{Command, Family, Flags, Keys, find};

use crate::resp::{Args, Reply};

/// What a handler returns: its reply is written, or the error is to be.
pub type Outcome = Result<(), CommandError>;

/// A command's handler.
pub type Handler = fn(&mut Context<'_, '_>, Args<'_>, &mut Reply<'_>) -> Outcome;

/// Runs a command that reads the whole keyspace, in pieces, without locking it whole, or that reads the conflict
/// inbox.
///
/// # Errors
/// [`CommandError`]; part of a reply may have been written.
pub async fn walk(
    region: &crate::region::Region,
    command: &'static Command,
    args: Args<'_>,
    database: u8,
    now: meridian_topology::time::WallMs,
    reply: &mut Reply<'_>,
) -> Outcome {
    execute::check_loaded(region, command)?;
    match command.name {
        "meridian.digest" => meridian::digest(region, now, reply).await,
        "meridian.explain" => meridian::explain::explain(region, args, database, now, reply).await,
        "meridian.conflicts" => meridian::conflicts::conflicts(region, args, database, reply).await,
        _ => keys::walk::walk(region, command, args, database, now, reply).await,
    }
}
