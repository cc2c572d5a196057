//! Registers metrics, and keeps what is said of them.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// What is said of a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    /// Its name, prefix included.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// By what it is told apart.
    pub labels: Vec<String>,
    /// What it counts or measures. The unit is the end of the name.
    pub help: String,
}

/// Makes metrics of one registry.
pub(super) struct Builder {
    prefix: &'static str,
    registry: Registry,
    described: RefCell<Vec<Described>>,
}

impl Builder {
    pub(super) fn new(prefix: &'static str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(prefix.into()), None)?;
        Ok(Self { prefix, registry, described: RefCell::default() })
    }

    /// What was made so far, by name.
    pub(super) fn described(&self) -> Vec<Described> {
        let mut described = self.described.borrow().clone();
        described.sort();
        described
    }

    /// The registry with all of it.
    pub(super) fn registry(self) -> Registry {
        self.registry
    }

    /// Registers what others describe.
    pub(super) fn undescribed(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    fn add<M: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        metric: M,
    ) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        let described = metric.desc().into_iter().map(|desc| Described {
            name: format!("{}_{}", self.prefix, desc.fq_name),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.described.borrow_mut().extend(described);
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add("counter", IntCounter::new(name, help)?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add("gauge", IntGauge::new(name, help)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add("gauge", IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add("gauge", Gauge::new(name, help)?)
    }

    pub(super) fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.add("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> Result<Histogram, prometheus::Error> {
        self.add("histogram", Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add("histogram", HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
    }
}
