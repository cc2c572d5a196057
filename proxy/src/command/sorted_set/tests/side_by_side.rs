//! The same commands against a real Redis. Increments and weights are multiples of a quarter, for
//! which our exact sums and Redis's binary ones agree.

use super::*;
use crate::command::testing::SideBySide;

fn set_and_string(pair: &mut SideBySide) {
    run_with(&pair.ours, "own set a c e", Some(add_to_set));
    run_with(&pair.ours, "own str value", Some(make_string));
    pair.theirs.ask(&[b"SADD", b"set", b"a", b"c", b"e"]);
    pair.theirs.ask(&[b"SET", b"str", b"value"]);
}

#[test]
fn every_combination_of_zadd_options() {
    let mut pair = SideBySide::start();
    let names = ["NX", "xx", "Gt", "LT", "CH", "INCR"];
    for bits in 0..64u32 {
        let options: String = names
            .iter()
            .enumerate()
            .filter(|(i, _)| bits >> i & 1 == 1)
            .map(|(_, n)| format!("{n} "))
            .collect();
        for pairs in [
            "1 a",
            "5 a",
            "9 a",
            "2 new",
            "inf a",
            "x a",
            "1",
            "1 a 2",
            "5 b 6 c",
            "7 b 3 b 8 b",
            "3 b 7 b 1 n 2 n",
            "5 b 5 b",
            "-1 b 1 d 9 e 1 d 10 a 3 f 4 g 9 b 2 d 8 h 8 b",
        ] {
            pair.same(&["ZREM z a b c d e f g h n new", "ZADD z 5 a 5 b"]);
            pair.same(&[&format!("ZADD z {options}{pairs}"), "ZRANGE z 0 -1 WITHSCORES"]);
            pair.same(&[&format!("ZADD fresh {options}{pairs}"), "ZREMRANGEBYRANK fresh 0 -1"]);
        }
    }
}

