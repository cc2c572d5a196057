//! Having hooks merge values while nobody waits for the keys' locks.

use meridian_conflict::object::Object;
use meridian_conflict::policy::HookId;

use super::{KeyRef, Keyspace, PlacedKey};
use crate::policies::Active;
use crate::store::StoreError;

/// A key of which several values are alive that its hook has not merged yet.
#[derive(Debug)]
pub struct Unmerged {
    key: PlacedKey,
    object: Object,
    hook: HookId,
}

/// What the hook has made of them.
#[derive(Debug)]
pub struct Merged {
    key: PlacedKey,
    by: [u8; 32],
    of: Object,
    shown: Object,
}

impl Unmerged {
    /// Has the hook merge the values: some tens of microseconds, or as long as its fuel lasts.
    pub fn merge(self, policies: &Active) -> Merged {
        let shown = policies.merge(&self.hook, &self.key.1, &self.object);
        Merged { key: self.key, by: policies.merger(&self.hook), of: self.object, shown }
    }
}

impl Keyspace {
    /// Copies of those of `keys` that a hook has to merge before they can be shown. `durable` as for
    /// [`Keyspace::lock_loaded`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unmerged(&self, keys: &[KeyRef<'_>], durable: u64) -> Result<Vec<Unmerged>, StoreError> {
        let locked = self.lock_loaded(keys, durable)?;
        let Some(policies) = locked.policies() else { return Ok(Vec::new()) };
        let found = keys.iter().filter_map(|key| {
            let object = locked.entry(key)?.object();
            let hook = policies.unmerged(key.key, object)?.clone();
            Some(Unmerged { key: (key.database, key.key.into()), object: object.clone(), hook })
        });
        Ok(found.collect())
    }

    /// Keeps what a hook has made of a key, unless the key has changed since.
    pub fn keep_merged(&self, merged: Merged) {
        let key = KeyRef::new(merged.key.0, &merged.key.1);
        let locked = self.lock(&[key]);
        if let Some(entry) = locked.entry(&key)
            && *entry.object() == merged.of
        {
            entry.object().keep_merged(merged.by, merged.shown);
        }
    }
}
