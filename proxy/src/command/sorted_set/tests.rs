//! What Redis cannot tell: effects, exact sums, limits, the shape of RESP3, walks under change.

mod side_by_side;

use std::collections::BTreeSet;

use super::*;
use crate::command::Outcome;
use crate::command::execute::{NAME_MAX, Ran, Scratch, run};
use crate::command::testing::Lab;
use crate::resp::{OwnedArgs, Value};

/// Runs a line with a handler of the test's own, or with that of its command; says what was written.
fn run_with(lab: &Lab, line: &str, handler: Option<Handler>) -> (Ran, Vec<u8>) {
    let args: OwnedArgs = line.split(' ').collect();
    let name = args.args().first().unwrap();
    let own = handler.map(|handler| command("own", -1, GROW, ONE, handler));
    let command = own.unwrap_or_else(|| *crate::command::find(name).unwrap());
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, lab.protocol);
    let now = lab.region.wall();
    (run(&lab.region, &mut Scratch::new(3), &command, args.args(), lab.database, now, &mut reply), out)
}

/// `own key member ...`: adds to a set.
fn add_to_set(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    cx.edit(argument(args, 1)?, |edit| args.tail(2).iter().for_each(|member| edit.member_add(member)));
    reply.ok();
    Ok(())
}

/// `own key value`: makes the key a string.
fn make_string(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = argument(args, 2)?;
    cx.edit(argument(args, 1)?, |edit| {
        edit.assign(value, meridian_conflict::edit::NewDeadline::Keep);
    });
    reply.ok();
    Ok(())
}

/// `own key member`: how many assignments and deltas the score is made of.
fn parts(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.sorted_set(argument(args, 1)?)?.unwrap();
    let scalar = set.member(argument(args, 2)?).unwrap();
    reply.simple(&format!("{} {}", scalar.siblings().len(), scalar.deltas().len()));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.text().unwrap()
}

#[test]
fn a_score_said_again_travels_and_what_does_nothing_does_not() {
    let lab = Lab::new();
    let writes = |line: &str| run_with(&lab, line, None).0.wrote.is_some();
    assert!(writes("ZADD z 1 a 2 b"));
    assert!(writes("ZADD z 1 a"), "an addition beats a concurrent removal");
    assert!(writes("ZADD z XX 1 a"));
    for line in [
        "ZADD z NX 5 a",
        "ZADD z GT 1 a",
        "ZADD z LT 2 a",
        "ZADD z XX 2 c",
        "ZADD none XX 2 c",
        "ZADD z NX INCR 5 a",
        "ZREM z x y",
        "ZREM none x",
        "ZPOPMIN z 0",
        "ZPOPMIN none",
        "ZMPOP 2 none none2 MIN",
        "ZREMRANGEBYSCORE z 5 9",
        "ZRANGESTORE none z 5 9",
        "ZUNIONSTORE none 1 none2",
        "ZRANGE z 0 -1",
    ] {
        assert!(!writes(line), "{line}");
    }
    assert!(writes("ZUNIONSTORE z 1 none"));
}

#[test]
fn increments_are_deltas_and_infinite_ones_assignments() {
    let mut lab = Lab::new();
    let score = |lab: &mut Lab, line: &str| text(&lab.ask(line)).to_owned();
    assert_eq!(score(&mut lab, "ZINCRBY z 0.1 a"), "0.1");
    assert_eq!(score(&mut lab, "ZINCRBY z 0.2 a"), "0.3", "exact, not 0.30000000000000004");
    assert_eq!(score(&mut lab, "ZADD z INCR 0.7 a"), "1");
    assert_eq!(score(&mut lab, "ZSCORE z a"), "1");
    assert_eq!(run_with(&lab, "own z a", Some(parts)).1, b"+0 1\r\n");
    assert_eq!(score(&mut lab, "ZADD z XX GT INCR 1 a"), "2");
    assert!(lab.ask("ZADD z LT INCR 1 a").is_null());
    assert_eq!(score(&mut lab, "ZINCRBY z inf a"), "inf");
    assert_eq!(run_with(&lab, "own z a", Some(parts)).1, b"+1 1\r\n");
    assert_eq!(score(&mut lab, "ZINCRBY z 5 a"), "inf");
    assert_eq!(score(&mut lab, "ZSCORE z a"), "inf");
    let refused = lab.ask("ZINCRBY z -inf a");
    assert_eq!(text(&refused), "ERR resulting score is not a number (NaN)");
    lab.ask("ZADD z 1.5e308 big -1.5e308 small");
    assert_eq!(score(&mut lab, "ZINCRBY z 1.5e308 big"), "inf");
    assert_eq!(score(&mut lab, "ZINCRBY z -1.5e308 small"), "-inf");
    assert_eq!(score(&mut lab, "ZSCORE z small"), "-inf");
    // A removal swallows the deltas; the next one starts anew.
    lab.ask("ZINCRBY z 2 b");
    lab.ask("ZREM z b");
    assert!(lab.ask("ZSCORE z b").is_null());
    assert_eq!(score(&mut lab, "ZINCRBY z 3 b"), "3");
    assert_eq!(score(&mut lab, "ZSCORE z b"), "3");
    assert_eq!(score(&mut lab, "ZINCRBY z 0 c"), "0");
    assert_eq!(lab.ask("ZRANK z c"), Value::Int(1));
}

