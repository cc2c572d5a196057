use meridian_conflict::op::{BodyBuilder, Effect, changes};
use meridian_topology::time::WallMs;

use super::walk::{for_each_key, walk};
use crate::command::testing::{Lab, SideBySide};
use crate::command::{Context, find};
use crate::keyspace::KeyRef;
use crate::resp::scan::ScanLimits;
use crate::resp::{OwnedArgs, Protocol, Reply, Value, value};

/// Numbers that look random: SplitMix64.
pub(in crate::command) struct Dice(pub(in crate::command) u64);

impl Dice {
    pub(in crate::command) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }

    pub(in crate::command) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Replaces `K` by a key and `N`, `V`, `T` by what `fill` gives.
    pub(in crate::command) fn fill(
        &mut self,
        template: &str,
        fill: impl Fn(&mut Self, &str) -> String,
    ) -> String {
        template.split(' ').map(|word| fill(self, word)).collect::<Vec<_>>().join(" ")
    }
}

/// Applies effects to a key as a local op.
pub(in crate::command) fn plant(lab: &Lab, key: &str, effects: &[Effect<'_>]) {
    let mut body = BodyBuilder::default();
    effects.iter().for_each(|effect| body.push(effect));
    body.finish_key(lab.database, key.as_bytes());
    let mut locked = lab.region.keyspace().lock(&[KeyRef::new(lab.database, key.as_bytes())]);
    locked.mark_body_dirty(body.body()).unwrap();
    let place = lab.region.sequencer().local(lab.region.origin(), lab.now(), body.body()).unwrap();
    locked.apply_body(body.body(), place.stamp, meridian_conflict::clock::Seen::All, place.lsn.0).unwrap();
    drop(locked);
    lab.region.log().wake();
}

/// The same hash, `f` = `v`, on both sides.
pub(in crate::command) fn plant_hash(side: &mut SideBySide, key: &str) {
    plant(&side.ours, key, &[Effect::FieldAssign { field: b"f", value: b"v", baseline: Vec::new() }]);
    side.theirs.ask(&[b"HSET", key.as_bytes(), b"f", b"v"]);
}

/// The effects that a command would write, as text.
pub(in crate::command) fn effects(lab: &Lab, line: &str) -> Vec<String> {
    let args: OwnedArgs = line.split(' ').collect();
    let command = find(args.args().first().unwrap()).unwrap();
    let names = command.keys.of(args.args());
    let keys: Vec<KeyRef<'_>> = names.iter().map(|key| KeyRef::new(lab.database, key)).collect();
    let mut locked = lab.region.keyspace().lock_loaded(&keys, 0).unwrap();
    let mut body = BodyBuilder::default();
    let mut context = Context {
        region: &lab.region,
        locked: &mut locked,
        body: &mut body,
        database: lab.database,
        now_ms: lab.now().0,
        origin: lab.region.origin(),
        random: 1,
    };
    let mut out = Vec::new();
    (command.handler)(&mut context, args.args(), &mut Reply::new(&mut out, Protocol::Resp2)).unwrap();
    let changes = changes(body.body()).map(Result::unwrap);
    changes
        .flat_map(|change| change.effects().map(|e| format!("{:?}", e.unwrap())).collect::<Vec<_>>())
        .collect()
}

fn block_on<T>(future: impl Future<Output = T> + Send) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The reply of a command that walks, as outside of a transaction.
fn walked(lab: &Lab, line: &str) -> Result<Value, String> {
    let args: OwnedArgs = line.split(' ').collect();
    let command = find(args.args().first().unwrap()).unwrap();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, lab.protocol);
    let outcome = block_on(walk(&lab.region, command, args.args(), lab.database, lab.now(), &mut reply));
    outcome.map_err(|error| error.to_string())?;
    Ok(value::decode(&out, &ScanLimits::default()).unwrap().unwrap().0)
}

fn texts(value: &Value) -> Vec<String> {
    let mut texts: Vec<String> = value
        .elements()
        .unwrap()
        .iter()
        .map(|v| String::from_utf8(v.bytes().unwrap().to_vec()).unwrap())
        .collect();
    texts.sort();
    texts
}

