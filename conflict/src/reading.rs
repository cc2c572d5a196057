//! What a key shows under its policy.
//!
//! The state is the same under every policy; this is where they differ.
//!
//! | policy | shows |
//! |---|---|
//! | `crdt` | the object as it is |
//! | `lww` | the greatest statement ([`Object::under_lww`]) |
//! | `multi-value` | as `crdt`; [`alive`] lists what else is there |
//! | `hook` | the hook's merge of what is [`alive`] in strings and hash fields, all else as `crdt` |
//!
//! A value alive is an assignment that no later write has seen. Increments that are alive beside it
//! are added where it is a number, as they are in what `crdt` shows; where there is no assignment,
//! the sum of the increments is the one value.

use std::borrow::Cow;

use crate::clock::Stamp;
use crate::hook::{self, Decided, Failure, FieldSiblings, MergeHook, Merged, MergedHash, Sibling};
use crate::object::Object;
use crate::policy::Policy;
use crate::scalar::{Scalar, Value};

/// One of the concurrent values of a string or of a hash field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive<'a> {
    /// The op that assigned it, or the newest increment where nothing was assigned.
    pub stamp: Stamp,
    /// The value, increments included.
    pub value: Cow<'a, [u8]>,
}

/// The object to look into under `policy`.
pub fn seen_under<'a>(policy: &Policy, object: &'a Object) -> &'a Object {
    match policy {
        Policy::Lww => object.under_lww(),
        Policy::Crdt | Policy::MultiValue | Policy::Hook(_) => object,
    }
}

/// The concurrent values of a string or hash field, by rising stamp; none where nothing shows.
pub fn alive(scalar: &Scalar<Value>) -> Vec<Alive<'_>> {
    let all =
        scalar.siblings().iter().map(|s| Alive { stamp: s.stamp, value: scalar.with_increments(&s.value) });
    let mut all: Vec<Alive<'_>> = all.collect();
    if all.is_empty()
        && let (Some(stamp), Some(value)) = (scalar.live_stamps().max(), scalar.shown())
    {
        all.push(Alive { stamp, value });
    }
    all
}

