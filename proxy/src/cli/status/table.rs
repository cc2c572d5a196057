//! The status document as text for a terminal.

use std::fmt::Write;

use crate::admin::status::{Applied, Status};
use crate::service::LinkState;

/// Renders `status`. With the one `before`, lags are of what arrived since; `now_ms` is Unix time.
pub fn render(status: &Status, before: Option<&Status>, now_ms: u64) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(status, before, now_ms, &mut out);
    out
}

fn write(status: &Status, before: Option<&Status>, now_ms: u64, out: &mut String) -> std::fmt::Result {
    let readiness = if status.ready { "ready" } else { "NOT READY" };
    writeln!(
        out,
        "{} of {}, {}, {readiness}, up {}, meridian {}",
        clean(&status.region),
        clean(&status.cluster),
        clean(&status.role),
        seconds(status.uptime_seconds),
        clean(&status.version),
    )?;
    writeln!(out, "topology {}", clean(&status.topology.shape))?;
    for reason in &status.not_ready {
        writeln!(out, "not ready: {}", clean(reason))?;
    }
    if let Some(seeding) = &status.seeding {
        let (stage, ranges, all) = (clean(&seeding.stage), seeding.ranges, seeding.ranges_total);
        let (keys, expected, size) = (seeding.keys, seeding.keys_expected, bytes(seeding.bytes));
        writeln!(out, "seeding: {stage}, {ranges} of {all} ranges, {keys} of about {expected} keys, {size}")?;
    }
    for warning in &status.warnings {
        writeln!(out, "warning: {}", clean(warning))?;
    }
    for mismatch in &status.config_mismatches {
        writeln!(out, "mismatch: {} differs in {}", clean(&mismatch.peer), clean(&mismatch.what))?;
    }
    links(status, now_ms, out)?;
    origins(status, before, out)?;
    conflicts(status, out)?;
    shadows(status, out)?;
    store(status, out)
}

fn links(status: &Status, now_ms: u64, out: &mut String) -> std::fmt::Result {
    if status.links.is_empty() {
        return writeln!(out, "\nlinks: none, this region is alone");
    }
    let row = |link: &LinkState| {
        vec![
            clean(&link.peer),
            if link.connected { "up" } else { "DOWN" }.to_owned(),
            clean(&link.state),
            seconds(now_ms.saturating_sub(link.since_ms) / 1000),
            link.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            link.unacked_ops.to_string(),
            bytes(link.sent_bytes),
            bytes(link.received_bytes),
            clean(link.last_error.as_deref().unwrap_or("")),
        ]
    };
    let head = ["LINK", "", "STATE", "SINCE", "RTT", "UNACKED", "SENT", "RECEIVED", "LAST ERROR"];
    table(&head, status.links.iter().map(row).collect(), out)
}

fn origins(status: &Status, before: Option<&Status>, out: &mut String) -> std::fmt::Result {
    if status.applied.is_empty() {
        return writeln!(out, "\nops: none yet");
    }
    let row = |applied: &Applied| {
        let local = applied.origin == status.origin;
        let earlier = before.and_then(|b| b.applied.iter().find(|a| a.origin == applied.origin));
        let via = status.topology.routes.get(&applied.region);
        vec![
            clean(&applied.origin),
            applied.sequence.to_string(),
            if local { "local".to_owned() } else { lag(applied, earlier) },
            clean(via.map_or("", String::as_str)),
        ]
    };
    table(&["ORIGIN", "APPLIED", "LAG", "VIA"], status.applied.iter().map(row).collect(), out)
}

/// The mean lag since `earlier`, else since the start.
fn lag(applied: &Applied, earlier: Option<&Applied>) -> String {
    let since = earlier.map_or((0, 0.0), |earlier| (earlier.lag_count, earlier.lag_seconds));
    // Counts fall when the region was restarted in between.
    let since = if since.0 > applied.lag_count { (0, 0.0) } else { since };
    let count = applied.lag_count - since.0;
    if count == 0 {
        return "-".to_owned();
    }
    format!("{:.1} ms", (applied.lag_seconds - since.1) * 1e3 / count as f64)
}

