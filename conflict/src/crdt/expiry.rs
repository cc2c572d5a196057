//! A key's deadline: a multi-value register of its own, apart from the value.
//!
//! Of concurrent deadlines the latest shows and a `PERSIST` beats them all. A deadline alone keeps
//! nothing alive: what has no visible content does not exist.

use serde::{Deserialize, Serialize};

use crate::clock::{Seen, Stamp, VersionVector, covers};

/// What one op said of the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Deadline {
    /// Gone at this Unix millisecond.
    At(u64),
    /// Never (`PERSIST`). Greater than any time.
    Never,
}

/// The deadlines alive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Expiry {
    /// By rising stamp.
    said: Vec<(Stamp, Deadline)>,
}

impl Expiry {
    /// When the key goes, as a Unix millisecond.
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.said.iter().map(|(_, deadline)| deadline).max()? {
            Deadline::At(ms) => Some(*ms),
            Deadline::Never => None,
        }
    }

    /// Whether nothing is known.
    pub fn is_vacant(&self) -> bool {
        self.said.is_empty()
    }

    /// What was said, by rising stamp.
    pub fn said(&self) -> &[(Stamp, Deadline)] {
        &self.said
    }

    /// Replaces what was seen.
    pub fn set(&mut self, stamp: Stamp, deadline: Deadline, seen: Seen<'_>) {
        self.forget(seen);
        self.insert(stamp, deadline);
    }

    /// Removes what was seen; returns whether there was any.
    pub fn forget(&mut self, seen: Seen<'_>) -> bool {
        let before = self.said.len();
        self.said.retain(|(stamp, _)| !seen.covers(&stamp.dot));
        self.said.len() != before
    }

    fn insert(&mut self, stamp: Stamp, deadline: Deadline) {
        if let Err(at) = self.said.binary_search_by_key(&stamp, |(s, _)| *s) {
            self.said.insert(at, (stamp, deadline));
        }
    }

    /// Merges another replica's deadlines; see [`crate::object::Object::merge`]. Returns whether
    /// anything changed.
    pub fn merge(&mut self, ours: &VersionVector, other: &Expiry, theirs: &VersionVector) -> bool {
        let before = self.said.clone();
        let kept = |stamp: &Stamp| other.said.iter().any(|(o, _)| o == stamp);
        self.said.retain(|(stamp, _)| kept(stamp) || !covers(theirs, &stamp.dot));
        for (stamp, deadline) in &other.said {
            if !covers(ours, &stamp.dot) {
                self.insert(*stamp, *deadline);
            }
        }
        self.said != before
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.said.len() * size_of::<(Stamp, Deadline)>()
    }
}
