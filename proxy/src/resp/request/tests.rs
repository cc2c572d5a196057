#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

type Command = Vec<Vec<u8>>;

/// Feeds `stream` in pieces that end at `cuts`, as a session does.
fn feed(
    stream: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    limits: &Limits,
) -> (Vec<Command>, Option<ProtocolError>) {
    let mut parser = Parser::new();
    let mut found = Vec::new();
    let mut start = 0;
    for cut in cuts.into_iter().chain([stream.len()]) {
        loop {
            let buf = &stream[start..cut.max(start)];
            match parser.parse(buf, limits) {
                Err(error) => return (found, Some(error)),
                Ok(Parsed::Command { consumed }) => {
                    found.push(parser.args(buf).iter().map(<[u8]>::to_vec).collect());
                    start += consumed;
                }
                Ok(Parsed::Incomplete { consumed, need }) => {
                    assert!((1..=MAX_HINT).contains(&need));
                    start += consumed;
                    break;
                }
            }
        }
    }
    (found, None)
}

fn parse(stream: &[u8]) -> (Vec<Command>, Option<ProtocolError>) {
    parse_with(stream, &Limits::default())
}

/// All at once, and byte by byte: the same.
#[track_caller]
fn parse_with(stream: &[u8], limits: &Limits) -> (Vec<Command>, Option<ProtocolError>) {
    let whole = feed(stream, [], limits);
    if stream.len() < 1 << 18 {
        assert_eq!(feed(stream, 0..stream.len(), limits), whole, "cut into bytes");
    }
    whole
}

fn command(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[track_caller]
fn refused(stream: &[u8], limits: &Limits, text: &str) {
    let (found, error) = parse_with(stream, limits);
    assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(text));
    assert_eq!(found, Vec::<Command>::new());
}

#[test]
fn commands_in_a_pipeline() {
    let stream = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nb\0\r\nGET k\r\n*1\r\n$0\r\n\r\nPING\n";
    let expected = vec![
        command(&["PING"]),
        command(&["SET", "k", "a\r\nb\0"]),
        command(&["GET", "k"]),
        command(&[""]),
        command(&["PING"]),
    ];
    assert_eq!(parse(stream), (expected, None));
}

#[test]
fn empty_commands_are_skipped_and_consumed() {
    let stream = b"*0\r\n\r\n*-1\r\n\n  \r\n*-5\r\n*1\r\n$4\r\nPING\r\n*0\r\n\r\n \n*";
    assert_eq!(parse(stream), (vec![command(&["PING"])], None));
    let mut parser = Parser::new();
    let empties = b"*0\r\n\r\n".repeat(1000);
    let parsed = parser.parse(&empties, &Limits::default());
    assert_eq!(parsed, Ok(Parsed::Incomplete { consumed: empties.len(), need: 1 }));
    assert!(!parser.is_mid_command());
    let limits = Limits::default();
    assert_eq!(parser.parse(b"\r\n*1\r", &limits), Ok(Parsed::Incomplete { consumed: 2, need: 1 }));
    assert!(parser.is_mid_command());
    assert_eq!(parser.parse(b"*1\r\n", &limits), Ok(Parsed::Incomplete { consumed: 0, need: 1 }));
    assert!(parser.is_mid_command());
}

#[test]
fn refusals_in_the_words_of_redis() {
    let limits = Limits::default();
    for (stream, text) in [
        (&b"*a\r\n"[..], "Protocol error: invalid multibulk length"),
        (b"*\r\n", "Protocol error: invalid multibulk length"),
        (b"*+1\r\n", "Protocol error: invalid multibulk length"),
        (b"*01\r\n", "Protocol error: invalid multibulk length"),
        (b"*3000000000\r\n", "Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$4x\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$8388609\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "Protocol error: invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "Protocol error: expected '$', got 'f'"),
        (b"*1\r\nx", "Protocol error: expected '$', got 'x'"),
        (b"*1\r\n\r\n", "Protocol error: expected '$', got ' '"),
        (b"*1\r\n\x1b\r\n", "Protocol error: expected '$', got '?'"),
        (b"GET \"foo\r\n", "Protocol error: unbalanced quotes in request"),
        (b"GET 'a'b\n", "Protocol error: unbalanced quotes in request"),
    ] {
        refused(stream, &limits, text);
    }
}

