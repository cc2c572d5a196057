//! What a replica keeps of one connected peer.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Origin, RegionId, VersionVector, raise};

use super::status::{Hold, Phase};
use crate::frame::{Echo, Heartbeat, Hello, Protocol, Row};
use crate::time::{MonoMs, WallMs};

/// First and longest time between tries while held ops fill their memory.
const PROBE_MS: u64 = 1_000;
const PROBE_MS_MAX: u64 = 32_000;

/// The subscription that brings ops in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// None: not fed by this peer, or no hello yet.
    None,
    /// Ops flow.
    Open {
        id: u64,
        /// Opened though memory is full: what cannot be delivered is dropped, so that the op
        /// everything waits for is reached even if it stands behind others.
        skimming: bool,
        /// Something was dropped: the subscription has to be taken up anew.
        dropped: bool,
        last_batch: MonoMs,
    },
    Held {
        hold: Hold,
        retry_at: MonoMs,
    },
}

/// What stays of a peer's hello.
#[derive(Clone, Debug)]
pub(super) struct Greeted {
    pub(super) protocol: Protocol,
    pub(super) origin: Origin,
    pub(super) topology_digest: u64,
    pub(super) policy_digest: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) session: u64,
    pub(super) since: MonoMs,
    pub(super) greeted: Option<Greeted>,
    pub(super) last_heard: MonoMs,
    pub(super) silent: bool,
    pub(super) heartbeat_at: MonoMs,
    pub(super) intake: Intake,
    pub(super) probe_ms: u64,
    /// The subscription the peer has with us.
    pub(super) feed: Option<u64>,
    pub(super) acknowledged: VersionVector,
    /// What the peer is known to know of each region.
    pub(super) rows_known: BTreeMap<RegionId, Row>,
    /// Rows that rose since they were sent; the own one apart, as it rises with every flush.
    pub(super) rows_risen: BTreeSet<RegionId>,
    pub(super) own_risen: bool,
    pub(super) rows_sent_at: Option<MonoMs>,
    pub(super) rows_at: Option<MonoMs>,
    pub(super) peer_applied: VersionVector,
    pub(super) via: Vec<u128>,
    pub(super) round_trip_ms: Option<u64>,
    pub(super) clock_offset_ms: Option<i64>,
    /// When the peer refused a subscription last.
    pub(super) refused_at: Option<MonoMs>,
    /// Since when nobody needs this link.
    pub(super) unneeded_since: Option<MonoMs>,
    heartbeat: Option<(MonoMs, MonoMs)>,
}

impl Link {
    pub(super) fn new(now: MonoMs, session: u64) -> Self {
        Self {
            session,
            since: now,
            greeted: None,
            last_heard: now,
            silent: false,
            heartbeat_at: now,
            intake: Intake::None,
            probe_ms: PROBE_MS,
            feed: None,
            acknowledged: VersionVector::new(),
            rows_known: BTreeMap::new(),
            rows_risen: BTreeSet::new(),
            own_risen: true,
            rows_sent_at: None,
            rows_at: None,
            peer_applied: VersionVector::new(),
            via: Vec::new(),
            round_trip_ms: None,
            clock_offset_ms: None,
            refused_at: None,
            unneeded_since: None,
            heartbeat: None,
        }
    }

    pub(super) fn greet(&mut self, hello: &Hello, protocol: Protocol) {
        self.greeted = Some(Greeted {
            protocol,
            origin: hello.origin,
            topology_digest: hello.topology_digest,
            policy_digest: hello.policy_digest,
        });
        merge(&mut self.peer_applied, &hello.applied);
    }

    pub(super) fn phase(&self) -> Phase {
        match (&self.greeted, self.intake) {
            (None, _) => Phase::Greeting,
            (Some(_), Intake::Held { hold, .. }) => Phase::Held(hold),
            (Some(_), _) => Phase::Up,
        }
    }

