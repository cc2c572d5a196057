//! What hooks answer here, noted so that regions can compare it.
//!
//! Whoever asks a hook on behalf of a key asks it through a [`Noting`]: question and answer go into a bounded queue that
//! the hub empties. Now and then a hook is asked twice, so that one which contradicts itself is found even where
//! nobody else has the same values.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use meridian_conflict::clock::RegionId;
use meridian_conflict::hook::fingerprint::{Asker, answer, hash_answer};
use meridian_conflict::hook::question::Subject;
use meridian_conflict::hook::{Call, Failure, HashCall, MergeHook, MergedHash};
use meridian_conflict::policy::HookId;
use meridian_topology::frame::Answered;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde::{Deserialize, Serialize};

/// Answers that wait for the hub. More are not compared.
const NOTES_MAX: usize = 1_024;

/// Of so many calls one is made twice.
const AGAIN_EVERY: u64 = 32;

/// An answer with the hook that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Who was asked.
    pub asker: Asker,
    /// What, and what it answered.
    pub answered: Answered,
}

/// How this region's hooks are disturbed, for rehearsals (`[dev] faults`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contrary {
    /// Not at all.
    #[default]
    No,
    /// What they answer ends in this region's name.
    Differ,
    /// What they answer ends in a number that rises with every call.
    Unsteady,
}

impl Contrary {
    const ALL: [Contrary; 3] = [Contrary::No, Contrary::Differ, Contrary::Unsteady];
}

/// The witness of one region.
#[derive(Debug, Default)]
pub struct Witness {
    notes: Mutex<VecDeque<Note>>,
    calls: AtomicU64,
    contrary: AtomicU8,
    home: OnceLock<Home>,
}

/// Where it stands.
#[derive(Debug)]
struct Home {
    name: String,
    failures: IntCounterVec,
}

impl Witness {
    /// It stands in the region called `name`, which counts fallbacks in `failures`.
    pub fn settle(&self, name: &str, failures: IntCounterVec) {
        // Set once: a witness belongs to one region.
        let _ = self.home.set(Home { name: name.to_owned(), failures });
    }

    /// What was noted since this was asked last.
    pub fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock()).into()
    }

    /// Disturbs hooks from now on.
    pub fn set_contrary(&self, contrary: Contrary) {
        self.contrary.store(contrary as u8, Ordering::Release);
    }

    /// How hooks are disturbed.
    pub fn contrary(&self) -> Contrary {
        let number = usize::from(self.contrary.load(Ordering::Acquire));
        Contrary::ALL.get(number).copied().unwrap_or_default()
    }

    /// Counts that the greatest stamp shows because the hook is in quarantine, or not known here.
    pub fn fell_back(&self, hook: &HookId) {
        if let Some(home) = self.home.get() {
            home.failures.with_label_values(&[&*hook.name, Failure::Quarantined.name()]).inc();
        }
    }

    fn note(&self, note: Note) {
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX {
            notes.push_back(note);
        }
    }

    /// What a disturbed hook adds to its answers.
    fn disturbance(&self) -> Option<String> {
        let name = || self.home.get().map_or("nobody", |home| &home.name);
        match self.contrary() {
            Contrary::No => None,
            Contrary::Differ => Some(format!(" (as {} sees it)", name())),
            Contrary::Unsteady => Some(format!(" ({})", self.calls.fetch_add(1, Ordering::Relaxed))),
        }
    }

    /// Asks, notes what was answered, and once in a while asks again.
    fn ask<T>(&self, ask: impl Fn() -> T, note: impl Fn(&T) -> Note) -> T {
        let answered = ask();
        let noted = note(&answered);
        if self.calls.fetch_add(1, Ordering::Relaxed) % AGAIN_EVERY == AGAIN_EVERY - 1 {
            let again = note(&ask());
            if again != noted {
                self.note(again);
            }
        }
        self.note(noted);
        answered
    }

    fn region(&self) -> RegionId {
        RegionId::of(self.home.get().map_or("", |home| &home.name))
    }
}

/// A hook whose answers are noted.
pub struct Noting<'a> {
    pub(super) hook: &'a dyn MergeHook,
    pub(super) asker: Asker,
    pub(super) database: u8,
    pub(super) witness: &'a Witness,
}

