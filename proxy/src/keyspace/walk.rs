//! Visiting all keys of a database: `SCAN`, `KEYS`, digests, flushes.
//!
//! The store's rows give the order (by hash, so that a cursor is a number that stays right while
//! keys come and go); memory gives the truth about each key. Keys that are only in memory yet are
//! dirty or in the commit under way, and callers that must not miss them commit first or visit those as well.

use std::ops::ControlFlow;

use meridian_conflict::clock::{Seen, Stamp};
use meridian_conflict::object::ALL_FACETS;
use meridian_conflict::object::Applying;
use meridian_conflict::op::{Change, Effect, ElementBaseline, KeyBaseline, MalformedBody, changes};

use super::changing::Applied;
use super::{KeyRef, Keyspace, Locked, load};
use crate::store::StoreError;
use crate::store::row::{self, RowKey};

/// Keys of a scan, and where the next one goes on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The keys, whether or not they still show.
    pub keys: Vec<Box<[u8]>>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<u64>,
}

/// Why a body could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It does not decode.
    #[error(transparent)]
    Malformed(#[from] MalformedBody),
    /// The store failed while objects were brought in.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keyspace {
    /// About `count` stored keys of `database` from `cursor` on, in order of hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(&self, database: u8, cursor: u64, count: usize) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut last = None;
        self.store.scan(row::heads_from(database, cursor), usize::MAX, &mut |row_key, _| {
            let Ok(RowKey::Head { hash, key, .. }) = row::parse(row_key) else {
                return ControlFlow::Continue(());
            };
            // Keys of one hash are never torn apart, for the cursor could not tell them.
            if page.keys.len() >= count && last != Some(hash) {
                page.next = Some(hash);
                return ControlFlow::Break(());
            }
            last = Some(hash);
            page.keys.push(key.into());
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }
}

impl Locked<'_> {
    /// Brings every object of `database` into memory. Only with everything locked.
    ///
    /// # Errors
    /// [`StoreError`]; some objects may be in memory already.
    fn load_database(&mut self, database: u8) -> Result<(), StoreError> {
        if self.keyspace().is_complete() {
            return Ok(());
        }
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = self.keyspace().page(database, from, 1024)?;
            for key in &page.keys {
                let key = KeyRef::new(database, key);
                if self.entry(&key).is_none()
                    && let Some(object) = load::load(&**self.keyspace().store(), &key)?
                {
                    self.install(&key, object, 0);
                }
            }
            cursor = page.next;
        }
        Ok(())
    }

    /// The keys of `database` in memory or store. Only with everything locked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn database_keys(&mut self, database: u8) -> Result<Vec<Box<[u8]>>, StoreError> {
        self.load_database(database)?;
        let mut keys = Vec::new();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = self.keyspace().page(database, from, usize::MAX)?;
            keys.extend(page.keys);
            cursor = page.next;
        }
        keys.extend(self.rowless_keys(database));
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// The effect that flushes `database` as it is now, for the op's body. Only with everything
    /// locked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn flush_effect<R>(
        &mut self,
        database: u8,
        take: impl FnOnce(&Effect<'_>) -> R,
    ) -> Result<R, StoreError> {
        let keys = self.database_keys(database)?;
        let mut baselines = Vec::new();
        for key in &keys {
            let Some(object) = self.object(&KeyRef::new(database, key)) else { continue };
            let elements = object.baselines(ALL_FACETS);
            baselines.extend(elements.into_iter().map(|element| KeyBaseline { key, element }));
        }
        Ok(take(&Effect::Flush { baselines }))
    }

    /// Puts the keys that a body changes in the dirty list, those of flushes included, so that a commit
    /// whose position covers the op cannot miss its rows. Before the op gets its place in the log.
    ///
    /// # Errors
    /// [`ApplyError`]; some keys may be marked, which is harmless.
    pub fn mark_body_dirty(&mut self, body: &[u8]) -> Result<(), ApplyError> {
        for change in changes(body) {
            let change = change?;
            if flush_of(&change)?.is_some() {
                for key in self.database_keys(change.database)? {
                    self.mark_key_dirty(&KeyRef::new(change.database, &key));
                }
            } else {
                self.mark_key_dirty(&KeyRef::new(change.database, change.key));
            }
        }
        Ok(())
    }

    /// Applies a body that may hold flushes. Its keys were marked with
    /// [`Locked::mark_body_dirty`] under these same locks.
    ///
    /// # Errors
    /// [`ApplyError`]; what came before the fault is applied.
    pub fn apply_body(
        &mut self,
        body: &[u8],
        stamp: Stamp,
        seen: Seen<'_>,
        lsn: u64,
    ) -> Result<Applied, ApplyError> {
        let mut applied = Applied::default();
        let how = Applying { stamp, seen };
        for change in changes(body) {
            let change = change?;
            match flush_of(&change)? {
                Some(baselines) => self.flush(change.database, &baselines, how, lsn, &mut applied)?,
                None => self.apply_change(&change, how, lsn, &mut applied)?,
            }
        }
        Ok(applied)
    }

    fn flush(
        &mut self,
        database: u8,
        baselines: &[KeyBaseline<'_>],
        how: Applying<'_>,
        lsn: u64,
        applied: &mut Applied,
    ) -> Result<(), StoreError> {
        let mut by_key: std::collections::BTreeMap<&[u8], Vec<ElementBaseline<'_>>> = Default::default();
        for baseline in baselines {
            by_key.entry(baseline.key).or_default().push(baseline.element.clone());
        }
        for key in self.database_keys(database)? {
            let of_key = by_key.get(&*key).map(Vec::as_slice).unwrap_or_default();
            self.apply_flush(&KeyRef::new(database, &key), of_key, how, lsn, applied);
        }
        Ok(())
    }
}

/// The baselines of a change that flushes its database. A flush stands alone under an empty key.
fn flush_of<'a>(change: &Change<'a>) -> Result<Option<Vec<KeyBaseline<'a>>>, MalformedBody> {
    if !change.key.is_empty() {
        return Ok(None);
    }
    match change.effects().next().transpose()? {
        Some(Effect::Flush { baselines }) => Ok(Some(baselines)),
        _ => Ok(None),
    }
}
