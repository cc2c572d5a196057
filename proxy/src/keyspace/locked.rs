//! Objects under their shard locks.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dashmap::{RwLockWriteGuard, SharedValue};
use meridian_conflict::object::Object;
use meridian_conflict::reading;
use smallvec::SmallVec;

use super::entry::{Entry, Slot};
use super::merging::Merged;
use super::{KeyRef, Keyspace, Table};
use crate::policies::Active;

/// Guards over a set of shards.
pub struct Locked<'k> {
    pub(super) keyspace: &'k Keyspace,
    /// The policies in force when the locks were taken; none where every key is `crdt`.
    pub(super) policies: Option<Arc<Active>>,
    guards: SmallVec<[(usize, RwLockWriteGuard<'k, Table>); 2]>,
    /// Whether looking at an object counts as using it.
    touching: bool,
    /// One past the last change of what was looked at since.
    read: Cell<u64>,
    /// See [`Locked::show_outgrown`].
    pub(super) outgrown: Option<Merged>,
}

/// What memory knows of a key.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// Its entry; the object may show nothing.
    Here(&'a Entry),
    /// There is no such object.
    Absent,
    /// It is not in memory; the store has to be asked.
    Missing,
}

impl<'k> Locked<'k> {
    pub(super) fn acquire(keyspace: &'k Keyspace, shards: impl Iterator<Item = usize>) -> Self {
        let all = keyspace.map.shards();
        let guards = shards.filter_map(|shard| Some((shard, all.get(shard)?.write()))).collect();
        let policies = keyspace.policies().active();
        Self { keyspace, policies, guards, touching: false, read: Cell::new(0), outgrown: None }
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    fn table(&self, shard: usize) -> Option<&Table> {
        if let [(only, guard)] = self.guards.as_slice() {
            return (*only == shard).then_some(guard);
        }
        let at = self.guards.binary_search_by_key(&shard, |(shard, _)| *shard).ok()?;
        self.guards.get(at).map(|(_, guard)| &**guard)
    }

    fn table_mut(&mut self, shard: usize) -> Option<&mut Table> {
        let at = match self.guards.as_slice() {
            [(only, _)] if *only == shard => 0,
            guards => guards.binary_search_by_key(&shard, |(shard, _)| *shard).ok()?,
        };
        self.guards.get_mut(at).map(|(_, guard)| &mut **guard)
    }

    /// The entry of a key, if memory has it.
    pub fn entry(&self, key: &KeyRef<'_>) -> Option<&Entry> {
        let (slot, _) = self.table(key.shard())?.get(key.hash, |(slot, _)| slot.0.is(key))?;
        Some(&slot.0)
    }

    pub(super) fn entry_mut(&mut self, key: &KeyRef<'_>) -> Option<&mut Entry> {
        let table = self.table_mut(key.shard())?;
        table.get_mut(key.hash, |(slot, _)| slot.0.is(key)).map(|(slot, _)| &mut *slot.0)
    }

    /// What memory knows of a key.
    pub fn find(&self, key: &KeyRef<'_>) -> Found<'_> {
        match self.entry(key) {
            Some(entry) => Found::Here(entry),
            None if self.keyspace.is_complete() => Found::Absent,
            None => Found::Missing,
        }
    }

    /// The state of a key that is in memory or known to be absent.
    pub fn object(&self, key: &KeyRef<'_>) -> Option<&Object> {
        let found = self.entry(key);
        if self.touching {
            let changed = match found {
                Some(entry) => {
                    entry.touch(self.keyspace.clock());
                    entry.changed
                }
                None => self.last_change(key),
            };
            self.read.set(self.read.get().max(changed.saturating_add(1)));
        }
        found.map(Entry::object)
    }

    /// What a reader sees of a key that is in memory or known to be absent, under its policy; its
    /// deadline is left aside.
    pub fn shown(&self, key: &KeyRef<'_>) -> Option<&Object> {
        let object = self.object(key)?;
        match &self.policies {
            None => Some(object),
            Some(policies) => Some(match self.outgrown(key, object) {
                Some(outgrown) => outgrown,
                None => policies.shown(key.database, key.key, object),
            }),
        }
    }

    /// [`Locked::shown`] before a hook has merged anything: enough to tell whether and how long the key shows.
    pub fn read(&self, key: &KeyRef<'_>) -> Option<&Object> {
        let object = self.object(key)?;
        match &self.policies {
            None => Some(object),
            Some(policies) => Some(reading::seen_under(policies.policy(key.key), object)),
        }
    }

    /// The policies in force, unless every key is `crdt`.
    pub fn policies(&self) -> Option<&Arc<Active>> {
        self.policies.as_ref()
    }

    pub(super) fn is_lww(&self, key: &KeyRef<'_>) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.is_lww(key.key))
    }

    /// Has no key of `keys` show what a hook has merged that is not in force any more.
    pub(super) fn forget_former_hooks(&mut self, keys: &[KeyRef<'_>]) {
        let Some(policies) = self.policies.clone().filter(|policies| policies.has_hooks()) else { return };
        for key in keys {
            if let Some(entry) = self.entry_mut(key) {
                policies.forget_others(key.key, &mut entry.object);
            }
        }
    }

    /// From here on, looking at an object counts as using it, and as showing it; see
    /// [`Locked::read_position`].
    pub fn begin_reading(&mut self) {
        self.touching = true;
    }

    /// What a reply has to wait for that shows what [`Locked::object`] gave: one past its last change.
    pub fn read_position(&self) -> u64 {
        self.read.get()
    }

    /// Notes that the key was used now.
    pub fn touch(&self, key: &KeyRef<'_>) {
        let now = self.keyspace.clock();
        if let Some(entry) = self.entry(key) {
            entry.touch(now);
        }
    }

    /// The log position of the last change to a key, whether or not it is still there. Rises with
    /// every change; what `WATCH` compares and what a reply waits for.
    pub fn last_change(&self, key: &KeyRef<'_>) -> u64 {
        match self.entry(key) {
            Some(entry) => entry.changed,
            None => self.keyspace.shard_state(key.shard()).map_or(0, |state| state.lock().departed),
        }
    }

    /// Departures of the key's shard so far; see [`super::load`].
    pub(super) fn departures(&self, key: &KeyRef<'_>) -> u64 {
        self.keyspace.shard_state(key.shard()).map_or(0, |state| state.lock().departures)
    }

    /// Puts an object in that came from the store. Does nothing if the key is in memory.
    pub(super) fn install(&mut self, key: &KeyRef<'_>, object: Object, changed: u64) {
        if self.entry(key).is_some() {
            return;
        }
        let mut entry = Entry::new(*key, self.keyspace.next_generation());
        entry.object = object;
        entry.changed = changed;
        entry.touch(self.keyspace.clock());
        let shown = entry.shows();
        entry.set_stored(true, shown);
        entry.set_stored_due(entry.object.due_ms());
        entry.set_stored_sums(entry.only_remembers());
        let bytes = entry.footprint();
        let Some(table) = self.table_mut(key.shard()) else { return };
        table
            .insert_entry(key.hash, (Slot(Box::new(entry)), SharedValue::new(())), |(slot, _)| slot.0.hash());
        self.keyspace.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes an entry out of memory.
    pub(super) fn depart(&mut self, key: &KeyRef<'_>) {
        let Some(table) = self.table_mut(key.shard()) else { return };
        let Some((slot, _)) = table.remove_entry(key.hash, |(slot, _)| slot.0.is(key)) else { return };
        self.keyspace.bytes.fetch_sub(slot.0.footprint(), Ordering::Relaxed);
        if let Some(state) = self.keyspace.shard_state(key.shard()) {
            let mut state = state.lock();
            state.departures += 1;
            state.departed = state.departed.max(slot.0.changed);
        }
    }

    /// A clean entry with this hash that has nothing to remember.
    pub(super) fn vacant_entry(&self, hash: u64) -> Option<(u8, Box<[u8]>)> {
        let idle = |(slot, _): &(Slot, SharedValue<()>)| {
            slot.0.hash() == hash && !slot.0.is_dirty() && slot.0.object().is_vacant()
        };
        let (slot, _) = self.table(super::shard_of(hash))?.get(hash, idle)?;
        Some((slot.0.database(), slot.0.key().into()))
    }

    /// The keys of `database` that may have no row yet, in the locked shards: those that are dirty, and
    /// those that the commit under way has taken.
    pub(super) fn rowless_keys(&self, database: u8) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for (shard, _) in &self.guards {
            let Some(state) = self.keyspace.shard_state(*shard) else { continue };
            let state = state.lock();
            keys.extend(self.keys_of(database, state.dirty.iter().chain(&state.leaving).copied()));
        }
        keys
    }

    /// The keys of `database` in memory with one of these hashes, in the locked shards.
    pub(super) fn keys_of(&self, database: u8, hashes: impl Iterator<Item = u64>) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for hash in hashes {
            let Some(table) = self.table(super::shard_of(hash)) else { continue };
            let mut found: Vec<&Entry> = Vec::new();
            while let Some((slot, _)) = table.get(hash, |(slot, _)| {
                slot.0.hash() == hash
                    && slot.0.database() == database
                    && !found.iter().any(|seen| seen.key() == slot.0.key())
            }) {
                found.push(&slot.0);
            }
            keys.extend(found.into_iter().map(|entry| Box::from(entry.key())));
        }
        keys
    }

    /// The dirty entry with this hash, if there is one.
    pub(super) fn dirty_entry(&mut self, hash: u64) -> Option<&mut Entry> {
        let table = self.table_mut(super::shard_of(hash))?;
        let same = |(slot, _): &(Slot, SharedValue<()>)| slot.0.hash() == hash && slot.0.is_dirty();
        table.get_mut(hash, same).map(|(slot, _)| &mut *slot.0)
    }

    /// Puts the key in the dirty list, so that a commit whose position covers an op on it cannot miss
    /// its rows. Before the op gets its place in the log.
    pub(super) fn mark_key_dirty(&mut self, key: &KeyRef<'_>) {
        self.entry_to_write(key);
    }

    /// The key's entry, made if there is none, and in the dirty list.
    pub(super) fn entry_to_write(&mut self, key: &KeyRef<'_>) -> Option<&mut Entry> {
        let keyspace = self.keyspace;
        let shard = key.shard();
        let table = self.table_mut(shard)?;
        let same = |(slot, _): &(Slot, SharedValue<()>)| slot.0.is(key);
        // Asked twice for the borrow checker's sake; the second look finds what the first has fetched.
        let (slot, _) = if table.get(key.hash, same).is_some() {
            table.get_mut(key.hash, same)?
        } else {
            let entry = Entry::new(*key, keyspace.next_generation());
            entry.touch(keyspace.clock());
            keyspace.bytes.fetch_add(entry.footprint(), Ordering::Relaxed);
            let slot = (Slot(Box::new(entry)), SharedValue::new(()));
            table.insert_entry(key.hash, slot, |(slot, _)| slot.0.hash())
        };
        if slot.0.mark_dirty()
            && let Some(state) = keyspace.shard_state(shard)
        {
            state.lock().dirty.push(key.hash);
            keyspace.dirty.fetch_add(1, Ordering::Relaxed);
        }
        Some(&mut slot.0)
    }
}
