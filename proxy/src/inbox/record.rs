//! A record: what clashed, who decided how, and what each side had written.
//!
//! Names of kinds, rules and policies are kept as texts, so that a record outlives the program that wrote it.

use meridian_conflict::clock::{Origin, Stamp};
use meridian_conflict::op::Facet;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The first byte of an encoded record.
const VERSION: u8 = 1;

/// The first byte of one behind which stands what another policy would have shown.
const SHADOWED_VERSION: u8 = 2;

/// One conflict, kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`conflict_id`](meridian_conflict::outcome::conflict_id): the same in every region.
    pub id: u128,
    /// When it was noticed, in Unix milliseconds.
    pub at_ms: u64,
    /// Who noticed it.
    pub noticed_by: Origin,
    /// The database.
    pub database: u8,
    /// The key.
    pub key: ByteBuf,
    /// The field or member, empty where the whole key is concerned.
    pub element: ByteBuf,
    /// The type concerned, as `TYPE` names it.
    pub facet: String,
    /// The key's policy.
    pub policy: String,
    /// What clashed.
    pub kind: String,
    /// Which rule decided.
    pub rule: String,
    /// Whose value shows, from this region's point of view.
    pub outcome: String,
    /// The two writes, by rising stamp: in the same order in every region.
    pub rivals: [Rival; 2],
    /// Which of them lost: what a restore writes back.
    pub loser: u8,
    /// What showed once both were applied.
    pub shown: Written,
    /// When the loser was written back, in Unix milliseconds.
    pub restored_ms: Option<u64>,
    /// What the key's shadow policy would have shown, if that is something else.
    #[serde(skip)]
    pub shadow: Option<Shadowed>,
}

/// What another policy would have shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadowed {
    /// Which: a policy, or `hook:NAME`.
    pub rule: String,
    /// What.
    pub shown: Written,
}

/// One of the writes that met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Which op.
    pub stamp: Stamp,
    /// What it had written there.
    pub wrote: Written,
}

/// What a write left under a key, within [`VALUE_MAX`](super::VALUE_MAX).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// Nothing: a delete, or a key that does not show.
    Nothing,
    /// It was not there any more when the conflict was noticed.
    Gone,
    /// The bytes of a string or field, or the name of a member.
    Bytes(ByteBuf),
    /// The decimal sum that a region's increments add.
    Increments(String),
    /// A score, as `ZSCORE` shows it.
    Score(String),
    /// Elements of a collection.
    Contents(Contents),
    /// A value too large to keep.
    Large {
        /// Its length in bytes.
        bytes: u64,
        /// Its xxh3-128.
        digest: u128,
    },
}

/// Elements of a collection, as many as there was room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The type, as `TYPE` names it.
    pub facet: String,
    /// Name and value of each: a field's bytes, a member's score, nothing for a member of a set.
    pub elements: Vec<(ByteBuf, ByteBuf)>,
    /// How many there were.
    pub total: u64,
}

impl Contents {
    /// Whether every element is here.
    pub fn is_whole(&self) -> bool {
        self.elements.len() as u64 == self.total
    }
}

impl Written {
    /// Bytes of what it carries.
    pub fn len(&self) -> usize {
        match self {
            Written::Nothing | Written::Gone | Written::Large { .. } => 0,
            Written::Bytes(bytes) => bytes.len(),
            Written::Increments(text) | Written::Score(text) => text.len(),
            Written::Contents(contents) => contents.elements.iter().map(|(a, b)| a.len() + b.len()).sum(),
        }
    }

