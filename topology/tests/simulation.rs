//! Schedules of the simulator that have to hold, and planted bugs that have to be found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use meridian_topology::sim::{
    Failure, Fault, Mutant, Options, Report, Schedule, Shape, Sync, run, run_schedule, run_with, shrink,
};

/// Runs spent on making a failing schedule small.
const SHRINK_TRIES: u64 = 3_000;

/// What failed, and the least schedule that fails in the same way: to be kept among `regressions`.
fn tell(failure: Box<Failure>) -> ! {
    let shrunk = shrink(failure.clone(), SHRINK_TRIES);
    panic!("{failure}\nshrunk: {shrunk}\n{}", shrunk.schedule)
}

/// Runs `seeds`, each of which has to hold.
fn hold(seeds: impl Iterator<Item = u64>) -> Vec<Report> {
    seeds.map(|seed| run(seed, Mutant::None).unwrap_or_else(|failure| tell(failure))).collect()
}

#[test]
fn schedules_with_faults_converge_first_half() {
    hold(0..1_000);
}

#[test]
fn schedules_with_faults_converge_second_half() {
    hold(1_000..2_000);
}

/// Every schedule that ever found a bug, shrunk, for ever. Each says what it found.
#[test]
#[allow(clippy::disallowed_methods, reason = "the schedules are files")]
fn schedules_that_found_bugs_hold() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions");
    let mut found = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} does not say what it found", path.display());
        let schedule: Schedule = text.parse().unwrap_or_else(|line| panic!("{}: {line}", path.display()));
        run_schedule(&schedule, Mutant::None, None).unwrap_or_else(|failure| tell(failure));
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn a_schedule_written_down_is_the_same_run() {
    for seed in 0..50 {
        let schedule = Schedule::of_seed(seed);
        let read: Schedule = schedule.to_string().parse().unwrap();
        assert_eq!(read.to_string(), schedule.to_string());
        let (first, again) =
            (run_schedule(&schedule, Mutant::None, None), run_schedule(&read, Mutant::None, None));
        assert_eq!(first.unwrap(), again.unwrap(), "seed {seed}");
    }
    for wrong in ["regions 99", "at 5", "at 5 down", "at 5 down 3", "slow 0 3 1", "shape Heap", "seed x"] {
        assert!(format!("regions 3\n{wrong}").parse::<Schedule>().is_err(), "{wrong}");
    }
}

/// Few enough to be read.
const SHRUNK_EVENTS: usize = 30;

#[test]
fn a_failing_schedule_shrinks_to_few_events_and_still_fails() {
    for mutant in [Mutant::NoDedupe, Mutant::IncarnationKept, Mutant::NoTieBreak, Mutant::ClockNotRestored] {
        let failure = (0..1_000).find_map(|seed| run(seed, mutant).err()).unwrap();
        let before = failure.schedule.options.script.len();
        let shrunk = shrink(failure.clone(), SHRINK_TRIES);
        let events = shrunk.schedule.options.script.len();
        assert!(events <= SHRUNK_EVENTS, "{mutant:?}: {events} of {before} events\n{}", shrunk.schedule);
        assert_eq!(shrunk.rule(), failure.rule());
        // What is printed fails, too, and only with the planted bug.
        let printed: Schedule = shrunk.schedule.to_string().parse().unwrap();
        assert_eq!(run_schedule(&printed, mutant, None).unwrap_err().rule(), failure.rule());
        assert!(run_schedule(&printed, Mutant::None, None).is_ok());
    }
}

#[test]
fn a_seed_replays_the_same_run() {
    for seed in 0..50 {
        let (first, again) = (run(seed, Mutant::None).unwrap(), run(seed, Mutant::None).unwrap());
        assert_eq!(first, again, "seed {seed}");
    }
}

/// What has to happen to some regions in some runs.
const KINDS: [&str; 25] = [
    "batch out of order",
    "clock back",
    "clock forth",
    "cut both ways",
    "cut one way",
    "full disk",
    "join",
    "leave",
    "loss for good",
    "lost donor",
    "lost packet",
    "lost tail",
    "old disk",
    "other shape",
    "power failure",
    "repeated batch",
    "reset",
    "restart",
    "second connection",
    "slow link",
    "takeover",
    "takeover broken off",
    "takeover gone on with",
    "truncated log",
    "wipe",
];

