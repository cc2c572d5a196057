//! A key with its object, and what of it the store lacks.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use meridian_conflict::crdt::TablePlace;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;

use smallvec::SmallVec;

use super::KeyRef;
use super::marks::{Mark, Marks};

/// The object differs from its rows in the store.
const DIRTY: u8 = 1;
/// The head differs from its row.
const HEAD_DIRTY: u8 = 2;
/// There is a head row in the store.
const STORED: u8 = 4;
/// The head row in the store counts among the keys shown.
const STORED_SHOWN: u8 = 8;

/// There is a row in the store that says that it holds sums that nothing shows.
const STORED_SUMS: u8 = 16;

/// Keys of up to so many bytes lie in the entry itself.
const KEY_INLINE: usize = 24;

/// What the store has or lacks of an entry beyond its flags.
#[derive(Debug, Default)]
struct Stored {
    /// The deadline that the store has a row for.
    due: Option<u64>,
    /// Elements whose rows in the store are behind.
    marks: Option<Box<Marks>>,
}

/// A key and its object.
#[derive(Debug)]
pub struct Entry {
    /// Inline where short: one miss less on the way to it.
    key: SmallVec<[u8; KEY_INLINE]>,
    /// The state. Change it through [`super::Locked`] only, which keeps the figures.
    pub(super) object: Object,
    hash: u64,
    /// The log position of the last op that changed it.
    pub(super) changed: u64,
    /// What the store needs to know of few: one pointer keeps all others small.
    stored: Option<Box<Stored>>,
    /// When it was last used, on the keyspace's clock.
    used: AtomicU32,
    /// Tells this life of the table of elements from others; see [`super::Keyspace::next_generation`].
    pub(super) generation: u16,
    database: u8,
    flags: u8,
}

impl Entry {
    pub(super) fn new(key: KeyRef<'_>, generation: u16) -> Self {
        Self {
            key: SmallVec::from_slice(key.key),
            object: Object::default(),
            hash: key.hash,
            changed: 0,
            stored: None,
            used: AtomicU32::new(0),
            generation,
            database: key.database,
            flags: 0,
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The database.
    pub fn database(&self) -> u8 {
        self.database
    }

    /// The state.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The log position of the last op that changed it.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// When it was last used, on the keyspace's clock.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that it was used now. Readers note it, too, so that one search does for a read.
    pub(super) fn touch(&self, now: u32) {
        self.used.store(now, Ordering::Relaxed);
    }

    /// Changes whenever elements may stand in another order than removals and additions alone give:
    /// when the object is loaded, and when it has shown nothing in between. Scans tag cursors with it.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is(&self, key: &KeyRef<'_>) -> bool {
        self.hash == key.hash && self.database == key.database && *self.key == *key.key
    }

    pub(super) fn key_ref(&self) -> KeyRef<'_> {
        KeyRef { database: self.database, key: &self.key, hash: self.hash }
    }

