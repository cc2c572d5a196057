//! `ZUNION`, `ZINTER`, `ZDIFF`, their storing forms, `ZINTERCARD`. Sets are inputs, too: each of
//! their members has the score 1.

use std::borrow::Cow;
use std::collections::HashMap;

use meridian_conflict::crdt::{Score, Set, SortedSet};
use meridian_conflict::op::Facet;

use super::{argument, count_of, integer, integer_from, is_option, store, write_members};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply, fmt};

/// One input, as it shows.
#[derive(Clone, Copy)]
enum Source<'c> {
    Missing,
    Set(&'c Set),
    SortedSet(&'c SortedSet),
}

impl<'c> Source<'c> {
    fn of(cx: &'c Context<'_, '_>, key: &[u8]) -> Result<Self, CommandError> {
        let Some(object) = cx.read(key) else { return Ok(Self::Missing) };
        let source = match object.facet() {
            Some(Facet::Set) => object.set().map(Self::Set),
            Some(Facet::SortedSet) => object.sorted_set().map(Self::SortedSet),
            _ => None,
        };
        source.ok_or(CommandError::WrongType)
    }

    fn len(self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Set(set) => set.len(),
            Self::SortedSet(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Missing => None,
            Self::Set(set) => set.contains(member).then_some(1.0),
            Self::SortedSet(set) => set.score(member).map(Score::get),
        }
    }

    fn members(self) -> Box<dyn Iterator<Item = (&'c [u8], f64)> + 'c> {
        match self {
            Self::Missing => Box::new(std::iter::empty()),
            Self::Set(set) => Box::new(set.members().keys().map(|member| (&**member, 1.0))),
            Self::SortedSet(set) => {
                Box::new(set.range(0..set.len()).map(|(score, member)| (&**member, score.get())))
            }
        }
    }
}

struct Input<'c> {
    source: Source<'c>,
    weight: f64,
}

impl Input<'_> {
    fn weighted(&self, score: f64) -> f64 {
        or_zero(score * self.weight)
    }
}

/// Infinities may meet zeros or each other; Redis calls that zero.
fn or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What is done with the inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// How the scores of one member combine.
#[derive(Clone, Copy, Default)]
enum Aggregate {
    #[default]
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(argument: &[u8]) -> Result<Self, CommandError> {
        match argument {
            a if is_option(a, "sum") => Ok(Self::Sum),
            a if is_option(a, "min") => Ok(Self::Min),
            a if is_option(a, "max") => Ok(Self::Max),
            _ => Err(CommandError::Syntax),
        }
    }

    fn join(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Sum => or_zero(one + other),
            Self::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Self::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// What a command of this module asks for, its inputs found.
struct Wanted<'c> {
    inputs: Vec<Input<'c>>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Of `ZINTERCARD`; 0 is none.
    limit: usize,
}

/// Which options are understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Reads,
    Stores,
    Counts,
}

impl<'c> Wanted<'c> {
    /// Reads the arguments from the number of keys, at index `at`, on. As in Redis, an input of
    /// another type is complained about before an odd option.
    fn parse(
        cx: &'c Context<'_, '_>,
        args: Args<'_>,
        at: usize,
        operation: Operation,
        form: Form,
    ) -> Result<Self, CommandError> {
        let number = integer(args, at)?;
        if number < 1 {
            let name = args.first().unwrap_or_default().to_ascii_lowercase();
            let name = String::from_utf8_lossy(&name);
            return Err(CommandError::Text(Cow::Owned(format!(
                "ERR at least 1 input key is needed for '{name}' command"
            ))));
        }
        let keys = usize::try_from(number).unwrap_or(usize::MAX);
        if keys > args.len().saturating_sub(at + 1) {
            return Err(CommandError::Syntax);
        }
        let inputs = args.tail(at + 1).iter().take(keys);
        let inputs = inputs.map(|key| Ok(Input { source: Source::of(cx, key)?, weight: 1.0 }));
        let mut wanted = Self {
            inputs: inputs.collect::<Result<_, CommandError>>()?,
            aggregate: Aggregate::default(),
            with_scores: false,
            limit: 0,
        };
        wanted.options(args.tail(at + 1 + keys), operation, form)?;
        if operation != Operation::Diff {
            // The smallest first: an intersection is no larger.
            wanted.inputs.sort_by_key(|input| input.source.len());
        }
        Ok(wanted)
    }

