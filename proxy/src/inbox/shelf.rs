//! The records in the store, beside the objects' rows: bounded, oldest out first.
//!
//! | row (a bookkeeping row of this name) | value |
//! |---|---|
//! | `inbox/h` | head: version u8, oldest u64, next u64, bytes u64 |
//! | `inbox/r`, number u64 | a record ([`Record::encode`]) |
//! | `inbox/i`, id u128 | the number u64 of the record with this id |
//! | `inbox/k`, hash u64 of the key, inverted number u64 | nothing: finds a key's records, newest first |
//!
//! Integers are big-endian. Numbers rise by one with every record, so "newest first" is counting down. The head
//! changes in the same batch as the records, so it is never wrong about them.
//!
//! The store keeps one keyspace on purpose (see `store/fjall_store`), so these rows live in it. No other region
//! ever sees them: only rows of objects are donated.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::record::Record;
use crate::store::row::{key_hash, meta_key, prefix_range};
use crate::store::{Batch, Store, StoreError};

const HEAD_VERSION: u8 = 1;

/// What a record's rows take beside the record: three keys, two envelopes, a number.
const ROWS_BYTES: u64 = 96;

/// Records removed in one batch at most.
const REMOVE_MAX: usize = 512;

/// What there is, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The oldest record, unless there is none.
    pub oldest: u64,
    /// What the next record gets.
    pub next: u64,
    /// What all records take.
    pub bytes: u64,
}

impl Head {
    /// How many records there are, at most: damaged ones are among them.
    pub fn records(&self) -> u64 {
        self.next.saturating_sub(self.oldest)
    }

    fn encode(self) -> Vec<u8> {
        let mut out = vec![HEAD_VERSION];
        [self.oldest, self.next, self.bytes].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&HEAD_VERSION, rest) = bytes.split_first()? else { return None };
        let (oldest, rest) = rest.split_first_chunk::<8>()?;
        let (next, rest) = rest.split_first_chunk::<8>()?;
        let bytes = rest.try_into().ok()?;
        let [oldest, next, bytes] = [*oldest, *next, bytes].map(u64::from_be_bytes);
        (oldest <= next).then_some(Self { oldest, next, bytes })
    }
}

fn name(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut name = b"inbox/".to_vec();
    name.push(kind);
    parts.iter().for_each(|part| name.extend_from_slice(part));
    meta_key(&name)
}

fn head_row() -> Vec<u8> {
    name(b'h', &[])
}

fn record_row(number: u64) -> Vec<u8> {
    name(b'r', &[&number.to_be_bytes()])
}

fn id_row(id: u128) -> Vec<u8> {
    name(b'i', &[&id.to_be_bytes()])
}

fn key_row(key: &[u8], number: u64) -> Vec<u8> {
    name(b'k', &[&key_hash(key).to_be_bytes(), &(!number).to_be_bytes()])
}

/// What records take, as far as the bound is concerned.
fn size_of_record(encoded: usize) -> u64 {
    encoded as u64 + ROWS_BYTES
}

/// The records.
pub struct Shelf {
    store: Arc<dyn Store>,
    /// Held for a moment only, never while the store is asked.
    head: Mutex<Head>,
    /// Held by whoever changes the records.
    changing: Mutex<()>,
}

