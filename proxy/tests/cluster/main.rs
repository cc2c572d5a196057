//! Runs the built `meridian` as its users do. The one integration test binary of the package: what
//! needs processes goes into a module here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod absence;
mod admin;
mod bounds;
mod causality;
mod cli;
mod clients;
mod clocks;
mod convergence;
mod crashes;
mod disk;
mod docs;
mod entropy;
mod examples;
mod failures;
mod fold;
mod harness;
mod healing;
mod history;
mod homes;
mod hooks;
mod idle;
mod inbox;
mod intruders;
mod kills;
mod load;
mod meetings;
mod membership;
mod parked;
mod pauses;
mod policies;
mod process;
mod quarantine;
mod reaping;
mod rotation;
mod storm;
mod tokens;
mod values;
mod watch;
