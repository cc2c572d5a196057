//! Conflicts, the inbox that keeps them, and policies that are tried on them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, exponential_buckets};

use super::builder::Builder;
use crate::keyspace::placed::PlacedConflict;

/// Kind, rule, outcome, policy, type of a conflict.
pub type ConflictLabels = [Cow<'static, str>; 5];

/// Conflicts, the inbox that keeps them, and policies that are tried on them.
pub struct ConflictMetrics {
    counted: IntCounterVec,
    children: Mutex<BTreeMap<ConflictLabels, IntCounter>>,
    /// `conflict_window_seconds`.
    pub window: Histogram,
    /// `conflict_records_dropped_total`.
    pub records_dropped: IntCounter,
    /// `restored_total`.
    pub restored: IntCounter,
    /// `inbox_records`.
    pub inbox_records: IntGauge,
    /// `inbox_bytes`.
    pub inbox_bytes: IntGauge,
    /// `shadow_evaluated_total{policy,rule}`.
    pub shadow_evaluated: IntCounterVec,
    /// `shadow_differs_total{policy,rule}`.
    pub shadow_differs: IntCounterVec,
    /// `shadow_unknown_total{policy,rule}`.
    pub shadow_unknown: IntCounterVec,
}

impl ConflictMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            counted: build.counters(
                "conflicts_total",
                "Conflicts met while applying ops of other regions.",
                &["kind", "rule", "outcome", "policy", "type"],
            )?,
            children: Mutex::default(),
            window: build.histogram(
                "conflict_window_seconds",
                "Time between the two writes of a conflict, by their stamps.",
                exponential_buckets(1e-3, 4.0, 14)?,
            )?,
            records_dropped: build.counter(
                "conflict_records_dropped_total",
                "Conflicts that were counted and not recorded, because there were too many.",
            )?,
            restored: build.counter("restored_total", "Losers that were written back.")?,
            inbox_records: build.gauge("inbox_records", "Conflicts in the inbox.")?,
            inbox_bytes: build.gauge("inbox_bytes", "Bytes of the conflicts in the inbox.")?,
            shadow_evaluated: build.counters(
                "shadow_evaluated_total",
                "Recorded conflicts that a shadow policy was tried on.",
                &["policy", "rule"],
            )?,
            shadow_differs: build.counters(
                "shadow_differs_total",
                "Recorded conflicts after which a shadow policy would have shown something else.",
                &["policy", "rule"],
            )?,
            shadow_unknown: build.counters(
                "shadow_unknown_total",
                "Recorded conflicts that a shadow policy could not be tried on within bounds.",
                &["policy", "rule"],
            )?,
        })
    }

    /// Counts a conflict.
    pub fn count(&self, placed: &PlacedConflict) {
        let conflict = &placed.conflict;
        let labels = [
            conflict.kind.name().into(),
            placed.rule(),
            placed.outcome().into(),
            placed.policy.name().into(),
            conflict.facet.name().into(),
        ];
        let mut children = self.children.lock();
        match children.get(&labels) {
            Some(child) => child.inc(),
            None => {
                let child = self.counted.with_label_values(&labels);
                child.inc();
                children.insert(labels, child);
            }
        }
        let window = conflict.arrived.hlc.ms().abs_diff(conflict.rival.hlc.ms());
        self.window.observe(window as f64 / 1e3);
    }

    /// Conflicts counted so far, over all labels.
    pub fn total(&self) -> u64 {
        self.children.lock().values().map(IntCounter::get).sum()
    }

    /// Conflicts by their labels.
    pub fn by_label(&self) -> Vec<(ConflictLabels, u64)> {
        self.children.lock().iter().map(|(labels, count)| (labels.clone(), count.get())).collect()
    }
}
