//! The log with its thread.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::*;

/// What a sequencer does, as far as the log sees it.
#[derive(Clone)]
struct Sequencer(Arc<Mutex<(Buffer, u64)>>);

impl Source<u64> for Sequencer {
    fn take(&mut self, batch: &mut Batch) -> Option<u64> {
        let mut inner = self.0.lock();
        inner.0.take(batch);
        Some(inner.1)
    }
}

impl Sequencer {
    fn push(&self, log: &Log<u64>, len: usize) -> Lsn {
        let lsn = {
            let mut inner = self.0.lock();
            inner.1 += 1;
            let bytes = payload(inner.1 - 1, len);
            inner.0.push(&[&bytes]).unwrap()
        };
        log.wake();
        lsn
    }
}

fn start(disk: Arc<dyn Disk>, settings: Settings) -> (Log<u64>, Sequencer, WriterThread<u64>) {
    let (opened, _) = open_on(disk, settings).unwrap();
    let (log, writer) = opened.start(0).unwrap();
    let sequencer = Sequencer(Arc::new(Mutex::new((log.buffer(), 0))));
    let thread = writer.spawn(sequencer.clone()).unwrap();
    (log, sequencer, thread)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn read_numbers(reader: &mut TailReader<u64>, count: usize, upto: Upto) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        let chunk = soon(reader.next(upto)).await.unwrap();
        found.extend(chunk.records().map(|(_, p)| number(p)));
    }
    found
}

#[test]
fn many_writers_wait_for_their_own_records_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    for sync in [Sync::Always, Sync::EverySecond, Sync::Never] {
        let dir = dir.path().join(format!("{sync:?}"));
        let disk = Arc::new(RealDisk::open(&dir).unwrap());
        let (log, sequencer, thread) = start(disk, Settings { sync, ..settings() });
        runtime().block_on(async {
            let tasks: Vec<_> = (0..20)
                .map(|task| {
                    let (log, sequencer) = (log.clone(), sequencer.clone());
                    tokio::spawn(async move {
                        for i in 0..50 {
                            let lsn = sequencer.push(&log, 10 + task * i);
                            match sync {
                                Sync::Always => log.wait_durable(lsn).await.unwrap(),
                                _ => log.wait_written(lsn).await.unwrap(),
                            }
                            assert!(log.written_lsn() > lsn);
                        }
                    })
                })
                .collect();
            for task in tasks {
                soon(task).await.unwrap();
            }
            soon(log.sync_now()).await.unwrap();
            assert_eq!(log.durable(), log.written());
            assert_eq!(log.durable().1, 1000);
            let mut reader = log.read_from(log.start_lsn());
            let found = read_numbers(&mut reader, 1000, Upto::Durable).await;
            assert!(found.into_iter().eq(0..1000));
        });
        assert!(log.flushes() > 0 && log.bytes_written() > 0);
        thread.shutdown().unwrap();
        assert_eq!(log.health(), LogHealth::Closed);
        drop((log, sequencer));
        let (opened, recovery) = open(&dir, settings()).unwrap();
        assert_eq!(recovery.tail, Tail::Closed);
        assert_eq!(records(&opened, Lsn(0)).unwrap().len(), 1000);
    }
}

#[test]
fn a_reader_behind_the_cache_reads_files_then_memory_then_waits() {
    let disk = Arc::new(SimDisk::default());
    let (log, sequencer, _thread) = start(disk, settings());
    runtime().block_on(async {
        let mut lsn = Lsn(0);
        for _ in 0..200 {
            lsn = sequencer.push(&log, 300);
            soon(log.wait_durable(lsn)).await.unwrap();
        }
        for upto in [Upto::Durable, Upto::Written] {
            let mut reader = log.read_from(Lsn(0));
            assert!(read_numbers(&mut reader, 200, upto).await.into_iter().eq(0..200));
            assert_eq!(reader.position(), log.durable_lsn());
        }
        let mut reader = log.read_from(lsn);
        assert_eq!(read_numbers(&mut reader, 1, Upto::Durable).await, [199]);
        let waiting = tokio::spawn(async move { read_numbers(&mut reader, 1, Upto::Durable).await });
        sequencer.push(&log, 20);
        assert_eq!(soon(waiting).await.unwrap(), [200]);
        for wrong in [lsn.0 + 1, log.start_lsn().0 + 3] {
            let error = soon(log.read_from(Lsn(wrong)).next(Upto::Written)).await.unwrap_err();
            assert!(matches!(error, LogError::NotARecord { .. } | LogError::Damaged { .. }));
        }
    });
}