fn siblings<'a>(alive: &'a [Alive<'_>]) -> Vec<Sibling<'a>> {
    alive.iter().map(|a| Sibling { stamp: a.stamp, value: &a.value }).collect()
}

/// What a string (or, with its name, a hash field) shows under the policy `hook`. `None` for the
/// hook means that this region does not have it or does not trust it: the greatest stamp shows.
pub fn merged(
    hook: Option<&dyn MergeHook>,
    key: &[u8],
    field: Option<&[u8]>,
    scalar: &Scalar<Value>,
) -> Option<Merged<Vec<u8>>> {
    let alive = alive(scalar);
    let siblings = siblings(&alive);
    let merged = match (hook, siblings.as_slice()) {
        (None, [_, .., newest]) => {
            let decided = Decided::Fallback(Failure::Quarantined);
            return Some(Merged { value: newest.value.to_vec(), decided });
        }
        (None, alone) => alone.first().map(|s| Merged { value: s.value.into(), decided: Decided::Sole })?,
        (Some(hook), _) => hook::merge(hook, key, field, &siblings)?,
    };
    Some(Merged { value: merged.value.into_owned(), decided: merged.decided })
}

/// The object as the policy `hook` reads it, where several values of something are alive; the
/// caller keeps it ([`Object::keep_merged`]). Each of them is told to `told` with how it was decided.
/// It costs a copy of the object and a call for each.
pub fn under_hook(
    hook: Option<&dyn MergeHook>,
    key: &[u8],
    object: &Object,
    mut told: impl FnMut(Decided),
) -> Object {
    let mut shown = object.clone();
    if let Some(string) = object.string().filter(|string| string.is_plural())
        && let Some(merged) = merged(hook, key, None, string)
    {
        told(merged.decided);
        shown.show_string(merged.value);
    }
    let Some(hash) = object.hash().filter(|hash| hash.is_plural()) else { return shown };
    if let Some(hook) = hook.filter(|hook| hook.merges_hashes()) {
        let merged = merged_hash(hook, key, object);
        told(merged.decided);
        for field in hash.fields().keys() {
            let at = merged.value.binary_search_by(|(name, _)| name.cmp(field)).ok();
            let value = at.and_then(|at| merged.value.get(at)).map(|(_, value)| value.to_vec());
            shown.show_field(field, value);
        }
        return shown;
    }
    for (field, scalar) in hash.fields().iter().filter(|(_, scalar)| scalar.is_plural()) {
        if let Some(merged) = merged(hook, key, Some(field), scalar) {
            told(merged.decided);
            shown.show_field(field, Some(merged.value));
        }
    }
    shown
}

/// What a hash shows under the policy `hook` where the hook merges whole hashes.
pub fn merged_hash(hook: &dyn MergeHook, key: &[u8], object: &Object) -> Merged<MergedHash> {
    let fields = object.hash().into_iter().flat_map(|hash| hash.fields());
    let alive: Vec<_> = fields.map(|(field, scalar)| (field, alive(scalar))).collect();
    let fields = alive.iter().map(|(field, alive)| FieldSiblings { field, siblings: siblings(alive) });
    hook::merge_hash(hook, key, fields.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::clock::{Dot, Hlc, Origin, Seen, VersionVector};
    use crate::hook::builtin::{BuiltIn, Kind};
    use crate::object::{Applying, CopyBytes};
    use crate::op::Effect;
    use crate::outcome::Outcome;

    /// An object to which unseen ops of three origins were applied, in the order given.
    fn object(effects: &[(u64, Effect<'_>)]) -> Object {
        let (mut object, none) = (Object::default(), VersionVector::new());
        for (n, effect) in effects {
            let stamp = Stamp { hlc: Hlc::from_ms(*n), dot: Dot::new(Origin(*n), 1) };
            let how = Applying { stamp, seen: Seen::Vector { deps: &none, dot: stamp.dot } };
            object.apply(effect, how, &mut Outcome::default());
        }
        object
    }

    fn assign(value: &[u8]) -> Effect<'_> {
        Effect::Assign { value, baseline: Vec::new() }
    }

    fn field<'a>(field: &'a [u8], value: &'a [u8]) -> Effect<'a> {
        Effect::FieldAssign { field, value, baseline: Vec::new() }
    }

    fn texts(alive: &[Alive<'_>]) -> Vec<String> {
        alive.iter().map(|a| String::from_utf8_lossy(&a.value).into_owned()).collect()
    }

    #[test]
    fn what_is_alive_stands_by_rising_stamp_and_the_greatest_shows() {
        for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
            let values = [b"a", b"b", b"c"];
            let object = object(&order.map(|n: u64| (n, assign(values[n as usize - 1]))));
            let string = object.string().unwrap();
            assert_eq!(texts(&alive(string)), ["a", "b", "c"]);
            assert_eq!(string.shown().unwrap(), &b"c"[..]);
            let seen = seen_under(&Policy::MultiValue, &object);
            assert!(std::ptr::eq(seen, &object));
        }
    }

    #[test]
    fn increments_alive_are_added_to_numbers() {
        let add = || Effect::Add { total: Amount::from(5), fresh: true, index: 2 };
        let both = object(&[(1, assign(b"10")), (2, assign(b"text")), (3, add())]);
        assert_eq!(texts(&alive(both.string().unwrap())), ["15", "text"]);
        let alone = object(&[(3, add())]);
        let alone = alive(alone.string().unwrap());
        assert_eq!((texts(&alone), alone[0].stamp.hlc), (vec!["5".to_owned()], Hlc::from_ms(3)));
        assert!(alive(&Scalar::default()).is_empty());
    }

    #[test]
    fn a_hook_merges_what_is_alive_and_without_it_the_greatest_stamp_shows() {
        let object = object(&[(1, assign(b"20")), (2, assign(b"3"))]);
        let max = BuiltIn::new(Kind::Max);
        let string = object.string().unwrap();
        let shown = merged(Some(&max), b"k", None, string).unwrap();
        assert_eq!((&shown.value[..], shown.decided), (&b"20"[..], Decided::Hook));
        let shown = merged(None, b"k", None, string).unwrap();
        assert_eq!((&shown.value[..], shown.decided), (&b"3"[..], Decided::Fallback(Failure::Quarantined)));
        assert_eq!(merged(None, b"k", None, &Scalar::default()), None);
        let sole = Scalar::from_parts(string.siblings()[..1].to_vec(), Vec::new());
        for hook in [None, Some(&max as &dyn MergeHook)] {
            assert_eq!(merged(hook, b"k", None, &sole).unwrap().decided, Decided::Sole);
        }
    }

    #[test]
    fn under_a_hook_an_object_shows_what_it_was_merged_to_until_it_changes() {
        let mut object = object(&[(1, assign(b"20")), (2, assign(b"3")), (3, field(b"f", b"x"))]);
        assert!(object.is_plural() && object.merged(&[1; 32]).is_none());
        let max = BuiltIn::new(Kind::Max);
        let mut told = Vec::new();
        let shown = under_hook(Some(&max), b"k", &object, |decided| told.push(decided));
        assert_eq!(told, [Decided::Hook]);
        assert_eq!(shown.string().unwrap().shown().unwrap(), &b"20"[..]);
        assert_eq!((shown.facet(), shown.is_plural()), (object.facet(), false));
        let figure = CopyBytes::default();
        object.keep_merged([1; 32], shown.clone(), &figure);
        assert_eq!(object.merged(&[1; 32]), Some(&shown));
        let one = size_of::<Object>() + shown.heap_bytes();
        assert_eq!([object.merged_bytes(), figure.get()], [one; 2]);
        object.keep_merged([1; 32], shown.clone(), &figure);
        assert_eq!(figure.get(), one, "the first stays");
        let copy = object.clone();
        assert_eq!(figure.get(), 2 * one);
        drop(copy);
        object.forget_merged(&[1; 32]);
        assert_eq!((object.merged(&[1; 32]), object.merged(&[2; 32])), (Some(&shown), None));
        object.forget_merged(&[2; 32]);
        assert_eq!((object.merged(&[1; 32]), figure.get()), (None, 0));
        object.keep_merged([1; 32], shown, &figure);
        let stamp = Stamp { hlc: Hlc::from_ms(9), dot: Dot::new(Origin(9), 1) };
        let how = Applying { stamp, seen: Seen::All };
        object.apply(&field(b"f", b"y"), how, &mut Outcome::default());
        assert_eq!((object.merged(&[1; 32]), object.merged_bytes(), figure.get()), (None, 0, 0));
        object.apply(&assign(b"1"), how, &mut Outcome::default());
        assert!(!object.is_plural());
    }

    #[test]
    fn fields_are_merged_one_by_one_and_the_others_stay() {
        let two = object(&[(1, field(b"a", b"1")), (2, field(b"a", b"2")), (3, field(b"b", b"3"))]);
        let shown = under_hook(Some(&BuiltIn::new(Kind::ConcatUniqueLines)), b"k", &two, |_| {});
        let value = |name: &[u8]| shown.hash().unwrap().field(name).unwrap().shown().unwrap().into_owned();
        assert_eq!((value(b"a"), value(b"b")), (b"1\n2".to_vec(), b"3".to_vec()));
        // Without the hook the newest of each shows.
        let shown = under_hook(None, b"k", &two, |_| {});
        assert_eq!(shown.hash().unwrap().field(b"a").unwrap().shown().unwrap(), &b"2"[..]);
    }

    #[test]
    fn an_increment_of_several_values_replaces_them_with_what_shows() {
        use crate::edit::Editor;
        use crate::op::{BodyBuilder, changes};
        let object = object(&[(1, assign(b"20")), (2, assign(b"3"))]);
        let shown = under_hook(Some(&BuiltIn::new(Kind::Max)), b"k", &object, |_| {});
        let mut body = BodyBuilder::default();
        let mut editor = Editor::new(Some(&object), Origin(5), 0, &mut body).replacing(Some(&shown));
        editor.add(&Amount::from(4));
        editor.finish(0, b"k");
        let change = changes(body.body()).next().unwrap().unwrap();
        let effects: Vec<_> = change.effects().map(Result::unwrap).collect();
        assert!(matches!(effects.as_slice(), [Effect::Assign { value: b"24", .. }]), "{effects:?}");
    }

    #[test]
    fn a_whole_hash_falls_back_field_by_field() {
        let object = object(&[(1, field(b"b", b"1")), (2, field(b"b", b"2")), (3, field(b"a", b"3"))]);
        let shown = merged_hash(&BuiltIn::new(Kind::Max), b"k", &object);
        let expected: MergedHash =
            [(b"a", b"3"), (b"b", b"2")].map(|(f, v)| (Box::from(&f[..]), Box::from(&v[..]))).to_vec();
        assert_eq!((shown.value, shown.decided), (expected, Decided::Fallback(Failure::BadExport)));
    }
}
