use std::collections::BTreeMap;

use crate::command::testing::{Dice, Lab, SideBySide};
use crate::resp::{Protocol, Value};

const ALL: [&str; 12] = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11"];

fn text(value: &Value) -> String {
    value.text().unwrap().to_owned()
}

#[test]
fn replies_as_redis_gives_them() {
    let mut pair = SideBySide::start();
    pair.same(&[
        "HSET h f1 v1 f2 v2",
        "HSET h f1 other f3 v3",
        "HSET h d 1 d 2 e 3 d 4",
        "HGET h d",
        "HMSET h m1 1 m2 2",
        "HSETNX h f1 no",
        "HSETNX h fresh yes",
        "HGET h f1",
        "HGET h absent",
        "HGET absent f",
        "HMGET h f1 absent f2 f1",
        "HMGET absent a b",
        "HEXISTS h f1",
        "HEXISTS h absent",
        "HEXISTS absent f",
        "HLEN h",
        "HLEN absent",
        "HSTRLEN h f1",
        "HSTRLEN h absent",
        "HSTRLEN absent f",
        "HDEL h f1 absent f1 f2",
        "HDEL h f1",
        "HDEL absent f",
        "HLEN h",
        "HSET h  emptyname",
        "HGET h ",
        "HDEL h ",
        "HDEL h d e m1 m2 f3 fresh",
        "HLEN h",
        "HGETALL h",
        "HKEYS h",
        "HVALS h",
    ]);
}

#[test]
fn refusals_as_redis_words_them() {
    let mut pair = SideBySide::start();
    pair.same(&["SADD s m", "HSET h f text n 10 inf inf spaced  lead 1", "HSET h f2 9.5 f3 +5 f4 010"]);
    for line in [
        "HSET # f v",
        "HSET # f v g",
        "HMSET # f v",
        "HMSET # f v g",
        "HSETNX # f v",
        "HSET #",
        "HGET #",
        "HGET # f",
        "HMGET # f",
        "HGETALL #",
        "HDEL # f",
        "HEXISTS # f",
        "HKEYS #",
        "HVALS #",
        "HLEN #",
        "HSTRLEN # f",
        "HINCRBY # f 1",
        "HINCRBY # f x",
        "HINCRBY # f 1.5",
        "HINCRBY # n 9223372036854775807",
        "HINCRBY # n 9223372036854775808",
        "HINCRBY # f2 1",
        "HINCRBY # f3 1",
        "HINCRBY # f4 1",
        "HINCRBY # lead 1",
        "HINCRBYFLOAT # f 1",
        "HINCRBYFLOAT # f x",
        "HINCRBYFLOAT # n inf",
        "HINCRBYFLOAT # n -inf",
        "HINCRBYFLOAT # n nan",
        "HINCRBYFLOAT # n ",
        "HINCRBYFLOAT # inf 1",
        "HINCRBYFLOAT # f3 1",
        "HINCRBYFLOAT # f4 0.5",
        "HRANDFIELD # x",
        "HRANDFIELD # 1 values",
        "HRANDFIELD # 1 WITHVALUES more",
        "HRANDFIELD # 1.5",
        "HRANDFIELD # -9223372036854775808",
        "HRANDFIELD # 9223372036854775807 WITHVALUES",
        "HRANDFIELD # -9223372036854775807 WITHVALUES",
        "HRANDFIELD # 0",
        "HRANDFIELD # 0 WITHVALUES",
        "HSCAN # x",
        "HSCAN # -x",
        "HSCAN # 0 MATCH",
        "HSCAN # 0 COUNT x",
        "HSCAN # 0 COUNT 0",
        "HSCAN # 0 COUNT -1",
        "HSCAN # 0 TYPE hash",
        "HSCAN # 0 what ever",
        "HSCAN # 18446744073709551616",
    ] {
        for key in ["h", "s", "absent"] {
            // What a count or a missing type check leaves to chance is compared elsewhere.
            let line = line.replace('#', key);
            if !(line.starts_with("HGETALL h") || line.starts_with("HKEYS h") || line.starts_with("HVALS h"))
            {
                pair.same(&[&line]);
            }
        }
    }
}

