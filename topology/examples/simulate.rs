//! Runs the simulator.
//!
//! ```text
//! simulate --seeds 1000 [--start N]   many seeds; one that fails is shrunk and written down
//! simulate --seed N                   one seed, with a report
//! simulate --schedule FILE            a run written down
//! simulate --mutants                  how soon each planted bug is found
//!   --mutant NAME                     with a planted bug
//!   --trace                           what happens, line by line
//!   --without N,N-M                   without these events of the schedule, counted from 0
//!   --as-is                           failures are not shrunk
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the world outside of the pure core")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use meridian_topology::sim::{Failure, Mutant, Report, Schedule, run, run_schedule, shrink};

/// Runs spent on making a failing schedule small.
const SHRINK_TRIES: u64 = 3_000;

/// Seeds within which every planted bug has to be found.
const MUTANT_SEEDS: u64 = 1_000;

struct Arguments {
    seeds: u64,
    start: u64,
    seed: Option<u64>,
    schedule: Option<String>,
    without: Vec<(usize, usize)>,
    trace: bool,
    as_is: bool,
    mutants: bool,
    mutant: Mutant,
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let named = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    named.ok_or(format!("no mutant is called {name}"))
}

/// `3,5-9` as pairs of first and last.
fn ranges(text: &str) -> Result<Vec<(usize, usize)>, String> {
    let place = |text: &str| number(text).map(|n| n as usize);
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => Ok((place(first)?, place(last)?)),
        None => Ok((place(part)?, place(part)?)),
    };
    text.split(',').map(range).collect()
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seeds: 1_000,
        start: 0,
        seed: None,
        schedule: None,
        without: Vec::new(),
        trace: false,
        as_is: false,
        mutants: false,
        mutant: Mutant::None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => found.seeds = number(&value()?)?,
            "--start" => found.start = number(&value()?)?,
            "--seed" => found.seed = Some(number(&value()?)?),
            "--schedule" => found.schedule = Some(value()?),
            "--without" => found.without = ranges(&value()?)?,
            "--mutant" => found.mutant = mutant(&value()?)?,
            "--mutants" => found.mutants = true,
            "--trace" => found.trace = true,
            "--as-is" => found.as_is = true,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(found)
}

/// What failed, and the least schedule that fails in the same way.
fn tell(failure: Box<Failure>, as_is: bool) {
    println!("{failure}");
    if as_is {
        return;
    }
    let shrunk = shrink(failure, SHRINK_TRIES);
    println!("shrunk: {shrunk}");
    println!("--- a schedule for --schedule FILE ---\n{}---\n", shrunk.schedule);
}

/// One schedule, with all there is to know.
fn single(mut schedule: Schedule, arguments: &Arguments) -> Result<(), String> {
    let mut at = 0;
    schedule.options.script.retain(|_| {
        at += 1;
        !arguments.without.iter().any(|(first, last)| (*first..=*last).contains(&(at - 1)))
    });
    let mut trace = Vec::new();
    let outcome = run_schedule(&schedule, arguments.mutant, arguments.trace.then_some(&mut trace));
    trace.iter().for_each(|line| println!("{line}"));
    match outcome {
        Ok(report) => {
            println!("{report:#?}");
            Ok(())
        }
        Err(failure) => {
            tell(failure, arguments.as_is);
            Err("the schedule failed".into())
        }
    }
}

fn many(arguments: &Arguments) -> Result<(), String> {
    let (begun, count) = (Instant::now(), arguments.seeds);
    let (mut failures, mut ops, mut events) = (0_u64, 0, 0);
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in arguments.start..arguments.start + count {
        match run(seed, arguments.mutant) {
            Ok(Report { ops: some, events: more, happened: what, .. }) => {
                (ops, events) = (ops + some, events + more);
                what.into_iter().for_each(|(what, times)| *happened.entry(what).or_default() += times);
            }
            Err(failure) => {
                failures += 1;
                tell(failure, arguments.as_is);
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (what, times) in happened {
        println!("{times:>10} × {what}");
    }
    println!("{count} schedules, {failures} failed, {ops} ops, {events} events, {seconds:.1} s");
    if failures == 0 { Ok(()) } else { Err(format!("{failures} of {count} schedules failed")) }
}

/// How soon each planted bug is found.
fn mutants(start: u64) -> Result<(), String> {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        match (start..start + MUTANT_SEEDS).find_map(|seed| run(seed, mutant).err()) {
            Some(failure) => println!(
                "{:<24} at seed {:>4}: {}",
                format!("{mutant:?}"),
                failure.schedule.seed,
                failure.rule()
            ),
            None => missed.push(mutant),
        }
    }
    let all = Mutant::ALL.len();
    println!("{} of {all} planted bugs were found within {MUTANT_SEEDS} seeds each", all - missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {missed:?}")) }
}

fn simulate() -> Result<(), String> {
    let arguments = arguments()?;
    if arguments.mutants {
        return mutants(arguments.start);
    }
    if let Some(file) = &arguments.schedule {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        return single(text.parse()?, &arguments);
    }
    match arguments.seed {
        Some(seed) => single(Schedule::of_seed(seed), &arguments),
        None => many(&arguments),
    }
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