/// All keys that a scan finds, each as often as it is found.
fn scanned(lab: &Lab, options: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = walked(lab, &format!("SCAN {cursor}{options}")).unwrap();
        let page = page.elements().unwrap();
        found.extend(texts(&page[1]));
        cursor = page[0].text().unwrap().to_owned();
        if cursor == "0" {
            found.sort();
            return found;
        }
    }
}

fn select(side: &mut SideBySide, database: u8) {
    side.ours.database = database;
    side.theirs.ask(&[b"SELECT", database.to_string().as_bytes()]);
}

#[test]
fn existence() {
    let mut side = SideBySide::start();
    plant_hash(&mut side, "h");
    side.same(&[
        "SET a 1",
        "SET b 2",
        "SET c 3",
        "EXISTS a",
        "EXISTS a a b nope",
        "TYPE a",
        "TYPE h",
        "TYPE nope",
        "TOUCH a a b nope",
        "DBSIZE",
        "DEL nope",
        "DEL a a b",
        "DBSIZE",
        "UNLINK c c h",
        "DBSIZE",
        "EXISTS a b c h",
        "SET a 1",
        "DEL a b c d e f g h i j k a b c",
        "DEL",
        "EXISTS",
        "TYPE a b",
        "TOUCH",
    ]);
    side.same_keys();
}

#[test]
fn deadlines_option_matrix() {
    let mut side = SideBySide::start();
    let options =
        ["", " NX", " XX", " GT", " LT", " nx xx", " NX GT", " NX LT", " GT LT", " XX GT", " XX LT", " foo"];
    for setup in ["DEL k", "SET k v", "SET k v EX 1000"] {
        for option in options {
            for (command, number) in [
                ("EXPIRE", "500"),
                ("EXPIRE", "2000"),
                ("PEXPIRE", "900000"),
                ("EXPIREAT", "4102444800"),
                ("PEXPIREAT", "4102444800123"),
                ("EXPIRE", "-1"),
                ("PEXPIRE", "0"),
                ("EXPIREAT", "1"),
                ("PEXPIREAT", "-9223372036854775808"),
            ] {
                side.same(&[setup, &format!("{command} k {number}{option}"), "TTL k", "EXISTS k", "DBSIZE"]);
            }
        }
    }
    side.same(&[
        "SET k v",
        "EXPIRE k x",
        "EXPIRE k 1.5",
        "EXPIRE k 9223372036854775807",
        "EXPIRE k -9223372036854775807",
        "PEXPIRE k 9223372036854775807",
        "PEXPIREAT k 9223372036854775807",
        "PEXPIRETIME k",
        "TTL k",
        "PERSIST k",
        "EXPIREAT k 9223372036854775807",
        "PEXPIRE nope 9223372036854775807",
        "EXPIRE k",
        "PERSIST nope",
        "PERSIST k",
        "EXPIRETIME k",
        "EXPIRETIME nope",
        "PEXPIRETIME nope",
        "TTL nope",
        "PTTL nope",
        "PTTL k",
        "PEXPIREAT k 4102444800499",
        "EXPIRETIME k",
        "PEXPIREAT k 4102444800500",
        "EXPIRETIME k",
        "PEXPIRETIME k",
        "EXPIRE k 10 NX",
        "EXPIRETIME k",
    ]);
}

#[test]
fn renaming_and_copying() {
    let mut side = SideBySide::start();
    plant_hash(&mut side, "h");
    side.same(&[
        "RENAME nope x",
        "RENAME nope nope",
        "RENAMENX nope x",
        "SET a 1 PXAT 4102444800123",
        "SET b 2",
        "RENAME a a",
        "RENAMENX a a",
        "RENAMENX a b",
        "RENAME a b",
        "GET b",
        "PEXPIRETIME b",
        "EXISTS a",
        "RENAMENX b a",
        "GET a",
        "PEXPIRETIME a",
        "RENAME h a",
        "TYPE a",
        "TTL a",
        "EXISTS h",
        "COPY a c",
        "COPY a c",
        "COPY nope c",
        "COPY nope d REPLACE",
        "SET b 2 PXAT 4102444800123",
        "COPY b c REPLACE",
        "GET c",
        "PEXPIRETIME c",
        "COPY b b",
        "COPY b b DB 0",
        "COPY b b DB 1",
        "COPY b b DB 1",
        "COPY b b DB 1 REPLACE",
        "COPY b x DB",
        "COPY b x DB a",
        "COPY b x DB 16",
        "COPY b x DB -1",
        "COPY b x DB 99999999999",
        "COPY b x foo",
        "COPY b x DB 2 REPLACE DB 3",
        "MOVE b 0",
        "MOVE b 16",
        "MOVE b x",
        "MOVE b 1",
        "MOVE b 4",
        "MOVE b 4",
        "EXISTS b",
        "MOVE a 4",
        "DBSIZE",
    ]);
    side.same_keys();
    for database in [1, 2, 3, 4] {
        select(&mut side, database);
        side.same_keys();
        side.same(&["GET b", "PEXPIRETIME b", "GET x", "TYPE a", "MOVE b 0", "COPY x y DB 5", "DBSIZE"]);
    }
    for database in [0, 5] {
        select(&mut side, database);
        side.same_keys();
    }
}

