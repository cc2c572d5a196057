//! Hooks that are not used because they answered one question in two ways.
//!
//! Each hook that ever was has a generation: odd while it is confined, even while it is free. Confining and
//! releasing raise it by one. Of two regions' opinions the greater generation counts, and of two reasons for
//! one generation the smaller: a join of a lattice, so all regions end with the same set whatever they heard
//! in which order. Nothing leaves the set: a hook has the identity of its module, so a mended one is another.
//!
//! # Encoding (version 1)
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | rest | postcard: a list of [`Entry`] by rising identity |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::question::Subject;
use crate::clock::RegionId;

/// The most hooks in the set; beyond that the ones already there stay. An encoded set fits a message.
pub const MAX_ENTRIES: usize = 1_024;

/// Bytes of the key that a reason keeps.
pub const KEY_BYTES: usize = 128;

const VERSION: u8 = 1;

/// One question with two answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// When it was found, in Unix milliseconds by the finder's clock.
    pub at_ms: u64,
    /// The database.
    pub database: u8,
    /// The key, or the first [`KEY_BYTES`] of it.
    #[serde(with = "serde_bytes")]
    pub key: Box<[u8]>,
    /// What of it; of a field the first [`KEY_BYTES`].
    pub subject: Subject,
    /// The question's fingerprint.
    pub question: u128,
    /// Who answered what, by fingerprint. One region twice, if it contradicted itself.
    pub answers: [(RegionId, u128); 2],
}

impl Reason {
    /// A reason, with what is too long cut off.
    pub fn new(
        at_ms: u64,
        (database, key, subject): (u8, &[u8], &Subject),
        question: u128,
        mut answers: [(RegionId, u128); 2],
    ) -> Self {
        let cut = |bytes: &[u8]| Box::from(bytes.get(..KEY_BYTES).unwrap_or(bytes));
        let subject = match subject {
            Subject::Field(field) => Subject::Field(cut(field)),
            other => other.clone(),
        };
        answers.sort_unstable();
        Self { at_ms, database, key: cut(key), subject, question, answers }
    }

    fn is_bounded(&self) -> bool {
        let field = match &self.subject {
            Subject::Field(field) => field.len(),
            Subject::String | Subject::Hash => 0,
        };
        self.key.len() <= KEY_BYTES && field <= KEY_BYTES
    }
}

/// What is known of one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity.
    pub hook: [u8; 32],
    /// How often it was confined or released.
    pub generation: u64,
    /// Why it is confined; `None` if it is free.
    pub reason: Option<Reason>,
}

impl Entry {
    fn is_sound(&self) -> bool {
        let confined = self.generation % 2 == 1;
        self.generation > 0
            && confined == self.reason.is_some()
            && self.reason.as_ref().is_none_or(Reason::is_bounded)
    }
}

/// Bytes that are no set of a version known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a set of hooks of version {VERSION}")]
pub struct Malformed;

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    hooks: BTreeMap<[u8; 32], (u64, Option<Reason>)>,
}

impl Quarantine {
    /// The hook's generation: zero for one that nobody ever complained of.
    pub fn generation(&self, hook: &[u8; 32]) -> u64 {
        self.hooks.get(hook).map_or(0, |(generation, _)| *generation)
    }

    /// Why the hook is confined, if it is.
    pub fn reason(&self, hook: &[u8; 32]) -> Option<&Reason> {
        self.hooks.get(hook)?.1.as_ref()
    }

    /// Whether the hook must not be used.
    pub fn is_confined(&self, hook: &[u8; 32]) -> bool {
        self.reason(hook).is_some()
    }

    /// How many more hooks could be confined, beside those that something is known of.
    pub fn room(&self) -> usize {
        MAX_ENTRIES.saturating_sub(self.hooks.len())
    }

    /// Whether the hook could not be confined for want of room.
    pub fn is_full_for(&self, hook: &[u8; 32]) -> bool {
        self.room() == 0 && !self.hooks.contains_key(hook)
    }

