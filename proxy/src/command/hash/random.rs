//! Fields picked at random.

use meridian_conflict::crdt::Hash;

use super::arg;
use crate::command::elements::{check_picks, pick_count, pick_distinct};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Protocol, Reply};

/// So many times a place is drawn anew when its field does not show, before all are looked through.
const DRAWS: usize = 64;

/// The places of the fields that show; `None` when all do, as nearly always.
fn shown_places(hash: &Hash) -> Option<Vec<usize>> {
    if hash.len() == hash.fields().len() {
        return None;
    }
    let shown = hash.fields().values().enumerate().filter(|(_, scalar)| scalar.is_visible());
    Some(shown.map(|(place, _)| place).collect())
}

/// Writes the field at a place.
fn write(hash: Option<&Hash>, place: usize, values: bool, reply: &mut Reply<'_>) {
    let Some((field, scalar)) = hash.and_then(|hash| hash.fields().get_index(place)) else { return };
    if values && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(field);
    if values {
        reply.bulk(&scalar.shown().unwrap_or_default());
    }
}

/// The header of `count` fields: with values, RESP2 has them flat and RESP3 in pairs.
fn header(count: usize, values: bool, reply: &mut Reply<'_>) {
    let flat = values && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { count.saturating_mul(2) } else { count });
}

pub(super) fn hrandfield(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = arg(args, 1);
    let Some(text) = args.get(2) else { return one(cx, key, reply) };
    let count = pick_count(text)?;
    let values = match args.get(3) {
        None => false,
        Some(option) if args.len() == 4 && option.eq_ignore_ascii_case(b"withvalues") => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    if values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::text("ERR value is out of range"));
    }
    let Some(hash) = cx.hash(key)? else {
        reply.array(0);
        return Ok(());
    };
    let (total, places) = (hash.len(), shown_places(hash));
    let place = |pick: usize| match &places {
        Some(places) => places.get(pick).copied().unwrap_or(usize::MAX),
        None => pick,
    };
    if count >= 0 {
        let picks = pick_distinct(cx, total, usize::try_from(count).unwrap_or(usize::MAX));
        let hash = cx.hash(key)?;
        header(picks.len(), values, reply);
        picks.into_iter().for_each(|pick| write(hash, place(pick), values, reply));
        return Ok(());
    }
    let (count, start) = (count.unsigned_abs(), reply.written());
    check_picks(reply, start, count)?;
    header(usize::try_from(count).unwrap_or(usize::MAX), values, reply);
    for _ in 0..count {
        let pick = cx.random_below(total);
        write(cx.hash(key)?, place(pick), values, reply);
        check_picks(reply, start, count)?;
    }
    Ok(())
}

/// `HRANDFIELD` without a count.
fn one(cx: &mut Context<'_, '_>, key: &[u8], reply: &mut Reply<'_>) -> Outcome {
    let Some(hash) = cx.hash(key)? else {
        reply.null();
        return Ok(());
    };
    let (total, shown) = (hash.fields().len(), hash.len());
    for _ in 0..DRAWS {
        let place = cx.random_below(total);
        let drawn = cx.hash(key)?.and_then(|hash| hash.fields().get_index(place));
        if let Some((field, _)) = drawn.filter(|(_, scalar)| scalar.is_visible()) {
            reply.bulk(field);
            return Ok(());
        }
    }
    let pick = cx.random_below(shown);
    let mut visible = cx.hash(key)?.into_iter().flat_map(Hash::fields).filter(|(_, s)| s.is_visible());
    reply.bulk_or_null(visible.nth(pick).map(|(field, _)| &**field));
    Ok(())
}
