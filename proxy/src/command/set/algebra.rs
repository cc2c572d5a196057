//! Intersection, union, difference, and the variants that store what they find.

use std::collections::HashSet;
use std::ops::ControlFlow;

use meridian_conflict::crdt::Set;
use smallvec::SmallVec;

use super::arg;
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply, fmt};

/// The sets of a command, `None` for those that are not there.
type Sets<'a> = SmallVec<[Option<&'a Set>; 4]>;

/// What to make of several sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Inter,
    Union,
    Diff,
}

/// Every key's set. All types are checked before anything is decided.
fn sets<'a>(cx: &'a Context<'_, '_>, keys: Args<'_>) -> Result<Sets<'a>, CommandError> {
    keys.iter().map(|key| cx.set(key)).collect()
}

/// Gives each member of the result to `take`, once, until that breaks off.
fn combine<'a>(operation: Operation, sets: Sets<'a>, take: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
    // Nothing is left to do when `take` breaks off.
    let _ = match operation {
        Operation::Inter => inter(sets, take),
        Operation::Union => union(sets, take),
        Operation::Diff => diff(sets, take),
    };
}

fn members(set: &Set) -> impl Iterator<Item = &[u8]> {
    set.members().keys().map(|member| &**member)
}

fn inter<'a>(sets: Sets<'a>, take: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) -> ControlFlow<()> {
    let Some(mut sets) = sets.into_iter().collect::<Option<SmallVec<[&Set; 4]>>>() else {
        return ControlFlow::Continue(());
    };
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return ControlFlow::Continue(()) };
    members(smallest).filter(|member| others.iter().all(|set| set.contains(member))).try_for_each(take)
}

fn union<'a>(sets: Sets<'a>, take: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) -> ControlFlow<()> {
    let sets: SmallVec<[&Set; 4]> = sets.into_iter().flatten().collect();
    if let [only] = sets.as_slice() {
        return members(only).try_for_each(take);
    }
    let mut known = HashSet::new();
    sets.into_iter().flat_map(members).filter(|member| known.insert(*member)).try_for_each(take)
}

fn diff<'a>(sets: Sets<'a>, take: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut sets = sets.into_iter();
    let Some(first) = sets.next().flatten() else { return ControlFlow::Continue(()) };
    let others: SmallVec<[&Set; 4]> = sets.flatten().collect();
    members(first).filter(|member| !others.iter().any(|set| set.contains(member))).try_for_each(take)
}

fn answer(operation: Operation, cx: &Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let sets = sets(cx, args.tail(1))?;
    let elements = reply.defer_set();
    let mut count = 0;
    combine(operation, sets, &mut |member| {
        reply.bulk(member);
        count += 1;
        ControlFlow::Continue(())
    });
    reply.finish(elements, count);
    Ok(())
}

/// What was seen of the target goes and the result comes, as one effect: concurrent additions to
/// the target survive.
fn store(operation: Operation, cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let target = arg(args, 1);
    let mut result: Vec<Box<[u8]>> = Vec::new();
    combine(operation, sets(cx, args.tail(2))?, &mut |member| {
        result.push(member.into());
        ControlFlow::Continue(())
    });
    if !result.is_empty() || cx.read(target).is_some() {
        cx.edit(target, |edit| {
            edit.clear();
            result.iter().for_each(|member| edit.member_add(member));
        });
    }
    reply.int(result.len() as i64);
    Ok(())
}

pub(super) fn sinter(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(Operation::Inter, cx, args, reply)
}

pub(super) fn sunion(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(Operation::Union, cx, args, reply)
}

pub(super) fn sdiff(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    answer(Operation::Diff, cx, args, reply)
}

pub(super) fn sinterstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(Operation::Inter, cx, args, reply)
}

pub(super) fn sunionstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(Operation::Union, cx, args, reply)
}

pub(super) fn sdiffstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store(Operation::Diff, cx, args, reply)
}

pub(super) fn sintercard(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let number = fmt::parse_i64(arg(args, 1)).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let number = number.ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
    if number > args.len() - 2 {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    }
    let mut limit = usize::MAX;
    let mut options = args.tail(2 + number).iter();
    while let Some(option) = options.next() {
        let value = options.next().filter(|_| option.eq_ignore_ascii_case(b"limit"));
        let value = fmt::parse_i64(value.ok_or(CommandError::Syntax)?).and_then(|n| usize::try_from(n).ok());
        limit = match value.ok_or(CommandError::text("ERR LIMIT can't be negative"))? {
            0 => usize::MAX,
            limit => limit,
        };
    }
    let sets = args.tail(2).iter().take(number).map(|key| cx.set(key)).collect::<Result<Sets<'_>, _>>()?;
    let mut count = 0;
    combine(Operation::Inter, sets, &mut |_| {
        count += 1;
        if count >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    reply.int(count as i64);
    Ok(())
}
