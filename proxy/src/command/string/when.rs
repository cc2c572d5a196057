//! Deadlines as arguments say them: `EX`, `PX`, `EXAT`, `PXAT`.

use super::super::CommandError;
use crate::resp::fmt;

/// What the number of a deadline counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command) enum Unit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// The Unix time in seconds.
    AtSeconds,
    /// The Unix time in milliseconds.
    AtMillis,
}

impl Unit {
    /// The unit that an option of `SET` and `GETEX` announces.
    pub(super) fn of_option(word: &[u8]) -> Option<Self> {
        let named = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match word.len() {
            2 if named("ex") => Some(Unit::Seconds),
            2 if named("px") => Some(Unit::Millis),
            4 if named("exat") => Some(Unit::AtSeconds),
            4 if named("pxat") => Some(Unit::AtMillis),
            _ => None,
        }
    }

    /// The Unix millisecond that `number` means, negative ones included; `None` on overflow.
    pub(in crate::command) fn resolve(self, number: i64, now_ms: u64) -> Option<i64> {
        let now = match self {
            Unit::Seconds | Unit::Millis => i64::try_from(now_ms).ok()?,
            Unit::AtSeconds | Unit::AtMillis => 0,
        };
        let millis = match self {
            Unit::Seconds | Unit::AtSeconds => number.checked_mul(1000)?,
            Unit::Millis | Unit::AtMillis => number,
        };
        millis.checked_add(now)
    }
}

/// A deadline as given to `SET` and its relatives: it must be a positive number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) unit: Unit,
    pub(super) number: &'a [u8],
}

impl Given<'_> {
    /// The Unix millisecond meant. `command` is named in the error.
    pub(super) fn resolve(self, now_ms: u64, command: &'static str) -> Result<u64, CommandError> {
        let number = fmt::parse_i64(self.number).ok_or(CommandError::NotInteger)?;
        let at = if number > 0 { self.unit.resolve(number, now_ms) } else { None };
        at.and_then(|at| u64::try_from(at).ok()).ok_or(CommandError::ExpireTime(command))
    }
}
