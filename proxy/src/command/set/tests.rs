use std::collections::{BTreeMap, BTreeSet};

use crate::command::table::{Flags, Keys};
use crate::command::testing::{Dice, Lab, SideBySide};
use crate::resp::{Protocol, Value};

fn text(value: &Value) -> String {
    value.text().unwrap().to_owned()
}

fn count(value: &Value) -> usize {
    match value {
        Value::Int(number) => usize::try_from(*number).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.elements().unwrap().iter().map(text).collect()
}

#[test]
fn replies_as_redis_gives_them() {
    let mut pair = SideBySide::start();
    pair.same(&[
        "SADD s a b c a",
        "SADD s a d",
        "SCARD s",
        "SCARD absent",
        "SISMEMBER s a",
        "SISMEMBER s z",
        "SISMEMBER absent a",
        "SMISMEMBER s a z b a",
        "SMISMEMBER absent a b",
        "SREM s a z a",
        "SREM s a",
        "SREM absent a",
        "SADD other b x",
        "SMOVE s other c",
        "SMOVE s other c",
        "SMOVE s other b",
        "SMOVE s s d",
        "SMOVE s s z",
        "SMOVE absent other x",
        "SCARD s",
        "SCARD other",
        "SMOVE s new d",
        "SCARD s",
        "SMEMBERS s",
        "SMEMBERS new",
        "SPOP new",
        "SPOP new",
        "SPOP absent 3",
        "SRANDMEMBER absent",
        "SRANDMEMBER absent 3",
        "SRANDMEMBER absent -3",
        "SRANDMEMBER other 0",
        "SPOP other 0",
        "SADD new ",
        "SISMEMBER new ",
        "SPOP new 100",
        "SCARD new",
    ]);
}

#[test]
fn combining_as_redis_does() {
    let mut pair = SideBySide::start();
    pair.same(&["SADD a 1 2 3 4", "SADD b 3 4 5", "SADD c 4 6", "HSET h f v"]);
    let keys = ["a", "b", "c", "absent", "h", "a b", "a c", "b a", "a a", "a absent", "absent a", "absent h"];
    let more = ["a b c", "c b a", "a h", "h a", "absent absent", "a absent b", "a b absent", "absent h a"];
    let mut step = 0;
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        pair.speak(protocol);
        for keys in keys.iter().chain(&more) {
            for command in ["SINTER", "SUNION", "SDIFF"] {
                pair.same_unordered(&format!("{command} {keys}"), "plain");
                for target in ["t", "h2", "a2"] {
                    step += 1;
                    pair.same(&["HSET h2 f v", "SADD a2 4 9"]);
                    pair.same(&[&format!("{command}STORE {target} {keys}")]);
                    pair.same_unordered(&format!("SMEMBERS {target}"), &format!("{command} {keys} {step}"));
                    pair.same(&["SINTERSTORE h2 absent", "SINTERSTORE a2 absent"]);
                }
            }
            let count = keys.split(' ').count();
            for limit in ["", " LIMIT 0", " LIMIT 1", " limit 2", " LIMIT 100"] {
                pair.same(&[&format!("SINTERCARD {count} {keys}{limit}")]);
            }
        }
    }
    pair.same(&[
        "SUNIONSTORE a a b",
        "SCARD a",
        "SDIFFSTORE a a b",
        "SCARD a",
        "SINTERSTORE a b a",
        "SCARD a",
    ]);
}

#[test]
fn refusals_as_redis_words_them() {
    let mut pair = SideBySide::start();
    pair.same(&["HSET h f v", "SADD s m"]);
    for line in [
        "SADD #",
        "SADD # m",
        "SREM # m",
        "SREM #",
        "SISMEMBER # m",
        "SMISMEMBER # m",
        "SMEMBERS #",
        "SCARD #",
        "SCARD # x",
        "SMOVE # h m",
        "SMOVE h # m",
        "SMOVE absent # m",
        "SPOP # x",
        "SPOP # -1",
        "SPOP # 1 2",
        "SPOP # 1.5",
        "SPOP # 0",
        "SRANDMEMBER # x",
        "SRANDMEMBER # 1 2",
        "SRANDMEMBER # -9223372036854775808",
        "SRANDMEMBER # 0",
        "SINTERCARD 0 #",
        "SINTERCARD x #",
        "SINTERCARD -1 #",
        "SINTERCARD 2 #",
        "SINTERCARD 9223372036854775808 #",
        "SINTERCARD 1 # LIMIT",
        "SINTERCARD 1 # LIMIT -1",
        "SINTERCARD 1 # LIMIT x",
        "SINTERCARD 1 # LIMIT 1 2",
        "SINTERCARD 1 # LIMIT 1 LIMIT 2",
        "SINTERCARD 1 # what 1",
        "SUNIONSTORE #",
        "SSCAN # x",
        "SSCAN # 0 MATCH",
        "SSCAN # 0 COUNT x",
        "SSCAN # 0 COUNT 0",
        "SSCAN # 0 COUNT 5 MATCH m",
        "SSCAN # 0 MATCH x*",
        "SSCAN # 0 what ever",
        "SSCAN # 18446744073709551616",
    ] {
        for key in ["s", "h", "absent"] {
            pair.same(&[&line.replace('#', key), "SADD s m"]);
        }
    }
}

