//! The memory bound: clean objects that were not used for longest leave memory. The store keeps
//! them; nothing is deleted and nothing travels.

use super::{KeyRef, Keyspace, Locked};

/// Ages told apart when choosing, by powers of two seconds.
const AGES: usize = 33;

/// What one pass of eviction achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Objects that left.
    pub objects: u64,
    /// Bytes freed, as counted.
    pub bytes: u64,
}

impl Keyspace {
    /// Lets the objects longest unused leave until about `excess` bytes are free. Dirty objects
    /// stay until they have been committed.
    pub fn evict(&self, excess: u64) -> Evicted {
        let now = self.clock();
        let mut by_age = [0u64; AGES];
        for slot in self.map.iter() {
            let entry = &slot.key().0;
            if !entry.is_dirty()
                && let Some(sum) = by_age.get_mut(age(now, entry.used()))
            {
                *sum += entry.resident();
            }
        }
        let mut wanted = excess;
        let mut oldest_kept = AGES;
        while wanted > 0 && oldest_kept > 0 {
            oldest_kept -= 1;
            wanted = wanted.saturating_sub(by_age.get(oldest_kept).copied().unwrap_or(0));
        }
        self.evict_older(now, oldest_kept, excess)
    }

    fn evict_older(&self, now: u32, oldest_kept: usize, excess: u64) -> Evicted {
        let mut evicted = Evicted::default();
        let mut victims: Vec<(u8, Box<[u8]>)> = Vec::new();
        for slot in self.map.iter() {
            let entry = &slot.key().0;
            if evicted.bytes >= excess {
                break;
            }
            if !entry.is_dirty() && age(now, entry.used()) >= oldest_kept {
                evicted.bytes += entry.resident();
                victims.push((entry.database(), entry.key().into()));
            }
        }
        if !victims.is_empty() {
            // Before anything leaves: from here on a key that is not in memory may be in the store.
            self.complete.store(false, std::sync::atomic::Ordering::Release);
        }
        for (database, key) in &victims {
            let key = KeyRef::new(*database, key);
            let mut locked = self.lock(&[key]);
            evicted.objects += u64::from(locked.depart_clean(&key));
        }
        evicted
    }
}

fn age(now: u32, used: u32) -> usize {
    let seconds = now.saturating_sub(used);
    (u32::BITS - seconds.leading_zeros()) as usize
}

impl Locked<'_> {
    /// Takes an entry out of memory if the store has all of it.
    fn depart_clean(&mut self, key: &KeyRef<'_>) -> bool {
        let clean = self.entry(key).is_some_and(|entry| !entry.is_dirty());
        if clean {
            self.depart(key);
        }
        clean
    }

    /// Takes the clean entries with this hash out of memory that have nothing to remember.
    pub(super) fn depart_vacant(&mut self, hash: u64) {
        while let Some((database, key)) = self.vacant_entry(hash) {
            self.depart(&KeyRef::new(database, &key));
        }
    }
}