#[test]
fn lines_that_do_not_end() {
    for (limits, limit) in [(Limits::default(), 65_536), (Limits::default().before_auth(), 4096)] {
        let ones = vec![b'1'; limit];
        refused(&[b"*", &ones[..]].concat(), &limits, "Protocol error: too big mbulk count string");
        refused(&[b"*1\r\n$", &ones[..]].concat(), &limits, "Protocol error: too big bulk count string");
        refused(&[b"1", &ones[..]].concat(), &limits, "Protocol error: too big inline request");
        // The limit does not depend on how the line was cut into reads.
        refused(&[b"1", &ones[..], b"\r\n"].concat(), &limits, "Protocol error: too big inline request");
        assert_eq!(feed(&ones, [], &limits), (vec![], None));
        let (found, error) = feed(&[&ones[1..], b"\n"].concat(), [], &limits);
        assert_eq!((found.len(), error), (1, None));
    }
}

#[test]
fn limits_before_authentication() {
    let limits = Limits::default().before_auth();
    refused(b"*11\r\n", &limits, "Protocol error: unauthenticated multibulk length");
    refused(b"*1\r\n$16385\r\n", &limits, "Protocol error: unauthenticated bulk length");
    let (found, error) = parse_with(&[&b"*10\r\n"[..], &b"$1\r\na\r\n".repeat(10)].concat(), &limits);
    assert_eq!((found[0].len(), error), (10, None));
    let large = [&b"*1\r\n$16384\r\n"[..], &[b'a'; 16_384], b"\r\n"].concat();
    assert_eq!(parse_with(&large, &limits).0[0][0].len(), 16_384);
}

#[test]
fn cve_2021_32675_announced_lengths_allocate_nothing() {
    let limits = Limits::default();
    refused(b"*2147483647\r\n", &limits, "Protocol error: invalid multibulk length");
    let unauthenticated = limits.before_auth();
    refused(b"*2147483647\r\n", &unauthenticated, "Protocol error: unauthenticated multibulk length");
    refused(b"*3\r\n$500000000\r\nabc", &unauthenticated, "Protocol error: unauthenticated bulk length");
    refused(b"*3\r\n$500000000\r\nabc", &limits, "Protocol error: invalid bulk length");
    let mut parser = Parser::new();
    let parsed = parser.parse(b"*65536\r\n$8388608\r\nabc", &limits);
    assert_eq!(parsed, Ok(Parsed::Incomplete { consumed: 0, need: MAX_HINT }));
    assert_eq!(parser.spans.capacity() + parser.inline.capacity(), 0);
}

#[test]
fn the_whole_command_is_limited() {
    let limits = Limits { command: 30, ..Limits::default() };
    assert_eq!(parse_with(b"*2\r\n$1\r\na\r\n$11\r\n0123456789a\r\n", &limits).1, None);
    let (_, error) = parse_with(b"*2\r\n$1\r\na\r\n$13\r\n", &limits);
    assert_eq!(error, Some(ProtocolError::TooBigCommand));
    let boundless =
        Limits { bulk: usize::MAX, args: u64::MAX, inline: usize::MAX - 1, command: usize::MAX, ..limits };
    let (_, error) = parse_with(b"*2\r\n$9223372036854775807\r\n", &boundless);
    assert_eq!(error, Some(ProtocolError::TooBigCommand));
}

#[test]
fn envoy_c4e3e8e476_nested_arrays() {
    refused(&b"*1\r\n".repeat(1_000_000), &Limits::default(), "Protocol error: expected '$', got '*'");
}

