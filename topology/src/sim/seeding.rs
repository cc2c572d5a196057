//! Takeovers: what a region keeps of one that it makes, and of those it gives to.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{RegionId, VersionVector};
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use xxhash_rust::xxh3::xxh3_64;

use super::process::Key;
use crate::replica::PeerStatus;
use crate::seed::{Assembler, Cursor, Record, SEED_VERSION, SeedFormatError};
use crate::sequence::Position;
use crate::takeover::Lack;

/// The simulator writes to one database.
pub(super) const DATABASES: u8 = 1;

/// The longest record.
const RECORD_MAX: usize = 1 << 20;

/// Where a takeover stands, on disk: no clients are served until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Objects are being merged: whose, what will be adopted, everything before is merged, and what the
    /// objects merged so far may include.
    Merging { donor: RegionId, begin: Option<Position>, from: Cursor, ahead: VersionVector },
    /// All are merged; ops up to here are still to be applied.
    CatchingUp { until: VersionVector },
}

impl Stage {
    /// Whose objects are being merged.
    pub(super) fn donor(&self) -> Option<RegionId> {
        match self {
            Self::Merging { donor, .. } => Some(*donor),
            Self::CatchingUp { .. } => None,
        }
    }

    /// What has to be applied before clients are served.
    pub(super) fn wanted(&self) -> &VersionVector {
        match self {
            Self::Merging { ahead, .. } => ahead,
            Self::CatchingUp { until } => until,
        }
    }
}

/// What a process knows of takeovers.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// Where it stands: at least what the disk says.
    pub(super) stage: Option<Stage>,
    /// A stream that was asked for, and what comes on it.
    pub(super) stream: Option<u64>,
    /// Its number: what an earlier one left under way is of no use.
    pub(super) number: u64,
    pub(super) merging: Option<Merging>,
    /// Where the donor that keeps its log for us is told that it need not.
    pub(super) lease: Option<u64>,
    /// Who does not serve us, since when.
    pub(super) refused: BTreeMap<RegionId, u64>,
    /// Since when nobody has what is waited for.
    pub(super) lack: Lack,
    /// Some of it is lost: somebody is looked for to begin anew from.
    pub(super) lost: bool,
    /// How many were asked for that, or because the donor is gone.
    pub(super) asked: usize,
    pub(super) started: u64,
    /// When the process began.
    pub(super) born: u64,
    pub(super) retry_at: u64,
    /// To whom this region gives, by connection.
    pub(super) donations: BTreeMap<u64, Donation>,
}

impl Takeover {
    pub(super) fn is_running(&self) -> bool {
        self.stream.is_some()
    }

    /// Another peer every time: one may be loading itself.
    pub(super) fn next_of(&mut self, peers: &[&PeerStatus]) -> Option<RegionId> {
        self.asked += 1;
        let at = self.asked.checked_rem(peers.len())?;
        peers.get(at).map(|status| status.peer)
    }

    /// Whether ops may be applied: not on objects that a merge has brought further than the applied vector says. What is
    /// left unheard comes again.
    pub(super) fn takes_ops(&self) -> bool {
        !self.is_running() && !matches!(self.stage, Some(Stage::Merging { .. }))
    }

    pub(super) fn least_pin(&self) -> Option<usize> {
        self.donations.values().map(|donation| donation.pin).min()
    }
}

/// The merging of one stream.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) donor: RegionId,
    pub(super) begin: Position,
    /// What is applied here, all the time.
    pub(super) ours: VersionVector,
    pub(super) cursor: Cursor,
    pub(super) ahead: VersionVector,
    /// The object whose elements are coming.
    pub(super) open: Option<(Key, Object)>,
    /// Keys that came since the cursor.
    pub(super) came: BTreeSet<Key>,
}

impl Merging {
    pub(super) fn stage(&self) -> Stage {
        let (begin, ahead) = (Some(self.begin.clone()), self.ahead.clone());
        Stage::Merging { donor: self.donor, begin, from: self.cursor, ahead }
    }
}

/// What goes to one receiver.
#[derive(Clone, Debug)]
pub(super) struct Donation {
    /// The number of the request.
    pub(super) number: u64,
    /// The log is kept from here.
    pub(super) pin: usize,
    /// Empty when the receiver goes on with the one it has.
    pub(super) position: Vec<u8>,
    pub(super) from: Cursor,
    pub(super) begun: bool,
    pub(super) ended: bool,
}

pub(super) fn hash(key: &Key) -> u64 {
    xxh3_64(&key.1)
}

/// Where a key with this hash would be, or what follows the last one.
pub(super) fn cursor_of(hash: Option<u64>) -> Cursor {
    let place = |hash: u64| Cursor { range: (hash >> 60) as u8, database: 0, hash };
    hash.map_or(Cursor::END, place)
}

pub(super) fn assembler() -> Assembler {
    Assembler::new(RECORD_MAX)
}

/// Records as they travel.
pub(super) fn stream(records: &[Record<'_>]) -> Result<Vec<u8>, String> {
    let mut bytes = vec![SEED_VERSION];
    records
        .iter()
        .try_for_each(|record| record.encode(&mut bytes))
        .map_err(|e: SeedFormatError| e.to_string())?;
    Ok(bytes)
}

/// An object's rows.
pub(super) struct Rows {
    pub(super) head: Vec<u8>,
    pub(super) elements: Vec<(Facet, Vec<u8>, Vec<u8>)>,
}

impl Rows {
    pub(super) fn of(object: &Object) -> Self {
        let (mut head, mut elements) = (Vec::new(), Vec::new());
        object.encode_head(&mut head);
        for facet in [Facet::Hash, Facet::Set, Facet::SortedSet] {
            let mut record = Vec::new();
            let mut at = 0;
            while let Some(element) = object.encode_element_at(facet, at, &mut record) {
                elements.push((facet, element.to_vec(), std::mem::take(&mut record)));
                at += 1;
            }
        }
        Self { head, elements }
    }

    pub(super) fn records<'a>(&'a self, key: &'a Key) -> Vec<Record<'a>> {
        let object = Record::Object { database: key.0, key: &key.1, head: &self.head };
        let elements = self.elements.iter().map(|(facet, element, record)| Record::Element {
            facet: *facet as u8,
            element,
            record,
        });
        [object].into_iter().chain(elements).collect()
    }
}
