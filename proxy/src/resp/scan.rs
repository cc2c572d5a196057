//! Finds where a reply ends, on the client's side of a connection.
//!
//! What a server sends is not trusted: lengths and nesting are limited, line ends are checked, and
//! nothing recurses or allocates for an announced count. RESP2 and RESP3 are read alike; streamed
//! strings and aggregates of RESP3 (`$?`, `*?`), which no Redis sends, are refused.

use smallvec::SmallVec;
use thiserror::Error;

use super::fmt;

/// The longest line of a simple string, error or number.
const MAX_LINE: usize = 64 * 1024;
/// The shortest reply there is: `_`, carriage return, line feed.
const MIN_ELEMENT: u64 = 3;

/// Limits on one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Aggregates within aggregates.
    pub depth: usize,
    /// Bytes in the whole reply.
    pub bytes: usize,
    /// Elements in all aggregates together.
    pub elements: u64,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { depth: 8, bytes: 64 << 20, elements: 4 << 20 }
    }
}

/// A malformed or oversized reply. Where the next one begins is unknown: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// No type begins with this byte.
    #[error("a reply begins with byte {0:#04x}")]
    UnknownType(u8),
    /// A length or count is malformed or negative.
    #[error("a length in a reply is malformed")]
    BadLength,
    /// A scalar is malformed.
    #[error("a scalar in a reply is malformed")]
    BadScalar,
    /// A carriage return or line feed is missing.
    #[error("a line in a reply is not ended properly")]
    BadLineEnd,
    /// A line does not end within 64 KiB.
    #[error("a line in a reply is too long")]
    LineTooLong,
    /// Aggregates are nested too deeply.
    #[error("a reply is nested too deeply")]
    TooDeep,
    /// The reply is, or announces to be, above the limit of bytes or elements.
    #[error("a reply is too large")]
    TooLarge,
}

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    /// Precedes the reply it is about and is no element itself.
    Attribute,
}

