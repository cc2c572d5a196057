#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;

use meridian_conflict::clock::{Dot, Hlc, Origin, Stamp};
use meridian_conflict::hook::court::{generated, try_hook};
use meridian_conflict::hook::{
    Call, Decided, Failure, FieldSiblings, HashCall, MergeHook, Sibling, abi, merge,
};

use super::{Limits, LoadError, MAX_MODULE_BYTES, Sandbox};

/// The source of [`CART`], with its own tests.
#[path = "../../../examples/hooks/cart/src/lib.rs"]
mod cart;

/// What `examples/hooks/cart/build` made of it.
const CART: &[u8] = include_bytes!("../../../examples/hooks/cart/cart.wasm");

const FIRST_WRITER: &str = include_str!("../../../examples/hooks/first-writer.wat");

fn stamp(n: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n), n) }
}

fn siblings<'a>(values: &[&'a [u8]]) -> Vec<Sibling<'a>> {
    values.iter().zip(1..).map(|(value, n)| Sibling { stamp: stamp(n), value }).collect()
}

/// A module of one page with these functions; `alloc` gives address 1024.
fn module(functions: &str) -> String {
    format!(
        "(module (memory (export \"memory\") 1)
           (func (export \"alloc\") (param i32) (result i32) (i32.const 1024))
           {functions})"
    )
}

/// A module whose `merge` is this.
fn merging(body: &str) -> String {
    module(&format!("(func (export \"merge\") (param $at i32) (param $bytes i32) (result i64) {body})"))
}

fn load(text: &str) -> Result<Sandbox, LoadError> {
    Sandbox::new("test", text.as_bytes(), Limits::default())
}

fn ask(text: &str) -> Result<Vec<u8>, Failure> {
    ask_with(text, Limits::default(), &[b"a", b"b"])
}

fn ask_with(text: &str, limits: Limits, values: &[&[u8]]) -> Result<Vec<u8>, Failure> {
    let hook = Sandbox::new("test", text.as_bytes(), limits).unwrap();
    hook.merge(&Call { key: b"k", field: None, siblings: &siblings(values) })
}

#[test]
fn the_example_shows_the_first_writer_s_value() {
    assert_eq!(ask_with(FIRST_WRITER, Limits::default(), &[b"old", b"new", b""]).unwrap(), b"old");
    let large = vec![7; 300_000];
    assert_eq!(ask_with(FIRST_WRITER, Limits::default(), &[&large, b"new"]).unwrap(), large);
    let hook = load(FIRST_WRITER).unwrap();
    let values = siblings(&[b"", b"x"]);
    let call = Call { key: b"", field: Some(b"field"), siblings: &values };
    assert_eq!(hook.merge(&call).unwrap(), b"");
    assert!(try_hook(&hook, &generated(3, 300)).is_deterministic());
}

/// Bytes that are more or less a cart: `dice` are its lines.
fn cart_of(dice: &[(u8, u8)]) -> Vec<u8> {
    let line = |(item, quantity): &(u8, u8)| match item % 16 {
        0 => "what?\n".to_owned(),
        item => format!("item-{item} {}\n", u32::from(*quantity) << (item % 9)),
    };
    dice.iter().map(line).collect::<String>().into_bytes()
}

#[test]
fn the_cart_s_module_does_what_its_source_does() {
    let hook = AssertUnwindSafe(Sandbox::new("cart.wasm", CART, Limits::default()).unwrap());
    assert!(hook.merges_values() && hook.merges_hashes());
    bolero::check!().with_type::<Vec<Vec<(u8, u8)>>>().with_iterations(300).for_each(|dice| {
        let values: Vec<Vec<u8>> = dice.iter().map(|dice| cart_of(dice)).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let merged = hook.merge(&Call { key: b"k", field: None, siblings: &siblings(&values) });
        assert_eq!(merged, cart::merge_carts(&values).ok_or(Failure::Declined));

        // What stands last in the lines of a cart as the values of a field.
        let last = |line: &'_ str| line.rsplit(' ').next().unwrap().to_owned();
        let lines = |cart: &&[u8]| std::str::from_utf8(cart).unwrap().lines().map(last).collect::<Vec<_>>();
        let values: Vec<Vec<String>> = values.iter().map(lines).chain([vec!["1".to_owned()]]).collect();
        let names: Vec<String> =
            (1..values.len()).map(|n| format!("{n:04}")).chain(["total".into()]).collect();
        let fields: Vec<(&[u8], Vec<&[u8]>)> = names
            .iter()
            .zip(&values)
            .map(|(name, values)| (name.as_bytes(), values.iter().map(String::as_bytes).collect()))
            .collect();
        let call: Vec<FieldSiblings<'_>> = fields
            .iter()
            .map(|(field, values)| FieldSiblings { field, siblings: siblings(values) })
            .collect();
        let merged = hook.merge_hash(&HashCall { key: b"k", fields: &call });
        let expected = cart::merge_fields(&fields)
            .map(|fields| fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
        assert_eq!(merged, expected.ok_or(Failure::Declined));
    });
}

#[test]
fn a_hook_gets_the_call_as_the_abi_says() {
    // Answers with its whole call.
    let echo = merging(
        "(i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
                 (i64.extend_i32_u (local.get $bytes)))",
    );
    let values = siblings(&[b"a", b"b"]);
    let mut expected = Vec::new();
    abi::encode_call(&Call { key: b"k", field: None, siblings: &values }, &mut expected);
    assert_eq!(ask(&echo).unwrap(), expected);
}

#[test]
fn h1_a_hook_that_loops_runs_out_of_fuel() {
    let looping = merging("(loop $again (br $again)) (i64.const 0)");
    assert_eq!(ask(&looping), Err(Failure::Fuel));
    let hook = load(&looping).unwrap();
    let shown = merge(&hook, b"k", None, &siblings(&[b"a", b"b"])).unwrap();
    assert_eq!((&*shown.value, shown.decided), (&b"b"[..], Decided::Fallback(Failure::Fuel)));
}

#[test]
fn h1_fuel_runs_out_at_the_same_instruction_in_every_call() {
    let hook = load(FIRST_WRITER).unwrap();
    let call = Call { key: b"k", field: None, siblings: &siblings(&[b"a", b"b"]) };
    hook.merge(&call).unwrap();
    // The least fuel with which one region succeeds is the least for another, at its first call.
    let enough = |fuel| {
        let limits = Limits { fuel, fuel_per_byte: 0, ..Limits::default() };
        let hook = Sandbox::new("test", FIRST_WRITER.as_bytes(), limits);
        hook.is_ok_and(|hook| {
            let answers: Vec<_> = (0..3).map(|_| hook.merge(&call)).collect();
            assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
            answers[0].is_ok()
        })
    };
    let least = (0..10_000).find(|fuel| enough(*fuel)).unwrap();
    assert!(!enough(least - 1) && enough(least + 1));
}

#[test]
fn h1_a_hook_that_allocates_meets_its_limit() {
    let greedy = merging("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (i64.const 0)");
    assert_eq!(ask(&greedy), Err(Failure::Memory));
    let large = "(module (memory (export \"memory\") 1000)
        (func (export \"alloc\") (param i32) (result i32) (i32.const 0))
        (func (export \"merge\") (param i32 i32) (result i64) (i64.const 0)))";
    assert!(matches!(load(large), Err(LoadError::Start(Failure::Memory))));
}

#[test]
fn h1_a_hook_that_traps_fails() {
    for body in [
        "unreachable",
        "(drop (i32.div_u (local.get $at) (i32.const 0))) (i64.const 0)",
        "(drop (i32.load (i32.const -4))) (i64.const 0)",
    ] {
        assert_eq!(ask(&merging(body)), Err(Failure::Trap), "{body}");
    }
    let endless = module(
        "(func $merge (export \"merge\") (param i32 i32) (result i64)
           (i64.add (i64.const 1) (call $merge (local.get 0) (local.get 1))))",
    );
    assert_eq!(ask(&endless), Err(Failure::Trap));
}

#[test]
fn h1_a_hook_whose_answer_is_not_there_or_too_large_fails() {
    let answer =
        |at: u64, length: u64| merging(&format!("(i64.const {})", (at << 32 | length).cast_signed()));
    assert_eq!(ask(&answer(0, 65536)).unwrap().len(), 65536);
    assert_eq!(ask(&answer(65536, 0)).unwrap(), b"");
    assert_eq!(ask(&answer(1, 65536)), Err(Failure::BadOutput));
    assert_eq!(ask(&answer(0xffff_fff0, 16)), Err(Failure::BadOutput));
    assert_eq!(ask(&answer(0, (1 << 20) + 1)), Err(Failure::OutputTooBig));
    assert_eq!(ask(&answer(0xffff_ffff, 0xffff_fffe)), Err(Failure::OutputTooBig));
    assert_eq!(ask(&merging("(i64.const -1)")), Err(Failure::Declined));
    let nowhere = "(module (memory (export \"memory\") 1)
        (func (export \"alloc\") (param i32) (result i32) (i32.const -8))
        (func (export \"merge\") (param i32 i32) (result i64) (i64.const 0)))";
    assert_eq!(ask(nowhere), Err(Failure::BadOutput));
}

#[test]
fn siblings_too_large_for_a_hook_are_not_handed_over() {
    let limits = Limits { input: 100, ..Limits::default() };
    assert_eq!(ask_with(FIRST_WRITER, limits, &[&[0; 10], b""]).unwrap(), [0; 10]);
    assert_eq!(ask_with(FIRST_WRITER, limits, &[&[0; 90], b""]), Err(Failure::InputTooBig));
}

#[test]
fn a_call_leaves_nothing_behind_for_the_next() {
    let counting = module(
        "(global $calls (mut i32) (i32.const 0))
         (func (export \"merge\") (param i32 i32) (result i64)
           (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
           (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (global.get $calls)))
           (i64.const 1))",
    );
    let hook = load(&counting).unwrap();
    let call = Call { key: b"k", field: None, siblings: &siblings(&[b"a", b"b"]) };
    assert_eq!([hook.merge(&call), hook.merge(&call)], [Ok(vec![1]), Ok(vec![1])]);
}

#[test]
fn a_nan_has_one_form() {
    // A NaN with a payload, through an addition, as bytes.
    let nan = merging(
        "(f32.store (i32.const 0) (f32.add (f32.reinterpret_i32 (i32.const 0x7fa12345)) (f32.const 1)))
         (i64.const 4)",
    );
    assert_eq!(ask(&nan).unwrap(), f32::NAN.to_bits().to_le_bytes());
}

#[test]
fn what_is_no_hook_is_not_loaded() {
    let refused = |text: &str| load(text).unwrap_err().to_string();
    assert!(refused("(module").starts_with("is no WebAssembly module that can be run here"));
    assert!(refused("").starts_with("is no WebAssembly module"));
    assert_eq!(
        refused("(module (import \"env\" \"now\" (func (result i64))))"),
        "imports env.now: a hook has nothing but its call"
    );
    assert_eq!(refused("(module)"), "does not export memory");
    assert_eq!(refused("(module (memory (export \"memory\") 1))"), "does not export alloc");
    assert_eq!(refused(&module("")), "does not export merge");
    let odd = module("(func (export \"merge\") (param i32) (result i64) (i64.const 0))");
    assert_eq!(refused(&odd), "does not export merge");
    assert!(matches!(load(&" ".repeat(MAX_MODULE_BYTES as usize + 1)), Err(LoadError::TooBig)));
    let stillborn = "(module (memory (export \"memory\") 1)
        (func $start unreachable) (start $start)
        (func (export \"alloc\") (param i32) (result i32) (i32.const 0))
        (func (export \"merge\") (param i32 i32) (result i64) (i64.const 0)))";
    assert!(matches!(load(stillborn), Err(LoadError::Start(Failure::Trap))));
}

#[test]
fn a_hook_is_its_module_its_engine_and_its_limits() {
    let id = |text: &str, limits| Sandbox::new("n", text.as_bytes(), limits).unwrap().id().clone();
    let one = id(FIRST_WRITER, Limits::default());
    assert_eq!(one, id(FIRST_WRITER, Limits::default()));
    assert_ne!(one.identity, id(&merging("(i64.const 0)"), Limits::default()).identity);
    let more = Limits { fuel: 1_000_001, ..Limits::default() };
    assert_ne!(one.identity, id(FIRST_WRITER, more).identity);
}

#[test]
fn a_file_is_loaded_and_names_the_hook() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("first-writer.wat");
    std::fs::write(&path, FIRST_WRITER).unwrap();
    assert_eq!(&*Sandbox::load(&path, Limits::default()).unwrap().id().name, "first-writer.wat");
    let missing = Sandbox::load(&directory.path().join("none"), Limits::default());
    assert!(matches!(missing, Err(LoadError::Unreadable(_))));
}

#[test]
fn whole_hashes_go_through_their_own_function() {
    // Shows no field at all.
    let empty = module("(func (export \"merge_hash\") (param i32 i32) (result i64) (i64.const 4))");
    let hook = load(&empty).unwrap();
    assert!(hook.merges_hashes());
    let fields = [FieldSiblings { field: b"f", siblings: siblings(&[b"a", b"b"]) }];
    assert_eq!(hook.merge_hash(&HashCall { key: b"k", fields: &fields }), Ok(Vec::new()));
    let values = siblings(&[b"a", b"b"]);
    assert_eq!(hook.merge(&Call { key: b"k", field: None, siblings: &values }), Err(Failure::BadExport));
    let plain = load(FIRST_WRITER).unwrap();
    assert!(!plain.merges_hashes());
    assert_eq!(plain.merge_hash(&HashCall { key: b"k", fields: &fields }), Err(Failure::BadExport));
    let bad = module("(func (export \"merge_hash\") (param i32 i32) (result i64) (i64.const 3))");
    let bad = load(&bad).unwrap();
    assert_eq!(bad.merge_hash(&HashCall { key: b"k", fields: &fields }), Err(Failure::BadOutput));
}

/// Bytes that arrive as a module are refused or run within their limits, and never panic.
#[test]
fn fuzz_hook_module() {
    let good = wat_bytes();
    bolero::check!().with_type::<(u16, u8, Vec<u8>)>().for_each(|(at, byte, bytes)| {
        let mut damaged = good.clone();
        let at = usize::from(*at) % damaged.len();
        damaged[at] = *byte;
        let limits = Limits { fuel: 10_000, memory: 1 << 17, ..Limits::default() };
        for module in [damaged.as_slice(), bytes] {
            if let Ok(hook) = Sandbox::new("fuzz", module, limits) {
                let values = siblings(&[b"a", b"b"]);
                let call = Call { key: b"k", field: None, siblings: &values };
                assert_eq!(hook.merge(&call), hook.merge(&call));
            }
        }
    });
}

/// The example's binary form.
fn wat_bytes() -> Vec<u8> {
    wat::parse_str(FIRST_WRITER).unwrap()
}
