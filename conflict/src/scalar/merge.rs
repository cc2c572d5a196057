//! Merging the states of two replicas.

use thin_vec::ThinVec;

use super::{DeltaSum, Merged, Scalar, ScalarValue, Sibling};
use crate::clock::{Stamp, VersionVector, covers};

impl<V: ScalarValue> Scalar<V> {
    /// Merges the state `other` of a replica that had applied `theirs` into this one, of a replica
    /// that had applied `ours`.
    pub fn merge(&mut self, ours: &VersionVector, other: &Scalar<V>, theirs: &VersionVector) -> Merged {
        let kept = |s: &Sibling<V>| other.siblings().iter().any(|o| o.stamp == s.stamp);
        let removed = self.retain(|s| kept(s) || !covers(theirs, &s.stamp.dot)) > 0;
        let mut merged = Merged { changed: removed, clashes: self.clashes(ours, other, theirs) };
        for sibling in other.siblings() {
            if !covers(ours, &sibling.stamp.dot) {
                merged.changed |= self.insert(sibling.clone());
            }
        }
        merged.changed |= self.merge_deltas(ours, other.deltas(), theirs);
        merged
    }

    /// What each side has and the other had not applied, where the two exclude each other.
    fn clashes(
        &self,
        ours: &VersionVector,
        other: &Scalar<V>,
        theirs: &VersionVector,
    ) -> Vec<(Stamp, Stamp)> {
        let unknown_here =
            |stamp: &Stamp| !covers(ours, &stamp.dot) && self.siblings().iter().all(|s| s.stamp != *stamp);
        let unknown_there =
            |stamp: &Stamp| !covers(theirs, &stamp.dot) && other.siblings().iter().all(|s| s.stamp != *stamp);
        let mut clashes = Vec::new();
        for new in other.siblings().iter().filter(|s| unknown_here(&s.stamp)) {
            let values = self.siblings().iter().filter(|s| s.value != new.value).map(|s| s.stamp);
            let odd = if self.deltas.is_empty() || new.value.is_number() { &[][..] } else { self.deltas() };
            let deltas = odd.iter().filter(|d| d.is_live()).map(|d| d.stamp);
            clashes.extend(values.chain(deltas).filter(unknown_there).map(|rival| (rival, new.stamp)));
        }
        if !other.deltas.is_empty() {
            for mine in self.siblings().iter().filter(|s| unknown_there(&s.stamp) && !s.value.is_number()) {
                let known =
                    |d: &DeltaSum| self.deltas().iter().any(|k| k.origin == d.origin && k.last >= d.last);
                let new = other.deltas().iter().filter(|d| d.is_live() && !covers(ours, &d.stamp.dot));
                clashes.extend(new.filter(|d| !known(d)).map(|d| (mine.stamp, d.stamp)));
            }
        }
        clashes
    }

    /// A sum that one side lacks although it has applied the sum's last delta was swallowed in every
    /// region and reclaimed there: it goes, or does not come back. A sum goes on from one that was
    /// reclaimed only as a fresh one, because its origin had seen the old one swallowed.
    fn merge_deltas(&mut self, ours: &VersionVector, other: &[DeltaSum], theirs: &VersionVector) -> bool {
        let covered = |vector: &VersionVector, sum: &DeltaSum| vector.get(&sum.origin) >= sum.last.sequence;
        let find = |sums: &[DeltaSum], origin| sums.binary_search_by_key(&origin, |d: &DeltaSum| d.origin);
        let before = self.deltas.len();
        self.deltas.retain(|d| find(other, d.origin).is_ok() || !covered(theirs, d));
        let mut changed = self.deltas.len() != before;
        for sum in other {
            match find(&self.deltas, sum.origin) {
                Ok(at) => {
                    let Some(known) = self.deltas.get_mut(at) else { continue };
                    if sum.last > known.last {
                        (known.stamp, known.last, known.total) = (sum.stamp, sum.last, sum.total.clone());
                        changed = true;
                    }
                    changed |= known.swallow(sum.seen, &sum.seen_total);
                }
                Err(_) if covered(ours, sum) => {}
                Err(at) => {
                    self.deltas.insert(at, sum.clone());
                    changed = true;
                }
            }
        }
        if self.deltas.is_empty() {
            self.deltas = ThinVec::new();
        }
        changed
    }
}
