//! `ZPOPMIN`, `ZPOPMAX`, `ZMPOP`.

use meridian_conflict::crdt::SortedSet;
use meridian_conflict::crdt::order::Entry;

use super::{argument, integer_from, is_option};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Protocol, Reply};

/// From which end members are popped.
#[derive(Clone, Copy)]
enum End {
    Lowest,
    Highest,
}

impl End {
    fn parse(argument: &[u8]) -> Result<Self, CommandError> {
        match argument {
            a if is_option(a, "min") => Ok(Self::Lowest),
            a if is_option(a, "max") => Ok(Self::Highest),
            _ => Err(CommandError::Syntax),
        }
    }

    /// The entries at this end, the outermost first.
    fn of(self, set: &SortedSet, count: usize) -> Vec<Entry> {
        let length = set.len();
        match self {
            Self::Lowest => set.range(0..count.min(length)).cloned().collect(),
            Self::Highest => set.range(length.saturating_sub(count)..length).rev().cloned().collect(),
        }
    }
}

/// `ZPOPMIN key [count]`
pub(super) fn zpopmin(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(cx, args, End::Lowest, reply)
}

/// `ZPOPMAX key [count]`
pub(super) fn zpopmax(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(cx, args, End::Highest, reply)
}

fn pop(cx: &mut Context<'_, '_>, args: Args<'_>, end: End, reply: &mut Reply<'_>) -> Outcome {
    let count = match args.len() {
        2 => None,
        3 => Some(integer_from(args, 2, 0, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Syntax),
    };
    let key = argument(args, 1)?;
    let set = cx.sorted_set(key)?;
    let popped = set.map(|set| end.of(set, count.unwrap_or(1))).unwrap_or_default();
    remove(cx, key, &popped);
    // Without a count RESP3 gets the one pair flat, too.
    let pairs = count.is_some() && reply.protocol() == Protocol::Resp3;
    reply.array(if pairs { popped.len() } else { popped.len() * 2 });
    write(&popped, pairs, reply);
    Ok(())
}

/// `ZMPOP numkeys key [key ...] MIN|MAX [COUNT count]`
pub(super) fn zmpop(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let keys = integer_from(args, 1, 1, "ERR numkeys should be greater than 0")?;
    let where_at = keys.saturating_add(2);
    let end = End::parse(argument(args, where_at)?)?;
    let mut count = None;
    let mut at = where_at + 1;
    while let Some(option) = args.get(at) {
        if count.is_some() || !is_option(option, "count") || at + 1 >= args.len() {
            return Err(CommandError::Syntax);
        }
        count = Some(integer_from(args, at + 1, 1, "ERR count should be greater than 0")?);
        at += 2;
    }
    for key in args.tail(2).iter().take(keys) {
        let Some(set) = cx.sorted_set(key)? else { continue };
        let popped = end.of(set, count.unwrap_or(1));
        remove(cx, key, &popped);
        reply.array(2);
        reply.bulk(key);
        reply.array(popped.len());
        write(&popped, true, reply);
        return Ok(());
    }
    reply.null_array();
    Ok(())
}

fn remove(cx: &mut Context<'_, '_>, key: &[u8], popped: &[Entry]) {
    cx.edit(key, |edit| popped.iter().for_each(|(_, member)| edit.score_remove(member)));
}

fn write(popped: &[Entry], pairs: bool, reply: &mut Reply<'_>) {
    for (score, member) in popped {
        if pairs {
            reply.array(2);
        }
        reply.bulk(member);
        reply.double(score.get());
    }
}