#[test]
fn long_members_are_refused_before_anything_is_written() {
    let mut lab = Lab::new();
    let (fits, long) = (vec![b'm'; NAME_MAX], vec![b'm'; NAME_MAX + 1]);
    let refused = format!(
        "-ERR names of keys, fields and members may have at most {NAME_MAX} bytes, this one has {}\r\n",
        NAME_MAX + 1
    );
    for words in [
        &[&b"ZADD"[..], b"z", b"1", b"a", b"2", &long][..],
        &[b"ZADD", b"z", b"INCR", b"1", &long],
        &[b"ZINCRBY", b"z", b"1", &long],
    ] {
        assert_eq!(lab.raw(words), refused.as_bytes());
    }
    assert_eq!(lab.ask("ZCARD z"), Value::Int(0));
    assert_eq!(lab.raw(&[b"ZADD", b"z", b"1", &fits]), b":1\r\n");
    assert_eq!(lab.raw(&[b"ZREM", b"z", &long]), b":0\r\n");
    assert_eq!(lab.raw(&[b"ZREM", b"z", &fits]), b":1\r\n");
}

#[test]
fn raw_replies() {
    let mut lab = Lab::new();
    lab.ask("ZADD z 1 a 2.5 b");
    run_with(&lab, "own s a c", Some(add_to_set));
    let cases = [
        ("ZSCORE z b", "$3\r\n2.5\r\n", ",2.5\r\n"),
        ("ZSCORE z x", "$-1\r\n", "_\r\n"),
        ("ZMSCORE z a x", "*2\r\n$1\r\n1\r\n$-1\r\n", "*2\r\n,1\r\n_\r\n"),
        ("ZADD z XX INCR 1 x", "$-1\r\n", "_\r\n"),
        ("ZINCRBY z 0 a", "$1\r\n1\r\n", ",1\r\n"),
        ("ZRANK z b", ":1\r\n", ":1\r\n"),
        ("ZRANK z b WITHSCORE", "*2\r\n:1\r\n$3\r\n2.5\r\n", "*2\r\n:1\r\n,2.5\r\n"),
        ("ZREVRANK z b withscore", "*2\r\n:0\r\n$3\r\n2.5\r\n", "*2\r\n:0\r\n,2.5\r\n"),
        ("ZRANK z x", "$-1\r\n", "_\r\n"),
        ("ZRANK z x WITHSCORE", "*-1\r\n", "_\r\n"),
        ("ZRANK none x WITHSCORE", "*-1\r\n", "_\r\n"),
        ("ZRANGE z 0 0 WITHSCORES", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", "*1\r\n*2\r\n$1\r\na\r\n,1\r\n"),
        ("ZRANGE none 0 0 WITHSCORES", "*0\r\n", "*0\r\n"),
        ("ZUNION 1 z", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("ZINTER 2 z s WITHSCORES", "*2\r\n$1\r\na\r\n$1\r\n2\r\n", "*1\r\n*2\r\n$1\r\na\r\n,2\r\n"),
        ("ZRANDMEMBER none", "$-1\r\n", "_\r\n"),
        ("ZRANDMEMBER none 2", "*0\r\n", "*0\r\n"),
        (
            "ZSCAN z 0 MATCH b",
            "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nb\r\n$3\r\n2.5\r\n",
            "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nb\r\n$3\r\n2.5\r\n",
        ),
        ("ZMPOP 1 none MIN", "*-1\r\n", "_\r\n"),
        ("ZPOPMIN none", "*0\r\n", "*0\r\n"),
        ("ZPOPMIN z 0", "*0\r\n", "*0\r\n"),
    ];
    for (line, resp2, resp3) in cases {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            lab.protocol = protocol;
            assert_eq!(String::from_utf8(lab.raw(&words)).unwrap(), expected, "{line} {protocol:?}");
        }
    }
    lab.protocol = Protocol::Resp3;
    assert_eq!(lab.raw(&[b"ZPOPMIN", b"z"]), b"*2\r\n$1\r\na\r\n,1\r\n");
    assert_eq!(lab.raw(&[b"ZPOPMAX", b"z", b"1"]), b"*1\r\n*2\r\n$1\r\nb\r\n,2.5\r\n");
    lab.ask("ZADD z 1 a");
    assert_eq!(lab.raw(&[b"ZMPOP", b"1", b"z", b"MIN"]), b"*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\na\r\n,1\r\n");
}

#[test]
fn scores_are_printed_as_redis_7_2_prints_them() {
    let mut lab = Lab::new();
    for (typed, printed) in [
        ("0.1", "0.1"),
        ("3.0", "3"),
        ("1e20", "1e+20"),
        ("1e-7", "1e-7"),
        ("-inf", "-inf"),
        ("+Infinity", "inf"),
        ("12345.678901234567", "1.2345678901234567e+4"),
    ] {
        lab.ask(&format!("ZADD z {typed} m"));
        assert_eq!(text(&lab.ask("ZSCORE z m")), printed);
        let range = lab.ask("ZRANGE z 0 -1 WITHSCORES");
        assert_eq!(text(&range.elements().unwrap()[1]), printed);
    }
}

#[test]
fn rank_arguments_of_redis_7_2() {
    let mut lab = Lab::new();
    assert_eq!(text(&lab.ask("ZRANK z m WITHSCORES")), "ERR syntax error");
    assert_eq!(
        text(&lab.ask("ZREVRANK z m WITHSCORE x")),
        "ERR wrong number of arguments for 'zrevrank' command"
    );
}

#[test]
fn random_members() {
    let mut lab = Lab::new();
    for i in 0..40 {
        lab.ask(&format!("ZADD z {i} m{i}"));
    }
    for count in [0, 1, 5, 20, 39, 40, 100] {
        let reply = lab.ask(&format!("ZRANDMEMBER z {count}"));
        let members: BTreeSet<&str> = reply.elements().unwrap().iter().map(text).collect();
        assert_eq!(members.len(), reply.elements().unwrap().len(), "different");
        assert_eq!(members.len(), count.min(40));
        let repeats = count + 1;
        let reply = lab.ask(&format!("ZRANDMEMBER z -{repeats}"));
        assert_eq!(reply.elements().unwrap().len(), repeats);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..2_000 {
        seen.insert(text(&lab.ask("ZRANDMEMBER z")).to_owned());
    }
    assert_eq!(seen.len(), 40, "every member is picked at times");
    let reply = lab.ask("ZRANDMEMBER z -3 WITHSCORES");
    let flat = reply.elements().unwrap();
    assert_eq!(flat.len(), 6);
    assert!(flat.chunks(2).all(|pair| text(&pair[0])[1..] == *text(&pair[1])));
    lab.protocol = Protocol::Resp3;
    let reply = lab.ask("ZRANDMEMBER z 3 WITHSCORES");
    assert!(reply.elements().unwrap().iter().all(|pair| pair.elements().unwrap().len() == 2));
    assert!(lab.ask("ZRANDMEMBER z -9000000000000000000").is_error(), "bounded, not endless");
}

#[test]
fn a_walk_meets_whoever_stays() {
    let mut lab = Lab::new();
    let members: Vec<String> = (0..1_000).map(|i| format!("m{i}")).collect();
    for member in &members {
        lab.ask(&format!("ZADD z 1 {member}"));
    }
    let mut met = BTreeSet::new();
    let (mut cursor, mut step) = ("0".to_owned(), 0);
    loop {
        let reply = lab.ask(&format!("ZSCAN z {cursor} COUNT 37"));
        let [next, found] = reply.elements().unwrap() else { panic!("{reply:?}") };
        let found = found.elements().unwrap();
        assert!(found.len() <= 2 * 37);
        met.extend(found.chunks(2).map(|pair| text(&pair[0]).to_owned()));
        cursor = text(next).to_owned();
        if cursor == "0" {
            break;
        }
        // Odd members stay; even ones go from everywhere, and newcomers arrive.
        for i in (0..1_000).step_by(2).filter(|i| i % 27 == step) {
            lab.ask(&format!("ZREM z m{i}"));
        }
        lab.ask(&format!("ZADD z 1 new{step}"));
        step += 1;
    }
    assert!(step >= 10);
    for i in (1..1_000).step_by(2) {
        assert!(met.contains(&format!("m{i}")), "m{i}");
    }
    for cursor in ["99999999", "18446744073709551615", "-1", "281474976710656"] {
        assert!(!lab.ask(&format!("ZSCAN z {cursor} COUNT 9223372036854775807")).is_error());
    }
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let mut lab = Lab::new();
    let replies = lab
        .transaction(&["ZADD z 1 a 2 b", "ZINCRBY z 4 a", "ZRANGE z 0 -1", "ZPOPMIN z", "ZCARD z"], &[])
        .unwrap();
    let bulk = |text: &str| Value::Bulk(text.into());
    assert_eq!(
        replies,
        Value::Array(vec![
            Value::Int(2),
            bulk("5"),
            Value::Array(vec![bulk("b"), bulk("a")]),
            Value::Array(vec![bulk("b"), bulk("2")]),
            Value::Int(1),
        ])
    );
}