/// Faults that never happen test nothing.
#[test]
fn every_kind_of_fault_happens() {
    let reports = hold(2_000..2_300);
    let sum = |field: fn(&Report) -> u64| reports.iter().map(field).sum::<u64>();
    let seen = [
        ("incarnations", sum(|r| r.incarnations)),
        ("amnesia", sum(|r| r.amnesia)),
        ("holds", sum(|r| r.holds)),
        ("waits", sum(|r| r.causal_waits)),
        ("duplicates", sum(|r| r.duplicates)),
        ("reroutes", sum(|r| r.reroutes)),
        ("fenced members", sum(|r| r.fenced)),
        ("members let back", sum(|r| r.unfenced)),
        ("time that has passed everywhere", sum(|r| r.passed_ms)),
    ];
    for (what, count) in seen {
        assert!(count > 0, "no {what}");
    }
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, times) in reports.iter().flat_map(|report| &report.happened) {
        *happened.entry(what).or_default() += times;
    }
    for what in KINDS {
        assert!(happened.contains_key(what), "no {what}: {happened:?}");
    }
    assert_eq!(happened.len(), KINDS.len(), "{happened:?}");
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

/// `heal_after` of the simulator, in milliseconds.
const HEAL_MS: u64 = 3_000;

/// Only what `script` says happens, in each of a few seeds.
fn scripted(regions: usize, shape: Shape, script: Vec<(u64, Fault)>) -> Vec<Report> {
    let options = Options { commands: 60, script, ..Options::calm(regions, shape) };
    let run = |seed| run_with(seed, options.clone(), Mutant::None, None);
    (0..10).map(|seed| run(seed).unwrap_or_else(|failure| panic!("{failure}"))).collect()
}

fn down(node: usize, ms: Option<u64>) -> Fault {
    Fault::Down { node, ms }
}

fn cut(from: usize, to: usize, ms: Option<u64>) -> Fault {
    Fault::Cut { from, to, ms }
}

fn write(node: usize) -> Fault {
    Fault::Write { node, ops: 1 }
}

/// The scripted writes of a report all came within `ms`.
fn reach_within(reports: &[Report], ms: u64) {
    for (seed, report) in reports.iter().enumerate() {
        assert!(!report.reached_ms.is_empty(), "seed {seed}");
        let slow = report.reached_ms.iter().any(|reached| reached.is_none_or(|reached| reached > ms));
        assert!(!slow, "seed {seed}: {:?}", report.reached_ms);
    }
}

/// The first scripted writes took the time to find the way, those after them go by it.
fn settle_within(reports: &[Report], first: usize) {
    reach_within(reports, HEAL_MS + 2_500);
    for (seed, report) in reports.iter().enumerate() {
        let later = &report.reached_ms[first..];
        assert!(later.iter().flatten().all(|ms| *ms < 300), "seed {seed}: {:?}", report.reached_ms);
    }
}

/// L1: a region of a ring of three dies for good with its ops on the way.
#[test]
fn l1_ops_of_a_dead_region_stop_circling_and_links_fall_silent() {
    let marks = [(30_000, Fault::Mark), (40_000, Fault::Mark)];
    let script = [(100, Fault::Write { node: 0, ops: 50 }), (104, down(0, None))].into_iter().chain(marks);
    for report in scripted(3, Shape::Ring, script.collect()) {
        let idle = report.marks[1] - report.marks[0];
        // Two survivors, one link, ten seconds.
        assert!(idle < 2 * 10 * 500, "{idle} bytes in ten idle seconds");
        assert!(report.received < 20 * report.ops, "{report:?}");
    }
}

/// L2: a dead region breaks a ring of four.
#[test]
fn l2_writes_go_around_a_dead_region_within_heal_after_and_it_catches_up_from_the_log() {
    for node in 0..4 {
        let after = [1, 2, 3].map(|distance| (node + distance) % 4);
        let mut script = vec![(500, down(node, Some(20_000)))];
        script.extend(after.map(|at| (501, write(at))));
        script.extend(after.map(|at| (6_000, write(at))));
        script.extend([(12_000, Fault::Mark), (18_000, Fault::Mark)]);
        let reports = scripted(4, Shape::Ring, script.clone());
        reach_within(&reports, HEAL_MS + 1_000);
        for report in &reports {
            assert!(report.reached_ms[3..].iter().flatten().all(|ms| *ms < 500), "{:?}", report.reached_ms);
            assert!(report.marks[1] - report.marks[0] < 3 * 2 * 6 * 500, "{:?}", report.marks);
            assert!(report.reroutes > 0 && report.settled_ms > 0);
        }
    }
}

