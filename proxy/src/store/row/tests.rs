#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

fn encode(row: RowKey<'_>) -> Vec<u8> {
    match row {
        RowKey::Head { db, key, .. } => head_key(db, key),
        RowKey::Element { db, key, facet, element, .. } => element_key(db, key, facet, element),
        RowKey::Due { at_ms, db, key } => due_key(at_ms, db, key),
        RowKey::Sums { db, key } => sums_key(db, key),
        RowKey::Meta { name } => meta_key(name),
    }
}

fn contains(range: &RowRange, key: &[u8]) -> bool {
    let above = match &range.0 {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    };
    let below = match &range.1 {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    };
    above && below
}

#[test]
fn the_layout_is_that_of_the_golden_file() {
    let long = vec![0xff; 300];
    let rows = [
        head_key(0, b""),
        head_key(0, b"user:1"),
        head_key(255, b"\0\xff"),
        head_key(15, &long),
        element_key(0, b"user:1", 0, b""),
        element_key(3, b"", 7, b"field"),
        element_key(255, &long, 255, &long),
        element_prefix(0, b"user:1"),
        facet_prefix(0, b"user:1", 2),
        meta_key(b""),
        meta_key(b"incarnation"),
        POSITION_KEY.to_vec(),
        seal(b""),
        seal(b"payload"),
        seal(&long),
        due_key(1_764_000_000_000, 0, b"user:1"),
        due_key(u64::MAX, 15, &long),
        sums_key(0, b"user:1"),
        sums_key(15, b""),
    ];
    let mut bytes = Vec::new();
    for row in rows {
        bytes.extend_from_slice(&u32::try_from(row.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&row);
    }
    let golden = include_bytes!("../../../tests/golden/row-keys-v1.bin");
    assert!(bytes == golden, "the layout of rows changed; it is now {}", hex(&bytes));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn keys_come_apart_as_they_were_built() {
    for (db, key, facet, element) in
        [(0, b"k".as_slice(), 0, b"".as_slice()), (255, b"", 255, b"\xff"), (7, &[0xff; 999], 1, &[0; 999])]
    {
        let hash = key_hash(key);
        let row = element_key(db, key, facet, element);
        assert_eq!(parse(&row), Ok(RowKey::Element { db, hash, key, facet, element }));
        assert!(row.starts_with(&facet_prefix(db, key, facet)));
        assert!(row.starts_with(&element_prefix(db, key)));
        assert_eq!(parse(&head_key(db, key)), Ok(RowKey::Head { db, hash, key }));
    }
    assert_eq!(parse(&meta_key(b"name")), Ok(RowKey::Meta { name: b"name" }));
    assert_eq!(parse(&due_key(7, 3, b"key")), Ok(RowKey::Due { at_ms: 7, db: 3, key: b"key" }));
    assert_eq!(parse(&sums_key(3, b"key")), Ok(RowKey::Sums { db: 3, key: b"key" }));
}

#[test]
fn deadlines_are_found_in_their_order_up_to_a_moment() {
    let range = due_between(5, 300);
    for (at_ms, inside) in [(4, false), (5, true), (255, true), (256, true), (300, true), (301, false)] {
        for key in [&b""[..], &[0xff; 99]] {
            assert_eq!(contains(&range, &due_key(at_ms, 15, key)), inside, "{at_ms}");
        }
    }
    assert!(contains(&due_between(0, u64::MAX), &due_key(u64::MAX, 255, &[0xff; 9])));
    assert!(!contains(&due_between(0, u64::MAX), &element_key(0, b"", 0, b"")));
    assert!(contains(&all_sums(), &sums_key(15, b"k")) && !contains(&all_sums(), &head_key(0, b"k")));
}

#[test]
fn what_no_builder_made_is_refused() {
    let head = head_key(1, b"key");
    for end in 0..10 {
        assert_eq!(parse(&head[..end]), Err(RowError::Truncated));
    }
    assert_eq!(parse(&head[..12]), Err(RowError::Hash));
    let element = element_key(1, b"key", 2, b"element");
    for end in 0..=element_prefix(1, b"key").len() {
        assert_eq!(parse(&element[..end]), Err(RowError::Truncated));
    }
    let mut wrong = element.clone();
    wrong[2] ^= 1;
    assert_eq!(parse(&wrong), Err(RowError::Hash));
    let mut long = element;
    long[10..14].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(parse(&long), Err(RowError::Truncated));
    assert_eq!(parse(POSITION_KEY), Err(RowError::Kind { kind: 0 }));
}

#[test]
fn a_prefix_has_the_elements_of_its_key_and_no_others() {
    let range = prefix_range(&element_prefix(0, b"ab"));
    assert!(contains(&range, &element_key(0, b"ab", 0, b"")));
    assert!(contains(&range, &element_key(0, b"ab", 255, &[0xff; 99])));
    for other in [
        element_key(0, b"a", 0, b"b"),
        element_key(0, b"abc", 0, b""),
        element_key(1, b"ab", 0, b""),
        head_key(0, b"ab"),
    ] {
        assert!(!contains(&range, &other));
    }
}

#[test]
fn a_prefix_of_the_highest_bytes_has_a_successor_or_no_end() {
    assert_eq!(prefix_range(b"a\xff\xff").1, Bound::Excluded(b"b".to_vec()));
    assert_eq!(prefix_range(b"ab").1, Bound::Excluded(b"ac".to_vec()));
    assert_eq!(prefix_range(b"\xff\xff").1, Bound::Unbounded);
    assert_eq!(prefix_range(b"").1, Bound::Unbounded);
}

#[test]
fn heads_resume_at_a_hash_within_their_database() {
    let keys: Vec<Vec<u8>> = (0..100).map(|n| format!("key{n}").into_bytes()).collect();
    let mut hashes: Vec<u64> = keys.iter().map(|key| key_hash(key)).collect();
    hashes.sort_unstable();
    let range = heads_from(4, hashes[50]);
    let left = keys.iter().filter(|key| contains(&range, &head_key(4, key))).count();
    assert_eq!(left, 50);
    assert!(keys.iter().all(|key| contains(&heads_from(4, 0), &head_key(4, key))));
    assert!(!keys.iter().any(|key| contains(&heads_from(4, 0), &head_key(5, key))));
    assert!(!keys.iter().any(|key| contains(&heads_from(255, 0), &element_key(255, key, 0, b""))));
    assert!(keys.iter().all(|key| contains(&heads_from(255, 0), &head_key(255, key))));
    let mut rows: Vec<Vec<u8>> = keys.iter().map(|key| head_key(4, key)).collect();
    rows.sort();
    let order: Vec<u64> = rows
        .iter()
        .map(|row| match parse(row) {
            Ok(RowKey::Head { hash, .. }) => hash,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, hashes);
}

#[test]
fn an_envelope_notices_every_flipped_bit_and_every_cut() {
    for payload in [b"".as_slice(), b"x", b"a longer payload"] {
        let sealed = seal(payload);
        assert_eq!(open(&sealed), Ok(payload));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&flipped), Err(RowError::Checksum));
        }
        for end in 0..sealed.len() {
            assert!(open(&sealed[..end]).is_err());
        }
    }
    let mut newer = vec![2, b'x'];
    newer.extend_from_slice(&crc32c::crc32c(&newer).to_be_bytes());
    assert_eq!(open(&newer), Err(RowError::Version { found: 2 }));
}

