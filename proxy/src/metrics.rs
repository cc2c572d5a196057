//! Metrics of one region, under the names that `docs/metrics.md` and the tests promise. Children are
//! resolved once: nothing here looks a label up on a hot path.

mod admin;
mod builder;
mod clients;
mod conflicts;
mod homes;
mod hooks;
mod links;
mod ops;
mod seeding;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, Registry, TextEncoder};

pub use admin::AdminMetrics;
use builder::Builder;
pub use builder::Described;
pub use clients::ClientMetrics;
pub use conflicts::{ConflictLabels, ConflictMetrics};
pub use homes::HomeMetrics;
pub use hooks::HookMetrics;
pub use links::LinkMetrics;
pub use ops::OpMetrics;
pub use seeding::SeedMetrics;
pub use store::StoreMetrics;

/// What every name begins with.
const PREFIX: &str = "meridian";

/// The metrics of one region.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    /// What clients ask.
    pub clients: ClientMetrics,
    /// Conflicts and the inbox.
    pub conflicts: ConflictMetrics,
    /// Merge hooks.
    pub hooks: HookMetrics,
    /// Home regions.
    pub homes: HomeMetrics,
    /// Ops of other regions.
    pub ops: OpMetrics,
    /// Links and the regions behind them.
    pub links: LinkMetrics,
    /// Re-seeding and anti-entropy.
    pub seeding: SeedMetrics,
    /// Log, store, disk and memory.
    pub store: StoreMetrics,
    /// The admin server.
    pub admin: AdminMetrics,
}

impl Metrics {
    /// Fresh metrics with a registry of their own.
    ///
    /// # Errors
    /// When a name is registered twice, which a test would have shown.
    pub fn new() -> Result<Self, prometheus::Error> {
        let build = Builder::new(PREFIX)?;
        let version = build.gauges("build_info", "The program's version.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        build.undescribed(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            clients: ClientMetrics::new(&build)?,
            conflicts: ConflictMetrics::new(&build)?,
            hooks: HookMetrics::new(&build)?,
            homes: HomeMetrics::new(&build)?,
            ops: OpMetrics::new(&build)?,
            links: LinkMetrics::new(&build)?,
            seeding: SeedMetrics::new(&build)?,
            store: StoreMetrics::new(&build)?,
            admin: AdminMetrics::new(&build)?,
            described: build.described(),
            registry: build.registry(),
        })
    }

    /// All metrics of the region, whether or not they have samples yet. What the process collector adds is not
    /// among them.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}
