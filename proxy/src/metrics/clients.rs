//! What clients ask, and how long they wait.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, exponential_buckets};

use super::builder::Builder;
use crate::command::Family;

/// What clients ask, and how long they wait.
pub struct ClientMetrics {
    /// `commands_total{family}`, by [`Family`].
    pub commands: Vec<IntCounter>,
    /// `command_seconds{family}`, by [`Family`]: one observation per pipeline of a family's first command.
    pub command_seconds: Vec<Histogram>,
    /// `clients`.
    pub connected: IntGauge,
    /// `client_errors_total{reason}`: connections that were closed on them.
    pub errors: IntCounterVec,
}

impl ClientMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        let commands = build.counters("commands_total", "Commands run.", &["family"])?;
        let command_seconds = build.histograms(
            "command_seconds",
            "Time from a pipeline's arrival to its replies, by the family of its first command.",
            &["family"],
            exponential_buckets(50e-6, 2.0, 18)?,
        )?;
        let families = || Family::ALL.into_iter().map(Family::name);
        Ok(Self {
            commands: families().map(|family| commands.with_label_values(&[family])).collect(),
            command_seconds: families().map(|family| command_seconds.with_label_values(&[family])).collect(),
            connected: build.gauge("clients", "Client connections that are open.")?,
            errors: build.counters(
                "client_errors_total",
                "Client connections closed because of what the client did.",
                &["reason"],
            )?,
        })
    }
}
