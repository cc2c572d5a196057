//! How rows are laid out: the order of their keys and the envelope of their values.
//!
//! | row | key bytes | value |
//! |---|---|---|
//! | object head | `o`, database u8, hash u64, key | what describes a key as a whole |
//! | element | `e`, database u8, hash u64, key length u32, key, facet u8, element | one element of a collection |
//! | due | `d`, deadline u64, database u8, key | that a key goes then, in Unix milliseconds; empty |
//! | sums | `s`, database u8, key | that a key holds sums that nothing shows |
//! | meta | `m`, name | the store user's own bookkeeping |
//! | position | `00`, `position` | reserved: written by the store itself, hidden from scans |
//!
//! Integers are big-endian, so that rows sort as their numbers do. The hash is xxh3-64 of the key: heads of
//! one database sort by (hash, key), which makes the hash a `SCAN` cursor that stays right while keys come
//! and go. The length before an element's key keeps the elements of `ab` out of the prefix of `a`.
//!
//! A value rests on disk as
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | envelope version, 1 |
//! | 1 | n | payload |
//! | n + 1 | 4 | CRC-32C of all before it, big-endian |

use std::ops::Bound;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

#[cfg(test)]
mod tests;

/// A range of row keys: lower and upper bound.
pub type RowRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The longest key that a row may have, in bytes. A limit of the engine, which stores the length in 16 bits.
pub const MAX_KEY_BYTES: usize = 65_535;

/// The longest payload that a row may have, in bytes: Redis's limit for a string, and room for metadata.
pub const MAX_PAYLOAD_BYTES: usize = (512 << 20) + (1 << 20);

/// Under this key the position rests. Sorts before all rows that a caller can write.
pub(super) const POSITION_KEY: &[u8] = b"\0position";

const HEAD: u8 = b'o';
const ELEMENT: u8 = b'e';
const DUE: u8 = b'd';
const SUMS: u8 = b's';
const META: u8 = b'm';
const ENVELOPE_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// A row key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKey<'a> {
    /// A key's head row.
    Head {
        /// Redis database.
        db: u8,
        /// xxh3-64 of `key`.
        hash: u64,
        /// The Redis key.
        key: &'a [u8],
    },
    /// One element of a key.
    Element {
        /// Redis database.
        db: u8,
        /// xxh3-64 of `key`.
        hash: u64,
        /// The Redis key.
        key: &'a [u8],
        /// Which facet of the key the element belongs to.
        facet: u8,
        /// The element's name within its facet.
        element: &'a [u8],
    },
    /// A key's deadline.
    Due {
        /// Unix milliseconds.
        at_ms: u64,
        /// Redis database.
        db: u8,
        /// The Redis key.
        key: &'a [u8],
    },
    /// A key that holds sums that nothing shows.
    Sums {
        /// Redis database.
        db: u8,
        /// The Redis key.
        key: &'a [u8],
    },
    /// A bookkeeping row.
    Meta {
        /// Its name.
        name: &'a [u8],
    },
}

/// Why bytes are no row key or no value. Nothing is changed by either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    /// The bytes end before the row does.
    #[error("a row ends early")]
    Truncated,
    /// No kind of row starts with this byte.
    #[error("no kind of row starts with {kind:#04x}")]
    Kind {
        /// The first byte.
        kind: u8,
    },
    /// The hash is not the key's: such a row would not be found by its key.
    #[error("a row's hash is not that of its key")]
    Hash,
    /// The value is not what was sealed.
    #[error("a row's checksum does not match")]
    Checksum,
    /// The value was sealed, intact, by a program this one does not know.
    #[error("a row's envelope has version {found}")]
    Version {
        /// The version byte.
        found: u8,
    },
}

/// The hash by which keys are ordered: xxh3-64.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The key of an object's head row.
#[must_use]
pub fn head_key(db: u8, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(10 + key.len());
    row.extend_from_slice(&[HEAD, db]);
    row.extend_from_slice(&key_hash(key).to_be_bytes());
    row.extend_from_slice(key);
    row
}

