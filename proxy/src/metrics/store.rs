//! The op log, the store, their disk and memory.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use super::builder::Builder;

/// The op log, the store, their disk and memory.
pub struct StoreMetrics {
    /// `oplog_bytes`.
    pub oplog_bytes: IntGauge,
    /// `oplog_fsync_seconds`.
    pub fsync_seconds: Histogram,
    /// `store_lag_ops`.
    pub store_lag_ops: IntGauge,
    /// `store_errors_total`.
    pub store_errors: IntCounter,
    /// `evicted_objects_total`.
    pub evicted_objects: IntCounter,
    /// `disk_available_bytes`: sampled.
    pub disk_available: IntGauge,
    /// `disk_capacity_bytes`: sampled.
    pub disk_capacity: IntGauge,
    /// `memory_bytes{part}`.
    pub memory_bytes: IntGaugeVec,
    /// `tombstones`.
    pub tombstones: IntGauge,
    /// `reaped_total{what}`.
    pub reaped: IntCounterVec,
}

impl StoreMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            oplog_bytes: build.gauge("oplog_bytes", "Size of the op log on disk.")?,
            fsync_seconds: build.histogram(
                "oplog_fsync_seconds",
                "Time of a flush of the op log.",
                exponential_buckets(50e-6, 2.0, 18)?,
            )?,
            store_lag_ops: build.gauge("store_lag_ops", "Objects whose rows in the store are behind.")?,
            store_errors: build.counter("store_errors_total", "Commits that the store refused.")?,
            evicted_objects: build
                .counter("evicted_objects_total", "Objects that left memory; the store has them.")?,
            disk_available: build.gauge(
                "disk_available_bytes",
                "What may still be written to the disk of data_dir, where log and store are.",
            )?,
            disk_capacity: build.gauge("disk_capacity_bytes", "Size of the disk of data_dir.")?,
            memory_bytes: build.gauges("memory_bytes", "Bytes in memory by part.", &["part"])?,
            tombstones: build.gauge(
                "tombstones",
                "Keys that hold what nothing shows, until every region has passed it.",
            )?,
            reaped: build.counters(
                "reaped_total",
                "Keys that were relieved of what nothing shows, or were expired and cleared for all regions.",
                &["what"],
            )?,
        })
    }
}
