//! Finds commands in the bytes an application sends.
//!
//! The parser keeps ranges and copies nothing: arguments are read in place. It is incremental: after
//! an incomplete command it goes on where it stopped. Accepted and refused inputs and the texts of
//! refusals are those of Redis 7.2, with these departures:
//!
//! - limits are tighter, and hold for a line however it was cut into reads;
//! - a byte other than `$` before an argument is refused at once, not after its line is complete;
//! - a command larger than the query buffer is refused with an error instead of a silent close.
//!
//! Like Redis, the parser does not look at the byte after a carriage return or at the two bytes
//! after an argument: two parsers in a row must agree on where commands begin.

use thiserror::Error;

use super::args::{Args, Span, offset};
use super::{fmt, inline};

mod limits;

pub use limits::Limits;

/// Ranges are kept in 32 bits, whatever the limits say.
const MAX_COMMAND: usize = u32::MAX as usize / 2;
/// Redis counts arguments in an `int`.
const MAX_COUNT: i64 = i32::MAX as i64;
/// The most a hint asks for: memory grows with what arrives, not with what was announced.
const MAX_HINT: usize = 64 * 1024;
/// Ranges and inline bytes kept allocated between commands.
const KEEP_SPANS: usize = 1024;
const KEEP_INLINE: usize = 4096;

/// What [`Parser::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No complete command yet.
    Incomplete {
        /// Bytes at the front of the buffer that hold nothing (empty commands). Discard them, then
        /// append what arrives.
        consumed: usize,
        /// At least this many bytes are missing, capped at 64 KiB: a hint for the next read.
        need: usize,
    },
    /// A command; [`Parser::args`] tells its arguments. It has at least one.
    Command {
        /// Bytes at the front of the buffer that belong to it. Discard them before the next parse.
        consumed: usize,
    },
}

/// A violation of the protocol. The session answers `ERR` and this error's text, then closes: where
/// the next command would begin is unknown. The parser must not be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The count of arguments is no number or above the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The count of arguments is above the limit for connections that did not authenticate.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// The length of an argument is no number or above the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// The length of an argument is above the limit for connections that did not authenticate.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", printable(*got))]
    ExpectedBulk {
        /// The byte in its place.
        got: u8,
    },
    /// The line with the count of arguments does not end.
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// The line with the length of an argument does not end.
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline command is too long.
    #[error("Protocol error: too big inline request")]
    TooBigInline,
    /// The whole command would not fit the query buffer. (Redis closes without a word.)
    #[error("Protocol error: too big request")]
    TooBigCommand,
    /// A quote in an inline command is not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A web browser was tricked into talking to us (CVE-2016-10517). Close without a reply, and log
    /// it, at a limited rate.
    #[error("HTTP request on the Redis port (POST or Host:)")]
    HttpProbe,
}

/// Keeps the reply one line and logs free of control characters: `?` where Redis sends them as they are.
fn printable(byte: u8) -> char {
    match byte {
        b'\r' | b'\n' => ' ',
        byte if byte.is_ascii_control() => '?',
        byte => char::from(byte),
    }
}

/// An incremental parser of commands: one per connection.
///
/// Call [`parse`](Self::parse) with everything received and not yet consumed; on
/// [`Parsed::Command`], read [`args`](Self::args) from the same buffer, then drop `consumed` bytes
/// from its front and parse again; on [`Parsed::Incomplete`], drop `consumed` bytes and append more.
/// Between two calls the buffer may move in memory but must not otherwise change.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bounds of the arguments so far, relative to the first byte of the command, or in `inline`.
    spans: Vec<Span>,
    /// The words of an inline command, unescaped.
    inline: Vec<u8>,
    is_inline: bool,
    /// Where the command last returned begins in the buffer it was found in.
    base: usize,
    /// The next byte to look at, relative to the first byte of the command.
    position: usize,
    /// So many bytes from `position` on do not hold the end of the line.
    scanned: usize,
    /// Arguments still to come; zero between commands.
    missing: u64,
    /// The length of the argument at `position`, once its line is read.
    bulk: Option<usize>,
}

enum Step {
    Command(usize),
    Empty(usize),
    Incomplete(usize),
}

/// A line of `*` or `$`: its number and its length from after the mark to after the line feed.
enum Line {
    Number(Option<i64>, usize),
    Incomplete,
    TooLong,
}

