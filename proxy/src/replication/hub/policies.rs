//! Telling the other regions which policies this one has, and hearing theirs.

use meridian_conflict::clock::RegionId;
use meridian_conflict::policy::PolicyTable;

use super::Hub;

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
}
