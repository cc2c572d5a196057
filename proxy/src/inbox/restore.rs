//! Undoing a conflict: the ordinary commands that write its loser back.
//!
//! | what lost | commands |
//! |---|---|
//! | a string | `SET key value KEEPTTL` |
//! | a field | `HSET key field value` |
//! | a score | `ZADD key score member` |
//! | a member | `SADD key member` |
//! | the delete of a field or member | `HDEL`, `SREM`, `ZREM` |
//! | the delete or clear of a key | `DEL key` |
//! | a type, or a collection under the policy `lww` | as one transaction: `DEL key`, the elements as recorded, the key's deadline if it had one |
//! | what a delete removed | its elements as recorded, into what is there |
//!
//! They are run like a client's: they are new writes that have seen all there is, travel as such, and obey roles,
//! limits and policies. What was not recorded whole is not written back.

use meridian_conflict::op::Facet;
use meridian_conflict::policy::Policy;

use super::record::{Contents, Record, Written, facet_named};
use crate::resp::OwnedArgs;

/// Why a loser cannot be written back. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Too large for a record.
    #[error(
        "ERR the loser was too large to be recorded whole; its length and digest are in MERIDIAN.CONFLICTS"
    )]
    NotWhole,
    /// An op replaced it before it could be recorded.
    #[error("ERR the loser was not there any more when the conflict was recorded")]
    Gone,
    /// Increments of something that is no number.
    #[error("ERR the loser is an increment of a value that is not a number; it cannot be written back")]
    Increments,
    /// The key or the field with the empty name.
    #[error("ERR the record does not tell whether the key was deleted or its element with the empty name")]
    Ambiguous,
    /// A later version wrote the record.
    #[error("ERR this version does not know what kind of conflict this is")]
    Unknown,
}

/// What writes `record`'s loser back: one command, or a transaction. `deadline_ms` is that of the key now.
///
/// # Errors
/// [`RestoreError`]
pub fn commands(record: &Record, deadline_ms: Option<u64>) -> Result<Vec<OwnedArgs>, RestoreError> {
    let facet = record.known_facet().ok_or(RestoreError::Unknown)?;
    let (key, element) = (record.key.as_slice(), record.element.as_slice());
    match &record.lost().wrote {
        Written::Large { .. } => Err(RestoreError::NotWhole),
        Written::Gone => Err(RestoreError::Gone),
        Written::Increments(_) => Err(RestoreError::Increments),
        Written::Nothing => deleting(record, facet),
        Written::Contents(contents) => {
            // What was one register is written back as one.
            let whole = record.kind == "type_clash" || record.policy == Policy::Lww.name();
            restoring(key, contents, whole, deadline_ms.filter(|_| whole))
        }
        Written::Score(score) => Ok(vec![args(&[b"ZADD", key, score.as_bytes(), element])]),
        Written::Bytes(value) => Ok(vec![match facet {
            // A string that lost to another type is recorded as bytes, too.
            _ if record.kind == "type_clash" => set(key, value),
            Facet::String => set(key, value),
            Facet::Hash => args(&[b"HSET", key, element, value]),
            Facet::Set => args(&[b"SADD", key, element]),
            // Scores are recorded as such.
            Facet::SortedSet => return Err(RestoreError::Unknown),
        }]),
    }
}

fn args(words: &[&[u8]]) -> OwnedArgs {
    words.iter().collect()
}

fn set(key: &[u8], value: &[u8]) -> OwnedArgs {
    args(&[b"SET", key, value, b"KEEPTTL"])
}

fn deleting(record: &Record, facet: Facet) -> Result<Vec<OwnedArgs>, RestoreError> {
    let (key, element) = (record.key.as_slice(), record.element.as_slice());
    let nameless = |contents: &Contents| contents.elements.iter().any(|(name, _)| name.is_empty());
    let mut values = record.rivals.iter().map(|rival| &rival.wrote);
    if element.is_empty() && values.any(|wrote| matches!(wrote, Written::Contents(c) if nameless(c))) {
        return Err(RestoreError::Ambiguous);
    }
    Ok(vec![match facet {
        _ if element.is_empty() => args(&[b"DEL", key]),
        Facet::String => args(&[b"DEL", key]),
        Facet::Hash => args(&[b"HDEL", key, element]),
        Facet::Set => args(&[b"SREM", key, element]),
        Facet::SortedSet => args(&[b"ZREM", key, element]),
    }])
}