/// The key of an element's row.
#[must_use]
pub fn element_key(db: u8, key: &[u8], facet: u8, element: &[u8]) -> Vec<u8> {
    element_row(db, key, 1 + element.len(), |row| {
        row.push(facet);
        row.extend_from_slice(element);
    })
}

/// What the rows of all elements of a key start with, and no others.
#[must_use]
pub fn element_prefix(db: u8, key: &[u8]) -> Vec<u8> {
    element_row(db, key, 0, |_| {})
}

/// What the rows of all elements of one facet of a key start with, and no others.
#[must_use]
pub fn facet_prefix(db: u8, key: &[u8], facet: u8) -> Vec<u8> {
    element_key(db, key, facet, &[])
}

/// The key of the row that has a key found at its deadline.
#[must_use]
pub fn due_key(at_ms: u64, db: u8, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(10 + key.len());
    row.push(DUE);
    row.extend_from_slice(&at_ms.to_be_bytes());
    row.push(db);
    row.extend_from_slice(key);
    row
}

/// The deadlines from `from_ms` up to `to_ms`, both included, in their order.
#[must_use]
pub fn due_between(from_ms: u64, to_ms: u64) -> RowRange {
    let bound = |at_ms: u64| [&[DUE][..], &at_ms.to_be_bytes()].concat();
    let end = match to_ms.checked_add(1) {
        Some(after) => Bound::Excluded(bound(after)),
        None => prefix_range(&[DUE]).1,
    };
    (Bound::Included(bound(from_ms)), end)
}

/// The key of the row that says that a key holds sums that nothing shows.
#[must_use]
pub fn sums_key(db: u8, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(2 + key.len());
    row.extend_from_slice(&[SUMS, db]);
    row.extend_from_slice(key);
    row
}

/// All rows of [`sums_key`].
#[must_use]
pub fn all_sums() -> RowRange {
    prefix_range(&[SUMS])
}

/// The key of a bookkeeping row.
#[must_use]
pub fn meta_key(name: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + name.len());
    row.push(META);
    row.extend_from_slice(name);
    row
}

fn element_row(db: u8, key: &[u8], more: usize, rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut row = Vec::with_capacity(14 + key.len() + more);
    row.extend_from_slice(&[ELEMENT, db]);
    row.extend_from_slice(&key_hash(key).to_be_bytes());
    // A key too long for the field is far too long for a row: the batch refuses it, whatever stands here.
    row.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    row.extend_from_slice(key);
    rest(&mut row);
    row
}

/// All rows that start with `prefix`.
#[must_use]
pub fn prefix_range(prefix: &[u8]) -> RowRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// The heads of a database whose hash is `cursor` or above, in the order of (hash, key).
///
/// A scan that stops after a row resumes at that row's hash plus one once it has seen all keys of that hash,
/// else at the hash itself.
#[must_use]
pub fn heads_from(db: u8, cursor: u64) -> RowRange {
    let (_, end) = prefix_range(&[HEAD, db]);
    let mut start = vec![HEAD, db];
    start.extend_from_slice(&cursor.to_be_bytes());
    (Bound::Included(start), end)
}

/// The heads of a database whose hash is in an interval, `None` for no upper bound.
#[must_use]
pub fn heads_between(db: u8, from: u64, to: Option<u64>) -> RowRange {
    let (start, mut end) = heads_from(db, from);
    if let Some(to) = to {
        let mut bound = vec![HEAD, db];
        bound.extend_from_slice(&to.to_be_bytes());
        end = Bound::Excluded(bound);
    }
    (start, end)
}

