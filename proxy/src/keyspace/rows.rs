//! All rows of the store in order, to give them to another region.
//!
//! Only the store is read: no key is locked, no object is brought into memory, however large it is.
//! The walk goes in steps; between two of them rows may change. So each row is of a time of its own,
//! none older than the last commit before the walk began.

use std::ops::{Bound, ControlFlow};

use meridian_topology::seed::{Cursor, RANGES, Record};

use super::DATABASES;
use super::load::object_has_elements;
use crate::store::row::{self, RowKey};
use crate::store::{Store, StoreError};

/// A walk over all rows, as records for a receiver.
#[derive(Debug)]
pub struct RowWalk {
    cursor: Cursor,
    /// The head row sent last in the cursor's range and database, and its hash.
    last: Option<(Vec<u8>, u64)>,
    /// The object of which not all elements have been sent.
    open: Option<Open>,
    keys: u64,
}

#[derive(Debug)]
struct Open {
    prefix: Vec<u8>,
    /// The element row sent last.
    last: Option<Vec<u8>>,
}

impl RowWalk {
    /// A walk that begins at `from`.
    pub fn new(from: Cursor) -> Self {
        Self { cursor: from, last: None, open: None, keys: 0 }
    }

    /// Keys sent so far.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Which range the walk is in.
    pub fn range(&self) -> u8 {
        self.cursor.range
    }

    /// Appends about `budget` bytes of records to `out`: one row too many at most. Returns `false` at
    /// the end. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fill(&mut self, store: &dyn Store, out: &mut Vec<u8>, budget: usize) -> Result<bool, StoreError> {
        let full = out.len().saturating_add(budget);
        loop {
            if out.len() >= full {
                return Ok(true);
            }
            if let Some(open) = &mut self.open {
                if open.fill(store, out, full)? {
                    return Ok(true);
                }
                self.open = None;
            } else if self.cursor.range >= RANGES {
                return Ok(false);
            } else if self.fill_heads(store, out, full)? {
                return Ok(true);
            }
        }
    }

    /// Heads up to the next collection, whose elements come first. Returns whether `out` is full.
    fn fill_heads(&mut self, store: &dyn Store, out: &mut Vec<u8>, full: usize) -> Result<bool, StoreError> {
        let interval = self.cursor.rest();
        let (mut start, end) = row::heads_between(interval.database, interval.from, interval.to);
        if let Some((last, _)) = &self.last {
            start = Bound::Excluded(last.clone());
        }
        let (mut stopped, mut failed) = (None, None);
        store.scan((start, end), usize::MAX, &mut |row_key, head| {
            let Ok(RowKey::Head { db, hash, key }) = row::parse(row_key) else {
                failed = Some(StoreError::Corrupt { key: row_key.to_vec() });
                return ControlFlow::Break(());
            };
            // Keys of one hash are never torn apart, for the cursor could not tell them.
            if out.len() >= full && self.last.as_ref().is_none_or(|(_, last)| *last != hash) {
                self.cursor.hash = hash;
                stopped = Some(true);
                return ControlFlow::Break(());
            }
            put(out, &Record::Object { database: db, key, head });
            self.keys += 1;
            self.last = Some((row_key.to_vec(), hash));
            if object_has_elements(head) {
                self.open = Some(Open { prefix: row::element_prefix(db, key), last: None });
                stopped = Some(false);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        match (failed, stopped) {
            (Some(error), _) => return Err(error),
            (None, Some(false)) => return Ok(false),
            (None, Some(true)) => {}
            (None, None) => {
                let Cursor { range, database, .. } = self.cursor;
                self.cursor = Cursor::at(range, database + 1, DATABASES as u8);
            }
        }
        self.last = None;
        put(out, &Record::Passed { cursor: self.cursor });
        Ok(stopped == Some(true))
    }
}

impl Open {
    /// Elements. Returns whether `out` is full.
    fn fill(&mut self, store: &dyn Store, out: &mut Vec<u8>, full: usize) -> Result<bool, StoreError> {
        let (mut start, end) = row::prefix_range(&self.prefix);
        if let Some(last) = self.last.take() {
            start = Bound::Excluded(last);
        }
        let (mut last, mut failed) = (None, None);
        store.scan((start, end), usize::MAX, &mut |row_key, record| {
            let Ok(RowKey::Element { facet, element, .. }) = row::parse(row_key) else {
                failed = Some(StoreError::Corrupt { key: row_key.to_vec() });
                return ControlFlow::Break(());
            };
            put(out, &Record::Element { facet, element, record });
            if out.len() >= full {
                last = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        self.last = last;
        match failed {
            Some(error) => Err(error),
            None => Ok(self.last.is_some()),
        }
    }
}

fn put(out: &mut Vec<u8>, record: &Record<'_>) {
    // No row of the store is as long as what cannot be encoded.
    let _ = record.encode(out);
}
