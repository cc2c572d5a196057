//! What the two ends of a range mean: ranks, scores or names.

use std::ops::Range;

use meridian_conflict::crdt::{Score, SortedSet};

use super::{argument, integer};
use crate::command::CommandError;
use crate::resp::Args;

/// A score at the end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScoreEnd {
    score: Score,
    exclusive: bool,
}

/// A name at the end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NameEnd<'a> {
    /// `-`: before every name.
    Least,
    /// `[name`
    Inclusive(&'a [u8]),
    /// `(name`
    Exclusive(&'a [u8]),
    /// `+`: after every name.
    Greatest,
}

/// By what a range selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Place in the order; negative from the end.
    Rank,
    /// Score.
    Score,
    /// Name, for members of one score.
    Name,
}

/// Which members a range selects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent<'a> {
    /// First and last rank.
    Ranks(i64, i64),
    /// Lowest and highest score.
    Scores(ScoreEnd, ScoreEnd),
    /// Least and greatest name. Of members with different scores any may be selected, as in Redis.
    Names(NameEnd<'a>, NameEnd<'a>),
}

/// `LIMIT offset count`, in the direction of the range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// How many are passed over; negative: all.
    pub(super) offset: i64,
    /// How many are taken; negative: all.
    pub(super) count: i64,
}

impl<'a> Extent<'a> {
    /// Reads the ends at the given indices.
    pub(super) fn parse(by: By, args: Args<'a>, low: usize, high: usize) -> Result<Self, CommandError> {
        if by == By::Rank {
            return Ok(Self::Ranks(integer(args, low)?, integer(args, high)?));
        }
        let (low, high) = (argument(args, low)?, argument(args, high)?);
        let (ends, text) = match by {
            By::Name => (
                name_end(low).zip(name_end(high)).map(|(low, high)| Self::Names(low, high)),
                "ERR min or max not valid string range item",
            ),
            _ => (
                score_end(low).zip(score_end(high)).map(|(low, high)| Self::Scores(low, high)),
                "ERR min or max is not a float",
            ),
        };
        ends.ok_or(CommandError::text(text))
    }

    /// The ranks selected, lowest score first. With `reverse`, ranks count from the highest score.
    pub(super) fn ranks(&self, set: &SortedSet, reverse: bool) -> Range<usize> {
        let order = set.order();
        let selected = match self {
            Self::Ranks(first, last) => {
                let ranks = places(*first, *last, set.len());
                if reverse { set.len() - ranks.end..set.len() - ranks.start } else { ranks }
            }
            Self::Scores(low, high) => {
                let start = order
                    .partition_point(|entry| entry.0 < low.score || (low.exclusive && entry.0 == low.score));
                let end = order.partition_point(|entry| {
                    entry.0 < high.score || (!high.exclusive && entry.0 == high.score)
                });
                start..end
            }
            Self::Names(low, high) => {
                let start = order.partition_point(|entry| low.is_after(&entry.1, false));
                let end = order.partition_point(|entry| high.is_after(&entry.1, true));
                start..end
            }
        };
        selected.start.min(selected.end)..selected.end
    }
}

impl NameEnd<'_> {
    /// Whether this end lies after `name`; an inclusive end that equals it counts as `equal` says.
    fn is_after(self, name: &[u8], equal: bool) -> bool {
        match self {
            Self::Least => false,
            Self::Inclusive(end) => name < end || (equal && name == end),
            Self::Exclusive(end) => name < end || (!equal && name == end),
            Self::Greatest => true,
        }
    }
}

impl Limit {
    /// What is left of `ranks`, walked from the front or, with `reverse`, from the back.
    pub(super) fn cut(self, ranks: Range<usize>, reverse: bool) -> Range<usize> {
        let Ok(offset) = usize::try_from(self.offset) else { return ranks.start..ranks.start };
        let length = ranks.len().saturating_sub(offset);
        let taken = usize::try_from(self.count).map_or(length, |count| count.min(length));
        if reverse {
            let end = ranks.end - offset.min(ranks.len());
            end - taken..end
        } else {
            let start = ranks.start + offset.min(ranks.len());
            start..start + taken
        }
    }
}

/// The places that `first` to `last` mean in a list of `length`; negative ones count from the end.
fn places(first: i64, last: i64, length: usize) -> Range<usize> {
    let from_end = |place: i64| {
        if place < 0 { place.saturating_add(super::count_of(length)) } else { place }
    };
    let start = usize::try_from(from_end(first)).unwrap_or_default();
    let end = usize::try_from(from_end(last).saturating_add(1)).unwrap_or_default().min(length);
    start.min(end)..end
}

fn score_end(text: &[u8]) -> Option<ScoreEnd> {
    let (exclusive, text) = match text {
        [b'(', text @ ..] => (true, text),
        text => (false, text),
    };
    Some(ScoreEnd { score: Score::new(leniently(text)?)?, exclusive })
}

/// A double as `strtod` reads it: unlike a score that is stored, it may have blanks before it, be
/// nothing (zero), or overflow.
fn leniently(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r');
    let start = text.iter().position(|byte| !blank(byte))?;
    std::str::from_utf8(text.get(start..)?).ok()?.parse().ok()
}

fn name_end(text: &[u8]) -> Option<NameEnd<'_>> {
    match text {
        b"-" => Some(NameEnd::Least),
        b"+" => Some(NameEnd::Greatest),
        [b'[', name @ ..] => Some(NameEnd::Inclusive(name)),
        [b'(', name @ ..] => Some(NameEnd::Exclusive(name)),
        _ => None,
    }
}
