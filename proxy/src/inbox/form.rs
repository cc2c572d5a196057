//! A record as JSON: what `/conflicts` answers and `meridian conflicts` reads.
//!
//! Bytes are a string where they are UTF-8, else `{"base64": ..}`. A value that was deleted is null; one that is more
//! than bytes is an object.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meridian_conflict::clock::RegionId;
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::record::{Record, Rival, Written, id_text};
use crate::command::meridian::{clock_text, dot_text};

/// The answer of `/conflicts`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    /// Newest first.
    pub conflicts: Vec<Conflict>,
    /// What `after` must be to go on; null at the end.
    pub next: Option<String>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conflict {
    /// 32 hex digits, the same in every region.
    pub id: String,
    /// When it was noticed, in Unix milliseconds.
    pub at: u64,
    /// Which region noticed it.
    pub region: String,
    /// The database.
    pub database: u8,
    /// The key.
    pub key: Text,
    /// The field or member, empty where the whole key is concerned.
    pub element: Text,
    /// The type concerned.
    pub r#type: String,
    /// The key's policy.
    pub policy: String,
    /// What clashed.
    pub kind: String,
    /// Which rule decided.
    pub rule: String,
    /// Whose value shows: `local`, `remote` or `merged`; or `unasked`, where the hook was not asked.
    pub outcome: String,
    /// The two writes, by rising stamp.
    pub rivals: Vec<RivalForm>,
    /// The dot of the one that lost.
    pub loser: String,
    /// What showed once both were applied.
    pub shown: Value,
    /// Whether the loser was written back here.
    pub restored: bool,
    /// What the key's shadow policy would have shown, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowForm>,
}

/// What another policy would have shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowForm {
    /// Which: a policy, or `hook:NAME`.
    pub rule: String,
    /// What.
    pub shown: Value,
}

/// One of the writes that met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RivalForm {
    /// The region that wrote it.
    pub origin: String,
    /// Origin and sequence number.
    pub dot: String,
    /// Milliseconds and counter of its clock reading.
    pub stamp: String,
    /// What it had written.
    pub value: Value,
}

/// Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// They are UTF-8.
    Plain(String),
    /// They are not.
    Binary {
        /// In base64 with padding.
        base64: String,
    },
}

/// What was written, or shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Nothing: a delete.
    #[default]
    Nothing,
    /// A string, field or score; of a member its name.
    Text(Text),
    /// What a region's increments add.
    Increments {
        /// A decimal number.
        increments: String,
    },
    /// Elements of a collection.
    Contents {
        /// Its type.
        r#type: String,
        /// Name and value of each: a field's bytes, a member's score, an empty text for a member of a set.
        elements: Vec<(Text, Text)>,
        /// How many there were; more than are listed if they were too large.
        total: u64,
    },
    /// Too large to keep.
    Large {
        /// Its length.
        bytes: u64,
        /// Its xxh3-128 in hex.
        digest: String,
    },
    /// It was not there any more when the conflict was noticed.
    Gone {
        /// True.
        gone: bool,
    },
}

impl Default for Text {
    fn default() -> Self {
        Text::Plain(String::new())
    }
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text::Plain(text.to_owned()),
            Err(_) => Text::Binary { base64: STANDARD.encode(bytes) },
        }
    }
}

impl Value {
    fn of(written: &Written) -> Self {
        match written {
            Written::Nothing => Value::Nothing,
            Written::Gone => Value::Gone { gone: true },
            Written::Bytes(bytes) => Value::Text(Text::of(bytes)),
            Written::Score(score) => Value::Text(Text::Plain(score.clone())),
            Written::Increments(sum) => Value::Increments { increments: sum.clone() },
            Written::Large { bytes, digest } => {
                Value::Large { bytes: *bytes, digest: format!("{digest:032x}") }
            }
            Written::Contents(contents) => Value::Contents {
                r#type: contents.facet.clone(),
                elements: contents.elements.iter().map(|(a, b)| (Text::of(a), Text::of(b))).collect(),
                total: contents.total,
            },
        }
    }
}

/// A value as JSON text.
pub fn value_text(written: &Written) -> String {
    // Texts and numbers always become JSON.
    serde_json::to_string(&Value::of(written)).unwrap_or_default()
}

impl Conflict {
    /// The form of a record. `name` names regions.
    pub fn of(record: &Record, name: impl Fn(RegionId) -> String) -> Self {
        let rival = |rival: &Rival| RivalForm {
            origin: name(rival.stamp.dot.actor.region()),
            dot: dot_text(rival.stamp),
            stamp: clock_text(rival.stamp),
            value: Value::of(&rival.wrote),
        };
        Self {
            id: id_text(record.id),
            at: record.at_ms,
            region: name(record.noticed_by.region()),
            database: record.database,
            key: Text::of(&record.key),
            element: Text::of(&record.element),
            r#type: record.facet.clone(),
            policy: record.policy.clone(),
            kind: record.kind.clone(),
            rule: record.rule.clone(),
            outcome: record.outcome.clone(),
            rivals: record.rivals.iter().map(rival).collect(),
            loser: dot_text(record.lost().stamp),
            shown: Value::of(&record.shown),
            restored: record.restored_ms.is_some(),
            shadow: record
                .shadow
                .as_ref()
                .map(|shadow| ShadowForm { rule: shadow.rule.clone(), shown: Value::of(&shadow.shown) }),
        }
    }
}

impl Listing {
    /// The form of a page. `name` names regions.
    pub fn of(page: &Page, name: impl Fn(RegionId) -> String) -> Self {
        let conflicts = page.records.iter().map(|record| Conflict::of(record, &name)).collect();
        Self { conflicts, next: page.next.map(id_text) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::super::record::tests::record;
    use super::*;

    const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/conflicts.json"));

    #[test]
    fn the_golden_document() {
        let mut record = record(0xfeed, "user:1");
        record.restored_ms = Some(1);
        let page = Page { records: vec![record], next: Some(7) };
        let listing = Listing::of(&page, |region| format!("{:08x}", region.0));
        assert_eq!(serde_json::from_str::<Listing>(GOLDEN).unwrap(), listing, "what is answered has changed");
        assert_eq!(serde_json::to_string_pretty(&listing).unwrap(), GOLDEN.trim_end());
    }

    #[test]
    fn every_value_has_its_form_and_is_read_back() {
        for (written, form) in [
            (Written::Nothing, "null"),
            (Written::Gone, r#"{"gone":true}"#),
            (Written::Bytes(ByteBuf::from("\"a\"")), r#""\"a\"""#),
            (Written::Bytes(ByteBuf::from(vec![0xff, 0])), r#"{"base64":"/wA="}"#),
            (Written::Score("-inf".into()), r#""-inf""#),
            (Written::Increments("5".into()), r#"{"increments":"5"}"#),
            (
                Written::Large { bytes: 70_000, digest: 1 },
                r#"{"bytes":70000,"digest":"00000000000000000000000000000001"}"#,
            ),
        ] {
            assert_eq!(value_text(&written), form);
            assert_eq!(serde_json::from_str::<Value>(form).unwrap(), Value::of(&written));
        }
    }
}
