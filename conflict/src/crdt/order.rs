//! Members by score, then name, with ranks: what `ZRANGE` and `ZRANK` walk.
//!
//! A list of bounded runs. Finding a place is a binary search over runs and within one; a rank
//! adds up the lengths of the runs before it, some thousand additions in a set of a million.

use std::ops::Range;
use std::sync::Arc;

use crate::crdt::sorted_set::Score;

/// A run is split when it grows past this many entries, and merged away when it empties.
const RUN_MAX: usize = 256;

/// One ordered entry.
pub type Entry = (Score, Arc<[u8]>);

/// Entries in order of score, then bytes of the member.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// No run is empty.
    runs: Vec<Vec<Entry>>,
    /// The score of each run's last entry: side by side, so that a search stays in few cache lines.
    lasts: Vec<Score>,
    len: usize,
}

fn before(entry: &Entry, score: Score, member: &[u8]) -> bool {
    (entry.0, &*entry.1) < (score, member)
}

impl Order {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The run that holds, or would hold, the place, and the place in it.
    fn place(&self, score: Score, member: &[u8]) -> (usize, usize) {
        let low = self.lasts.partition_point(|last| *last < score);
        let equal = self.lasts.get(low..).unwrap_or_default().partition_point(|last| *last == score);
        let level = self.runs.get(low..low + equal).unwrap_or_default();
        let run = low + level.partition_point(|run| run.last().is_some_and(|e| before(e, score, member)));
        let at = self.runs.get(run).map_or(0, |r| r.partition_point(|e| before(e, score, member)));
        (run, at)
    }

    /// Adds an entry that is not there yet.
    pub fn insert(&mut self, score: Score, member: Arc<[u8]>) {
        let (mut run, mut at) = self.place(score, &member);
        if run == self.runs.len() {
            if run == 0 {
                self.runs.push(Vec::new());
            } else {
                run -= 1;
                at = self.runs.get(run).map_or(0, Vec::len);
            }
        }
        let Some(target) = self.runs.get_mut(run) else { return };
        target.insert(at, (score, member));
        self.len += 1;
        if target.len() > RUN_MAX {
            // Appending in order is common: leave the left run nearly full then.
            let cut = if at + 1 == target.len() { RUN_MAX * 7 / 8 } else { RUN_MAX / 2 };
            let right = target.split_off(cut);
            self.runs.insert(run + 1, right);
            self.lasts.insert(run + 1, score);
            self.note_last(run + 1);
        }
        self.note_last(run);
    }

    /// Notes the score of a run's last entry anew; a run that is empty goes.
    fn note_last(&mut self, run: usize) {
        let last = self.runs.get(run).and_then(|run| run.last()).map(|(score, _)| *score);
        match (last, self.lasts.get_mut(run)) {
            (Some(last), Some(noted)) => *noted = last,
            (Some(last), None) => self.lasts.push(last),
            (None, Some(_)) => {
                self.runs.remove(run);
                self.lasts.remove(run);
            }
            (None, None) => {}
        }
    }

    /// Removes an entry; returns whether it was there.
    pub fn remove(&mut self, score: Score, member: &[u8]) -> bool {
        let (run, at) = self.place(score, member);
        let Some(target) = self.runs.get_mut(run) else { return false };
        if !target.get(at).is_some_and(|(s, m)| *s == score && **m == *member) {
            return false;
        }
        target.remove(at);
        self.len -= 1;
        self.note_last(run);
        true
    }

    /// How many entries stand before the place of `score` and `member`.
    pub fn rank(&self, score: Score, member: &[u8]) -> usize {
        let (run, at) = self.place(score, member);
        self.runs.iter().take(run).map(Vec::len).sum::<usize>() + at
    }

    /// How many entries at the front satisfy `holds`, which must hold for a prefix only.
    pub fn partition_point(&self, holds: impl Fn(&Entry) -> bool) -> usize {
        let run = self.runs.partition_point(|run| run.last().is_some_and(&holds));
        let at = self.runs.get(run).map_or(0, |r| r.partition_point(&holds));
        self.runs.iter().take(run).map(Vec::len).sum::<usize>() + at
    }

    /// Entries of the given ranks, in order. Can be walked from both ends.
    pub fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = &Entry> {
        let end = ranks.end.min(self.len);
        let start = ranks.start.min(end);
        let (first, skip) = self.locate(start);
        let (last, keep) = self.locate(end);
        let runs = self.runs.get(first..).unwrap_or_default();
        let span = (last - first).saturating_add(1);
        runs.iter().take(span).enumerate().flat_map(move |(i, run)| {
            let from = if i == 0 { skip } else { 0 };
            let to = if first + i == last { keep } else { run.len() };
            run.get(from..to).unwrap_or_default().iter()
        })
    }

    /// The run and place of a rank; one past the end gives the last run's end.
    fn locate(&self, rank: usize) -> (usize, usize) {
        let mut left = rank;
        for (i, run) in self.runs.iter().enumerate() {
            if left < run.len() {
                return (i, left);
            }
            left -= run.len();
        }
        (self.runs.len(), 0)
    }

    /// The entry of a rank.
    pub fn get(&self, rank: usize) -> Option<&Entry> {
        let (run, at) = self.locate(rank);
        self.runs.get(run)?.get(at)
    }
}
