//! The admin server.

use prometheus::IntCounterVec;

use super::builder::Builder;

/// The admin server.
pub struct AdminMetrics {
    /// `admin_refusals_total{reason}`.
    pub refusals: IntCounterVec,
}

impl AdminMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            refusals: build.counters(
                "admin_refusals_total",
                "Requests refused on the admin port: no or a wrong token, a browser, a body that is too large.",
                &["reason"],
            )?,
        })
    }
}
