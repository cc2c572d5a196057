//! Gauges that nobody keeps up to date: they are read where they live when somebody asks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::View;
use super::status::{Names, SeedingStatus, seconds_until};
use crate::store::disk::Disk;

/// How long the disk's file system may take to say what it has left.
const DISK_WITHIN: Duration = Duration::from_secs(2);

/// Sets every sampled gauge.
pub(super) fn take(view: &View) {
    let (region, metrics) = (&view.region, view.region.metrics());
    metrics.store.oplog_bytes.set(gauge(region.log().total_bytes()));
    metrics.store.store_lag_ops.set(gauge(region.keyspace().dirty_objects()));

    seeding(view);

    let figures = region.keyspace().store().metrics();
    for (part, bytes) in [
        ("objects", region.keyspace().memory_bytes()),
        ("tail", region.log().tail_cache_bytes() as u64),
        ("log_buffer", region.sequencer().end().since(region.log().written_lsn())),
        ("store_cache", figures.cache_bytes),
        ("store_write_buffer", figures.write_buffer_bytes),
    ] {
        metrics.store.memory_bytes.with_label_values(&[part]).set(gauge(bytes));
    }

    let names = Names::of(&region.membership());
    for dot in region.sequencer().applied().iter() {
        let origin = names.origin(*dot.actor);
        metrics.ops.applied_sequence.with_label_values(&[&origin]).set(gauge(dot.counter));
    }
    if let Some(end) = view.region.certificate().end() {
        metrics.links.cert_expiry.set(seconds_until(end, SystemTime::now()));
    }
    links(view);
    hooks(view);
}

/// Measures the disk and sets its gauges. Nothing if the system does not say, or not in time.
pub(super) async fn disk(view: &View) -> Option<Disk> {
    let region = Arc::clone(&view.region);
    let asked = tokio::task::spawn_blocking(move || Disk::of(&region.settings().data_dir));
    let answered = timeout(DISK_WITHIN, asked).await.map_err(io::Error::from);
    match answered.and_then(|joined| joined.map_err(io::Error::other)).flatten() {
        Ok(disk) => {
            let metrics = &view.region.metrics().store;
            metrics.disk_available.set(gauge(disk.available_bytes));
            metrics.disk_capacity.set(gauge(disk.capacity_bytes));
            Some(disk)
        }
        Err(error) => {
            tracing::debug!(%error, "cannot measure the disk");
            None
        }
    }
}

/// A hook that no key has any more is not shown.
fn hooks(view: &View) {
    let (metrics, active) = (view.region.metrics(), view.region.keyspace().policies().current());
    metrics.hooks.quarantine_room.set(gauge(active.quarantine().room() as u64));
    metrics.hooks.quarantined.reset();
    for id in active.hook_ids() {
        let confined = active.quarantine().is_confined(&id.identity);
        metrics.hooks.quarantined.with_label_values(&[&*id.name]).set(i64::from(confined));
    }
}

/// Zero when nothing is taken over.
fn seeding(view: &View) {
    let metrics = view.region.metrics();
    let seeding = SeedingStatus::of(&view.region);
    metrics.seeding.loading.set(i64::from(seeding.is_some()));
    let seeding = seeding.unwrap_or_default();
    for (gauges, merged, all) in [
        (&metrics.seeding.keys, seeding.keys, seeding.keys_expected),
        (&metrics.seeding.ranges, seeding.ranges, seeding.ranges_total),
    ] {
        gauges.with_label_values(&["merged"]).set(gauge(merged));
        gauges.with_label_values(&["all"]).set(gauge(all));
    }
}

fn links(view: &View) {
    let metrics = view.region.metrics();
    for (peer, link) in view.links.lock().iter() {
        let peer = &[peer.as_str()];
        metrics.links.up.with_label_values(peer).set(i64::from(link.connected));
        metrics.links.unacked_ops.with_label_values(peer).set(gauge(link.unacked_ops));
        if let Some(rtt_ms) = link.rtt_ms {
            metrics.links.rtt.with_label_values(peer).set(rtt_ms / 1e3);
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
