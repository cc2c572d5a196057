//! R4 and Q4: power loss at any byte, full disks, failing flushes.

use proptest::prelude::*;

use super::*;

/// A cheap deterministic chooser.
fn picker(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

fn check_survivors(steps: &Steps, durable: Lsn, crashed: &SimDisk) -> Recovery {
    let quick = Settings { verify: Verify::Tail, ..settings() };
    let (_, quick) = open_on(Arc::new(crashed.settled()), quick).unwrap();
    let (opened, recovery) = open_on(Arc::new(crashed.clone()), settings()).unwrap();
    assert_eq!(quick, recovery, "power loss is found without reading everything");
    let oldest = steps.log.segments()[0].start;
    let found = records(&opened, oldest).unwrap();
    let expected: Vec<_> = steps.pushed.iter().filter(|(lsn, _)| *lsn >= oldest).collect();
    assert!(found.len() <= expected.len());
    assert!(found.iter().zip(&expected).all(|(f, e)| f == *e), "a prefix of what was pushed");
    let must = expected.iter().filter(|(lsn, _)| *lsn < durable).count();
    assert!(found.len() >= must, "{} of {must} durable records, {recovery:?}", found.len());
    assert!(!matches!(recovery.tail, Tail::Damaged { .. } | Tail::Missing { .. }), "{recovery:?}");
    recovery
}

#[derive(Clone, Debug)]
enum Action {
    Push(usize),
    Write,
    Flush,
    /// Begin a flush beside the writer, which writes on until its end.
    Begin,
    End,
    Truncate(u8),
    Crash(u64),
    Close,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (8usize..300).prop_map(Action::Push),
        1 => (1000usize..12_000).prop_map(Action::Push),
        4 => Just(Action::Write),
        2 => Just(Action::Flush),
        2 => Just(Action::Begin),
        2 => Just(Action::End),
        1 => any::<u8>().prop_map(Action::Truncate),
        1 => any::<u64>().prop_map(Action::Crash),
        1 => Just(Action::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r4_power_loss_keeps_a_prefix_with_all_that_was_durable(
        actions in proptest::collection::vec(action(), 1..60),
        last in any::<u64>(),
    ) {
        let mut disk = SimDisk::default();
        let (mut steps, _) = Steps::open(&disk);
        let mut starts = vec![steps.log.start_lsn()];
        let mut beside = None;
        for action in actions.into_iter().chain([Action::Crash(last)]) {
            match action {
                Action::Push(len) => drop(steps.push(len)),
                Action::Write => steps.write().unwrap(),
                Action::Flush => steps.writer.flush().unwrap(),
                Action::Begin => beside = Some(steps.writer.flush_from_here()),
                Action::End => {
                    if let Some(flush) = beside.take() {
                        flush.run(&steps.log.shared).unwrap();
                    }
                }
                Action::Truncate(at) => {
                    let segments = steps.log.segments();
                    let end = segments[at as usize % segments.len()].end.min(steps.log.durable_lsn());
                    steps.log.truncate_below(end).unwrap();
                }
                Action::Crash(seed) => {
                    let crashed = disk.crash(picker(seed));
                    let found = check_survivors(&steps, steps.log.durable_lsn(), &crashed);
                    prop_assert!(found.tail != Tail::Closed);
                    beside = None;
                    let used = steps.buffer.end();
                    // Recovery may lose power as well.
                    let again = crashed.crash(picker(seed.rotate_left(9)));
                    check_survivors(&steps, steps.log.durable_lsn(), &again);
                    disk = again;
                    steps = Steps::open(&disk).0;
                    prop_assert!(steps.log.start_lsn() > used, "positions are never used again");
                    starts.push(steps.log.start_lsn());
                }
                Action::Close => {
                    beside = None;
                    steps.write().unwrap();
                    steps.writer.close().unwrap();
                    let crashed = disk.crash(picker(last));
                    prop_assert_eq!(
                        check_survivors(&steps, steps.buffer.end(), &crashed).tail,
                        Tail::Closed
                    );
                    disk = crashed;
                    steps = Steps::open(&disk).0;
                }
            }
        }
        prop_assert!(starts.is_sorted());
    }
}

/// A log whose last segment holds a few small batches, and its file's name.
fn small_log() -> (SimDisk, Steps, String) {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    for len in [3000, 3000, 30, 8, 77, 41] {
        steps.push(len);
        steps.push(12);
        steps.write_and_flush();
    }
    let name = steps.log.segments().last().unwrap().file_name();
    (disk, steps, name)
}

#[test]
fn r4_cut_at_every_byte_of_the_last_segment() {
    let (disk, steps, name) = small_log();
    let bytes = disk.bytes(&name);
    let info = steps.log.segments().pop().unwrap();
    for cut in info.header_len..info.offset(info.end) as usize + 3 {
        for zeros in [false, true] {
            let cut_disk = disk.settled();
            let mut kept = bytes[..cut].to_vec();
            if zeros {
                kept.resize(bytes.len(), 0);
            }
            cut_disk.put(&name, &kept);
            let at = Lsn(info.start.0 + (cut - info.header_len) as u64);
            let whole = steps.pushed.windows(2).rfind(|w| w[1].0 <= at);
            let must = whole.map_or(Lsn(0), |w| w[1].0);
            let found = check_survivors(&steps, must, &cut_disk);
            // Zeros that were cut off and zeros put in their place are the same.
            assert!(zeros || found.end <= at, "cut at {cut}");
            // What was cut off never comes back.
            let (_, again) = open_on(Arc::new(cut_disk), settings()).unwrap();
            assert_eq!((again.end, again.tail), (found.end, Tail::Clean));
        }
    }
}

#[test]
fn every_flipped_bit_in_the_files_is_noticed() {
    let (disk, steps, last) = small_log();
    let durable_heads: Vec<Lsn> = steps.log.segments().iter().map(|s| s.start).collect();
    for info in steps.log.segments() {
        let name = info.file_name();
        let good = disk.bytes(&name);
        let end = info.offset(info.end) as usize;
        for at in (0..good.len().min(end)).filter(|at| *at < 60 || *at > 4080) {
            let flipped = disk.settled();
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            flipped.put(&name, &bytes);
            let opened = open_on(Arc::new(flipped.clone()), settings());
            if at == 8 {
                assert!(matches!(opened, Err(LogError::Version { .. })));
                assert_eq!(flipped.bytes(&name), bytes, "nothing was touched");
                continue;
            }
            let (opened, recovery) = opened.unwrap();
            let found = records(&opened, recovery.oldest).unwrap();
            assert!(found.iter().zip(&steps.pushed).all(|(f, e)| f == e), "byte {at} of {name}");
            assert!(found.len() < steps.pushed.len(), "byte {at} of {name}: {recovery:?}");
            match recovery.tail {
                Tail::Damaged { .. } => {
                    assert!(!recovery.set_aside.is_empty());
                    let evidence = flipped.names().iter().any(|n| {
                        n.starts_with(&name) && n.ends_with(".damaged") && flipped.bytes(n) == bytes
                    });
                    assert!(evidence, "byte {at} of {name} is kept for inspection");
                }
                // Only in the last batch, where it cannot be told from a torn write.
                Tail::Torn { lsn, .. } => assert!(name == last && lsn.0 + 60 + 41 > info.end.0 - 100),
                other => panic!("byte {at} of {name}: {other:?}"),
            }
            assert!(durable_heads.iter().all(|s| opened.start_lsn() > *s), "positions are not reused");
        }
    }
}

#[test]
fn a_missing_segment_is_noticed_and_what_follows_is_kept_aside() {
    for verify in [Verify::Tail, Verify::All] {
        let disk = SimDisk::default();
        let (mut steps, _) = Steps::open(&disk);
        for _ in 0..12 {
            steps.push(3000);
            steps.write_and_flush();
        }
        let segments = steps.log.segments();
        disk.remove(&segments[2].file_name()).unwrap();
        let (opened, recovery) = open_on(Arc::new(disk.clone()), Settings { verify, ..settings() }).unwrap();
        assert_eq!(recovery.tail, Tail::Missing { lsn: segments[1].end });
        assert_eq!(recovery.set_aside.len(), segments.len() - 3);
        assert_eq!(opened.segments().len(), 2);
        assert!(opened.start_lsn() > steps.buffer.end());
        let (_, again) = open_on(Arc::new(disk), settings()).unwrap();
        assert_eq!(again.set_aside.len(), segments.len() - 3, "still reported");
    }
}

#[test]
fn damage_in_an_old_segment_shows_when_read() {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    for _ in 0..12 {
        steps.push(3000);
        steps.write_and_flush();
    }
    let old = steps.log.segments()[1].clone();
    let mut bytes = disk.bytes(&old.file_name());
    bytes[old.header_len + 100] ^= 4;
    disk.put(&old.file_name(), &bytes);
    let quick = Settings { verify: Verify::Tail, ..settings() };
    let (opened, recovery) = open_on(Arc::new(disk.clone()), quick).unwrap();
    assert_eq!(recovery.tail, Tail::Clean);
    assert!(matches!(records(&opened, Lsn(0)), Err(LogError::Damaged { .. })));
    let (_, recovery) = open_on(Arc::new(disk), settings()).unwrap();
    assert!(matches!(recovery.tail, Tail::Damaged { .. }));
}

#[test]
fn a_lost_write_before_a_kept_one_is_torn_not_damaged() {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    steps.push(50);
    steps.write_and_flush();
    for _ in 0..3 {
        steps.push(50);
        steps.write().unwrap();
    }
    let mut n = 0;
    let crashed = disk.crash(|choices| {
        n += 1;
        // The first of the writes that were not flushed is lost, the others are kept.
        if n == 1 { 0 } else { choices - 1 }
    });
    let found = check_survivors(&steps, steps.log.durable_lsn(), &crashed);
    assert!(matches!(found.tail, Tail::Torn { lsn, .. } if lsn == steps.log.durable_lsn()));
}

#[test]
fn q4_full_disk_acknowledges_nothing_and_goes_on_when_space_returns() {
    for space in (0..9000).step_by(97) {
        let disk = SimDisk::default();
        let (mut steps, _) = Steps::open(&disk);
        disk.set_space(Some(space));
        let full = loop {
            steps.push(900);
            match steps.write() {
                Ok(()) => steps.writer.flush().unwrap(),
                Err(fault) => break fault,
            }
        };
        assert!(matches!(full, writer::Fault::Full));
        let (durable, written) = (steps.log.durable_lsn(), steps.log.written_lsn());
        assert!(steps.pushed.last().unwrap().0 >= written, "the last record is not reported");
        check_survivors(&steps, durable, &disk.crash(picker(space)));
        assert!(matches!(steps.write(), Err(writer::Fault::Full)), "tried again, still full");
        disk.set_space(None);
        steps.write_and_flush();
        check_survivors(&steps, steps.buffer.end(), &disk.crash(picker(space)));
    }
}

#[test]
fn q4_a_log_goes_on_and_starts_with_less_room_than_a_segment() {
    let roomy = Settings { segment_bytes: 1 << 20, ..settings() };
    let disk = SimDisk::default();
    let (opened, _) = open_on(Arc::new(disk.clone()), roomy.clone()).unwrap();
    let (log, writer) = opened.start(0u64).unwrap();
    let buffer = log.buffer();
    let mut steps = Steps { log, writer, buffer, batch: Batch::default(), next: 0, pushed: Vec::new() };
    // The next segment is allocated when this one is half full: there is room for a small one only.
    disk.set_space(Some(500 << 10));
    while steps.log.segments().len() < 2 {
        steps.push(60_000);
        // A disk in memory takes space for what is written, though it was allocated.
        disk.set_space(Some(500 << 10));
        steps.write_and_flush();
    }
    let small = steps.log.segments().pop().unwrap();
    assert!(small.bytes < 500 << 10, "{small:?}");
    steps.push(1_000);
    steps.write_and_flush();
    check_survivors(&steps, steps.buffer.end(), &disk.crash(picker(5)));
    steps.writer.close().unwrap();
    let reopened = disk.settled();
    reopened.set_space(Some(100 << 10));
    let (opened, recovery) = open_on(Arc::new(reopened.clone()), roomy.clone()).unwrap();
    assert_eq!(recovery.tail, Tail::Closed);
    let (log, _writer) = opened.start(0u64).unwrap();
    assert!(log.segments().pop().unwrap().bytes < 100 << 10);
    reopened.set_space(Some(100));
    let (opened, _) = open_on(Arc::new(reopened), roomy).unwrap();
    assert!(opened.start(0u64).is_err(), "without any room there is no log");
}

#[test]
fn q4_a_failed_flush_is_never_tried_again() {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    steps.push(50);
    steps.write_and_flush();
    let durable = steps.log.durable();
    steps.push(50);
    steps.write().unwrap();
    disk.fail_next_flush();
    assert!(matches!(steps.writer.flush(), Err(writer::Fault::Fatal(LogError::Failed { .. }))));
    assert_eq!(steps.log.durable(), durable);
    check_survivors(&steps, durable.0, &disk.crash(picker(3)));
}
