//! Members picked at random.

use meridian_conflict::crdt::Set;

use super::arg;
use crate::command::elements::{check_picks, pick_count, pick_distinct};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply, fmt};

fn member_at(set: Option<&Set>, index: usize) -> Option<&[u8]> {
    set?.members().get_index(index).map(|(member, _)| &**member)
}

fn len(set: Option<&Set>) -> usize {
    set.map_or(0, Set::len)
}

/// The count of `SPOP`, where it was given.
fn pop_count(args: Args<'_>) -> Result<Option<u64>, CommandError> {
    let Some(text) = args.get(2) else { return Ok(None) };
    if args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    // Redis gives this one answer to both faults.
    let out_of_range = || CommandError::text("ERR value is out of range, must be positive");
    let count = fmt::parse_i64(text).ok_or_else(out_of_range)?;
    u64::try_from(count).map(Some).map_err(|_| out_of_range())
}

pub(super) fn spop(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, count) = (arg(args, 1), pop_count(args)?);
    let total = len(cx.set(key)?);
    let wanted = count.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX).min(total));
    let places = pick_distinct(cx, total, wanted);
    let set = cx.set(key)?;
    let popped: Vec<Box<[u8]>> =
        places.into_iter().filter_map(|place| member_at(set, place).map(Box::from)).collect();
    if popped.len() == total && total > 0 {
        cx.edit(key, |edit| edit.clear());
    } else if !popped.is_empty() {
        cx.edit(key, |edit| popped.iter().for_each(|member| edit.member_remove(member)));
    }
    if count.is_none() {
        reply.bulk_or_null(popped.first().map(|member| &**member));
        return Ok(());
    }
    reply.set(popped.len());
    popped.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

pub(super) fn srandmember(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = arg(args, 1);
    let Some(text) = args.get(2) else {
        let place = len(cx.set(key)?);
        let place = cx.random_below(place);
        reply.bulk_or_null(member_at(cx.set(key)?, place));
        return Ok(());
    };
    if args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let count = pick_count(text)?;
    let total = len(cx.set(key)?);
    if total == 0 {
        reply.array(0);
        return Ok(());
    }
    if count >= 0 {
        let places = pick_distinct(cx, total, usize::try_from(count).unwrap_or(usize::MAX));
        let set = cx.set(key)?;
        reply.array(places.len());
        places.into_iter().filter_map(|place| member_at(set, place)).for_each(|member| reply.bulk(member));
        return Ok(());
    }
    let (count, start) = (count.unsigned_abs(), reply.written());
    check_picks(reply, start, count)?;
    reply.array(usize::try_from(count).unwrap_or(usize::MAX));
    for _ in 0..count {
        let place = cx.random_below(total);
        reply.bulk(member_at(cx.set(key)?, place).unwrap_or_default());
        check_picks(reply, start, count)?;
    }
    Ok(())
}