    /// Bytes in memory, in constant time: struct, key, object, map slot.
    pub(super) fn footprint(&self) -> i64 {
        let key = if self.key.spilled() { self.key.len() } else { 0 };
        let bytes = size_of::<Self>() + 2 * size_of::<Slot>() + key + self.object.heap_bytes();
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// [`Entry::footprint`] and what a hook has made of its values: what its leaving frees.
    pub(super) fn resident(&self) -> u64 {
        u64::try_from(self.footprint()).unwrap_or(0).saturating_add(self.object.merged_bytes() as u64)
    }

    /// Whether it counts among the keys shown, read as one register if it was written as one.
    pub(super) fn shows(&self) -> bool {
        self.object.under_lww().facet().is_some()
    }

    /// Whether the store lacks something of it.
    pub fn is_dirty(&self) -> bool {
        self.flags & DIRTY != 0
    }

    /// Marks it dirty; returns whether it was clean before.
    pub(super) fn mark_dirty(&mut self) -> bool {
        let was_clean = !self.is_dirty();
        self.flags |= DIRTY;
        was_clean
    }

    pub(super) fn mark_head_dirty(&mut self) {
        self.flags |= HEAD_DIRTY;
    }

    /// The object, to be changed, and the marks to note its elements in.
    pub(super) fn parts(&mut self) -> (&mut Object, ElementMarks<'_>) {
        (&mut self.object, ElementMarks(&mut self.stored))
    }

    /// Begins to take out what is dirty and calls the entry clean. Returns whether the head is to be
    /// written; the elements follow by [`Entry::next_mark`].
    pub(super) fn begin_taking(&mut self) -> bool {
        let marks = self.stored.as_mut().and_then(|stored| stored.marks.as_mut());
        let head = self.flags & (HEAD_DIRTY | STORED) != STORED || marks.is_some();
        self.flags &= !(DIRTY | HEAD_DIRTY);
        if let Some(marks) = marks {
            marks.begin();
        }
        head
    }

    /// The next element to be taken out, `None` when all are.
    pub(super) fn next_mark(&mut self) -> Option<Mark> {
        let stored = self.stored.as_mut()?;
        let marks = stored.marks.as_mut()?;
        let next = marks.next();
        if next.is_none() && marks.is_quiet() {
            stored.marks = None;
            self.fit_stored();
        }
        next
    }

    pub(super) fn is_stored(&self) -> bool {
        self.flags & STORED != 0
    }

    pub(super) fn is_stored_shown(&self) -> bool {
        self.flags & STORED_SHOWN != 0
    }

    /// The deadline that the store has a row for.
    pub(super) fn stored_due(&self) -> Option<u64> {
        self.stored.as_ref()?.due
    }

    pub(super) fn set_stored_due(&mut self, at_ms: Option<u64>) {
        if at_ms.is_some() || self.stored.is_some() {
            self.stored.get_or_insert_default().due = at_ms;
            self.fit_stored();
        }
    }

    fn fit_stored(&mut self) {
        if self.stored.as_ref().is_some_and(|stored| stored.due.is_none() && stored.marks.is_none()) {
            self.stored = None;
        }
    }

    /// Whether it holds what nothing shows: sums of counters, or a deadline alone; or what may have lost
    /// under `lww`.
    pub(super) fn only_remembers(&self) -> bool {
        let object = &self.object;
        object.remembers()
            || !object.marks().is_empty()
            || (object.expiry().is_some() && object.facet().is_none())
    }

    /// Whether the store has a row that says that it holds sums that nothing shows.
    pub(super) fn has_stored_sums(&self) -> bool {
        self.flags & STORED_SUMS != 0
    }

    pub(super) fn set_stored_sums(&mut self, stored: bool) {
        self.flags = (self.flags & !STORED_SUMS) | if stored { STORED_SUMS } else { 0 };
    }

    pub(super) fn set_stored(&mut self, stored: bool, shown: bool) {
        self.flags &= !(STORED | STORED_SHOWN);
        self.flags |= if stored { STORED } else { 0 };
        self.flags |= if shown { STORED_SHOWN } else { 0 };
    }
}

/// Where changes of elements are noted; memory is taken with the first.
pub(super) struct ElementMarks<'a>(&'a mut Option<Box<Stored>>);

impl ElementMarks<'_> {
    pub(super) fn note(&mut self, facet: Facet, element: &[u8], place: TablePlace) {
        let stored = self.0.get_or_insert_default();
        stored.marks.get_or_insert_default().note(facet, element, place);
    }
}

/// An entry's place in the map: eight bytes, so that a half-empty table costs little.
#[derive(Debug)]
pub struct Slot(pub(super) Box<Entry>);

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0.key_ref())
    }
}

impl Eq for Slot {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_a_size_that_allocators_have() {
        // The next is 160.
        assert!(size_of::<Entry>() <= 128, "{}", size_of::<Entry>());
    }
}
