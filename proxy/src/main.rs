//! The binary.

use std::process::ExitCode;

use clap::Parser;
use meridian_proxy::cli::{Cli, exit, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return exit::usage(&told),
    };
    if let Err(error) = logging::start(cli.log_format, cli.default_log_level()) {
        return exit::failure(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&anyhow::Error::new(error).context("cannot start")),
    };
    let outcome = runtime.block_on(cli.run());
    // What is still running had its time to end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::failure(&error),
    }
}