/// One scalar, or the header of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Int(i64),
    Bulk(&'a [u8]),
    Verbatim([u8; 3], &'a [u8]),
    Null,
    NullArray,
    Bool(bool),
    Double(f64),
    BigNumber(&'a [u8]),
    /// With the number of elements that follow: two for each pair.
    Open(Aggregate, u64),
}

/// Finds the end of one reply after the other. Goes on where it stopped: call it with the same bytes
/// and more until it says how long the reply is, then with what follows the reply.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    position: usize,
    /// So many bytes from `position` on do not hold the end of the line.
    scanned: usize,
    elements: u64,
    /// Elements still to come in each open aggregate, outermost first.
    open: SmallVec<[u64; 10]>,
}

impl Scanner {
    /// A scanner at the beginning of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// The length of the reply at the front of `buf`, or `None` when more bytes are needed.
    pub fn scan(&mut self, buf: &[u8], limits: &ScanLimits) -> Result<Option<usize>, ScanError> {
        if self.open.is_empty() {
            self.open.push(1);
        }
        while !self.open.is_empty() {
            let Some((element, next)) = element(buf, self.position, &mut self.scanned, limits)? else {
                return Ok(None);
            };
            self.position = next;
            self.scanned = 0;
            self.account(element, limits)?;
        }
        let length = self.position;
        self.position = 0;
        self.elements = 0;
        Ok(Some(length))
    }

    fn account(&mut self, element: Element<'_>, limits: &ScanLimits) -> Result<(), ScanError> {
        let (kind, count) = match element {
            Element::Open(kind, count) => (Some(kind), count),
            _ => (None, 0),
        };
        if kind != Some(Aggregate::Attribute)
            && let Some(missing) = self.open.last_mut()
        {
            *missing = missing.saturating_sub(1);
        }
        if kind.is_some() {
            // The lowest entry stands for the reply itself.
            if self.open.len() > limits.depth {
                return Err(ScanError::TooDeep);
            }
            self.elements = self.elements.saturating_add(count);
            let room = limits.bytes.saturating_sub(self.position) as u64;
            if self.elements > limits.elements || count.saturating_mul(MIN_ELEMENT) > room {
                return Err(ScanError::TooLarge);
            }
            if count > 0 {
                self.open.push(count);
            }
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        Ok(())
    }
}

/// Reads the element at `position`; returns it and where the next one begins. `scanned` remembers,
/// between calls with the same position, how far the end of the line was sought.
pub(super) fn element<'a>(
    buf: &'a [u8],
    position: usize,
    scanned: &mut usize,
    limits: &ScanLimits,
) -> Result<Option<(Element<'a>, usize)>, ScanError> {
    let rest = buf.get(position..).unwrap_or_default();
    let Some((&mark, _)) = rest.split_first() else { return Ok(None) };
    let Some(end) = line_end(rest, scanned)? else { return Ok(None) };
    let line = rest.get(1..end).unwrap_or_default();
    let next = position.saturating_add(end).saturating_add(2);
    if next > limits.bytes {
        return Err(ScanError::TooLarge);
    }
    let scalar = match mark {
        b'$' | b'!' | b'=' => return blob(buf, mark, line, next, limits),
        b'+' => Element::Simple(line),
        b'-' => Element::Error(line),
        b':' => Element::Int(fmt::parse_i64(line).ok_or(ScanError::BadScalar)?),
        b'_' if line.is_empty() => Element::Null,
        b'#' if line == b"t" => Element::Bool(true),
        b'#' if line == b"f" => Element::Bool(false),
        b',' if line == b"nan" || line == b"-nan" => Element::Double(f64::NAN),
        b',' => Element::Double(fmt::parse_f64(line).ok_or(ScanError::BadScalar)?),
        b'(' if is_integer(line) => Element::BigNumber(line),
        b'*' if line == b"-1" => Element::NullArray,
        b'*' => Element::Open(Aggregate::Array, count(line)?),
        b'~' => Element::Open(Aggregate::Set, count(line)?),
        b'>' => Element::Open(Aggregate::Push, count(line)?),
        b'%' => Element::Open(Aggregate::Map, count(line)?.saturating_mul(2)),
        b'|' => Element::Open(Aggregate::Attribute, count(line)?.saturating_mul(2)),
        b'_' | b'#' | b'(' => return Err(ScanError::BadScalar),
        other => return Err(ScanError::UnknownType(other)),
    };
    Ok(Some((scalar, next)))
}

/// Reads the payload of a `$`, `!` or `=` whose line ended before `start`.
fn blob<'a>(
    buf: &'a [u8],
    mark: u8,
    line: &[u8],
    start: usize,
    limits: &ScanLimits,
) -> Result<Option<(Element<'a>, usize)>, ScanError> {
    if mark == b'$' && line == b"-1" {
        return Ok(Some((Element::Null, start)));
    }
    let length = usize::try_from(count(line)?).map_err(|_| ScanError::TooLarge)?;
    let end = start.saturating_add(length);
    let next = end.saturating_add(2);
    if next > limits.bytes {
        return Err(ScanError::TooLarge);
    }
    let (Some(payload), Some(line_end)) = (buf.get(start..end), buf.get(end..next)) else { return Ok(None) };
    if line_end != b"\r\n" {
        return Err(ScanError::BadLineEnd);
    }
    let element = match (mark, payload) {
        (b'$', _) => Element::Bulk(payload),
        (b'!', _) => Element::Error(payload),
        (_, [a, b, c, b':', text @ ..]) => Element::Verbatim([*a, *b, *c], text),
        _ => return Err(ScanError::BadScalar),
    };
    Ok(Some((element, next)))
}

/// The position of the carriage return that ends the line, once the line feed is there as well.
fn line_end(rest: &[u8], scanned: &mut usize) -> Result<Option<usize>, ScanError> {
    // An unknown type is reported before its line ends.
    if let Some(&mark) = rest.first()
        && !b"+-:$*_#,(!=%~>|".contains(&mark)
    {
        return Err(ScanError::UnknownType(mark));
    }
    let window = rest.get(..MAX_LINE).unwrap_or(rest);
    let fresh = window.get(*scanned..).unwrap_or_default();
    match fresh.iter().position(|&byte| byte == b'\r') {
        Some(at) => {
            let end = *scanned + at;
            match rest.get(end + 1) {
                Some(b'\n') => Ok(Some(end)),
                Some(_) => Err(ScanError::BadLineEnd),
                None => Ok(None),
            }
        }
        None if rest.len() >= MAX_LINE => Err(ScanError::LineTooLong),
        None => {
            *scanned = rest.len();
            Ok(None)
        }
    }
}

