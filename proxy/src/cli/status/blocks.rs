//! What a watched region shows, block by block: a pure function of what was seen of it.

use super::looks::{Change, Watched, conflicts};
use super::screen::{Align, Block, Line, Span, Style, table};
use super::table::{bytes, clean, seconds};
use crate::admin::status::{Applied, SeedingStatus, Status};
use crate::service::LinkState;

/// How wide a bar of progress is.
const BAR: usize = 24;

/// A lag from which on it is worth a look.
const LAG_DOUBTFUL_SECONDS: f64 = 5.0;

/// Ops that wait for a peer from which on they are worth a look.
const UNACKED_DOUBTFUL: u64 = 10_000;

/// The share of a disk that is free below which it is worth a look, as the alert `MeridianLogDiskNearlyFull` has it.
const DISK_DOUBTFUL: f64 = 0.15;

/// A screen of all `watched`, `now_ms` being Unix time: a line of each, then the first in full.
pub fn screen(watched: &[Watched], now_ms: u64) -> Vec<Block> {
    let mut blocks = Vec::new();
    if watched.len() > 1 {
        blocks.push(overview(watched));
    }
    if let Some(first) = watched.first() {
        blocks.extend(detail(first, now_ms));
    }
    // What is above a table keeps it from what comes before: there is nothing before the first.
    if let Some(first) = blocks.first_mut() {
        first.head.retain(|line| !line.is_empty());
    }
    blocks
}

fn overview(watched: &[Watched]) -> Block {
    use Align::{Left, Right};
    let columns = [
        ("REGION", Left),
        ("", Left),
        ("LINKS", Right),
        ("OPS/S", Right),
        ("WORST LAG", Right),
        ("CONFLICTS/S", Right),
        ("UNACKED", Right),
        ("", Left),
    ];
    let mut block = table(&columns, watched.iter().map(overview_row).collect());
    // Regions are what this is about: none of them goes for want of room.
    let rows = std::mem::take(&mut block.rows);
    block.head.extend(rows);
    block
}

fn overview_row(watched: &Watched) -> Vec<Span> {
    let error = Span::new(Style::Bad, clean(watched.error.as_deref().unwrap_or("")));
    let Some(status) = watched.status() else {
        let state = match &watched.error {
            Some(_) => Span::new(Style::Bad, "● NO ANSWER"),
            None => Span::new(Style::Faint, "asking"),
        };
        let admin = watched.admin.trim_start_matches("http://");
        let mut row: Vec<Span> = vec![admin.into(), state];
        row.extend((0..5).map(|_| Span::new(Style::Faint, "-")));
        row.push(error);
        return row;
    };
    let (change, dash) = (watched.change(), || Span::new(Style::Faint, "-"));
    let up = status.links.iter().filter(|link| link.connected).count();
    let links = format!("{up}/{}", status.links.len());
    let all_up = up == status.links.len();
    let unacked = status.links.iter().map(|link| link.unacked_ops).fold(0, u64::saturating_add);
    let rate = |value: Option<f64>| value.map_or_else(dash, |value| figure(value).into());
    vec![
        clean(&status.region).into(),
        readiness(watched, status),
        Span::new(if all_up { Style::Good } else { Style::Bad }, links),
        rate(change.map(|change| change.all_ops())),
        change.and_then(|change| change.worst_lag()).map_or_else(dash, lag),
        rate(change.map(|change| change.conflicts().values().sum())),
        unacked_cell(unacked),
        error,
    ]
}

fn readiness(watched: &Watched, status: &Status) -> Span {
    match (&watched.error, status.ready) {
        (Some(_), _) => Span::new(Style::Bad, "● NO ANSWER"),
        (None, true) => Span::new(Style::Good, "● ready"),
        (None, false) => Span::new(Style::Doubtful, "● NOT READY"),
    }
}

