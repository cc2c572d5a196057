//! Commands for keys of any type.
//!
//! | module | commands |
//! |---|---|
//! | [`exist`] | `DEL`, `EXISTS`, `TYPE`, `TOUCH`, `DBSIZE`, `FLUSHDB`, `FLUSHALL` |
//! | [`expire`] | deadlines |
//! | [`copy`] | `RENAME`, `COPY`, `MOVE` |
//! | [`object`] | `OBJECT`, `MEMORY` |
//! | [`scan`] | `SCAN`, `KEYS`, `RANDOMKEY`: their arguments, and running them inside `MULTI` |
//! | [`walk`] | running those outside of `MULTI`, in pieces |

mod copy;
mod exist;
mod expire;
mod object;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(in crate::command) mod tests;
pub mod walk;

use super::string::words;
use super::table::{ONE, REST, TWO};
use super::{Command, Family, Flags, Handler, Keys};

const READ: Flags = Flags::READONLY;
const FAST_READ: Flags = Flags::READONLY.and(Flags::FAST);
const PEEK: Flags = FAST_READ.and(Flags::NO_TOUCH);
const WRITE: Flags = Flags::WRITE;
const FAST_WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const WALK: Flags = Flags::READONLY.and(Flags::WALK);

/// The key after a subcommand.
const AFTER_SUBCOMMAND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

const fn command(name: &'static str, arity: i32, flags: Flags, keys: Keys, handler: Handler) -> Command {
    Command { name, arity, flags, keys, family: Family::Keys, handler }
}

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    command("del", -2, WRITE, REST, exist::del),
    command("unlink", -2, FAST_WRITE, REST, exist::del),
    command("exists", -2, FAST_READ, REST, exist::exists),
    command("touch", -2, FAST_READ, REST, exist::touch),
    command("type", 2, PEEK, ONE, exist::type_of),
    command("dbsize", 1, FAST_READ, Keys::None, exist::dbsize),
    command("flushdb", -1, WRITE, Keys::All, exist::flushdb),
    command("flushall", -1, WRITE, Keys::All, exist::flushall),
    command("expire", -3, FAST_WRITE, ONE, expire::expire),
    command("pexpire", -3, FAST_WRITE, ONE, expire::pexpire),
    command("expireat", -3, FAST_WRITE, ONE, expire::expireat),
    command("pexpireat", -3, FAST_WRITE, ONE, expire::pexpireat),
    command("expiretime", 2, PEEK, ONE, expire::expiretime),
    command("pexpiretime", 2, PEEK, ONE, expire::pexpiretime),
    command("ttl", 2, PEEK, ONE, expire::ttl),
    command("pttl", 2, PEEK, ONE, expire::pttl),
    command("persist", 2, FAST_WRITE, ONE, expire::persist),
    command("rename", 3, WRITE, TWO, copy::rename),
    command("renamenx", 3, FAST_WRITE, TWO, copy::renamenx),
    command("copy", -3, WRITE.and(Flags::DENY_OOM), Keys::Elsewhere(copy::copy_keys), copy::copy),
    command("move", 3, FAST_WRITE, Keys::Elsewhere(copy::move_keys), copy::move_key),
    command("object", -2, READ.and(Flags::NO_TOUCH), AFTER_SUBCOMMAND, object::object),
    command("memory", -2, READ, AFTER_SUBCOMMAND, object::memory),
    command("scan", -2, WALK, Keys::All, scan::scan),
    command("keys", 2, WALK, Keys::All, scan::keys),
    command("randomkey", 1, WALK, Keys::All, scan::randomkey),
];
