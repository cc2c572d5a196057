//! Sets.
//!
//! `SADD` travels for every member it names, present or not: an addition beats a concurrent removal.
//! What is popped or removed travels as the removal of the additions seen.

mod algebra;
mod random;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use super::elements::{ScanOptions, distinct, scan_cursor, scan_nothing};
use super::execute::check_element;
use super::table::{Family, Flags, Keys, ONE, REST, TWO};
use super::{Command, Context, Handler, Outcome};
use crate::resp::{Args, Reply};

const WRITE: Flags = Flags::WRITE;
const GROW: Flags = Flags::WRITE.and(Flags::DENY_OOM);
const READ: Flags = Flags::READONLY;
const FAST: Flags = Flags::FAST;

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    command("sadd", -3, GROW.and(FAST), ONE, sadd),
    command("scard", 2, READ.and(FAST), ONE, scard),
    command("sdiff", -2, READ, REST, algebra::sdiff),
    command("sdiffstore", -3, GROW, REST, algebra::sdiffstore),
    command("sinter", -2, READ, REST, algebra::sinter),
    command("sintercard", -3, READ, Keys::Counted { count: 1, target: 0 }, algebra::sintercard),
    command("sinterstore", -3, GROW, REST, algebra::sinterstore),
    command("sismember", 3, READ.and(FAST), ONE, sismember),
    command("smembers", 2, READ, ONE, smembers),
    command("smismember", -3, READ.and(FAST), ONE, smismember),
    command("smove", 4, WRITE.and(FAST), TWO, smove),
    command("spop", -2, WRITE.and(FAST), ONE, random::spop),
    command("srandmember", -2, READ, ONE, random::srandmember),
    command("srem", -3, WRITE.and(FAST), ONE, srem),
    command("sscan", -3, READ, ONE, sscan),
    command("sunion", -2, READ, REST, algebra::sunion),
    command("sunionstore", -3, GROW, REST, algebra::sunionstore),
];

const fn command(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command { name, arity, flags, keys, family: Family::Set, handler }
}

/// An argument that the arity promises.
fn arg<'a>(args: Args<'a>, index: usize) -> &'a [u8] {
    args.get(index).unwrap_or_default()
}

fn sadd(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, members) = (arg(args, 1), distinct(args.tail(2)));
    let set = cx.set(key)?;
    members.iter().try_for_each(|member| check_element(member))?;
    let added = members.iter().filter(|member| !set.is_some_and(|set| set.contains(member))).count();
    cx.edit(key, |edit| members.iter().for_each(|member| edit.member_add(member)));
    reply.int(added as i64);
    Ok(())
}

fn srem(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, mut members) = (arg(args, 1), distinct(args.tail(2)));
    match cx.set(key)? {
        Some(set) => members.retain(|member| set.contains(member)),
        None => members.clear(),
    }
    if !members.is_empty() {
        cx.edit(key, |edit| members.iter().for_each(|member| edit.member_remove(member)));
    }
    reply.int(members.len() as i64);
    Ok(())
}

fn scard(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = cx.set(arg(args, 1))?.map_or(0, |set| set.len());
    reply.int(count as i64);
    Ok(())
}

fn sismember(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let found = cx.set(arg(args, 1))?.is_some_and(|set| set.contains(arg(args, 2)));
    reply.int(i64::from(found));
    Ok(())
}

fn smismember(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.set(arg(args, 1))?;
    let members = args.tail(2);
    reply.array(members.len());
    for member in members {
        reply.int(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.set(arg(args, 1))?;
    reply.set(set.map_or(0, |set| set.len()));
    for member in set.into_iter().flat_map(|set| set.members().keys()) {
        reply.bulk(member);
    }
    Ok(())
}

fn smove(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (source, target, member) = (arg(args, 1), arg(args, 2), arg(args, 3));
    // The target's type matters only if there is a source, as in Redis.
    if cx.read(source).is_none() {
        reply.int(0);
        return Ok(());
    }
    let found = cx.set(source)?.is_some_and(|set| set.contains(member));
    cx.set(target)?;
    if found && source != target {
        cx.edit(source, |edit| edit.member_remove(member));
        cx.edit(target, |edit| edit.member_add(member));
    }
    reply.int(i64::from(found));
    Ok(())
}

fn sscan(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = arg(args, 1);
    let cursor = scan_cursor(arg(args, 2))?;
    let Some(set) = cx.set(key)? else {
        scan_nothing(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(args.tail(3))?;
    let (window, next) = options.window(cursor, cx.generation(key), set.len());
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    let elements = reply.defer_array();
    let mut count = 0;
    for (member, _) in set.members().get_range(window).into_iter().flatten() {
        if options.wants(member) {
            reply.bulk(member);
            count += 1;
        }
    }
    reply.finish(elements, count);
    Ok(())
}