fn detail(watched: &Watched, now_ms: u64) -> Vec<Block> {
    let Some(status) = watched.status() else {
        let error = clean(watched.error.as_deref().unwrap_or("asking"));
        return vec![Block { head: vec![Line::new(), vec![Span::new(Style::Bad, error)]], rows: vec![] }];
    };
    let change = watched.change();
    let mut blocks = vec![Block { head: header(watched, status, now_ms), rows: Vec::new() }];
    blocks.push(Block { head: Vec::new(), rows: troubles(watched, status) });
    if let Some(seeding) = &status.seeding {
        let rate = change.and_then(|change| change.seeded());
        blocks.push(Block { head: vec![Line::new(), progress(seeding, rate)], rows: Vec::new() });
    }
    blocks.push(links(status, change, now_ms));
    blocks.push(origins(status, change));
    blocks.push(conflicts_block(watched, status));
    blocks.extend((!status.homes.is_empty()).then(|| homes(status)));
    let head = std::iter::once(Line::new()).chain(keeping(status)).collect();
    blocks.push(Block { head, rows: Vec::new() });
    blocks
}

fn header(watched: &Watched, status: &Status, now_ms: u64) -> Vec<Line> {
    let (cluster, region, role) = (clean(&status.cluster), clean(&status.region), clean(&status.role));
    let day = now_ms / 1000 % 86_400;
    let clock = format!("{:02}:{:02}:{:02} UTC", day / 3600, day / 60 % 60, day % 60);
    let (up, version) = (seconds(status.uptime_seconds), clean(&status.version));
    let first = vec![
        Span::new(Style::Head, region),
        format!(" of {cluster}, {role}  ").into(),
        readiness(watched, status),
        Span::new(Style::Faint, format!("  up {up}  meridian {version}  {clock}")),
    ];
    vec![Line::new(), first, vec![Span::new(Style::Faint, clean(&status.topology.shape))]]
}

/// What somebody should look at.
fn troubles(watched: &Watched, status: &Status) -> Vec<Line> {
    let bad = |text: String| vec![Span::new(Style::Bad, format!("! {text}"))];
    let doubtful = |text: String| vec![Span::new(Style::Doubtful, format!("! {text}"))];
    let quarantined = status.hooks.iter().filter_map(|hook| {
        let key = &hook.quarantine.as_ref()?.key;
        let (name, key) = (clean(&hook.name), clean(key));
        Some(bad(format!("the hook {name} is in quarantine: it gave two answers on {key}")))
    });
    let mismatch = |m: &crate::admin::status::Mismatch| {
        doubtful(format!("{} differs in {}", clean(&m.peer), clean(&m.what)))
    };
    let error =
        watched.error.iter().map(|error| bad(format!("{}; below is what was seen last", clean(error))));
    let store = status.store.failed.then(|| bad("commits to the store fail".to_owned()));
    error
        .chain(status.not_ready.iter().map(|reason| doubtful(format!("not ready: {}", clean(reason)))))
        .chain(store)
        .chain(quarantined)
        // A hook in quarantine has a warning of its own.
        .chain(status.warnings.iter().filter(|w| !w.contains("quarantine")).map(|w| doubtful(clean(w))))
        .chain(status.config_mismatches.iter().map(mismatch))
        .collect()
}

/// How far taking over a state has come: a bar, and when it ends at this pace.
fn progress(seeding: &SeedingStatus, rate: Option<f64>) -> Line {
    let share = match seeding.keys_expected {
        0 => seeding.ranges as f64 / seeding.ranges_total.max(1) as f64,
        expected => seeding.keys as f64 / expected as f64,
    };
    let share = share.clamp(0.0, 1.0);
    let full = (share * BAR as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR.saturating_sub(full)));
    let missing = seeding.keys_expected.saturating_sub(seeding.keys);
    let left = rate
        .filter(|rate| *rate > 0.0 && missing > 0)
        .map(|rate| format!(", about {} left", seconds((missing as f64 / rate).ceil() as u64)));
    let (keys, expected) = (figure(seeding.keys as f64), figure(seeding.keys_expected as f64));
    vec![
        Span::new(Style::Head, "  SEEDING  "),
        Span::new(Style::Good, bar),
        format!(
            " {:3.0}%  {}: {keys} of about {expected} keys, {}{}",
            share * 100.0,
            clean(&seeding.stage),
            bytes(seeding.bytes),
            left.unwrap_or_default()
        )
        .into(),
    ]
}

