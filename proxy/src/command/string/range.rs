//! Parts of strings.

use meridian_conflict::edit::NewDeadline;

use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::resp::{Args, Reply, fmt};

const TOO_LONG: CommandError = CommandError::Text(std::borrow::Cow::Borrowed(
    "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
));

/// The length of `kept` bytes with `more` after them, if a string may be so long.
fn grown(cx: &Context<'_, '_>, kept: usize, more: usize) -> Result<usize, CommandError> {
    let limit = cx.region().settings().limits.proto_max_bulk_len;
    let length = kept.checked_add(more).ok_or(TOO_LONG)?;
    if length as u64 > limit { Err(TOO_LONG) } else { Ok(length) }
}

fn int(text: &[u8]) -> Result<i64, CommandError> {
    fmt::parse_i64(text).ok_or(CommandError::NotInteger)
}

/// `STRLEN key`.
pub(super) fn strlen(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    let length = cx.string(key)?.map_or(0, |value| value.len());
    reply.int(length as i64);
    Ok(())
}

/// `APPEND key value`: an assignment of the whole, for concurrent appends do not add up.
pub(super) fn append(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, more] = words(args);
    let old = cx.string(key)?;
    let (absent, kept) = (old.is_none(), old.as_deref().map_or(0, <[u8]>::len));
    let length = if absent { more.len() } else { grown(cx, kept, more.len())? };
    let mut value = Vec::with_capacity(length);
    value.extend_from_slice(old.as_deref().unwrap_or_default());
    value.extend_from_slice(more);
    drop(old);
    cx.edit(key, |edit| edit.assign(&value, NewDeadline::Keep));
    reply.int(length as i64);
    Ok(())
}

/// `SETRANGE key offset value`.
pub(super) fn setrange(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, offset, patch] = words(args);
    let offset =
        usize::try_from(int(offset)?).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let old = cx.string(key)?;
    let kept = old.as_deref().unwrap_or_default();
    if patch.is_empty() {
        reply.int(kept.len() as i64);
        return Ok(());
    }
    let end = grown(cx, offset, patch.len())?;
    let mut value = Vec::with_capacity(end.max(kept.len()));
    value.extend_from_slice(kept);
    value.resize(end.max(kept.len()), 0);
    drop(old);
    if let Some(place) = value.get_mut(offset..end) {
        place.copy_from_slice(patch);
    }
    cx.edit(key, |edit| edit.assign(&value, NewDeadline::Keep));
    reply.int(value.len() as i64);
    Ok(())
}

/// `GETRANGE key start end`, also `SUBSTR`: both ends included, negative ones from the end.
pub(super) fn getrange(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, start, end] = words(args);
    let (start, end) = (int(start)?, int(end)?);
    let value = cx.string(key)?;
    let value = value.as_deref().unwrap_or_default();
    reply.bulk(part(value, start, end).unwrap_or_default());
    Ok(())
}

fn part(value: &[u8], start: i64, end: i64) -> Option<&[u8]> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let length = value.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (place(start), place(end).min(length - 1));
    value.get(usize::try_from(start).ok()?..usize::try_from(end.checked_add(1)?).ok()?)
}
