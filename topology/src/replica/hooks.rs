//! Comparing what hooks answered, and gossip of those that are in quarantine.
//!
//! Answers are told to every neighbour but the one they came from, a few at a time; a difference that is found
//! anywhere confines the hook, and that is told on at once. See [`crate::ledger`] and
//! [`meridian_conflict::hook::quarantine`].

use std::collections::BTreeMap;

use meridian_conflict::clock::RegionId;
use meridian_conflict::hook::quarantine::{Entry, MAX_ENTRIES, Quarantine, Reason};

use super::{CloseReason, Effect, Notice, Replica};
use crate::frame::{ANSWERS_MAX, Answered, Answers, Control};
use crate::ledger::{Noted, Waiting};
use crate::time::{MonoMs, WallMs};

/// How often answers are told.
const TELL_EVERY_MS: u64 = 250;

impl<B: AsRef<[u8]>> Replica<B> {
    /// This region's hook has answered. How far the answer goes is not up to the caller: `hops` is set here.
    pub fn handle_answer(
        &mut self,
        now: MonoMs,
        wall: WallMs,
        hook: [u8; 32],
        generation: u64,
        answered: Answered,
    ) {
        if self.judge(wall, hook, generation, &answered) {
            let others = self.router.members().count().saturating_sub(1);
            let answered = Answered { hops: u8::try_from(others).unwrap_or(u8::MAX), ..answered };
            self.tell_later(now, Waiting { hook, generation, answered, from: None });
        }
    }

    /// What is known here of hooks in quarantine; it is told on as far as it is news.
    pub fn handle_quarantine(&mut self, known: &Quarantine) {
        self.learn(known.entries(), None);
    }

    /// What is known of hooks in quarantine.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// How many answers of two regions were equal so far.
    pub fn answers_compared(&self) -> u64 {
        self.ledger.compared()
    }

    /// A peer tells what it or others asked a hook.
    pub(super) fn take_answers(&mut self, now: MonoMs, wall: WallMs, peer: RegionId, answers: Answers) {
        if answers.answers.len() > ANSWERS_MAX {
            return self.close(peer, CloseReason::Protocol("too many answers at once"));
        }
        let Answers { hook, generation, answers } = answers;
        for answered in answers {
            let known = answered.region == self.region || self.router.is_peer(answered.region);
            if known && self.judge(wall, hook, generation, &answered) {
                let hops = answered.hops.saturating_sub(1);
                let answered = Answered { hops, ..answered };
                let waiting = Waiting { hook, generation, answered, from: Some(peer) };
                self.effects.push_back(Effect::AskHook(waiting.clone()));
                if hops > 0 {
                    self.tell_later(now, waiting);
                }
            }
        }
    }

    /// A peer tells of hooks that were confined or released.
    pub(super) fn take_quarantine(&mut self, peer: RegionId, entries: Vec<Entry>) {
        if entries.len() > MAX_ENTRIES {
            return self.close(peer, CloseReason::Protocol("too many hooks in quarantine"));
        }
        self.learn(entries, Some(peer));
    }

    /// A new peer is told everything; and what waited because there was none.
    pub(super) fn introduce_quarantine(&mut self, now: MonoMs, peer: RegionId) {
        if !self.ledger.is_quiet() {
            self.answers_at.get_or_insert(now);
        }
        if !self.quarantine.is_empty() {
            self.send(peer, Control::Quarantine(self.quarantine.entries().collect()));
        }
    }

    /// Whether the answer is news. One that contradicts another confines the hook.
    fn judge(&mut self, wall: WallMs, hook: [u8; 32], generation: u64, answered: &Answered) -> bool {
        match self.ledger.note(answered) {
            Noted::New => true,
            Noted::Same => false,
            Noted::Differs { region, answer } => {
                let answers = [(region, answer), (answered.region, answered.answer)];
                let Answered { database, key, subject, question, .. } = answered;
                let reason = Reason::new(wall.0, (*database, key, subject), *question, answers);
                if self.quarantine.confine(hook, generation, reason) {
                    let confined: Vec<Entry> =
                        self.quarantine.entries().filter(|entry| entry.hook == hook).collect();
                    self.gossip(&confined, None);
                } else if self.quarantine.is_full_for(&hook) {
                    self.effects.push_back(Effect::Notice(Notice::QuarantineFull { hook }));
                }
                false
            }
        }
    }

    fn learn(&mut self, entries: impl IntoIterator<Item = Entry>, from: Option<RegionId>) {
        let (mut news, mut left_out) = (Vec::new(), None);
        for entry in entries {
            if self.quarantine.join(entry.clone()) {
                news.push(entry);
            } else if entry.reason.is_some() && self.quarantine.is_full_for(&entry.hook) {
                left_out = Some(entry.hook);
            }
        }
        if let Some(hook) = left_out {
            self.effects.push_back(Effect::Notice(Notice::QuarantineFull { hook }));
        }
        if !news.is_empty() {
            self.gossip(&news, from);
        }
    }

    fn gossip(&mut self, news: &[Entry], except: Option<RegionId>) {
        for peer in self.greeted_peers().filter(|peer| Some(*peer) != except).collect::<Vec<_>>() {
            self.send(peer, Control::Quarantine(news.to_vec()));
        }
        self.effects.push_back(Effect::Notice(Notice::QuarantineHeard));
    }

    fn greeted_peers(&self) -> impl Iterator<Item = RegionId> {
        self.links.iter().filter(|(_, link)| link.greeted.is_some()).map(|(peer, _)| *peer)
    }

    fn tell_later(&mut self, now: MonoMs, waiting: Waiting) {
        self.ledger.wait(waiting);
        self.answers_at.get_or_insert(now.after(TELL_EVERY_MS));
    }

    /// Tells some of the answers that wait.
    pub(super) fn tell_answers(&mut self, now: MonoMs) {
        let peers: Vec<RegionId> = self.greeted_peers().collect();
        if peers.is_empty() {
            self.answers_at = None;
            return;
        }
        let told = self.ledger.take(ANSWERS_MAX);
        for peer in peers {
            let mut by_hook: BTreeMap<([u8; 32], u64), Vec<Answered>> = BTreeMap::new();
            for waiting in told.iter().filter(|waiting| waiting.from != Some(peer)) {
                let asked = by_hook.entry((waiting.hook, waiting.generation)).or_default();
                asked.push(waiting.answered.clone());
            }
            for ((hook, generation), answers) in by_hook {
                self.send(peer, Control::Answers(Answers { hook, generation, answers }));
            }
        }
        self.answers_at = (!self.ledger.is_quiet()).then(|| now.after(TELL_EVERY_MS));
    }
}
