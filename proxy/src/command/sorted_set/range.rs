//! `ZRANGE` and its relatives: reading, counting, storing and removing ranges.

use std::ops::Range;
use std::sync::Arc;

use meridian_conflict::crdt::{Score, SortedSet};

use super::extent::{By, Extent, Limit};
use super::{argument, count_of, integer, is_option, store, write_members};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply};

/// What a range command asks for.
struct Wanted<'a> {
    extent: Extent<'a>,
    reverse: bool,
    limit: Limit,
    with_scores: bool,
}

/// What of a range command is fixed by its name; `None` is for the options to say.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

impl<'a> Wanted<'a> {
    /// Reads a range whose source is the argument at `source`.
    fn parse(args: Args<'a>, source: usize, form: Form) -> Result<Self, CommandError> {
        let Form { mut by, mut reverse, stores } = form;
        let mut limit = Limit { offset: 0, count: -1 };
        let mut with_scores = false;
        let mut at = source + 3;
        while let Some(option) = args.get(at) {
            if !stores && is_option(option, "withscores") {
                with_scores = true;
            } else if is_option(option, "limit") && at + 2 < args.len() {
                limit = Limit { offset: integer(args, at + 1)?, count: integer(args, at + 2)? };
                at += 2;
            } else if reverse.is_none() && is_option(option, "rev") {
                reverse = Some(true);
            } else if by.is_none() && is_option(option, "bylex") {
                by = Some(By::Name);
            } else if by.is_none() && is_option(option, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit.count != -1 && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Name {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // A reversed range by score or name is given from high to low.
        let swapped = reverse && by != By::Rank;
        let (low, high) = if swapped { (source + 2, source + 1) } else { (source + 1, source + 2) };
        Ok(Self { extent: Extent::parse(by, args, low, high)?, reverse, limit, with_scores })
    }

    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let ranks = self.extent.ranks(set, self.reverse);
        match self.extent {
            // An offset alone is accepted for ranks, and means nothing.
            Extent::Ranks(..) => ranks,
            _ => self.limit.cut(ranks, self.reverse),
        }
    }
}

fn read(
    cx: &Context<'_, '_>,
    args: Args<'_>,
    by: Option<By>,
    reverse: Option<bool>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let wanted = Wanted::parse(args, 1, Form { by, reverse, stores: false })?;
    let Some(set) = cx.sorted_set(argument(args, 1)?)? else {
        reply.array(0);
        return Ok(());
    };
    let ranks = wanted.ranks(set);
    let (count, scores) = (ranks.len(), wanted.with_scores);
    let entries = set.range(ranks).map(|(score, member)| (*score, &**member));
    if wanted.reverse {
        write_members(reply, count, scores, entries.rev());
    } else {
        write_members(reply, count, scores, entries);
    }
    Ok(())
}

/// `ZRANGE key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub(super) fn zrange(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, None, None, reply)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub(super) fn zrevrange(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Some(By::Rank), Some(true), reply)
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub(super) fn zrangebyscore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Some(By::Score), Some(false), reply)
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub(super) fn zrevrangebyscore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Some(By::Score), Some(true), reply)
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub(super) fn zrangebylex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Some(By::Name), Some(false), reply)
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub(super) fn zrevrangebylex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Some(By::Name), Some(true), reply)
}

/// `ZRANGESTORE target source start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count]`
pub(super) fn zrangestore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(args, 2, Form { by: None, reverse: None, stores: true })?;
    let set = cx.sorted_set(argument(args, 2)?)?;
    let entries: Vec<(Score, Arc<[u8]>)> =
        set.into_iter().flat_map(|set| set.range(wanted.ranks(set)).cloned()).collect();
    store(cx, argument(args, 1)?, &entries, reply);
    Ok(())
}

fn count(cx: &Context<'_, '_>, args: Args<'_>, by: By, reply: &mut Reply<'_>) -> Outcome {
    let extent = Extent::parse(by, args, 2, 3)?;
    let set = cx.sorted_set(argument(args, 1)?)?;
    reply.int(set.map_or(0, |set| count_of(extent.ranks(set, false).len())));
    Ok(())
}

/// `ZCOUNT key min max`
pub(super) fn zcount(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    count(cx, args, By::Score, reply)
}

/// `ZLEXCOUNT key min max`
pub(super) fn zlexcount(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    count(cx, args, By::Name, reply)
}

fn remove(cx: &mut Context<'_, '_>, args: Args<'_>, by: By, reply: &mut Reply<'_>) -> Outcome {
    let extent = Extent::parse(by, args, 2, 3)?;
    let key = argument(args, 1)?;
    let set = cx.sorted_set(key)?;
    let members: Vec<Arc<[u8]>> = set
        .into_iter()
        .flat_map(|set| set.range(extent.ranks(set, false)).map(|(_, member)| Arc::clone(member)))
        .collect();
    cx.edit(key, |edit| members.iter().for_each(|member| edit.score_remove(member)));
    reply.int(count_of(members.len()));
    Ok(())
}

/// `ZREMRANGEBYRANK key start stop`
pub(super) fn zremrangebyrank(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(cx, args, By::Rank, reply)
}

/// `ZREMRANGEBYSCORE key min max`
pub(super) fn zremrangebyscore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(cx, args, By::Score, reply)
}

/// `ZREMRANGEBYLEX key min max`
pub(super) fn zremrangebylex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    remove(cx, args, By::Name, reply)
}
