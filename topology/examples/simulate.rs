//! Runs the simulator: `simulate --seeds 1000 [--start N]`, or `simulate --seed N [--trace]`,
//! either with `--mutant NAME`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the world outside of the pure core")]

use std::process::ExitCode;
use std::time::Instant;

use meridian_topology::sim::{Mutant, Options, run_with};

#[derive(Default)]
struct Arguments {
    seeds: u64,
    start: u64,
    seed: Option<u64>,
    trace: bool,
    mutant: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { seeds: 1_000, ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match word.as_str() {
            "--seeds" => found.seeds = number(value()?)?,
            "--start" => found.start = number(value()?)?,
            "--seed" => found.seed = Some(number(value()?)?),
            "--mutant" => found.mutant = Some(value()?),
            "--trace" => found.trace = true,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(found)
}

fn simulate() -> Result<(), String> {
    let arguments = arguments()?;
    let mutant = match &arguments.mutant {
        None => Mutant::None,
        Some(name) => Mutant::ALL
            .into_iter()
            .find(|mutant| format!("{mutant:?}") == *name)
            .ok_or(format!("no mutant is called {name}"))?,
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.seeds,
    };
    let (start, count) = (Instant::now(), seeds.end - seeds.start);
    let (mut failures, mut ops, mut events) = (0_u64, 0, 0);
    for seed in seeds {
        let mut trace = Vec::new();
        let options = Options::of_seed(seed);
        let outcome = run_with(seed, options, mutant, arguments.trace.then_some(&mut trace));
        trace.iter().for_each(|line| println!("{line}"));
        match outcome {
            Ok(report) => {
                (ops, events) = (ops + report.ops, events + report.events);
                if arguments.seed.is_some() {
                    println!("{report:#?}");
                }
            }
            Err(failure) => {
                failures += 1;
                println!("{failure}\n");
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} schedules, {failures} failed, {ops} ops, {events} events, {seconds:.1} s");
    if failures == 0 { Ok(()) } else { Err(format!("{failures} of {count} schedules failed")) }
}

fn main() -> ExitCode {
    match simulate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
