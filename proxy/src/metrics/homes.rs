//! Keys that are written in one region.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, exponential_buckets};

use super::builder::Builder;

/// Keys that are written in one region.
pub struct HomeMetrics {
    /// `homes_forwarded_total{home,outcome}`.
    pub forwarded: IntCounterVec,
    /// `homes_refused_total{home,reason}`.
    pub refused: IntCounterVec,
    /// `homes_accepted_total{home}`.
    pub accepted: IntCounterVec,
    /// `homes_relayed_total`.
    pub relayed: IntCounter,
    /// `homes_forward_seconds`.
    pub forward_seconds: Histogram,
    /// `homes_in_flight`.
    pub in_flight: IntGauge,
    /// `homes_held`.
    pub held: IntGauge,
    /// `homes_without_lease`.
    pub without_lease: IntGauge,
}

impl HomeMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            forwarded: build.counters(
                "homes_forwarded_total",
                "Writes sent to their homes, and what came of them.",
                &["home", "outcome"],
            )?,
            refused: build.counters(
                "homes_refused_total",
                "Writes refused because of the home of their keys.",
                &["home", "reason"],
            )?,
            accepted: build.counters(
                "homes_accepted_total",
                "Writes made away from the home of their keys, as the rule allows.",
                &["home"],
            )?,
            relayed: build.counter(
                "homes_relayed_total",
                "Questions passed on to regions without a link to the asker.",
            )?,
            forward_seconds: build.histogram(
                "homes_forward_seconds",
                "From a client's write to the home's reply, applied here.",
                exponential_buckets(1e-4, 2.0, 18)?,
            )?,
            in_flight: build.gauge("homes_in_flight", "Writes on their way to their homes.")?,
            held: build.gauge("homes_held", "Rules of which this region is the home.")?,
            without_lease: build.gauge(
                "homes_without_lease",
                "Rules of which this region is the home and may not act: writes are refused everywhere.",
            )?,
        })
    }
}