#[test]
fn l2_a_ring_heals_around_one_cut_link_between_two_that_live() {
    for both in [false, true] {
        for ms in [None, Some(20_000)] {
            let mut script = vec![(300, cut(0, 1, ms))];
            script.extend(both.then_some((300, cut(1, 0, ms))));
            script.extend([0, 1, 2, 3].map(|node| (12_000, write(node))));
            let later = |n: u64| [0, 1, 2, 3].map(|node| (17_000 + 300 * n, write(node)));
            script.extend((0..10).flat_map(later));
            settle_within(&scripted(4, Shape::Ring, script), 4);
        }
    }
}

#[test]
fn a_star_without_its_hub_falls_to_the_standby_or_to_its_spokes() {
    for shape in [Shape::StandbyStar, Shape::Star] {
        for ms in [None, Some(20_000)] {
            let mut script = vec![(300, down(0, ms))];
            script.extend([1, 2, 3, 4].map(|node| (301, write(node))));
            script.extend([1, 2, 3, 4].map(|node| (8_000, write(node))));
            reach_within(&scripted(5, shape, script), HEAL_MS + 1_000);
        }
    }
}

#[test]
fn in_a_star_a_spoke_cut_from_the_hub_goes_by_the_others() {
    for shape in [Shape::StandbyStar, Shape::Star] {
        let mut script = vec![(300, cut(0, 3, None)), (300, cut(3, 0, None))];
        script.extend([0, 1, 2, 3, 4].map(|node| (12_000, write(node))));
        script.extend((0..10).flat_map(|n| [0, 1, 2, 3, 4].map(|node| (20_000 + 3_000 * n, write(node)))));
        settle_within(&scripted(5, shape, script), 5);
    }
}

#[test]
fn a_mesh_relays_what_a_cut_link_does_not_carry() {
    for both in [false, true] {
        let mut script = vec![(300, cut(0, 1, None))];
        script.extend(both.then_some((300, cut(1, 0, None))));
        script.extend([0, 1, 2, 3].map(|node| (301, write(node))));
        let reports = scripted(4, Shape::Mesh, script);
        // The other side hears of it with the next heartbeat, which comes once a second.
        reach_within(&reports, HEAL_MS + 2_500);
    }
}

#[test]
fn custom_feeds_heal_around_the_dead() {
    for shape in [Shape::NarrowCustom, Shape::Custom] {
        let mut script = vec![(300, down(2, None))];
        script.extend([0, 1, 3, 4].map(|node| (301, write(node))));
        script.extend([0, 1, 3, 4].map(|node| (8_000, write(node))));
        reach_within(&scripted(5, shape, script), HEAL_MS + 2_500);
    }
}

/// C4: A reached only B and died for good; what B writes then depends on it.
#[test]
fn c4_what_a_dead_region_gave_to_one_survivor_reaches_all() {
    for shape in [Shape::Ring, Shape::DoubleRing, Shape::Mesh, Shape::NarrowCustom] {
        let mut script: Vec<_> = (2..4).map(|other| (0, cut(0, other, None))).collect();
        script.extend([(100, Fault::Write { node: 0, ops: 5 }), (180, down(0, None)), (200, write(1))]);
        reach_within(&scripted(4, shape, script), 2 * HEAL_MS);
    }
}

/// C6: a link comes into use while a long queue waits on the old path.
#[test]
fn c6_a_new_path_beside_a_long_queue_breaks_no_order() {
    let mut found = 0;
    for seed in 0..20 {
        let options = Options {
            narrow: vec![(0, 1, 2_000)],
            script: vec![
                (100, Fault::Write { node: 0, ops: 300 }),
                (1_500, cut(0, 1, Some(8_000))),
                (1_600, Fault::Write { node: 1, ops: 50 }),
            ],
            ..Options::calm(4, Shape::Mesh)
        };
        let report =
            run_with(seed, options, Mutant::None, None).unwrap_or_else(|failure| panic!("{failure}"));
        found += report.reroutes;
    }
    assert!(found > 0);
}