#[test]
fn errors() {
    let mut pair = SideBySide::start();
    set_and_string(&mut pair);
    pair.same(&["ZADD z 1 a 2 b 3 c 4 d"]);
    pair.same(&[
        "ZADD z",
        "ZADD z 1",
        "ZADD z NX 1",
        "ZADD z NX XX",
        "ZADD z nan a",
        "ZADD z  a",
        "ZADD z 1 a x b",
        "ZADD str 1 a",
        "ZADD str x a",
        "ZADD str XX 1 a",
        "ZADD set 1 a",
        "ZADD z XX INCR 1 a 2 b",
        "ZINCRBY z x a",
        "ZINCRBY z NX a",
        "ZINCRBY z CH INCR",
        "ZINCRBY str 1 a",
        "ZINCRBY z 1",
        "ZINCRBY z 1 a b",
        "ZADD z inf i",
        "ZINCRBY z -inf i",
        "ZADD z INCR -inf i",
        "ZADD z NX INCR -inf i",
        "ZREM z i",
        "ZREM z",
        "ZREM str a",
        "ZREM none a",
        "ZCARD str",
        "ZCARD",
        "ZSCORE str a",
        "ZSCORE z",
        "ZMSCORE z",
        "ZMSCORE str a",
        "ZMSCORE none a b",
        "ZRANK str a",
        "ZREVRANK str a",
        "ZRANK z",
        "ZRANGE z 0",
        "ZRANGE z x 1",
        "ZRANGE z 0 1.0",
        "ZRANGE z 0 1 LIMIT",
        "ZRANGE z 0 1 LIMIT 1",
        "ZRANGE z 0 1 LIMIT 0 1",
        "ZRANGE z 0 1 LIMIT 5 -1",
        "ZRANGE z 0 1 LIMIT x 1",
        "ZRANGE z 0 1 BYSCORE LIMIT 0 x",
        "ZRANGE z 0 1 bogus",
        "ZRANGE z 0 1 BYLEX BYSCORE",
        "ZRANGE z 0 1 BYSCORE BYSCORE",
        "ZRANGE z 0 1 REV REV",
        "ZRANGE z 0 1 BYLEX",
        "ZRANGE z [a [b BYLEX WITHSCORES",
        "ZRANGE z a b BYSCORE",
        "ZRANGE str 0 1",
        "ZRANGE str a b",
        "ZRANGE none 0 1 WITHSCORES",
        "ZRANGE z 0 1 WITHSCORES WITHSCORES",
        "ZRANGE z ( ( BYSCORE",
        "ZRANGE z   BYSCORE",
        "ZRANGE z nan 1 BYSCORE",
        "ZRANGE z 1e400 -1e400 BYSCORE REV",
        "ZRANGE z -1e400 1e400 BYSCORE",
        "ZRANGE z (1x 3 BYSCORE",
        "ZRANGE z ((1 3 BYSCORE",
        "ZRANGE z + - BYLEX",
        "ZRANGE z ++ - BYLEX",
        "ZRANGE z  - BYLEX",
        "ZRANGE z 9223372036854775807 9223372036854775808",
        "ZRANGE z -9223372036854775808 9223372036854775807",
        "ZRANGE z 0 9223372036854775807 REV",
        "ZREVRANGE z 0 1 REV",
        "ZREVRANGE z 0 1 BYSCORE",
        "ZREVRANGE z 0 1 LIMIT 0 1",
        "ZREVRANGE z 0 1 WITHSCORES",
        "ZRANGEBYSCORE z 1 x",
        "ZRANGEBYSCORE z 1 2 REV",
        "ZRANGEBYSCORE z 1 2 BYLEX",
        "ZRANGEBYSCORE z 1 2 LIMIT 1",
        "ZRANGEBYSCORE str 1 2",
        "ZREVRANGEBYSCORE z 2 (1 WITHSCORES LIMIT 0 -5",
        "ZRANGEBYLEX z a b",
        "ZRANGEBYLEX z [a b",
        "ZRANGEBYLEX z - + WITHSCORES",
        "ZREVRANGEBYLEX z + - LIMIT 1 2",
        "ZRANGESTORE d z 0",
        "ZRANGESTORE d z 0 1 WITHSCORES",
        "ZRANGESTORE d z x 1",
        "ZRANGESTORE d str 0 1",
        "ZRANGESTORE d z 0 1 LIMIT 0 1",
        "ZRANGESTORE d none 0 1",
        "ZCOUNT z 1",
        "ZCOUNT z 1 x",
        "ZCOUNT str 1 2",
        "ZCOUNT str x 2",
        "ZCOUNT none 1 2",
        "ZLEXCOUNT z 1 2",
        "ZLEXCOUNT str - +",
        "ZLEXCOUNT none - +",
        "ZLEXCOUNT str 1 +",
        "ZREMRANGEBYRANK z x 1",
        "ZREMRANGEBYRANK str 0 1",
        "ZREMRANGEBYRANK none 0 1",
        "ZREMRANGEBYSCORE z x 1",
        "ZREMRANGEBYSCORE str 0 1",
        "ZREMRANGEBYLEX z x 1",
        "ZREMRANGEBYLEX str - +",
        "ZREMRANGEBYLEX str x +",
        "ZPOPMIN",
        "ZPOPMIN z x",
        "ZPOPMIN z -1",
        "ZPOPMIN z 1 2",
        "ZPOPMIN str",
        "ZPOPMIN str 0",
        "ZPOPMAX none 3",
        "ZPOPMAX z 0",
        "ZPOPMIN str x",
        "ZMPOP 0 z MIN",
        "ZMPOP x z MIN",
        "ZMPOP -1 z MIN",
        "ZMPOP 1 z",
        "ZMPOP 1 z BOTH",
        "ZMPOP 2 z MIN",
        "ZMPOP 1 z MIN COUNT",
        "ZMPOP 1 z MIN COUNT 0",
        "ZMPOP 1 z MIN COUNT x",
        "ZMPOP 1 z MIN COUNT 1 COUNT 1",
        "ZMPOP 1 z MIN bogus",
        "ZMPOP 1 str MIN",
        "ZMPOP 2 none str MIN",
        "ZMPOP 2 none none2 MAX",
        "ZMPOP 9223372036854775807 z MIN",
        "ZMPOP 1 z MAX COUNT 9223372036854775808",
        "ZRANDMEMBER z x",
        "ZRANDMEMBER z 1 bogus",
        "ZRANDMEMBER z 1 WITHSCORES x",
        "ZRANDMEMBER z -9223372036854775808",
        "ZRANDMEMBER z 9223372036854775807 WITHSCORES",
        "ZRANDMEMBER str",
        "ZRANDMEMBER str 1",
        "ZRANDMEMBER none",
        "ZRANDMEMBER none 3",
        "ZRANDMEMBER z 0",
        "ZRANDMEMBER str x",
        "ZSCAN z x",
        "ZSCAN z",
        "ZSCAN z 0 COUNT",
        "ZSCAN z 0 COUNT 0",
        "ZSCAN z 0 COUNT x",
        "ZSCAN z 0 COUNT -1",
        "ZSCAN z 0 bogus",
        "ZSCAN z 0 MATCH",
        "ZSCAN str 0",
        "ZSCAN none 0",
        "ZSCAN none 0 bogus",
        "ZSCAN none x",
        "ZSCAN z 0 MATCH [bc] COUNT 1",
        "ZSCAN z ",
        "ZSCAN z 1x",
        "ZSCAN z 99999999999999999999",
        "ZSCAN z +0",
        "ZSCAN z -",
        "ZSCAN z 0 MATCH b MATCH c",
        "ZSCAN z 0 COUNT 5 COUNT 0",
    ]);
    pair.same_elements(&["ZRANDMEMBER z 10 WITHSCORES", "ZRANDMEMBER z 4"]);
}

