//! Bringing objects in from the store.
//!
//! A command that misses a key lets go of its locks, reads the rows, takes the locks again and puts
//! the object in, unless somebody else did. That the store knows nothing of a key counts only if no
//! entry has left the shard between: one that left may have taken newer rows to the store.

use std::ops::ControlFlow;

use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use smallvec::SmallVec;

use super::locked::Found;
use super::{KeyRef, Keyspace, Locked};
use crate::store::row::{self, RowKey};
use crate::store::{Store, StoreError};

impl Keyspace {
    /// Locks `keys` with all of their objects in memory, or known to be absent. Everything below
    /// `durable` is durable, and what the store holds is not younger: its last change counts as the
    /// position just below, for which no reader has to wait.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is locked, and nothing was changed.
    pub fn lock_loaded(&self, keys: &[KeyRef<'_>], durable: u64) -> Result<Locked<'_>, StoreError> {
        let mut locked = self.lock(keys);
        if self.is_complete() {
            locked.forget_former_hooks(keys);
            return Ok(locked);
        }
        let mut absent: SmallVec<[(usize, u64); 2]> = SmallVec::new();
        loop {
            let missing: SmallVec<[(usize, u64); 2]> = keys
                .iter()
                .enumerate()
                .filter(|(_, key)| matches!(locked.find(key), Found::Missing))
                .map(|(at, key)| (at, locked.departures(key)))
                .filter(|known| !absent.contains(known))
                .collect();
            if missing.is_empty() {
                locked.forget_former_hooks(keys);
                return Ok(locked);
            }
            drop(locked);
            let mut loaded: SmallVec<[(usize, u64, Option<Object>); 2]> = SmallVec::new();
            for (at, departures) in missing {
                if let Some(key) = keys.get(at) {
                    loaded.push((at, departures, load(&*self.store, key)?));
                }
            }
            locked = self.lock(keys);
            absent.clear();
            for (at, departures, object) in loaded {
                let Some(key) = keys.get(at) else { continue };
                if locked.departures(key) != departures {
                    continue;
                }
                match object {
                    Some(object) => locked.install(key, object, durable.saturating_sub(1)),
                    None => absent.push((at, departures)),
                }
            }
        }
    }

    /// Locks everything, with the objects of `keys` in memory, or known to be absent.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is locked.
    pub fn lock_all_loaded(&self, keys: &[KeyRef<'_>], durable: u64) -> Result<Locked<'_>, StoreError> {
        let mut locked = self.lock_all();
        for key in keys {
            // Nothing can leave meanwhile: everything is locked.
            if matches!(locked.find(key), Found::Missing)
                && let Some(object) = load(&*self.store, key)?
            {
                locked.install(key, object, durable.saturating_sub(1));
            }
        }
        locked.forget_former_hooks(keys);
        Ok(locked)
    }

    /// Reads what a key shows, its deadline left aside, without keeping it in memory: for walks over everything. The copy in
    /// memory counts where there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn peek<R>(
        &self,
        key: &KeyRef<'_>,
        look: impl FnOnce(Option<&Object>) -> R,
    ) -> Result<R, StoreError> {
        loop {
            let departures = {
                let locked = self.lock(&[*key]);
                match locked.find(key) {
                    Found::Here(_) => {
                        let Some((unmerged, policies)) = locked.unmerged(key).zip(locked.policies().cloned())
                        else {
                            return Ok(look(locked.shown(key)));
                        };
                        // A hook is no work to be done under a lock.
                        drop(locked);
                        let merged = unmerged.merge(&policies);
                        let result = look(Some(merged.shown()));
                        // Where the key has changed since, this was what it showed.
                        let _ = self.keep_merged(merged);
                        return Ok(result);
                    }
                    Found::Absent => return Ok(look(None)),
                    Found::Missing => locked.departures(key),
                }
            };
            let object = load(&*self.store, key)?;
            let locked = self.lock(&[*key]);
            if locked.departures(key) == departures && locked.entry(key).is_none() {
                let policies = locked.policies().cloned();
                drop(locked);
                let shown = |object| match &policies {
                    None => object,
                    Some(policies) => policies.shown(key.database, key.key, object),
                };
                return Ok(look(object.as_ref().map(shown)));
            }
        }
    }
}

/// Reads an object's rows.
pub(super) fn load(store: &dyn Store, key: &KeyRef<'_>) -> Result<Option<Object>, StoreError> {
    let head_key = row::head_key(key.database, key.key);
    let Some(head) = store.get(&head_key)? else { return Ok(None) };
    let corrupt = |key: &[u8]| StoreError::Corrupt { key: key.to_vec() };
    let mut object = Object::decode_head(&head).map_err(|_| corrupt(&head_key))?;
    if !object_has_elements(&head) {
        return Ok(Some(object));
    }
    let mut failed = None;
    let range = row::prefix_range(&row::element_prefix(key.database, key.key));
    store.scan(range, usize::MAX, &mut |row_key, record| {
        let restored = match row::parse(row_key) {
            Ok(RowKey::Element { facet, element, .. }) => {
                facet_of(facet).is_some_and(|facet| object.restore_element(facet, element, record).is_ok())
            }
            _ => false,
        };
        if restored {
            ControlFlow::Continue(())
        } else {
            failed = Some(corrupt(row_key));
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Some(object)),
    }
}

/// Whether a head record announces facets with rows of their own. The facets' bits come first.
pub(super) fn object_has_elements(head: &[u8]) -> bool {
    head.first().is_none_or(|facets| facets & !1 != 0)
}

/// The facet of this number.
pub(crate) fn facet_of(number: u8) -> Option<Facet> {
    Facet::ALL.into_iter().find(|facet| *facet as u8 == number)
}