    /// Whether all of it is here, or a digest of it.
    pub fn is_whole(&self) -> bool {
        match self {
            Written::Contents(contents) => contents.is_whole(),
            _ => true,
        }
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are no record of a version known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a conflict record of version {VERSION} or {SHADOWED_VERSION}")]
pub struct MalformedRecord;

impl Record {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        // Texts, bytes and integers always encode.
        match &self.shadow {
            None => postcard::to_extend(self, vec![VERSION]).unwrap_or_default(),
            Some(shadow) => postcard::to_extend(&(self, shadow), vec![SHADOWED_VERSION]).unwrap_or_default(),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`MalformedRecord`]
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedRecord> {
        let (version, rest) = bytes.split_first().ok_or(MalformedRecord)?;
        let (record, rest) = postcard::take_from_bytes::<Self>(rest).map_err(|_| MalformedRecord)?;
        if usize::from(record.loser) >= record.rivals.len() {
            return Err(MalformedRecord);
        }
        match (*version, rest) {
            (VERSION, []) => Ok(record),
            (SHADOWED_VERSION, rest) => match postcard::take_from_bytes(rest) {
                Ok((shadow, [])) => Ok(Self { shadow: Some(shadow), ..record }),
                _ => Err(MalformedRecord),
            },
            _ => Err(MalformedRecord),
        }
    }

    /// The write that lost.
    pub fn lost(&self) -> &Rival {
        let [first, second] = &self.rivals;
        if self.loser == 0 { first } else { second }
    }

    /// The type concerned, if this program knows it.
    pub fn known_facet(&self) -> Option<Facet> {
        facet_named(&self.facet)
    }

    /// Roughly what it takes in memory.
    pub fn weight(&self) -> usize {
        let values: usize = self.rivals.iter().map(|rival| rival.wrote.len()).sum();
        let shadow = self.shadow.as_ref().map_or(0, |shadow| shadow.shown.len());
        size_of::<Self>() + self.key.len() + self.element.len() + values + self.shown.len() + shadow
    }
}

/// The facet that `TYPE` calls so.
pub(super) fn facet_named(name: &str) -> Option<Facet> {
    Facet::ALL.into_iter().find(|facet| facet.name() == name)
}

/// An id's text: 32 hex digits.
pub fn id_text(id: u128) -> String {
    format!("{id:032x}")
}

/// Reads an id's text.
pub fn parse_id(text: &[u8]) -> Option<u128> {
    let digits = text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit);
    digits
        .then(|| std::str::from_utf8(text).ok())
        .flatten()
        .and_then(|text| u128::from_str_radix(text, 16).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(super) mod tests {
    use meridian_conflict::clock::{Dot, Hlc, RegionId};

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/conflict-record-v1.bin");

    pub(in crate::inbox) fn stamp(region: &str, sequence: u64) -> Stamp {
        let dot = Dot::new(Origin::new(RegionId::of(region), 7), sequence);
        Stamp { hlc: Hlc::from_ms(1_700_000_000_000 + sequence), dot }
    }

    /// A record with one of everything.
    pub(in crate::inbox) fn record(id: u128, key: &str) -> Record {
        let contents = Contents {
            facet: "zset".into(),
            elements: vec![(ByteBuf::from("m"), ByteBuf::from("1.5"))],
            total: 9,
        };
        Record {
            id,
            at_ms: 1_700_000_000_123,
            noticed_by: Origin::new(RegionId::of("eu"), 7),
            database: 3,
            key: ByteBuf::from(key),
            element: ByteBuf::from(vec![0xff, 0]),
            facet: "zset".into(),
            policy: "crdt".into(),
            kind: "type_clash".into(),
            rule: "lww".into(),
            outcome: "remote".into(),
            rivals: [
                Rival { stamp: stamp("eu", 1), wrote: Written::Contents(contents) },
                Rival { stamp: stamp("us", 2), wrote: Written::Bytes(ByteBuf::from("text")) },
            ],
            loser: 0,
            shown: Written::Large { bytes: 1 << 20, digest: 5 },
            restored_ms: None,
            shadow: None,
        }
    }

    /// The format is a promise: what version 1 wrote is read by every later version. Never regenerate this file.
    #[test]
    fn golden_record_of_version_1() {
        let whole = record(0xfeed, "user:1");
        if std::env::var_os("WRITE_GOLDEN").is_some() && !std::path::Path::new(GOLDEN).exists() {
            std::fs::write(GOLDEN, whole.encode()).unwrap();
        }
        let golden = std::fs::read(GOLDEN).unwrap();
        assert_eq!(whole.encode(), golden, "what is written has changed");
        assert_eq!(Record::decode(&golden), Ok(whole));
    }

    /// What version 2 wrote. Never regenerate this file.
    #[test]
    fn golden_record_of_version_2() {
        let golden_path = GOLDEN.replace("-v1", "-v2");
        let shadow = Shadowed { rule: "hook:cart".into(), shown: Written::Bytes(ByteBuf::from("other")) };
        let whole = Record { shadow: Some(shadow), ..record(0xfeed, "user:1") };
        if std::env::var_os("WRITE_GOLDEN").is_some() && !std::path::Path::new(&golden_path).exists() {
            std::fs::write(&golden_path, whole.encode()).unwrap();
        }
        let golden = std::fs::read(golden_path).unwrap();
        assert_eq!(whole.encode(), golden, "what is written has changed");
        assert_eq!(Record::decode(&golden), Ok(whole));
    }

    #[test]
    fn every_form_of_a_value_comes_back() {
        for wrote in [
            Written::Nothing,
            Written::Gone,
            Written::Increments("-12.5".into()),
            Written::Score("inf".into()),
            Written::Bytes(ByteBuf::new()),
        ] {
            let record = Record { shown: wrote, restored_ms: Some(5), ..record(1, "k") };
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn fuzz_conflict_record() {
        let shadow = Shadowed { rule: "lww".into(), shown: Written::Nothing };
        let whole = Record { shadow: Some(shadow), ..record(9, "k") }.encode();
        bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, edits)| {
            let mut damaged = whole.clone();
            for (at, byte) in edits {
                let at = usize::from(*at) % damaged.len();
                damaged[at] = *byte;
            }
            for bytes in [bytes, &damaged] {
                let Ok(record) = Record::decode(bytes) else { continue };
                assert_eq!(Record::decode(&record.encode()), Ok(record));
            }
        });
    }

    #[test]
    fn ids_are_32_hex_digits_and_nothing_else() {
        for id in [0, 1, u128::MAX] {
            assert_eq!(parse_id(id_text(id).as_bytes()), Some(id));
        }
        for bad in ["", "1", &"g".repeat(32), &"+".repeat(32), &"0".repeat(33)] {
            assert_eq!(parse_id(bad.as_bytes()), None, "{bad}");
        }
    }
}