#[test]
fn transactions_reach_other_databases() {
    let mut lab = Lab::new();
    let lines = ["SET k v", "COPY k l DB 2", "MOVE k 3", "EXISTS k", "MOVE k 3", "FLUSHALL x"];
    let replies = lab.transaction(&lines, &[]).unwrap();
    let replies = replies.elements().unwrap();
    assert_eq!(replies[1..5], [Value::Int(1), Value::Int(1), Value::Int(0), Value::Int(0)]);
    assert!(replies[5].is_error());
    for (database, key) in [(2, "l"), (3, "k")] {
        lab.database = database;
        assert_eq!(lab.ask(&format!("GET {key}")), Value::Bulk(b"v".to_vec()));
    }
    let long = "x".repeat(crate::command::execute::NAME_MAX + 1);
    assert!(lab.ask(&format!("COPY k {long} DB 1")).is_error());
}

#[test]
fn a_counter_is_renamed_as_it_shows() {
    let mut lab = Lab::new();
    lab.ask("SET a 10");
    lab.ask("INCRBY a 5");
    lab.ask("INCRBY b 7");
    lab.ask("RENAME a b");
    assert_eq!(lab.ask("GET b"), Value::Bulk(b"15".to_vec()));
    assert_eq!(lab.ask("INCR b"), Value::Int(16));
    assert_eq!(lab.ask("INCR a"), Value::Int(1));
}

#[test]
fn flushing() {
    let mut side = SideBySide::start();
    for database in [0, 3, 15] {
        select(&mut side, database);
        side.same(&["SET a 1", "INCR c", "SET t 1 EX 100", "DBSIZE"]);
    }
    side.same(&[
        "FLUSHDB nope",
        "FLUSHDB ASYNC SYNC",
        "FLUSHALL x",
        "FLUSHDB async",
        "DBSIZE",
        "EXISTS a c t",
    ]);
    select(&mut side, 3);
    side.same(&["DBSIZE", "FLUSHALL", "DBSIZE", "INCR c", "FLUSHDB SYNC", "GET c", "FLUSHALL ASYNC"]);
    select(&mut side, 0);
    side.same(&["DBSIZE", "EXISTS a c t", "INCR c"]);
    let replies = side.ours.transaction(&["SET x 1", "FLUSHDB", "SET y 1", "KEYS *", "DBSIZE"], &[]).unwrap();
    let replies = replies.elements().unwrap();
    assert_eq!((texts(&replies[3]), &replies[4]), (vec!["y".to_owned()], &Value::Int(1)));
}

