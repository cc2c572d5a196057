//! Telling the other regions which policies this one has and what its hooks answered, and hearing theirs.

use meridian_conflict::clock::RegionId;
use meridian_conflict::hook::quarantine::MAX_ENTRIES;
use meridian_conflict::policy::PolicyTable;
use meridian_topology::ledger::Waiting;

use super::Hub;
use crate::policies::book::hex;
use crate::policies::witness::Note;

impl Hub {
    /// Tells the other regions this one's policies.
    pub(super) fn tell_policies(&mut self) {
        let (own, mut table) = (self.region.policies().own(), Vec::new());
        own.encode(&mut table);
        let told = self.region.sequencer().progress_at(self.region.wall()).1;
        // As that of regions which know of no policies.
        let digest = if own.rules().is_empty() { 0 } else { own.digest() as u64 };
        self.replica.handle_policies(told, digest, table);
    }

    /// Has the policies of all regions decide which are in force.
    pub(super) fn compare_policies(&self) {
        let region = &self.region;
        let own = RegionId::of(region.settings().region.as_str());
        let others = self.replica.policies().filter(|(region, _)| *region != own);
        // Of a form that this program does not know: that region has to be understood before it has a say.
        let known = others.filter_map(|(_, table)| PolicyTable::decode(table).ok()).collect();
        region.policies().set_others(known, region.keyspace().policies());
    }

    /// Hands over what hooks have answered here.
    pub(super) fn tell_answers(&mut self) {
        let (now, wall) = (self.region.mono(), self.region.wall());
        for Note { asker, answered } in self.region.keyspace().policies().witness().take() {
            self.replica.handle_answer(now, wall, asker.hook, asker.generation, answered);
        }
        let compared = self.replica.answers_compared();
        self.region.metrics().hooks.answers_compared.inc_by(compared - self.compared);
        self.compared = compared;
    }

    /// Tells the other regions which hooks are in quarantine here.
    pub(super) fn tell_quarantine(&mut self) {
        self.replica.handle_quarantine(&self.region.policies().quarantine());
    }

    /// Puts in quarantine here what is elsewhere.
    pub(super) fn heed_quarantine(&self) {
        let known = self.replica.quarantine().entries();
        let members = self.region.membership();
        self.region.policies().learn(known, self.region.keyspace().policies(), &|id| members.name_of(id));
    }

    /// Says once that a hook goes on although it answers in two ways.
    pub(super) fn quarantine_is_full(&mut self, hook: &[u8; 32]) {
        if !std::mem::replace(&mut self.told_full, true) {
            tracing::error!(
                identity = hex(hook),
                most = MAX_ENTRIES,
                "the quarantine is full: a hook that gave two answers to one question goes on, and others will"
            );
        }
    }

    /// Has a hook asked here that was asked elsewhere, unless too many wait.
    pub(super) fn ask_hook(&self, waiting: Waiting) {
        if self.questions.try_send(waiting).is_err() {
            self.region.metrics().hooks.answers_unasked.inc();
        }
    }
}