#[test]
fn a_reader_goes_on_over_a_restart_and_learns_of_truncation() {
    let disk = SimDisk::default();
    let (log, sequencer, thread) = start(Arc::new(disk.clone()), settings());
    for _ in 0..30 {
        sequencer.push(&log, 900);
    }
    log.sync_now_blocking().unwrap();
    let first_end = log.durable_lsn();
    thread.shutdown().unwrap();
    let (log, sequencer, _thread) = start(Arc::new(disk), settings());
    sequencer.push(&log, 10);
    log.sync_now_blocking().unwrap();
    runtime().block_on(async {
        let mut reader = log.read_from(Lsn(0));
        let found = read_numbers(&mut reader, 31, Upto::Durable).await;
        assert!(found.into_iter().eq((0..30).chain([0])));
        let mut reader = log.read_from(first_end);
        assert_eq!(read_numbers(&mut reader, 1, Upto::Durable).await, [0]);
        let mut behind = log.read_from(Lsn(0));
        log.truncate_below(first_end).unwrap();
        let oldest = log.segments()[0].start;
        let error = soon(behind.next(Upto::Durable)).await.unwrap_err();
        assert!(matches!(error, LogError::Truncated { oldest: o } if o == oldest));
    });
}

#[test]
fn waiters_hear_of_the_end() {
    let (log, sequencer, thread) = start(Arc::new(SimDisk::default()), settings());
    runtime().block_on(async {
        let lsn = sequencer.push(&log, 10);
        soon(log.wait_durable(lsn)).await.unwrap();
        let waiting = {
            let log = log.clone();
            tokio::spawn(async move { log.wait_durable(Lsn(u64::MAX)).await })
        };
        drop(thread);
        assert!(matches!(soon(waiting).await.unwrap(), Err(LogError::Closed)));
        soon(log.wait_durable(lsn)).await.expect("what was durable stays so");
        assert!(matches!(soon(log.sync_now()).await, Err(LogError::Closed)));
        let mut reader = log.read_from(log.durable_lsn());
        assert!(matches!(soon(reader.next(Upto::Durable)).await, Err(LogError::Closed)));
    });
}

#[test]
fn waiters_hear_of_a_panicking_source() {
    let (opened, _) = open_on(Arc::new(SimDisk::default()), settings()).unwrap();
    let (log, writer) = opened.start(0u64).unwrap();
    let thread = writer.spawn(|_: &mut Batch| -> Option<u64> { panic!("source") }).unwrap();
    runtime().block_on(async {
        assert!(matches!(soon(log.wait_durable(Lsn(u64::MAX))).await, Err(LogError::Closed)));
    });
    drop(thread);
}

#[test]
fn q4_fsync_error_ends_trust_until_reopened() {
    let disk = SimDisk::default();
    let (log, sequencer, thread) = start(Arc::new(disk.clone()), settings());
    runtime().block_on(async {
        let first = sequencer.push(&log, 10);
        soon(log.wait_durable(first)).await.unwrap();
        disk.fail_next_flush();
        let second = sequencer.push(&log, 10);
        assert!(matches!(soon(log.wait_durable(second)).await, Err(LogError::Failed { .. })));
        assert_eq!(log.health(), LogHealth::Failed);
        let flushes = disk.flushes();
        let third = sequencer.push(&log, 10);
        assert!(matches!(soon(log.wait_durable(third)).await, Err(LogError::Failed { .. })));
        assert_eq!(disk.flushes(), flushes, "not tried again");
        soon(log.wait_durable(first)).await.unwrap();
    });
    assert!(matches!(thread.shutdown(), Err(LogError::Failed { .. })));
    let (log, _, _thread) = start(Arc::new(disk.crash(|_| 0)), settings());
    assert_eq!(log.health(), LogHealth::Ok);
}

