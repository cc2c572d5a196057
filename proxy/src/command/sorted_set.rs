//! Sorted sets: `ZADD` to `ZUNIONSTORE`.
//!
//! | module | commands |
//! |---|---|
//! | `add` | `ZADD`, `ZINCRBY`, `ZREM` |
//! | `extent` | what a range argument means: ranks, scores or names |
//! | `range` | `ZRANGE` and its relatives, `ZRANGESTORE`, `ZCOUNT`, `ZREMRANGEBY*` |
//! | `look` | `ZCARD`, `ZSCORE`, `ZRANK`, `ZRANDMEMBER`, `ZSCAN` |
//! | `pop` | `ZPOPMIN`, `ZPOPMAX`, `ZMPOP` |
//! | `combine` | `ZUNION`, `ZINTER`, `ZDIFF`, their storing forms, `ZINTERCARD` |

mod add;
mod combine;
mod extent;
mod look;
mod pop;
mod range;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use meridian_conflict::crdt::Score;

use super::table::{ONE, TWO};
use super::{Command, CommandError, Context, Family, Flags, Handler, Keys};
use crate::resp::{Args, Protocol, Reply, fmt};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENY_OOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);

/// A count at index 1, the keys after it.
const COUNTED: Keys = Keys::Counted { count: 1, target: 0 };

/// The key that is written at index 1, a count at 2, the keys that are read after it.
const STORING: Keys = Keys::Counted { count: 2, target: 1 };

const fn command(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command { name, arity, flags, keys, family: Family::SortedSet, handler }
}

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    command("zadd", -4, GROW_FAST, ONE, add::zadd),
    command("zincrby", 4, GROW_FAST, ONE, add::zincrby),
    command("zrem", -3, WRITE_FAST, ONE, add::zrem),
    command("zcard", 2, READ_FAST, ONE, look::zcard),
    command("zscore", 3, READ_FAST, ONE, look::zscore),
    command("zmscore", -3, READ_FAST, ONE, look::zmscore),
    command("zrank", -3, READ_FAST, ONE, look::zrank),
    command("zrevrank", -3, READ_FAST, ONE, look::zrevrank),
    command("zrandmember", -2, READ, ONE, look::zrandmember),
    command("zscan", -3, READ, ONE, look::zscan),
    command("zcount", 4, READ_FAST, ONE, range::zcount),
    command("zlexcount", 4, READ_FAST, ONE, range::zlexcount),
    command("zrange", -4, READ, ONE, range::zrange),
    command("zrangestore", -5, GROW, TWO, range::zrangestore),
    command("zrevrange", -4, READ, ONE, range::zrevrange),
    command("zrangebyscore", -4, READ, ONE, range::zrangebyscore),
    command("zrevrangebyscore", -4, READ, ONE, range::zrevrangebyscore),
    command("zrangebylex", -4, READ, ONE, range::zrangebylex),
    command("zrevrangebylex", -4, READ, ONE, range::zrevrangebylex),
    command("zremrangebyrank", 4, WRITE, ONE, range::zremrangebyrank),
    command("zremrangebyscore", 4, WRITE, ONE, range::zremrangebyscore),
    command("zremrangebylex", 4, WRITE, ONE, range::zremrangebylex),
    command("zpopmin", -2, WRITE_FAST, ONE, pop::zpopmin),
    command("zpopmax", -2, WRITE_FAST, ONE, pop::zpopmax),
    command("zmpop", -4, WRITE, COUNTED, pop::zmpop),
    command("zunion", -3, READ, COUNTED, combine::zunion),
    command("zinter", -3, READ, COUNTED, combine::zinter),
    command("zdiff", -3, READ, COUNTED, combine::zdiff),
    command("zintercard", -3, READ, COUNTED, combine::zintercard),
    command("zunionstore", -4, GROW, STORING, combine::zunionstore),
    command("zinterstore", -4, GROW, STORING, combine::zinterstore),
    command("zdiffstore", -4, GROW, STORING, combine::zdiffstore),
];

/// The argument at `index`. Arities make sure of most; the rest is a syntax error.
fn argument<'a>(args: Args<'a>, index: usize) -> Result<&'a [u8], CommandError> {
    args.get(index).ok_or(CommandError::Syntax)
}

/// The argument at `index` as an integer.
fn integer(args: Args<'_>, index: usize) -> Result<i64, CommandError> {
    fmt::parse_i64(argument(args, index)?).ok_or(CommandError::NotInteger)
}

/// The argument at `index` as an integer of at least `least`, or else an error of the given text.
fn integer_from(args: Args<'_>, index: usize, least: i64, text: &'static str) -> Result<usize, CommandError> {
    fmt::parse_i64(argument(args, index)?)
        .filter(|number| *number >= least)
        .and_then(|number| usize::try_from(number).ok())
        .ok_or(CommandError::text(text))
}

/// Whether `argument` is the option `name`, in any case.
fn is_option(argument: &[u8], name: &str) -> bool {
    argument.eq_ignore_ascii_case(name.as_bytes())
}

/// Writes `count` members, with their scores if wanted: as pairs in RESP3, flat in RESP2.
fn write_members<'m>(
    reply: &mut Reply<'_>,
    count: usize,
    with_scores: bool,
    entries: impl Iterator<Item = (Score, &'m [u8])>,
) {
    let pairs = with_scores && reply.protocol() == Protocol::Resp3;
    reply.array(if with_scores && !pairs { count.saturating_mul(2) } else { count });
    for (score, member) in entries.take(count) {
        if pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            reply.double(score.get());
        }
    }
}

/// Makes the key the given sorted set, whatever it was; no entries remove it. Replies their number.
fn store<M: AsRef<[u8]>>(
    cx: &mut Context<'_, '_>,
    key: &[u8],
    entries: &[(Score, M)],
    reply: &mut Reply<'_>,
) {
    if !entries.is_empty() || cx.read(key).is_some() {
        cx.edit(key, |edit| {
            edit.clear();
            for (score, member) in entries {
                edit.score_assign(member.as_ref(), *score);
            }
        });
    }
    reply.int(count_of(entries.len()));
}

/// A number of members as replies have it.
fn count_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
