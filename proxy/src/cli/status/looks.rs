//! What was seen of a region, look by look, and what changed from one to the next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::admin::status::{Applied, Status};

/// Looks that are kept: the width of a sparkline, and one more to begin with.
const KEPT: usize = 25;

/// One region that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Where its admin server is.
    pub admin: String,
    /// Why the last look saw nothing.
    pub error: Option<String>,
    looks: VecDeque<Look>,
}

#[derive(Clone, Debug)]
struct Look {
    at: Duration,
    status: Status,
}

/// Two looks at one life of a region.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    from: &'a Status,
    to: &'a Status,
    seconds: f64,
}

impl Watched {
    /// A region that was not looked at yet.
    pub fn new(admin: String) -> Self {
        Self { admin, error: None, looks: VecDeque::new() }
    }

    /// A look at it, at a time since the watch began.
    pub fn saw(&mut self, at: Duration, status: Status) {
        self.error = None;
        if self.looks.len() == KEPT {
            self.looks.pop_front();
        }
        self.looks.push_back(Look { at, status });
    }

    /// It did not answer.
    pub fn missed(&mut self, error: String) {
        self.error = Some(error);
    }

    /// As it was last seen.
    pub fn status(&self) -> Option<&Status> {
        self.looks.back().map(|look| &look.status)
    }

    /// What the last look changed; none of the first, after a restart, and while it does not answer.
    pub fn change(&self) -> Option<Change<'_>> {
        self.changes().pop().flatten().filter(|_| self.error.is_none())
    }

    /// What each look but the first changed, oldest first.
    pub fn changes(&self) -> Vec<Option<Change<'_>>> {
        self.looks.iter().zip(self.looks.iter().skip(1)).map(|(from, to)| Change::of(from, to)).collect()
    }
}

impl<'a> Change<'a> {
    /// None over a restart: counts begin anew.
    fn of(from: &'a Look, to: &'a Look) -> Option<Self> {
        let seconds = to.at.saturating_sub(from.at).as_secs_f64();
        let (from, to) = (&from.status, &to.status);
        let same = from.region == to.region && from.uptime_seconds <= to.uptime_seconds;
        (same && seconds > 0.0).then_some(Self { from, to, seconds })
    }

    fn rate(&self, from: u64, to: u64) -> f64 {
        to.saturating_sub(from) as f64 / self.seconds
    }

    fn before(&self, applied: &Applied) -> Option<&'a Applied> {
        self.from.applied.iter().find(|earlier| earlier.origin == applied.origin)
    }

    /// Ops of `applied`'s origin that were applied in a second.
    pub fn ops(&self, applied: &Applied) -> f64 {
        self.rate(self.before(applied).map_or(0, |before| before.sequence), applied.sequence)
    }

    /// Ops of all origins that were applied in a second.
    pub fn all_ops(&self) -> f64 {
        self.to.applied.iter().map(|applied| self.ops(applied)).sum()
    }

    /// The mean lag of what arrived of `applied`'s region, in seconds; none if nothing did.
    pub fn lag(&self, applied: &Applied) -> Option<f64> {
        let (count, sum) = self.before(applied).map_or((0, 0.0), |b| (b.lag_count, b.lag_seconds));
        let arrived = applied.lag_count.checked_sub(count).filter(|arrived| *arrived > 0)?;
        Some(((applied.lag_seconds - sum) / arrived as f64).max(0.0))
    }

    /// The worst of all lags.
    pub fn worst_lag(&self) -> Option<f64> {
        self.to.applied.iter().filter_map(|applied| self.lag(applied)).reduce(f64::max)
    }

    /// Bytes sent to and received from `peer` in a second.
    pub fn bytes(&self, peer: &str) -> Option<(f64, f64)> {
        let link = |status: &'a Status| status.links.iter().find(|link| link.peer == peer);
        let (from, to) = (link(self.from)?, link(self.to)?);
        let sent = self.rate(from.sent_bytes, to.sent_bytes);
        Some((sent, self.rate(from.received_bytes, to.received_bytes)))
    }

    /// Conflicts in a second by kind and policy.
    pub fn conflicts(&self) -> BTreeMap<(&'a str, &'a str), f64> {
        let (from, to) = (conflicts(self.from), conflicts(self.to));
        to.into_iter().map(|(by, to)| (by, self.rate(from.get(&by).copied().unwrap_or(0), to))).collect()
    }

    /// Keys merged in a second, while a state is taken over.
    pub fn seeded(&self) -> Option<f64> {
        let keys = |status: &Status| status.seeding.as_ref().map(|seeding| seeding.keys);
        Some(self.rate(keys(self.from)?, keys(self.to)?))
    }
}

/// Conflicts since the start by kind and policy.
pub fn conflicts(status: &Status) -> BTreeMap<(&str, &str), u64> {
    let mut found = BTreeMap::new();
    for conflict in &status.conflicts_total {
        *found.entry((conflict.kind.as_str(), conflict.policy.as_str())).or_default() += conflict.count;
    }
    found
}