fn restoring(
    key: &[u8],
    contents: &Contents,
    replacing: bool,
    deadline_ms: Option<u64>,
) -> Result<Vec<OwnedArgs>, RestoreError> {
    if !contents.is_whole() {
        return Err(RestoreError::NotWhole);
    }
    let (command, facet): (&[u8], _) = match facet_named(&contents.facet) {
        Some(Facet::Hash) => (b"HSET", Facet::Hash),
        Some(Facet::Set) => (b"SADD", Facet::Set),
        Some(Facet::SortedSet) => (b"ZADD", Facet::SortedSet),
        Some(Facet::String) | None => return Err(RestoreError::Unknown),
    };
    let mut words = vec![command, key];
    for (name, value) in &contents.elements {
        match facet {
            Facet::Hash => words.extend([name.as_slice(), value.as_slice()]),
            Facet::SortedSet => words.extend([value.as_slice(), name.as_slice()]),
            Facet::Set | Facet::String => words.push(name),
        }
    }
    let mut commands = Vec::new();
    if replacing {
        commands.push(args(&[b"DEL", key]));
    }
    commands.push(args(&words));
    if let Some(at) = deadline_ms {
        commands.push(args(&[b"PEXPIREAT", key, at.to_string().as_bytes()]));
    }
    Ok(commands)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::super::record::tests::record;
    use super::*;

    /// A record about key `k`, whose first rival lost.
    fn lost(facet: &str, kind: &str, element: &str, wrote: Written) -> Record {
        let mut record = record(1, "k");
        record.rivals[0].wrote = wrote;
        Record { facet: facet.into(), kind: kind.into(), element: ByteBuf::from(element), ..record }
    }

    fn lines(record: &Record, deadline_ms: Option<u64>) -> Result<Vec<String>, RestoreError> {
        let line = |args: &OwnedArgs| {
            let words: Vec<_> =
                args.args().iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            words.join(" ")
        };
        commands(record, deadline_ms).map(|commands| commands.iter().map(line).collect())
    }

    fn bytes(text: &str) -> Written {
        Written::Bytes(ByteBuf::from(text))
    }

    fn contents(facet: &str, elements: &[(&str, &str)], total: u64) -> Written {
        let pair = |(name, value): &(&str, &str)| (ByteBuf::from(*name), ByteBuf::from(*value));
        Written::Contents(Contents {
            facet: facet.into(),
            elements: elements.iter().map(pair).collect(),
            total,
        })
    }

    #[test]
    fn every_loser_has_its_commands() {
        for (record, expected) in [
            (lost("string", "write_write", "", bytes("v")), vec!["SET k v KEEPTTL"]),
            (lost("hash", "field", "f", bytes("v")), vec!["HSET k f v"]),
            (lost("zset", "field", "m", Written::Score("1.5".into())), vec!["ZADD k 1.5 m"]),
            (lost("set", "write_delete", "m", bytes("m")), vec!["SADD k m"]),
            (lost("string", "write_delete", "", Written::Nothing), vec!["DEL k"]),
            (lost("hash", "write_delete", "f", Written::Nothing), vec!["HDEL k f"]),
            (lost("set", "write_delete", "m", Written::Nothing), vec!["SREM k m"]),
            (lost("zset", "write_delete", "m", Written::Nothing), vec!["ZREM k m"]),
            (lost("hash", "clear_write", "", Written::Nothing), vec!["DEL k"]),
            (lost("set", "type_clash", "", bytes("v")), vec!["SET k v KEEPTTL"]),
            (
                lost("string", "type_clash", "", contents("zset", &[("m", "1"), ("n", "-inf")], 2)),
                vec!["DEL k", "ZADD k 1 m -inf n", "PEXPIREAT k 77"],
            ),
            (lost("hash", "write_delete", "", contents("hash", &[("f", "v")], 1)), vec!["HSET k f v"]),
        ] {
            assert_eq!(lines(&record, Some(77)), Ok(expected.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn what_cannot_be_written_back_says_why() {
        let mut nameless = lost("hash", "write_delete", "", Written::Nothing);
        nameless.rivals[1].wrote = contents("hash", &[("", "v")], 1);
        for (record, error) in [
            (
                lost("string", "write_write", "", Written::Large { bytes: 1, digest: 1 }),
                RestoreError::NotWhole,
            ),
            (lost("string", "type_clash", "", contents("set", &[("m", "")], 2)), RestoreError::NotWhole),
            (lost("string", "write_write", "", Written::Gone), RestoreError::Gone),
            (lost("string", "write_write", "", Written::Increments("1".into())), RestoreError::Increments),
            (lost("stream", "stream_id", "", bytes("v")), RestoreError::Unknown),
            (nameless, RestoreError::Ambiguous),
        ] {
            assert_eq!(lines(&record, None), Err(error));
        }
    }
}