impl Parser {
    /// A parser at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for one command at the front of `buf`, skipping empty ones.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Parsed, ProtocolError> {
        if self.missing == 0 {
            self.recycle();
        }
        let mut start = 0usize;
        loop {
            match self.step(buf.get(start..).unwrap_or_default(), limits)? {
                Step::Command(length) => {
                    self.base = start;
                    self.position = 0;
                    return Ok(Parsed::Command { consumed: start.saturating_add(length) });
                }
                Step::Empty(length) => start = start.saturating_add(length),
                Step::Incomplete(need) => {
                    return Ok(Parsed::Incomplete { consumed: start, need: need.clamp(1, MAX_HINT) });
                }
            }
        }
    }

    /// The arguments of the command [`parse`](Self::parse) just found in this same `buf`. Without
    /// one the contents are unspecified.
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        let data = if self.is_inline { &self.inline } else { buf.get(self.base..).unwrap_or_default() };
        Args::new(data, &self.spans)
    }

    /// Whether part of a command was read: the clock of slow requests runs.
    pub fn is_mid_command(&self) -> bool {
        self.missing > 0 || self.scanned > 0
    }

    fn recycle(&mut self) {
        self.spans.clear();
        self.inline.clear();
        self.is_inline = false;
        if self.spans.capacity() > KEEP_SPANS * 2 {
            self.spans.shrink_to(KEEP_SPANS);
        }
        if self.inline.capacity() > KEEP_INLINE * 2 {
            self.inline.shrink_to(KEEP_INLINE);
        }
    }

    fn step(&mut self, frame: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        if self.missing == 0 {
            match frame.first() {
                None => return Ok(Step::Incomplete(1)),
                Some(b'*') => {}
                Some(_) => return self.inline(frame, limits),
            }
            let length = match self.number_line(frame, limits.inline) {
                Line::Incomplete => return Ok(Step::Incomplete(1)),
                Line::TooLong => return Err(ProtocolError::TooBigMultibulkCount),
                Line::Number(count, length) => {
                    self.missing = limits.check_count(count)?;
                    length
                }
            };
            if self.missing == 0 {
                return Ok(Step::Empty(length));
            }
            self.position = length;
        }
        self.arguments(frame, limits)
    }

    fn arguments(&mut self, frame: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        while self.missing > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.bulk_line(frame, limits)? {
                    Some(length) => length,
                    None => return Ok(Step::Incomplete(1)),
                },
            };
            // Cannot overflow: `bulk_line` checked the sum against MAX_COMMAND.
            let end = self.position + length;
            if frame.len() < end + 2 {
                self.bulk = Some(length);
                return Ok(Step::Incomplete(end + 2 - frame.len()));
            }
            self.spans.push((offset(self.position), offset(end)));
            self.position = end + 2;
            self.bulk = None;
            self.missing -= 1;
        }
        Ok(Step::Command(self.position))
    }

    /// Reads the line before an argument and moves past it.
    fn bulk_line(&mut self, frame: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let rest = frame.get(self.position..).unwrap_or_default();
        match rest.first() {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&got) => return Err(ProtocolError::ExpectedBulk { got }),
        }
        match self.number_line(rest, limits.inline) {
            Line::Incomplete => Ok(None),
            Line::TooLong => Err(ProtocolError::TooBigBulkCount),
            Line::Number(number, line) => {
                let length = limits.check_bulk(number)?;
                let end = self.position.saturating_add(line).saturating_add(length).saturating_add(2);
                if end > limits.command.min(MAX_COMMAND) {
                    return Err(ProtocolError::TooBigCommand);
                }
                self.position += line;
                Ok(Some(length))
            }
        }
    }

    /// Reads the number line that `line` begins with, mark included.
    fn number_line(&mut self, line: &[u8], limit: usize) -> Line {
        let digits = line.get(1..).unwrap_or_default();
        if let Some((number, length)) = short_number(digits) {
            self.scanned = 0;
            return Line::Number(Some(number), length + 1);
        }
        match self.find(b'\r', line, limit) {
            Ok(Some(end)) if line.len() > end + 1 => {
                self.scanned = 0;
                Line::Number(line.get(1..end).and_then(fmt::parse_i64), end + 2)
            }
            Ok(Some(end)) => {
                self.scanned = end;
                Line::Incomplete
            }
            Ok(None) => Line::Incomplete,
            Err(TooLong) => Line::TooLong,
        }
    }

    fn inline(&mut self, frame: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        let Some(end) = self.find(b'\n', frame, limits.inline).map_err(|_| ProtocolError::TooBigInline)?
        else {
            return Ok(Step::Incomplete(1));
        };
        self.scanned = 0;
        let line = frame.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line, &mut self.inline, &mut self.spans)
            .map_err(|_| ProtocolError::UnbalancedQuotes)?;
        match Args::new(&self.inline, &self.spans).first() {
            None => Ok(Step::Empty(end + 1)),
            Some(name) if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") => {
                Err(ProtocolError::HttpProbe)
            }
            Some(_) => {
                self.is_inline = true;
                Ok(Step::Command(end + 1))
            }
        }
    }

    /// Looks for `byte` among the first `limit` bytes and the one after, not twice at the same.
    fn find(&mut self, byte: u8, line: &[u8], limit: usize) -> Result<Option<usize>, TooLong> {
        let window = line.get(..=limit).unwrap_or(line);
        let fresh = window.get(self.scanned..).unwrap_or_default();
        match fresh.iter().position(|&candidate| candidate == byte) {
            Some(at) => Ok(Some(self.scanned + at)),
            None if line.len() > limit => Err(TooLong),
            None => {
                self.scanned = line.len();
                Ok(None)
            }
        }
    }
}

struct TooLong;

/// The fast path: one to nine digits without a leading zero, a carriage return, and one more byte.
/// Everything else is for [`fmt::parse_i64`] to judge.
#[inline]
fn short_number(line: &[u8]) -> Option<(i64, usize)> {
    let mut number = 0i64;
    for (index, &byte) in line.iter().take(10).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            number = number * 10 + i64::from(digit);
            continue;
        }
        let canonical = index == 1 || (index > 1 && line.first() != Some(&b'0'));
        return (byte == b'\r' && canonical && line.len() > index + 1).then_some((number, index + 2));
    }
    None
}

/// Appends a command as a client sends it.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, command: &[A]) {
    out.push(b'*');
    fmt::write_u64(out, command.len() as u64);
    out.extend_from_slice(b"\r\n");
    for argument in command {
        let argument = argument.as_ref();
        out.push(b'$');
        fmt::write_u64(out, argument.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