impl Noting<'_> {
    fn noted(&self, key: &[u8], subject: Subject, question: u128, answer: u128) -> Note {
        let region = self.witness.region();
        let answered =
            Answered { region, hops: 0, database: self.database, key: key.into(), subject, question, answer };
        Note { asker: self.asker, answered }
    }
}

impl MergeHook for Noting<'_> {
    fn id(&self) -> &HookId {
        self.hook.id()
    }

    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let ask = || {
            let mut value = self.hook.merge(call)?;
            value.extend(self.witness.disturbance().unwrap_or_default().bytes());
            Ok(value)
        };
        self.witness.ask(ask, |answered| {
            let subject = call.field.map_or(Subject::String, |field| Subject::Field(field.into()));
            self.noted(call.key, subject, self.asker.question(call), answer(answered))
        })
    }

    fn merges_hashes(&self) -> bool {
        self.hook.merges_hashes()
    }

    fn merge_hash(&self, call: &HashCall<'_>) -> Result<MergedHash, Failure> {
        let ask = || {
            let mut merged = self.hook.merge_hash(call)?;
            if let (Some(more), Some((_, value))) = (self.witness.disturbance(), merged.first_mut()) {
                *value = [&**value, more.as_bytes()].concat().into();
            }
            Ok(merged)
        };
        self.witness.ask(ask, |answered| {
            self.noted(call.key, Subject::Hash, self.asker.hash_question(call), hash_answer(answered))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Dot, Hlc, Origin, Stamp};
    use meridian_conflict::hook::Sibling;
    use meridian_conflict::hook::builtin::{BuiltIn, Kind};

    use super::*;

    fn ask(witness: &Witness, times: u64) -> Vec<Note> {
        let hook = BuiltIn::new(Kind::Max);
        let asker = Asker { hook: hook.id().identity, generation: 0 };
        let noting = Noting { hook: &hook, asker, database: 3, witness };
        let stamp = |n| Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n), 1) };
        let siblings = [(1, &b"1"[..]), (2, b"2")].map(|(n, value)| Sibling { stamp: stamp(n), value });
        for _ in 0..times {
            noting.merge(&Call { key: b"k", field: None, siblings: &siblings }).unwrap();
        }
        witness.take()
    }

    fn answers(notes: &[Note]) -> std::collections::BTreeSet<u128> {
        notes.iter().map(|note| note.answered.answer).collect()
    }

    #[test]
    fn what_is_answered_is_noted_within_bounds() {
        let witness = Witness::default();
        let notes = ask(&witness, 2);
        assert_eq!((notes.len(), notes[0].answered.database, &*notes[0].answered.key), (2, 3, &b"k"[..]));
        assert_eq!(notes[0], notes[1]);
        assert!(witness.take().is_empty());
        assert_eq!(ask(&witness, 2 * NOTES_MAX as u64).len(), NOTES_MAX);
    }

    #[test]
    fn h1_a_hook_that_contradicts_itself_is_noticed_before_long() {
        let steady = answers(&ask(&Witness::default(), 2 * AGAIN_EVERY));
        assert_eq!(steady.len(), 1);
        let witness = Witness::default();
        // Asked once each time, for one question after the other: only asking again tells.
        ask(&witness, AGAIN_EVERY - 1);
        witness.set_contrary(Contrary::Unsteady);
        witness.calls.store(AGAIN_EVERY - 2, Ordering::Relaxed);
        assert_eq!(answers(&ask(&witness, 1)).len(), 2);
    }

    #[test]
    fn a_contrary_region_answers_in_its_own_way() {
        let of = |name: &str| {
            let witness = Witness::default();
            let failures = IntCounterVec::new(prometheus::Opts::new("a", "b"), &["hook", "reason"]).unwrap();
            witness.settle(name, failures);
            witness.set_contrary(Contrary::Differ);
            answers(&ask(&witness, 3))
        };
        assert_eq!((of("eu").len(), of("eu")), (1, of("eu")));
        assert_ne!(of("eu"), of("us"));
    }
}
