//! `meridian conflicts`: a running region's conflict inbox, for people.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin::AdminArgs;
use super::status::http;
use super::status::table::{clean, seconds, table};
use crate::inbox::form::{Conflict, Listing, Text, Value};

/// Records asked for at once.
const PAGE: usize = 200;

/// Characters of a key or value that a line shows.
const SHOWN: usize = 40;

/// What to show, and of whom.
#[derive(Debug, clap::Args)]
pub struct ConflictsArgs {
    /// Whom.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Print conflicts as they are met, until Ctrl-C
    #[arg(long, conflicts_with = "limit")]
    pub follow: bool,
    /// Only about this key
    #[arg(long)]
    pub key: Option<String>,
    /// Only under this policy
    #[arg(long)]
    pub policy: Option<String>,
    /// Only of this kind: write_write, write_delete, type_clash, field, clear_write
    #[arg(long)]
    pub kind: Option<String>,
    /// Only those that the key's shadow policy would have settled otherwise
    #[arg(long, value_name = "differs", value_parser = ["differs"])]
    pub shadow: Option<String>,
    /// Go on behind the record with this id: to older ones, or to newer ones with --follow
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Print each record as a line of JSON, as it came
    #[arg(long)]
    pub json: bool,
}

impl ConflictsArgs {
    fn query(&self, more: &[(&str, String)]) -> String {
        let filters =
            [("key", &self.key), ("policy", &self.policy), ("kind", &self.kind), ("shadow", &self.shadow)];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let more = more.iter().map(|(name, value)| (*name, value.as_str()));
        let pairs = filters.chain(more);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        pairs.join("&")
    }
}

/// Shows the inbox.
///
/// # Errors
/// When the region does not answer, or ends the stream that is followed.
pub async fn run(args: &ConflictsArgs) -> anyhow::Result<()> {
    if args.follow { follow(args).await } else { list(args).await }
}

async fn list(args: &ConflictsArgs) -> anyhow::Result<()> {
    let mut conflicts: Vec<Conflict> = Vec::new();
    let mut after = args.after.clone();
    while conflicts.len() < args.limit {
        let limit = (args.limit - conflicts.len()).min(PAGE);
        let mut more = vec![("limit", limit.to_string())];
        more.extend(after.take().map(|id| ("after", id)));
        let body = http::get(&args.admin, &format!("/conflicts?{}", args.query(&more))).await?;
        let listing: Listing = serde_json::from_slice(&body)
            .with_context(|| format!("{} answers /conflicts with something else", args.admin))?;
        conflicts.extend(listing.conflicts);
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    let text = if args.json {
        lines_of_json(&conflicts)?
    } else {
        render(&conflicts, after.is_some(), crate::region::wall_now().0)
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

async fn follow(args: &ConflictsArgs) -> anyhow::Result<()> {
    let after: Vec<_> = args.after.iter().map(|id| ("after", id.clone())).collect();
    let mut events = http::follow(&args.admin, &format!("/conflicts/follow?{}", args.query(&after))).await?;
    while let Some(event) = events.next().await? {
        if !event.name.is_empty() {
            bail!("{} cut the stream: {}", args.admin, clean(&event.data));
        }
        let line = if args.json {
            event.data
        } else {
            let conflict: Conflict = serde_json::from_str(&event.data)
                .with_context(|| format!("{} tells of something else", args.admin))?;
            row(&conflict, crate::region::wall_now().0).join("  ")
        };
        let mut out = std::io::stdout();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    bail!("{} ended the stream", args.admin)
}

fn lines_of_json(conflicts: &[Conflict]) -> anyhow::Result<String> {
    let lines: Result<Vec<String>, _> = conflicts.iter().map(serde_json::to_string).collect();
    Ok(lines?.into_iter().map(|line| line + "\n").collect())
}

/// A table. `now_ms` is Unix time.
fn render(conflicts: &[Conflict], more: bool, now_ms: u64) -> String {
    if conflicts.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let head = ["AGE", "KIND", "DB", "KEY", "TYPE", "RULE", "OUTCOME", "LOST", "SHOWS", "", "ID"];
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = table(&head, conflicts.iter().map(|conflict| row(conflict, now_ms)).collect(), &mut out);
    if more {
        let _ = writeln!(out, "there are more: raise --limit");
    }
    out.trim_start().to_owned()
}

fn row(conflict: &Conflict, now_ms: u64) -> Vec<String> {
    let mut key = text(&conflict.key);
    if conflict.element != Text::default() {
        let _ = write!(key, " [{}]", text(&conflict.element));
    }
    let lost = conflict.rivals.iter().find(|rival| rival.dot == conflict.loser);
    let lost =
        lost.map_or("-".to_owned(), |rival| format!("{} of {}", value(&rival.value), clean(&rival.origin)));
    let labels = [&conflict.r#type, &conflict.rule, &conflict.outcome].map(|label| clean(label));
    let mut row = vec![
        seconds(now_ms.saturating_sub(conflict.at) / 1000),
        clean(&conflict.kind),
        conflict.database.to_string(),
        key,
    ];
    row.extend(labels);
    let restored = if conflict.restored { "restored" } else { "" };
    row.extend([lost, value(&conflict.shown), restored.to_owned(), clean(&conflict.id)]);
    row
}

/// Readable, bounded, and nothing that a terminal would obey.
fn clip(text: &str) -> String {
    let start: String = clean(text).chars().take(SHOWN).collect();
    if text.chars().count() > SHOWN { start + "..." } else { start }
}

fn text(text: &Text) -> String {
    match text {
        Text::Plain(text) => clip(text),
        Text::Binary { base64 } => format!("base64:{}", clip(base64)),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Nothing => "nothing".to_owned(),
        Value::Text(bytes) => format!("\"{}\"", text(bytes)),
        Value::Increments { increments } => format!("increments by {}", clip(increments)),
        Value::Contents { r#type, total, .. } => format!("{} of {total}", clean(r#type)),
        Value::Large { bytes, .. } => format!("{bytes} bytes"),
        Value::Gone { .. } => "gone".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::cli::admin::Url;

    const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/conflicts.json"));
    const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/conflicts.txt"));

    #[test]
    fn the_golden_document() {
        let listing: Listing = serde_json::from_str(DOCUMENT).unwrap();
        let shown = render(&listing.conflicts, listing.next.is_some(), 1_700_000_120_123);
        assert_eq!(shown, TEXT, "\n{shown}");
        assert_eq!(render(&[], false, 0), "no conflicts\n");
    }

    #[test]
    fn terminals_obey_nothing_from_a_key() {
        let conflict = Conflict { key: Text::Plain("\x1b[2Jgone\r\n".into()), ..Conflict::default() };
        assert!(!render(&[conflict], false, 0).contains(['\x1b', '\r']));
    }

    #[test]
    fn a_document_of_another_version_is_shown_as_far_as_known() {
        let conflict: Conflict = serde_json::from_str(r#"{"id": "1", "novelty": [1]}"#).unwrap();
        assert!(row(&conflict, 0).contains(&"1".to_owned()));
    }

    #[test]
    fn keys_are_encoded() {
        let args = ConflictsArgs {
            admin: AdminArgs { url: Url::parse("http://a:1").unwrap(), token_file: None },
            follow: false,
            key: Some("a&b=c d/é".into()),
            policy: None,
            kind: Some("field".into()),
            shadow: None,
            after: None,
            limit: 1,
            json: false,
        };
        assert_eq!(args.query(&[("limit", "3".into())]), "key=a%26b%3Dc%20d%2F%C3%A9&kind=field&limit=3");
    }
}