#[test]
fn errors_of_combinations() {
    let mut pair = SideBySide::start();
    set_and_string(&mut pair);
    pair.same(&["ZADD z 1 a 2 b 3 c 4 d", "ZADD y 10 b 20 c inf e", "ZADD x -inf e 0 a"]);
    for name in ["ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "ZUNIONSTORE d", "ZINTERSTORE d", "ZDIFFSTORE d"]
    {
        for rest in [
            "",
            "0",
            "0 z",
            "x z",
            "-1 z",
            "3 z y",
            "9223372036854775807 z",
            "1 z y",
            "2 z y",
            "2 z str",
            "2 str z bogus",
            "2 z y bogus",
            "2 z y WEIGHTS",
            "2 z y WEIGHTS 1",
            "2 z y WEIGHTS 1 x",
            "2 z y WEIGHTS 1 nan",
            "2 z y WEIGHTS 2 0.5",
            "2 z y weights 2 3 4",
            "2 z y WEIGHTS 1 2 AGGREGATE",
            "2 z y AGGREGATE avg",
            "2 z y AGGREGATE min",
            "2 z y AGGREGATE MAX WEIGHTS -1 2",
            "2 z y AGGREGATE sum AGGREGATE min",
            "2 z y WITHSCORES",
            "2 z y WITHSCORES WITHSCORES",
            "2 z y LIMIT",
            "2 z y LIMIT 1",
            "2 z y LIMIT 0",
            "2 z y LIMIT -1",
            "2 z y LIMIT x",
            "2 z y LIMIT 5 LIMIT 1",
            "1 z",
            "2 z z",
            "3 z set y",
            "2 none z",
            "2 z none",
            "2 none none",
            "2 set set",
            "1 set",
            "2 set z WEIGHTS 0.25 4",
            "2 x y",
            "2 x y AGGREGATE min",
            "2 x y WEIGHTS 0 0",
            "2 x y WEIGHTS inf -inf",
            "2 x y WEIGHTS 0 0 AGGREGATE max",
            "2 y x WEIGHTS 0 1",
            "2 x x WEIGHTS inf -inf AGGREGATE min",
            "3 x y z WEIGHTS 1 1 -inf",
        ] {
            let line = if rest.is_empty() { name.to_owned() } else { format!("{name} {rest}") };
            for line in [line.clone(), format!("{line} WITHSCORES")] {
                pair.same_but_zeros(&line);
                pair.same_but_zeros("ZRANGE d 0 -1 WITHSCORES");
            }
        }
    }
    // The target may be of any type, and one of the inputs.
    pair.same(&["ZUNIONSTORE z 2 z y", "ZRANGE z 0 -1 WITHSCORES", "ZUNIONSTORE str 1 z", "ZCARD str"]);
    pair.same(&["ZRANGESTORE set z 1 2", "ZRANGE set 0 -1", "ZINTERSTORE z 2 z none", "ZCARD z"]);
}

impl SideBySide {
    /// Asserts equal replies, where minus zero is zero: a score of ours has no sign then.
    fn same_but_zeros(&mut self, line: &str) {
        fn unsigned(value: Value) -> Value {
            match value {
                Value::Bulk(text) if text == b"-0" => Value::Bulk(b"0".to_vec()),
                Value::Array(elements) => Value::Array(elements.into_iter().map(unsigned).collect()),
                other => other,
            }
        }
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let (ours, theirs) = self.both(&words);
        assert_eq!(unsigned(ours), unsigned(theirs), "{line}");
    }
}

#[test]
fn ranges_and_limits() {
    let mut pair = SideBySide::start();
    pair.same(&["ZADD z -inf lo 1 a 1 b 1 B 1 aa 1  2 c 2.5 d 2.5 D 3 e inf hi inf ha"]);
    pair.same(&["ZADD lex 0 a 0 b 0 c 0 cc 0 d 0 Z 0 "]);
    let ends = ["-inf", "(-inf", "1", "(1", "2", "(2.5", "2.5", "2.75", "(inf", "+inf"];
    let names = ["-", "+", "[a", "(a", "[c", "(cc", "[", "(", "[zzz", "[bb"];
    let limits = [
        "",
        " LIMIT 0 2",
        " LIMIT 1 -1",
        " LIMIT 2 -7",
        " LIMIT -1 3",
        " LIMIT 3 0",
        " LIMIT 99 1",
        " LIMIT 0 99",
    ];
    let extents = ends.iter().flat_map(|low| ends.iter().map(move |high| (low, high, "BYSCORE", "z")));
    let lexical = names.iter().flat_map(|low| names.iter().map(move |high| (low, high, "BYLEX", "lex")));
    for (low, high, by, key) in extents.chain(lexical) {
        for limit in limits {
            pair.same(&[
                &format!("ZRANGE {key} {low} {high} {by}{limit}"),
                &format!("ZRANGE {key} {low} {high} {by} REV{limit}"),
                &format!("ZRANGE{by} {key} {low} {high}{limit}"),
                &format!("ZREVRANGE{by} {key} {low} {high}{limit}"),
            ]);
        }
        let count = if by == "BYLEX" { "ZLEXCOUNT" } else { "ZCOUNT" };
        pair.same(&[
            &format!("{count} {key} {low} {high}"),
            &format!("ZRANGESTORE d {key} {low} {high} {by} REV LIMIT 1 3"),
            "ZRANGE d 0 -1 WITHSCORES",
            &format!("ZRANGESTORE d {key} {low} {high} {by}"),
            &format!("ZREMRANGE{by} d {high} {low}"),
            &format!("ZREMRANGE{by} d {low} {high}"),
            "ZCARD d",
        ]);
    }
    for low in -14..14 {
        for high in -14..14 {
            pair.same(&[
                &format!("ZRANGE z {low} {high} WITHSCORES"),
                &format!("ZREVRANGE z {low} {high} WITHSCORES"),
                &format!("ZRANGESTORE d z {low} {high} REV"),
                &format!("ZREMRANGEBYRANK d {high} {low}"),
                "ZRANGE d 0 -1",
            ]);
        }
    }
}

/// SplitMix64, so that a failing sequence can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    fn key(&mut self) -> &'static str {
        self.pick(&["k1", "k2", "k3", "k4", "set", "none", "str"])
    }

    fn target(&mut self) -> &'static str {
        self.pick(&["k1", "k2", "k3", "k4"])
    }

    fn member(&mut self) -> String {
        format!("m{}", self.below(25))
    }

    fn score(&mut self) -> String {
        match self.below(20) {
            0 => "inf".into(),
            1 => "-inf".into(),
            n if n < 10 => format!("{}", self.below(6)),
            _ => format!("{}", self.below(80) as f64 / 4.0 - 10.0),
        }
    }

    fn end(&mut self) -> String {
        format!("{}{}", self.pick(&["", "", "("]), self.score())
    }

    fn name(&mut self) -> String {
        match self.below(6) {
            0 => "-".into(),
            1 => "+".into(),
            _ => format!("{}{}", self.pick(&["[", "("]), self.member()),
        }
    }

    fn limit(&mut self) -> String {
        match self.below(3) {
            0 => format!(" LIMIT {} {}", self.below(6) as i64 - 1, self.below(8) as i64 - 2),
            _ => String::new(),
        }
    }

    fn combination(&mut self, reads: bool) -> String {
        let count = 1 + self.below(3);
        let mut line = format!("{count}");
        for _ in 0..count {
            line += &format!(" {}", self.pick(&["k1", "k2", "k3", "k4", "set", "none"]));
        }
        if self.below(3) == 0 {
            line += " WEIGHTS";
            for _ in 0..count {
                line += &format!(" {}", self.pick(&["1", "2", "0.5", "-1", "0"]));
            }
        }
        line += self.pick(&["", "", " AGGREGATE MIN", " AGGREGATE MAX", " AGGREGATE SUM"]);
        line + if reads { self.pick(&["", " WITHSCORES"]) } else { "" }
    }

    fn write(&mut self) -> String {
        let key = if self.below(30) == 0 { self.key() } else { self.target() };
        match self.below(22) {
            0..8 => {
                let options = self.pick(&["", "", "NX ", "XX ", "GT ", "LT CH ", "CH ", "XX GT CH "]);
                let mut line = format!("ZADD {key} {}", options.trim_end()).trim_end().to_owned();
                for _ in 0..1 + self.below(12) {
                    line += &format!(" {} {}", self.score(), self.member());
                }
                line
            }
            8..11 => format!("ZINCRBY {key} {} {}", self.score(), self.member()),
            11 => {
                let options = self.pick(&["NX", "XX", "GT", "LT"]);
                format!("ZADD {key} {options} INCR {} {}", self.score(), self.member())
            }
            12 | 13 => format!("ZREM {key} {} {} {}", self.member(), self.member(), self.member()),
            14 => format!("ZREMRANGEBYRANK {key} {} {}", self.below(9) as i64 - 6, self.below(9) as i64 - 6),
            15 => format!("ZREMRANGEBYSCORE {key} {} ({}", self.score(), self.score()),
            16 => format!("ZPOP{} {key} {}", self.pick(&["MIN", "MAX"]), self.below(4)),
            17 => {
                let (first, end, count) = (self.target(), self.pick(&["MIN", "MAX"]), 1 + self.below(3));
                format!("ZMPOP 2 {first} {key} {end} COUNT {count}")
            }
            18 => format!(
                "ZRANGESTORE {key} {} {} {} BYSCORE{}",
                self.key(),
                self.end(),
                self.end(),
                self.limit()
            ),
            19 => format!("ZUNIONSTORE {key} {}", self.combination(false)),
            20 => format!("ZINTERSTORE {key} {}", self.combination(false)),
            _ => format!("ZDIFFSTORE {key} 2 {} {}", self.key(), self.key()),
        }
    }

    fn read(&mut self) -> String {
        let key = self.key();
        let scores = self.pick(&["", " WITHSCORES"]);
        match self.below(15) {
            0 => {
                format!("ZRANGE {key} {} {}{scores}", self.below(30) as i64 - 15, self.below(30) as i64 - 15)
            }
            1 => format!(
                "ZREVRANGE {key} {} {}{scores}",
                self.below(30) as i64 - 15,
                self.below(30) as i64 - 15
            ),
            2 => format!("ZRANGEBYSCORE {key} {} {}{scores}{}", self.end(), self.end(), self.limit()),
            3 => format!("ZREVRANGEBYSCORE {key} {} {}{scores}{}", self.end(), self.end(), self.limit()),
            4 => format!("ZCOUNT {key} {} {}", self.end(), self.end()),
            5 => format!("ZMSCORE {key} {} {}", self.member(), self.member()),
            6 => format!("ZRANK {key} {}", self.member()),
            7 => format!("ZREVRANK {key} {}", self.member()),
            8 => format!("ZUNION {}", self.combination(true)),
            9 => format!("ZINTER {}", self.combination(true)),
            10 => format!("ZDIFF 3 {key} {} {}{scores}", self.key(), self.key()),
            11 => format!("ZINTERCARD 2 {key} {} LIMIT {}", self.key(), self.below(4)),
            12 => format!("ZSCAN {key} 0 MATCH m1*"),
            13 => format!("ZRANGE lex {} {} BYLEX{}", self.name(), self.name(), self.limit()),
            _ => format!("ZLEXCOUNT lex {} {}", self.name(), self.name()),
        }
    }
}

