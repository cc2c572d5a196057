//! Links, who is at their other ends, and what is asked of neighbours' state.

use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGaugeVec};

use super::builder::Builder;
use crate::link::close::CloseReason;

/// Links, who is at their other ends, and what is asked of neighbours' state.
pub struct LinkMetrics {
    /// `link_up{peer}`.
    pub up: IntGaugeVec,
    /// `link_rtt_seconds{peer}`.
    pub rtt: GaugeVec,
    /// `link_bytes_total{peer,direction,stream}`.
    pub bytes: IntCounterVec,
    /// `link_connections_total{peer}`.
    pub connections: IntCounterVec,
    /// `link_refusals_total{reason}`.
    pub refusals: IntCounterVec,
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
    /// `reroutes_total{origin}`.
    pub reroutes: IntCounterVec,
    /// `route{origin,peer}`.
    pub route: IntGaugeVec,
    /// `peer_clock_skew_seconds{peer}`.
    pub clock_skew: GaugeVec,
    /// `config_mismatch{peer,what}`.
    pub config_mismatch: IntGaugeVec,
    /// `cert_expiry_seconds`.
    pub cert_expiry: Gauge,
    /// `cert_renewals_total{outcome}`.
    pub cert_renewals: IntCounterVec,
}

impl LinkMetrics {
    pub(super) fn new(build: &Builder) -> Result<Self, prometheus::Error> {
        Ok(Self {
            up: build.gauges("link_up", "Whether the link to a neighbour is up.", &["peer"])?,
            rtt: build.float_gauges(
                "link_rtt_seconds",
                "Round trip to a neighbour over its link.",
                &["peer"],
            )?,
            bytes: build.counters(
                "link_bytes_total",
                "Bytes over links before encryption.",
                &["peer", "direction", "stream"],
            )?,
            connections: build.counters(
                "link_connections_total",
                "Connections with a peer that came to stand, those that replaced another among them.",
                &["peer"],
            )?,
            refusals: build.counters(
                "link_refusals_total",
                "Connections refused because of who the other side is or what it speaks, by either side.",
                &["reason"],
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
            reroutes: build.counters(
                "reroutes_total",
                "Times that an origin's ops took another way.",
                &["origin"],
            )?,
            route: build.gauges("route", "Which neighbour feeds an origin's ops.", &["origin", "peer"])?,
            clock_skew: build.float_gauges(
                "peer_clock_skew_seconds",
                "A neighbour's clock less ours.",
                &["peer"],
            )?,
            config_mismatch: build.gauges(
                "config_mismatch",
                "Whether a neighbour has other members and topology, policies or homes than this region.",
                &["peer", "what"],
            )?,
            cert_expiry: build.float_gauge("cert_expiry_seconds", "Until this region's certificate ends.")?,
            cert_renewals: build.counters(
                "cert_renewals_total",
                "Changes of the files of [tls]: renewed, or refused because they cannot be used.",
                &["outcome"],
            )?,
        })
    }

    /// Shows no figures of a link any more that was taken down in order, as those for healing are: a link
    /// that is down would call for somebody.
    pub fn forget_peer(&self, peer: &str) {
        let label = [peer];
        // Fails where a figure was never shown.
        for gauges in [&self.up, &self.unacked_ops, &self.unacked_bytes] {
            let _ = gauges.remove_label_values(&label);
        }
        for gauges in [&self.rtt, &self.clock_skew] {
            let _ = gauges.remove_label_values(&label);
        }
    }

    /// Counts a connection that was refused, here or by the peer.
    pub fn refused(&self, reason: CloseReason) {
        self.refusals.with_label_values(&[&format!("{reason:?}")]).inc();
    }
}
