//! Gossip of every member's policies.
//!
//! A region reads keys under the table in force, which is a function of the tables of all members; so each
//! has to know them all, also those it has no link with. A member tells its table when it changes and when
//! a link stands; what is new is passed on once. Nothing is sent again while nothing changes.

use std::collections::BTreeMap;

use meridian_conflict::clock::{Hlc, RegionId};

use super::{CloseReason, Effect, Notice, Replica};
use crate::frame::{Announced, Control, POLICY_BYTES_MAX};

impl<B: AsRef<[u8]>> Replica<B> {
    /// This region's policies are those of `table` from now on, told at `now` by its clock; `digest` is of what
    /// has to be alike in all regions.
    pub fn handle_policies(&mut self, now: Hlc, digest: u64, table: Vec<u8>) {
        self.settings.policy_digest = digest;
        let told = self.announced.get(&self.region).map_or(now, |before| now.max(Hlc(before.told.0 + 1)));
        self.announce(Announced { region: self.region, told, table }, None);
    }

    /// The policies of every member that is known and waited for, this region among them, encoded.
    pub fn policies(&self) -> impl Iterator<Item = (RegionId, &[u8])> {
        let counts = |region: &RegionId| {
            *region == self.region || (self.router.is_peer(*region) && !self.stability.is_fenced(*region))
        };
        self.announced
            .iter()
            .filter(move |(region, _)| counts(region))
            .map(|(region, announced)| (*region, announced.table.as_slice()))
    }

    /// A peer tells what it knows of somebody's policies.
    pub(super) fn take_policies(&mut self, peer: RegionId, announced: Announced) {
        if announced.table.len() > POLICY_BYTES_MAX {
            return self.close(peer, CloseReason::Protocol("policies are too long"));
        }
        let newer = |known: &Announced| announced.told > known.told;
        if !self.announced.get(&announced.region).is_none_or(newer) {
            return;
        }
        if announced.region == self.region {
            // From a life whose clock was ahead of this one's: it would hide what is true now.
            if let Some(own) = self.announced.get(&self.region) {
                let told = Hlc(announced.told.0.saturating_add(1));
                self.announce(Announced { told, ..own.clone() }, None);
            }
        } else if self.router.is_peer(announced.region) {
            self.announce(announced, Some(peer));
            self.effects.push_back(Effect::Notice(Notice::PoliciesHeard));
        }
    }

    /// Keeps what somebody's policies are and tells all peers but `except`.
    fn announce(&mut self, announced: Announced, except: Option<RegionId>) {
        let greeted = self.links.iter().filter(|(_, link)| link.greeted.is_some());
        let peers: Vec<RegionId> =
            greeted.map(|(peer, _)| *peer).filter(|peer| Some(*peer) != except).collect();
        for peer in peers {
            self.send(peer, Control::Policies(announced.clone()));
        }
        self.announced.insert(announced.region, announced);
    }

    /// A new peer is told everything.
    pub(super) fn introduce_policies(&mut self, peer: RegionId) {
        let known: Vec<Announced> = self.announced.values().cloned().collect();
        known.into_iter().for_each(|announced| self.send(peer, Control::Policies(announced)));
    }

    /// Regions that left have no say.
    pub(super) fn forget_policies_of_strangers(&mut self) {
        let announced = std::mem::take(&mut self.announced);
        let stays = |region: &RegionId| *region == self.region || self.router.is_peer(*region);
        self.announced =
            announced.into_iter().filter(|(region, _)| stays(region)).collect::<BTreeMap<_, _>>();
    }
}
