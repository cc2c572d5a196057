//! Writes replies.

use super::{Protocol, fmt};

const CRLF: &[u8] = b"\r\n";

/// Appends replies to a connection's output buffer, in the connection's protocol version.
///
/// The caller keeps the shape: after `array(n)` come n replies, after `map(n)` 2n.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// An array, map or set whose count is not known yet. Give it to [`Reply::finish`] after its
/// elements, innermost first.
#[derive(Debug)]
#[must_use = "without its header the reply is malformed"]
pub struct Deferred {
    start: usize,
    mark: u8,
    per_element: usize,
}

impl<'a> Reply<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version replies are written in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the version, as `HELLO` does; what was written stays.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the output buffer, earlier replies included.
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Takes back everything after `length` bytes (from [`written`](Self::written)), for example to
    /// answer with an error after all.
    pub fn truncate(&mut self, length: usize) {
        self.out.truncate(length);
    }

    /// Bytes that are replies already.
    pub fn raw(&mut self, replies: &[u8]) {
        self.out.extend_from_slice(replies);
    }

    /// `OK`.
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status. Line breaks become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// An error: `text` begins with its code, as in `ERR no such key`. Line breaks become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    /// An integer.
    pub fn int(&mut self, number: i64) {
        match number {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => {
                self.out.push(b':');
                fmt::write_i64(self.out, number);
                self.out.extend_from_slice(CRLF);
            }
        }
    }

    /// A binary string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(CRLF);
    }

    /// One binary string made of several slices.
    pub fn bulk_parts(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum();
        self.out.reserve(length + 16);
        self.header(b'$', length);
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(CRLF);
    }

    /// An integer as a binary string.
    pub fn bulk_int(&mut self, number: i64) {
        self.bulk_with(|out| fmt::write_i64(out, number));
    }

    /// A missing value.
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// A missing array, as `EXEC` answers when a watched key changed.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// A binary string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// The header of an array of `count` replies.
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count);
    }

    /// The header of a map of `count` pairs; RESP2: an array of twice as many.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', count.saturating_mul(2)),
            Protocol::Resp3 => self.header(b'%', count),
        }
    }

    /// The header of a set of `count` replies; RESP2: an array.
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', count),
            Protocol::Resp3 => self.header(b'~', count),
        }
    }

    /// The header of an out-of-band message of `count` replies; RESP2: an array.
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', count),
            Protocol::Resp3 => self.header(b'>', count),
        }
    }

    /// A double, as Redis 7.2 prints scores; RESP2: a binary string.
    pub fn double(&mut self, number: f64) {
        match self.protocol {
            Protocol::Resp2 => self.bulk_with(|out| fmt::write_f64(out, number)),
            Protocol::Resp3 => {
                self.out.push(b',');
                fmt::write_f64(self.out, number);
                self.out.extend_from_slice(CRLF);
            }
        }
    }

    /// A boolean; RESP2: 1 or 0.
    pub fn bool(&mut self, value: bool) {
        match (self.protocol, value) {
            (Protocol::Resp2, _) => self.int(i64::from(value)),
            (Protocol::Resp3, true) => self.raw(b"#t\r\n"),
            (Protocol::Resp3, false) => self.raw(b"#f\r\n"),
        }
    }

    /// An integer of any size, given as decimal digits; RESP2: a binary string.
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits),
        }
    }

    /// Text for people, of a `format` such as `txt`; RESP2: a binary string.
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.out.reserve(text.len() + 20);
                self.header(b'=', text.len().saturating_add(4));
                self.out.extend_from_slice(&format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(CRLF);
            }
        }
    }

    /// Begins an array of unknown length.
    pub fn defer_array(&mut self) -> Deferred {
        Deferred { start: self.out.len(), mark: b'*', per_element: 1 }
    }

    /// Begins a map of unknown length.
    pub fn defer_map(&mut self) -> Deferred {
        match self.protocol {
            Protocol::Resp2 => Deferred { per_element: 2, ..self.defer_array() },
            Protocol::Resp3 => Deferred { mark: b'%', ..self.defer_array() },
        }
    }

    /// Begins a set of unknown length.
    pub fn defer_set(&mut self) -> Deferred {
        match self.protocol {
            Protocol::Resp2 => self.defer_array(),
            Protocol::Resp3 => Deferred { mark: b'~', ..self.defer_array() },
        }
    }

    /// Puts the header, now that `count` elements (of a map: pairs) follow it. Moves what follows
    /// once; headers of fixed width with leading zeros would not, but clients refuse them.
    pub fn finish(&mut self, deferred: Deferred, count: usize) {
        let Deferred { start, mark, per_element } = deferred;
        let end = self.out.len();
        self.header(mark, count.saturating_mul(per_element));
        if let Some(body_and_header) = self.out.get_mut(start..) {
            body_and_header.rotate_left(end.saturating_sub(start));
        }
    }

    fn header(&mut self, mark: u8, count: usize) {
        self.out.push(mark);
        fmt::write_u64(self.out, count as u64);
        self.out.extend_from_slice(CRLF);
    }

    /// A line cannot hold a line break: an argument echoed in an error must not forge a reply.
    fn line(&mut self, mark: u8, text: &str) {
        self.out.push(mark);
        let start = self.out.len();
        self.out.extend_from_slice(text.as_bytes());
        for byte in self.out.get_mut(start..).unwrap_or_default() {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(CRLF);
    }

    /// A short binary string written in place: `$` and the length are inserted before it.
    fn bulk_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        write(self.out);
        let length = self.out.len() - start;
        self.header(b'$', length);
        if let Some(text_and_header) = self.out.get_mut(start..) {
            text_and_header.rotate_left(length);
        }
        self.out.extend_from_slice(CRLF);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply<'_>)) -> (String, String) {
        let written = |protocol| {
            let mut out = b"earlier".to_vec();
            write(&mut Reply::new(&mut out, protocol));
            String::from_utf8(out[7..].to_vec()).unwrap()
        };
        (written(Protocol::Resp2), written(Protocol::Resp3))
    }

    #[track_caller]
    fn same(write: impl Fn(&mut Reply<'_>), expected: &str) {
        differ(write, expected, expected);
    }

    #[track_caller]
    fn differ(write: impl Fn(&mut Reply<'_>), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.to_owned(), resp3.to_owned()));
    }

    #[test]
    fn what_both_versions_share() {
        same(|reply| reply.ok(), "+OK\r\n");
        same(|reply| reply.simple("PONG"), "+PONG\r\n");
        same(|reply| reply.error("ERR syntax error"), "-ERR syntax error\r\n");
        same(|reply| reply.bulk(b"abc"), "$3\r\nabc\r\n");
        same(|reply| reply.bulk(b""), "$0\r\n\r\n");
        same(|reply| reply.bulk_parts(&[b"ab", b"", b"c"]), "$3\r\nabc\r\n");
        same(|reply| reply.bulk_or_null(Some(b"a")), "$1\r\na\r\n");
        same(|reply| reply.bulk_int(-42), "$3\r\n-42\r\n");
        same(|reply| reply.array(12), "*12\r\n");
        for number in [0, 1, -1, 10, 100, 9_999, i64::MAX, i64::MIN] {
            same(|reply| reply.int(number), &format!(":{number}\r\n"));
        }
    }

    #[test]
    fn what_differs() {
        differ(|reply| reply.null(), "$-1\r\n", "_\r\n");
        differ(|reply| reply.null_array(), "*-1\r\n", "_\r\n");
        differ(|reply| reply.bulk_or_null(None), "$-1\r\n", "_\r\n");
        differ(|reply| reply.map(3), "*6\r\n", "%3\r\n");
        differ(|reply| reply.set(3), "*3\r\n", "~3\r\n");
        differ(|reply| reply.push(3), "*3\r\n", ">3\r\n");
        differ(|reply| reply.double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n");
        differ(|reply| reply.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        differ(|reply| reply.bool(true), ":1\r\n", "#t\r\n");
        differ(|reply| reply.bool(false), ":0\r\n", "#f\r\n");
        differ(|reply| reply.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
        differ(|reply| reply.verbatim(*b"txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn no_reply_is_forged_by_a_line_break() {
        same(|reply| reply.error("ERR unknown 'a\r\n+OK\n'"), "-ERR unknown 'a  +OK '\r\n");
    }

    #[test]
    fn deferred_counts_nest() {
        let write = |reply: &mut Reply<'_>| {
            let outer = reply.defer_array();
            reply.int(7);
            let map = reply.defer_map();
            reply.bulk(b"k");
            reply.bulk(b"v");
            reply.finish(map, 1);
            let set = reply.defer_set();
            reply.finish(set, 0);
            reply.finish(outer, 3);
            reply.ok();
        };
        differ(
            write,
            "*3\r\n:7\r\n*2\r\n$1\r\nk\r\n$1\r\nv\r\n*0\r\n+OK\r\n",
            "*3\r\n:7\r\n%1\r\n$1\r\nk\r\n$1\r\nv\r\n~0\r\n+OK\r\n",
        );
    }

    #[test]
    fn taking_back() {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        reply.ok();
        let mark = reply.written();
        reply.array(5);
        reply.truncate(mark);
        reply.set_protocol(Protocol::Resp3);
        reply.null();
        assert_eq!((reply.protocol(), &out[..]), (Protocol::Resp3, &b"+OK\r\n_\r\n"[..]));
    }
}
