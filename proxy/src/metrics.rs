//! Metrics of one region, under the names that `README.md` and the tests promise. Children are
//! resolved once: nothing here looks a label up on a hot path.

mod builder;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder, exponential_buckets,
};

use crate::command::Family;
use crate::keyspace::placed::PlacedConflict;
use crate::link::close::CloseReason;

use builder::Builder;
pub use builder::Described;

/// What every name begins with.
const PREFIX: &str = "meridian";

/// Kind, rule, outcome, policy, type of a conflict.
pub type ConflictLabels = [Cow<'static, str>; 5];

/// The metrics of one region.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    /// `commands_total{family}`, by [`Family`].
    pub commands: Vec<IntCounter>,
    /// `command_seconds{family}`, by [`Family`]: one observation per pipeline of a family's first command.
    pub command_seconds: Vec<Histogram>,
    /// `clients`.
    pub clients: IntGauge,
    conflicts: IntCounterVec,
    conflict_children: Mutex<BTreeMap<ConflictLabels, IntCounter>>,
    /// `hook_calls_total{hook}`.
    pub hook_calls: IntCounterVec,
    /// `hook_failures_total{hook,reason}`.
    pub hook_failures: IntCounterVec,
    /// `hook_seconds{hook}`.
    pub hook_seconds: HistogramVec,
    /// `shadow_evaluated_total{policy,rule}`.
    pub shadow_evaluated: IntCounterVec,
    /// `shadow_differs_total{policy,rule}`.
    pub shadow_differs: IntCounterVec,
    /// `shadow_unknown_total{policy,rule}`.
    pub shadow_unknown: IntCounterVec,
    /// `hook_quarantined{hook}`: sampled.
    pub hook_quarantined: IntGaugeVec,
    /// `hook_quarantines_total{hook}`.
    pub hook_quarantines: IntCounterVec,
    /// `hook_answers_compared_total`.
    pub hook_answers_compared: IntCounter,
    /// `hook_answers_unasked_total`.
    pub hook_answers_unasked: IntCounter,
    /// `conflict_window_seconds`.
    pub conflict_window: Histogram,
    /// `conflict_records_dropped_total`.
    pub conflict_records_dropped: IntCounter,
    /// `restored_total`.
    pub conflicts_restored: IntCounter,
    /// `homes_forwarded_total{home,outcome}`.
    pub homes_forwarded: IntCounterVec,
    /// `homes_refused_total{home,reason}`.
    pub homes_refused: IntCounterVec,
    /// `homes_accepted_total{home}`.
    pub homes_accepted: IntCounterVec,
    /// `homes_relayed_total`.
    pub homes_relayed: IntCounter,
    /// `homes_forward_seconds`.
    pub homes_forward_seconds: Histogram,
    /// `homes_in_flight`.
    pub homes_in_flight: IntGauge,
    /// `homes_held`.
    pub homes_held: IntGauge,
    /// `homes_without_lease`.
    pub homes_without_lease: IntGauge,
    /// `inbox_records`.
    pub inbox_records: IntGauge,
    /// `inbox_bytes`.
    pub inbox_bytes: IntGauge,
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
    /// `link_up{peer}`.
    pub link_up: IntGaugeVec,
    /// `link_rtt_seconds{peer}`.
    pub link_rtt: GaugeVec,
    /// `link_bytes_total{peer,direction,stream}`.
    pub link_bytes: IntCounterVec,
    /// `unacked_ops{peer}`.
    pub unacked_ops: IntGaugeVec,
    /// `unacked_bytes{peer}`.
    pub unacked_bytes: IntGaugeVec,
    /// `fenced{region}`.
    pub fenced: IntGaugeVec,
    /// `gc_blocked_by{region}`.
    pub gc_blocked_by: IntGaugeVec,
    /// `seconds_until_reseed{peer}`.
    pub seconds_until_reseed: IntGaugeVec,
    /// `loading`.
    pub loading: IntGauge,
    /// `seed_keys{state}`.
    pub seed_keys: IntGaugeVec,
    /// `seed_ranges{state}`.
    pub seed_ranges: IntGaugeVec,
    /// `seed_bytes_total{direction}`.
    pub seed_bytes: IntCounterVec,
    /// `reroutes_total{origin}`.
    pub reroutes: IntCounterVec,
    /// `route{origin,peer}`.
    pub route: IntGaugeVec,
    /// `tombstones`.
    pub tombstones: IntGauge,
    /// `reaped_total{what}`.
    pub reaped: IntCounterVec,
    /// `divergent_ranges{peer}`: found so far.
    pub divergent_ranges: IntCounterVec,
    /// `entropy_keys_compared_total{peer}`.
    pub entropy_keys: IntCounterVec,
    /// `entropy_rounds_total{peer}`.
    pub entropy_rounds: IntCounterVec,
    /// `entropy_round_age_seconds{peer}`.
    pub entropy_age: IntGaugeVec,
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
    /// `memory_bytes{part}`.
    pub memory_bytes: IntGaugeVec,
    /// `peer_clock_skew_seconds{peer}`.
    pub peer_clock_skew: GaugeVec,
    /// `clock_rejected_total{peer}`.
    pub clock_rejected: IntCounterVec,
    /// `config_mismatch{peer,what}`.
    pub config_mismatch: IntGaugeVec,
    /// `cert_expiry_seconds`.
    pub cert_expiry: Gauge,
    /// `link_connections_total{peer}`.
    pub link_connections: IntCounterVec,
    /// `cert_renewals_total{outcome}`.
    pub cert_renewals: IntCounterVec,
    /// `link_refusals_total{reason}`.
    pub link_refusals: IntCounterVec,
    /// `client_errors_total{reason}`: connections that were closed on them.
    pub client_errors: IntCounterVec,
}

