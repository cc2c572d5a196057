//! Why a command was refused: one table of texts, those of Redis where Redis has one.

use std::borrow::Cow;

use crate::homes::judge::HomeError;
use crate::keyspace::walk::ApplyError;
use crate::sequencer::PlaceError;
use crate::store::StoreError;

/// A command was refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// The arguments make no sense together.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or value should be a 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// An argument should be a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// An index lies outside.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// The key must exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// Too few or too many arguments for the command, in lower case.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// An expire time that cannot be, for the command, in lower case.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    /// A key, field or member is too long for the store.
    #[error("ERR names of keys, fields and members may have at most {limit} bytes, this one has {length}")]
    NameTooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The effects do not fit one op.
    #[error("ERR the write is larger than limits.max_op ({limit} bytes); split it")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The store failed. The text says what to do.
    #[error(
        "MISCONF the local store failed: {0}. Reads and writes of objects that are not in memory are refused"
    )]
    Store(#[from] StoreError),
    /// The op log takes nothing: disk full, or failed.
    #[error("MISCONF the op log cannot be written: {0}. Writes are refused until it can")]
    Log(String),
    /// The keys have another home, or theirs may not act.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Any other text, code included.
    #[error("{0}")]
    Text(Cow<'static, str>),
}

impl CommandError {
    /// An error with a fixed text, code included (`ERR ...`).
    pub fn text(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<PlaceError> for CommandError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Log(crate::oplog::LogError::RecordSize { max, .. }) => Self::TooLarge { limit: max },
            PlaceError::Reincarnated => Self::Text(Cow::Owned(format!("TRYAGAIN {error}"))),
            other => Self::Log(other.to_string()),
        }
    }
}

impl From<ApplyError> for CommandError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Store(error) => Self::Store(error),
            ApplyError::Malformed(error) => Self::Text(Cow::Owned(format!("ERR {error}"))),
        }
    }
}
