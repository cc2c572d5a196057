//! What a handler works on: the locked keys as they show, and the effects it collects.

use meridian_conflict::clock::Origin;
use meridian_conflict::crdt::{Hash, Set, SortedSet};
use meridian_conflict::edit::Editor;
use meridian_conflict::object::Object;
use meridian_conflict::op::{BodyBuilder, Facet};
use meridian_conflict::policy::Policy;

use super::CommandError;
use crate::keyspace::{KeyRef, Locked};
use crate::region::Region;

/// The state a handler reads and the effects it collects.
pub struct Context<'a, 'k> {
    pub(super) region: &'a Region,
    pub(super) locked: &'a mut Locked<'k>,
    pub(super) body: &'a mut BodyBuilder,
    pub(super) database: u8,
    pub(super) now_ms: u64,
    pub(super) origin: Origin,
    pub(super) random: u64,
}

impl<'a> Context<'a, '_> {
    /// The region that runs the command.
    pub fn region(&self) -> &'a Region {
        self.region
    }

    /// The selected database.
    pub fn database(&self) -> u8 {
        self.database
    }

    /// Unix milliseconds, the same for the whole command (for a transaction: the whole of it).
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The key's object if it shows, whatever its type.
    pub fn read(&self, key: &[u8]) -> Option<&Object> {
        self.read_in(self.database, key)
    }

    /// The object of a key in another database, if it shows.
    pub fn read_in(&self, database: u8, key: &[u8]) -> Option<&Object> {
        self.locked.shown(&KeyRef::new(database, key)).filter(|object| object.is_visible(self.now_ms))
    }

    /// The key's object whether it shows or not: deleted and expired ones may be remembered.
    pub fn read_any(&self, key: &[u8]) -> Option<&Object> {
        self.locked.object(&KeyRef::new(self.database, key))
    }

    /// [`Context::read`] before a hook has merged anything.
    pub fn read_unmerged(&self, key: &[u8]) -> Option<&Object> {
        self.locked.read(&KeyRef::new(self.database, key))
    }

    fn read_as(&self, key: &[u8], facet: Facet) -> Result<Option<&Object>, CommandError> {
        match self.read(key) {
            Some(object) if object.facet() == Some(facet) => Ok(Some(object)),
            Some(_) => Err(CommandError::WrongType),
            None => Ok(None),
        }
    }

    /// The string at the key.
    ///
    /// # Errors
    /// [`CommandError::WrongType`].
    pub fn string(&self, key: &[u8]) -> Result<Option<std::borrow::Cow<'_, [u8]>>, CommandError> {
        Ok(self.read_as(key, Facet::String)?.and_then(Object::string).and_then(|s| s.shown()))
    }

    /// The hash at the key.
    ///
    /// # Errors
    /// [`CommandError::WrongType`].
    pub fn hash(&self, key: &[u8]) -> Result<Option<&Hash>, CommandError> {
        Ok(self.read_as(key, Facet::Hash)?.and_then(Object::hash))
    }

    /// The set at the key.
    ///
    /// # Errors
    /// [`CommandError::WrongType`].
    pub fn set(&self, key: &[u8]) -> Result<Option<&Set>, CommandError> {
        Ok(self.read_as(key, Facet::Set)?.and_then(Object::set))
    }

    /// The sorted set at the key.
    ///
    /// # Errors
    /// [`CommandError::WrongType`].
    pub fn sorted_set(&self, key: &[u8]) -> Result<Option<&SortedSet>, CommandError> {
        Ok(self.read_as(key, Facet::SortedSet)?.and_then(Object::sorted_set))
    }

    /// What the cursor of a scan over the key's elements is tagged with; see
    /// [`Entry::generation`](crate::keyspace::entry::Entry::generation).
    pub fn generation(&self, key: &[u8]) -> u16 {
        let entry = self.locked.entry(&KeyRef::new(self.database, key));
        entry.map_or(0, crate::keyspace::entry::Entry::generation)
    }

    /// Edits a key: `edit` sees its state before the command and says what becomes of it.
    pub fn edit<R>(&mut self, key: &[u8], edit: impl FnOnce(&mut Editor<'_, '_>) -> R) -> R {
        self.edit_in(self.database, key, edit)
    }

    /// Edits a key of another database.
    pub fn edit_in<R>(&mut self, database: u8, key: &[u8], edit: impl FnOnce(&mut Editor<'_, '_>) -> R) -> R {
        let mut editor =
            editor(self.locked, &KeyRef::new(database, key), (self.origin, self.now_ms), self.body);
        let result = edit(&mut editor);
        editor.finish(database, key);
        result
    }

    /// Makes `target` what `source` shows, deadline included (`RENAME`, `COPY`). Returns `false`
    /// when the source does not show.
    pub fn copy(&mut self, source: (u8, &[u8]), target: (u8, &[u8])) -> bool {
        let locked = &*self.locked;
        let from = locked.shown(&KeyRef::new(source.0, source.1));
        let Some(from) = from.filter(|object| object.is_visible(self.now_ms)) else { return false };
        let target_key = KeyRef::new(target.0, target.1);
        let mut editor = editor(locked, &target_key, (self.origin, self.now_ms), self.body);
        editor.replace_with(from);
        editor.finish(target.0, target.1);
        true
    }

    /// Removes what is seen of a database. The command must have locked everything.
    ///
    /// # Errors
    /// [`CommandError::Store`].
    pub fn flush(&mut self, database: u8) -> Result<(), CommandError> {
        let body = &mut *self.body;
        self.locked.flush_effect(database, |effect| {
            body.push(effect);
            body.finish_key(database, &[]);
        })?;
        Ok(())
    }

    /// The keys of the selected database that show. The command must have locked everything.
    ///
    /// # Errors
    /// [`CommandError::Store`].
    pub fn all_keys(&mut self) -> Result<Vec<Box<[u8]>>, CommandError> {
        let (database, now_ms) = (self.database, self.now_ms);
        let mut keys = self.locked.database_keys(database)?;
        keys.retain(|key| {
            self.locked.read(&KeyRef::new(database, key)).is_some_and(|o| o.is_visible(now_ms))
        });
        Ok(keys)
    }

    /// A random number below `bound` (zero for a zero bound), for commands that pick elements.
    pub fn random_below(&mut self, bound: usize) -> usize {
        // SplitMix64 (Steele et al. 2014): enough to pick elements, not for secrets.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * bound as u128) >> 64) as usize
    }
}

/// An editor for a key as its policy has it written.
fn editor<'a, 'b>(
    locked: &'a Locked<'_>,
    key: &KeyRef<'_>,
    (origin, now_ms): (Origin, u64),
    body: &'b mut BodyBuilder,
) -> Editor<'a, 'b> {
    let object = locked.object(key);
    let Some(policies) = locked.policies() else { return Editor::new(object, origin, now_ms, body) };
    match policies.policy(key.key) {
        Policy::Crdt => Editor::new(object, origin, now_ms, body),
        Policy::Lww => Editor::stating(object, origin, now_ms, body),
        Policy::MultiValue | Policy::Hook(_) => {
            Editor::new(object, origin, now_ms, body).replacing(locked.shown(key))
        }
    }
}