fn links(status: &Status, change: Option<Change<'_>>, now_ms: u64) -> Block {
    use Align::{Left, Right};
    let columns = [
        ("LINK", Left),
        ("STATE", Left),
        ("FOR", Right),
        ("RTT", Right),
        ("UNACKED", Right),
        ("SENT/S", Right),
        ("RECEIVED/S", Right),
        ("", Left),
    ];
    let row = |link: &LinkState| {
        let style = if link.connected { Style::Good } else { Style::Bad };
        let rate = |rate: Option<f64>| {
            rate.map_or_else(|| Span::new(Style::Faint, "-"), |rate| bytes(rate as u64).into())
        };
        let flow = change.and_then(|change| change.bytes(&link.peer));
        let error = link.last_error.as_deref().filter(|_| !link.connected).unwrap_or("");
        vec![
            clean(&link.peer).into(),
            Span::new(style, format!("{} {}", if link.connected { "●" } else { "○" }, clean(&link.state))),
            seconds(now_ms.saturating_sub(link.since_ms) / 1000).into(),
            link.rtt_ms.map_or_else(|| Span::new(Style::Faint, "-"), |ms| format!("{ms:.1} ms").into()),
            unacked_cell(link.unacked_ops),
            rate(flow.map(|(sent, _)| sent)),
            rate(flow.map(|(_, received)| received)),
            Span::new(Style::Bad, clean(error)),
        ]
    };
    if status.links.is_empty() {
        return Block {
            head: vec![Line::new(), vec!["  no links: this region is alone".into()]],
            rows: vec![],
        };
    }
    table(&columns, status.links.iter().map(row).collect())
}

fn origins(status: &Status, change: Option<Change<'_>>) -> Block {
    use Align::{Left, Right};
    let columns = [
        ("WRITES OF", Left),
        ("OPS/S", Right),
        ("LAG", Right),
        ("THROUGH", Left),
        ("HOPS", Right),
        ("APPLIED", Right),
    ];
    let row = |applied: &Applied| {
        let dash = || Span::new(Style::Faint, "-");
        let own = applied.region == status.region;
        let topology = &status.topology;
        let usual = topology.routes.get(&applied.region);
        let now = topology.ways.get(&applied.region).filter(|now| !now.is_empty());
        let through = match (own, now, usual) {
            (true, ..) => Span::new(Style::Faint, "written here"),
            (_, Some(now), Some(usual)) if now.iter().all(|feeder| feeder == usual) => clean(usual).into(),
            (_, Some(now), _) => Span::new(Style::Doubtful, clean(&now.join(" + "))),
            (_, None, Some(usual)) => clean(usual).into(),
            (_, None, None) => dash(),
        };
        let hops = topology.hops.get(&applied.region).filter(|_| through.style == Style::Plain);
        let life = if applied.origin == status.origin || !own { "" } else { " (earlier)" };
        vec![
            format!("{}{life}", clean(&applied.region)).into(),
            change.map_or_else(dash, |change| figure(change.ops(applied)).into()),
            change.and_then(|change| change.lag(applied)).map_or_else(dash, lag),
            through,
            hops.map_or_else(dash, |hops| hops.to_string().into()),
            applied.sequence.to_string().into(),
        ]
    };
    let mut block = table(&columns, status.applied.iter().map(row).collect());
    if status.applied.is_empty() {
        block.rows.push(vec![Span::new(Style::Faint, "  none yet")]);
    }
    block
}

fn conflicts_block(watched: &Watched, status: &Status) -> Block {
    use Align::{Left, Right};
    let columns =
        [("CONFLICTS", Left), ("POLICY", Left), ("PER SECOND", Right), ("", Left), ("TOTAL", Right)];
    let changes = watched.changes();
    let now = watched.change().map(|change| change.conflicts());
    let counts = conflicts(status);
    if counts.is_empty() {
        let none =
            vec![Span::new(Style::Head, "  CONFLICTS"), Span::new(Style::Faint, "  none since the start")];
        return Block { head: vec![Line::new(), none], rows: Vec::new() };
    }
    let rows = counts.into_iter().map(|(by, total)| {
        let rates: Vec<f64> = changes
            .iter()
            .map(|change| change.and_then(|change| change.conflicts().get(&by).copied()).unwrap_or(0.0))
            .collect();
        let rate = now.as_ref().and_then(|now| now.get(&by)).copied();
        vec![
            clean(by.0).into(),
            clean(by.1).into(),
            rate.map_or_else(|| Span::new(Style::Faint, "-"), |rate| figure(rate).into()),
            Span::new(Style::Doubtful, sparkline(&rates)),
            total.to_string().into(),
        ]
    });
    table(&columns, rows.collect())
}

