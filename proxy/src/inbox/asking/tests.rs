//! Regions without links, cut apart and brought together: what records say of hooks and shadows.

use super::*;
use crate::inbox::page::{Filter, list};
use crate::region::Region;
use crate::region::wall_now;
use crate::replication::seed::tests::{Place as Home, exchange};
use crate::resp::Value;

const RULES: &str = r#"
[[conflicts]]
keys = "max:*"
policy = "hook"
hook = "max"
[[conflicts]]
keys = "json:*"
policy = "hook"
hook = "json-merge"
[[conflicts]]
keys = "tried:*"
policy = "crdt"
shadow = { policy = "hook", hook = "max" }
[[conflicts]]
keys = "whole:*"
policy = "crdt"
shadow = { policy = "lww" }
[[conflicts]]
keys = "plain:*"
policy = "hook"
hook = "max"
shadow = { policy = "multi-value" }
[[conflicts]]
keys = "l:*"
policy = "lww"
shadow = { policy = "hook", hook = "max" }
"#;

fn places() -> [Home; 2] {
    ["eu", "us"].map(|name| Home::with(name, RULES))
}

/// One writes after the other, neither having seen it.
fn write(places: &[Home; 2], lines: [&str; 2]) {
    for (place, line) in places.iter().zip(lines) {
        let before = wall_now();
        while wall_now() == before {
            std::hint::spin_loop();
        }
        assert!(!matches!(place.ask(0, line), Value::Error(_)), "{line}");
    }
}

async fn meet(places: &[Home; 2]) {
    exchange(&places[0].region(), &places[1].region()).await;
    for place in places {
        place.region().inbox().settle().await;
    }
}

fn records(region: &Region, key: &str) -> Vec<Record> {
    let filter = Filter { key: Some(key.into()), ..Filter::default() };
    list(region.inbox().shelf(), &filter, None, 9).unwrap().records
}

/// The rule, the outcome, and what showed, of the key's one record; the same in both regions but for the side.
fn told(places: &[Home; 2], key: &str) -> (String, String, Written) {
    let of = |place: &Home| {
        let records = records(&place.region(), key);
        assert_eq!(records.len(), 1, "{key}");
        let Record { rule, outcome, shown, .. } = records[0].clone();
        let side = if ["local", "remote"].contains(&&*outcome) { "a side".into() } else { outcome };
        (rule, side, shown)
    };
    let told = of(&places[0]);
    assert_eq!(of(&places[1]), told, "{key}");
    told
}

fn text(text: &str) -> Written {
    written(Some(text.into()))
}

fn strings(rule: &str, outcome: &str, shown: Written) -> (String, String, Written) {
    (rule.into(), outcome.into(), shown)
}

#[tokio::test]
async fn h1_records_say_what_the_hook_made_of_the_values_or_that_it_failed() {
    let places = places();
    write(&places, ["SET max:k 20", "SET max:k 3"]);
    write(&places, ["HSET max:h f 20", "HSET max:h f 3"]);
    write(&places, ["SET json:bad no", "SET json:bad neither"]);
    write(&places, ["SADD max:s a", "SET max:s b"]);
    let large = ["1", "2"].map(|digit| format!("SET max:large {}", digit.repeat(QUESTION_BYTES)));
    write(&places, large.each_ref().map(String::as_str));
    meet(&places).await;
    assert_eq!(told(&places, "max:k"), strings("hook:max", "merged", text("20")));
    assert_eq!(told(&places, "max:h"), strings("hook:max", "merged", text("20")));
    assert_eq!(told(&places, "json:bad"), strings("fallback", "a side", text("neither")));
    let (rule, outcome, shown) = told(&places, "max:large");
    assert_eq!((rule.as_str(), outcome.as_str()), ("hook:max", UNASKED));
    assert!(matches!(shown, Written::Large { .. }));
    assert_eq!(told(&places, "max:s").0, "lww", "hooks do not settle types");
    // Counters are of the moment when the conflict was met.
    let counted = places[0].region().metrics().conflicts.by_label();
    let rules: Vec<&str> = counted.iter().map(|(labels, _)| &*labels[1]).collect();
    assert!(rules.contains(&"hook:json-merge") && !rules.contains(&"fallback"), "{rules:?}");
    places.into_iter().for_each(Home::stop);
}

