//! Merge hooks, and whether they answer alike everywhere.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use super::builder::Builder;

/// Merge hooks, and whether they answer alike everywhere.
pub struct HookMetrics {
    /// `hook_calls_total{hook}`.
    pub calls: IntCounterVec,
    /// `hook_failures_total{hook,reason}`.
    pub failures: IntCounterVec,
    /// `hook_seconds{hook}`.
    pub seconds: HistogramVec,
    /// `hook_quarantined{hook}`: sampled.
    pub quarantined: IntGaugeVec,
    /// `hook_quarantines_total{hook}`.
    pub quarantines: IntCounterVec,
    /// `hook_quarantine_room`: sampled.
    pub quarantine_room: IntGauge,
    /// `hook_answers_compared_total`.
    pub answers_compared: IntCounter,
    /// `hook_answers_unasked_total`.
    pub answers_unasked: IntCounter,
}

impl HookMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            calls: build.counters("hook_calls_total", "Calls of merge hooks.", &["hook"])?,
            failures: build.counters(
                "hook_failures_total",
                "Calls of merge hooks that gave no value, so that the greatest stamp shows.",
                &["hook", "reason"],
            )?,
            seconds: build.histograms(
                "hook_seconds",
                "Time of a merge hook's call.",
                &["hook"],
                exponential_buckets(1e-6, 4.0, 10)?,
            )?,
            quarantined: build.gauges(
                "hook_quarantined",
                "Whether a merge hook is not used any more because it answered one question in two ways.",
                &["hook"],
            )?,
            quarantines: build.counters(
                "hook_quarantines_total",
                "Times that a merge hook was put in quarantine.",
                &["hook"],
            )?,
            quarantine_room: build.gauge(
                "hook_quarantine_room",
                "Hooks that could still be put in quarantine; without room one that answers in two ways goes on.",
            )?,
            answers_compared: build.counter(
                "hook_answers_compared_total",
                "Answers of merge hooks that were equal in two regions.",
            )?,
            answers_unasked: build.counter(
                "hook_answers_unasked_total",
                "Answers of other regions' hooks that were not compared here: other values by then, or too many.",
            )?,
        })
    }
}
