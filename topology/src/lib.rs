//! How operations travel between regions, and when they may be delivered.
//!
//! Everything here is pure: time, randomness and persisted state come in as arguments, effects go
//! out as values, so one seed replays one run and the simulator runs the code that production runs.

pub mod graph;
pub mod plan;
pub mod shape;
