use proptest::prelude::*;

use super::*;

fn hook(name: &str, identity: u8) -> HookId {
    HookId { name: name.into(), identity: [identity; 32] }
}

fn rule(keys: &str, policy: Policy) -> PolicyRule {
    PolicyRule { keys: keys.as_bytes().into(), policy }
}

fn table(version: u64, rules: &[(&str, Policy)]) -> PolicyTable {
    PolicyTable::new(version, rules.iter().map(|(k, p)| rule(k, p.clone())).collect()).unwrap()
}

#[test]
fn the_first_match_decides_and_crdt_where_none_does() {
    let max = Policy::Hook(hook("max", 1));
    let table = table(1, &[("user:*:name", Policy::Lww), ("user:*", max.clone()), ("*", Policy::MultiValue)]);
    assert_eq!(*table.policy(b"user:1:name"), Policy::Lww);
    assert_eq!(*table.policy(b"user:1"), max);
    assert_eq!(*table.policy(b"other"), Policy::MultiValue);
    assert_eq!(*PolicyTable::default().policy(b"other"), Policy::Crdt);
}

#[test]
fn names_parse_and_nothing_else() {
    for name in ["crdt", "lww", "multi-value"] {
        assert_eq!(Policy::parse(name, None).unwrap().name(), name);
        assert_eq!(Policy::parse(name, Some(hook("max", 1))), Err(PolicyProblem::HookUnused));
    }
    assert_eq!(Policy::parse("hook", Some(hook("max", 1))).unwrap().name(), "hook");
    assert_eq!(Policy::parse("hook", None), Err(PolicyProblem::HookMissing));
    assert_eq!(Policy::parse("hook", Some(hook("", 1))), Err(PolicyProblem::HookMissing));
    let long = "h".repeat(MAX_HOOK_NAME_BYTES + 1);
    let too_long = PolicyProblem::HookNameTooLong { bytes: long.len() };
    assert_eq!(Policy::parse("hook", Some(hook(&long, 1))), Err(too_long));
    assert_eq!(Policy::parse("LWW", None), Err(PolicyProblem::Unknown { name: "LWW".into() }));
}

#[test]
fn every_wrong_rule_is_told() {
    let long = "k".repeat(MAX_PATTERN_BYTES + 1);
    let rules = vec![rule("", Policy::Crdt), rule("k", Policy::Lww), rule(&long, Policy::Lww)];
    let Err(PolicyError::Rules(problems)) = PolicyTable::new(1, rules) else { panic!("accepted") };
    let expected =
        [(0, PolicyProblem::PatternEmpty), (2, PolicyProblem::PatternTooLong { bytes: long.len() })];
    assert_eq!(problems, expected);
    let many = vec![rule("k", Policy::Lww); MAX_RULES + 1];
    assert_eq!(PolicyTable::new(1, many), Err(PolicyError::TooManyRules { rules: MAX_RULES + 1 }));
}

#[test]
fn a_digest_is_of_rules_order_and_hooks_and_of_no_version() {
    let a = || ("a*", Policy::Lww);
    let b = |identity| ("b*", Policy::Hook(hook("m.wasm", identity)));
    let first = table(1, &[a(), b(1)]);
    assert_eq!(first.digest(), table(9, &[a(), b(1)]).digest());
    for other in [table(1, &[b(1), a()]), table(1, &[a(), b(2)]), table(1, &[a()]), PolicyTable::default()] {
        assert_ne!(first.digest(), other.digest());
    }
}

#[test]
fn all_regions_choose_the_same_table_whatever_the_order_they_heard_of_them() {
    let tables = [
        table(3, &[("a", Policy::Lww)]),
        table(2, &[("a", Policy::MultiValue)]),
        table(2, &[("b", Policy::Lww)]),
    ];
    let chosen = PolicyTable::in_force(&tables).unwrap();
    assert_eq!(chosen.version(), 2);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        assert_eq!(PolicyTable::in_force(order.map(|at| &tables[at])), Some(chosen));
    }
    assert_eq!(PolicyTable::in_force([]), None);
}

#[test]
fn a_table_keeps_its_form() {
    let table = table(300, &[("a*", Policy::Crdt), ("b", Policy::Lww), ("c", Policy::Hook(hook("max", 7)))]);
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    let expected: Vec<u8> =
        [&[1, 0xac, 2, 3, 2, b'a', b'*', 0, 1, b'b', 1, 1, b'c', 3, 3][..], b"max", &[7; 32]].concat();
    assert_eq!(bytes, expected);
    assert_eq!(PolicyTable::decode(&bytes).unwrap(), table);
    assert_eq!(PolicyTable::decode(&[]), Err(PolicyError::Malformed));
    assert_eq!(PolicyTable::decode(&[&bytes[..], &[0]].concat()), Err(PolicyError::Malformed));
    bytes[0] = 2;
    assert_eq!(PolicyTable::decode(&bytes), Err(PolicyError::Malformed));
}

#[test]
fn a_declared_length_of_rules_allocates_nothing() {
    let huge = [1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(PolicyTable::decode(&huge), Err(PolicyError::Malformed));
}

proptest! {
    #[test]
    fn any_table_comes_back_and_any_bytes_are_survived(
        version: u64, rules in proptest::collection::vec(("[ab*?]{1,5}", 0u8..4, "[a-z]{1,9}"), 0..6), junk: Vec<u8>,
    ) {
        let policy = |kind, name: &str| match kind {
            0 => Policy::Crdt,
            1 => Policy::Lww,
            2 => Policy::MultiValue,
            _ => Policy::Hook(hook(name, 3)),
        };
        let rules = rules.iter().map(|(keys, kind, name)| rule(keys, policy(*kind, name))).collect();
        let table = PolicyTable::new(version, rules).unwrap();
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        prop_assert_eq!(PolicyTable::decode(&bytes).unwrap(), table);
        let _ = PolicyTable::decode(&junk);
        bytes.truncate(junk.len() % (bytes.len() + 1));
        let _ = PolicyTable::decode(&bytes);
    }
}
