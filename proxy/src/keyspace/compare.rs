//! What keys show, in digests, for comparing it with other regions, and mending what differs.
//!
//! Keys are compared as [`Object::under_lww`] reads them, whatever their policy, see
//! [`meridian_conflict::repair`]. Memory gives the truth about each key, as it does for clients; a long collection is taken in
//! steps, so that nobody waits for a key's lock long.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use meridian_conflict::clock::VersionVector;
use meridian_conflict::digest::{Taking, digest};
use meridian_conflict::object::Object;
use meridian_conflict::repair::{Repaired, repaired};

use super::locked::Found;
use super::placed::PlacedConflict;
use super::{KeyRef, Keyspace, Locked, load, shard_of};
use crate::store::StoreError;
use crate::store::row::{self, RowKey, key_hash};

/// Elements taken under one lock.
const STEP_ELEMENTS: usize = 1024;

/// Keys of a database in order of hash.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// The keys, whether or not they still show.
    pub keys: Vec<Box<[u8]>>,
    /// The first hash that was left out; `None` if none was.
    pub next: Option<u64>,
}

/// By what a key's state is told to be the same as before. While it stays, no op has changed the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The entry's generation, if there is one.
    generation: Option<u16>,
    changed: u64,
}

impl Mark {
    fn of(locked: &Locked<'_>, key: &KeyRef<'_>) -> Self {
        Self {
            generation: locked.entry(key).map(|entry| entry.generation()),
            changed: locked.last_change(key),
        }
    }
}

/// What a key showed.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Its digest; zero if it showed nothing.
    pub digest: u128,
    /// The state's mark.
    pub mark: Mark,
}

/// What mending did.
#[derive(Clone, Debug)]
pub enum Mended {
    /// Nothing: an op has changed the key meanwhile.
    Moved,
    /// Nothing: both show the same now.
    Equal,
    /// Nothing: what should be there is here; the other side has to mend.
    Kept,
    /// The key shows now what it should. That may hide what it showed before: these conflicts tell.
    Changed(Vec<PlacedConflict>),
}

