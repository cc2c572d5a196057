//! What clients write.

use meridian_conflict::amount::Amount;
use meridian_conflict::clock::Origin;
use meridian_conflict::crdt::Score;
use meridian_conflict::edit::{Editor, NewDeadline};
use meridian_conflict::op::{BodyBuilder, Facet};

use super::process::Objects;
use super::random::Random;

/// One command, or a transaction of several keys. The body is empty when nothing was to be done.
pub(super) fn command(
    random: &mut Random,
    objects: &Objects,
    origin: Origin,
    wall_ms: u64,
    keys: u64,
    unique: u64,
) -> Vec<u8> {
    let mut out = BodyBuilder::default();
    let first = random.below(keys);
    let count = if random.percent(10) { random.between(2, 3).min(keys) } else { 1 };
    for offset in 0..count {
        let key = [b'k', (first + offset).to_le_bytes()[0] % keys.to_le_bytes()[0].max(1)];
        edit(random, objects, origin, wall_ms, &key, unique, &mut out);
    }
    out.body().to_vec()
}

fn edit(
    random: &mut Random,
    objects: &Objects,
    origin: Origin,
    wall_ms: u64,
    key: &[u8],
    unique: u64,
    out: &mut BodyBuilder,
) {
    let mut editor = Editor::new(objects.get(&(0, key.into())), origin, wall_ms, out);
    let shown = editor.shown();
    let facet = shown.and_then(|object| object.facet());
    let fits = |wanted: Facet| facet.is_none_or(|facet| facet == wanted);
    let element = [b'e', random.below(3).to_le_bytes()[0]];
    let by = Amount::from(random.between(1, 9) as i64);
    let value = unique.to_string();
    match random.below(100) {
        0..20 => {
            let deadline = match random.below(5) {
                0 => NewDeadline::At(wall_ms + random.between(50, 4_000)),
                1 => NewDeadline::Keep,
                _ => NewDeadline::Forget,
            };
            editor.assign(value.as_bytes(), deadline);
        }
        20..38 if fits(Facet::String) => editor.add(&by),
        38..46 => editor.clear(),
        46..56 if fits(Facet::Hash) => editor.field_assign(&element, value.as_bytes()),
        56..60 if fits(Facet::Hash) => editor.field_add(&element, &by),
        60..64 if shown.and_then(|o| o.hash()).is_some_and(|h| h.field(&element).is_some()) => {
            editor.field_remove(&element);
        }
        64..74 if fits(Facet::Set) => editor.member_add(&element),
        74..80 if shown.and_then(|o| o.set()).is_some_and(|s| s.contains(&element)) => {
            editor.member_remove(&element);
        }
        80..86 if fits(Facet::SortedSet) => {
            if let Some(score) = Score::new(random.below(50) as f64) {
                editor.score_assign(&element, score);
            }
        }
        86..92 if fits(Facet::SortedSet) => editor.score_add(&element, &by),
        92..94 if shown.and_then(|o| o.sorted_set()).is_some_and(|z| z.score(&element).is_some()) => {
            editor.score_remove(&element);
        }
        94..98 if facet.is_some() => editor.deadline(NewDeadline::At(wall_ms + random.between(50, 4_000))),
        98..100 if facet.is_some() => editor.persist(),
        _ => {}
    }
    editor.finish(0, key);
}
