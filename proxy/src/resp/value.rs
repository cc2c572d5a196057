//! Replies as owned values, for tests, tools and small replies. Large ones are better passed on as
//! bytes once [`Scanner`] knows where they end.

use super::scan::{Aggregate, Element, ScanError, ScanLimits, Scanner, element};

/// One reply. Decoded values nest no deeper than [`ScanLimits::depth`], so dropping one cannot
/// exhaust the stack. Attributes are read and left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A status such as `OK`.
    Simple(Vec<u8>),
    /// An error, its code first; also the `!` form.
    Error(Vec<u8>),
    /// An integer.
    Int(i64),
    /// A binary string.
    Bulk(Vec<u8>),
    /// Text with its format.
    Verbatim([u8; 3], Vec<u8>),
    /// A missing value: `_`, or `$-1` in RESP2.
    Null,
    /// A missing array, RESP2 only: `*-1`.
    NullArray,
    /// A boolean.
    Bool(bool),
    /// A double.
    Double(f64),
    /// An integer of any size, as sent.
    BigNumber(Vec<u8>),
    /// An array.
    Array(Vec<Value>),
    /// A map, in the order sent.
    Map(Vec<(Value, Value)>),
    /// A set, in the order sent.
    Set(Vec<Value>),
    /// An out-of-band message.
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a status, error or string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes) | Self::Error(bytes) | Self::Bulk(bytes) | Self::Verbatim(_, bytes) => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// [`bytes`](Self::bytes) when they are UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The elements of an array, set or push.
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Whether a value or an array is missing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullArray)
    }
}

/// Decodes the reply at the front of `buf` and says how long it is; `None` when bytes are missing.
///
/// Begins anew with every call: for a large reply that arrives in pieces, find its end with a
/// [`Scanner`] first.
pub fn decode(buf: &[u8], limits: &ScanLimits) -> Result<Option<(Value, usize)>, ScanError> {
    // A first pass checks every limit, so the second allocates for complete replies only.
    let Some(length) = Scanner::new().scan(buf, limits)? else { return Ok(None) };
    let mut open: Vec<Open> = Vec::new();
    let mut position = 0;
    while let Some((element, next)) = element(buf, position, &mut 0, limits)? {
        position = next;
        let mut complete = match element {
            Element::Open(kind, missing) => {
                open.push(Open { kind, missing, elements: Vec::new() });
                close(&mut open)
            }
            scalar => Some(value(scalar)),
        };
        // A value completes the aggregate it is the last of, which may complete the next.
        while let Some(value) = complete {
            let Some(parent) = open.last_mut() else { return Ok(Some((value, length))) };
            parent.elements.push(value);
            parent.missing = parent.missing.saturating_sub(1);
            complete = close(&mut open);
        }
    }
    Ok(None)
}

struct Open {
    kind: Aggregate,
    missing: u64,
    elements: Vec<Value>,
}

/// Takes the innermost aggregate when nothing is missing in it.
fn close(open: &mut Vec<Open>) -> Option<Value> {
    let Open { kind, elements, .. } = open.pop_if(|innermost| innermost.missing == 0)?;
    match kind {
        Aggregate::Array => Some(Value::Array(elements)),
        Aggregate::Set => Some(Value::Set(elements)),
        Aggregate::Push => Some(Value::Push(elements)),
        Aggregate::Map => Some(Value::Map(pairs(elements))),
        Aggregate::Attribute => None,
    }
}

