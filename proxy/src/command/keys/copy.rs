//! `RENAME`, `COPY`, `MOVE`: a key's content and deadline go elsewhere, as one op.

use smallvec::smallvec;

use super::super::table::PlacedKeys;
use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::keyspace::DATABASES;
use crate::resp::{Args, Reply, fmt};

/// `RENAME key newkey`.
pub(super) fn rename(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [from, to] = words(args);
    if cx.read(from).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    relocate(cx, from, cx.database(), to);
    reply.ok();
    Ok(())
}

/// `RENAMENX key newkey`.
pub(super) fn renamenx(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [from, to] = words(args);
    if cx.read(from).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    let free = cx.read(to).is_none();
    if free {
        relocate(cx, from, cx.database(), to);
    }
    reply.int(i64::from(free));
    Ok(())
}

/// Moves a key of the selected database. Onto itself is nothing to do.
fn relocate(cx: &mut Context<'_, '_>, from: &[u8], database: u8, to: &[u8]) {
    let source = (cx.database(), from);
    if source != (database, to) {
        cx.copy(source, (database, to));
        cx.edit(from, |edit| edit.clear());
    }
}

/// Reads the number of a database.
fn database(text: &[u8]) -> Result<u8, CommandError> {
    let number = fmt::parse_i64(text).ok_or(CommandError::NotInteger)?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    u8::try_from(number)
        .ok()
        .filter(|number| usize::from(*number) < DATABASES)
        .ok_or(CommandError::text("ERR DB index is out of range"))
}

const SAME: CommandError =
    CommandError::Text(std::borrow::Cow::Borrowed("ERR source and destination objects are the same"));

/// The options of `COPY`.
struct Copying {
    target: u8,
    replace: bool,
}

impl Copying {
    fn read(args: Args<'_>, selected: u8) -> Result<Self, CommandError> {
        let mut copying = Self { target: selected, replace: false };
        let mut words = args.tail(3).iter();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"replace") {
                copying.replace = true;
            } else if word.eq_ignore_ascii_case(b"db") {
                copying.target = database(words.next().ok_or(CommandError::Syntax)?)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(copying)
    }
}

/// The keys of `COPY`. Of one that will be refused, those in the selected database.
pub(super) fn copy_keys(args: Args<'_>, selected: u8) -> PlacedKeys<'_> {
    let [from, to] = words(args);
    let target = Copying::read(args, selected).map_or(selected, |copying| copying.target);
    smallvec![(selected, from), (target, to)]
}

/// `COPY key newkey [DB n] [REPLACE]`.
pub(super) fn copy(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [from, to] = words(args);
    let selected = cx.database();
    let Copying { target, replace } = Copying::read(args, selected)?;
    if (selected, from) == (target, to) {
        return Err(SAME);
    }
    let free = replace || cx.read_in(target, to).is_none();
    let copied = free && cx.copy((selected, from), (target, to));
    reply.int(i64::from(copied));
    Ok(())
}

/// The keys of `MOVE`. Of one that will be refused, that in the selected database.
pub(super) fn move_keys(args: Args<'_>, selected: u8) -> PlacedKeys<'_> {
    let [key, target] = words(args);
    smallvec![(selected, key), (database(target).unwrap_or(selected), key)]
}

/// `MOVE key db`.
pub(super) fn move_key(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, target] = words(args);
    let target = database(target)?;
    if target == cx.database() {
        return Err(SAME);
    }
    let moves = cx.read(key).is_some() && cx.read_in(target, key).is_none();
    if moves {
        relocate(cx, key, target, key);
    }
    reply.int(i64::from(moves));
    Ok(())
}