#[test]
fn q4_disk_full_is_told_apart_and_mended_without_restart() {
    let disk = SimDisk::default();
    let (log, sequencer, thread) = start(Arc::new(disk.clone()), settings());
    runtime().block_on(async {
        disk.set_space(Some(100));
        let lsn = sequencer.push(&log, 500);
        soon(async {
            while log.health() != LogHealth::Full {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(log.durable_lsn() <= lsn);
        disk.set_space(None);
        soon(log.wait_durable(lsn)).await.unwrap();
        soon(log.sync_now()).await.unwrap();
        assert_eq!(log.health(), LogHealth::Ok);
    });
    disk.set_space(Some(0));
    sequencer.push(&log, 500);
    assert!(matches!(thread.shutdown(), Err(LogError::Full)));
}

#[test]
fn every_second_flushes_without_being_asked() {
    let flushed = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&flushed);
    let on_flush: FlushHook = Arc::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let settings = Settings { sync: Sync::EverySecond, on_flush: Some(on_flush), ..settings() };
    let (log, sequencer, _thread) = start(Arc::new(SimDisk::default()), settings);
    runtime().block_on(async {
        let lsn = sequencer.push(&log, 10);
        soon(log.wait_durable(lsn)).await.unwrap();
    });
    assert_eq!(flushed.load(Ordering::Relaxed), 1);
    assert_eq!(log.flushes(), 1);
}

/// More than what fits a segment of [`ROOMY`] behind the first record.
const BEYOND: usize = 65_000;

/// Segments so large that the next one is not allocated, and its allocation flushed, too soon.
const ROOMY: u64 = 64 << 10;

/// A log whose flush of its first record is held.
fn held_in_flush(disk: &SimDisk, sync: Sync) -> (Log<u64>, Sequencer, WriterThread<u64>, Lsn) {
    let settings = Settings { sync, segment_bytes: ROOMY, ..settings() };
    let (log, sequencer, thread) = start(Arc::new(disk.clone()), settings);
    disk.hold_flushes(true);
    let first = sequencer.push(&log, 10);
    let asking = log.clone();
    std::thread::spawn(move || asking.sync_now_blocking());
    disk.wait_for_held_flush();
    (log, sequencer, thread, first)
}

#[test]
fn a_slow_flush_holds_up_no_write() {
    for sync in [Sync::EverySecond, Sync::Never] {
        let disk = SimDisk::default();
        let (log, sequencer, thread, first) = held_in_flush(&disk, sync);
        runtime().block_on(async {
            let mut last = first;
            for _ in 0..20 {
                last = sequencer.push(&log, 100);
                soon(log.wait_written(last)).await.unwrap();
            }
            let mut reader = log.read_from(first);
            assert!(read_numbers(&mut reader, 21, Upto::Written).await.into_iter().eq(0..21));
            assert!(log.durable_lsn() <= first, "nothing is called durable before its flush ended");
            let all = tokio::spawn({
                let log = log.clone();
                async move { log.sync_now().await }
            });
            disk.hold_flushes(false);
            soon(log.wait_durable(first)).await.unwrap();
            soon(all).await.unwrap().unwrap();
            assert!(log.durable_lsn() > last, "who asked during a flush is answered by the next");
            assert_eq!(log.durable(), log.written());
        });
        thread.shutdown().unwrap();
    }
}

#[test]
fn a_flush_says_no_more_than_what_was_written_before_it() {
    let disk = SimDisk::default();
    let (log, sequencer, _thread, first) = held_in_flush(&disk, Sync::Never);
    runtime().block_on(async {
        let second = sequencer.push(&log, 100);
        soon(log.wait_written(second)).await.unwrap();
        disk.hold_flushes(false);
        soon(log.wait_durable(first)).await.unwrap();
        let (durable, mark) = log.durable();
        assert!(durable <= second);
        assert_eq!(mark, 1);
    });
}

#[test]
fn a_segment_ends_after_the_flush_that_runs() {
    let disk = SimDisk::default();
    let (log, sequencer, thread, _) = held_in_flush(&disk, Sync::EverySecond);
    runtime().block_on(async {
        let beyond = sequencer.push(&log, BEYOND);
        let waiting = {
            let log = log.clone();
            tokio::spawn(async move { log.wait_written(beyond).await })
        };
        disk.hold_flushes(false);
        soon(waiting).await.unwrap().unwrap();
        soon(log.sync_now()).await.unwrap();
        assert_eq!(log.segments().len(), 2);
        assert_eq!(log.durable(), log.written());
    });
    thread.shutdown().unwrap();
}

#[test]
fn q4_a_failed_flush_beside_the_writer_ends_trust_too() {
    // With and without a segment that ends meanwhile: its own flush would succeed.
    for next in [100, BEYOND] {
        let disk = SimDisk::default();
        let (log, sequencer, thread, first) = held_in_flush(&disk, Sync::EverySecond);
        runtime().block_on(async {
            sequencer.push(&log, next);
            disk.fail_next_flush();
            disk.hold_flushes(false);
            assert!(matches!(soon(log.wait_durable(first)).await, Err(LogError::Failed { .. })));
            assert_eq!(log.health(), LogHealth::Failed);
            let flushes = disk.flushes();
            let third = sequencer.push(&log, 10);
            assert!(matches!(soon(log.wait_durable(third)).await, Err(LogError::Failed { .. })));
            assert!(matches!(soon(log.sync_now()).await, Err(LogError::Failed { .. })));
            assert_eq!(disk.flushes(), flushes, "not tried again");
            assert!(log.durable_lsn() <= first);
        });
        assert!(matches!(thread.shutdown(), Err(LogError::Failed { .. })));
        let (log, _, _thread) = start(Arc::new(disk.crash(|_| 0)), settings());
        assert_eq!(log.health(), LogHealth::Ok);
    }
}

#[test]
fn waiters_that_gave_up_are_forgotten() {
    let (log, _, _thread) = start(Arc::new(SimDisk::default()), settings());
    let progress = &log.shared.durable;
    runtime().block_on(async {
        for _ in 0..1000 {
            let gave_up = AtomicBool::new(false);
            tokio::select! {
                biased;
                _ = log.wait_durable(Lsn(u64::MAX)) => {}
                () = std::future::ready(()) => gave_up.store(true, Ordering::Relaxed),
            }
        }
    });
    assert!(progress.waiting() < 200);
}

#[test]
fn readers_at_any_pace_see_the_same() {
    let (log, sequencer, _thread) = start(
        Arc::new(SimDisk::default()),
        Settings { sync: Sync::Never, linger: Duration::ZERO, ..settings() },
    );
    let readers = 4;
    runtime().block_on(async {
        let mut tasks = BTreeMap::new();
        for reader in 0..readers {
            let mut tail = log.read_from(log.start_lsn());
            tasks.insert(
                reader,
                tokio::spawn(async move {
                    let mut found = Vec::new();
                    while found.len() < 3000 {
                        let chunk = tail.next(Upto::Written).await.unwrap();
                        found.extend(chunk.records().map(|(_, p)| number(p)));
                        for _ in 0..reader * 20 {
                            tokio::task::yield_now().await;
                        }
                    }
                    found
                }),
            );
        }
        for i in 0..3000 {
            sequencer.push(&log, 8 + i % 200);
            if i % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for (_, task) in tasks {
            assert!(soon(task).await.unwrap().into_iter().eq(0..3000));
        }
    });
}
