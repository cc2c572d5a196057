//! Regions without links, cut apart and brought together: what they show and count under each policy.

mod copies;

use std::fmt::Write as _;

use tempfile::TempDir;

use super::Policies;
use crate::command::execute::merge_ahead;
use crate::command::find;
use crate::config::FileChecks;
use crate::config::settings::{ConflictRule, Settings};
use crate::keyspace::KeyRef;
use crate::link::random::SplitMix64;
use crate::region::reaper::Settled;
use crate::region::wall_now;
use crate::replication::seed::tests::{Place, digest, exchange};
use crate::resp::{OwnedArgs, Value};

const RULES: &str = r#"
[[conflicts]]
keys = "l:*"
policy = "lww"
[[conflicts]]
keys = "m:*"
policy = "multi-value"
[[conflicts]]
keys = "max:*"
policy = "hook"
hook = "max"
[[conflicts]]
keys = "lines:*"
policy = "hook"
hook = "concat-unique-lines"
[[conflicts]]
keys = "json:*"
policy = "hook"
hook = "json-merge"
"#;

fn places(names: &[&'static str]) -> Vec<Place> {
    names.iter().map(|name| Place::with(name, RULES)).collect()
}

/// The regions meet: all of them have everything, and show the same.
async fn meet(places: &[Place]) {
    for _ in 0..places.len() {
        for pair in places.windows(2) {
            exchange(&pair[0].region(), &pair[1].region()).await;
        }
    }
    let whole = digest(&places[0].region()).await;
    for place in &places[1..] {
        assert_eq!(digest(&place.region()).await, whole);
    }
}

async fn end(places: Vec<Place>) {
    places.into_iter().for_each(Place::stop);
}

/// What all regions answer.
fn all(places: &[Place], line: &str) -> Value {
    let first = places[0].ask(0, line);
    places.iter().for_each(|place| assert_eq!(place.ask(0, line), first, "{line}"));
    first
}

/// Writes of one region after another, each region's with greater stamps than those before.
fn in_turn<'p>(
    places: &'p [Place],
    values: &'static [&'static str],
) -> impl Iterator<Item = (&'p Place, &'static str)> {
    places.iter().zip(values).map(|(place, value)| {
        let before = wall_now();
        while wall_now() == before {
            std::hint::spin_loop();
        }
        (place, *value)
    })
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn array(texts: &[&str]) -> Value {
    Value::Array(texts.iter().map(|text| bulk(text)).collect())
}

/// Conflicts counted by kind, rule, outcome and policy, the same in all regions but for the outcome.
fn conflicts(places: &[Place]) -> String {
    let of = |place: &Place| {
        let (mut text, mut counts) = (String::new(), std::collections::BTreeMap::new());
        for ([kind, rule, _, policy, facet], count) in place.region().metrics().conflicts.by_label() {
            // Of two types each region names the one that came.
            let facet = if kind == "type_clash" { "any".into() } else { facet };
            *counts.entry([kind, rule, policy, facet]).or_insert(0) += count;
        }
        for ([kind, rule, policy, facet], count) in counts {
            write!(text, "{policy} {kind} {rule} {facet} {count};").unwrap();
        }
        text
    };
    let first = of(&places[0]);
    places.iter().for_each(|place| assert_eq!(of(place), first));
    first
}

#[tokio::test]
async fn lww_a_whole_key_is_that_of_the_greatest_stamp() {
    let places = places(&["eu", "us"]);
    let a = &places[0];
    for line in ["HSET l:h old 1", "SET l:s 1", "SET l:d 1", "SADD l:t x"] {
        a.ask(0, line);
    }
    meet(&places).await;
    for (place, _) in in_turn(&places, &["", ""]) {
        let lines = if std::ptr::eq(place, a) {
            ["HSET l:h a 1", "INCRBY l:s 5", "SET l:d older", "SADD l:t a", "SET l:type a"]
        } else {
            ["HSET l:h b 2", "INCRBY l:s 7", "DEL l:d", "SREM l:t x", "HSET l:type f b"]
        };
        lines.iter().for_each(|line| drop(place.ask(0, line)));
    }
    meet(&places).await;
    let fields = all(&places, "HGETALL l:h");
    assert_eq!(fields, array(&["old", "1", "b", "2"]));
    assert_eq!(all(&places, "GET l:s"), bulk("8"));
    assert_eq!(all(&places, "EXISTS l:d l:t"), Value::Int(0));
    assert_eq!(all(&places, "HGET l:type f"), bulk("b"));
    assert_eq!(all(&places, "DBSIZE"), Value::Int(3));
    assert_eq!(
        conflicts(&places),
        "lww type_clash lww any 1;lww write_delete lww set 1;lww write_delete lww string 1;\
         lww write_write lww hash 1;lww write_write lww string 1;",
    );
    end(places).await;
}

#[tokio::test]
async fn lww_three_regions_count_every_pair_of_rivals_once() {
    let places = places(&["eu", "us", "ap"]);
    for (place, value) in in_turn(&places, &["1", "2", "3"]) {
        place.ask(0, &format!("SET l:k {value}"));
        place.ask(0, &format!("HSET l:h f{value} {value}"));
    }
    meet(&places).await;
    assert_eq!(all(&places, "GET l:k"), bulk("3"));
    assert_eq!(all(&places, "HGETALL l:h"), array(&["f3", "3"]));
    assert_eq!(conflicts(&places), "lww write_write lww hash 3;lww write_write lww string 3;");
    places[1].ask(0, "HSET l:h f 4");
    meet(&places).await;
    assert_eq!(all(&places, "HLEN l:h"), Value::Int(2));
    assert_eq!(conflicts(&places), "lww write_write lww hash 3;lww write_write lww string 3;");
    end(places).await;
}

#[tokio::test]
async fn lww_a_deadline_that_lost_hides_and_removes_nothing() {
    let places = places(&["eu", "us"]);
    for (place, rest) in in_turn(&places, &["v PX 1", "w"]) {
        place.ask(0, &format!("SET l:k {rest}"));
    }
    meet(&places).await;
    let key = KeyRef::new(0, b"l:k");
    for place in &places {
        let region = place.region();
        let due = region.keyspace().peek(&key, |object| object.unwrap().deadline_ms()).unwrap();
        assert_eq!(due, None);
        region.set_settled(Settled { alone: true, ..Settled::default() });
    }
    settled(&places[0], &key).await;
    assert_eq!(all(&places, "GET l:k"), bulk("w"));
    end(places).await;
}

/// Waits until what lost on the key is gone from memory.
async fn settled(place: &Place, key: &KeyRef<'_>) {
    let region = place.region();
    let has_marks = || {
        region.keyspace().lock_loaded(&[*key], 0).unwrap().object(key).is_some_and(|o| !o.marks().is_empty())
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while has_marks() {
        assert!(std::time::Instant::now() < deadline, "still there");
        region.commit_all().await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn lww_what_lost_is_let_go_of_once_it_is_settled_and_a_crash_brings_nothing_back() {
    let mut places = places(&["eu", "us"]);
    for (place, rest) in in_turn(&places, &["a 1", "b 2"]) {
        place.ask(0, &format!("HSET l:h {rest}"));
        place.ask(0, "HSET l:gone f 1");
    }
    places[1].ask(0, "DEL l:gone");
    meet(&places).await;
    places.iter_mut().for_each(Place::crash);
    meet(&places).await;
    assert_eq!(all(&places, "HGETALL l:h"), array(&["b", "2"]));
    assert_eq!(all(&places, "EXISTS l:gone"), Value::Int(0));
    for place in &places {
        place.region().set_settled(Settled { alone: true, ..Settled::default() });
    }
    // One has settled and the other may have not: they show the same.
    settled(&places[0], &KeyRef::new(0, b"l:h")).await;
    settled(&places[0], &KeyRef::new(0, b"l:gone")).await;
    meet(&places).await;
    places.iter_mut().for_each(Place::crash);
    meet(&places).await;
    assert_eq!(all(&places, "HGETALL l:h"), array(&["b", "2"]));
    assert_eq!(all(&places, "DBSIZE"), Value::Int(1));
    end(places).await;
}

#[tokio::test]
async fn multi_value_keeps_all_values_until_a_write_has_seen_them() {
    let places = places(&["eu", "us", "ap"]);
    for (place, value) in in_turn(&places, &["1", "20", "3"]) {
        place.ask(0, &format!("SET m:k {value}"));
        place.ask(0, &format!("HSET m:h f {value} own{value} x"));
    }
    meet(&places).await;
    assert_eq!(all(&places, "GET m:k"), bulk("3"));
    assert_eq!(all(&places, "HGET m:h f"), bulk("3"));
    assert_eq!(all(&places, "HLEN m:h"), Value::Int(4));
    let alive = |place: &Place| {
        let key = KeyRef::new(0, b"m:k");
        let region = place.region();
        region.keyspace().peek(&key, |o| o.unwrap().string().unwrap().siblings().len()).unwrap()
    };
    places.iter().for_each(|place| assert_eq!(alive(place), 3));
    let counted = conflicts(&places);
    assert_eq!(counted, "multi-value field lww hash 3;multi-value write_write lww string 3;");
    // An increment is of what shows and replaces the rest, as any write does that has seen it.
    assert_eq!(places[1].ask(0, "INCRBY m:k 4"), Value::Int(7));
    assert_eq!(places[1].ask(0, "HINCRBY m:h f 4"), Value::Int(7));
    meet(&places).await;
    assert_eq!(all(&places, "GET m:k"), bulk("7"));
    assert_eq!(all(&places, "HGET m:h f"), bulk("7"));
    places.iter().for_each(|place| assert_eq!(alive(place), 1));
    assert_eq!(conflicts(&places), counted);
    end(places).await;
}

#[tokio::test]
async fn hooks_show_the_same_everywhere_and_write_nothing() {
    let places = places(&["eu", "us", "ap"]);
    for (place, n) in in_turn(&places, &["5", "100", "20"]) {
        place.ask(0, &format!("SET max:k {n}"));
        place.ask(0, &format!("HSET max:h f {n}"));
        // Neither commutative nor associative in what shows: lines stand in stamp order.
        place.ask(0, &format!("SET lines:k line{n}"));
        place.ask(0, &format!(r#"SET json:k {{"{n}":1,"all":{n}}}"#));
        place.ask(0, &format!("SET json:bad text{n}"));
    }
    meet(&places).await;
    let ends: Vec<_> = places.iter().map(|place| place.region().sequencer().end()).collect();
    assert_eq!(all(&places, "GET max:k"), bulk("100"));
    assert_eq!(all(&places, "HGET max:h f"), bulk("100"));
    assert_eq!(all(&places, "GET lines:k"), bulk("line5\nline100\nline20"));
    assert_eq!(all(&places, "GET json:k"), bulk(r#"{"5":1,"all":20,"100":1,"20":1}"#));
    // What the hook does not merge shows as under lww.
    assert_eq!(all(&places, "GET json:bad"), bulk("text20"));
    assert_eq!(all(&places, "STRLEN lines:k"), Value::Int(20));
    meet(&places).await;
    for (place, end) in places.iter().zip(ends) {
        assert_eq!(place.region().sequencer().end(), end, "a merge was written");
        let metrics = place.region();
        let failed = metrics.metrics().hooks.failures.with_label_values(&["json-merge", "declined"]).get();
        assert!(failed > 0);
        assert!(metrics.metrics().hooks.calls.with_label_values(&["max"]).get() >= 2);
    }
    let counted = conflicts(&places);
    assert!(counted.contains("hook write_write hook:max string 3;"), "{counted}");
    assert!(counted.contains("hook field hook:max hash 3;"), "{counted}");
    assert_eq!(places[2].ask(0, "INCR max:k"), Value::Int(101));
    assert_eq!(places[0].ask(0, "APPEND lines:k \nmore"), Value::Int(25));
    meet(&places).await;
    assert_eq!(all(&places, "GET max:k"), bulk("101"));
    assert_eq!(all(&places, "GET lines:k"), bulk("line5\nline100\nline20\nmore"));
    assert_eq!(conflicts(&places), counted);
    end(places).await;
}

#[tokio::test]
async fn a_hook_is_asked_once_until_the_key_changes() {
    let places = places(&["eu", "us"]);
    places[0].ask(0, "SET max:k 1");
    places[1].ask(0, "SET max:k 2");
    meet(&places).await;
    let region = places[0].region();
    // The inbox has asked for its record.
    region.inbox().settle().await;
    let calls = || region.metrics().hooks.calls.with_label_values(&["max"]).get();
    let before = calls();
    (0..10).for_each(|_| assert_eq!(places[0].ask(0, "GET max:k"), bulk("2")));
    assert!(calls() <= before + 1);
    end(places).await;
}

#[tokio::test]
async fn a_hook_is_asked_ahead_and_not_under_a_lock() {
    let places = places(&["eu", "us"]);
    for (place, value) in in_turn(&places, &["9", "10"]) {
        place.ask(0, &format!("SET max:k {value}"));
        place.ask(0, &format!("HSET max:h f {value}"));
    }
    meet(&places).await;
    let region = places[0].region();
    let calls = || region.metrics().hooks.calls.with_label_values(&["max"]).get();
    region.inbox().settle().await;
    // Written again, so that nothing is kept of what was merged.
    places[0].ask(0, "HSET max:h other 1");
    let before = calls();
    let args: OwnedArgs = "HGET max:h f".split(' ').collect();
    merge_ahead(&region, &[(find(b"hget").unwrap(), args.args(), 0)]).await;
    assert_eq!(calls(), before + 1);
    assert_eq!(places[0].ask(0, "HGET max:h f"), bulk("10"));
    assert_eq!(calls(), before + 1);
    end(places).await;
}

/// The rules alone of a configuration.
fn rules(text: &str) -> Vec<ConflictRule> {
    let text = format!("cluster = \"test\"\nregion = \"eu\"\ndata_dir = \"/nowhere\"\n{text}");
    Settings::parse(&text, std::path::Path::new("/"), FileChecks::Skip).unwrap().conflicts
}

fn reload(place: &Place, text: &str) -> bool {
    let region = place.region();
    region.change(&Settings { conflicts: rules(text), ..region.settings().clone() }).unwrap()
}

/// What links do: every region hears of all policies.
fn tell_policies(places: &[Place]) {
    for place in places {
        let region = place.region();
        let others = places.iter().map(Place::region).filter(|other| !std::ptr::eq(&**other, &*region));
        let others = others.map(|other| (*other.policies().own()).clone()).collect();
        region.policies().set_others(others, region.keyspace().policies());
    }
}

fn rule(policy: &str) -> String {
    format!("[[conflicts]]\nkeys = \"p*\"\npolicy = {policy}\n")
}

#[tokio::test]
async fn policies_change_while_regions_write_and_all_show_the_same_at_every_moment() {
    let places: Vec<Place> = ["eu", "us", "ap"].iter().map(|name| Place::new(name)).collect();
    let mut dice = SplitMix64::new(7);
    for policy in
        ["\"lww\"", "\"crdt\"", "\"hook\"\nhook = \"concat-unique-lines\"", "\"lww\"", "\"multi-value\""]
    {
        for place in &places {
            assert!(reload(place, &rule(policy)));
            assert!(!reload(place, &rule(policy)), "it is in force");
            tell_policies(&places);
            let in_force = |place: &Place| place.region().keyspace().policies().current().table().digest();
            assert!(places.iter().all(|place| in_force(place) == in_force(&places[0])));
            for _ in 0..60 {
                let at = &places[dice.between(0, 2) as usize];
                let (key, n) = (dice.between(0, 3), dice.between(0, 9));
                at.ask(
                    0,
                    &match dice.between(0, 7) {
                        0 => format!("SET p{key} {n}"),
                        1 => format!("INCRBY n{key} {n}"),
                        2 => format!("HSET ph{key} f{n} {n}"),
                        3 => format!("HDEL ph{key} f{n}"),
                        4 => format!("SADD ps{key} {n}"),
                        5 => format!("DEL p{key} ph{key} ps{key}"),
                        6 => format!("SET p{key} {n} PXAT 4000000000000"),
                        _ => format!("HINCRBY ph{key} c {n}"),
                    },
                );
            }
            meet(&places).await;
        }
        let in_force = places[0].region().keyspace().policies().current();
        assert_eq!(in_force.table(), &*places[0].region().policies().own());
    }
    end(places).await;
}

#[tokio::test]
async fn the_version_rises_with_every_change_and_stays_over_restarts() {
    let mut place = Place::new("eu");
    let version = |place: &Place| place.region().policies().own().version();
    assert_eq!(version(&place), 0);
    reload(&place, &rule("\"lww\""));
    reload(&place, &rule("\"crdt\""));
    assert_eq!(version(&place), 2);
    // The file it starts from says nothing of policies.
    place.crash();
    assert_eq!((version(&place), place.region().policies().own().rules().len()), (3, 0));
    place.crash();
    assert_eq!(version(&place), 3);
    place.stop();
}

#[tokio::test]
async fn a_hook_that_a_region_does_not_have_shows_the_greatest_stamp() {
    let places = places(&["eu", "us"]);
    for (place, value) in in_turn(&places, &["9", "3"]) {
        place.ask(0, &format!("SET max:k {value}"));
    }
    meet(&places).await;
    assert_eq!(all(&places, "GET max:k"), bulk("9"));
    let table = (*places[0].region().policies().own()).clone();
    for place in &places {
        place.region().keyspace().policies().enforce(
            table.clone(),
            Default::default(),
            Default::default(),
            Default::default(),
        );
    }
    assert_eq!(all(&places, "GET max:k"), bulk("3"));
    end(places).await;
}

#[tokio::test]
async fn h1_a_hook_that_fails_shows_the_greatest_stamp_and_is_counted() {
    let directory = TempDir::new().unwrap();
    let places: Vec<Place> = ["eu", "us"].iter().map(|name| Place::new(name)).collect();
    let module = |name: &str, body: &str| {
        let path = directory.path().join(name);
        let text = format!(
            "(module (memory (export \"memory\") 1)
               (func (export \"alloc\") (param i32) (result i32) (i32.const 1024))
               (func (export \"merge\") (param i32) (param i32) (result i64) {body}))"
        );
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let hooks = [
        ("fuel", module("loops.wat", "(loop $again (br $again)) (i64.const 0)")),
        ("trap", module("traps.wat", "unreachable")),
        ("output_too_big", module("tells.wat", "(i64.const 2147483647)")),
    ];
    for (reason, path) in hooks {
        let name = path.rsplit('/').next().unwrap();
        let text = rule(&format!("\"hook\"\nhook = \"{path}\""));
        places.iter().for_each(|place| assert!(reload(place, &text)));
        tell_policies(&places);
        for (place, value) in in_turn(&places, &["1", "2"]) {
            place.ask(0, &format!("SET p:{reason} {value}"));
        }
        meet(&places).await;
        assert_eq!(all(&places, &format!("GET p:{reason}")), bulk("2"));
        for place in &places {
            let failed = place.region().metrics().hooks.failures.with_label_values(&[name, reason]).get();
            assert!(failed > 0, "{reason}");
        }
    }
    end(places).await;
}

#[test]
fn without_policies_there_is_nothing_to_look_up() {
    assert!(Policies::default().active().is_none());
}
