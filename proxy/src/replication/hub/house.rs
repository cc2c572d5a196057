//! What is told of the links: status, metrics, and what of the log nobody needs any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use meridian_conflict::clock::RegionId;
use meridian_topology::replica::{self, Phase};

use super::Hub;
use crate::oplog::Lsn;
use crate::replication::entropy::Peer;
use crate::sequencer::AppliedMark;

impl Hub {
    /// Status, metrics, and what the log may forget.
    pub(super) fn keep_house(&mut self) {
        let metrics = Arc::clone(self.region.metrics());
        let wall = self.region.wall().0;
        let all = self.replica.status();
        self.forget_links(&all);
        self.tell_whom_to_compare_with(&all);
        self.tell_whom_to_ask(&all);
        for status in all {
            let name = self.name(status.peer);
            let label = [name.as_str()];
            let up = matches!(status.phase, Phase::Up | Phase::Held(_));
            metrics.links.up.with_label_values(&label).set(i64::from(up));
            if let Some(ms) = status.round_trip_ms {
                metrics.links.rtt.with_label_values(&label).set(ms as f64 / 1e3);
            }
            if let Some(ms) = status.clock_offset_ms {
                metrics.links.clock_skew.with_label_values(&label).set(ms as f64 / 1e3);
            }
            metrics
                .links
                .unacked_ops
                .with_label_values(&label)
                .set(i64::try_from(status.behind_ops).unwrap_or(i64::MAX));
            for (what, differs) in self.differences(&status) {
                metrics.links.config_mismatch.with_label_values(&[&name, what]).set(i64::from(differs));
            }
            self.show(&name, &status, up, wall);
        }
        let delivery = self.replica.delivery();
        metrics.ops.pending_bytes.set(i64::try_from(delivery.pending_bytes()).unwrap_or(i64::MAX));
        self.show_pending(&metrics);
        let delivery = self.replica.delivery();
        let waits = delivery.causal_waits();
        metrics.ops.causal_waits.inc_by(waits.saturating_sub(self.waits));
        self.waits = waits;
        for (peer, count) in delivery.duplicates() {
            let known = self.duplicates.entry(*peer).or_default();
            let name = self.names.get(peer).cloned().unwrap_or_default();
            metrics.ops.duplicate_ops.with_label_values(&[&name]).inc_by(count.saturating_sub(*known));
            *known = *count;
        }
        self.show_routes(&metrics);
        self.show_stability(&metrics);
        self.tell_truncation();
    }

    /// With whom this region can compare what it shows: those heard of, and not waited for in vain.
    fn tell_whom_to_compare_with(&self, all: &[replica::PeerStatus]) {
        let stability = self.replica.stability();
        let is_fit = |status: &&replica::PeerStatus| {
            status.phase == Phase::Up && !status.silent && !stability.is_fenced(status.peer)
        };
        let peers = all.iter().filter(is_fit).filter_map(|status| {
            let (_, wire) = self.wires.get(&status.peer)?;
            let peer = Peer { name: self.name(status.peer), connection: wire.connection.clone() };
            Some((status.peer, peer))
        });
        self.region.entropy().set_peers(peers.collect());
    }

    /// By whom writes get to their homes.
    fn tell_whom_to_ask(&self, all: &[replica::PeerStatus]) {
        let is_fit = |status: &&replica::PeerStatus| {
            matches!(status.phase, Phase::Up | Phase::Held(_)) && !status.silent
        };
        let links = all.iter().filter(is_fit).filter_map(|status| {
            let (_, wire) = self.wires.get(&status.peer)?;
            Some((status.peer, wire.connection.clone()))
        });
        self.region.homes().set_links(links.collect());
    }

    /// Who is fenced or soon will be, and who keeps metadata and log from going.
    fn show_stability(&self, metrics: &crate::metrics::Metrics) {
        let stability = self.replica.stability();
        let blocking = stability.blocked_by();
        let segments = self.region.log().segments();
        let since_ms = segments.first().map_or(u64::MAX, |segment| segment.created_at_ms);
        let seconds = self.region.wall().0.saturating_sub(since_ms) / 1_000;
        let max_bytes = self.region.settings().log.retention_max;
        for (region, _) in stability.heard() {
            let name = self.name(region);
            let label = [name.as_str()];
            metrics.links.fenced.with_label_values(&label).set(i64::from(stability.is_fenced(region)));
            metrics.links.gc_blocked_by.with_label_values(&label).set(i64::from(blocking == Some(region)));
            if let Some(ms) = stability.fenced_in_ms(self.region.mono(), region) {
                let room = stability.row(region).and_then(|row| {
                    let has =
                        |mark: &AppliedMark| meridian_conflict::clock::covers_all(&row.durable, &mark.0);
                    let log = segments.iter().map(|segment| {
                        (
                            AppliedMark::decode(&segment.mark).is_some_and(|mark| has(&mark)),
                            segment.end.since(segment.start),
                        )
                    });
                    log_lasts(&log.collect::<Vec<_>>(), max_bytes, seconds)
                });
                let seconds = i64::try_from(room.unwrap_or(u64::MAX).min(ms / 1_000)).unwrap_or(i64::MAX);
                metrics.links.seconds_until_reseed.with_label_values(&label).set(seconds);
            }
        }
    }

