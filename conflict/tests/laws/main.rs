//! The laws of the conflict crate: convergence, merging, replay, encodings, and the table of
//! outcomes per type. One binary, so that the crate is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::collapsible_match,
    clippy::type_complexity
)]

mod convergence;
mod cost;
mod fuzz;
mod golden;
mod harness;
mod oracles;
mod order;
mod purity;
mod reaping;
mod records;
mod repair;
mod seeding;
mod table;