fn homes(status: &Status) -> Block {
    use Align::{Left, Right};
    let columns =
        [("HOME OF", Left), ("REGION", Left), ("ELSEWHERE", Left), ("LEASE", Left), ("LEFT", Right)];
    let rows = status.homes.iter().map(|home| {
        let style = match home.lease.as_str() {
            "held" => Style::Good,
            "none" => Style::Bad,
            "moving" => Style::Doubtful,
            _ => Style::Faint,
        };
        let left = if home.lease == "held" {
            format!("{:.1} s", home.lease_ms as f64 / 1e3)
        } else {
            "-".to_owned()
        };
        vec![
            clean(&home.keys).into(),
            clean(&home.home).into(),
            clean(&home.elsewhere).into(),
            Span::new(style, clean(&home.lease)),
            left.into(),
        ]
    });
    table(&columns, rows.collect())
}

/// What is kept in memory and for whom, and what is kept on the disk and has room there.
fn keeping(status: &Status) -> [Line; 2] {
    let (store, log) = (&status.store, &status.log);
    let keys: u64 = store.keys.values().sum();
    let behind =
        if store.lag_ops > 0 { format!(" ({} behind)", figure(store.lag_ops as f64)) } else { String::new() };
    let part = |name: &str, value: Span| [Span::new(Style::Faint, format!("  {name} ")), value];
    let memory = format!("{} of {}", bytes(store.memory_bytes), bytes(store.memory_max_bytes));
    let disk = store.disk_available_bytes.zip(store.disk_capacity_bytes);
    let upper = [
        part("keys", keys.to_string().into()),
        part("memory", memory.into()),
        part("clients", status.clients.to_string().into()),
    ];
    let lower = [
        Some(part("store", format!("{}{behind}", bytes(store.disk_bytes)).into())),
        Some(part("log", bytes(log.bytes).into())),
        disk.map(|(available, capacity)| part("disk", free(available, capacity))),
    ];
    [upper.into_iter().flatten().collect(), lower.into_iter().flatten().flatten().collect()]
}

fn free(available: u64, capacity: u64) -> Span {
    let is_little = (available as f64) < capacity as f64 * DISK_DOUBTFUL;
    let style = if is_little { Style::Doubtful } else { Style::Plain };
    Span::new(style, format!("{} free of {}", bytes(available), bytes(capacity)))
}

fn unacked_cell(unacked: u64) -> Span {
    let style = if unacked >= UNACKED_DOUBTFUL { Style::Doubtful } else { Style::Plain };
    Span::new(style, figure(unacked as f64))
}

fn lag(seconds: f64) -> Span {
    let style = if seconds >= LAG_DOUBTFUL_SECONDS { Style::Doubtful } else { Style::Plain };
    let text = if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") };
    Span::new(style, text)
}

/// A number of few digits: `0`, `3.5`, `420`, `12.3k`, `1.2M`.
fn figure(value: f64) -> String {
    // The sum of no floats is -0.
    let value = value + 0.0;
    match value {
        _ if value.fract() == 0.0 && value < 1e4 => format!("{value:.0}"),
        _ if value < 10.0 => format!("{value:.1}"),
        _ if value < 1e4 => format!("{value:.0}"),
        _ if value < 1e6 => format!("{:.1}k", value / 1e3),
        _ => format!("{:.1}M", value / 1e6),
    }
}

/// A bar of one character for each of `values`, the highest for the greatest.
fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let height = if most > 0.0 { (value / most * 7.0).ceil() as usize } else { 0 };
        BARS.get(height).copied().unwrap_or('█')
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_doubtful() {
        let style = |available: u64| free(available << 30, 100 << 30).style;
        assert_eq!([14, 15, 0].map(style), [Style::Doubtful, Style::Plain, Style::Doubtful]);
        assert_eq!(free(37_795_712_205, 252 << 30).text, "35.2 GiB free of 252.0 GiB");
    }

    #[test]
    fn figures_have_few_digits_and_nothing_has_no_sign() {
        let none: f64 = std::iter::empty::<f64>().sum();
        let figures = [none, 3.5, 420.4, 12_345.0, 1_234_567.0].map(figure);
        assert_eq!(figures, ["0", "3.5", "420", "12.3k", "1.2M"]);
    }
}