#[test]
fn replies_in_resp3_have_the_same_types() {
    let mut pair = SideBySide::start();
    pair.speak(Protocol::Resp3);
    pair.same(&[
        "HSET h f v",
        "HGETALL h",
        "HGETALL absent",
        "HGET h absent",
        "HMGET h f absent",
        "HRANDFIELD h",
        "HRANDFIELD absent",
        "HRANDFIELD h 1",
        "HRANDFIELD h 5 WITHVALUES",
        "HRANDFIELD h -2 WITHVALUES",
        "HRANDFIELD absent 5 WITHVALUES",
        "HKEYS h",
        "HVALS h",
        "HKEYS absent",
        "HINCRBYFLOAT h n 1.5",
        "HSCAN h 0 MATCH f",
        "HSCAN absent 0",
    ]);
    let mut lab = Lab::new();
    lab.protocol = Protocol::Resp3;
    lab.ask("HSET h f v");
    assert_eq!(lab.raw(&[b"HGETALL", b"h"]), b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(
        lab.raw(&[b"HRANDFIELD", b"h", b"-2", b"WITHVALUES"]),
        b"*2\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    );
}

#[test]
fn sums_as_redis_writes_them() {
    let mut pair = SideBySide::start();
    for (start, by) in [
        ("10.50", "0.1"),
        ("5.0e3", "2.0e2"),
        ("0", "0.1"),
        ("0.1", "0.2"),
        ("1", "-1"),
        ("3", "-3.5"),
        ("+5", "+1"),
        (".5", "5."),
        ("-.5", ".25"),
        ("1e3", "1e-3"),
        ("1", "1e-20"),
        ("0", "-1e-20"),
        ("9007199254740993", "1"),
        ("1e15", "0.5"),
        ("3.0", "1.000"),
    ] {
        pair.same(&[
            &format!("HSET h f {start}"),
            &format!("HINCRBYFLOAT h f {by}"),
            "HGET h f",
            "HINCRBY h f 1",
            "HINCRBYFLOAT h f 1e2",
            "HGET h f",
        ]);
    }
    pair.same(&["HINCRBYFLOAT h new 0.5", "HINCRBY h int -7", "HINCRBY h int 7", "HGET h int"]);
    pair.same(&["HSET h max 9223372036854775806", "HINCRBY h max 1", "HINCRBY h max 1", "HGET h max"]);
    pair.same(&["HSET h min -9223372036854775807", "HINCRBY h min -1", "HINCRBY h min -1", "HGET h min"]);
    pair.same(&["HINCRBY h max -9223372036854775808", "HGET h max", "HDEL h max", "HINCRBY h max 3"]);
}

#[test]
fn increments_are_exact_where_floats_are_not() {
    let mut lab = Lab::new();
    for _ in 0..10 {
        lab.ask("HINCRBYFLOAT h f 0.1");
    }
    assert_eq!(text(&lab.ask("HGET h f")), "1");
    // Redis loses the last digit of both, for want of bits.
    lab.ask("HSET h small 100");
    lab.ask("HINCRBYFLOAT h small 1e-17");
    assert_eq!(text(&lab.ask("HINCRBYFLOAT h small 1e2")), "200.00000000000000001");
    lab.ask("HINCRBYFLOAT h large 100000000000000000001");
    assert_eq!(text(&lab.ask("HINCRBYFLOAT h large 0.1")), "100000000000000000001.1");
    assert!(lab.ask("HINCRBYFLOAT h f 1e309").is_error(), "beyond a double");
    assert!(lab.ask("HINCRBYFLOAT h f 1e400").is_error());
    for _ in 0..100 {
        assert!(!lab.ask("HINCRBYFLOAT h huge 9e307").is_error());
    }
    assert_eq!(text(&lab.ask("HGET h huge")), format!("9{}", "0".repeat(309)));
}

#[test]
fn long_names_are_refused_before_anything_changes() {
    let mut lab = Lab::new();
    let long = vec![b'n'; crate::command::execute::NAME_MAX + 1];
    let refused: [&[&[u8]]; 4] = [
        &[b"HSET", b"h", b"ok", b"v", &long, b"v"],
        &[b"HSETNX", b"h", &long, b"v"],
        &[b"HINCRBY", b"h", &long, b"1"],
        &[b"HINCRBYFLOAT", b"h", &long, b"1"],
    ];
    for words in refused {
        assert!(lab.raw(words).starts_with(b"-ERR names of keys, fields"));
    }
    assert_eq!(lab.ask("HLEN h"), Value::Int(0));
    assert_eq!(lab.raw(&[b"HGET", b"h", &long]), b"$-1\r\n");
    assert_eq!(lab.raw(&[b"HSET", b"h", &long[1..], b"v"]), b":1\r\n");
}

#[test]
fn many_random_commands_reply_the_same() {
    for seed in 1..=3u64 {
        let mut pair = SideBySide::start();
        let mut dice = Dice::new(seed);
        for step in 0..4000 {
            let key = ["h1", "h1", "h1", "h2", "h2", "h2", "s"][dice.below(7)];
            let [f, g, k] = [12; 3].map(|fields| format!("f{}", dice.below(fields)));
            let n = dice.below(200) as i64 - 100;
            let line = match dice.below(22) {
                0..=2 => format!("HSET {key} {f} {n}"),
                3 => format!("HSET {key} {f} {n} {g} x{n} {k} {n}.5"),
                4 => format!("HSET {key} {f} 1 {f} 2 {g}"),
                5 => format!("HMSET {key} {f} {n} {g} {n}"),
                6 => format!("HSETNX {key} {f} {n}"),
                7 | 8 => format!("HDEL {key} {f} {g} {k}"),
                9 => format!("HDEL {key} {}", ALL.join(" ")),
                10 | 11 => format!("HINCRBY {key} {f} {n}"),
                12 => format!("HINCRBYFLOAT {key} {f} {n}.25"),
                13 => format!("HGETALL {key}"),
                14 => format!("HKEYS {key}"),
                15 => format!("HVALS {key}"),
                16 => format!("HLEN {key}"),
                17 => format!("HMGET {key} {f} {g}"),
                18 => format!("HSTRLEN {key} {f}"),
                19 => format!("HSCAN {key} 0 MATCH f1* COUNT 100"),
                20 => format!("HRANDFIELD {key} 100"),
                _ => format!("SADD s {f}"),
            };
            pair.same_unordered(&line, &format!("seed {seed}, step {step}"));
        }
    }
}

#[test]
fn fields_are_picked_evenly() {
    let mut lab = Lab::new();
    // Half of the fields are removed counters, which stay in the table unseen.
    for n in 0..20 {
        lab.ask(&format!("HINCRBY h f{n} {n}"));
    }
    for n in 0..10 {
        lab.ask(&format!("HDEL h f{n}"));
    }
    for command in ["HRANDFIELD h", "HRANDFIELD h 1", "HRANDFIELD h -1", "HRANDFIELD h 5", "HRANDFIELD h -5"]
    {
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        let mut picked = 0;
        while picked < 10_000 {
            let reply = lab.ask(command);
            let fields = reply.elements().map_or_else(|| vec![reply.clone()], <[_]>::to_vec);
            picked += fields.len();
            let mut names: Vec<String> = fields.iter().map(text).collect();
            names.iter().for_each(|name| *times.entry(name.clone()).or_default() += 1);
            names.sort();
            names.dedup();
            assert!(command.contains('-') || names.len() == fields.len(), "{command} repeats");
        }
        assert_eq!(times.len(), 10, "{command}: {times:?}");
        // 1,000 expected, standard deviation 30.
        assert!(times.values().all(|n| (850..1150).contains(n)), "{command}: {times:?}");
    }
    let reply = lab.ask("HRANDFIELD h 100 WITHVALUES");
    let flat = reply.elements().unwrap();
    assert_eq!(flat.len(), 20);
    assert!(flat.chunks(2).all(|pair| text(&pair[0])[1..] == text(&pair[1])));
    assert!(lab.ask("HRANDFIELD h -9223372036854775807").is_error(), "no endless reply");
    assert_eq!(lab.ask("HRANDFIELD h -1000").elements().unwrap().len(), 1000);
}

#[test]
fn removed_counters_start_anew_and_are_not_seen() {
    let mut lab = Lab::new();
    lab.ask("HSET h keep 1");
    lab.ask("HINCRBY h f 5");
    lab.ask("HDEL h f");
    assert_eq!(text(&lab.ask("HGETALL h").elements().unwrap()[0]), "keep");
    assert_eq!(lab.ask("HSCAN h 0").elements().unwrap()[1].elements().unwrap().len(), 2);
    assert_eq!(lab.ask("HEXISTS h f"), Value::Int(0));
    assert_eq!(lab.ask("HSET h f 1"), Value::Int(1));
    lab.ask("HDEL h f");
    assert_eq!(lab.ask("HINCRBY h f 2"), Value::Int(2));
    assert_eq!(lab.ask("HSETNX h f 2"), Value::Int(0));
}

#[test]
fn a_scan_of_a_large_hash_finds_every_field() {
    let mut lab = Lab::new();
    for thousand in 0..10 {
        let mut words: Vec<String> = vec!["HSET".into(), "h".into()];
        words.extend((0..1000).flat_map(|n| [format!("f{}", thousand * 1000 + n), "v".into()]));
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        assert_eq!(lab.raw(&words), b":1000\r\n");
    }
    let (mut cursor, mut found) = (String::from("0"), BTreeMap::new());
    loop {
        let page = lab.ask(&format!("HSCAN h {cursor} COUNT 77 MATCH *7"));
        let [next, fields] = page.elements().unwrap() else { panic!("{page:?}") };
        for pair in fields.elements().unwrap().chunks(2) {
            found.insert(text(&pair[0]), text(&pair[1]));
        }
        cursor = text(next);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 1000);
}
