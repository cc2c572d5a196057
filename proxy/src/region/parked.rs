//! Ops that could not be applied, for people to look at.
//!
//! What such an op would have done is not lost: it is in the logs, and regions that know its kind have applied it.
//! Applying it here later, after ops whose writers had seen it, could bring back what those removed. So once this
//! region runs a version that knows such ops, anti-entropy mends what it shows.

use std::collections::VecDeque;

use meridian_conflict::clock::Dot;
use parking_lot::Mutex;

use super::foreign::Unfit;
use crate::metrics::Metrics;

/// How many are listed, the newest. `parked_ops_total` counts them all.
pub const LISTED_MAX: usize = 64;

/// The newest that this process has parked.
#[derive(Debug, Default)]
pub struct Parked {
    listed: Mutex<VecDeque<(Dot, Unfit)>>,
}

impl Parked {
    /// Sets one aside that has come.
    pub fn take(&self, dot: Dot, why: Unfit, metrics: &Metrics) {
        metrics.ops.parked_ops.inc();
        self.note(dot, why);
    }

    /// One that was set aside when it came, met again in the log.
    pub fn note(&self, dot: Dot, why: Unfit) {
        tracing::error!(?dot, error = %why, "parked an op that cannot be applied");
        let mut listed = self.listed.lock();
        if listed.len() == LISTED_MAX {
            listed.pop_front();
        }
        listed.push_back((dot, why));
    }

    /// The newest, oldest first, and why.
    pub fn listed(&self) -> Vec<(Dot, Unfit)> {
        self.listed.lock().iter().copied().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Origin, RegionId};

    use super::*;

    #[test]
    fn q3_the_newest_parked_ops_are_listed_and_all_are_counted() {
        let (parked, metrics) = (Parked::default(), Metrics::new().unwrap());
        let dot = |n| Dot::new(Origin::new(RegionId(1), 1), n);
        (1..=100).for_each(|n| parked.take(dot(n), Unfit::Name(70_000), &metrics));
        let listed = parked.listed();
        assert_eq!(listed.len(), LISTED_MAX);
        assert_eq!((listed[0].0, listed[63].0), (dot(37), dot(100)));
        assert_eq!(metrics.ops.parked_ops.get(), 100);
    }
}
