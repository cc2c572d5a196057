//! Taking dirty rows out to the store.
//!
//! A round begins with a position, then visits every object that was dirty at that moment: whatever
//! the position covers is in one of the batches. Rows may be younger than the position (they are
//! read as they are when their turn comes), so before a batch goes down the log must be durable up
//! to its end, and recovery replays from the position over what it finds.

use meridian_conflict::clock::Hlc;

use super::entry::Entry;
use super::marks::Mark;
use super::recent::RECENT_KEYS;
use super::{DATABASES, KeyRef, Keyspace, shard_of};
use crate::store::{Batch, StoreError, row};

/// Rows of one batch, about: short enough that readers of the store hardly notice.
const BATCH_BYTES: usize = 1 << 20;

/// Elements taken under one lock.
const STEP_ELEMENTS: usize = 256;

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
    /// Objects of the present hash of which some elements have been taken, and some not.
    open: Vec<(u8, Box<[u8]>)>,
    /// One object of so many is noted as committed lately.
    sample_every: usize,
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
        let sample_every = hashes.len().div_ceil(RECENT_KEYS).max(1);
        Round { hashes, next: 0, counts, vacant: Vec::new(), open: Vec::new(), sample_every }
    }

    /// Fills `batch` with the rows of some more objects. Returns `false` when none were left.
    ///
    /// A large object goes in steps, with its lock let go in between: clients wait for a step at most.
    /// `clock` gives a reading that is above the stamps of all ops applied so far.
    ///
    /// # Errors
    /// [`StoreError`] for a row that cannot be.
    pub fn fill_batch(
        &self,
        round: &mut Round,
        batch: &mut Batch,
        clock: &dyn Fn() -> Hlc,
    ) -> Result<bool, StoreError> {
        batch.clear();
        let mut value = Vec::new();
        while let Some(hash) = round.hashes.get(round.next).copied() {
            if batch.size_bytes() >= BATCH_BYTES {
                break;
            }
            let mut locked = super::Locked::acquire(self, std::iter::once(shard_of(hash)));
            if let Some((database, key)) = round.open.last() {
                let entry = locked.entry_mut(&KeyRef::new(*database, key));
                if entry.map_or(Ok(true), |entry| take_elements(entry, &mut value, batch))? {
                    round.open.pop();
                }
            } else {
                // Two keys may share a hash. All begin under one lock, for one that is written all the time
                // would be found again and again.
                while let Some(entry) = locked.dirty_entry(hash) {
                    self.dirty.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                    if round.next.is_multiple_of(round.sample_every) {
                        self.recent.lock().note(entry.database(), entry.key());
                    }
                    round.take_head(entry, &mut value, batch, clock)?;
                    if !take_elements(entry, &mut value, batch)? {
                        round.open.push((entry.database(), entry.key().into()));
                    }
                }
            }
            if round.open.is_empty() {
                round.next += 1;
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
    /// Begins to take an object out: its head, and what it counts for.
    fn take_head(
        &mut self,
        entry: &mut Entry,
        value: &mut Vec<u8>,
        batch: &mut Batch,
        clock: &dyn Fn() -> Hlc,
    ) -> Result<(), StoreError> {
        take_reminders(entry, batch, clock)?;
        let head = entry.begin_taking();
        let (database, vacant) = (entry.database(), entry.object().is_vacant());
        let shown = entry.object().facet().is_some();
        if vacant {
            if entry.is_stored() {
                batch.delete(&row::head_key(database, entry.key()))?;
            }
            self.vacant.push(entry.hash());
        } else if head {
            value.clear();
            entry.object().encode_head(value);
            batch.put(&row::head_key(database, entry.key()), value)?;
        }
        if let Some(count) = self.counts.get_mut(usize::from(database)) {
            *count += i64::from(shown) - i64::from(entry.is_stored_shown());
        }
        entry.set_stored(!vacant, shown);
        Ok(())
    }

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

/// The rows by which the [reaper](super::reap) finds the object: under its deadline, and under its key with
/// a time after its last change, if it holds sums that nothing shows.
fn take_reminders(entry: &mut Entry, batch: &mut Batch, clock: &dyn Fn() -> Hlc) -> Result<(), StoreError> {
    let (due, before) = (entry.object().deadline_ms(), entry.stored_due());
    if due != before {
        if let Some(at_ms) = before {
            batch.delete(&row::due_key(at_ms, entry.database(), entry.key()))?;
        }
        if let Some(at_ms) = due {
            batch.put(&row::due_key(at_ms, entry.database(), entry.key()), &[])?;
        }
        entry.set_stored_due(due);
    }
    let sums = entry.only_remembers();
    if sums {
        batch.put(&row::sums_key(entry.database(), entry.key()), &clock().0.to_be_bytes())?;
    } else if entry.has_stored_sums() {
        batch.delete(&row::sums_key(entry.database(), entry.key()))?;
    }
    entry.set_stored_sums(sums);
    Ok(())
}

/// Takes some of the elements out that are to leave. Returns whether those were all.
fn take_elements(entry: &mut Entry, value: &mut Vec<u8>, batch: &mut Batch) -> Result<bool, StoreError> {
    for _ in 0..STEP_ELEMENTS {
        let Some(mark) = entry.next_mark() else { return Ok(true) };
        value.clear();
        let (facet, element, there) = match &mark {
            Mark::At(facet, at) => match entry.object().encode_element_at(*facet, *at, value) {
                Some(element) => (*facet, element, true),
                None => continue,
            },
            Mark::Removed(facet, element) => {
                let there = entry.object().encode_element(*facet, element, value);
                (*facet, &**element, there)
            }
        };
        let key = row::element_key(entry.database(), entry.key(), facet as u8, element);
        if there {
            batch.put(&key, value)?;
        } else {
            batch.delete(&key)?;
        }
    }
    Ok(false)
}