    /// Who feeds whose ops, and how often that changed. A gauge that was set once goes to zero.
    fn show_routes(&mut self, metrics: &crate::metrics::Metrics) {
        let own = RegionId::of(self.region.settings().region.as_str());
        let others = self.names.keys().copied().filter(|region| *region != own);
        let now: BTreeSet<(RegionId, RegionId)> = others
            .flat_map(|region| self.replica.feeders(region).map(move |feeder| (region, feeder)))
            .collect();
        for (region, feeder) in self.routes_shown.union(&now) {
            let label = [&*self.name(*region), &*self.name(*feeder)];
            metrics.links.route.with_label_values(&label).set(i64::from(now.contains(&(*region, *feeder))));
        }
        self.routes_shown = now;
        for (region, count) in self.replica.reroutes() {
            let known = self.reroutes.entry(*region).or_default();
            let name = self.names.get(region).cloned().unwrap_or_default();
            metrics.links.reroutes.with_label_values(&[&name]).inc_by(count.saturating_sub(*known));
            *known = *count;
        }
    }

    /// Held ops by origin; a gauge that was set once is set to zero when nothing is held any more.
    fn show_pending(&mut self, metrics: &crate::metrics::Metrics) {
        let held = self.replica.delivery().pending_by_origin();
        self.pending_shown.extend(held.keys().copied());
        for origin in &self.pending_shown {
            let name = self.names.get(&origin.region()).cloned().unwrap_or_default();
            let label = format!("{name}.{:08x}", origin.incarnation());
            let count = held.get(origin).copied().unwrap_or(0);
            metrics
                .ops
                .pending_ops
                .with_label_values(&[&label])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Links that were made to heal a route, and are gone, are not shown any more.
    fn forget_links(&self, present: &[replica::PeerStatus]) {
        let names: BTreeSet<String> = present.iter().map(|status| self.name(status.peer)).collect();
        self.states.lock().retain(|name, _| {
            let stays = names.contains(name);
            if !stays {
                self.region.metrics().links.forget_peer(name);
            }
            stays
        });
    }

    /// What of the configurations there is, and whether it differs from a peer's.
    fn differences(&self, status: &replica::PeerStatus) -> [(&'static str, bool); 3] {
        let homes = self.region.homes().differs(status.peer);
        [("topology", status.topology_differs), ("policies", status.policies_differ), ("homes", homes)]
    }

    fn show(&mut self, name: &str, status: &replica::PeerStatus, up: bool, wall: u64) {
        let bytes = &self.region.metrics().links.bytes;
        let total = |direction| {
            bytes.with_label_values(&[name, direction, "ops"]).get()
                + bytes.with_label_values(&[name, direction, "control"]).get()
        };
        let text = match status.phase {
            Phase::Down => "down".to_owned(),
            Phase::Greeting => "greeting".to_owned(),
            Phase::Up if status.silent => "silent".to_owned(),
            Phase::Up => "up".to_owned(),
            Phase::Held(hold) => format!("held: {hold:?}"),
        };
        let mut states = self.states.lock();
        let state = states.entry(name.to_owned()).or_default();
        state.peer = name.to_owned();
        if state.state != text {
            state.state = text;
            state.since_ms = wall;
        }
        state.connected = up;
        state.rtt_ms = status.round_trip_ms.map(|ms| ms as f64);
        state.unacked_ops = status.behind_ops;
        state.sent_bytes = total("sent");
        state.received_bytes = total("received");
        state.last_error = self.troubles.get(&status.peer).cloned();
        state.protocol = status.protocol.map(|protocol| u32::from(protocol.number()));
        state.mismatches = self
            .differences(status)
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(what, _)| what.to_owned())
            .collect();
    }

    /// Tells the committer what every member has, and the state machine what the log has lost. What
    /// one member lacks any other may have to serve, so the log goes below what all have.
    fn tell_truncation(&mut self) {
        let segments = self.region.log().segments();
        let alone = self.region.membership().regions.len() <= 1;
        let below = if alone {
            self.region.log().written_lsn()
        } else {
            let stable = self.replica.stability().stable();
            let all_have = |mark: &AppliedMark| meridian_conflict::clock::covers_all(&stable, &mark.0);
            let reached = segments
                .iter()
                .rev()
                .find(|s| AppliedMark::decode(&s.mark).is_some_and(|mark| all_have(&mark)));
            reached.map_or(Lsn(0), |segment| segment.previous_end)
        };
        self.region.committer().set_peers_have(below);
        let Some(oldest) = segments.first() else { return };
        let floor = self.region.sequencer().floor();
        let known = Some((oldest.start, floor));
        if self.truncated != known
            && let Some(mark) = AppliedMark::decode(&oldest.mark)
        {
            self.replica.handle_truncated(mark.0.as_ref().clone(), &self.region.sequencer().floor());
            self.truncated = known;
        }
    }
}

/// In how many seconds the log will have grown past `max_bytes` behind the place where a region stands, by
/// its growth so far. `segments` says of each, oldest first, whether the region has all before it, and its
/// bytes. Zero when that is gone already, `None` when nothing can be said.
fn log_lasts(segments: &[(bool, u64)], max_bytes: u64, seconds: u64) -> Option<u64> {
    let Some(at) = segments.iter().rposition(|(has, _)| *has) else { return Some(0) };
    let sum = |segments: &[(bool, u64)]| segments.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let needed = sum(segments.get(at..).unwrap_or_default());
    let per_second = sum(segments).checked_div(seconds).filter(|rate| *rate > 0)?;
    max_bytes.saturating_sub(needed).checked_div(per_second)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::log_lasts;

    #[test]
    fn j3_what_is_left_until_a_reseed_is_what_is_left_of_the_log() {
        let segments = [(true, 400), (true, 400), (false, 200)];
        assert_eq!(log_lasts(&segments, 1_600, 100), Some(100), "600 are needed, 10 come each second");
        assert_eq!(log_lasts(&segments, 600, 100), Some(0));
        assert_eq!(log_lasts(&[(false, 400), (false, 1)], 1_000, 100), Some(0), "gone already");
        assert_eq!(log_lasts(&[(true, 0)], 1_000, 100), None);
        assert_eq!(log_lasts(&segments, 1_000, 0), None);
    }
}