#[test]
fn objects() {
    let mut side = SideBySide::start();
    plant_hash(&mut side, "h");
    let (short, long) = ("x".repeat(44), "x".repeat(45));
    side.same(&[
        &format!("SET short {short}"),
        &format!("SET long {long}"),
        "SET int 5",
        "SET big 9223372036854775807",
        "SET over 9223372036854775808",
        "SET odd 007",
        "SET medium 10000",
        "SET below -1",
        "SET empty ",
        "OBJECT ENCODING h",
        "OBJECT HELP",
        "OBJECT FOO",
        "OBJECT ENCODING",
        "OBJECT ENCODING a b",
        "OBJECT FREQ int",
        "OBJECT FREQ nope",
        "OBJECT IDLETIME nope",
        "OBJECT IDLETIME int",
        "OBJECT HELP x",
        "OBJECT encoding int",
        "MEMORY HELP",
        "MEMORY FOO",
        "MEMORY USAGE",
        "MEMORY USAGE nope",
        "MEMORY USAGE h SAMPLES -1",
        "MEMORY USAGE h SAMPLES x",
        "MEMORY USAGE h SAMPLES",
        "MEMORY USAGE h foo 1",
        "MEMORY PURGE",
        "MEMORY PURGE x",
    ]);
    for key in ["short", "long", "int", "big", "over", "odd", "medium", "below", "empty", "nope"] {
        side.same(&[&format!("OBJECT ENCODING {key}"), &format!("OBJECT REFCOUNT {key}")]);
    }
    assert!(matches!(side.ours.ask("MEMORY USAGE h"), Value::Int(bytes) if bytes > 50));
    assert!(side.ours.ask("MEMORY STATS").elements().unwrap().len() >= 8);
    assert!(side.ours.ask("MEMORY DOCTOR").bytes().is_some());
}

#[test]
fn encodings_of_collections() {
    let mut lab = Lab::new();
    let member = |text: &str| text.as_bytes().to_vec();
    let set = |lab: &Lab, key: &str, members: &[Vec<u8>]| {
        let effects: Vec<Effect<'_>> = members.iter().map(|member| Effect::MemberAdd { member }).collect();
        plant(lab, key, &effects);
    };
    let numbers = |count: usize| (0..count).map(|n| member(&n.to_string())).collect::<Vec<_>>();
    let words = |count: usize| (0..count).map(|n| member(&format!("m{n}"))).collect::<Vec<_>>();
    set(&lab, "ints", &numbers(512));
    set(&lab, "many-ints", &numbers(513));
    set(&lab, "words", &words(128));
    set(&lab, "many-words", &words(129));
    set(&lab, "long", &[vec![b'x'; 65]]);
    let score = 1f64.to_bits();
    let scores = |lab: &Lab, key: &str, members: &[Vec<u8>]| {
        let add = |member| Effect::ScoreAssign { member, score, baseline: Vec::new() };
        plant(lab, key, &members.iter().map(|m| add(m)).collect::<Vec<_>>());
    };
    scores(&lab, "scores", &words(128));
    scores(&lab, "many-scores", &words(129));
    let value = vec![b'x'; 65];
    plant(&lab, "fields", &[Effect::FieldAssign { field: b"f", value: &value, baseline: Vec::new() }]);
    for (key, encoding) in [
        ("ints", "intset"),
        ("many-ints", "hashtable"),
        ("words", "listpack"),
        ("many-words", "hashtable"),
        ("long", "hashtable"),
        ("scores", "listpack"),
        ("many-scores", "skiplist"),
        ("fields", "hashtable"),
    ] {
        let reply = lab.ask(&format!("OBJECT ENCODING {key}"));
        assert_eq!(reply.text(), Some(encoding), "{key}");
    }
}

#[test]
fn random_sequences_reply_as_redis() {
    let mut side = SideBySide::start();
    let mut dice = Dice(41);
    let templates = [
        "SET K V",
        "SET K V EX 1000",
        "DEL K",
        "DEL K K K",
        "UNLINK K",
        "EXISTS K K",
        "TYPE K",
        "TOUCH K K",
        "EXPIRE K T",
        "PEXPIRE K T",
        "EXPIRE K T O",
        "EXPIREAT K 4102444800 O",
        "PEXPIREAT K 4102444800123 O",
        "EXPIREAT K 1 O",
        "TTL K",
        "PERSIST K",
        "RENAME K K",
        "RENAMENX K K",
        "COPY K K",
        "COPY K K REPLACE",
        "COPY K K DB D",
        "MOVE K D",
        "COPY K K DB D REPLACE",
        "INCRBY K 3",
        "APPEND K 1",
        "GET K",
        "PEXPIREAT K 4102444800123",
        "DBSIZE",
        "PERSIST K",
        "SELECT D",
        "GETEX K PERSIST",
        "FLUSHDB",
    ];
    for _ in 0..6000 {
        let template = templates[dice.below(templates.len())];
        if template == "FLUSHDB" && dice.below(20) != 0 {
            continue;
        }
        let line = dice.fill(template, |dice, word| match word {
            "K" => dice.pick(&["a", "b", "c", "d"]).into(),
            "V" => dice.pick(&["1", "x", "", "12345"]).into(),
            "T" => dice.pick(&["100000", "500000", "-1", "0", "1000000", "x"]).into(),
            "D" => dice.pick(&["0", "1", "2"]).into(),
            "O" => dice.pick(&["NX", "XX", "GT", "LT"]).into(),
            other => other.into(),
        });
        match line.strip_prefix("SELECT ") {
            Some(database) => select(&mut side, database.parse().unwrap()),
            // Deadlines from now may differ by a rounding.
            None if line.starts_with("TTL") => {
                let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                match side.both(&words) {
                    (Value::Int(ours), Value::Int(theirs)) => assert!((ours - theirs).abs() <= 1, "{line}"),
                    other => panic!("{line}: {other:?}"),
                }
            }
            None => side.same(&[&line]),
        }
    }
    for database in 0..3 {
        select(&mut side, database);
        side.same_keys();
    }
}

