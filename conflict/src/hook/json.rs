//! Deep merging of JSON documents, by path.
//!
//! Only objects are taken apart. Every other value is kept as the bytes it was written with, so no
//! number loses a digit and no text is escaped anew.

use std::borrow::Cow;

/// How deep values may be nested. Deeper documents count as not JSON.
const MAX_DEPTH: usize = 64;

/// A value, as far as merging looks into it.
enum Json<'a> {
    /// Name as written (quotes included), name as meant, value. No name twice.
    Object(Vec<Member<'a>>),
    /// Anything else, as written.
    Raw(&'a [u8]),
}

struct Member<'a> {
    written: &'a [u8],
    name: Cow<'a, [u8]>,
    value: Json<'a>,
}

/// Merges documents, older first: members of objects by name, in the order in which they were first
/// named; where not all are objects the newest value. `None` when one of them is not JSON.
pub(super) fn merge<'a>(documents: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut merged: Option<Json<'a>> = None;
    for document in documents {
        let newer = parse(document)?;
        merged = Some(match merged {
            Some(older) => older.merged_with(newer),
            None => newer,
        });
    }
    let mut out = Vec::new();
    merged?.write(&mut out);
    Some(out)
}

impl<'a> Json<'a> {
    fn merged_with(self, newer: Json<'a>) -> Json<'a> {
        match (self, newer) {
            (Json::Object(mut older), Json::Object(newer)) => {
                for member in newer {
                    put(&mut older, member, Json::merged_with);
                }
                Json::Object(older)
            }
            (_, newer) => newer,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Raw(raw) => out.extend_from_slice(raw),
            Json::Object(members) => {
                out.push(b'{');
                for (at, member) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(member.written);
                    out.push(b':');
                    member.value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Adds a member, or joins its value with the one of the same name.
fn put<'a>(
    members: &mut Vec<Member<'a>>,
    member: Member<'a>,
    join: impl FnOnce(Json<'a>, Json<'a>) -> Json<'a>,
) {
    match members.iter_mut().find(|known| known.name == member.name) {
        Some(known) => {
            let older = std::mem::replace(&mut known.value, Json::Raw(b"null"));
            known.value = join(older, member.value);
        }
        None => members.push(member),
    }
}

fn parse(document: &[u8]) -> Option<Json<'_>> {
    std::str::from_utf8(document).ok()?;
    let mut reader = Reader { rest: document };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Steps over bytes for which `keep` holds; returns how many.
    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) -> usize {
        let count = self.rest.iter().take_while(|byte| keep(**byte)).count();
        self.rest = self.rest.get(count..).unwrap_or_default();
        count
    }

    fn eat(&mut self, expected: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    /// What was read since `start` was all that was left.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        start.get(..start.len() - self.rest.len()).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Option<Json<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let start = self.rest;
        match *start.first()? {
            b'{' => return self.object(depth),
            b'[' => self.array(depth)?,
            b'"' => self.string().map(|_| ())?,
            b't' => self.eat(b"true")?,
            b'f' => self.eat(b"false")?,
            b'n' => self.eat(b"null")?,
            _ => self.number()?,
        }
        Some(Json::Raw(self.since(start)))
    }

    fn object(&mut self, depth: usize) -> Option<Json<'a>> {
        self.eat(b"{")?;
        self.space();
        let mut members = Vec::new();
        if self.eat(b"}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            let (written, name) = self.string()?;
            self.space();
            self.eat(b":")?;
            self.space();
            let value = self.value(depth + 1)?;
            // Of a name that stands twice in one object the last counts, as for most readers.
            put(&mut members, Member { written, name, value }, |_, last| last);
            self.space();
            if self.eat(b"}").is_some() {
                return Some(Json::Object(members));
            }
            self.eat(b",")?;
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.eat(b"[")?;
        self.space();
        if self.eat(b"]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            if self.eat(b"]").is_some() {
                return Some(());
            }
            self.eat(b",")?;
            self.space();
        }
    }

    /// A string as written and as meant.
    fn string(&mut self) -> Option<(&'a [u8], Cow<'a, [u8]>)> {
        let start = self.rest;
        self.eat(b"\"")?;
        let inner = self.rest;
        let plain = self.skip_while(|byte| byte != b'"' && byte != b'\\' && byte >= b' ');
        if self.eat(b"\"").is_some() {
            return Some((self.since(start), Cow::Borrowed(inner.get(..plain)?)));
        }
        let mut meant = inner.get(..plain)?.to_vec();
        loop {
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some((self.since(start), Cow::Owned(meant)));
                }
                [b'\\', rest @ ..] => {
                    self.rest = rest;
                    let meaning = self.escape()?;
                    meant.extend_from_slice(meaning.encode_utf8(&mut [0; 4]).as_bytes());
                }
                [byte, rest @ ..] if *byte >= b' ' => {
                    meant.push(*byte);
                    self.rest = rest;
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                if (0xd800..0xdc00).contains(&high) && self.rest.starts_with(b"\\u") {
                    let before = self.rest;
                    self.eat(b"\\u")?;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        return char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    }
                    self.rest = before;
                }
                // Half a pair means nothing.
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<()> {
        let digit = |byte: u8| byte.is_ascii_digit();
        let _ = self.eat(b"-");
        if self.eat(b"0").is_none() && self.skip_while(digit) == 0 {
            return None;
        }
        if self.eat(b".").is_some() && self.skip_while(digit) == 0 {
            return None;
        }
        if self.eat(b"e").is_some() || self.eat(b"E").is_some() {
            let _ = self.eat(b"+").or_else(|| self.eat(b"-"));
            if self.skip_while(digit) == 0 {
                return None;
            }
        }
        Some(())
    }
}
