//! Fields as counters. What travels is the increment; increments of all regions add up exactly.

use meridian_conflict::amount::Amount;
use meridian_conflict::crdt::Hash;

use super::{arg, value};
use crate::command::execute::check_element;
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply, fmt};

pub(super) fn hincrby(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, field) = (arg(args, 1), arg(args, 2));
    let by = fmt::parse_i64(arg(args, 3)).ok_or(CommandError::NotInteger)?;
    let before = match value(cx.hash(key)?, field) {
        Some(text) => fmt::parse_i64(&text).ok_or(CommandError::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let overflow = CommandError::text("ERR increment or decrement would overflow");
    let sum = before.checked_add(by).ok_or(overflow)?;
    check_element(field)?;
    cx.edit(key, |edit| edit.field_add(field, &Amount::from(by)));
    reply.int(sum);
    Ok(())
}

/// Whether a text is an infinity, which Redis reads as a number and then refuses.
fn is_infinite(text: &[u8]) -> bool {
    fmt::parse_f64(text).is_some_and(f64::is_infinite)
}

/// The increment of a `...INCRBYFLOAT`. Departure from Redis, whose floats have 80 bits: increments
/// beyond a double's range are refused, so that no sum of them outgrows what an [`Amount`] may be.
fn increment(text: &[u8]) -> Result<Amount, CommandError> {
    match Amount::parse(text).filter(|amount| amount.to_f64().is_finite()) {
        Some(amount) => Ok(amount),
        None if is_infinite(text) => Err(CommandError::text("ERR value is NaN or Infinity")),
        None => Err(CommandError::NotFloat),
    }
}

/// A field as an exact number: what [`value`] shows may be rounded.
fn exact(hash: Option<&Hash>, field: &[u8]) -> Result<Amount, CommandError> {
    let scalar = hash.and_then(|hash| hash.field(field));
    let base = match scalar.and_then(|scalar| scalar.winner()) {
        Some(winner) => match Amount::parse(&winner.value) {
            Some(base) => base,
            None if is_infinite(&winner.value) => {
                return Err(CommandError::text("ERR increment would produce NaN or Infinity"));
            }
            None => return Err(CommandError::text("ERR hash value is not a float")),
        },
        None => Amount::default(),
    };
    let deltas = scalar.and_then(|scalar| scalar.live_sum());
    Ok(deltas.map_or_else(|| base.clone(), |deltas| base.plus(&deltas)))
}

pub(super) fn hincrbyfloat(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, field) = (arg(args, 1), arg(args, 2));
    let by = increment(arg(args, 3))?;
    let sum = exact(cx.hash(key)?, field)?.plus(&by);
    check_element(field)?;
    cx.edit(key, |edit| edit.field_add(field, &by));
    reply.bulk(sum.to_text().as_bytes());
    Ok(())
}