#[test]
fn scans_find_every_key_once() {
    let mut lab = Lab::new();
    for n in 0..700 {
        lab.ask(&format!("SET key:{n} {n}"));
    }
    plant(&lab, "hash", &[Effect::FieldAssign { field: b"f", value: b"v", baseline: Vec::new() }]);
    lab.ask("SET gone 1");
    lab.ask("DEL gone");
    lab.ask("SET expired 1");
    plant(&lab, "expired", &[Effect::Deadline { at_ms: 1 }]);
    lab.database = 1;
    lab.ask("SET elsewhere 1");
    lab.database = 0;
    let mut all: Vec<String> = (0..700).map(|n| format!("key:{n}")).chain(["hash".to_owned()]).collect();
    all.sort();
    for options in ["", " COUNT 7", " COUNT 1", " COUNT 100000", " MATCH *", " count 300 match *"] {
        assert_eq!(scanned(&lab, options), all, "{options}");
    }
    assert_eq!(scanned(&lab, " TYPE hash"), ["hash"]);
    assert_eq!(scanned(&lab, " TYPE HASH MATCH h* COUNT 50"), ["hash"]);
    assert!(scanned(&lab, " TYPE stream").is_empty());
    assert_eq!(scanned(&lab, " MATCH key:1? TYPE string").len(), 10);
    assert_eq!(texts(&walked(&lab, "KEYS *").unwrap()), all);
    assert_eq!(texts(&walked(&lab, "KEYS key:69?").unwrap()).len(), 10);
    for _ in 0..20 {
        let key = walked(&lab, "RANDOMKEY").unwrap();
        assert!(all.iter().any(|known| Some(known.as_str()) == key.text()));
    }
    let mut visited = 0;
    block_on(for_each_key(&lab.region, 0, |_, object| {
        visited += usize::from(object.is_visible(lab.now().0))
    }))
    .unwrap();
    assert_eq!(visited, all.len());

    // The same inside of a transaction.
    let replies = lab.transaction(&["SCAN 0", "KEYS hash", "RANDOMKEY", "SCAN 0 TYPE hash"], &[]).unwrap();
    let replies = replies.elements().unwrap();
    assert_eq!(replies[0].elements().unwrap()[0].text(), Some("0"));
    assert_eq!(texts(&replies[0].elements().unwrap()[1]), all);
    assert_eq!(texts(&replies[1]), ["hash"]);
    assert!(all.iter().any(|known| Some(known.as_str()) == replies[2].text()));
    assert_eq!(texts(&replies[3].elements().unwrap()[1]), ["hash"]);
}

#[test]
fn walking_over_nothing_and_among_the_departed() {
    let mut lab = Lab::new();
    assert!(walked(&lab, "RANDOMKEY").unwrap().is_null());
    assert!(scanned(&lab, "").is_empty());
    assert!(texts(&walked(&lab, "KEYS *").unwrap()).is_empty());
    for n in 0..200 {
        lab.ask(&format!("SET k{n} 1"));
    }
    assert_eq!(scanned(&lab, "").len(), 200);
    lab.region.keyspace().evict(u64::MAX);
    assert_eq!(scanned(&lab, " COUNT 33").len(), 200);
    assert_eq!(lab.ask("DBSIZE"), Value::Int(200));
    for n in 0..199 {
        lab.ask(&format!("DEL k{n}"));
    }
    for _ in 0..20 {
        assert_eq!(walked(&lab, "RANDOMKEY").unwrap().text(), Some("k199"));
    }
}

