//! Transactions and watches.

use crate::command::testing::Lab;
use crate::resp::Value;

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

#[test]
fn a_transaction_sees_its_own_effects_and_is_one_op() {
    let mut lab = Lab::new();
    let before = lab.region.sequencer().progress().0;
    let lines = ["SET a 1", "INCR a", "DEL a", "INCR a", "INCRBY a 5", "GET a", "HSET h f x", "HGET h f"];
    let replies = lab.transaction(&lines, &[]).unwrap();
    let shown = replies.elements().unwrap();
    assert_eq!(shown[1], Value::Int(2));
    assert_eq!(shown[3], Value::Int(1));
    assert_eq!(shown[5], bulk("6"));
    assert_eq!(shown[7], bulk("x"));
    assert_eq!(lab.region.sequencer().progress().0, before + 1);
    assert_eq!(lab.ask("GET a"), bulk("6"));
}

#[test]
fn an_error_inside_a_transaction_spares_the_rest() {
    let mut lab = Lab::new();
    lab.ask("SET s text");
    let replies = lab.transaction(&["SET a 1", "INCR s", "SET b 2"], &[]).unwrap();
    assert!(replies.elements().unwrap()[1].is_error());
    assert_eq!(lab.ask("GET a"), bulk("1"));
    assert_eq!(lab.ask("GET b"), bulk("2"));
}

#[test]
fn a_transaction_that_only_reads_takes_no_number() {
    let mut lab = Lab::new();
    lab.ask("SET a 1");
    let before = lab.region.sequencer().progress().0;
    lab.transaction(&["GET a", "EXISTS b"], &[]).unwrap();
    assert_eq!(lab.region.sequencer().progress().0, before);
}

#[test]
fn a_watched_key_that_changed_stops_the_transaction() {
    let mut lab = Lab::new();
    lab.ask("SET a 1");
    let watched = lab.watch(&["a", "absent"]);
    assert!(lab.transaction(&["SET b 1"], &watched).is_some());
    lab.ask("SET a 2");
    assert!(lab.transaction(&["SET b 2"], &watched).is_none());
    assert_eq!(lab.ask("GET b"), bulk("1"));
    let watched = lab.watch(&["absent"]);
    lab.ask("SET absent 1");
    assert!(lab.transaction(&["SET b 3"], &watched).is_none());
}

#[test]
fn a_key_that_came_and_went_while_watched_stops_the_transaction() {
    let mut lab = Lab::new();
    let watched = lab.watch(&["a"]);
    lab.ask("SET a 1");
    lab.ask("DEL a");
    assert!(lab.transaction(&["SET b 1"], &watched).is_none());
}

#[test]
fn q3_an_op_larger_than_the_limit_is_refused_and_changes_nothing() {
    let mut lab = Lab::new();
    let large = vec![b'x'; lab.region.max_op() / 4 * 3];
    let before = lab.region.sequencer().progress().0;
    let raw = lab.raw(&[b"MSET", b"a", &large, b"b", &large]);
    assert!(raw.starts_with(b"-ERR the write is larger than limits.max_op"), "{:?}", &raw[..60]);
    assert_eq!(lab.region.sequencer().progress().0, before);
    assert!(lab.ask("GET a").is_null());
}
