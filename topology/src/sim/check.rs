//! What has to hold in every run.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::clock::{Dot, Hlc, Origin, Seen, VersionVector, covers};
use meridian_conflict::digest::digest;
use meridian_conflict::op::Op;

use super::process::{Body, Objects, apply};
use super::random::mix;
use crate::sequence::{Position, Sequencer};

/// What is known of all ops and clients over a whole run, crashes or not.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What is in each op that left its region or was safe there.
    contents: BTreeMap<(Origin, u64), (u64, Op<Body>)>,
    /// Written by a region that every member knew to be removed.
    outside: BTreeSet<(Origin, u64)>,
    /// Acknowledged to a client.
    acknowledged: BTreeSet<(Origin, u64)>,
    /// By region: the last reading given to an op.
    clocks: BTreeMap<usize, Hlc>,
}

fn fingerprint(op: &Op<Body>) -> u64 {
    let words = op
        .body
        .chunks(8)
        .map(|chunk| chunk.iter().fold(chunk.len() as u64, |word, byte| (word << 8) | u64::from(*byte)));
    words.fold(mix(op.header.hlc.0), |sum, word| mix(sum ^ word))
}

impl History {
    /// A dot stands for one content for ever.
    pub(super) fn register(&mut self, op: &Op<Body>) -> Result<(), String> {
        let Dot { actor, counter } = op.header.dot;
        let found = fingerprint(op);
        let known = self.contents.entry((actor, counter)).or_insert_with(|| (found, op.clone())).0;
        if known == found { Ok(()) } else { Err(format!("dot {counter} of {actor} was used twice")) }
    }

    /// What all ops that `applied` includes lead to.
    pub(super) fn fold(&self, applied: &VersionVector) -> Result<Objects, String> {
        fold(|origin, sequence| self.contents.get(&(origin, sequence)).map(|(_, op)| op), applied)
    }

    pub(super) fn written_outside(&mut self, dot: &Dot) {
        self.outside.insert((dot.actor, dot.counter));
    }

    pub(super) fn is_outside(&self, dot: &Dot) -> bool {
        self.outside.contains(&(dot.actor, dot.counter))
    }

    pub(super) fn acknowledge(&mut self, dot: &Dot) {
        self.acknowledged.insert((dot.actor, dot.counter));
    }

    pub(super) fn stamped(&mut self, region: usize, hlc: Hlc) -> Result<(), String> {
        match self.clocks.insert(region, hlc) {
            Some(before) if before >= hlc => {
                Err(format!("clock of region {region} went back from {before:?} to {hlc:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What was acknowledged and is not `safe` anywhere is no loss to blame anybody for.
    pub(super) fn excuse(&mut self, safe: impl Fn(&Dot) -> bool) {
        self.acknowledged.retain(|(actor, counter)| safe(&Dot::new(*actor, *counter)));
    }

    /// A region starts with nothing, or with an old copy: its clock, too.
    pub(super) fn begun_anew(&mut self, region: usize) {
        self.clocks.remove(&region);
    }

    /// A restored region begins to write: what it has lost and nobody has heard of may be named
    /// anew.
    pub(super) fn forget_unheard(
        &mut self,
        origin: Origin,
        applied: &VersionVector,
        heard: impl Fn(&Dot) -> bool,
    ) {
        self.contents.retain(|(actor, counter), _| {
            let dot = Dot::new(*actor, *counter);
            *actor != origin || covers(applied, &dot) || heard(&dot)
        });
    }

    pub(super) fn all_acknowledged_in(&self, region: usize, applied: &VersionVector) -> Result<(), String> {
        match self.acknowledged.iter().find(|dot| applied.get(&dot.0) < dot.1) {
            None => Ok(()),
            Some((origin, n)) => Err(format!("acknowledged op {n} of {origin} is lost in region {region}")),
        }
    }
}

/// Two states have to be the same, to readers and in full.
pub(super) fn same(what: &str, a: &Objects, b: &Objects, now_ms: u64) -> Result<(), String> {
    let show = |objects: &Objects| {
        let digests = objects.iter().map(|((db, key), object)| digest(*db, key, object, now_ms));
        digests.fold(0u128, u128::wrapping_add)
    };
    if show(a) != show(b) {
        return Err(format!("{what}: what shows differs"));
    }
    for key in a.keys().chain(b.keys()) {
        if a.get(key) != b.get(key) {
            let name = String::from_utf8_lossy(&key.1).into_owned();
            return Err(format!("{what}: state of {name} differs:\n{:?}\n{:?}", a.get(key), b.get(key)));
        }
    }
    Ok(())
}

/// What ops lead to, in another order than any region's: origin by origin, as far as their deps allow.
fn fold<'a>(
    op: impl Fn(Origin, u64) -> Option<&'a Op<Body>>,
    upto: &VersionVector,
) -> Result<Objects, String> {
    let mut sequencer = Sequencer::recover(Origin(0), Position::default());
    let mut objects = Objects::new();
    let origins: Vec<Origin> = upto.iter().map(|dot| *dot.actor).collect();
    while sequencer.applied() != upto {
        let mut moved = false;
        for origin in &origins {
            while sequencer.applied().get(origin) < upto.get(origin) {
                let next = sequencer.applied().get(origin) + 1;
                let op = op(*origin, next).ok_or(format!("op {next} of {origin} was never written"))?;
                let mut deps = op.header.deps.iter();
                if !deps.all(|(o, s)| o == origin || sequencer.applied().get(o) >= *s) {
                    break;
                }
                if let Some(deps) = sequencer.replay(&op.header).map_err(|e| format!("fold: {e}"))? {
                    let seen = Seen::Vector { deps, dot: op.header.dot };
                    apply(&mut objects, &op.header, &op.body, seen, false, Origin(0), |_| {})?;
                }
                moved = true;
            }
        }
        if !moved {
            return Err("ops depend on each other in a circle".into());
        }
    }
    Ok(objects)
}
