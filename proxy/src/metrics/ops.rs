//! Ops of other regions, from their arrival until they show.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use super::builder::Builder;

/// Ops of other regions, from their arrival until they show.
pub struct OpMetrics {
    /// `stale_ops_total`.
    pub stale_ops: IntCounter,
    /// `duplicate_ops_total{peer}`.
    pub duplicate_ops: IntCounterVec,
    /// `causal_waits_total`.
    pub causal_waits: IntCounter,
    /// `pending_ops{origin}`.
    pub pending_ops: IntGaugeVec,
    /// `pending_bytes`.
    pub pending_bytes: IntGauge,
    /// `parked_ops_total`.
    pub parked_ops: IntCounter,
    /// `replication_lag_seconds{origin}`.
    pub replication_lag: HistogramVec,
    /// `applied_sequence{origin}`.
    pub applied_sequence: IntGaugeVec,
    /// `clock_rejected_total{peer}`.
    pub clock_rejected: IntCounterVec,
}

impl OpMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            stale_ops: build.counter("stale_ops_total", "Ops that found nothing left to do.")?,
            duplicate_ops: build.counters(
                "duplicate_ops_total",
                "Ops received again and dropped.",
                &["peer"],
            )?,
            causal_waits: build
                .counter("causal_waits_total", "Ops that had to wait for ops they depend on.")?,
            pending_ops: build.gauges("pending_ops", "Ops that wait for ops they depend on.", &["origin"])?,
            pending_bytes: build.gauge("pending_bytes", "Bytes of ops that wait.")?,
            parked_ops: build
                .counter("parked_ops_total", "Ops that could not be applied and were set aside.")?,
            replication_lag: build.histograms(
                "replication_lag_seconds",
                "From a write at its origin to its being visible here, by both regions' clocks.",
                &["origin"],
                exponential_buckets(1e-4, 2.0, 22)?,
            )?,
            applied_sequence: build.gauges(
                "applied_sequence",
                "Number of the last op applied of an origin.",
                &["origin"],
            )?,
            clock_rejected: build.counters(
                "clock_rejected_total",
                "Ops not let in because their stamp is further ahead than clock.max_skew.",
                &["peer"],
            )?,
        })
    }
}
