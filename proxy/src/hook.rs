//! Merge hooks that come as WebAssembly modules.
//!
//! What a hook is asked and may answer is [`meridian_conflict::hook`]; this room runs modules in a
//! sandbox. See `docs/hooks.md` for those who write one.
//!
//! A module is compiled once and runs in a fresh instance for each call, so that no call can leave
//! anything behind for the next. It has no imports: no clock, no randomness, no input but the
//! call. The interpreter is built with its `deterministic` feature (one bit pattern for NaN), and
//! translates whole modules at loading, because translating at the first call would be paid from
//! that call's fuel and so make it unlike the others.
//!
//! Fuel, and the memory it may take, are functions of the call alone, so a hook that runs out of
//! them does so in every region. The engine and the limits are therefore part of the hook's
//! identity: regions that would stop it elsewhere do not mean the same hook.
//!
//! A call takes some tens of microseconds, and at most what its fuel allows (milliseconds). It
//! never waits, but it is no work for a thread that serves other keys.

mod sandbox;
#[cfg(test)]
mod tests;
pub mod workers;

pub use sandbox::{Limits, LoadError, MAX_MODULE_BYTES, Sandbox};
