//! Having hooks merge values while nobody waits for the keys' locks.

use meridian_conflict::hook::question::{Question, Subject, TooLarge};
use meridian_conflict::object::Object;
use meridian_conflict::policy::HookId;

use super::{KeyRef, Keyspace, Locked, PlacedKey};
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
        let shown = policies.merge(&self.hook, self.key.0, &self.key.1, &self.object);
        Merged { key: self.key, by: policies.merger(&self.hook), of: self.object, shown }
    }
}

impl Merged {
    /// What the key shows.
    pub fn shown(&self) -> &Object {
        &self.shown
    }

    fn is_of(&self, key: &KeyRef<'_>) -> bool {
        (self.key.0, &*self.key.1) == (key.database, key.key)
    }
}

impl Locked<'_> {
    /// From here on a key that its hook has not merged as it is now shows what `merged` says, if that is of the
    /// same key and hook. For a command that reads nothing else, and that came in before the values were copied.
    pub fn show_outgrown(&mut self, merged: Merged) {
        self.outgrown = Some(merged);
    }

    /// See [`Locked::show_outgrown`].
    pub(super) fn outgrown(&self, key: &KeyRef<'_>, object: &Object) -> Option<&Object> {
        let merged = self.outgrown.as_ref().filter(|merged| merged.is_of(key))?;
        let policies = self.policies()?;
        let hook = policies.unmerged(key.key, object)?;
        (policies.merger(hook) == merged.by).then_some(&merged.shown)
    }

    /// A copy of the key if a hook has to merge it before it can be shown.
    pub(super) fn unmerged(&self, key: &KeyRef<'_>) -> Option<Unmerged> {
        let object = self.entry(key)?.object();
        let hook = self.policies()?.unmerged(key.key, object)?.clone();
        Some(Unmerged { key: (key.database, key.key.into()), object: object.clone(), hook })
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
        Ok(keys.iter().filter_map(|key| locked.unmerged(key)).collect())
    }

    /// What a hook is asked about a key now; `None` where nothing is to be merged. `durable` as for
    /// [`Keyspace::lock_loaded`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn question(
        &self,
        key: &KeyRef<'_>,
        subject: &Subject,
        most: usize,
        durable: u64,
    ) -> Result<Result<Option<Question>, TooLarge>, StoreError> {
        let locked = self.lock_loaded(&[*key], durable)?;
        let object = locked.object(key);
        Ok(object.map_or(Ok(None), |object| Question::about(key.key, subject, object, most)))
    }

    /// Keeps what a hook has made of a key.
    ///
    /// # Errors
    /// Gives it back where the key has changed since.
    pub fn keep_merged(&self, merged: Merged) -> Result<(), Box<Merged>> {
        let key = KeyRef::new(merged.key.0, &merged.key.1);
        let locked = self.lock(&[key]);
        if let Some((entry, policies)) = locked.entry(&key).zip(locked.policies())
            && *entry.object() == merged.of
        {
            policies.keep(entry.object(), merged.by, merged.shown);
            return Ok(());
        }
        Err(Box::new(merged))
    }
}