/// Fuzz target: whatever parses is what the builders make, and nothing panics.
#[test]
fn any_bytes_parse_to_what_encodes_to_them_or_not_at_all() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(row) = parse(bytes) {
            assert_eq!(encode(row), bytes);
        }
        if let Ok(payload) = open(bytes) {
            assert_eq!(seal(payload), bytes);
        }
        // Repaired, so that the decoder is reached behind the hash too.
        let (db, key) = bytes.split_first().map_or((0, bytes), |(&db, key)| (db, key));
        let (facet, element) = key.split_last().map_or((0, key), |(&facet, element)| (facet, element));
        for row in [head_key(db, key), element_key(db, key, facet, element), meta_key(bytes)] {
            assert_eq!(encode(parse(&row).unwrap()), row);
        }
        assert_eq!(open(&seal(bytes)), Ok(bytes));
        assert!(contains(&prefix_range(bytes), bytes));
    });
}

#[test]
fn clamped_ranges_hold_the_same_rows() {
    let bound = |kind: u8, key: &Vec<u8>| match kind % 3 {
        0 => Bound::Included(key.clone()),
        1 => Bound::Excluded(key.clone()),
        _ => Bound::Unbounded,
    };
    bolero::check!().with_type::<(u8, Vec<u8>, u8, Vec<u8>, Vec<u8>)>().for_each(|(a, from, b, to, key)| {
        for key in [key, from, to] {
            let range = (bound(*a, from), bound(*b, to));
            let expected = is_possible(key) && contains(&range, key);
            assert_eq!(is_possible(key) && clamp(range).is_some_and(|c| contains(&c, key)), expected);
        }
    });
}
