//! Who the peer is, and whether it can be true.

use meridian_conflict::clock::{Dot, RegionId, VersionVector};

use super::link::Holder;
use super::status::Amnesia;
use super::{CloseReason, Effect, Notice, Replica};
use crate::frame::{Hello, Protocol};
use crate::time::MonoMs;

impl<B: AsRef<[u8]>> Replica<B> {
    pub(super) fn hello(&mut self, now: MonoMs, peer: RegionId, hello: &Hello) {
        let protocol = match self.check_hello(peer, hello) {
            Ok(protocol) => protocol,
            Err(reason) => return self.close(peer, reason),
        };
        if !self.believes(peer, &hello.applied) || !self.believes(peer, &hello.held) {
            return;
        }
        match self.holders.entry(peer).or_default().present(now, hello.origin, hello.boot) {
            Holder::Fine => {}
            Holder::Restarted => self.forget_held_soon(now),
            Holder::FirstIsBack => self.effects.push_back(Effect::Notice(Notice::SecondHolder { peer })),
            Holder::Echo => return self.close(peer, CloseReason::Replaced),
            Holder::Second => {
                self.effects.push_back(Effect::Notice(Notice::SecondHolder { peer }));
                self.close(peer, CloseReason::SecondHolder);
                return;
            }
        }
        self.holders.entry(peer).or_default().confirmed = true;
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.greet(hello, protocol);
        let (topology, policies) = (
            hello.topology_digest != self.topology_digest,
            hello.policy_digest != self.settings.policy_digest,
        );
        self.effects.push_back(Effect::Notice(Notice::Up { peer }));
        if topology || policies {
            self.effects.push_back(Effect::Notice(Notice::DigestsDiffer { peer, topology, policies }));
        }
        self.review(now);
        self.introduce_rows(now, peer);
        self.introduce_policies(peer);
        self.introduce_quarantine(now, peer);
    }

    fn check_hello(&self, peer: RegionId, hello: &Hello) -> Result<Protocol, CloseReason> {
        if hello.cluster != self.settings.cluster {
            return Err(CloseReason::WrongCluster);
        }
        if hello.origin == self.origin || hello.region == self.settings.region.as_str() {
            return Err(CloseReason::OwnIdentity);
        }
        if RegionId::of(&hello.region) != peer || hello.origin.region() != peer {
            return Err(CloseReason::WrongRegion);
        }
        if self.retired.contains(&hello.origin) {
            return Err(CloseReason::Removed);
        }
        let (ours, theirs) = (self.settings.protocols, hello.protocols);
        ours.common(theirs).ok_or(CloseReason::NoCommonProtocol { ours, theirs })
    }

    /// Whether what the peer knows of our own origin can be true. If not, we have forgotten ops
    /// that others have: the present origin must not be used any more.
    pub(super) fn believes(&mut self, peer: RegionId, vector: &VersionVector) -> bool {
        self.believes_own(peer, vector.get(&self.origin))
    }

    pub(super) fn believes_own(&mut self, peer: RegionId, sequence: u64) -> bool {
        if sequence <= self.own_sequence {
            return true;
        }
        let known = Dot::new(self.origin, sequence);
        self.forgot(Amnesia { peer, known, remembered: self.own_sequence });
        false
    }
}