fn count(line: &[u8]) -> Result<u64, ScanError> {
    fmt::parse_i64(line).and_then(|count| u64::try_from(count).ok()).ok_or(ScanError::BadLength)
}

fn is_integer(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn scan(buf: &[u8]) -> Result<Option<usize>, ScanError> {
        Scanner::new().scan(buf, &ScanLimits::default())
    }

    #[test]
    fn one_reply_after_the_other_at_every_cut() {
        let replies: [&[u8]; 16] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":-12\r\n",
            b"$3\r\na\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
            b"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n_\r\n",
            b">1\r\n+a\r\n",
            b"#t\r\n",
            b",1.5e+20\r\n",
            b"(-12345678901234567890\r\n",
            b"!4\r\nERR \r\n",
            b"=6\r\ntxt:hi\r\n",
            b"|1\r\n+ttl\r\n:3\r\n*2\r\n|0\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n",
        ];
        let stream = replies.concat();
        let mut scanner = Scanner::new();
        let mut start = 0;
        let mut found = Vec::new();
        for end in 0..=stream.len() {
            while let Some(length) = scanner.scan(&stream[start..end], &ScanLimits::default()).unwrap() {
                found.push(&stream[start..start + length]);
                start += length;
                if start == end {
                    break;
                }
            }
        }
        assert_eq!(found, replies);
    }

    #[test]
    fn malformed() {
        use ScanError::*;
        for (reply, error) in [
            (&b"x"[..], UnknownType(b'x')),
            (b"\r\n", UnknownType(b'\r')),
            (b"$-2\r\n", BadLength),
            (b"$?\r\n", BadLength),
            (b"*?\r\n", BadLength),
            (b"*-2\r\n", BadLength),
            (b"%-1\r\n", BadLength),
            (b"$1\r\nabc", BadLineEnd),
            (b"+a\rb", BadLineEnd),
            (b":1a\r\n", BadScalar),
            (b":\r\n", BadScalar),
            (b"#x\r\n", BadScalar),
            (b"_x\r\n", BadScalar),
            (b",1e\r\n", BadScalar),
            (b"(1-\r\n", BadScalar),
            (b"=2\r\nab\r\n", BadScalar),
            (b"*2000000000\r\n", TooLarge),
            (b"%9223372036854775807\r\n", TooLarge),
            (b"$500000000\r\n", TooLarge),
            (b"$9223372036854775807\r\n", TooLarge),
            (&[b'+'; MAX_LINE], LineTooLong),
        ] {
            assert_eq!(scan(reply), Err(error), "{}", reply.escape_ascii());
        }
    }

    #[test]
    fn envoy_c4e3e8e476_deep_nesting() {
        assert_eq!(scan(&b"*1\r\n".repeat(1_000_000)), Err(ScanError::TooDeep));
        assert_eq!(scan(&b"|1\r\n".repeat(1_000_000)), Err(ScanError::TooDeep));
        let eight = [&b"*1\r\n".repeat(8)[..], b":1\r\n"].concat();
        assert_eq!(scan(&eight), Ok(Some(eight.len())));
        assert_eq!(scan(&b"*1\r\n".repeat(9)), Err(ScanError::TooDeep));
    }

    #[test]
    fn limits_hold_for_the_whole_reply() {
        let limits = ScanLimits { depth: 8, bytes: 20, elements: 3 };
        let scan = |reply: &[u8]| Scanner::new().scan(reply, &limits);
        assert_eq!(scan(b"*2\r\n*2\r\n"), Err(ScanError::TooLarge));
        assert_eq!(scan(b"$20\r\n"), Err(ScanError::TooLarge));
        assert_eq!(scan(b"*3\r\n$1\r\na\r\n$1\r\n"), Ok(None));
        assert_eq!(scan(b"*3\r\n$1\r\na\r\n$5\r\n"), Err(ScanError::TooLarge));
    }
}
