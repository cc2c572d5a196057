//! Finding what only remembers, and letting it go.
//!
//! The store has a row for each deadline, in their order, and one for each key that holds sums that
//! nothing shows, so what there is to reap is found without looking at anything else. They are written
//! with the object's own rows: while no commit is under way, the row of a clean object is up to date.

use std::ops::{Bound, ControlFlow};

use meridian_conflict::clock::{Hlc, Origin};
use meridian_conflict::edit::Editor;
use meridian_conflict::op::BodyBuilder;

use super::{KeyRef, Keyspace, Locked};
use crate::oplog::Lsn;
use crate::store::StoreError;
use crate::store::row::{self, RowKey, RowRange};

/// A row that has a key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// The row's key.
    pub row: Vec<u8>,
    /// The database.
    pub database: u8,
    /// The key.
    pub key: Box<[u8]>,
    /// The deadline, or a time after the key's last change.
    pub at: Hlc,
}

/// What became of a key that was looked at because of its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Sums went.
    Sums,
    /// It has to wait: it has just changed, or its sums are kept.
    Waits,
    /// Only a deadline is left of it, which an op has to clear.
    Deadline,
    /// There is nothing to remember, and the row is out of date.
    Stale,
}

impl Keyspace {
    /// Deadlines from `from_ms` up to `to_ms`, at most `limit`, those after the row `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn due(
        &self,
        (from_ms, to_ms): (u64, u64),
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Reminder>, StoreError> {
        self.reminders(row::due_between(from_ms, to_ms), after, limit, |key, _| match row::parse(key) {
            Ok(RowKey::Due { at_ms, db, key }) => Some((db, key, Hlc(at_ms.saturating_mul(1 << 16)))),
            _ => None,
        })
    }

    /// Keys with sums that nothing shows, at most `limit`, those after the row `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn with_sums(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Reminder>, StoreError> {
        self.reminders(row::all_sums(), after, limit, |key, value| match row::parse(key) {
            Ok(RowKey::Sums { db, key }) => {
                Some((db, key, Hlc(u64::from_be_bytes(<[u8; 8]>::try_from(value).ok()?))))
            }
            _ => None,
        })
    }

    fn reminders(
        &self,
        (start, end): RowRange,
        after: Option<&[u8]>,
        limit: usize,
        read: impl for<'a> Fn(&'a [u8], &[u8]) -> Option<(u8, &'a [u8], Hlc)>,
    ) -> Result<Vec<Reminder>, StoreError> {
        let start = after.map_or(start, |after| Bound::Excluded(after.to_vec()));
        let (mut found, mut failed) = (Vec::new(), None);
        self.store().scan((start, end), limit, &mut |key, value| match read(key, value) {
            Some((database, name, at)) => {
                found.push(Reminder { row: key.to_vec(), database, key: name.into(), at });
                ControlFlow::Continue(())
            }
            None => {
                failed = Some(StoreError::Corrupt { key: key.to_vec() });
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(found), Err)
    }

    /// Drops the sums of a key, found at `reminder`, that nothing shows, but for those of origins that are
    /// `kept`, and what lost under `lww` if no op before the position `settle` comes again, neither from a region
    /// that is not waited for nor in a replay. Every op on the key up to `reminder.at` has to be settled. Only while no commit is under way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn reclaim(
        &self,
        reminder: &Reminder,
        kept: impl Fn(Origin) -> bool,
        settle: Option<Lsn>,
        durable: u64,
    ) -> Result<Reclaimed, StoreError> {
        let key = KeyRef::new(reminder.database, &reminder.key);
        let mut locked = self.lock_loaded(&[key], durable)?;
        let Some(entry) = locked.entry(&key) else { return Ok(Reclaimed::Stale) };
        if entry.is_dirty() {
            return Ok(Reclaimed::Waits);
        }
        let object = entry.object();
        let idle = object.facet().is_none() && object.expiry().is_some();
        let remembers = object.remembers() || !object.marks().is_empty();
        let settle = settle.is_some_and(|settle| entry.changed() < settle.0);
        Ok(match (locked.reclaim(&key, kept, settle), idle, remembers) {
            (true, _, _) => Reclaimed::Sums,
            (false, true, _) => Reclaimed::Deadline,
            (false, false, true) => Reclaimed::Waits,
            (false, false, false) => Reclaimed::Stale,
        })
    }
}

impl Locked<'_> {
    /// Adds to `body`, for an op of `origin`, what clears the key if it had expired at `now_ms` or only its
    /// deadline is left. Returns whether it does.
    pub fn clear_expired(
        &self,
        key: &KeyRef<'_>,
        origin: Origin,
        now_ms: u64,
        body: &mut BodyBuilder,
    ) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        let object = entry.object();
        if object.due_ms().is_none_or(|at| at > now_ms)
            && (object.facet().is_some() || object.expiry().is_none())
        {
            return false;
        }
        let mut editor = Editor::new(Some(object), origin, now_ms, body);
        editor.clear();
        editor.finish(key.database, key.key);
        true
    }

    /// Whether the row of this deadline is out of date. Only while no commit is under way.
    pub fn is_stale_deadline(&self, key: &KeyRef<'_>, at_ms: u64) -> bool {
        self.entry(key).is_none_or(|entry| !entry.is_dirty() && entry.object().due_ms() != Some(at_ms))
    }
}
