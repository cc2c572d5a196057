use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::builtin::{BuiltIn, Kind};
use super::court::{Law, generated, of_samples, try_hook};
use super::*;
use crate::clock::{Dot, Hlc, Origin};

fn stamp(n: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n % 3 + 1), n) }
}

fn siblings<'a>(values: &[&'a [u8]]) -> Vec<Sibling<'a>> {
    values.iter().zip(1..).map(|(value, n)| Sibling { stamp: stamp(n), value }).collect()
}

fn merged(kind: Kind, values: &[&str]) -> Result<String, Failure> {
    let values: Vec<&[u8]> = values.iter().map(|v| v.as_bytes()).collect();
    let call = Call { key: b"k", field: None, siblings: &siblings(&values) };
    BuiltIn::new(kind).merge(&call).map(|v| String::from_utf8(v).unwrap())
}

#[track_caller]
fn gives(kind: Kind, values: &[&str], expected: &str) {
    assert_eq!(merged(kind, values).unwrap(), expected, "{values:?}");
}

type HashMerge = fn(&HashCall<'_>) -> Result<MergedHash, Failure>;

/// A hook made of a function.
struct Own<F> {
    id: HookId,
    merge: F,
    hash: Option<HashMerge>,
}

fn own<F: Fn(&Call<'_>) -> Result<Vec<u8>, Failure> + Send + Sync>(merge: F) -> Own<F> {
    Own { id: HookId { name: "own".into(), identity: [1; 32] }, merge, hash: None }
}

impl<F: Fn(&Call<'_>) -> Result<Vec<u8>, Failure> + Send + Sync> MergeHook for Own<F> {
    fn id(&self) -> &HookId {
        &self.id
    }

    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        (self.merge)(call)
    }

    fn merges_hashes(&self) -> bool {
        self.hash.is_some()
    }

    fn merge_hash(&self, call: &HashCall<'_>) -> Result<MergedHash, Failure> {
        self.hash.map_or(Err(Failure::BadExport), |merge| merge(call))
    }
}

#[test]
fn max_and_min_are_of_numbers_where_all_are_numbers_else_bytewise() {
    gives(Kind::Max, &["9", "10"], "10");
    gives(Kind::Min, &["9", "10"], "9");
    gives(Kind::Max, &["9", "10", "x"], "x");
    gives(Kind::Min, &["9", "10", "x"], "10");
    gives(Kind::Max, &["-3", "-20"], "-3");
    gives(Kind::Min, &["1e-30", "2e-30"], "1e-30");
    gives(Kind::Max, &["9223372036854775807", "9223372036854775808"], "9223372036854775808");
    gives(Kind::Max, &["b", "abc"], "b");
    gives(Kind::Min, &["", "a"], "");
    // Equal numbers written differently: the newest.
    gives(Kind::Max, &["1.0", "1"], "1");
    gives(Kind::Min, &["1", "1.0"], "1.0");
}

#[test]
fn longest_is_the_longest_and_of_equals_the_newest() {
    gives(Kind::Longest, &["abc", "de"], "abc");
    gives(Kind::Longest, &["abc", "def", "gh"], "def");
    gives(Kind::Longest, &["", ""], "");
}

#[test]
fn lines_stand_once_in_stamp_order() {
    gives(Kind::ConcatUniqueLines, &["a\nb\n", "b\nc\n"], "a\nb\nc\n");
    gives(Kind::ConcatUniqueLines, &["a\nb", "c\na"], "a\nb\nc");
    gives(Kind::ConcatUniqueLines, &["a\n", "b"], "a\nb");
    gives(Kind::ConcatUniqueLines, &["a", ""], "a");
    gives(Kind::ConcatUniqueLines, &["", ""], "");
    gives(Kind::ConcatUniqueLines, &["a\n\nb\n", "\n"], "a\n\nb\n");
}