impl Metrics {
    /// Fresh metrics with a registry of their own.
    ///
    /// # Errors
    /// When a name is registered twice, which a test would have shown.
    pub fn new() -> Result<Self, prometheus::Error> {
        let build = Builder::new(PREFIX)?;
        let commands = build.counters("commands_total", "Commands run.", &["family"])?;
        let command_seconds = build.histograms(
            "command_seconds",
            "Time from a pipeline's arrival to its replies, by the family of its first command.",
            &["family"],
            exponential_buckets(50e-6, 2.0, 18)?,
        )?;
        let families = || Family::ALL.into_iter().map(Family::name);
        let version = build.gauges("build_info", "The program's version.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        build.undescribed(Box::new(process))?;
        Ok(Self {
            commands: families().map(|family| commands.with_label_values(&[family])).collect(),
            command_seconds: families().map(|family| command_seconds.with_label_values(&[family])).collect(),
            clients: build.gauge("clients", "Client connections that are open.")?,
            conflicts: build.counters(
                "conflicts_total",
                "Conflicts met while applying ops of other regions.",
                &["kind", "rule", "outcome", "policy", "type"],
            )?,
            conflict_children: Mutex::default(),
            hook_calls: build.counters("hook_calls_total", "Calls of merge hooks.", &["hook"])?,
            hook_failures: build.counters(
                "hook_failures_total",
                "Calls of merge hooks that gave no value, so that the greatest stamp shows.",
                &["hook", "reason"],
            )?,
            hook_seconds: build.histograms(
                "hook_seconds",
                "Time of a merge hook's call.",
                &["hook"],
                exponential_buckets(1e-6, 4.0, 10)?,
            )?,
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
            hook_quarantined: build.gauges(
                "hook_quarantined",
                "Whether a merge hook is not used any more because it answered one question in two ways.",
                &["hook"],
            )?,
            hook_quarantines: build.counters(
                "hook_quarantines_total",
                "Times that a merge hook was put in quarantine.",
                &["hook"],
            )?,
            hook_answers_compared: build.counter(
                "hook_answers_compared_total",
                "Answers of merge hooks that were equal in two regions.",
            )?,
            hook_answers_unasked: build.counter(
                "hook_answers_unasked_total",
                "Answers of other regions' hooks that were not compared here: other values by then, or too many.",
            )?,
            conflict_window: build.histogram(
                "conflict_window_seconds",
                "Time between the two writes of a conflict, by their stamps.",
                exponential_buckets(1e-3, 4.0, 14)?,
            )?,
            conflict_records_dropped: build.counter(
                "conflict_records_dropped_total",
                "Conflicts that were counted and not recorded, because there were too many.",
            )?,
            conflicts_restored: build.counter("restored_total", "Losers that were written back.")?,
            homes_forwarded: build.counters(
                "homes_forwarded_total",
                "Writes sent to their homes, and what came of them.",
                &["home", "outcome"],
            )?,
            homes_refused: build.counters(
                "homes_refused_total",
                "Writes refused because of the home of their keys.",
                &["home", "reason"],
            )?,
            homes_accepted: build.counters(
                "homes_accepted_total",
                "Writes made away from the home of their keys, as the rule allows.",
                &["home"],
            )?,
            homes_relayed: build
                .counter("homes_relayed_total", "Questions passed on to regions without a link to the asker.")?,
            homes_forward_seconds: build.histogram(
                "homes_forward_seconds",
                "From a client's write to the home's reply, applied here.",
                exponential_buckets(1e-4, 2.0, 18)?,
            )?,
            homes_in_flight: build.gauge("homes_in_flight", "Writes on their way to their homes.")?,
            homes_held: build.gauge("homes_held", "Rules of which this region is the home.")?,
            homes_without_lease: build.gauge(
                "homes_without_lease",
                "Rules of which this region is the home and may not act: writes are refused everywhere.",
            )?,
            inbox_records: build.gauge("inbox_records", "Conflicts in the inbox.")?,
            inbox_bytes: build.gauge("inbox_bytes", "Bytes of the conflicts in the inbox.")?,
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
            applied_sequence: build.gauges("applied_sequence", "Number of the last op applied of an origin.", &["origin"])?,
            link_up: build.gauges("link_up", "Whether the link to a neighbour is up.", &["peer"])?,
            link_rtt: build.float_gauges("link_rtt_seconds", "Round trip to a neighbour over its link.", &["peer"])?,
            link_bytes: build.counters(
                "link_bytes_total",
                "Bytes over links before encryption.",
                &["peer", "direction", "stream"],
            )?,
            unacked_ops: build.gauges(
                "unacked_ops",
                "Ops that a neighbour has not made durable.",
                &["peer"],
            )?,
            unacked_bytes: build.gauges(
                "unacked_bytes",
                "Log bytes not sent to a neighbour yet.",
                &["peer"],
            )?,
            fenced: build.gauges("fenced", "Whether a region was away beyond its lease.", &["region"])?,
            gc_blocked_by: build.gauges(
                "gc_blocked_by",
                "Whether a region is the one furthest behind, whom log and metadata wait for.",
                &["region"],
            )?,
            seconds_until_reseed: build.gauges(
                "seconds_until_reseed",
                "Until a region that is not heard of is fenced, or the log has no room for what it lacks.",
                &["peer"],
            )?,
            loading: build.gauge("loading", "Whether another region's state is being taken over.")?,
            seed_keys: build.gauges(
                "seed_keys",
                "Keys of the state being taken over: merged so far, and about how many there are.",
                &["state"],
            )?,
            seed_ranges: build.gauges(
                "seed_ranges",
                "Ranges of keys of the state being taken over: merged so far, and how many there are.",
                &["state"],
            )?,
            seed_bytes: build.counters(
                "seed_bytes_total",
                "Bytes of states taken over and given, as they travelled.",
                &["direction"],
            )?,
            reroutes: build.counters(
                "reroutes_total",
                "Times that an origin's ops took another way.",
                &["origin"],
            )?,
            route: build.gauges("route", "Which neighbour feeds an origin's ops.", &["origin", "peer"])?,
            tombstones: build.gauge(
                "tombstones",
                "Keys that hold what nothing shows, until every region has passed it.",
            )?,
            reaped: build.counters(
                "reaped_total",
                "Keys that were relieved of what nothing shows, or were expired and cleared for all regions.",
                &["what"],
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
            memory_bytes: build.gauges("memory_bytes", "Bytes in memory by part.", &["part"])?,
            peer_clock_skew: build.float_gauges(
                "peer_clock_skew_seconds",
                "A neighbour's clock less ours.",
                &["peer"],
            )?,
            clock_rejected: build.counters(
                "clock_rejected_total",
                "Ops not let in because their stamp is further ahead than clock.max_skew.",
                &["peer"],
            )?,
            config_mismatch: build.gauges(
                "config_mismatch",
                "Whether a neighbour has other members and topology, policies or homes than this region.",
                &["peer", "what"],
            )?,
            cert_expiry: build.float_gauge("cert_expiry_seconds", "Until this region's certificate ends.")?,
            link_connections: build.counters(
                "link_connections_total",
                "Connections with a peer that came to stand, those that replaced another among them.",
                &["peer"],
            )?,
            cert_renewals: build.counters(
                "cert_renewals_total",
                "Changes of the files of [tls]: renewed, or refused because they cannot be used.",
                &["outcome"],
            )?,
            link_refusals: build.counters(
                "link_refusals_total",
                "Connections refused because of who the other side is or what it speaks, by either side.",
                &["reason"],
            )?,
            client_errors: build.counters(
                "client_errors_total",
                "Client connections closed because of what the client did.",
                &["reason"],
            )?,
            described: build.described(),
            registry: build.registry(),
        })
    }

    /// Counts a conflict.
    pub fn conflict(&self, placed: &PlacedConflict) {
        let conflict = &placed.conflict;
        let labels = [
            conflict.kind.name().into(),
            placed.rule(),
            placed.outcome().into(),
            placed.policy.name().into(),
            conflict.facet.name().into(),
        ];
        let mut children = self.conflict_children.lock();
        match children.get(&labels) {
            Some(child) => child.inc(),
            None => {
                let child = self.conflicts.with_label_values(&labels);
                child.inc();
                children.insert(labels, child);
            }
        }
        let window = conflict.arrived.hlc.ms().abs_diff(conflict.rival.hlc.ms());
        self.conflict_window.observe(window as f64 / 1e3);
    }

    /// Shows no figures of a link any more that was taken down in order, as those for healing are: a link
    /// that is down would call for somebody.
    pub fn forget_peer(&self, peer: &str) {
        let label = [peer];
        // Fails where a figure was never shown.
        for gauges in [&self.link_up, &self.unacked_ops, &self.unacked_bytes] {
            let _ = gauges.remove_label_values(&label);
        }
        for gauges in [&self.link_rtt, &self.peer_clock_skew] {
            let _ = gauges.remove_label_values(&label);
        }
    }

    /// Counts a connection that was refused, here or by the peer.
    pub fn refused_link(&self, reason: CloseReason) {
        self.link_refusals.with_label_values(&[&format!("{reason:?}")]).inc();
    }

    /// Conflicts counted so far, over all labels.
    pub fn conflicts_total(&self) -> u64 {
        self.conflict_children.lock().values().map(IntCounter::get).sum()
    }

    /// Conflicts by their labels: kind, rule, outcome, policy, type.
    pub fn conflicts_by_label(&self) -> Vec<(ConflictLabels, u64)> {
        self.conflict_children.lock().iter().map(|(labels, count)| (labels.clone(), count.get())).collect()
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