fn conflicts(status: &Status, out: &mut String) -> std::fmt::Result {
    if status.conflicts_total.is_empty() {
        return writeln!(out, "\nconflicts: none since the start");
    }
    let rows = status.conflicts_total.iter().map(|conflict| {
        let labels = [&conflict.kind, &conflict.rule, &conflict.outcome, &conflict.policy, &conflict.r#type];
        let mut row: Vec<String> = labels.into_iter().map(|label| clean(label)).collect();
        row.push(conflict.count.to_string());
        row
    });
    table(&["CONFLICT", "RULE", "OUTCOME", "POLICY", "TYPE", "COUNT"], rows.collect(), out)
}

fn shadows(status: &Status, out: &mut String) -> std::fmt::Result {
    if status.shadows.is_empty() {
        return Ok(());
    }
    let rows = status.shadows.iter().map(|shadow| {
        let mut row = vec![clean(&shadow.rule), clean(&shadow.policy)];
        row.extend([shadow.evaluated, shadow.differs, shadow.unknown].map(|count| count.to_string()));
        row
    });
    table(&["SHADOW", "INSTEAD OF", "TRIED", "DIFFERS", "UNKNOWN"], rows.collect(), out)
}

fn store(status: &Status, out: &mut String) -> std::fmt::Result {
    let (store, log) = (&status.store, &status.log);
    let keys: Vec<String> = store.keys.iter().map(|(db, keys)| format!("db{db} {keys}")).collect();
    writeln!(out, "\nkeys   {}", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") })?;
    writeln!(out, "memory {} of {}", bytes(store.memory_bytes), bytes(store.memory_max_bytes))?;
    writeln!(
        out,
        "store  {} on disk, {} objects behind ({} of log){}",
        bytes(store.disk_bytes),
        store.lag_ops,
        bytes(store.lag_bytes),
        if store.failed { ", COMMITS FAIL" } else { "" },
    )?;
    writeln!(out, "log    {} on disk, sync {}", bytes(log.bytes), clean(&log.sync))?;
    if let Some((available, capacity)) = store.disk_available_bytes.zip(store.disk_capacity_bytes) {
        writeln!(out, "disk   {} free of {}", bytes(available), bytes(capacity))?;
    }
    writeln!(out, "clients {}", status.clients)?;
    let recovered = &status.recovered;
    writeln!(out, "start  replayed {} ops in {} ms", recovered.replayed_ops, recovered.took_ms)
}

/// Columns as wide as their widest cell.
pub(in crate::cli) fn table(head: &[&str], rows: Vec<Vec<String>>, out: &mut String) -> std::fmt::Result {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut widths = vec![0; head.len()];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    writeln!(out)?;
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Text of another process without what a terminal would obey.
pub(in crate::cli) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A span of time, roughly.
pub(in crate::cli) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// An amount of data.
pub(in crate::cli) fn bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/status.json"));
    const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/status.txt"));

    fn document() -> Status {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn the_golden_document() {
        let shown = render(&document(), None, 1_700_000_120_000);
        assert_eq!(shown, TEXT, "\n{shown}");
    }

    #[test]
    fn a_watched_lag_is_that_of_the_last_interval() {
        let (mut before, after) = (document(), document());
        before.applied[1].lag_count -= 1;
        before.applied[1].lag_seconds -= 0.25;
        assert_eq!(lag(&after.applied[1], Some(&before.applied[1])), "250.0 ms");
        assert_eq!(lag(&after.applied[1], Some(&after.applied[1])), "-");
        before.applied[1].lag_count = u64::MAX;
        assert_eq!(lag(&after.applied[1], Some(&before.applied[1])), "50.0 ms", "restarted in between");
    }

    #[test]
    fn a_document_of_another_version_is_shown_as_far_as_known() {
        let status: Status = serde_json::from_str(r#"{"region": "eu", "novelty": [1]}"#).unwrap();
        assert!(render(&status, None, 0).contains("eu of"));
    }

    #[test]
    fn terminals_obey_nothing_from_a_peer() {
        let mut status = document();
        status.links[0].last_error = Some("\x1b[2Jgone\r\n".to_owned());
        assert!(!render(&status, None, 0).contains(['\x1b', '\r']));
    }
}
