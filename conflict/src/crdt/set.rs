//! The observed-remove set: a member is there while any addition of it is unseen by a removal.
//!
//! As the optimised OR-set of Bieniusa et al. (2012): no tombstones, because under causal delivery
//! a removal arrives after the additions it saw, and merging states compares version vectors. A
//! new addition replaces those it saw, so a member carries as many dots as it has concurrent adds.

use smallvec::SmallVec;

use crate::clock::{Seen, Stamp, VersionVector, covers};
use crate::crdt::table::{self, ElementTable, TablePlace};
use crate::scalar::Met;

/// The additions alive of one member: nearly always one.
pub type Additions = SmallVec<[Stamp; 1]>;

/// Bytes counted for a member besides its name.
const MEMBER_OVERHEAD: usize = size_of::<Additions>() + size_of::<Box<[u8]>>() + 24;

/// Bytes of a member's additions beyond the table's slot.
fn spilled(additions: &Additions) -> usize {
    if additions.len() > 1 { additions.len() * size_of::<Stamp>() } else { 0 }
}

/// A set with per-member metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    members: ElementTable<Box<[u8]>, Additions>,
    bytes: usize,
}

impl Set {
    /// Members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.contains_key(member)
    }

    /// A member's additions.
    pub fn additions(&self, member: &[u8]) -> Option<&[Stamp]> {
        self.members.get(member).map(SmallVec::as_slice)
    }

    /// All members, in table order.
    pub fn members(&self) -> &ElementTable<Box<[u8]>, Additions> {
        &self.members
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// `SADD`: replaces the additions seen.
    pub fn add(&mut self, member: &[u8], stamp: Stamp, seen: Seen<'_>) -> Met {
        let at = match self.members.get_index_of(member) {
            Some(at) => at,
            None => {
                self.bytes += member.len() + MEMBER_OVERHEAD;
                self.members.insert_full(member.into(), Additions::new()).0
            }
        };
        let Some((_, additions)) = self.members.get_index_mut(at) else { return Met::default() };
        let before = spilled(additions);
        additions.retain(|a| !seen.covers(&a.dot));
        insert(additions, stamp);
        self.bytes = self.bytes + spilled(additions) - before;
        Met { changed: true, rivals: Vec::new(), place: TablePlace::At(at) }
    }

    /// `SREM`: removes the additions seen. Rivals are the unseen ones, which survive.
    pub fn remove(&mut self, member: &[u8], seen: Seen<'_>) -> Met {
        let Some((at, _, additions)) = self.members.get_full_mut(member) else { return Met::default() };
        let (before, bytes) = (additions.len(), spilled(additions));
        additions.retain(|a| !seen.covers(&a.dot));
        let (changed, rivals) = (additions.len() != before, additions.to_vec());
        self.bytes = self.bytes + spilled(additions) - bytes;
        let place = if additions.is_empty() { self.forget(member) } else { TablePlace::At(at) };
        Met { changed, rivals, place }
    }

    fn forget(&mut self, member: &[u8]) -> TablePlace {
        let Some((place, additions)) = table::remove(&mut self.members, member) else {
            return TablePlace::Nowhere;
        };
        self.bytes -= member.len() + MEMBER_OVERHEAD + spilled(&additions);
        place
    }

    /// Puts a stored member back. For loading.
    pub fn restore(&mut self, member: &[u8], mut additions: Additions) {
        self.forget(member);
        if !additions.is_empty() {
            additions.sort_unstable();
            additions.dedup();
            self.bytes += member.len() + MEMBER_OVERHEAD + spilled(&additions);
            self.members.insert(member.into(), additions);
        }
    }

    /// Merges one member; see [`crate::object::Object::merge`]. Returns where it stands, if it
    /// changed.
    pub(crate) fn merge_member(
        &mut self,
        member: &[u8],
        ours: &VersionVector,
        other: &[Stamp],
        theirs: &VersionVector,
    ) -> Option<TablePlace> {
        let mut new = other.iter().filter(|stamp| !covers(ours, &stamp.dot)).peekable();
        let at = match self.members.get_index_of(member) {
            Some(at) => at,
            None => {
                new.peek()?;
                self.bytes += member.len() + MEMBER_OVERHEAD;
                self.members.insert_full(member.into(), Additions::new()).0
            }
        };
        let (_, additions) = self.members.get_index_mut(at)?;
        let (before, bytes) = (additions.clone(), spilled(additions));
        additions.retain(|a| other.contains(a) || !covers(theirs, &a.dot));
        new.for_each(|stamp| insert(additions, *stamp));
        let (changed, gone) = (*additions != before, additions.is_empty());
        self.bytes = self.bytes + spilled(additions) - bytes;
        let place = if gone { self.forget(member) } else { TablePlace::At(at) };
        changed.then_some(place)
    }
}

fn insert(additions: &mut Additions, stamp: Stamp) {
    if let Err(at) = additions.binary_search(&stamp) {
        additions.insert(at, stamp);
    }
}
