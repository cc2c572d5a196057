//! Schedules of the simulator that have to hold, and planted bugs that have to be found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