    /// Whether nothing is known of any hook.
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// What is known.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.hooks.iter().map(|(hook, (generation, reason))| Entry {
            hook: *hook,
            generation: *generation,
            reason: reason.clone(),
        })
    }

    /// Confines a hook that was free at `generation`. Returns whether it was: what was found at an earlier
    /// generation is of the past.
    pub fn confine(&mut self, hook: [u8; 32], generation: u64, reason: Reason) -> bool {
        let free = self.generation(&hook) == generation && !self.is_confined(&hook);
        let Some(next) = generation.checked_add(1).filter(|_| free) else { return false };
        self.join(Entry { hook, generation: next, reason: Some(reason) })
    }

    /// Releases a hook. Returns whether it was confined.
    pub fn release(&mut self, hook: [u8; 32]) -> bool {
        let confined = self.is_confined(&hook);
        let Some(next) = self.generation(&hook).checked_add(1).filter(|_| confined) else { return false };
        self.join(Entry { hook, generation: next, reason: None })
    }

    /// Takes over what somebody else knows. Returns whether it was news.
    pub fn join(&mut self, entry: Entry) -> bool {
        if !entry.is_sound() {
            return false;
        }
        let Entry { hook, generation, reason } = entry;
        let is_full = self.room() == 0;
        match self.hooks.get_mut(&hook) {
            None if is_full => false,
            None => self.hooks.insert(hook, (generation, reason)).is_none(),
            Some(known) if (generation, &known.1) > (known.0, &reason) => {
                *known = (generation, reason);
                true
            }
            Some(_) => false,
        }
    }

    /// The encoded set.
    pub fn encode(&self) -> Vec<u8> {
        let entries: Vec<Entry> = self.entries().collect();
        // Bytes and integers always encode.
        postcard::to_extend(&entries, vec![VERSION]).unwrap_or_default()
    }

    /// Reads an encoded set.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some((&VERSION, rest)) = bytes.split_first() else { return Err(Malformed) };
        let Ok((entries, [])) = postcard::take_from_bytes::<Vec<Entry>>(rest) else { return Err(Malformed) };
        let (mut set, count) = (Self::default(), entries.len());
        let joined = entries.into_iter().filter(|entry| set.join(entry.clone())).count();
        if joined == count { Ok(set) } else { Err(Malformed) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(n: u64) -> Reason {
        let answers = [(RegionId(2), 1), (RegionId(1), u128::from(n))];
        Reason::new(n, (0, b"k", &Subject::String), 9, answers)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (0u8..3, 1u64..6, 0u64..3).prop_map(|(hook, generation, n)| Entry {
            hook: [hook; 32],
            generation,
            reason: (generation % 2 == 1).then(|| reason(n)),
        })
    }

    fn joined(entries: impl IntoIterator<Item = Entry>) -> Quarantine {
        let mut set = Quarantine::default();
        entries.into_iter().for_each(|entry| {
            set.join(entry);
        });
        set
    }

    proptest! {
        #[test]
        fn what_is_known_does_not_depend_on_the_order_it_was_heard_in(
            entries in prop::collection::vec(entry(), 0..12),
            turn in 0usize..12,
        ) {
            let known = joined(entries.clone());
            let mut other = entries.clone();
            other.reverse();
            let at = turn.min(other.len());
            other.rotate_left(at);
            other.extend(entries);
            prop_assert_eq!(&joined(other), &known);
            prop_assert_eq!(Quarantine::decode(&known.encode()).unwrap(), known);
        }
    }

    #[test]
    fn a_hook_is_confined_and_released_in_turn() {
        let (mut set, hook) = (Quarantine::default(), [1; 32]);
        assert!(!set.release(hook));
        assert!(set.confine(hook, 0, reason(1)) && set.is_confined(&hook));
        assert!(!set.confine(hook, 0, reason(2)), "it is already");
        assert_eq!(set.reason(&hook).unwrap().answers, [(RegionId(1), 1), (RegionId(2), 1)]);
        let before = set.clone();
        assert!(set.release(hook) && !set.release(hook));
        assert_eq!((set.generation(&hook), set.is_confined(&hook)), (2, false));
        assert!(!set.confine(hook, 0, reason(3)), "found before the release");
        assert!(!before.entries().any(|entry| set.join(entry)), "the release is newer");
        assert!(set.confine(hook, 2, reason(4)));
        assert_eq!(set.generation(&hook), 3);
    }

    #[test]
    fn of_two_reasons_the_smaller_counts_everywhere() {
        let of = |n| Entry { hook: [1; 32], generation: 1, reason: Some(reason(n)) };
        assert_eq!(joined([of(1), of(2)]), joined([of(2), of(1)]));
        assert_eq!(joined([of(1), of(2)]).reason(&[1; 32]), Some(&reason(1)));
    }

    #[test]
    fn what_cannot_be_is_refused_and_room_is_bounded() {
        let free = Entry { hook: [1; 32], generation: 1, reason: None };
        let zero = Entry { hook: [1; 32], generation: 0, reason: None };
        let long = Reason { key: vec![0; KEY_BYTES + 1].into(), ..reason(1) };
        let long = Entry { hook: [1; 32], generation: 1, reason: Some(long) };
        assert!(joined([free, zero, long]).is_empty());
        let hook = |n: usize| {
            let mut hook = [0; 32];
            hook[..8].copy_from_slice(&n.to_le_bytes());
            hook
        };
        let all = joined((0..=MAX_ENTRIES).map(|n| Entry {
            hook: hook(n),
            generation: 1,
            reason: Some(Reason::new(
                1,
                (0, &[0xff; 999], &Subject::Field([0; 999].into())),
                1,
                reason(1).answers,
            )),
        }));
        assert_eq!(all.entries().count(), MAX_ENTRIES);
        assert!(all.encode().len() < 512 << 10);
        assert!(!all.is_confined(&hook(MAX_ENTRIES)));
        assert_eq!((all.room(), Quarantine::default().room()), (0, MAX_ENTRIES));
        assert!(all.is_full_for(&hook(MAX_ENTRIES)) && !all.is_full_for(&hook(0)));
        for bad in [&b""[..], b"\x02", b"\x01\xff", &[all.encode(), vec![0]].concat()] {
            assert_eq!(Quarantine::decode(bad), Err(Malformed));
        }
    }

    #[test]
    fn fuzz_quarantine() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(set) = Quarantine::decode(bytes) {
                assert_eq!(Quarantine::decode(&set.encode()), Ok(set));
            }
        });
    }
}