    fn options(&mut self, args: Args<'_>, operation: Operation, form: Form) -> Result<(), CommandError> {
        let weighs = operation != Operation::Diff && form != Form::Counts;
        let mut at = 0;
        while let Some(option) = args.get(at) {
            let following = args.len() - at - 1;
            at += 1;
            if weighs && following >= self.inputs.len() && is_option(option, "weights") {
                for input in &mut self.inputs {
                    input.weight = fmt::parse_f64(argument(args, at)?)
                        .ok_or(CommandError::text("ERR weight value is not a float"))?;
                    at += 1;
                }
            } else if weighs && following >= 1 && is_option(option, "aggregate") {
                self.aggregate = Aggregate::parse(argument(args, at)?)?;
                at += 1;
            } else if form == Form::Reads && is_option(option, "withscores") {
                self.with_scores = true;
            } else if form == Form::Counts && following >= 1 && is_option(option, "limit") {
                self.limit = integer_from(args, at, 0, "ERR LIMIT can't be negative")?;
                at += 1;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(())
    }

    /// The members in all inputs with their scores.
    fn common(&self) -> impl Iterator<Item = (&'c [u8], f64)> + '_ {
        let (first, others) = match self.inputs.split_first() {
            Some((first, others)) => (Some(first), others),
            None => (None, self.inputs.as_slice()),
        };
        first
            .into_iter()
            .flat_map(|first| first.source.members().map(|(m, s)| (m, first.weighted(s))))
            .filter_map(move |(member, score)| {
                let score = others.iter().try_fold(score, |score, input| {
                    let other = input.source.score(member)? * input.weight;
                    Some(self.aggregate.join(score, other))
                })?;
                Some((member, score))
            })
    }

    /// The result in order.
    fn combine(&self, operation: Operation) -> Vec<(Score, &'c [u8])> {
        let scored = |(member, score)| Some((Score::new(score)?, member));
        let mut result: Vec<(Score, &'c [u8])> = match operation {
            Operation::Inter => self.common().filter_map(scored).collect(),
            Operation::Union => self.union().into_iter().filter_map(scored).collect(),
            Operation::Diff => self.difference().filter_map(scored).collect(),
        };
        result.sort_unstable();
        result
    }

    fn union(&self) -> HashMap<&'c [u8], f64> {
        let mut union = HashMap::new();
        for input in &self.inputs {
            for (member, score) in input.source.members() {
                let score = input.weighted(score);
                union
                    .entry(member)
                    .and_modify(|known| *known = self.aggregate.join(*known, score))
                    .or_insert(score);
            }
        }
        union
    }

    fn difference(&self) -> impl Iterator<Item = (&'c [u8], f64)> + '_ {
        let first = self.inputs.iter().take(1).flat_map(|input| input.source.members());
        first.filter(|(member, _)| {
            !self.inputs.iter().skip(1).any(|other| other.source.score(member).is_some())
        })
    }
}

fn read(cx: &Context<'_, '_>, args: Args<'_>, operation: Operation, reply: &mut Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(cx, args, 1, operation, Form::Reads)?;
    let result = wanted.combine(operation);
    write_members(reply, result.len(), wanted.with_scores, result.into_iter());
    Ok(())
}

/// `ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub(super) fn zunion(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Operation::Union, reply)
}

/// `ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub(super) fn zinter(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Operation::Inter, reply)
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
pub(super) fn zdiff(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    read(cx, args, Operation::Diff, reply)
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
pub(super) fn zintercard(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(cx, args, 1, Operation::Inter, Form::Counts)?;
    let limit = if wanted.limit == 0 { usize::MAX } else { wanted.limit };
    reply.int(count_of(wanted.common().take(limit).count()));
    Ok(())
}

fn write(cx: &mut Context<'_, '_>, args: Args<'_>, operation: Operation, reply: &mut Reply<'_>) -> Outcome {
    let wanted = Wanted::parse(cx, args, 2, operation, Form::Stores)?;
    let result = wanted.combine(operation).into_iter();
    let result: Vec<(Score, Box<[u8]>)> = result.map(|(score, member)| (score, member.into())).collect();
    store(cx, argument(args, 1)?, &result, reply);
    Ok(())
}

/// `ZUNIONSTORE target numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]`
pub(super) fn zunionstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    write(cx, args, Operation::Union, reply)
}

/// `ZINTERSTORE target numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]`
pub(super) fn zinterstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    write(cx, args, Operation::Inter, reply)
}

/// `ZDIFFSTORE target numkeys key [key ...]`
pub(super) fn zdiffstore(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    write(cx, args, Operation::Diff, reply)
}
