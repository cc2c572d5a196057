//! Writing losers back.

use super::*;

#[tokio::test]
async fn losers_are_written_back_once_and_everywhere() {
    let (a, b) = quarrel("").await;
    let region = a.region();
    let of_key = |key: &str| {
        let found = region.inbox().last_of(0, key.as_bytes()).unwrap();
        found.unwrap_or_else(|| panic!("no conflict on {key}"))
    };
    for key in ["k", "h", "z", "t", "gone", "s"] {
        assert_eq!(undo(&region, of_key(key).id), ok(), "{key}");
        assert!(is_error(&undo(&region, of_key(key).id), "ERR this conflict's loser was already restored"));
        assert!(of_key(key).restored_ms.is_some());
    }
    assert_eq!(region.metrics().conflicts.restored.get(), 6);
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        assert_eq!(place.ask(0, "GET k"), bulk("first"));
        assert_eq!(place.ask(0, "HGET h f"), bulk("x"));
        assert_eq!(place.ask(0, "ZSCORE z m"), bulk("1"));
        assert_eq!(place.ask(0, "GET t"), bulk("text"));
        assert_eq!(place.ask(0, "EXISTS gone"), Value::Int(0));
        assert_eq!(place.ask(0, "SCARD s"), Value::Int(0));
    }
    assert_eq!(
        region.metrics().conflicts.total(),
        everything(&region).len() as u64,
        "they had seen all there is"
    );
    let reply = undo(&region, 5);
    assert!(is_error(&reply, "ERR no such conflict"), "{reply:?}");
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_type_comes_back_as_a_whole_with_the_keys_deadline() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    a.ask(0, "SADD c m n");
    tick(&a.region());
    b.ask(0, "SET c text PX 99999999");
    exchange(&a.region(), &b.region()).await;
    b.region().inbox().settle().await;
    let record = b.region().inbox().last_of(0, b"c").unwrap().unwrap();
    assert_eq!(record.kind, "type_clash");
    assert_eq!(b.ask(0, "TYPE c"), Value::Simple(b"string".to_vec()));
    assert_eq!(undo(&b.region(), record.id), ok());
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        assert_eq!(place.ask(0, "SCARD c"), Value::Int(2));
        assert!(matches!(place.ask(0, "PTTL c"), Value::Int(left) if left > 0));
    }
    a.stop();
    b.stop();
}

#[tokio::test]
async fn what_was_not_recorded_whole_is_not_written_back() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    let large = "x".repeat(VALUE_MAX + 1);
    a.ask(0, &format!("SET k {large}"));
    tick(&a.region());
    b.ask(0, "SET k small");
    exchange(&a.region(), &b.region()).await;
    a.region().inbox().settle().await;
    let record = a.region().inbox().last_of(0, b"k").unwrap().unwrap();
    let reply = undo(&a.region(), record.id);
    assert!(is_error(&reply, "ERR the loser was too large"), "{reply:?}");
    assert_eq!(a.ask(0, "GET k"), bulk("small"));
    a.stop();
    b.stop();
}
