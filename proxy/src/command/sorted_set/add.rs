//! `ZADD`, `ZINCRBY`, `ZREM`.

use std::collections::HashMap;

use meridian_conflict::amount::Amount;
use meridian_conflict::crdt::{Score, SortedSet};
use meridian_conflict::scalar::Scalar;
use smallvec::SmallVec;

use super::{argument, count_of, is_option};
use crate::command::execute::NAME_MAX;
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply, fmt};

/// A score and its member, as typed.
type Pairs<'a> = SmallVec<[(f64, &'a [u8]); 4]>;

#[derive(Clone, Copy, Debug, Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    changed: bool,
    increment: bool,
}

impl Options {
    /// Reads the options from index 2 on; returns the index of the first score, too.
    fn parse(args: Args<'_>, increment: bool) -> (Self, usize) {
        let mut options = Self { increment, ..Self::default() };
        let mut at = 2;
        while let Some(argument) = args.get(at) {
            let option = match argument {
                a if is_option(a, "nx") => &mut options.nx,
                a if is_option(a, "xx") => &mut options.xx,
                a if is_option(a, "gt") => &mut options.gt,
                a if is_option(a, "lt") => &mut options.lt,
                a if is_option(a, "ch") => &mut options.changed,
                a if is_option(a, "incr") => &mut options.increment,
                _ => break,
            };
            *option = true;
            at += 1;
        }
        (options, at)
    }

    fn check(self, pairs: usize) -> Result<(), CommandError> {
        if self.nx && self.xx {
            return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
        }
        if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            return Err(CommandError::text(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && pairs > 1 {
            return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// Whether a member with the score `current` may get the score `new`.
    fn allow(self, current: Option<Score>, new: Score) -> bool {
        match current {
            None => !self.xx,
            Some(current) => !(self.nx || (self.lt && new >= current) || (self.gt && new <= current)),
        }
    }
}

/// `ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]`
pub(super) fn zadd(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(cx, args, false, reply)
}

/// `ZINCRBY key increment member`
pub(super) fn zincrby(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(cx, args, true, reply)
}

fn add(cx: &mut Context<'_, '_>, args: Args<'_>, increment: bool, reply: &mut Reply<'_>) -> Outcome {
    let key = argument(args, 1)?;
    let (options, first) = Options::parse(args, increment);
    let words = args.tail(first);
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    options.check(words.len() / 2)?;
    let mut pairs = Pairs::new();
    let mut words = words.iter();
    while let (Some(score), Some(member)) = (words.next(), words.next()) {
        pairs.push((fmt::parse_f64(score).ok_or(CommandError::NotFloat)?, member));
    }
    if let Some((_, long)) = pairs.iter().find(|(_, member)| member.len() > NAME_MAX) {
        return Err(CommandError::NameTooLong { length: long.len(), limit: NAME_MAX });
    }
    match pairs.as_slice() {
        [(by, member)] if options.increment => add_to_score(cx, key, options, *by, member, reply),
        pairs => assign_scores(cx, key, options, pairs, reply),
    }
}

/// A member that a `ZADD` names, as it is after the pairs read so far.
struct Settled<'a> {
    member: &'a [u8],
    score: Option<Score>,
    write: bool,
}

/// The members that a `ZADD` names, each once, in the order first named.
struct Settling<'a> {
    members: SmallVec<[Settled<'a>; 4]>,
    /// Where each is; only kept when there are many, for a few are searched faster.
    places: Option<HashMap<&'a [u8], usize>>,
}

impl<'a> Settling<'a> {
    fn new(pairs: usize) -> Self {
        Self { members: SmallVec::new(), places: (pairs > 8).then(HashMap::new) }
    }

    fn member(&mut self, member: &'a [u8], set: Option<&SortedSet>) -> Option<&mut Settled<'a>> {
        let next = self.members.len();
        let at = match &mut self.places {
            Some(places) => *places.entry(member).or_insert(next),
            None => self.members.iter().position(|known| known.member == member).unwrap_or(next),
        };
        if at == next {
            let score = set.and_then(|set| set.score(member));
            self.members.push(Settled { member, score, write: false });
        }
        self.members.get_mut(at)
    }
}

fn assign_scores(
    cx: &mut Context<'_, '_>,
    key: &[u8],
    options: Options,
    pairs: &[(f64, &[u8])],
    reply: &mut Reply<'_>,
) -> Outcome {
    let set = cx.sorted_set(key)?;
    let mut settling = Settling::new(pairs.len());
    let (mut added, mut updated) = (0, 0);
    for (score, member) in pairs {
        let score = Score::new(*score).ok_or(CommandError::NotFloat)?;
        let Some(settled) = settling.member(member, set) else { continue };
        if !options.allow(settled.score, score) {
            continue;
        }
        match settled.score {
            None => added += 1,
            Some(current) => updated += i64::from(current != score),
        }
        // A score that stays is said again: it beats a concurrent removal.
        (settled.score, settled.write) = (Some(score), true);
    }
    let written = settling.members.iter().filter(|settled| settled.write);
    cx.edit(key, |edit| {
        for settled in written {
            if let Some(score) = settled.score {
                edit.score_assign(settled.member, score);
            }
        }
    });
    reply.int(if options.changed { added + updated } else { added });
    Ok(())
}

fn add_to_score(
    cx: &mut Context<'_, '_>,
    key: &[u8],
    options: Options,
    by: f64,
    member: &[u8],
    reply: &mut Reply<'_>,
) -> Outcome {
    let known = cx.sorted_set(key)?.and_then(|set| set.member(member));
    let current = known.and_then(Scalar::<Score>::shown);
    if (options.nx && current.is_some()) || (options.xx && current.is_none()) {
        reply.null();
        return Ok(());
    }
    let sum = current.map_or(by, |current| current.get() + by);
    let plain = Score::new(sum).ok_or(CommandError::text("ERR resulting score is not a number (NaN)"))?;
    // What cannot be summed exactly, because it is or becomes infinite, is assigned.
    let amount = Amount::from_f64(by);
    let exact = amount.as_ref().and_then(|amount| shown_after(known, amount));
    let new = exact.unwrap_or(plain);
    if !options.allow(current, new) {
        reply.null();
        return Ok(());
    }
    cx.edit(key, |edit| match amount.filter(|_| exact.is_some()) {
        Some(amount) => edit.score_add(member, &amount),
        None => edit.score_assign(member, plain),
    });
    reply.double(new.get());
    Ok(())
}

/// The score that shows once `amount` is added; `None` when a finite score would become infinite.
fn shown_after(known: Option<&Scalar<Score>>, amount: &Amount) -> Option<Score> {
    let base = match known.and_then(|scalar| scalar.winner()) {
        Some(winner) => match Amount::from_f64(winner.value.get()) {
            Some(base) => base,
            // Nothing finite moves an infinite score.
            None => return Some(winner.value),
        },
        None => Amount::default(),
    };
    let live = known.and_then(Scalar::live_sum).unwrap_or_default();
    let sum = base.plus(&live).plus(amount).to_f64();
    Score::new(sum).filter(|score| score.get().is_finite())
}

/// `ZREM key member [member ...]`
pub(super) fn zrem(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = argument(args, 1)?;
    let Some(set) = cx.sorted_set(key)? else {
        reply.int(0);
        return Ok(());
    };
    let mut members: SmallVec<[&[u8]; 4]> =
        args.tail(2).iter().filter(|member| set.score(member).is_some()).collect();
    members.sort_unstable();
    members.dedup();
    cx.edit(key, |edit| members.iter().for_each(|member| edit.score_remove(member)));
    reply.int(count_of(members.len()));
    Ok(())
}
