#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod crash;
mod format;
mod running;

use std::{sync::Arc, time::Duration};

use super::*;

/// The mark of these tests: how many records lie below.
impl Mark for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }
}

fn settings() -> Settings {
    Settings {
        segment_bytes: 8 << 10,
        max_record: 64 << 10,
        tail_cache: 4 << 10,
        verify: Verify::All,
        full_retry: Duration::from_millis(1),
        ..Settings::default()
    }
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len.max(8), number as u8 | 1);
    bytes
}

fn number(payload: &[u8]) -> u64 {
    let number = u64::from_le_bytes(*payload.first_chunk().unwrap());
    assert!(payload[8..].iter().all(|b| *b == number as u8 | 1), "payload of {number} is intact");
    number
}

fn records(opened: &Opened, from: Lsn) -> Result<Vec<(Lsn, u64)>, LogError> {
    let mut found = Vec::new();
    let mut replay = opened.replay(from);
    while let Some(chunk) = replay.next_chunk()? {
        found.extend(chunk.records().map(|(lsn, p)| (lsn, number(p))));
    }
    Ok(found)
}

/// A log driven step by step, without its thread.
struct Steps {
    log: Log<u64>,
    writer: LogWriter<u64>,
    buffer: Buffer,
    batch: Batch,
    next: u64,
    pushed: Vec<(Lsn, u64)>,
}

impl Steps {
    fn open(disk: &SimDisk) -> (Self, Recovery) {
        let (opened, recovery) = open_on(Arc::new(disk.clone()), settings()).unwrap();
        let pushed = records(&opened, recovery.oldest).unwrap();
        let next = pushed.last().map_or(0, |(_, n)| n + 1);
        let (log, writer) = opened.start(next).unwrap();
        let buffer = log.buffer();
        (Self { log, writer, buffer, batch: Batch::default(), next, pushed }, recovery)
    }

    fn push(&mut self, len: usize) -> Lsn {
        let lsn = self.buffer.push(&[&payload(self.next, len)]).unwrap();
        self.pushed.push((lsn, self.next));
        self.next += 1;
        lsn
    }

    fn write(&mut self) -> Result<(), writer::Fault> {
        if self.batch.bytes.is_empty() {
            self.buffer.take(&mut self.batch);
        }
        if !self.batch.bytes.is_empty() {
            self.writer.write(&mut self.batch, &self.next)?;
            self.batch.clear();
        }
        self.writer.prepare();
        Ok(())
    }

    fn write_and_flush(&mut self) {
        self.write().unwrap();
        self.writer.flush().unwrap();
    }
}

#[test]
fn lsn_is_known_at_push_and_found_again() {
    let disk = SimDisk::default();
    let (mut steps, recovery) = Steps::open(&disk);
    assert_eq!(recovery.tail, Tail::New);
    for len in [8, 9, 100, 5000, 20_000, 8] {
        steps.push(len);
        steps.push(len);
        steps.write_and_flush();
    }
    steps.writer.close().unwrap();
    let (opened, recovery) = open_on(Arc::new(disk), settings()).unwrap();
    assert_eq!(recovery.tail, Tail::Closed);
    assert_eq!(records(&opened, Lsn(0)).unwrap(), steps.pushed);
    assert!(opened.segments().len() > 2, "large batches have segments of their own");
    for (lsn, n) in steps.pushed {
        assert_eq!(records(&opened, lsn).unwrap()[0], (lsn, n), "replay can start at any record");
    }
    assert!(opened.start_lsn() > recovery.end, "the next run's positions are new");
}

#[test]
fn a_segment_mark_says_exactly_what_lies_below() {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    for _ in 0..50 {
        steps.push(700);
        steps.push(10);
        steps.write_and_flush();
    }
    let segments = steps.log.segments();
    assert!(segments.len() > 4);
    for segment in segments {
        let below = steps.pushed.iter().filter(|(lsn, _)| *lsn < segment.start).count() as u64;
        assert_eq!(segment.mark, below.encode());
    }
}

#[test]
fn record_sizes_are_limited() {
    let (mut steps, _) = Steps::open(&SimDisk::default());
    let end = steps.buffer.end();
    let too_long = vec![1; (64 << 10) + 1];
    assert!(matches!(steps.buffer.push(&[]), Err(LogError::RecordSize { len: 0, .. })));
    assert!(matches!(steps.buffer.push(&[&too_long]), Err(LogError::RecordSize { .. })));
    assert!(matches!(steps.buffer.push_with(|_| {}), Err(LogError::RecordSize { .. })));
    assert!(matches!(
        steps.buffer.push_with(|b| b.extend_from_slice(&too_long)),
        Err(LogError::RecordSize { .. })
    ));
    assert_eq!(steps.buffer.end(), end, "nothing was pushed");
    let a = steps.buffer.push(&[b"ab", b"", b"cdefghij"]).unwrap();
    let b = steps.buffer.push_with(|b| b.extend_from_slice(&[7; 10])).unwrap();
    assert_eq!(b.since(a), 18);
}

#[test]
fn truncation_removes_whole_old_segments_only() {
    let disk = SimDisk::default();
    let (mut steps, _) = Steps::open(&disk);
    for _ in 0..20 {
        steps.push(3000);
        steps.write_and_flush();
    }
    let before = steps.log.segments();
    let (keep, bytes) = (before[3].clone(), steps.log.total_bytes());
    assert_eq!(steps.log.truncate_below(Lsn(keep.end.0 - 1)).unwrap(), 3);
    assert_eq!(steps.log.segments()[0], keep);
    assert!(steps.log.total_bytes() < bytes);
    assert_eq!(steps.log.truncate_below(Lsn(u64::MAX)).unwrap(), before.len() - 4);
    assert_eq!(steps.log.segments().len(), 1, "the active segment stays");
    steps.push(10);
    steps.write_and_flush();
    let (opened, _) = open_on(Arc::new(disk), settings()).unwrap();
    let oldest = opened.segments()[0].start;
    assert!(matches!(records(&opened, Lsn(0)), Err(LogError::Truncated { oldest: o }) if o == oldest));
}

#[test]
fn r3_a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), settings()).unwrap();
    assert!(matches!(open(dir.path(), settings()), Err(LogError::Locked { .. })));
    drop(first);
    open(dir.path(), settings()).unwrap();
}

#[test]
fn settings_out_of_range_are_refused() {
    for bad in [
        Settings { segment_bytes: 4096, ..settings() },
        Settings { segment_bytes: 5 << 30, ..settings() },
        Settings { max_record: 0, ..settings() },
        Settings { max_record: 2 << 30, ..settings() },
    ] {
        let refused = open_on(Arc::new(SimDisk::default()), bad);
        assert!(matches!(refused, Err(LogError::Settings { .. })));
    }
}
