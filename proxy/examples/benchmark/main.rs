//! Measures Meridian against Redis on this machine and prints one Markdown table.
//!
//! ```text
//! cargo build --release -p meridian-proxy
//! cargo run --release -p meridian-proxy --example benchmark [-- --quick] [--only NAME]...
//! ```
//!
//! # What is needed
//!
//! `redis-server` and `redis-benchmark` (7.0 or later) in the path, and the `meridian` program, which is
//! looked for beside this one. Everything else is started, configured, certified and cleaned up here, in a
//! directory beside the program: a temporary directory in memory would make `fdatasync` free. Nothing
//! else should run on the machine meanwhile; the line under the table tells how busy it was.
//!
//! # Method
//!
//! Absolute numbers on shared machines mean little, ratios within one run do. Both servers run side by
//! side; rounds alternate between them (A B A B ...), each round of one to three seconds after a warm-up
//! that also chooses the number of requests; the ratio is taken per round, and the table has the median
//! with the least and the greatest. Between rounds both servers come to rest, so that what one left to do
//! in the background does not slow the other; that work is counted in its processor time.
//!
//! The load is `redis-benchmark` with 50 clients, keys of 16 bytes among 100,000 and values of 64. It runs
//! on one thread and shares the machine with the servers: at pipelines of 1 it is what saturates first.
//! What it cannot do (pacing, watching another region, waiting for convergence) a client of
//! `meridian_proxy::resp` does.
//!
//! - Redis rewrites no append-only file meanwhile and takes no snapshots, which favours it.
//! - Processor time is user and system time of the servers' processes (of all regions together) in
//!   seconds per million operations; memory is their peak resident size.
//! - Regions are processes on this machine, so three of them and the load share its cores.
//! - Rows that replicate end only when the regions' digests are equal, or fail.
//!
//! # Columns
//!
//! *Foundation* is what holds from the first working version on, *goal* is where this goes; the mark is
//! `goal`, `pass` (the foundation holds) or `MISS`. Cells with a slash show Meridian, then the other side.

#![allow(missing_docs)]

mod client;
mod cluster;
mod contest;
mod host;
mod load;
mod process;
mod report;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use process::Children;
use report::Table;
use workloads::WORKLOADS;

/// Measures Meridian against Redis and prints one Markdown table.
#[derive(Debug, Parser)]
#[command(name = "benchmark")]
struct Options {
    /// Fewer rounds and keys: minutes instead of a quarter of an hour, and noisier
    #[arg(long)]
    quick: bool,
    /// Only workloads whose name contains this; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print the names of the workloads
    #[arg(long)]
    list: bool,
    /// Restart with 10,000,000 keys instead of 1,000,000
    #[arg(long)]
    huge: bool,
    /// Rounds per workload [default: 5, quick 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// The meridian program [default: beside this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the servers keep their data; must not be in memory [default: beside the program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What every workload gets.
struct Bench {
    /// Whether to hurry.
    quick: bool,
    /// Ten times the keys in the restart.
    huge: bool,
    rounds: usize,
    program: PathBuf,
    /// Removed in the end.
    directory: PathBuf,
    children: Children,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benchmark: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every workload could be run.
fn run(options: &Options) -> anyhow::Result<bool> {
    let chosen: Vec<_> = WORKLOADS
        .iter()
        .filter(|workload| {
            options.only.is_empty() || options.only.iter().any(|part| workload.name.contains(part))
        })
        .collect();
    if options.list {
        chosen.iter().for_each(|workload| println!("{}", workload.name));
        return Ok(true);
    }
    if chosen.is_empty() {
        bail!("no workload has such a name; --list shows them");
    }
    let program = program(options)?;
    let beside = program.parent().context("the program has no directory")?;
    let parent = options.dir.as_deref().unwrap_or(beside);
    let directory = tempfile::Builder::new().prefix("benchmark-").tempdir_in(parent)?;
    let children = Children::default();
    process::end_on_signals(children.clone(), directory.path().to_owned())?;
    let bench = Bench {
        quick: options.quick,
        huge: options.huge,
        rounds: options.rounds.map_or(if options.quick { 3 } else { 5 }, |rounds| rounds as usize),
        program,
        directory: directory.path().to_owned(),
        children,
    };
    let machine = host::line()?;
    let mut table = Table::default();
    for (at, workload) in chosen.iter().enumerate() {
        eprintln!("[{}/{}] {}", at + 1, chosen.len(), workload.name);
        match (workload.run)(&bench) {
            Ok(rows) => {
                for row in rows {
                    eprintln!("      {}", row.summary());
                    table.rows.push(row);
                }
            }
            Err(error) => {
                eprintln!("      failed: {error:#}");
                table.failures.push(format!("`{}` failed: {error:#}", workload.name));
            }
        }
    }
    println!("{table}");
    println!("{machine}");
    Ok(table.failures.is_empty())
}

/// The meridian program to measure.
fn program(options: &Options) -> anyhow::Result<PathBuf> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => {
            let own = std::env::current_exe().context("cannot tell where this program is")?;
            // Examples lie in a directory below the program's.
            let beside = own.parent().and_then(|examples| examples.parent());
            beside.context("cannot tell where this program is")?.join("meridian")
        }
    };
    if !program.is_file() {
        bail!("{} is not there; build it first: cargo build --release -p meridian-proxy", program.display());
    }
    std::path::absolute(program).context("cannot tell where the program is")
}
