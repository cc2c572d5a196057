//! Which ops of the log a subscription gets: a pure cursor over the sender's log.
//!
//! The sender's log is in a causal order and so is every selection from it by origin, as long as
//! the subscriber gets what the selection leaves out by another way.

use std::collections::BTreeSet;

use meridian_conflict::clock::{Origin, RegionId, VersionVector, covers, raise};
use meridian_conflict::op::Header;

/// One subscription's cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    regions: BTreeSet<RegionId>,
    subscriber: Origin,
    cursor: VersionVector,
}

impl Feed {
    /// A feed of the ops of `regions` that `from` does not include, for the region of
    /// `subscriber`. The subscriber's other lives are always included: it may have lost part of
    /// them. Its current life is never sent back.
    pub fn new(regions: BTreeSet<RegionId>, subscriber: Origin, from: VersionVector) -> Self {
        Self { regions, subscriber, cursor: from }
    }

    /// Whether ops of `origin` belong to this feed.
    pub fn wants(&self, origin: Origin) -> bool {
        origin != self.subscriber
            && (origin.region() == self.subscriber.region() || self.regions.contains(&origin.region()))
    }

    /// Takes the next op in log order; returns whether it is to be sent, and counts it as sent
    /// then.
    pub fn offer(&mut self, header: &Header) -> bool {
        if !self.wants(header.dot.actor) || covers(&self.cursor, &header.dot) {
            return false;
        }
        raise(&mut self.cursor, header.dot.actor, header.dot.counter);
        true
    }

    /// What the subscriber has or was sent.
    pub fn cursor(&self) -> &VersionVector {
        &self.cursor
    }

    /// Whether a log that starts right after `oldest` still holds everything this feed lacks.
    pub fn is_within(&self, oldest: &VersionVector) -> bool {
        oldest.iter().all(|dot| !self.wants(*dot.actor) || self.cursor.get(dot.actor) >= dot.counter)
    }

    /// Where in the log to begin: whether an op may be stepped over without being offered, because
    /// the feed would not send it. Does not move the cursor.
    pub fn skips(&self, header: &Header) -> bool {
        !self.wants(header.dot.actor) || covers(&self.cursor, &header.dot)
    }
}

#[cfg(test)]
mod tests {
    use meridian_conflict::clock::{Dot, Hlc};

    use super::*;

    fn op(region: u32, incarnation: u32, sequence: u64) -> Header {
        let dot = Dot::new(Origin::new(RegionId(region), incarnation), sequence);
        Header { dot, hlc: Hlc(1), deps: Default::default() }
    }

    fn feed(regions: &[u32], from: &[Dot]) -> Feed {
        let regions = regions.iter().map(|r| RegionId(*r)).collect();
        Feed::new(regions, Origin::new(RegionId(9), 2), from.iter().cloned().collect())
    }

    #[test]
    fn sends_wanted_regions_above_the_vector_once() {
        let mut feed = feed(&[1], &[op(1, 1, 4).dot]);
        let sent: Vec<bool> = [op(1, 1, 4), op(2, 1, 1), op(1, 1, 5), op(1, 1, 5), op(1, 2, 1)]
            .iter()
            .map(|h| feed.offer(h))
            .collect();
        assert_eq!(sent, [false, false, true, false, true]);
        assert_eq!(feed.cursor().get(&op(1, 1, 5).dot.actor), 5);
    }

    #[test]
    fn r1_other_lives_of_the_subscriber_come_back_its_current_one_never() {
        let mut feed = feed(&[1], &[]);
        assert!(feed.offer(&op(9, 1, 1)));
        assert!(feed.offer(&op(9, 3, 1)));
        assert!(!feed.offer(&op(9, 2, 1)));
    }

    #[test]
    fn a_truncated_log_is_noticed_only_for_what_is_wanted() {
        let feed = feed(&[1], &[op(1, 1, 4).dot]);
        let oldest = |header: Header| -> VersionVector { [header.dot].into_iter().collect() };
        assert!(feed.is_within(&oldest(op(1, 1, 4))));
        assert!(feed.is_within(&oldest(op(2, 1, 50))));
        assert!(!feed.is_within(&oldest(op(1, 1, 5))));
    }
}
