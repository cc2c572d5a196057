//! Taking dirty rows out to the store.
//!
//! A round begins with a position, then visits every object that was dirty at that moment: whatever
//! the position covers is in one of the batches. Rows may be younger than the position (they are
//! read as they are when their turn comes), so before a batch goes down the log must be durable up
//! to its end, and recovery replays from the position over what it finds.

use super::{DATABASES, Keyspace, shard_of};
use crate::store::{Batch, StoreError, row};

/// Rows of one batch, about: short enough that readers of the store hardly notice.
const BATCH_BYTES: usize = 1 << 20;

/// The name of the row with the count of keys shown, by database.
const COUNTS: &[u8] = b"counts";

/// One round of taking dirty objects out.
#[derive(Debug)]
pub struct Round {
    hashes: Vec<u64>,
    next: usize,
    /// Keys shown by the rows in the store, by database.
    counts: [i64; DATABASES],
    /// Objects with nothing left: they leave memory once their rows are gone.
    vacant: Vec<u64>,
}

impl Keyspace {
    /// The counts of keys shown that the store holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stored_counts(&self) -> Result<[i64; DATABASES], StoreError> {
        let key = row::meta_key(COUNTS);
        let Some(record) = self.store.get(&key)? else { return Ok([0; DATABASES]) };
        postcard::from_bytes(&record).map_err(|_| StoreError::Corrupt { key })
    }

    /// Sets the counts of keys shown to those of the store. For starting.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn restore_counts(&self) -> Result<(), StoreError> {
        for (count, stored) in self.shown.iter().zip(self.stored_counts()?) {
            count.store(stored, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Begins a round with everything that is dirty now. The position it will carry must have been
    /// taken before.
    pub fn begin_round(&self, counts: [i64; DATABASES]) -> Round {
        let mut hashes = Vec::new();
        for state in &self.shards {
            let mut state = state.lock();
            let taken = std::mem::take(&mut state.dirty);
            hashes.extend(&taken);
            state.leaving.extend(taken);
        }
        Round { hashes, next: 0, counts, vacant: Vec::new() }
    }

    /// Fills `batch` with the rows of some more objects. Returns `false` when none were left.
    pub fn fill_batch(&self, round: &mut Round, batch: &mut Batch) -> Result<bool, StoreError> {
        batch.clear();
        let mut value = Vec::new();
        while let Some(hash) = round.hashes.get(round.next).copied() {
            if batch.size_bytes() >= BATCH_BYTES {
                break;
            }
            round.next += 1;
            let mut locked = super::Locked::acquire(self, std::iter::once(shard_of(hash)));
            // Two keys may share a hash, and one key may stand in the list twice.
            while let Some(entry) = locked.dirty_entry(hash) {
                self.dirty.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                let (head, elements) = entry.take_dirty();
                let (database, vacant) = (entry.database(), entry.object().is_vacant());
                let shown = entry.object().facet().is_some();
                for (facet, element) in elements.iter().flat_map(|e| e.keys()) {
                    let key = row::element_key(database, entry.key(), *facet as u8, element);
                    value.clear();
                    if entry.object().encode_element(*facet, element, &mut value) {
                        batch.put(&key, &value)?;
                    } else {
                        batch.delete(&key)?;
                    }
                }
                if vacant {
                    if entry.is_stored() {
                        batch.delete(&row::head_key(database, entry.key()))?;
                    }
                    round.vacant.push(hash);
                } else if head || elements.is_some() {
                    value.clear();
                    entry.object().encode_head(&mut value);
                    batch.put(&row::head_key(database, entry.key()), &value)?;
                }
                if let Some(count) = round.counts.get_mut(usize::from(database)) {
                    *count += i64::from(shown) - i64::from(entry.is_stored_shown());
                }
                entry.set_stored(!vacant, shown);
            }
        }
        if !batch.is_empty() {
            let counts = postcard::to_stdvec(&round.counts).unwrap_or_default();
            batch.put(&row::meta_key(COUNTS), &counts)?;
        }
        Ok(!batch.is_empty())
    }

    /// Ends a round that is committed: objects leave memory of which it has removed the last rows.
    pub fn end_round(&self, round: &mut Round) {
        for state in &self.shards {
            state.lock().leaving = Vec::new();
        }
        for hash in round.vacant.drain(..) {
            let mut locked = super::Locked::acquire(self, std::iter::once(shard_of(hash)));
            locked.depart_vacant(hash);
        }
    }
}

impl Round {
    /// The counts that the store holds after this round.
    pub fn counts(&self) -> [i64; DATABASES] {
        self.counts
    }

    /// Objects of the round.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether nothing was dirty.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}
