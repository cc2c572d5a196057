//! What a region's own op log says: the second opinion on what the region did with it.

use std::collections::BTreeMap;
use std::path::Path;

use meridian_conflict::clock::{Origin, RegionId, Seen};
use meridian_conflict::digest::digest;
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{Effect, ElementBaseline, changes};
use meridian_conflict::outcome::{Conflict, Outcome, conflict_id};
use meridian_proxy::oplog;
use meridian_proxy::sequencer::read_record;
use meridian_topology::sequence::{Position, Sequencer};

/// The labels of `meridian_conflicts_total`: kind, rule, outcome, policy, type.
pub type Labels = [String; 5];

/// A whole op log, applied in order.
#[derive(Default)]
pub struct Folded {
    /// Conflicts by their labels.
    pub conflicts: BTreeMap<Labels, u64>,
    /// Every record by its origin and sequence number.
    pub records: BTreeMap<(Origin, u64), Vec<u8>>,
    objects: BTreeMap<(u8, Vec<u8>), Object>,
}

impl Folded {
    /// The digest of what shows at `now_ms`, as `MERIDIAN.DIGEST` prints it.
    pub fn digest(&self, now_ms: u64) -> String {
        let one =
            |((database, key), object): (&(u8, Vec<u8>), &Object)| digest(*database, key, object, now_ms);
        let sum = self.objects.iter().map(one).fold(0u128, u128::wrapping_add);
        format!("{sum:032x}")
    }

    fn apply(&mut self, body: &[u8], how: Applying<'_>) {
        // What an op meets at one place counts once, however often it writes there.
        let mut met = BTreeMap::new();
        for change in changes(body) {
            let change = change.unwrap();
            let mut note = |key: &[u8], outcome: Outcome| {
                for conflict in outcome.conflicts {
                    let (rival, arrived) = (&conflict.rival.dot, &conflict.arrived.dot);
                    let id = conflict_id(rival, arrived, change.database, key, &conflict.element);
                    met.insert(id, conflict);
                }
            };
            for effect in change.effects() {
                match effect.unwrap() {
                    Effect::Flush { baselines } => {
                        let all = self.objects.iter_mut();
                        for ((_, key), object) in
                            all.filter(|((database, _), _)| *database == change.database)
                        {
                            let of_key: Vec<ElementBaseline<'_>> = baselines
                                .iter()
                                .filter(|b| b.key == key)
                                .map(|b| b.element.clone())
                                .collect();
                            let mut outcome = Outcome::default();
                            object.apply_flush(&of_key, how, &mut outcome);
                            note(key, outcome);
                        }
                    }
                    effect => {
                        let object = self.objects.entry((change.database, change.key.to_vec())).or_default();
                        let mut outcome = Outcome::default();
                        object.apply(&effect, how, &mut outcome);
                        note(change.key, outcome);
                    }
                }
            }
        }
        met.values().for_each(|conflict| self.count(conflict));
    }

    fn count(&mut self, conflict: &Conflict) {
        let labels = [
            conflict.kind.name(),
            conflict.rule.name(),
            conflict.winner.name(),
            "crdt",
            conflict.facet.name(),
        ];
        *self.conflicts.entry(labels.map(str::to_owned)).or_default() += 1;
    }
}

/// Folds the log in `directory`, written by the region called `region`: ops of its own have seen all
/// that was there, ops of others what their deps say.
pub fn fold(directory: &Path, region: &str) -> Folded {
    let settings = oplog::Settings { max_record: 64 << 20, verify: oplog::Verify::All, ..Default::default() };
    let (opened, _) = oplog::open(directory, settings).unwrap();
    let first = opened.segments().first().map(|segment| segment.previous_end);
    assert_eq!(first, Some(oplog::Lsn(0)), "the log of {region} is not whole");
    let mut sequencer = Sequencer::recover(Origin(0), Position::default());
    let mut folded = Folded::default();
    let mut chunks = opened.replay(oplog::Lsn(0));
    while let Some(chunk) = chunks.next_chunk().unwrap() {
        for (lsn, record) in chunk.records() {
            let (header, body) = read_record(record).unwrap();
            let (origin, sequence) = (header.dot.actor, header.dot.counter);
            let known = folded.records.insert((origin, sequence), record.to_vec());
            assert!(known.is_none(), "{region} logged {origin}:{sequence} twice, again at {lsn}");
            let deps = sequencer.replay(&header).unwrap().expect("not yet applied").clone();
            let seen = if origin.region() == RegionId::of(region) {
                Seen::All
            } else {
                Seen::Vector { deps: &deps, dot: header.dot }
            };
            folded.apply(body, Applying { stamp: header.stamp(), seen });
        }
    }
    folded
}
