//! Hashes.
//!
//! Every field is a scalar of its own: concurrent writes to different fields do not meet, increments
//! add up. A removed field may stay in the table, unseen, while its increments have to be remembered.

mod number;
mod random;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::borrow::Cow;

use meridian_conflict::crdt::Hash;

use super::elements::{ScanOptions, distinct, distinct_pairs, scan_cursor, scan_nothing};
use super::execute::check_element;
use super::table::{Family, Flags, ONE};
use super::{Command, CommandError, Context, Handler, Outcome};
use crate::resp::{Args, Reply};

const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = WRITE.and(Flags::DENY_OOM);
const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    command("hdel", -3, WRITE, hdel),
    command("hexists", 3, READ_FAST, hexists),
    command("hget", 3, READ_FAST, hget),
    command("hgetall", 2, READ, hgetall),
    command("hincrby", 4, GROW, number::hincrby),
    command("hincrbyfloat", 4, GROW, number::hincrbyfloat),
    command("hkeys", 2, READ, hkeys),
    command("hlen", 2, READ_FAST, hlen),
    command("hmget", -3, READ_FAST, hmget),
    command("hmset", -4, GROW, hmset),
    command("hrandfield", -2, READ, random::hrandfield),
    command("hscan", -3, READ, hscan),
    command("hset", -4, GROW, hset),
    command("hsetnx", 4, GROW, hsetnx),
    command("hstrlen", 3, READ_FAST, hstrlen),
    command("hvals", 2, READ, hvals),
];

const fn command(name: &'static str, arity: i32, flags: Flags, handler: Handler) -> Command {
    Command { name, arity, flags, keys: ONE, family: Family::Hash, handler }
}

/// An argument that the arity promises.
fn arg<'a>(args: Args<'a>, index: usize) -> &'a [u8] {
    args.get(index).unwrap_or_default()
}

/// A field's value, where the field shows.
fn value<'h>(hash: Option<&'h Hash>, field: &[u8]) -> Option<Cow<'h, [u8]>> {
    hash?.field(field)?.shown()
}

/// Whether a field shows.
fn shows(hash: Option<&Hash>, field: &[u8]) -> bool {
    hash.and_then(|hash| hash.field(field)).is_some_and(|scalar| scalar.is_visible())
}

/// The fields that show, with their values, in table order.
fn shown(hash: &Hash) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    hash.fields().iter().filter_map(|(field, scalar)| Some((&**field, scalar.shown()?)))
}

/// Sets the fields after the key; returns how many are new.
fn assign(cx: &mut Context<'_, '_>, args: Args<'_>, name: &'static str) -> Result<usize, CommandError> {
    if args.len() % 2 == 1 {
        return Err(CommandError::Arity(name.into()));
    }
    let (key, pairs) = (arg(args, 1), distinct_pairs(args.tail(2)));
    cx.hash(key)?;
    pairs.iter().try_for_each(|(field, _)| check_element(field))?;
    Ok(cx.edit(key, |edit| {
        pairs.iter().filter(|(field, value)| edit.field_assign_counted(field, value)).count()
    }))
}

fn hset(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let created = assign(cx, args, "hset")?;
    reply.int(created as i64);
    Ok(())
}

fn hmset(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    assign(cx, args, "hmset")?;
    reply.ok();
    Ok(())
}

fn hsetnx(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, field, value) = (arg(args, 1), arg(args, 2), arg(args, 3));
    let absent = !shows(cx.hash(key)?, field);
    check_element(field)?;
    if absent {
        cx.edit(key, |edit| edit.field_assign(field, value));
    }
    reply.int(i64::from(absent));
    Ok(())
}

fn hget(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.bulk_or_null(value(cx.hash(arg(args, 1))?, arg(args, 2)).as_deref());
    Ok(())
}

fn hmget(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = cx.hash(arg(args, 1))?;
    let fields = args.tail(2);
    reply.array(fields.len());
    for field in fields {
        reply.bulk_or_null(value(hash, field).as_deref());
    }
    Ok(())
}

fn hexists(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.int(i64::from(shows(cx.hash(arg(args, 1))?, arg(args, 2))));
    Ok(())
}

fn hstrlen(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let length = value(cx.hash(arg(args, 1))?, arg(args, 2)).map_or(0, |value| value.len());
    reply.int(length as i64);
    Ok(())
}

fn hlen(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = cx.hash(arg(args, 1))?.map_or(0, Hash::len);
    reply.int(count as i64);
    Ok(())
}

fn hdel(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, mut fields) = (arg(args, 1), distinct(args.tail(2)));
    let hash = cx.hash(key)?;
    fields.retain(|field| shows(hash, field));
    if !fields.is_empty() {
        cx.edit(key, |edit| fields.iter().for_each(|field| edit.field_remove(field)));
    }
    reply.int(fields.len() as i64);
    Ok(())
}

fn hgetall(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = cx.hash(arg(args, 1))?;
    reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flat_map(shown) {
        reply.bulk(field);
        reply.bulk(&value);
    }
    Ok(())
}

fn hkeys(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = cx.hash(arg(args, 1))?;
    reply.array(hash.map_or(0, Hash::len));
    for (field, scalar) in hash.into_iter().flat_map(Hash::fields) {
        if scalar.is_visible() {
            reply.bulk(field);
        }
    }
    Ok(())
}

fn hvals(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let hash = cx.hash(arg(args, 1))?;
    reply.array(hash.map_or(0, Hash::len));
    for (_, value) in hash.into_iter().flat_map(shown) {
        reply.bulk(&value);
    }
    Ok(())
}

fn hscan(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = arg(args, 1);
    let cursor = scan_cursor(arg(args, 2))?;
    let Some(hash) = cx.hash(key)? else {
        scan_nothing(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(args.tail(3))?;
    let (window, next) = options.window(cursor, cx.generation(key), hash.fields().len());
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    let elements = reply.defer_array();
    let mut count = 0;
    for (field, scalar) in hash.fields().get_range(window).into_iter().flatten() {
        if let Some(value) = scalar.shown().filter(|_| options.wants(field)) {
            reply.bulk(field);
            reply.bulk(&value);
            count += 2;
        }
    }
    reply.finish(elements, count);
    Ok(())
}