#[test]
fn envoy_46642_inline_escapes() {
    assert_eq!(parse(b"GET \"x\\x4\"\r\n"), (vec![command(&["GET", "xx4"])], None));
    assert_eq!(parse(b"PING \"ax\\xff\"\n"), (vec![vec![b"PING".to_vec(), b"ax\xff".to_vec()]], None));
    assert_eq!(parse(b"PING \"ax\\xff\r\n").1, Some(ProtocolError::UnbalancedQuotes));
}

#[test]
fn cve_2016_10517_http_is_not_a_client() {
    for probe in
        ["POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n", "Host: localhost\r\n", "host: x\n", "post\n"]
    {
        assert_eq!(parse(probe.as_bytes()), (vec![], Some(ProtocolError::HttpProbe)));
    }
    let (found, error) = parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nSET a b\r\n");
    assert_eq!((found.len(), error), (1, Some(ProtocolError::HttpProbe)));
}

#[test]
fn a_large_incomplete_command_is_not_read_again() {
    let arguments = 60_000;
    let stream = [format!("*{arguments}\r\n").as_bytes(), &b"$1\r\na\r\n".repeat(arguments)].concat();
    let mut parser = Parser::new();
    let mut positions = 0;
    for cut in (0..stream.len()).step_by(100) {
        let before = parser.spans.len();
        let parsed = parser.parse(&stream[..cut], &Limits::default()).unwrap();
        assert!(matches!(parsed, Parsed::Incomplete { consumed: 0, .. }));
        assert!(parser.spans.len() - before <= 15);
        positions = parser.spans.len();
    }
    assert!(positions > arguments - 20);
    assert_eq!(parser.parse(&stream, &Limits::default()), Ok(Parsed::Command { consumed: stream.len() }));
    assert_eq!(parser.args(&stream).len(), arguments);
    // What one large command needed is given back with the next.
    parser.parse(b"", &Limits::default()).unwrap();
    assert!(parser.spans.capacity() <= KEEP_SPANS * 2);
}

fn any_command() -> impl Strategy<Value = (Command, bool)> {
    (prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..6), any::<bool>())
}

/// Writes a command inline, every byte escaped.
fn encode_inline(out: &mut Vec<u8>, command: &Command) {
    for word in command {
        out.push(b'"');
        word.iter().for_each(|byte| out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()));
        out.extend_from_slice(b"\" ");
    }
    out.extend_from_slice(b"\r\n");
}

proptest! {
    #[test]
    fn commands_survive_at_every_cut(commands in prop::collection::vec(any_command(), 1..5)) {
        let mut stream = Vec::new();
        for (command, is_inline) in &commands {
            if *is_inline { encode_inline(&mut stream, command) } else { encode(&mut stream, command) }
        }
        let commands: Vec<Command> = commands.into_iter().map(|(command, _)| command).collect();
        let limits = Limits::default();
        prop_assert_eq!(feed(&stream, 0..stream.len(), &limits), (commands.clone(), None));
        for cut in 0..stream.len() {
            prop_assert_eq!(feed(&stream, [cut], &limits), (commands.clone(), None));
        }
    }
}

/// Whatever arrives: no panic, and the way it was cut into reads does not matter.
fn check_any_stream(stream: &[u8]) {
    for limits in [Limits::default(), Limits::default().before_auth()] {
        let whole = feed(stream, [], &limits);
        assert_eq!(feed(stream, 0..stream.len(), &limits), whole);
        assert_eq!(feed(stream, [stream.len() / 2], &limits), whole);
    }
}

#[test]
fn fuzz_request() {
    bolero::check!().for_each(check_any_stream);
}

#[test]
fn fuzz_multibulk() {
    // Random bytes seldom get past the first header: this one begins after it.
    bolero::check!().for_each(|input: &[u8]| check_any_stream(&[b"*3\r\n$3\r\nSET\r\n$", input].concat()));
}
