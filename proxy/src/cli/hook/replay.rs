//! `meridian hook replay`: a merge hook on the conflicts that a running region has recorded.
//!
//! The hook runs here; the region is only read. It is asked about the two rivals of a record, as far as the record has
//! their values whole: siblings that were alive beside them are not in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use meridian_conflict::clock::{Dot, Hlc, Origin, Stamp};
use meridian_conflict::hook::question::{Kept, Question};
use meridian_conflict::hook::{Decided, Failure, MergeHook};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::shown;
use crate::cli::admin::AdminArgs;
use crate::cli::status::http;
use crate::cli::status::table::clean;
use crate::inbox::form::{Conflict, Listing, RivalForm, Text, Value};

/// Records asked for at once.
const PAGE: usize = 200;

/// Which hook, on whose conflicts.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A WebAssembly module (binary or text), or the name of a built-in hook
    #[arg(value_name = "FILE|NAME")]
    pub hook: PathBuf,
    /// Whom.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Only conflicts about this key
    #[arg(long)]
    pub key: Option<String>,
    /// Look at so many records at most, the newest
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub limit: usize,
    /// Spell out so many differences
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub differences: usize,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The hook failed on some records.
#[derive(Debug, thiserror::Error)]
#[error("the hook failed on {0} of the records; the greatest stamp would show")]
pub struct HookFailed(u64);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The hook's name.
    pub hook: String,
    /// Records looked at.
    pub records: u64,
    /// Of those, records of conflicts that hooks do not settle.
    pub other: u64,
    /// Records that do not have both values whole.
    pub not_whole: u64,
    /// Records that the hook merged.
    pub merged: u64,
    /// Records that it did not, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Records of which it would show something else than what showed.
    pub differs: u64,
    /// The newest of those.
    pub differences: Vec<Difference>,
}

/// A record of which the hook would show something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its id.
    pub id: String,
    /// The key, readable.
    pub key: String,
    /// The field, readable; empty for a string.
    pub field: String,
    /// The values by rising stamp, readable and cut.
    pub rivals: Vec<String>,
    /// What showed.
    pub shows: String,
    /// What the hook would show.
    pub would: String,
}

/// Replays the inbox.
///
/// # Errors
/// A hook that cannot be loaded, a region that does not answer, [`HookFailed`].
pub async fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let hook = super::load(&args.hook)?;
    let mut report = Report { hook: hook.id().name.to_string(), ..Report::default() };
    let mut after: Option<String> = None;
    let mut left = args.limit;
    while left > 0 {
        let mut path = format!("/conflicts?limit={}", left.min(PAGE));
        for (name, value) in [("key", &args.key), ("after", &after)] {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        let body = http::get(&args.admin, &path).await?;
        let listing: Listing = serde_json::from_slice(&body)
            .with_context(|| format!("{} answers /conflicts with something else", args.admin))?;
        left = left.saturating_sub(listing.conflicts.len());
        listing.conflicts.iter().for_each(|record| replay(&*hook, record, args.differences, &mut report));
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { render(&report) };
    std::io::stdout().write_all(text.as_bytes())?;
    let declined = Failure::Declined.name();
    let failed = report.failed.iter().filter(|(reason, _)| *reason != declined).map(|(_, count)| count).sum();
    if failed > 0 { Err(HookFailed(failed).into()) } else { Ok(()) }
}

fn replay(hook: &dyn MergeHook, record: &Conflict, most: usize, report: &mut Report) {
    report.records += 1;
    let field = match (record.r#type.as_str(), record.kind.as_str()) {
        ("string", "write_write") => None,
        ("hash", "field") => Some(bytes(&record.element)),
        _ => {
            report.other += 1;
            return;
        }
    };
    let siblings: Option<Vec<Kept>> = record.rivals.iter().map(sibling).collect();
    let (Some(siblings), Some(key)) = (siblings, bytes(&record.key)) else {
        report.not_whole += 1;
        return;
    };
    let field = field.flatten();
    let question = match &field {
        Some(field) if hook.merges_hashes() => Question::of_hash(&key, field, siblings.clone()),
        field => Question::of_values(&key, field.as_deref(), siblings.clone()),
    };
    let (would, decided) = question.ask(Some(hook), field.as_deref());
    match decided {
        Decided::Hook | Decided::Sole => report.merged += 1,
        Decided::Fallback(failure) => *report.failed.entry(failure.name().to_owned()).or_default() += 1,
    }
    let shows = match &record.shown {
        Value::Text(text) => bytes(text),
        _ => None,
    };
    if would == shows {
        return;
    }
    report.differs += 1;
    if report.differences.len() < most {
        let readable = |value: &Option<Vec<u8>>| value.as_deref().map_or("nothing".to_owned(), shown);
        report.differences.push(Difference {
            id: clean(&record.id),
            key: key.escape_ascii().to_string(),
            field: field.unwrap_or_default().escape_ascii().to_string(),
            rivals: siblings.iter().map(|kept| shown(&kept.value)).collect(),
            shows: readable(&shows),
            would: readable(&would),
        });
    }
}

fn bytes(text: &Text) -> Option<Vec<u8>> {
    match text {
        Text::Plain(text) => Some(text.clone().into_bytes()),
        Text::Binary { base64 } => STANDARD.decode(base64).ok(),
    }
}

/// A rival whose value is here.
fn sibling(rival: &RivalForm) -> Option<Kept> {
    let Value::Text(text) = &rival.value else { return None };
    let (origin, sequence) = rival.dot.split_once(':')?;
    let (region, incarnation) = origin.split_once('.')?;
    let half = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u64::from);
    let origin = Origin((half(region)? << 32) | half(incarnation)?);
    let (ms, counter) = rival.stamp.split_once('.')?;
    let (ms, counter): (u64, u16) = (ms.parse().ok()?, counter.parse().ok()?);
    let hlc = Hlc(ms.checked_mul(1 << 16)? | u64::from(counter));
    let stamp = Stamp { hlc, dot: Dot::new(origin, sequence.parse().ok()?) };
    Some(Kept { stamp, value: bytes(text)?.into() })
}

fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let Report { hook, records, other, not_whole, merged, failed, differs, differences } = report;
    let replayed = records - other - not_whole;
    writeln!(out, "{hook}: {records} records, {replayed} replayed")?;
    writeln!(out, "  merged            {merged}")?;
    for (reason, count) in failed {
        writeln!(out, "  failed            {count}: {reason}")?;
    }
    writeln!(out, "  not replayed      {other}: of other types or kinds")?;
    writeln!(out, "  not replayed      {not_whole}: a value is not kept whole")?;
    writeln!(out, "  would differ      {differs}: the hook would show something else than what showed")?;
    for difference in differences {
        let Difference { id, key, field, rivals, shows, would } = difference;
        let place = if field.is_empty() { key.clone() } else { format!("{key} [{field}]") };
        writeln!(out, "{place}  {id}")?;
        writeln!(out, "    rivals  {}", rivals.join(" | "))?;
        writeln!(out, "    showed  {shows}")?;
        writeln!(out, "    would   {would}")?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::hook::builtin::{BuiltIn, Kind};

    use super::*;

    fn rival(dot: &str, stamp: &str, value: Value) -> RivalForm {
        RivalForm { origin: "eu".into(), dot: dot.into(), stamp: stamp.into(), value }
    }

    fn text(text: &str) -> Value {
        Value::Text(Text::Plain(text.into()))
    }

    fn record(r#type: &str, kind: &str, values: [Value; 2], shown: Value) -> Conflict {
        let [one, other] = values;
        Conflict {
            id: "0c".into(),
            key: Text::Plain("k".into()),
            r#type: r#type.into(),
            kind: kind.into(),
            rivals: vec![
                rival("00000001.0000000f:7", "1700000000000.1", one),
                rival("00000002.00000001:9", "1700000000001.0", other),
            ],
            shown,
            ..Conflict::default()
        }
    }

    fn report(hook: Kind, records: &[Conflict]) -> Report {
        let mut report = Report { hook: hook.name().into(), ..Report::default() };
        records.iter().for_each(|record| replay(&BuiltIn::new(hook), record, 1, &mut report));
        report
    }

    #[test]
    fn records_are_replayed_and_differences_spelled_out() {
        let binary = Value::Text(Text::Binary { base64: "/wA=".into() });
        let large = Value::Large { bytes: 70_000, digest: "1".into() };
        let field = Conflict {
            element: Text::Plain("f".into()),
            ..record("hash", "field", [text("20"), text("3")], text("20"))
        };
        let records = [
            record("string", "write_write", [text("20"), text("3")], text("3")),
            record("string", "write_write", [text("4"), text("5")], text("5")),
            record("string", "write_write", [binary, text("5")], text("5")),
            record("string", "write_write", [large, text("5")], text("5")),
            record("set", "write_delete", [text("a"), Value::Nothing], text("a")),
            field,
        ];
        let report = report(Kind::Max, &records);
        assert_eq!((report.records, report.merged, report.differs), (6, 4, 2));
        assert_eq!((report.other, report.not_whole), (1, 1));
        assert_eq!(report.differences.len(), 1, "as many as were asked for");
        let shown = render(&report);
        assert!(shown.contains("max: 6 records, 4 replayed\n"), "{shown}");
        assert!(shown.contains("rivals  \"20\" | \"3\"\n    showed  \"3\"\n    would   \"20\"\n"), "{shown}");
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let records = [record("string", "write_write", [text("a"), text("b")], text("b"))];
        let report = report(Kind::JsonMerge, &records);
        assert_eq!((report.merged, report.differs), (0, 0));
        assert_eq!(report.failed, BTreeMap::from([("declined".to_owned(), 1)]));
        assert!(render(&report).contains("failed            1: declined"));
    }

    #[test]
    fn a_rival_is_read_as_it_is_written() {
        use crate::command::meridian::{clock_text, dot_text};
        let kept = sibling(&rival("00000001.0000000f:7", "1700000000000.65535", text("v"))).unwrap();
        assert_eq!(dot_text(kept.stamp), "00000001.0000000f:7");
        assert_eq!(clock_text(kept.stamp), "1700000000000.65535");
        for (dot, stamp) in
            [("", "1.0"), ("1:7", "1.0"), ("1.x:7", "1.0"), ("1.1:7", "1"), ("1.1:7", "1.65536")]
        {
            assert_eq!(sibling(&rival(dot, stamp, text("v"))), None, "{dot} {stamp}");
        }
    }
}
