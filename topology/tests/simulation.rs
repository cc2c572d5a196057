//! Schedules of the simulator that have to hold, and planted bugs that have to be found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use meridian_topology::sim::{Mutant, Options, Report, Shape, run, run_with};

/// Runs `seeds`, each of which has to hold.
fn hold(seeds: impl Iterator<Item = u64>) -> Vec<Report> {
    seeds.map(|seed| run(seed, Mutant::None).unwrap_or_else(|failure| panic!("{failure}"))).collect()
}

#[test]
fn schedules_with_faults_converge_first_half() {
    hold(0..1_000);
}

#[test]
fn schedules_with_faults_converge_second_half() {
    hold(1_000..2_000);
}

/// Every seed that ever found a bug, for ever.
#[test]
fn seeds_that_found_bugs_hold() {
    let seeds = include_str!("regressions/seeds.txt");
    hold(seeds.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()));
}

#[test]
fn a_seed_replays_the_same_run() {
    for seed in 0..50 {
        let (first, again) = (run(seed, Mutant::None).unwrap(), run(seed, Mutant::None).unwrap());
        assert_eq!(first, again, "seed {seed}");
    }
}

/// Faults that never happen test nothing.
#[test]
fn every_kind_of_fault_happens() {
    let reports = hold(2_000..2_300);
    let sum = |field: fn(&Report) -> u64| reports.iter().map(field).sum::<u64>();
    let seen = [
        ("crashes", sum(|r| r.crashes)),
        ("restores", sum(|r| r.restores)),
        ("resets", sum(|r| r.resets)),
        ("clock steps", sum(|r| r.clock_steps)),
        ("incarnations", sum(|r| r.incarnations)),
        ("amnesia", sum(|r| r.amnesia)),
        ("holds", sum(|r| r.holds)),
        ("waits", sum(|r| r.causal_waits)),
        ("duplicates", sum(|r| r.duplicates)),
    ];
    for (what, count) in seen {
        assert!(count > 0, "no {what}");
    }
    assert!(sum(|r| r.ops) > 300 * 150);
}

#[test]
fn every_planted_bug_is_found_within_1000_seeds() {
    for mutant in Mutant::ALL {
        let found = (0..1_000).find(|seed| run(*seed, mutant).is_err());
        assert!(found.is_some(), "{mutant:?} is not found");
    }
}

#[test]
fn c1_in_a_mesh_with_a_slow_link_ops_wait_for_what_their_writer_had_seen() {
    for seed in 0..20 {
        let report = run_with(seed, Options::slow_mesh(), Mutant::None, None);
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.causal_waits > 0, "seed {seed}");
    }
}

#[test]
fn c1_on_rings_and_stars_no_op_ever_waits() {
    for shape in [Shape::Ring, Shape::Star] {
        for seed in 0..20 {
            let options = Options { slow: vec![(0, 2, 300)], ..Options::calm(4, shape) };
            assert!(options.never_waits());
            let report = run_with(seed, options, Mutant::None, None);
            let report = report.unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!((report.causal_waits, report.most_pending_bytes), (0, 0), "seed {seed}");
        }
    }
}

/// C2 in small: far more ops depend on a late one than there is memory to hold.
#[test]
fn c2_memory_stays_bounded_behind_a_slow_link_and_all_arrives() {
    for seed in 0..10 {
        let options = Options { pending_bytes_max: 2_000, commands: 900, ..Options::slow_mesh() };
        let report = run_with(seed, options, Mutant::None, None);
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.holds > 0 && report.most_pending_bytes <= 2_000, "seed {seed}: {report:?}");
    }
}

/// L3 in small: every op comes by several ways, and each is applied once.
#[test]
fn l3_ops_that_come_by_several_ways_are_applied_once() {
    let report = run_with(1, Options::calm(4, Shape::FullMesh), Mutant::None, None).unwrap();
    assert!(report.duplicates > report.ops);
}
