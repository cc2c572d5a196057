//! Runs the built `meridian` as its users do. The one integration test binary of the package: what
//! needs processes goes into a module here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod cli;
mod process;
