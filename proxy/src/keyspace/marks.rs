//! Which elements of a key's collections the store lacks, by their places in the tables: noting a
//! change costs one bit, however often the element was changed before and however large the
//! collection is.

use meridian_conflict::crdt::TablePlace;
use meridian_conflict::op::Facet;
use smallvec::SmallVec;

/// Bits by index.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: SmallVec<[u64; 2]>,
    /// No word before this one has a bit.
    first: usize,
}

impl Bits {
    fn set(&mut self, at: usize) {
        let word = at / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.first = self.first.min(word);
        if let Some(bits) = self.words.get_mut(word) {
            *bits |= 1 << (at % 64);
        }
    }

    /// Clears a bit; returns whether it was set.
    fn clear(&mut self, at: usize) -> bool {
        let Some(bits) = self.words.get_mut(at / 64) else { return false };
        let was = *bits & (1 << (at % 64)) != 0;
        *bits &= !(1 << (at % 64));
        was
    }

    /// The element at `last` has taken the place of the one removed at `at`.
    fn moved(&mut self, at: usize, last: usize) {
        let follows = self.clear(last);
        self.clear(at);
        if follows && at != last {
            self.set(at);
        }
    }

    /// Takes one bit out.
    fn pop(&mut self) -> Option<usize> {
        while let Some(bits) = self.words.get_mut(self.first) {
            if *bits != 0 {
                let at = self.first * 64 + bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                return Some(at);
            }
            self.first += 1;
        }
        // Nothing is left: the next life begins small.
        *self = Self::default();
        None
    }

    fn absorb(&mut self, other: Bits) {
        if self.words.is_empty() {
            *self = other;
            return;
        }
        let mut other = other;
        while let Some(at) = other.pop() {
            self.set(at);
        }
    }
}

/// The marks of one facet's table.
#[derive(Clone, Debug)]
struct Table {
    facet: Facet,
    /// Changed since the last taking began.
    fresh: Bits,
    /// To be taken out by the taking under way.
    leaving: Bits,
}

/// A mark taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The element at this index of the facet's table.
    At(Facet, usize),
    /// An element that was removed, and may have come back since.
    Removed(Facet, Box<[u8]>),
}

/// What of a key's elements the store lacks.
///
/// A taking goes in steps, between which the collection may change: what stood there when it began
/// is followed to where removals move it, so that none is left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    tables: SmallVec<[Table; 1]>,
    removed: Vec<(Facet, Box<[u8]>)>,
    leaving: Vec<(Facet, Box<[u8]>)>,
}

impl Marks {
    /// Notes a change of `element`.
    pub(super) fn note(&mut self, facet: Facet, element: &[u8], place: TablePlace) {
        if let TablePlace::Left { .. } = place {
            self.removed.push((facet, element.into()));
        }
        let table = match self.tables.iter_mut().position(|table| table.facet == facet) {
            Some(at) => self.tables.get_mut(at),
            None => {
                self.tables.push(Table { facet, fresh: Bits::default(), leaving: Bits::default() });
                self.tables.last_mut()
            }
        };
        match (table, place) {
            (Some(table), TablePlace::At(at)) => table.fresh.set(at),
            (Some(table), TablePlace::Left { at, last }) => {
                table.fresh.moved(at, last);
                table.leaving.moved(at, last);
            }
            _ => {}
        }
    }

    /// Everything noted so far is to be taken.
    pub(super) fn begin(&mut self) {
        for table in &mut self.tables {
            table.leaving.absorb(std::mem::take(&mut table.fresh));
        }
        self.leaving.append(&mut self.removed);
    }

    /// The next mark to take, `None` when the taking is done.
    pub(super) fn next(&mut self) -> Option<Mark> {
        if let Some((facet, element)) = self.leaving.pop() {
            return Some(Mark::Removed(facet, element));
        }
        self.tables.iter_mut().find_map(|table| Some(Mark::At(table.facet, table.leaving.pop()?)))
    }

    /// Whether nothing has been noted that no taking has begun to take.
    pub(super) fn is_quiet(&self) -> bool {
        self.removed.is_empty() && self.tables.iter().all(|table| table.fresh.words.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Change(usize),
        Remove(usize),
        Begin,
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..200).prop_map(Step::Change),
            3 => (0usize..200).prop_map(Step::Remove),
            1 => Just(Step::Begin),
            4 => Just(Step::Take),
        ]
    }

    proptest! {
        /// A model table of names with swap-removal: at the end of a taking every element that was
        /// changed before it began has been written as it was then or later, or removed.
        #[test]
        fn nothing_changed_before_a_taking_is_left_out(steps in prop::collection::vec(step(), 0..400)) {
            let mut table: Vec<(u32, u32)> = Vec::new();
            let mut stored: std::collections::BTreeMap<u32, u32> = Default::default();
            let mut marks = Marks::default();
            let mut owed: BTreeSet<u32> = BTreeSet::new();
            let (mut next, mut version) = (0u32, 0u32);
            let steps = steps.into_iter().chain([Step::Begin]).chain(std::iter::repeat_n(Step::Take, 400));
            let mut changed_since: BTreeSet<u32> = BTreeSet::new();
            for step in steps {
                version += 1;
                match step {
                    Step::Change(at) if at < table.len() => {
                        table[at].1 = version;
                        changed_since.insert(table[at].0);
                        marks.note(Facet::Hash, &[], TablePlace::At(at));
                    }
                    Step::Change(_) => {
                        table.push((next, version));
                        changed_since.insert(next);
                        marks.note(Facet::Hash, &[], TablePlace::At(table.len() - 1));
                        next += 1;
                    }
                    Step::Remove(at) if at < table.len() => {
                        let last = table.len() - 1;
                        let (name, _) = table.swap_remove(at);
                        changed_since.insert(name);
                        marks.note(Facet::Hash, &name.to_be_bytes(), TablePlace::Left { at, last });
                    }
                    Step::Remove(_) => {}
                    Step::Begin => {
                        owed.append(&mut changed_since);
                        marks.begin();
                    }
                    Step::Take => match marks.next() {
                        Some(Mark::At(_, at)) => {
                            let (name, version) = table[at];
                            stored.insert(name, version);
                            owed.remove(&name);
                        }
                        Some(Mark::Removed(_, name)) => {
                            let name = u32::from_be_bytes(name[..].try_into().unwrap());
                            match table.iter().find(|(known, _)| *known == name) {
                                Some((_, version)) => stored.insert(name, *version),
                                None => stored.remove(&name),
                            };
                            owed.remove(&name);
                        }
                        None => {
                            // What was removed while it was owed is in the next taking.
                            owed.retain(|name| table.iter().any(|(known, _)| known == name));
                            prop_assert!(owed.is_empty(), "{owed:?}");
                        }
                    },
                }
            }
            prop_assert!(marks.next().is_none() && marks.is_quiet());
            let expected: std::collections::BTreeMap<u32, u32> = table.into_iter().collect();
            prop_assert_eq!(stored, expected);
        }
    }

    #[test]
    fn one_change_among_a_million_is_one_bit() {
        let mut marks = Marks::default();
        for _ in 0..3 {
            marks.note(Facet::Set, b"x", TablePlace::At(999_999));
        }
        marks.begin();
        assert_eq!(marks.next(), Some(Mark::At(Facet::Set, 999_999)));
        assert_eq!(marks.next(), None);
        assert!(marks.is_quiet());
    }
}
