//! A sample of the keys that were committed lately: what is compared with other regions first.

use std::collections::VecDeque;

use super::{Keyspace, PlacedKey};

/// Keys that are kept; the oldest go.
pub(super) const RECENT_KEYS: usize = 512;

/// The sample, in order of commits.
#[derive(Debug, Default)]
pub(super) struct Recent {
    keys: VecDeque<PlacedKey>,
    /// Keys that were ever noted.
    noted: u64,
}

impl Recent {
    pub(super) fn note(&mut self, database: u8, key: &[u8]) {
        if self.keys.len() >= RECENT_KEYS {
            self.keys.pop_front();
        }
        self.keys.push_back((database, key.into()));
        self.noted += 1;
    }
}

impl Keyspace {
    /// The newest `most` of the sampled keys that were committed since `mark` was returned; zero at first.
    pub fn recent_since(&self, mark: u64, most: usize) -> (Vec<PlacedKey>, u64) {
        let recent = self.recent.lock();
        let fresh = usize::try_from(recent.noted.saturating_sub(mark)).unwrap_or(usize::MAX).min(most);
        (recent.keys.iter().rev().take(fresh).cloned().collect(), recent.noted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn the_newest_keys_are_told_once_and_the_oldest_go() {
        let keyspace = Keyspace::new(Arc::new(MemoryStore::default()), true);
        for n in 0..2 * RECENT_KEYS as u64 {
            keyspace.recent.lock().note(1, &n.to_be_bytes());
        }
        let (keys, mark) = keyspace.recent_since(0, 3);
        let last = 2 * RECENT_KEYS as u64;
        assert_eq!((keys[0].clone(), keys.len(), mark), ((1, (last - 1).to_be_bytes().into()), 3, last));
        assert_eq!(keyspace.recent_since(0, usize::MAX).0.len(), RECENT_KEYS);
        assert!(keyspace.recent_since(mark, 3).0.is_empty());
        keyspace.recent.lock().note(0, b"new");
        assert_eq!(keyspace.recent_since(mark, 3).0, [(0, Box::from(&b"new"[..]))]);
    }
}