#[test]
fn errors_of_walks() {
    let mut side = SideBySide::start();
    for line in [
        "SCAN x",
        "SCAN -1x",
        "SCAN 0 COUNT",
        "SCAN 0 COUNT 0",
        "SCAN 0 COUNT -1",
        "SCAN 0 COUNT x",
        "SCAN 0 FOO 1",
        "SCAN 99999999999999999999",
        "SCAN 0 MATCH",
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let theirs = side.theirs.ask(&words);
        assert_eq!(walked(&side.ours, line).unwrap_err().as_bytes(), theirs.bytes().unwrap(), "{line}");
        side.same(&[line]);
    }
    let long = "x".repeat(1025);
    assert!(walked(&side.ours, &format!("KEYS {long}")).unwrap_err().starts_with("ERR "));
    assert!(walked(&side.ours, &format!("SCAN 0 MATCH {long}")).unwrap_err().starts_with("ERR "));
    assert!(walked(&side.ours, &format!("KEYS {}", &long[1..])).is_ok());
}

#[test]
fn what_is_written() {
    let mut lab = Lab::new();
    assert!(effects(&lab, "DEL k").is_empty());
    assert!(effects(&lab, "EXPIRE k 10").is_empty());
    lab.ask("SET k 1");
    assert!(effects(&lab, "PERSIST k").is_empty());
    assert!(effects(&lab, "EXPIRE k 10 XX").is_empty());
    assert!(matches!(&effects(&lab, "EXPIRE k 10")[..], [one] if one.starts_with("Deadline")));
    assert!(matches!(&effects(&lab, "EXPIRE k -1")[..], [one] if one.starts_with("Clear")));
    assert!(matches!(&effects(&lab, "DEL k k nope")[..], [one] if one.starts_with("Clear")));
    lab.ask("EXPIRE k 100");
    assert_eq!(effects(&lab, "PERSIST k"), ["Persist"]);
    let renamed = effects(&lab, "RENAME k l");
    assert!(renamed[0].starts_with("Assign") && renamed[1].starts_with("Deadline"), "{renamed:?}");
    assert!(renamed[2].starts_with("Clear"), "{renamed:?}");
    assert!(effects(&lab, "RENAME k k").is_empty());
}

#[test]
fn an_expired_key_is_gone() {
    let mut lab = Lab::new();
    lab.ask("SET k 1");
    plant(&lab, "k", &[Effect::Deadline { at_ms: 1 }]);
    for (line, reply) in [
        ("EXISTS k", Value::Int(0)),
        ("DEL k", Value::Int(0)),
        ("TTL k", Value::Int(-2)),
        ("EXPIRE k 100", Value::Int(0)),
        ("PERSIST k", Value::Int(0)),
        ("COPY k l", Value::Int(0)),
        ("OBJECT ENCODING k", Value::Null),
        ("TYPE k", Value::Simple(b"none".to_vec())),
        ("SET other 1", Value::Simple(b"OK".to_vec())),
        ("RENAMENX other k", Value::Int(1)),
        ("TTL k", Value::Int(-1)),
    ] {
        assert_eq!(lab.ask(line), reply, "{line}");
    }
}

#[test]
fn bytes_in_both_protocols() {
    let mut lab = Lab::new();
    assert_eq!(lab.raw(&[b"OBJECT", b"ENCODING", b"k"]), b"$-1\r\n");
    lab.protocol = Protocol::Resp3;
    assert_eq!(lab.raw(&[b"object", b"encoding", b"k"]), b"_\r\n");
    assert_eq!(lab.raw(&[b"tYpE", b"k"]), b"+none\r\n");
    assert_eq!(lab.raw(&[b"rename", b"k", b"l"]), b"-ERR no such key\r\n");
    let args: OwnedArgs = ["RANDOMKEY"].into_iter().collect();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp3);
    block_on(walk(&lab.region, find(b"randomkey").unwrap(), args.args(), 0, WallMs(1), &mut reply)).unwrap();
    assert_eq!(out, b"_\r\n");
}