fn pairs(elements: Vec<Value>) -> Vec<(Value, Value)> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn value(scalar: Element<'_>) -> Value {
    match scalar {
        Element::Simple(text) => Value::Simple(text.to_vec()),
        Element::Error(text) => Value::Error(text.to_vec()),
        Element::Int(number) => Value::Int(number),
        Element::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
        Element::Verbatim(format, text) => Value::Verbatim(format, text.to_vec()),
        Element::NullArray => Value::NullArray,
        Element::Bool(value) => Value::Bool(value),
        Element::Double(number) => Value::Double(number),
        Element::BigNumber(digits) => Value::BigNumber(digits.to_vec()),
        // Aggregates never come here.
        Element::Null | Element::Open(..) => Value::Null,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Protocol, Reply};
    use super::*;

    fn write(value: &Value, reply: &mut Reply<'_>) {
        let all =
            |values: &[Value], reply: &mut Reply<'_>| values.iter().for_each(|value| write(value, reply));
        match value {
            Value::Simple(text) => reply.simple(std::str::from_utf8(text).unwrap()),
            Value::Error(text) => reply.error(std::str::from_utf8(text).unwrap()),
            Value::Int(number) => reply.int(*number),
            Value::Bulk(bytes) => reply.bulk(bytes),
            Value::Verbatim(format, text) => reply.verbatim(*format, text),
            Value::Null => reply.null(),
            Value::NullArray => reply.null_array(),
            Value::Bool(value) => reply.bool(*value),
            Value::Double(number) => reply.double(*number),
            Value::BigNumber(digits) => reply.big_number(std::str::from_utf8(digits).unwrap()),
            Value::Array(values) => {
                reply.array(values.len());
                all(values, reply);
            }
            Value::Set(values) => {
                let deferred = reply.defer_set();
                all(values, reply);
                reply.finish(deferred, values.len());
            }
            Value::Push(values) => {
                reply.push(values.len());
                all(values, reply);
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    write(key, reply);
                    write(value, reply);
                }
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[ -~]{0,8}".prop_map(|text| Value::Simple(text.into())),
            "ERR [ -~]{0,8}".prop_map(|text| Value::Error(text.into())),
            any::<i64>().prop_map(Value::Int),
            any::<Vec<u8>>().prop_map(Value::Bulk),
            any::<Vec<u8>>().prop_map(|text| Value::Verbatim(*b"txt", text)),
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<f64>().prop_map(Value::Double),
            "-?[0-9]{1,30}".prop_map(|digits| Value::BigNumber(digits.into())),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let several = || prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                several().prop_map(Value::Array),
                several().prop_map(Value::Set),
                several().prop_map(Value::Push),
                prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_survive_at_every_cut(value in any_value()) {
            let mut out = Vec::new();
            write(&value, &mut Reply::new(&mut out, Protocol::Resp3));
            out.extend_from_slice(b"+next\r\n");
            let length = out.len() - 7;
            let limits = ScanLimits::default();
            let mut scanner = Scanner::new();
            for cut in 0..length {
                prop_assert_eq!(scanner.scan(&out[..cut], &limits), Ok(None));
                prop_assert_eq!(decode(&out[..cut], &limits), Ok(None));
            }
            prop_assert_eq!(scanner.scan(&out, &limits), Ok(Some(length)));
            prop_assert_eq!(decode(&out, &limits), Ok(Some((value, length))));
        }
    }

    fn decoded(reply: &[u8]) -> Value {
        let (value, length) = decode(reply, &ScanLimits::default()).unwrap().unwrap();
        assert_eq!(length, reply.len());
        value
    }

    #[test]
    fn reading() {
        assert_eq!(decoded(b"*-1\r\n"), Value::NullArray);
        assert!(decoded(b"$-1\r\n").is_null());
        assert!(decoded(b"!5\r\nERR x\r\n").is_error());
        assert_eq!(decoded(b"+OK\r\n").text(), Some("OK"));
        assert_eq!(decoded(b"$2\r\n\xff\xfe\r\n").text(), None);
        assert_eq!(decoded(b"~1\r\n:1\r\n").elements(), Some(&[Value::Int(1)][..]));
        assert_eq!(
            decoded(b"*2\r\n*0\r\n%0\r\n"),
            Value::Array(vec![Value::Array(vec![]), Value::Map(vec![])])
        );
    }

    #[test]
    fn attributes_are_left_out() {
        let reply = b"|1\r\n+a\r\n*1\r\n:9\r\n*2\r\n|0\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n";
        assert_eq!(decoded(reply), Value::Array(vec![Value::Int(1), Value::Int(2)]));
    }

    #[test]
    fn fuzz_reply() {
        bolero::check!().for_each(|input: &[u8]| {
            let limits = ScanLimits::default();
            let scanned = Scanner::new().scan(input, &limits);
            let decoded = decode(input, &limits).map(|found| found.map(|(_, length)| length));
            assert_eq!(scanned, decoded);
            if let Ok(Some(length)) = scanned {
                // Byte by byte the same end is found.
                let mut scanner = Scanner::new();
                for cut in 0..length {
                    assert_eq!(scanner.scan(&input[..cut], &limits), Ok(None));
                }
                assert_eq!(scanner.scan(&input[..length], &limits), Ok(Some(length)));
            }
        });
    }
}
