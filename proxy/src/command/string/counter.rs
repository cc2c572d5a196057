//! Counters. An increment travels as what it adds, so concurrent ones sum up.

use meridian_conflict::amount::Amount;
use meridian_conflict::scalar::{Scalar, Value};

use super::super::{CommandError, Context, Outcome};
use super::{shown_string, words};
use crate::resp::{Args, Reply, fmt};

/// `INCR key`.
pub(super) fn incr(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(cx, args, 1, reply)
}

/// `DECR key`.
pub(super) fn decr(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(cx, args, -1, reply)
}

/// `INCRBY key amount`.
pub(super) fn incrby(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [_, by] = words(args);
    add(cx, args, fmt::parse_i64(by).ok_or(CommandError::NotInteger)?, reply)
}

/// `DECRBY key amount`.
pub(super) fn decrby(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [_, by] = words(args);
    let by = fmt::parse_i64(by).ok_or(CommandError::NotInteger)?;
    let by = by.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(cx, args, by, reply)
}

fn add(cx: &mut Context<'_, '_>, args: Args<'_>, by: i64, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    let sum = cx.edit(key, |edit| {
        let old = match shown_string(edit)? {
            Some(string) => integer(string).ok_or(CommandError::NotInteger)?,
            None => 0,
        };
        let overflow = CommandError::text("ERR increment or decrement would overflow");
        let sum = old.checked_add(by).ok_or(overflow)?;
        edit.add(&Amount::from(by));
        Ok::<_, CommandError>(sum)
    })?;
    reply.int(sum);
    Ok(())
}

/// The integer that a string shows, if it shows one.
fn integer(string: &Scalar<Value>) -> Option<i64> {
    // The usual counter, without a detour over text.
    match (string.winner(), string.live_sum()) {
        (Some(base), None) => return fmt::parse_i64(&base.value),
        (None, Some(Amount::Whole(sum))) => return Some(sum),
        _ => {}
    }
    fmt::parse_i64(&string.shown()?)
}

/// `INCRBYFLOAT key amount`: exact decimals, where Redis has a long double.
pub(super) fn incrbyfloat(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, by] = words(args);
    let sum = cx.edit(key, |edit| {
        let old = match shown_string(edit)? {
            Some(string) => decimal(string)?,
            None => Amount::default(),
        };
        let by = number(by)?;
        let sum = old.plus(&by);
        edit.add(&by);
        Ok::<_, CommandError>(sum)
    })?;
    reply.bulk(sum.to_text().as_bytes());
    Ok(())
}

/// Reads a number to add.
fn number(text: &[u8]) -> Result<Amount, CommandError> {
    Amount::parse(text).ok_or_else(|| match fmt::parse_f64(text) {
        Some(number) if number.is_infinite() => {
            CommandError::text("ERR increment would produce NaN or Infinity")
        }
        _ => CommandError::NotFloat,
    })
}

/// The number that a string shows, with the digits that showing it would round away.
fn decimal(string: &Scalar<Value>) -> Result<Amount, CommandError> {
    let base = match string.winner() {
        Some(base) => number(&base.value)?,
        None => Amount::default(),
    };
    Ok(match string.live_sum() {
        Some(sum) => base.plus(&sum),
        None => base,
    })
}
