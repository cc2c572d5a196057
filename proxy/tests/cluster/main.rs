//! Runs the built `meridian` as its users do. The one integration test binary of the package: what
//! needs processes goes into a module here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod absence;
mod causality;
mod cli;
mod clients;
mod convergence;
mod crashes;
mod disk;
mod fold;
mod harness;
mod healing;
mod history;
mod inbox;
mod intruders;
mod load;
mod membership;
mod parked;
mod process;
mod storm;
mod tokens;
