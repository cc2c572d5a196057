//! How operations travel between regions, and when they may be delivered.
//!
//! Everything here is pure: time, randomness and persisted state come in as arguments, effects go
//! out as values, so one seed replays one run and the simulator runs the code that production runs.

pub mod delivery;
pub mod entropy;
pub mod feed;
pub mod frame;
pub mod graph;
pub mod home;
pub mod ledger;
pub mod plan;
pub mod replica;
pub mod route;
pub mod seed;
pub mod sequence;
pub mod shape;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stability;
pub mod takeover;
pub mod time;
