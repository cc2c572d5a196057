//! Reading single members and walking all: `ZCARD`, `ZSCORE`, `ZRANK`, `ZRANDMEMBER`, `ZSCAN`.

use std::borrow::Cow;
use std::collections::HashSet;

use meridian_conflict::crdt::{Score, SortedSet};

use super::{argument, count_of, integer, is_option, write_members};
use crate::command::elements::{ScanOptions, scan_cursor, scan_nothing};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Protocol, Reply, fmt};

/// What a reply of repeated random members may take, in bytes.
const REPEATS_MAX: usize = 64 << 20;

/// `ZCARD key`
pub(super) fn zcard(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.sorted_set(argument(args, 1)?)?;
    reply.int(set.map_or(0, |set| count_of(set.len())));
    Ok(())
}

fn write_score(score: Option<Score>, reply: &mut Reply<'_>) {
    match score {
        Some(score) => reply.double(score.get()),
        None => reply.null(),
    }
}

/// `ZSCORE key member`
pub(super) fn zscore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.sorted_set(argument(args, 1)?)?;
    let member = argument(args, 2)?;
    write_score(set.and_then(|set| set.score(member)), reply);
    Ok(())
}

/// `ZMSCORE key member [member ...]`
pub(super) fn zmscore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let set = cx.sorted_set(argument(args, 1)?)?;
    let members = args.tail(2);
    reply.array(members.len());
    for member in members {
        write_score(set.and_then(|set| set.score(member)), reply);
    }
    Ok(())
}

/// `ZRANK key member [WITHSCORE]`
pub(super) fn zrank(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(cx, args, false, reply)
}

/// `ZREVRANK key member [WITHSCORE]`
pub(super) fn zrevrank(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(cx, args, true, reply)
}

fn rank(cx: &Context<'_, '_>, args: Args<'_>, reverse: bool, reply: &mut Reply<'_>) -> Outcome {
    if args.len() > 4 {
        return Err(CommandError::Arity(Cow::Borrowed(if reverse { "zrevrank" } else { "zrank" })));
    }
    let with_score = match args.get(3) {
        Some(option) if is_option(option, "withscore") => true,
        Some(_) => return Err(CommandError::Syntax),
        None => false,
    };
    let member = argument(args, 2)?;
    let found = cx.sorted_set(argument(args, 1)?)?.and_then(|set| {
        let score = set.score(member)?;
        let rank = set.order().rank(score, member);
        Some((if reverse { set.len().saturating_sub(rank + 1) } else { rank }, score))
    });
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.int(count_of(rank));
            reply.double(score.get());
        }
        Some((rank, _)) => reply.int(count_of(rank)),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`
pub(super) fn zrandmember(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = argument(args, 1)?;
    if args.len() == 2 {
        let length = cx.sorted_set(key)?.map_or(0, SortedSet::len);
        let rank = cx.random_below(length);
        let entry = cx.sorted_set(key)?.and_then(|set| set.order().get(rank));
        reply.bulk_or_null(entry.map(|(_, member)| &**member));
        return Ok(());
    }
    let count = integer(args, 2)?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    let with_scores = match args.get(3) {
        Some(option) if args.len() == 4 && is_option(option, "withscores") => true,
        Some(_) => return Err(CommandError::Syntax),
        None => false,
    };
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::text("ERR value is out of range"));
    }
    let Some(length) = cx.sorted_set(key)?.map(SortedSet::len) else {
        reply.array(0);
        return Ok(());
    };
    match usize::try_from(count) {
        Ok(count) => distinct(cx, key, count.min(length), length, with_scores, reply),
        Err(_) => repeated(cx, key, count.unsigned_abs(), length, with_scores, reply),
    }
}

/// Different members: Floyd's sample (Bentley and Floyd 1987), in time and space of the count.
fn distinct(
    cx: &mut Context<'_, '_>,
    key: &[u8],
    count: usize,
    length: usize,
    with_scores: bool,
    reply: &mut Reply<'_>,
) -> Outcome {
    let mut picked = Vec::with_capacity(count);
    if count == length {
        picked.extend(0..length);
    } else {
        let mut known = HashSet::with_capacity(count);
        for last in length - count..length {
            let pick = cx.random_below(last + 1);
            let pick = if known.insert(pick) { pick } else { last };
            known.insert(pick);
            picked.push(pick);
        }
    }
    let set = cx.sorted_set(key)?;
    let entries = picked.iter().filter_map(|rank| set?.order().get(*rank));
    let entries = entries.map(|(score, member)| (*score, &**member));
    write_members(reply, count, with_scores, entries);
    Ok(())
}

/// Members picked independently. The reply's size is the client's to choose, up to a limit.
fn repeated(
    cx: &mut Context<'_, '_>,
    key: &[u8],
    count: u64,
    length: usize,
    with_scores: bool,
    reply: &mut Reply<'_>,
) -> Outcome {
    let pairs = with_scores && reply.protocol() == Protocol::Resp3;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let start = reply.written();
    reply.array(if with_scores && !pairs { count.saturating_mul(2) } else { count });
    for _ in 0..count {
        let rank = cx.random_below(length);
        let Some((score, member)) = cx.sorted_set(key)?.and_then(|set| set.order().get(rank)) else { break };
        if pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            reply.double(score.get());
        }
        if reply.written() - start > REPEATS_MAX {
            return Err(CommandError::text("ERR value is out of range: the reply would exceed 64 MiB"));
        }
    }
    Ok(())
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`
pub(super) fn zscan(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = scan_cursor(argument(args, 2)?)?;
    let key = argument(args, 1)?;
    let Some(set) = cx.sorted_set(key)? else {
        scan_nothing(reply);
        return Ok(());
    };
    let options = ScanOptions::parse(args.tail(3))?;
    let (window, next) = options.window(cursor, cx.generation(key), set.members().len());
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    if window.len() == set.members().len() && next == 0 {
        let entries = set.range(0..set.len()).map(|(score, member)| (*score, &**member));
        write_scanned(entries.filter(|(_, member)| options.wants(member)), reply);
        return Ok(());
    }
    let members = set.members().get_range(window).into_iter().flatten();
    let entries = members.filter_map(|(member, scalar)| Some((scalar.shown()?, &**member)));
    write_scanned(entries.filter(|(_, member)| options.wants(member)), reply);
    Ok(())
}

/// Writes members and scores; scores are strings here, in RESP3 too.
fn write_scanned<'m>(entries: impl Iterator<Item = (Score, &'m [u8])>, reply: &mut Reply<'_>) {
    let array = reply.defer_array();
    let mut written = 0;
    let mut text = Vec::new();
    for (score, member) in entries {
        text.clear();
        fmt::write_f64(&mut text, score.get());
        reply.bulk(member);
        reply.bulk(&text);
        written += 2;
    }
    reply.finish(array, written);
}
