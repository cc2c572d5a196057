//! The bytes on disk.

use proptest::prelude::*;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/oplog-v1.bin");

fn golden() -> (Lsn, Vec<u8>) {
    let start = Lsn(1 << 40);
    let mut bytes = segment::encode_header(start, Lsn(77), 1_700_000_000_123, b"applied vector").unwrap();
    let mut buffer = Buffer::new(start, 100);
    let mut batch = Batch::default();
    for (i, record) in [b"first".as_slice(), b"second", b"the third record"].into_iter().enumerate() {
        buffer.push(&[record]).unwrap();
        if i > 0 {
            buffer.take(&mut batch);
            frame::finish(&mut batch.bytes, batch.start, Lsn(start.0 + i as u64 - 1));
            bytes.extend_from_slice(&batch.bytes);
        }
    }
    bytes.extend_from_slice(&frame::Seal::Closed.encode(buffer.end()));
    (start, bytes)
}

/// The format is a promise: a file of version 1 is read by every later version. Never regenerate this file.
#[test]
fn golden_file_of_version_1() {
    let (start, bytes) = golden();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &bytes).unwrap();
    }
    let golden = std::fs::read(GOLDEN).unwrap();
    assert_eq!(golden, bytes, "what is written has changed");
    let disk = SimDisk::default();
    disk.put(&segment::file_name(start), &golden);
    let (opened, recovery) = open_on(Arc::new(disk), settings()).unwrap();
    assert_eq!(recovery.tail, Tail::Closed);
    let info = opened.segments().pop().unwrap();
    assert_eq!((info.start, info.previous_end, info.created_at_ms), (start, Lsn(77), 1_700_000_000_123));
    assert_eq!(&info.mark[..], b"applied vector");
    let mut replay = opened.replay(start);
    let chunk = replay.next_chunk().unwrap().unwrap();
    let found: Vec<_> = chunk.records().map(|(lsn, p)| (lsn.since(start), p)).collect();
    assert_eq!(found, [(16, b"first".as_slice()), (29, b"second"), (59, b"the third record")]);
    assert!(replay.next_chunk().unwrap().is_none());
}

#[test]
fn another_version_is_refused_by_name_and_untouched() {
    let (start, mut bytes) = golden();
    bytes[8] = 2;
    let disk = SimDisk::default();
    let name = segment::file_name(start);
    disk.put(&name, &bytes);
    let refused = open_on(Arc::new(disk.clone()), settings());
    assert!(matches!(refused, Err(LogError::Version { file, found: 2 }) if file == name));
    assert_eq!(disk.bytes(&name), bytes);
}

#[test]
fn large_marks_take_more_than_one_page_of_header() {
    for len in [0, 4096 - 48, 4096 - 47, 100_000, 1 << 20] {
        let mark = vec![5; len];
        let header = segment::encode_header(Lsn(9), Lsn(3), 1, &mark).unwrap();
        assert_eq!(header.len() % 4096, 0);
        let disk = SimDisk::default();
        disk.put("x", &header);
        let read = segment::read_header(&*disk.open("x").unwrap()).unwrap();
        assert!(matches!(read, segment::Header::Good(info) if info.mark == mark && info.start == Lsn(9)));
    }
    let refused = segment::encode_header(Lsn(9), Lsn(3), 1, &vec![0; (1 << 20) + 1]);
    assert!(matches!(refused, Err(LogError::MarkSize { .. })));
}

fn recover_anything(files: &[(u64, &[u8])], raw: bool) {
    let disk = SimDisk::default();
    for (start, bytes) in files {
        let start = Lsn(*start);
        let content = if raw {
            bytes.to_vec()
        } else {
            let mut content = segment::encode_header(start, Lsn(0), 1, b"m").unwrap();
            content.extend_from_slice(bytes);
            content
        };
        disk.put(&segment::file_name(start), &content);
    }
    let Ok((opened, recovery)) = open_on(Arc::new(disk.clone()), settings()) else { return };
    let read = |opened: &Opened| {
        let mut replay = opened.replay(recovery.oldest);
        let mut all = Vec::new();
        while let Some(chunk) = replay.next_chunk().expect("what recovery kept is readable") {
            all.extend(chunk.records().map(|(lsn, p)| (lsn, p.to_vec())));
        }
        all
    };
    let first = read(&opened);
    // Recovered once, it stays so.
    let (again, second) = open_on(Arc::new(disk), settings()).unwrap();
    assert_eq!((second.end, second.segments), (recovery.end, recovery.segments));
    assert_eq!(read(&again), first);
}

#[test]
fn fuzz_recovery_of_arbitrary_segment_files() {
    bolero::check!().with_type::<(bool, u64, Vec<u8>)>().for_each(|(raw, start, bytes)| {
        recover_anything(&[(*start, bytes)], *raw);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovery_of_mangled_logs_never_fails_badly(
        edits in proptest::collection::vec((0usize..9000, any::<u8>()), 0..6),
        cut in 0usize..9000,
        starts in proptest::collection::btree_set(any::<u64>(), 1..4),
    ) {
        let (golden_start, mut bytes) = golden();
        bytes.resize(8192, 0);
        for (at, byte) in edits {
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
        }
        bytes.truncate(cut);
        let files: Vec<_> = starts.into_iter().chain([golden_start.0]).map(|s| (s, bytes.as_slice())).collect();
        recover_anything(&files, true);
        recover_anything(&files, false);
    }
}

#[test]
fn a_frame_is_not_valid_at_another_position() {
    let mut buffer = Buffer::new(Lsn(500), 100);
    buffer.push(&[b"record"]).unwrap();
    let mut batch = Batch::default();
    buffer.take(&mut batch);
    frame::finish(&mut batch.bytes, batch.start, Lsn(0));
    assert_eq!(frame::walk(&batch.bytes, Lsn(500), 100), (batch.bytes.len(), frame::Stop::End));
    assert_eq!(frame::walk(&batch.bytes, Lsn(501), 100), (0, frame::Stop::Bad));
    let seal = frame::Seal::Rolled.encode(Lsn(500));
    assert_eq!(frame::walk(&seal, Lsn(501), 100), (0, frame::Stop::Bad));
}