impl Shelf {
    /// The records that `store` has.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let head = match store.get(&head_row())? {
            Some(bytes) => Head::decode(&bytes).ok_or(StoreError::Corrupt { key: head_row() })?,
            None => Head::default(),
        };
        Ok(Self { store, head: Mutex::new(head), changing: Mutex::new(()) })
    }

    /// What there is.
    pub fn head(&self) -> Head {
        *self.head.lock()
    }

    /// Adds records, but for those whose id is there already. Returns how many were new.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was added.
    pub fn add(&self, records: &[Record]) -> Result<usize, StoreError> {
        let _turn = self.changing.lock();
        let head = self.head();
        let mut after = head;
        let mut batch = Batch::new();
        let mut ids = std::collections::HashSet::new();
        for record in records {
            if !ids.insert(record.id) || self.number_of_within(record.id, &head)?.is_some() {
                continue;
            }
            let encoded = record.encode();
            let number = after.next;
            batch.put(&record_row(number), &encoded)?;
            batch.put(&id_row(record.id), &number.to_be_bytes())?;
            batch.put(&key_row(&record.key, number), &[])?;
            after.next += 1;
            after.bytes += size_of_record(encoded.len());
        }
        if after != head {
            self.commit(batch, after)?;
        }
        Ok(usize::try_from(after.next - head.next).unwrap_or(usize::MAX))
    }

    /// Removes the oldest records, as many as one batch takes, while there are more than `max_bytes` or the
    /// oldest is of a time before `since_ms`. Returns whether that was not enough.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was removed.
    pub fn trim(&self, max_bytes: u64, since_ms: u64) -> Result<bool, StoreError> {
        let _turn = self.changing.lock();
        let head = self.head();
        let mut after = head;
        let mut batch = Batch::new();
        let mut removed = 0;
        while after.oldest < after.next && removed < REMOVE_MAX {
            let row = record_row(after.oldest);
            let encoded = match self.store.get(&row) {
                Err(StoreError::Corrupt { .. }) => None,
                got => got?,
            };
            if let Some(encoded) = encoded {
                let record = Record::decode(&encoded).ok();
                if after.bytes <= max_bytes && record.as_ref().is_none_or(|r| r.at_ms >= since_ms) {
                    break;
                }
                if let Some(record) = record {
                    batch.delete(&id_row(record.id))?;
                    batch.delete(&key_row(&record.key, after.oldest))?;
                }
                after.bytes = after.bytes.saturating_sub(size_of_record(encoded.len()));
            }
            batch.delete(&row)?;
            after.oldest += 1;
            removed += 1;
        }
        if after.oldest == after.next {
            // What damaged records were thought to take goes with the last one.
            after.bytes = 0;
        }
        if after != head {
            self.commit(batch, after)?;
        }
        Ok(removed == REMOVE_MAX)
    }

    /// Notes that the loser was written back.
    ///
    /// # Errors
    /// [`StoreError`]; it is not noted.
    pub fn mark_restored(&self, id: u128, at_ms: u64) -> Result<(), StoreError> {
        let _turn = self.changing.lock();
        let mut head = self.head();
        let Some(number) = self.number_of_within(id, &head)? else { return Ok(()) };
        let Some(mut record) = self.record(number)? else { return Ok(()) };
        let before = record.encode().len() as u64;
        record.restored_ms = Some(at_ms);
        let encoded = record.encode();
        head.bytes = (head.bytes + encoded.len() as u64).saturating_sub(before);
        let mut batch = Batch::new();
        batch.put(&record_row(number), &encoded)?;
        self.commit(batch, head)
    }

    /// Keeps all others from changing the records.
    #[cfg(test)]
    pub(super) fn hold(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Changes records and head together.
    fn commit(&self, mut batch: Batch, head: Head) -> Result<(), StoreError> {
        batch.put(&head_row(), &head.encode())?;
        self.store.commit(&batch)?;
        *self.head.lock() = head;
        Ok(())
    }

    /// The record of this number. `None` if there is none, or not one that can be read.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn record(&self, number: u64) -> Result<Option<Record>, StoreError> {
        match self.store.get(&record_row(number)) {
            Ok(Some(bytes)) => Ok(Record::decode(&bytes).ok()),
            Ok(None) => Ok(None),
            // One damaged record does not hide the others.
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of the record with this id.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn number_of(&self, id: u128) -> Result<Option<u64>, StoreError> {
        self.number_of_within(id, &self.head())
    }

    fn number_of_within(&self, id: u128, head: &Head) -> Result<Option<u64>, StoreError> {
        let Some(bytes) = self.store.get(&id_row(id))? else { return Ok(None) };
        let number = bytes.as_ref().try_into().ok().map(u64::from_be_bytes);
        Ok(number.filter(|number| (head.oldest..head.next).contains(number)))
    }

    /// Numbers below `before` of records about keys with the hash of `key`, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn numbers_of_key(&self, key: &[u8], before: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        let (_, end) = prefix_range(&name(b'k', &[&key_hash(key).to_be_bytes()]));
        let start = std::ops::Bound::Excluded(key_row(key, before));
        let mut numbers = Vec::new();
        self.store.scan((start, end), limit, &mut |row, _| {
            numbers.extend(row.last_chunk::<8>().map(|inverted| !u64::from_be_bytes(*inverted)));
            ControlFlow::Continue(())
        })?;
        Ok(numbers)
    }

    /// Makes what was added so far survive a power loss.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::super::record::tests::record;
    use super::*;
    use crate::store::MemoryStore;

    fn shelf() -> (Arc<MemoryStore>, Shelf) {
        let store = Arc::new(MemoryStore::new());
        let shelf = Shelf::open(Arc::clone(&store) as Arc<dyn Store>).unwrap();
        (store, shelf)
    }

    fn records(ids: std::ops::Range<u128>) -> Vec<Record> {
        ids.map(|id| record(id, if id % 2 == 0 { "even" } else { "odd" })).collect()
    }

    #[test]
    fn records_are_found_by_number_id_and_key() {
        let (store, shelf) = shelf();
        assert_eq!(shelf.add(&records(0..5)).unwrap(), 5);
        assert_eq!(shelf.add(&records(3..7)).unwrap(), 2, "an id is recorded once");
        assert_eq!(shelf.add(&[records(7..8), records(7..8)].concat()).unwrap(), 1);
        assert_eq!(shelf.head().records(), 8);
        assert_eq!(shelf.number_of(6).unwrap(), Some(6));
        assert_eq!(shelf.number_of(8).unwrap(), None);
        assert_eq!(shelf.numbers_of_key(b"even", u64::MAX, 9).unwrap(), [6, 4, 2, 0]);
        assert_eq!(shelf.numbers_of_key(b"odd", 5, 1).unwrap(), [3]);
        assert!(shelf.numbers_of_key(b"none", u64::MAX, 9).unwrap().is_empty());
        let again = Shelf::open(store).unwrap();
        assert_eq!(again.head(), shelf.head());
        assert_eq!(again.record(2).unwrap(), Some(record(2, "even")));
    }

    #[test]
    fn the_oldest_go_until_there_is_room() {
        let (store, shelf) = shelf();
        shelf.add(&records(0..2_000)).unwrap();
        let each = shelf.head().bytes / 2_000;
        while shelf.trim(each * 100, 0).unwrap() {}
        let head = shelf.head();
        assert!(head.bytes <= each * 100 && head.records().abs_diff(100) <= 2, "{head:?}");
        assert_eq!(shelf.number_of(0).unwrap(), None);
        assert_eq!(shelf.record(0).unwrap(), None);
        let of_both =
            [b"even".as_slice(), b"odd"].map(|key| shelf.numbers_of_key(key, u64::MAX, usize::MAX).unwrap());
        assert_eq!(of_both.concat().len() as u64, head.records());
        shelf.add(&records(0..1)).unwrap();
        assert_eq!(shelf.number_of(0).unwrap(), Some(2_000), "what has gone may come again");
        while shelf.trim(0, 0).unwrap() {}
        assert_eq!(shelf.head(), Head { oldest: 2_001, next: 2_001, bytes: 0 });
        let mut rows = 0;
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        store
            .scan(all, usize::MAX, &mut |_, _| {
                rows += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(rows, 1, "the head alone is left");
    }

    #[test]
    fn the_old_go_by_age() {
        let (_, shelf) = shelf();
        let aged = |id: u128, at_ms| Record { at_ms, ..record(id, "k") };
        shelf.add(&[aged(1, 10), aged(2, 20), aged(3, 30)]).unwrap();
        assert!(!shelf.trim(u64::MAX, 20).unwrap());
        assert_eq!(shelf.number_of(1).unwrap(), None);
        assert_eq!(shelf.number_of(2).unwrap(), Some(1));
    }

    #[test]
    fn a_restored_record_says_so_and_is_counted_right() {
        let (_, shelf) = shelf();
        shelf.add(&records(0..3)).unwrap();
        shelf.mark_restored(1, 1 << 40).unwrap();
        shelf.mark_restored(99, 1).unwrap();
        assert_eq!(shelf.record(1).unwrap().unwrap().restored_ms, Some(1 << 40));
        assert_eq!(shelf.record(0).unwrap().unwrap().restored_ms, None);
        shelf.trim(0, 0).unwrap();
        assert_eq!(shelf.head().bytes, 0);
    }

    #[test]
    fn a_record_that_cannot_be_read_hides_no_other() {
        let (store, shelf) = shelf();
        shelf.add(&records(0..3)).unwrap();
        let mut batch = Batch::new();
        batch.put(&record_row(1), b"\x09what a later version may write").unwrap();
        store.commit(&batch).unwrap();
        assert_eq!(shelf.record(1).unwrap(), None);
        assert!(shelf.record(2).unwrap().is_some());
        assert!(!shelf.trim(0, 0).unwrap());
        assert_eq!(shelf.head().records(), 0);
    }

    #[test]
    fn fuzz_head() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(head) = Head::decode(bytes) {
                assert_eq!(head.encode(), bytes);
            }
        });
    }
}
