//! Strings and counters.
//!
//! | module | commands |
//! |---|---|
//! | [`assign`] | `SET` and its relatives, `GET`, `GETDEL`, `GETEX` |
//! | [`many`] | `MGET`, `MSET`, `MSETNX` |
//! | [`range`] | `APPEND`, `STRLEN`, `SETRANGE`, `GETRANGE` |
//! | [`counter`] | `INCR` and its relatives: deltas, never assignments |
//! | [`lcs`] | `LCS` |
//! | [`when`] | deadlines as arguments say them |

mod assign;
mod counter;
mod lcs;
mod many;
mod range;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub(super) mod when;

use meridian_conflict::edit::Editor;
use meridian_conflict::op::Facet;
use meridian_conflict::scalar::{Scalar, Value};

use super::table::{ONE, REST, TWO};
use super::{Command, CommandError, Family, Flags, Handler, Keys};
use crate::resp::Args;

const READ: Flags = Flags::READONLY;
const FAST_READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::DENY_OOM);
const FAST_WRITE: Flags = WRITE.and(Flags::FAST);

/// Key, value, key, value.
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

const fn command(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command { name, arity, flags, keys, family: Family::String, handler }
}

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    command("get", 2, FAST_READ, ONE, assign::get),
    command("set", -3, WRITE, ONE, assign::set),
    command("setnx", 3, FAST_WRITE, ONE, assign::setnx),
    command("setex", 4, WRITE, ONE, assign::setex),
    command("psetex", 4, WRITE, ONE, assign::psetex),
    command("getset", 3, FAST_WRITE, ONE, assign::getset),
    command("getdel", 2, Flags::WRITE.and(Flags::FAST), ONE, assign::getdel),
    command("getex", -2, Flags::WRITE.and(Flags::FAST), ONE, assign::getex),
    command("mget", -2, FAST_READ, REST, many::mget),
    command("mset", -3, WRITE, PAIRS, many::mset),
    command("msetnx", -3, WRITE, PAIRS, many::msetnx),
    command("append", 3, FAST_WRITE, ONE, range::append),
    command("strlen", 2, FAST_READ, ONE, range::strlen),
    command("setrange", 4, WRITE, ONE, range::setrange),
    command("getrange", 4, READ, ONE, range::getrange),
    command("substr", 4, READ, ONE, range::getrange),
    command("incr", 2, FAST_WRITE, ONE, counter::incr),
    command("decr", 2, FAST_WRITE, ONE, counter::decr),
    command("incrby", 3, FAST_WRITE, ONE, counter::incrby),
    command("decrby", 3, FAST_WRITE, ONE, counter::decrby),
    command("incrbyfloat", 3, FAST_WRITE, ONE, counter::incrbyfloat),
    command("lcs", -3, READ, TWO, lcs::lcs),
];

/// The first `N` arguments after the name. The table's arity has made sure of them.
pub(super) fn words<const N: usize>(args: Args<'_>) -> [&[u8]; N] {
    std::array::from_fn(|at| args.get(at + 1).unwrap_or_default())
}

/// The string that the edited key shows.
fn shown_string<'a>(edit: &Editor<'a, '_>) -> Result<Option<&'a Scalar<Value>>, CommandError> {
    match edit.shown() {
        Some(object) if object.facet() == Some(Facet::String) => Ok(object.string()),
        Some(_) => Err(CommandError::WrongType),
        None => Ok(None),
    }
}