    /// Takes a heartbeat's measurements. Returns whether the peer's topology has changed.
    pub(super) fn heartbeat(&mut self, now: MonoMs, wall: WallMs, heartbeat: &Heartbeat) -> bool {
        self.heartbeat = Some((heartbeat.sent, now));
        if let Some(echo) = heartbeat.echo {
            self.round_trip_ms = Some(now.since(echo.sent).saturating_sub(echo.held_ms));
        }
        let one_way = self.round_trip_ms.unwrap_or(0) / 2;
        let theirs = i128::from(heartbeat.wall.0) + i128::from(one_way);
        self.clock_offset_ms = i64::try_from(theirs - i128::from(wall.0)).ok();
        merge(&mut self.peer_applied, &heartbeat.applied);
        self.via.clone_from(&heartbeat.via);
        let Some(greeted) = &mut self.greeted else { return false };
        greeted.policy_digest = heartbeat.policy_digest;
        std::mem::replace(&mut greeted.topology_digest, heartbeat.topology_digest)
            != heartbeat.topology_digest
    }

    pub(super) fn echo(&self, now: MonoMs) -> Option<Echo> {
        self.heartbeat.map(|(sent, heard)| Echo { sent, held_ms: now.since(heard) })
    }

    /// Rows have to be sent soon, but not too often.
    pub(super) fn send_rows_soon(&mut self, now: MonoMs, every_ms: u64) {
        let at = self.rows_sent_at.map_or(now, |sent| sent.after(every_ms)).max(now);
        self.rows_at = Some(self.rows_at.map_or(at, |before| before.min(at)));
    }

    /// When to try again while memory is full: later each time.
    pub(super) fn next_probe(&mut self, now: MonoMs) -> MonoMs {
        let at = now.after(self.probe_ms);
        self.probe_ms = self.probe_ms.saturating_mul(2).min(PROBE_MS_MAX);
        at
    }

    pub(super) fn reset_probe(&mut self) {
        self.probe_ms = PROBE_MS;
    }
}

/// What outlives a connection: which processes have presented a peer's identity.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    current: Option<(Origin, u64)>,
    /// Since when.
    since: MonoMs,
    former: Vec<(Origin, u64)>,
    refused: BTreeSet<u64>,
    pub(super) confirmed: bool,
}

/// What a hello's boot number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Fine,
    /// A new process of the peer.
    Restarted,
    /// What a former process sent before it ended, late: the one that took its place goes on.
    Echo,
    /// This process is a second holder of an identity, and is refused.
    Second,
    /// The first holder came back: the one that took its place is refused from now on.
    FirstIsBack,
}

impl Holders {
    /// How many former processes are remembered.
    const FORMER_MAX: usize = 8;

    /// So long after a process took another's place what the former had sent may still be under way.
    const ECHO_MS: u64 = 5_000;

    /// A restart ends the former process, so a former process that comes back shows that two run
    /// at once; but not at once, for its last words may have been overtaken. Whoever lives comes again.
    pub(super) fn present(&mut self, now: MonoMs, origin: Origin, boot: u64) -> Holder {
        let holder = (origin, boot);
        if self.refused.contains(&boot) {
            return Holder::Second;
        }
        if self.current == Some(holder) {
            return Holder::Fine;
        }
        if self.current.is_some() && self.former.contains(&holder) && now.since(self.since) < Self::ECHO_MS {
            return Holder::Echo;
        }
        self.since = now;
        let Some(current) = self.current.replace(holder) else { return Holder::Fine };
        if let Some(at) = self.former.iter().position(|former| *former == holder) {
            self.former.remove(at);
            if current.0 == origin {
                self.refused.insert(current.1);
                return Holder::FirstIsBack;
            }
            return Holder::Restarted;
        }
        self.former.push(current);
        if self.former.len() > Self::FORMER_MAX {
            self.former.remove(0);
        }
        Holder::Restarted
    }
}

/// Raises `into` to include `other`.
pub(super) fn merge(into: &mut VersionVector, other: &VersionVector) {
    for dot in other.iter() {
        raise(into, *dot.actor, dot.counter);
    }
}

/// How many ops `ahead` has that `behind` has not.
pub(super) fn distance(ahead: &VersionVector, behind: &VersionVector) -> u64 {
    ahead.iter().map(|dot| dot.counter.saturating_sub(behind.get(dot.actor))).fold(0, u64::saturating_add)
}