#[test]
fn the_table_says_what_redis_says() {
    let mut pair = SideBySide::start();
    for command in super::COMMANDS.iter().chain(crate::command::hash::COMMANDS) {
        let info = pair.theirs.ask(&[b"COMMAND", b"INFO", command.name.as_bytes()]);
        let info = info.elements().unwrap()[0].elements().unwrap();
        assert_eq!(info[1], Value::Int(command.arity.into()), "{}", command.name);
        let flags = texts(&info[2]);
        for (flag, name) in [
            (Flags::WRITE, "write"),
            (Flags::READONLY, "readonly"),
            (Flags::FAST, "fast"),
            (Flags::DENY_OOM, "denyoom"),
        ] {
            assert_eq!(command.flags.has(flag), flags.iter().any(|f| f == name), "{} {name}", command.name);
        }
        let keys = match command.keys {
            Keys::Range { first, last, step } => [first as i64, last.into(), step as i64],
            _ => [0; 3],
        };
        assert_eq!(info[3..6], keys.map(Value::Int), "{}", command.name);
    }
}

#[test]
fn replies_in_resp3_have_the_same_types() {
    let mut pair = SideBySide::start();
    pair.speak(Protocol::Resp3);
    pair.same(&[
        "SADD s m",
        "SMEMBERS s",
        "SMEMBERS absent",
        "SRANDMEMBER s",
        "SRANDMEMBER absent",
        "SRANDMEMBER s 1",
        "SRANDMEMBER s 5",
        "SRANDMEMBER s -2",
        "SRANDMEMBER absent 2",
        "SSCAN s 0",
        "SSCAN absent 0",
        "SPOP s 0",
        "SPOP s 1",
        "SPOP s",
        "SPOP s 1",
        "SADD s m",
        "SPOP s 2",
    ]);
    let mut lab = Lab::new();
    lab.protocol = Protocol::Resp3;
    lab.ask("SADD s m");
    assert_eq!(lab.raw(&[b"SMEMBERS", b"s"]), b"~1\r\n$1\r\nm\r\n");
    assert_eq!(lab.raw(&[b"SUNION", b"s", b"absent"]), b"~1\r\n$1\r\nm\r\n");
    assert_eq!(lab.raw(&[b"SRANDMEMBER", b"s", b"2"]), b"*1\r\n$1\r\nm\r\n");
}

#[test]
fn long_names_are_refused_before_anything_changes() {
    let mut lab = Lab::new();
    let long = vec![b'n'; crate::command::execute::NAME_MAX + 1];
    assert!(lab.raw(&[b"SADD", b"s", b"ok", &long]).starts_with(b"-ERR names of keys, fields"));
    assert_eq!(lab.ask("SCARD s"), Value::Int(0));
    assert_eq!(lab.raw(&[b"SISMEMBER", b"s", &long]), b":0\r\n");
    assert_eq!(lab.raw(&[b"SADD", b"s", &long[1..]]), b":1\r\n");
}

#[test]
fn many_random_commands_reply_the_same() {
    for seed in 1..=3u64 {
        let mut pair = SideBySide::start();
        let mut dice = Dice::new(seed);
        for step in 0..4000 {
            let place = format!("seed {seed}, step {step}");
            let [key, other, third] = [8; 3].map(|n| ["a", "a", "b", "b", "c", "c", "t", "h"][dice.below(n)]);
            let [m, n, o] = [15; 3].map(|n| format!("m{}", dice.below(n)));
            let count = dice.below(6);
            let line = match dice.below(24) {
                0..=4 => format!("SADD {key} {m} {n} {o} {m}"),
                5 => format!("SADD {key} {}", (0..15).map(|n| format!("m{n}")).collect::<Vec<_>>().join(" ")),
                6..=7 => format!("SREM {key} {m} {n} {m}"),
                8 => format!("SMEMBERS {key}"),
                9 => format!("SMISMEMBER {key} {m} {n}"),
                10 => format!("SMOVE {key} {other} {m}"),
                11 => format!("SINTER {key} {other}"),
                12 => format!("SUNION {key} {other} {third}"),
                13 => format!("SDIFF {key} {other} {third}"),
                14 => format!("SINTERSTORE t {key} {other}"),
                15 => format!("SUNIONSTORE {key} {other} {third}"),
                16 => format!("SDIFFSTORE {key} {other} {third}"),
                17 => format!("SINTERCARD 2 {key} {other} LIMIT {count}"),
                18 => format!("SSCAN {key} 0 MATCH m1* COUNT 1000"),
                19 => format!("SRANDMEMBER {key} 100"),
                20 => format!("HSET h {m} 1"),
                21 => format!("HDEL h {m} {n} {o}"),
                22 => format!("SCARD {key}"),
                _ => {
                    // What was popped here is removed there.
                    let popped = pair.ours.ask(&format!("SPOP {key} {count}"));
                    if popped.is_error() {
                        pair.same(&[&format!("SPOP {key} {count}")]);
                    } else if !popped.elements().unwrap().is_empty() {
                        let popped = texts(&popped);
                        let words: Vec<&[u8]> = ["SREM", key]
                            .into_iter()
                            .chain(popped.iter().map(|m| &**m))
                            .map(str::as_bytes)
                            .collect();
                        assert_eq!(pair.theirs.ask(&words), Value::Int(popped.len() as i64), "{place}");
                    }
                    format!("SCARD {key}")
                }
            };
            pair.same_unordered(&line, &place);
        }
    }
}