#[test]
fn json_is_merged_by_path() {
    let json = |values: &[&str], expected| gives(Kind::JsonMerge, values, expected);
    json(&[r#"{"a":1,"b":{"x":1}}"#, r#"{"b":{"y":2},"c":3}"#], r#"{"a":1,"b":{"x":1,"y":2},"c":3}"#);
    json(&[r#"{"a":[1,2]}"#, r#"{"a":[3]}"#], r#"{"a":[3]}"#);
    json(&[r#"{"a":{"x":1}}"#, r#"{"a":null}"#], r#"{"a":null}"#);
    json(&[r#"{"a":1}"#, r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#], r#"{"a":{"x":1,"y":2}}"#);
    json(&["[1]", "2"], "2");
    // No digit and no escape is lost; names are compared by meaning.
    json(&["{\"n\":1.10000000000000000000000001e400}", " { } "], "{\"n\":1.10000000000000000000000001e400}");
    json(&["{\"a\":1}", r#"{"\u0061":2}"#], r#"{"a":2}"#);
    json(&[r#"{"\ud83d\ude00":1}"#, "{\"\u{1f600}\":2}"], r#"{"\ud83d\ude00":2}"#);
    json(&[r#"{"a":1,"a":2}"#, "{}"], r#"{"a":2}"#);
}

#[test]
fn what_is_not_json_falls_back_to_the_greatest_stamp() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let long_ago = "[".repeat(1 << 20);
    for bad in [
        "",
        "{",
        "{]",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "01",
        "1.",
        "+1",
        "1e",
        "nul",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "{} {}",
        "{a:1}",
        deep.as_str(),
        long_ago.as_str(),
    ] {
        assert_eq!(merged(Kind::JsonMerge, &["{}", bad]), Err(Failure::Declined), "{bad:.40}");
        let values = [bad.as_bytes(), b"{}"];
        let shown = merge(&BuiltIn::new(Kind::JsonMerge), b"k", None, &siblings(&values)).unwrap();
        assert_eq!((&*shown.value, shown.decided), (&b"{}"[..], Decided::Fallback(Failure::Declined)));
    }
}

#[test]
fn a_sole_value_is_shown_without_asking_the_hook() {
    let never = own(|_| panic!("asked"));
    let shown = merge(&never, b"k", None, &siblings(&[b"v"])).unwrap();
    assert_eq!((&*shown.value, shown.decided), (&b"v"[..], Decided::Sole));
    assert_eq!(merge(&never, b"k", None, &[]), None);
}

#[test]
fn built_in_hooks_are_known_by_name_and_told_apart() {
    for kind in Kind::ALL {
        assert_eq!(BuiltIn::named(kind.name()).unwrap().id(), BuiltIn::new(kind).id());
    }
    assert!(BuiltIn::named("most").is_none());
    let identities: std::collections::BTreeSet<_> =
        Kind::ALL.iter().map(|kind| BuiltIn::new(*kind).id().identity).collect();
    assert_eq!(identities.len(), Kind::ALL.len());
}

fn fields<'a>(all: &[(&'a str, &[&'a str])]) -> Vec<FieldSiblings<'a>> {
    all.iter()
        .map(|(field, values)| {
            let values: Vec<&[u8]> = values.iter().map(|v| v.as_bytes()).collect();
            FieldSiblings { field: field.as_bytes(), siblings: siblings(&values) }
        })
        .collect()
}

fn with_hash(hash: HashMerge) -> impl MergeHook {
    Own { hash: Some(hash), ..own(|_| Err(Failure::Declined)) }
}

fn pair(field: &str, value: &str) -> (Box<[u8]>, Box<[u8]>) {
    (field.as_bytes().into(), value.as_bytes().into())
}

#[test]
fn a_whole_hash_is_merged_at_once_and_fields_may_be_left_out_but_not_invented() {
    let conflict = || fields(&[("qty", &["1", "3"]), ("gone", &["x"])]);
    let first_only = with_hash(|call| {
        let field = call.fields.last().ok_or(Failure::Declined)?;
        Ok(vec![(field.field.into(), field.siblings[0].value.into())])
    });
    let shown = merge_hash(&first_only, b"k", conflict());
    assert_eq!((shown.value, shown.decided), (vec![pair("qty", "1")], Decided::Hook));
    let newest = vec![pair("gone", "x"), pair("qty", "3")];
    let inventor = with_hash(|_| Ok(vec![pair("new", "1")]));
    let stutterer = with_hash(|_| Ok(vec![pair("qty", "1"), pair("qty", "2")]));
    for bad in [&inventor as &dyn MergeHook, &stutterer] {
        let shown = merge_hash(bad, b"k", conflict());
        assert_eq!((shown.value, shown.decided), (newest.clone(), Decided::Fallback(Failure::BadOutput)));
    }
    let without = own(|_| Err(Failure::Declined));
    assert_eq!(merge_hash(&without, b"k", conflict()).decided, Decided::Fallback(Failure::BadExport));
    let calm = merge_hash(&inventor, b"k", fields(&[("b", &["1"]), ("a", &["2"]), ("c", &[])]));
    assert_eq!((calm.value, calm.decided), (vec![pair("a", "2"), pair("b", "1")], Decided::Sole));
}

#[test]
fn a_call_keeps_its_form() {
    let values = siblings(&[b"x", b""]);
    let mut bytes = Vec::new();
    abi::encode_call(&Call { key: b"k", field: Some(b"f"), siblings: &values }, &mut bytes);
    let sibling = |n: u64, value: &[u8]| {
        let stamp = stamp(n);
        let numbers = [stamp.dot.actor.0, stamp.hlc.0, stamp.dot.counter].map(u64::to_le_bytes).concat();
        [numbers, (value.len() as u32).to_le_bytes().to_vec(), value.to_vec()].concat()
    };
    let both = [sibling(1, b"x"), sibling(2, b"")].concat();
    assert_eq!(bytes, [&[1, 0, 0, 0, b'k', 1, 0, 0, 0, b'f', 2, 0, 0, 0][..], &both].concat());
    bytes.clear();
    abi::encode_call(&Call { key: b"", field: None, siblings: &[] }, &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.clear();
    let field = FieldSiblings { field: b"f", siblings: values };
    abi::encode_hash_call(&HashCall { key: b"k", fields: &[field] }, &mut bytes);
    let head = [1, 0, 0, 0, b'k', 1, 0, 0, 0, 1, 0, 0, 0, b'f', 2, 0, 0, 0];
    assert_eq!(bytes, [&head[..], &both].concat());
}

#[test]
fn a_merged_hash_decodes_or_is_refused() {
    let good = [1u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
    let good = [&good[..], b"f", &2u32.to_le_bytes(), b"vw"].concat();
    assert_eq!(abi::decode_merged_hash(&good).unwrap(), [pair("f", "vw")]);
    for length in 0..good.len() {
        assert_eq!(abi::decode_merged_hash(&good[..length]), Err(Failure::BadOutput));
    }
    assert_eq!(abi::decode_merged_hash(&[&good[..], b"x"].concat()), Err(Failure::BadOutput));
    assert_eq!(abi::decode_merged_hash(&[0xff; 64]), Err(Failure::BadOutput));
}

#[test]
fn a_fingerprint_tells_questions_and_answers_apart() {
    use crate::hook::fingerprint::{Asker, answer, hash_answer};
    let asker = |hook: &BuiltIn| Asker { hook: hook.id().identity, generation: 0 };
    let max = asker(&BuiltIn::new(Kind::Max));
    let values = siblings(&[b"1", b"2"]);
    let call = Call { key: b"k", field: None, siblings: &values };
    assert_eq!(max.question(&call), max.question(&call));
    assert_ne!(max.question(&call), max.question(&Call { field: Some(b""), ..call }));
    assert_ne!(max.question(&call), asker(&BuiltIn::new(Kind::Min)).question(&call));
    assert_ne!(max.question(&call), Asker { generation: 2, ..max }.question(&call));
    let (yes, no) = (answer(&Ok(b"2".to_vec())), answer(&Err(Failure::Trap)));
    assert_eq!(yes, answer(&Ok(b"2".to_vec())));
    assert_ne!(yes, no);
    assert_ne!(no, answer(&Err(Failure::Fuel)));
    assert_ne!(no, answer(&Ok(b"trap".to_vec())));
    let fields = |a: &[u8], b: &[u8]| hash_answer(&Ok(vec![(Box::from(a), Box::from(b))]));
    assert_ne!(fields(b"ab", b"c"), fields(b"a", b"bc"));
    assert_eq!(hash_answer(&Err(Failure::Trap)), no);
}

/// The laws that a built-in hook breaks, as the court reports them on thousands of cases.
fn broken(kind: Kind) -> Vec<Law> {
    let verdict = try_hook(&BuiltIn::new(kind), &generated(7, 4_000));
    assert!(verdict.is_deterministic());
    assert_eq!(verdict.cases, 4_000);
    verdict.findings.iter().filter(|f| f.broken > 0).map(|f| f.law).collect()
}

#[test]
fn the_built_in_hooks_before_the_court() {
    // Numbers beside text compare bytewise and alone as numbers, so steps matter; equal numbers
    // written differently show as the newest wrote them.
    assert_eq!(broken(Kind::Max), [Law::Symmetric, Law::Associative]);
    assert_eq!(broken(Kind::Min), [Law::Symmetric, Law::Associative]);
    assert_eq!(broken(Kind::Longest), [Law::Symmetric]);
    // Idempotent but for lines that one value has twice.
    assert_eq!(broken(Kind::ConcatUniqueLines), [Law::Symmetric, Law::Idempotent]);
    // A scalar between two objects hides the older one, unless the newer two are merged first.
    assert_eq!(broken(Kind::JsonMerge), [Law::Symmetric, Law::Associative]);
}

#[test]
fn the_court_shows_the_smallest_counterexample() {
    let concat = own(|call| Ok(call.siblings.iter().flat_map(|s| s.value).copied().collect()));
    let verdict = try_hook(&concat, &generated(1, 2_000));
    assert!(verdict.is_deterministic());
    assert_eq!(verdict.finding(Law::Associative).unwrap().broken, 0);
    let idempotent = verdict.finding(Law::Idempotent).unwrap().smallest.clone().unwrap();
    assert_eq!(idempotent.siblings.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    let symmetric = verdict.finding(Law::Symmetric).unwrap().smallest.clone().unwrap();
    assert_eq!(symmetric.siblings.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert_ne!(symmetric.one, symmetric.other);
}

#[test]
fn the_court_finds_a_hook_that_remembers_and_one_that_draws_lots() {
    let calls = AtomicU64::new(0);
    let lots = own(|_| Ok(vec![calls.fetch_add(1, Ordering::Relaxed) as u8 % 3]));
    assert!(!try_hook(&lots, &generated(1, 10)).is_deterministic());
    let last = std::sync::Mutex::new(Vec::new());
    let remembers = own(|call| {
        let newest = call.siblings.last().map(|s| s.value.to_vec()).unwrap_or_default();
        let before = std::mem::replace(&mut *last.lock().unwrap(), newest.clone());
        // The same question twice in a row has the same answer; after another question it has not.
        Ok(if before == newest { newest } else { [newest, b"!".to_vec()].concat() })
    });
    assert!(!try_hook(&remembers, &generated(1, 50)).is_deterministic());
}

#[test]
fn the_court_counts_failures_and_takes_samples() {
    let declines = own(|_| Err(Failure::Trap));
    let cases = of_samples(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    assert_eq!(cases.len(), 6 * 2 + 2);
    let verdict = try_hook(&declines, &cases);
    assert!(verdict.is_deterministic());
    assert_eq!(verdict.failures, [(Failure::Trap, cases.len())]);
    assert_eq!(generated(5, 20), generated(5, 20));
    assert_ne!(generated(5, 20), generated(6, 20));
}

proptest! {
    #[test]
    fn json_of_any_bytes_is_survived_and_what_is_merged_is_json(
        left in "[{}\\[\\]\",:a0-9e.\\\\u -]{0,24}", right in any::<Vec<u8>>(),
    ) {
        let hook = BuiltIn::new(Kind::JsonMerge);
        for values in [[left.as_bytes(), &right[..]], [left.as_bytes(), b"{}"], [b"{\"a\":1}", left.as_bytes()]] {
            let call = Call { key: b"k", field: None, siblings: &siblings(&values) };
            if let Ok(merged) = hook.merge(&call) {
                let again = siblings(&[&merged, &merged]);
                prop_assert_eq!(hook.merge(&Call { siblings: &again, ..call }), Ok(merged.clone()));
            }
        }
    }

    #[test]
    fn every_built_in_hook_shows_something_whatever_the_values(
        values in proptest::collection::vec(any::<Vec<u8>>(), 1..5),
    ) {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        for kind in Kind::ALL {
            let hook = BuiltIn::new(kind);
            let shown = merge(&hook, b"k", None, &siblings(&values)).unwrap();
            prop_assert_eq!(Some(shown), merge(&hook, b"k", None, &siblings(&values)));
        }
    }
}