#[tokio::test]
async fn h1_a_confined_hook_falls_back_at_once_and_is_asked_again_once_released() {
    use meridian_conflict::clock::RegionId;
    use meridian_conflict::hook::quarantine::Reason;
    let places = places();
    write(&places, ["SET max:k 20", "SET max:k 3"]);
    meet(&places).await;
    let region = places[0].region();
    let policies = region.keyspace().policies();
    let shows = |value: &str| {
        assert_eq!(places[0].ask(0, "GET max:k"), Value::Bulk(value.as_bytes().to_vec()));
        region.keyspace().peek(&crate::keyspace::KeyRef::new(0, b"max:k"), |object| {
            let shown = object.unwrap().string().unwrap().shown().unwrap().into_owned();
            assert_eq!(shown, value.as_bytes(), "a walk shows the same");
        })
    };
    shows("20").unwrap();
    let Policy::Hook(id) = policies.current().policy(b"max:k").clone() else { panic!() };
    let mut set = (*region.policies().quarantine()).clone();
    let both = [(RegionId(1), 1), (RegionId(2), 2)];
    assert!(set.confine(id.identity, 0, Reason::new(1, (0, b"max:k", &Subject::String), 1, both)));
    let members = region.membership();
    let names = |id| members.name_of(id);
    region.policies().learn(set.entries(), policies, &names);
    shows("3").unwrap();
    let labels = [&*id.name, "quarantined"];
    assert!(region.metrics().hooks.failures.with_label_values(&labels).get() > 0);
    let calls = region.metrics().hooks.calls.with_label_values(&["max"]).get();
    write(&places, ["SET max:other 20", "SET max:other 3"]);
    meet(&places).await;
    assert_eq!(records(&region, "max:other")[0].rule, "fallback");
    assert_eq!(region.metrics().hooks.calls.with_label_values(&["max"]).get(), calls);
    assert!(region.policies().release("min", policies, &names).is_empty());
    assert_eq!(region.policies().release("max", policies, &names), [id]);
    shows("20").unwrap();
    places.into_iter().for_each(Home::stop);
}

#[tokio::test]
async fn a_shadow_tells_what_it_would_have_shown_and_changes_nothing() {
    let places = places();
    let digests = places.each_ref().map(|place| place.region().policies().own().digest());
    assert_eq!(digests[0], digests[1]);
    write(&places, ["SET tried:differs 20", "SET tried:differs 3"]);
    write(&places, ["SET tried:same 3", "SET tried:same 20"]);
    write(&places, ["HSET tried:h f 20", "HSET tried:h f 3"]);
    write(&places, ["HSET whole:h f 1", "HSET whole:h f 2 g 3"]);
    write(&places, ["SET plain:k 20", "SET plain:k 3"]);
    write(&places, ["SET l:k 20", "SET l:k 3"]);
    write(&places, ["HSET l:h f 1", "HSET l:h f 2"]);
    meet(&places).await;
    for place in &places {
        let region = place.region();
        let shadow = |key: &str| records(&region, key)[0].shadow.clone();
        let would = |key: &str| shadow(key).map(|shadow| (shadow.rule, shadow.shown));
        assert_eq!(would("tried:differs"), Some(("hook:max".into(), text("20"))));
        assert_eq!(would("tried:same"), None);
        assert_eq!(would("tried:h"), Some(("hook:max".into(), text("20"))));
        assert_eq!(would("whole:h"), None, "of the field both show the newest");
        assert_eq!(would("plain:k"), Some(("multi-value".into(), text("3"))));
        assert_eq!(would("l:k"), Some(("hook:max".into(), text("20"))));
        assert_eq!(would("l:h"), None);
        assert_eq!(place.ask(0, "GET tried:differs"), Value::Bulk(b"3".to_vec()), "without effect");
        let metrics = region.metrics();
        let of =
            |counts: &prometheus::IntCounterVec, labels: [&str; 2]| counts.with_label_values(&labels).get();
        let counts = |labels| {
            [
                &metrics.conflicts.shadow_evaluated,
                &metrics.conflicts.shadow_differs,
                &metrics.conflicts.shadow_unknown,
            ]
            .map(|c| of(c, labels))
        };
        assert_eq!(counts(["crdt", "hook:max"]), [3, 2, 0]);
        assert_eq!(counts(["crdt", "lww"]), [1, 0, 0]);
        assert_eq!(counts(["hook", "multi-value"]), [1, 1, 0]);
        assert_eq!(counts(["lww", "hook:max"]), [1, 1, 1], "whole hashes cannot be told");
        let filter = Filter { shadow_differs: true, ..Filter::default() };
        assert_eq!(list(region.inbox().shelf(), &filter, None, 9).unwrap().records.len(), 4);
    }
    places.into_iter().for_each(Home::stop);
}

#[tokio::test]
async fn a_shadow_can_be_changed_while_the_region_runs_and_is_no_change_of_policies() {
    let place = Home::with("eu", RULES);
    let region = place.region();
    let (version, digest) = (region.policies().own().version(), region.policies().own().digest());
    let mut new = region.settings().clone();
    assert!(!region.change(&new).unwrap());
    new.conflicts.iter_mut().for_each(|rule| rule.shadow = None);
    assert!(region.change(&new).unwrap());
    assert!(!region.change(&new).unwrap());
    let active = region.keyspace().policies().current();
    assert!(active.shadows().is_empty());
    let own = region.policies().own();
    assert_eq!((own.version(), own.digest()), (version, digest));
    place.stop();
}

#[test]
fn hooks_get_a_share_of_the_time() {
    let mut allowance = Allowance::default();
    assert!(allowance.is_left());
    allowance.left = -1.0;
    assert!(!allowance.is_left());
    let long_ago = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
    allowance.filled = long_ago;
    assert!(allowance.is_left(), "a quarter of five seconds");
    assert!(allowance.left <= SAVED.as_secs_f64());
    assert_eq!(allowance.spend(|| 7), 7);
}