impl Keyspace {
    /// About `count` keys of `database` with hashes from `from` to before `to`, or twice as many if some have
    /// no row yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keys_between(
        &self,
        database: u8,
        from: u64,
        to: Option<u64>,
        count: usize,
    ) -> Result<Stretch, StoreError> {
        let (mut keys, mut next, mut last) = (BTreeSet::new(), None, None);
        self.store.scan(row::heads_between(database, from, to), usize::MAX, &mut |row_key, _| {
            let Ok(RowKey::Head { hash, key, .. }) = row::parse(row_key) else {
                return ControlFlow::Continue(());
            };
            // Keys of one hash are never torn apart.
            if keys.len() >= count && last != Some(hash) {
                next = Some(hash);
                return ControlFlow::Break(());
            }
            last = Some(hash);
            keys.insert((hash, Box::from(key)));
            ControlFlow::Continue(())
        })?;
        let (hashes, cut) = self.first_rowless(from, next.or(to), count);
        if let Some(cut) = cut {
            next = Some(cut);
            drop(keys.split_off(&(cut, Box::default())));
        }
        for same_shard in hashes.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
            let locked = Locked::acquire(self, same_shard.first().map(|hash| shard_of(*hash)).into_iter());
            let rowless = locked.keys_of(database, same_shard.iter().copied());
            keys.extend(rowless.into_iter().map(|key| (key_hash(&key), key)));
        }
        Ok(Stretch { keys: keys.into_iter().map(|(_, key)| key).collect(), next })
    }

    /// Hashes from `from` to before `to` that may have no row yet, by shard, and where they end if they are more than
    /// `count`: after a great load everything there is may have none.
    fn first_rowless(&self, from: u64, to: Option<u64>, count: usize) -> (Vec<u64>, Option<u64>) {
        let mut hashes = Vec::new();
        let within = |hash: &u64| *hash >= from && to.is_none_or(|to| *hash < to);
        for state in &self.shards {
            let state = state.lock();
            hashes.extend(state.dirty.iter().chain(&state.leaving).copied().filter(within));
        }
        let mut cut = None;
        if count > 0 && hashes.len() > count {
            let (_, last, _) = hashes.select_nth_unstable(count - 1);
            // Keys of one hash are never torn apart.
            cut = last.checked_add(1).filter(|cut| Some(*cut) != to);
        }
        hashes.retain(|hash| cut.is_none_or(|cut| *hash < cut));
        hashes.sort_unstable_by_key(|hash| (shard_of(*hash), *hash));
        hashes.dedup();
        (hashes, cut)
    }

    /// The digest of what a key shows at `now_ms`, without keeping its object in memory. `None` when it
    /// changes all the time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn digest_of(&self, key: &KeyRef<'_>, now_ms: u64) -> Result<Option<u128>, StoreError> {
        let locked = self.lock(&[*key]);
        match locked.find(key) {
            Found::Absent => Ok(Some(0)),
            Found::Here(_) => Ok(self.take(key, locked, now_ms).map(|observed| observed.digest)),
            Found::Missing => {
                drop(locked);
                let object = load::load(&*self.store, key)?;
                Ok(Some(object.map_or(0, |object| digest(key.database, key.key, object.under_lww(), now_ms))))
            }
        }
    }

    /// What a key shows at `now_ms`, with its object in memory. `None` when it changes all the time.
    /// `durable` as for [`Keyspace::lock_loaded`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn observe(
        &self,
        key: &KeyRef<'_>,
        now_ms: u64,
        durable: u64,
    ) -> Result<Option<Observed>, StoreError> {
        let locked = self.lock_loaded(&[*key], durable)?;
        Ok(self.take(key, locked, now_ms))
    }

    fn take<'k>(&'k self, key: &KeyRef<'_>, mut locked: Locked<'k>, now_ms: u64) -> Option<Observed> {
        let mark = Mark::of(&locked, key);
        let Some(mut taking) =
            locked.object(key).and_then(|object| Taking::begin(object.under_lww(), now_ms))
        else {
            return Some(Observed { digest: 0, mark });
        };
        loop {
            let object = locked.object(key)?.under_lww();
            if taking.step(object, STEP_ELEMENTS) {
                let digest = taking.finish(key.database, key.key, object);
                return Some(Observed { digest, mark });
            }
            drop(locked);
            locked = self.lock(&[*key]);
            if Mark::of(&locked, key) != mark {
                return None;
            }
        }
    }

    /// Whether no op has changed the key since `mark` was taken.
    pub fn is_unmoved(&self, key: &KeyRef<'_>, mark: Mark) -> bool {
        Mark::of(&self.lock(&[*key]), key) == mark
    }

    /// A copy of a key's state, empty if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn copy_of(&self, key: &KeyRef<'_>, durable: u64) -> Result<(Object, Mark), StoreError> {
        let locked = self.lock_loaded(&[*key], durable)?;
        Ok((locked.object(key).cloned().unwrap_or_default(), Mark::of(&locked, key)))
    }

    /// Mends a key that has diverged from `theirs`, unless an op has changed it since `mark`. `applied`
    /// was applied here after that.
    pub fn mend(
        &self,
        key: &KeyRef<'_>,
        mark: Mark,
        theirs: &Object,
        applied: &VersionVector,
        now_ms: u64,
    ) -> Mended {
        let mut locked = self.lock(&[*key]);
        if Mark::of(&locked, key) != mark {
            return Mended::Moved;
        }
        let shown = |object: &Object| digest(key.database, key.key, object.under_lww(), now_ms);
        let mine = locked.object(key).cloned().unwrap_or_default();
        if shown(&mine) == shown(theirs) {
            return Mended::Equal;
        }
        let Repaired { object: wanted, conflicts } = repaired(key.database, key.key, &mine, theirs, now_ms);
        if shown(&mine) == shown(&wanted) {
            return Mended::Kept;
        }
        // All that is here was applied, so it goes; and to those who have applied nothing all is new.
        let nothing = VersionVector::new();
        locked.merge_object(key, &Object::default(), applied, applied);
        locked.merge_object(key, &wanted, &nothing, &nothing);
        Mended::Changed(locked.place(key, conflicts))
    }

    /// Loses a key's state as no op would: a fault knob.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lose(&self, key: &KeyRef<'_>, applied: &VersionVector, durable: u64) -> Result<(), StoreError> {
        let mut locked = self.lock_loaded(&[*key], durable)?;
        locked.merge_object(key, &Object::default(), applied, applied);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, Seen, Stamp};
    use meridian_conflict::op::{BodyBuilder, Effect};

    use super::*;
    use crate::store::memory::MemoryStore;

    fn add(keyspace: &Keyspace, key: &KeyRef<'_>, members: std::ops::Range<u32>, sequence: u64) {
        let mut body = BodyBuilder::default();
        let names: Vec<String> = members.map(|n| format!("m{n}")).collect();
        names.iter().for_each(|name| body.push(&Effect::MemberAdd { member: name.as_bytes() }));
        body.finish_key(key.database, key.key);
        let dot = Dot::new(Origin::new(RegionId(1), 1), sequence);
        let stamp = Stamp { hlc: Hlc::from_ms(sequence), dot };
        let mut locked = keyspace.lock_loaded(&[*key], 0).unwrap();
        locked.mark_body_dirty(body.body()).unwrap();
        locked.apply_body(body.body(), stamp, Seen::All, sequence).unwrap();
    }

    #[test]
    fn digests_in_steps_and_marks_tell_whether_a_key_was_changed() {
        let keyspace = Keyspace::new(Arc::new(MemoryStore::default()), true);
        let (key, none) = (KeyRef::new(3, b"long"), KeyRef::new(3, b"none"));
        add(&keyspace, &key, 0..5_000, 1);
        let whole = keyspace.lock(&[key]).object(&key).map(|o| digest(3, b"long", o, 9)).unwrap();
        let observed = keyspace.observe(&key, 9, 0).unwrap().unwrap();
        assert_eq!((observed.digest, keyspace.digest_of(&key, 9).unwrap()), (whole, Some(whole)));
        let absent = keyspace.observe(&none, 9, 0).unwrap().unwrap();
        assert_eq!(absent.digest, 0);
        assert!(keyspace.is_unmoved(&key, observed.mark) && keyspace.is_unmoved(&none, absent.mark));
        add(&keyspace, &key, 0..1, 2);
        add(&keyspace, &none, 0..1, 3);
        assert!(!keyspace.is_unmoved(&key, observed.mark) && !keyspace.is_unmoved(&none, absent.mark));
    }

    #[test]
    fn keys_without_rows_are_found_in_their_stretch() {
        let keyspace = Keyspace::new(Arc::new(MemoryStore::default()), true);
        let names: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
        for (at, name) in (1..).zip(&names) {
            add(&keyspace, &KeyRef::new(0, name.as_bytes()), 0..1, at);
        }
        let middle = 1 << 63;
        let low = keyspace.keys_between(0, 0, Some(middle), 100).unwrap();
        let high = keyspace.keys_between(0, middle, None, 100).unwrap();
        assert!(low.keys.iter().all(|key| key_hash(key) < middle) && !low.keys.is_empty());
        assert_eq!(low.keys.len() + high.keys.len(), 100);
        assert!(keyspace.keys_between(1, 0, None, 10).unwrap().keys.is_empty());
    }

    #[test]
    fn a_stretch_is_bounded_even_if_no_key_has_a_row() {
        let keyspace = Keyspace::new(Arc::new(MemoryStore::default()), true);
        for at in 0..1_000 {
            let name = format!("k{at}");
            // In two databases, so that each hash stands twice for what has no row.
            add(&keyspace, &KeyRef::new(0, name.as_bytes()), 0..1, 2 * at + 1);
            add(&keyspace, &KeyRef::new(1, name.as_bytes()), 0..1, 2 * at + 2);
        }
        for count in [1, 7, 100, 5_000] {
            let (mut from, mut found) = (Some(0), Vec::new());
            while let Some(at) = from {
                let stretch = keyspace.keys_between(0, at, None, count).unwrap();
                assert!(stretch.keys.len() <= count, "{} of {count}", stretch.keys.len());
                assert!(stretch.next.is_none_or(|next| next > at));
                found.extend(stretch.keys);
                from = stretch.next;
            }
            assert!(found.is_sorted_by_key(|key| key_hash(key)));
            assert_eq!(found.len(), 1_000);
        }
    }

    #[test]
    fn what_was_lost_is_mended_unless_the_key_moves() {
        let keyspaces = [(); 2].map(|()| Keyspace::new(Arc::new(MemoryStore::default()), true));
        let key = KeyRef::new(0, b"set");
        keyspaces.iter().for_each(|keyspace| add(keyspace, &key, 0..3, 1));
        let applied: VersionVector = [Dot::new(Origin::new(RegionId(1), 1), 1)].into_iter().collect();
        let whole = keyspaces[0].digest_of(&key, 9).unwrap();
        keyspaces[1].lose(&key, &applied, 0).unwrap();
        assert_eq!(keyspaces[1].digest_of(&key, 9).unwrap(), Some(0));
        let mark = |keyspace: &Keyspace| keyspace.observe(&key, 9, 0).unwrap().unwrap().mark;
        let copy = |keyspace: &Keyspace| keyspace.copy_of(&key, 0).unwrap().0;
        let (here, there) = (&keyspaces[0], &keyspaces[1]);
        assert!(matches!(here.mend(&key, mark(here), &copy(there), &applied, 9), Mended::Kept));
        let before = mark(there);
        let mended = there.mend(&key, before, &copy(here), &applied, 9);
        assert!(matches!(mended, Mended::Changed(conflicts) if conflicts.is_empty()));
        assert_eq!(there.digest_of(&key, 9).unwrap(), whole);
        assert!(matches!(there.mend(&key, mark(there), &copy(here), &applied, 9), Mended::Equal));
        add(there, &key, 5..6, 2);
        assert!(matches!(there.mend(&key, before, &copy(here), &applied, 9), Mended::Moved));
    }
}
