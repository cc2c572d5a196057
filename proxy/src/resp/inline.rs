//! Inline commands: one line of words, as a person types them into telnet.
//!
//! The rules are those of `sdssplitargs` in Redis: words are separated by blanks; `"..."` understands
//! `\n \r \t \b \a \xHH` and `\` before anything else; `'...'` understands `\'` only; a closing quote
//! must be followed by a blank or the end. A NUL byte ends the line, as it ends a C string.

use super::args::{Span, offset};

/// A quote was not closed, or something follows a closing quote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

/// Splits `line` into words. They are appended to `words`, and their bounds in it to `spans`.
pub(super) fn split(line: &[u8], words: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), UnbalancedQuotes> {
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|&&byte| is_space(byte)).count();
        rest = rest.get(blanks..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let start = offset(words.len());
        rest = word(rest, words)?;
        spans.push((start, offset(words.len())));
    }
}

/// Takes one word off the front of `rest`, which is not blank, and returns what remains.
fn word<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            // Vertical tab and form feed separate words only at their start: Redis does it so.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', quoted @ ..] => return double_quoted(quoted, words),
            [b'\'', quoted @ ..] => return single_quoted(quoted, words),
            [byte, after @ ..] => {
                words.push(*byte);
                rest = after;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', after @ ..] => return closed(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                words.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                words.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                words.push(*byte);
                rest = after;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', after @ ..] => return closed(after),
            [b'\\', b'\'', after @ ..] => {
                words.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                words.push(*byte);
                rest = after;
            }
        }
    }
}

fn closed(after: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match after.first() {
        Some(byte) if !is_space(*byte) => Err(UnbalancedQuotes),
        _ => Ok(after),
    }
}

/// `isspace` of C, which has one more than Rust's `is_ascii_whitespace`: the vertical tab.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        let (mut data, mut spans) = (Vec::new(), Vec::new());
        split(line, &mut data, &mut spans)?;
        Ok(spans.into_iter().map(|(start, end)| data[start as usize..end as usize].to_vec()).collect())
    }

    fn ok(line: &[u8], expected: &[&[u8]]) {
        assert_eq!(words(line).unwrap(), expected, "{}", line.escape_ascii());
    }

    #[test]
    fn the_vectors_of_redis() {
        ok(b"Testing one two three", &[b"Testing", b"one", b"two", b"three"]);
        ok(b"", &[]);
        ok(b"   ", &[]);
        ok(
            br#""Testing split strings" "Another split string""#,
            &[b"Testing split strings", b"Another split string"],
        );
        ok(br#""Hello" "#, &[b"Hello"]);
        ok(br#"SET foo bar\"#, &[b"SET", b"foo", b"bar\\"]);
    }

    #[test]
    fn quotes_and_escapes() {
        ok(br#"GET "\x41\n\r\t\b\a\q\\\"""#, &[b"GET", b"A\n\r\t\x08\x07q\\\""]);
        ok(br#"GET 'a\'b\n'"#, &[b"GET", b"a'b\\n"]);
        ok(br#"GET foo"bar" "" ''"#, &[b"GET", b"foobar", b"", b""]);
        ok(b"\x0b\x0cGET a\x0bb\tc", &[b"GET", b"a\x0bb", b"c"]);
        ok(b"GET a\0 b", &[b"GET", b"a"]);
    }

    #[test]
    fn envoy_46642_short_hexadecimal_escape() {
        ok(br#"GET "x\x4""#, &[b"GET", b"xx4"]);
        ok(br#"PING "ax\xff""#, &[b"PING", b"ax\xff"]);
        ok(br#"PING "\x" "\xg0""#, &[b"PING", b"x", b"xg0"]);
        for line in [&br#"PING "\x"#[..], br#"PING "\x4"#, br#"PING "\xff"#, br#"PING "\"#] {
            assert_eq!(words(line), Err(UnbalancedQuotes));
        }
    }

    #[test]
    fn unbalanced_quotes() {
        for line in [&br#"""#[..], b"'", br#"GET "a"#, br#"GET "a"b"#, b"GET 'a'b", br#""a""b""#, b"\"a\0\""]
        {
            assert_eq!(words(line), Err(UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn fuzz_inline() {
        bolero::check!().for_each(|line: &[u8]| {
            if let Ok(words) = words(line) {
                assert!(words.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        });
    }
}
