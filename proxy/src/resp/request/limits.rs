//! What one connection may send.

use super::{MAX_COUNT, ProtocolError};

/// Limits on requests. [`Limits::default`] is for connections that have authenticated or need not;
/// [`Limits::before_auth`] gives what holds until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one argument.
    pub bulk: usize,
    /// Arguments in one command.
    pub args: u64,
    /// Bytes in the line of an inline command, or of a count or length.
    pub inline: usize,
    /// Bytes in one whole command: the query buffer.
    pub command: usize,
    /// Whether these are the limits before authentication: decides what the refusal says.
    pub unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bulk: 8 << 20, args: 65_536, inline: 64 << 10, command: 16 << 20, unauthenticated: false }
    }
}

impl Limits {
    /// The limits until the connection authenticates: 10 arguments of 16 KiB, lines of 4 KiB, never
    /// more than afterwards.
    pub fn before_auth(&self) -> Limits {
        Limits {
            bulk: self.bulk.min(16_384),
            args: self.args.min(10),
            inline: self.inline.min(4 << 10),
            command: self.command,
            unauthenticated: true,
        }
    }

    /// How many arguments a count announces: none for a count of zero or less.
    pub(super) fn check_count(&self, count: Option<i64>) -> Result<u64, ProtocolError> {
        let count = count.filter(|&count| count <= MAX_COUNT).ok_or(ProtocolError::InvalidMultibulkLength)?;
        match u64::try_from(count) {
            Err(_) => Ok(0),
            Ok(count) if count <= self.args => Ok(count),
            Ok(_) if self.unauthenticated => Err(ProtocolError::UnauthenticatedMultibulkLength),
            Ok(_) => Err(ProtocolError::InvalidMultibulkLength),
        }
    }

    pub(super) fn check_bulk(&self, length: Option<i64>) -> Result<usize, ProtocolError> {
        let length = length.and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if length <= self.bulk => Ok(length),
            Some(_) if self.unauthenticated => Err(ProtocolError::UnauthenticatedBulkLength),
            _ => Err(ProtocolError::InvalidBulkLength),
        }
    }
}