fn random_sequence(seed: u64, protocol: Protocol) {
    let mut pair = SideBySide::start();
    set_and_string(&mut pair);
    if protocol == Protocol::Resp3 {
        pair.theirs.ask(&[b"HELLO", b"3"]);
        pair.ours.protocol = Protocol::Resp3;
    }
    let mut dice = Dice(seed);
    for _ in 0..15 {
        pair.same(&[&format!("ZADD lex 0 {}", dice.member())]);
    }
    for _ in 0..4_000 {
        let line = if dice.below(2) == 0 { dice.write() } else { dice.read() };
        // A string that becomes a target is not a string any more: both agree.
        pair.same_but_zeros(&line);
    }
    for key in ["k1", "k2", "k3", "k4"] {
        pair.same_but_zeros(&format!("ZRANGE {key} 0 -1 WITHSCORES"));
    }
}

#[test]
fn random_sequences_resp2() {
    random_sequence(1, Protocol::Resp2);
    random_sequence(2, Protocol::Resp2);
}

#[test]
fn random_sequences_resp3() {
    random_sequence(3, Protocol::Resp3);
}

#[test]
fn a_large_set() {
    let mut pair = SideBySide::start();
    let mut dice = Dice(9);
    for _ in 0..60 {
        let mut line = "ZADD z".to_owned();
        for _ in 0..100 {
            line += &format!(" {} m{}", dice.below(2_000) as f64 / 4.0, dice.below(4_000));
        }
        pair.same(&[&line]);
    }
    for _ in 0..300 {
        let member = format!("m{}", dice.below(4_000));
        let (low, high) = (dice.below(500), dice.below(500));
        pair.same(&[
            "ZCARD z",
            &format!("ZRANK z {member}"),
            &format!("ZREVRANK z {member}"),
            &format!("ZREM z {member}"),
            &format!("ZCOUNT z {low} ({high}"),
            &format!("ZRANGE z {low} {high} BYSCORE LIMIT 5 10 WITHSCORES"),
            &format!("ZRANGE z {low} {high} WITHSCORES"),
            &format!("ZREVRANGE z {low} {} WITHSCORES", low + 3),
        ]);
    }
    pair.same(&["ZRANGESTORE d z 100 1500", "ZREMRANGEBYSCORE d 100 (200", "ZRANGE d 0 -1", "ZDIFF 2 z d"]);
    pair.same(&["ZPOPMAX z 700", "ZREMRANGEBYRANK z 10 -10", "ZRANGE z 0 -1 WITHSCORES"]);
}
