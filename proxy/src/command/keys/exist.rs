//! Whether keys are there, and making them go.

use std::collections::HashSet;

use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::keyspace::{DATABASES, KeyRef};
use crate::resp::{Args, Reply};

/// So many keys are compared one by one; for more a table is worth it.
const FEW: usize = 8;

/// Calls `each` once for every distinct key.
fn for_distinct<'a>(keys: Args<'a>, mut each: impl FnMut(&'a [u8])) {
    let mut seen = HashSet::new();
    for (at, key) in keys.iter().enumerate() {
        let new = match keys.len() {
            0..=FEW => !keys.iter().take(at).any(|earlier| earlier == key),
            _ => seen.insert(key),
        };
        if new {
            each(key);
        }
    }
}

/// `DEL key...`, `UNLINK key...`.
pub(super) fn del(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for_distinct(args.tail(1), |key| {
        cx.edit(key, |edit| {
            if edit.shown().is_some() {
                edit.clear();
                count += 1;
            }
        });
    });
    reply.int(count);
    Ok(())
}

/// `EXISTS key...`: a key named twice counts twice.
pub(super) fn exists(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = args.tail(1).iter().filter(|key| cx.read(key).is_some()).count();
    reply.int(count as i64);
    Ok(())
}

/// `TOUCH key...`: as `EXISTS`, and they count as used.
pub(super) fn touch(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for key in args.tail(1) {
        if cx.read(key).is_some() {
            let key = KeyRef::new(cx.database, key);
            cx.locked.touch(&key);
            count += 1;
        }
    }
    reply.int(count);
    Ok(())
}

/// `TYPE key`.
pub(super) fn type_of(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    let facet = cx.read(key).and_then(|object| object.facet());
    reply.simple(facet.map_or("none", |facet| facet.name()));
    Ok(())
}

/// `DBSIZE`. Expired keys count until they are cleared, as in Redis.
pub(super) fn dbsize(cx: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count = cx.region().keyspace().len(cx.database());
    reply.int(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

/// `ASYNC` and `SYNC` are the same here: one op.
fn check_mode(args: Args<'_>) -> Result<(), CommandError> {
    let known = |mode: &[u8]| mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync");
    match args.get(1) {
        Some(mode) if args.len() > 2 || !known(mode) => Err(CommandError::Syntax),
        _ => Ok(()),
    }
}

/// `FLUSHDB [ASYNC | SYNC]`.
pub(super) fn flushdb(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_mode(args)?;
    cx.flush(cx.database())?;
    reply.ok();
    Ok(())
}

/// `FLUSHALL [ASYNC | SYNC]`.
pub(super) fn flushall(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_mode(args)?;
    for database in 0..DATABASES as u8 {
        cx.flush(database)?;
    }
    reply.ok();
    Ok(())
}
