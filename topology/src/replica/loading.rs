//! While another region's state is taken over ([`crate::takeover`]).

use meridian_conflict::clock::{RegionId, VersionVector};

use super::Replica;
use super::link::Link;
use crate::frame::{Control, Refusal};
use crate::time::MonoMs;

impl<B: AsRef<[u8]>> Replica<B> {
    /// This region takes over another's state, and had durably applied `base` before: until that is over (`None`) it
    /// counts as having nothing else, for what it takes may yet have to be given up ([`crate::takeover`]). A
    /// replica made meanwhile is told before anything else.
    pub fn handle_loading(&mut self, base: Option<VersionVector>) {
        if let Some(base) = &base {
            self.stability.own_at_most(base);
        }
        self.base = base;
    }

    /// A region that merges objects of `donor` keeps a link to it, whatever the topology has become.
    pub fn handle_donor(&mut self, now: MonoMs, donor: Option<RegionId>) {
        if self.donor != donor {
            self.donor = donor;
            self.tell_dials();
            self.find_unneeded(now);
        }
    }

    /// What of `durable` may be told.
    pub(super) fn told(&self, durable: &VersionVector) -> VersionVector {
        let mut told = durable.clone();
        if let Some(base) = &self.base {
            told.glb(base);
        }
        told
    }

    /// A feed has come to where the log jumps over what its subscriber lacks. What it sent before is good.
    pub fn handle_feed_past_log(&mut self, now: MonoMs, peer: RegionId, session: u64, subscription: u64) {
        let feeds = |link: &Link| link.feed == Some(subscription);
        if self.is_current(peer, session) && self.links.get(&peer).is_some_and(feeds) {
            self.stop_feed(peer, Some(subscription));
            self.send(peer, Control::SubscribeRefused { id: subscription, reason: Refusal::PastLog });
            self.find_unneeded(now);
        }
    }
}
