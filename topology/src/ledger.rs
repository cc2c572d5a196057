//! What hooks answered, here and elsewhere: which answers are news, and which contradict each other.
//!
//! Every region tells its neighbours each question it has asked a hook, once, with the fingerprint of the answer;
//! who hears of one for the first time asks for itself, if it has the same values, and tells it on. So two
//! regions without a link find a difference where their answers meet, whether or not anybody between them
//! could ask. The ledger remembers the last [`QUESTIONS_MAX`] questions: an older one that is asked again is told
//! again, and nothing is told while nothing is asked. An answer passes at most as many regions as there are.

use std::collections::{BTreeMap, VecDeque};

use meridian_conflict::clock::RegionId;
use meridian_conflict::hook::question::Subject;

use crate::frame::Answered;

/// Questions that are remembered.
pub const QUESTIONS_MAX: usize = 4_096;

/// Answers that wait to be told. More are not told.
const WAITING_MAX: usize = 1_024;

/// Bytes of keys and fields in what is told at once, about: one of each too many at most.
const TOLD_BYTES: usize = 64 << 10;

/// What an answer means to this region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nobody was known to have asked.
    New,
    /// The known answer.
    Same,
    /// Another one than this region gave.
    Differs {
        /// Who.
        region: RegionId,
        /// What it answered.
        answer: u128,
    },
}

/// An answer that waits to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The hook's identity.
    pub hook: [u8; 32],
    /// Its generation.
    pub generation: u64,
    /// The answer.
    pub answered: Answered,
    /// Who told it, if it was a neighbour.
    pub from: Option<RegionId>,
}

fn named(answered: &Answered) -> usize {
    let field = match &answered.subject {
        Subject::Field(field) => field.len(),
        Subject::String | Subject::Hash => 0,
    };
    answered.key.len() + field
}

/// The ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    first: BTreeMap<u128, (RegionId, u128)>,
    order: VecDeque<u128>,
    waiting: VecDeque<Waiting>,
    compared: u64,
}

impl Ledger {
    /// Notes who answered what.
    pub fn note(&mut self, answered: &Answered) -> Noted {
        let Answered { region, question, answer, .. } = *answered;
        match self.first.get(&question) {
            Some((other, known)) if *known != answer => Noted::Differs { region: *other, answer: *known },
            Some((other, _)) => {
                self.compared += u64::from(*other != region);
                Noted::Same
            }
            None => {
                if self.order.len() >= QUESTIONS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.first.remove(&oldest);
                }
                self.order.push_back(question);
                self.first.insert(question, (region, answer));
                Noted::New
            }
        }
    }

    /// Has an answer wait to be told.
    pub fn wait(&mut self, waiting: Waiting) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(waiting);
        }
    }

    /// Whether nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes what is to be told now, `most` at most.
    pub fn take(&mut self, most: usize) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < most
            && bytes < TOLD_BYTES
            && let Some(waiting) = self.waiting.pop_front()
        {
            bytes += named(&waiting.answered);
            taken.push(waiting);
        }
        taken
    }

    /// How many answers of two regions were equal so far.
    pub fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn answered(region: u32, question: u128, answer: u128) -> Answered {
        let key = vec![b'k'; 100].into();
        Answered {
            region: RegionId(region),
            hops: 0,
            database: 0,
            key,
            subject: Subject::String,
            question,
            answer,
        }
    }

    #[test]
    fn a_question_is_new_once_and_two_answers_to_it_differ() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.note(&answered(1, 5, 9)), Noted::New);
        assert_eq!(ledger.note(&answered(1, 5, 9)), Noted::Same);
        assert_eq!(ledger.compared(), 0, "with itself");
        assert_eq!(ledger.note(&answered(2, 5, 9)), Noted::Same);
        assert_eq!(ledger.compared(), 1);
        let first = Noted::Differs { region: RegionId(1), answer: 9 };
        assert_eq!(ledger.note(&answered(3, 5, 8)), first);
        assert_eq!(ledger.note(&answered(1, 5, 8)), first, "it contradicts itself");
    }

    #[test]
    fn what_is_remembered_and_what_waits_is_bounded() {
        let mut ledger = Ledger::default();
        for question in 0..2 * QUESTIONS_MAX as u128 {
            let answered = answered(1, question, 1);
            assert_eq!(ledger.note(&answered), Noted::New);
            ledger.wait(Waiting { hook: [0; 32], generation: 0, answered, from: None });
        }
        assert_eq!((ledger.first.len(), ledger.order.len()), (QUESTIONS_MAX, QUESTIONS_MAX));
        assert_eq!(ledger.note(&answered(2, 0, 2)), Noted::New, "forgotten");
        assert_eq!(ledger.take(10).len(), 10);
        assert_eq!(ledger.take(usize::MAX).len(), TOLD_BYTES.div_ceil(100));
        while !ledger.take(usize::MAX).is_empty() {}
        assert!(ledger.is_quiet());
    }
}