#[test]
fn members_are_picked_evenly() {
    let mut lab = Lab::new();
    let members = "0 1 2 3 4 5 6 7 8 9";
    lab.ask(&format!("SADD s {members}"));
    for command in
        ["SRANDMEMBER s", "SRANDMEMBER s 1", "SRANDMEMBER s 5", "SRANDMEMBER s -5", "SPOP s", "SPOP s 3"]
    {
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        let mut picked = 0;
        while picked < 10_000 {
            let reply = lab.ask(command);
            let members_picked = if reply.elements().is_some() { texts(&reply) } else { vec![text(&reply)] };
            picked += members_picked.len();
            let different: BTreeSet<&String> = members_picked.iter().collect();
            assert!(command.contains('-') || different.len() == members_picked.len(), "{command} repeats");
            members_picked.into_iter().for_each(|member| *times.entry(member).or_default() += 1);
            lab.ask(&format!("SADD s {members}"));
        }
        assert_eq!(times.len(), 10, "{command}: {times:?}");
        // 1,000 expected, standard deviation 30.
        assert!(times.values().all(|n| (850..1150).contains(n)), "{command}: {times:?}");
    }
    assert_eq!(texts(&lab.ask("SRANDMEMBER s 100")).len(), 10);
    assert!(lab.ask("SRANDMEMBER s -9223372036854775807").is_error(), "no endless reply");
    let popped: BTreeSet<String> = (0..10).map(|_| text(&lab.ask("SPOP s"))).collect();
    assert_eq!(popped.len(), 10);
    assert!(lab.ask("SPOP s").is_null());
}

const LARGE: usize = 100_000;

fn fill(lab: &mut Lab, key: &str) {
    let names: Vec<String> = (0..LARGE).map(|n| format!("m{n}")).collect();
    for names in names.chunks(1000) {
        let words: Vec<&[u8]> =
            ["SADD", key].into_iter().chain(names.iter().map(|n| &**n)).map(str::as_bytes).collect();
        assert_eq!(lab.raw(&words), b":1000\r\n");
    }
}

/// Scans to the end, doing something between pages; returns what was found.
fn scan(lab: &mut Lab, key: &str, mut between: impl FnMut(&mut Lab, usize)) -> BTreeSet<String> {
    let (mut cursor, mut found) = (String::from("0"), BTreeSet::new());
    for page in 0.. {
        assert!(page < LARGE, "the scan does not end");
        let reply = lab.ask(&format!("SSCAN {key} {cursor} COUNT 500"));
        let [next, members] = reply.elements().unwrap() else { panic!("{reply:?}") };
        found.extend(texts(members));
        cursor = text(next);
        if cursor == "0" {
            break;
        }
        between(lab, page);
    }
    found
}

#[test]
fn a_scan_never_misses_a_member_that_stays() {
    let mut lab = Lab::new();
    fill(&mut lab, "s");
    assert_eq!(scan(&mut lab, "s", |_, _| {}).len(), LARGE);
    // Every third member may go, in random order, while others come.
    let mut dice = Dice::new(11);
    let found = scan(&mut lab, "s", |lab, page| {
        for _ in 0..60 {
            lab.ask(&format!("SREM s m{}", dice.below(LARGE / 3) * 3));
        }
        lab.ask(&format!("SADD s new{page}"));
    });
    let missed = (0..LARGE).filter(|n| n % 3 != 0).find(|n| !found.contains(&format!("m{n}")));
    assert_eq!(missed, None);
    let removed = LARGE - count(&lab.ask("SCARD s"));
    assert!(removed > 5_000, "the test should remove many: {removed}");
}

#[test]
fn a_scan_survives_eviction_and_replacement() {
    let mut lab = Lab::new();
    fill(&mut lab, "s");
    lab.ask("SADD tiny x");
    let found = scan(&mut lab, "s", |lab, page| {
        if page == 50 {
            lab.commit_and_evict();
        }
        if page == 150 {
            // Clears the set and builds it anew, in another order.
            assert_eq!(lab.ask("SUNIONSTORE s tiny s"), Value::Int(LARGE as i64 + 1));
        }
    });
    assert_eq!(found.len(), LARGE + 1);
}