/// Takes a row key apart.
///
/// # Errors
/// [`RowError`] for bytes that none of the builders here would have made.
pub fn parse(row: &[u8]) -> Result<RowKey<'_>, RowError> {
    let (&kind, rest) = row.split_first().ok_or(RowError::Truncated)?;
    if kind == META {
        return Ok(RowKey::Meta { name: rest });
    }
    if kind == DUE {
        let (at_ms, rest) = rest.split_first_chunk::<8>().ok_or(RowError::Truncated)?;
        let (&db, key) = rest.split_first().ok_or(RowError::Truncated)?;
        return Ok(RowKey::Due { at_ms: u64::from_be_bytes(*at_ms), db, key });
    }
    if kind == SUMS {
        let (&db, key) = rest.split_first().ok_or(RowError::Truncated)?;
        return Ok(RowKey::Sums { db, key });
    }
    if kind != HEAD && kind != ELEMENT {
        return Err(RowError::Kind { kind });
    }
    let (&db, rest) = rest.split_first().ok_or(RowError::Truncated)?;
    let (hash, rest) = rest.split_first_chunk::<8>().ok_or(RowError::Truncated)?;
    let hash = u64::from_be_bytes(*hash);
    if kind == HEAD {
        return if key_hash(rest) == hash {
            Ok(RowKey::Head { db, hash, key: rest })
        } else {
            Err(RowError::Hash)
        };
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(RowError::Truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| RowError::Truncated)?;
    let (key, rest) = rest.split_at_checked(length).ok_or(RowError::Truncated)?;
    let (&facet, element) = rest.split_first().ok_or(RowError::Truncated)?;
    if key_hash(key) == hash {
        Ok(RowKey::Element { db, hash, key, facet, element })
    } else {
        Err(RowError::Hash)
    }
}

/// Puts a payload into its envelope.
#[must_use]
pub fn seal(payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + payload.len() + CHECKSUM_BYTES);
    seal_into(&mut sealed, payload);
    sealed
}

/// Appends a payload in its envelope to `out`.
pub(super) fn seal_into(out: &mut Vec<u8>, payload: &[u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[ENVELOPE_VERSION]), payload);
    out.push(ENVELOPE_VERSION);
    out.extend_from_slice(payload);
    out.extend_from_slice(&checksum.to_be_bytes());
}

/// Takes a payload out of its envelope.
///
/// # Errors
/// [`RowError::Truncated`], [`RowError::Checksum`] or [`RowError::Version`].
pub fn open(sealed: &[u8]) -> Result<&[u8], RowError> {
    let (covered, checksum) = sealed.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RowError::Truncated)?;
    let (&version, payload) = covered.split_first().ok_or(RowError::Truncated)?;
    // The checksum first: an unknown version is only believed when it is what was written.
    if crc32c::crc32c(covered) != u32::from_be_bytes(*checksum) {
        return Err(RowError::Checksum);
    }
    if version != ENVELOPE_VERSION {
        return Err(RowError::Version { found: version });
    }
    Ok(payload)
}

/// True for a key that a caller's row can have.
pub(super) fn is_possible(key: &[u8]) -> bool {
    key.len() <= MAX_KEY_BYTES && key.first().is_some_and(|&first| first != 0)
}

/// The same range in bounds that an engine can take: no reserved rows, no bound longer than a key, not
/// inverted. `None` when no row can be in it.
pub(super) fn clamp(range: RowRange) -> Option<RowRange> {
    let from = match range.0 {
        // A longer bound lies just above the longest key that it starts with.
        Bound::Included(mut key) | Bound::Excluded(mut key) if key.len() > MAX_KEY_BYTES => {
            key.truncate(MAX_KEY_BYTES);
            Bound::Excluded(key)
        }
        bound => bound,
    };
    let from = match from {
        Bound::Included(key) if is_possible(&key) => Bound::Included(key),
        Bound::Excluded(key) if is_possible(&key) => Bound::Excluded(key),
        _ => Bound::Included(vec![1]),
    };
    let to = match range.1 {
        Bound::Included(mut key) | Bound::Excluded(mut key) if key.len() > MAX_KEY_BYTES => {
            key.truncate(MAX_KEY_BYTES);
            Bound::Included(key)
        }
        bound => bound,
    };
    let empty = match (&from, &to) {
        (_, Bound::Unbounded) | (Bound::Unbounded, _) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
    };
    (!empty).then_some((from, to))
}
