//! Taking over and giving state, and comparing it.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::builder::Builder;

/// Taking over and giving state, and comparing it.
pub struct SeedMetrics {
    /// `loading`.
    pub loading: IntGauge,
    /// `seed_keys{state}`.
    pub keys: IntGaugeVec,
    /// `seed_ranges{state}`.
    pub ranges: IntGaugeVec,
    /// `seed_bytes_total{direction}`.
    pub bytes: IntCounterVec,
    /// `divergent_ranges{peer}`: found so far.
    pub divergent_ranges: IntCounterVec,
    /// `entropy_keys_compared_total{peer}`.
    pub entropy_keys: IntCounterVec,
    /// `entropy_rounds_total{peer}`.
    pub entropy_rounds: IntCounterVec,
    /// `entropy_round_age_seconds{peer}`.
    pub entropy_age: IntGaugeVec,
}

impl SeedMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            loading: build.gauge("loading", "Whether another region's state is being taken over.")?,
            keys: build.gauges(
                "seed_keys",
                "Keys of the state being taken over: merged so far, and about how many there are.",
                &["state"],
            )?,
            ranges: build.gauges(
                "seed_ranges",
                "Ranges of keys of the state being taken over: merged so far, and how many there are.",
                &["state"],
            )?,
            bytes: build.counters(
                "seed_bytes_total",
                "Bytes of states taken over and given, as they travelled.",
                &["direction"],
            )?,
            divergent_ranges: build.counters(
                "divergent_ranges",
                "Ranges of keys found so far in which two regions showed different values after the same ops.",
                &["peer"],
            )?,
            entropy_keys: build.counters(
                "entropy_keys_compared_total",
                "Keys compared with a neighbour's.",
                &["peer"],
            )?,
            entropy_rounds: build.counters(
                "entropy_rounds_total",
                "Comparisons of all keys with a neighbour that ended.",
                &["peer"],
            )?,
            entropy_age: build.gauges(
                "entropy_round_age_seconds",
                "Since all keys were last compared with a neighbour.",
                &["peer"],
            )?,
        })
    }
}