/// Q1: one region has a hundredth of the others' bandwidth.
#[test]
fn q1_a_region_with_little_bandwidth_slows_nobody_else() {
    let slow = vec![(0, 3, 600), (1, 3, 600), (2, 3, 600)];
    for shape in [Shape::Mesh, Shape::FullMesh] {
        for seed in 0..5 {
            let script = (0..20).map(|n| (200 + n * 100, write(0))).collect();
            let options = Options { narrow: slow.clone(), script, ..Options::calm(4, shape) };
            let healthy = Options { narrow: Vec::new(), ..options.clone() };
            let lag = |options| {
                let report =
                    run_with(seed, options, Mutant::None, None).unwrap_or_else(|failure| panic!("{failure}"));
                (report.reached_ms, report.others_ms, report.most_pending_bytes)
            };
            let (all, others, pending) = lag(options);
            let (_, alone, _) = lag(healthy);
            assert!(all.iter().flatten().any(|ms| *ms > 1_000), "it is not slow: {all:?}");
            let worst = |lags: &[Option<u64>]| lags.iter().flatten().max().copied();
            assert!(worst(&others) <= worst(&alone).map(|ms| 2 * ms + 50), "{others:?} against {alone:?}");
            assert!(pending <= 1 << 20);
        }
    }
}

#[test]
fn every_sync_mode_survives_the_loss_of_any_region_for_good() {
    for sync in [Sync::Always, Sync::EverySecond, Sync::Never] {
        for shape in Shape::ALL {
            for node in 0..4 {
                let options = Options {
                    sync,
                    crashes: 2,
                    script: vec![(400, down(node, None))],
                    ..Options::calm(4, shape)
                };
                run_with(node as u64, options, Mutant::None, None)
                    .unwrap_or_else(|failure| panic!("{failure}"));
            }
        }
    }
}

#[test]
fn j1_a_region_joins_with_nothing_and_gets_everything() {
    for shape in Shape::ALL {
        for seed in 0..5 {
            let script = vec![(200, Fault::Join { node: 2 }), (3_000, write(2)), (3_000, write(0))];
            let options = Options { absent: vec![2], script, ..Options::calm(4, shape) };
            let report = run_with(seed, options, Mutant::None, None).unwrap_or_else(|f| panic!("{f}"));
            reach_within(&[report], 1_000);
        }
    }
}

#[test]
fn a_removed_regions_ops_die_out_and_it_is_kept_out_until_it_joins_as_new() {
    for shape in Shape::ALL {
        for seed in 0..5 {
            let mut script = vec![(250, Fault::Leave { node: 1 }), (2_000, write(0)), (2_000, write(1))];
            let options = Options { script: script.clone(), ..Options::calm(4, shape) };
            let report = run_with(seed, options.clone(), Mutant::None, None);
            let report = report.unwrap_or_else(|failure| panic!("{failure}"));
            assert!(report.reached_ms[0].is_some(), "{report:?}");
            script.extend([(4_000, Fault::Join { node: 1 }), (8_000, write(1)), (8_000, write(2))]);
            let options = Options { script, ..options };
            run_with(seed, options, Mutant::None, None).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}

/// The logs of all others have lost what a region lacks that was cut off, and wrote meanwhile.
#[test]
fn j3_a_region_past_all_logs_takes_over_by_merge_and_its_own_writes_survive() {
    for shape in Shape::ALL {
        for seed in 0..5 {
            let links =
                [0, 1, 3].map(|other| (other, 2)).into_iter().chain([0, 1, 3].map(|other| (2, other)));
            let mut script: Vec<_> = links.map(|(from, to)| (100, cut(from, to, Some(6_000)))).collect();
            script.extend([0, 1, 2, 3].map(|node| (1_000, Fault::Write { node, ops: 10 })));
            script.extend([0, 1, 3].map(|node| (5_000, Fault::Truncate { node })));
            script.push((7_000, write(2)));
            let options = Options { commands: 60, script, ..Options::calm(4, shape) };
            let report = run_with(seed, options, Mutant::None, None).unwrap_or_else(|failure| tell(failure));
            assert!(report.happened.get("takeover").is_some_and(|times| *times > 0), "{shape:?}: {report:?}");
        }
    }
}

#[test]
fn any_shape_changes_into_any_other_under_load() {
    for from in Shape::ALL {
        for (seed, to) in Shape::ALL.into_iter().enumerate() {
            let script = vec![(200, Fault::Reshape { shape: to }), (4_000, write(0)), (4_000, write(3))];
            let options = Options { script, ..Options::calm(5, from) };
            let report = run_with(seed as u64, options, Mutant::None, None);
            reach_within(&[report.unwrap_or_else(|failure| panic!("{failure}"))], 1_000);
        }
    }
}
