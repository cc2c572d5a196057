//! Several strings at once.

use std::borrow::Cow;
use std::collections::HashMap;

use meridian_conflict::edit::NewDeadline;

use super::super::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply};

/// `MGET key...`.
pub(super) fn mget(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let keys = args.tail(1);
    reply.array(keys.len());
    for key in keys {
        // Other types read as missing.
        reply.bulk_or_null(cx.string(key).unwrap_or_default().as_deref());
    }
    Ok(())
}

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// Keys with their values. Of a key named twice the last value counts, so that each is written once.
fn pairs<'a>(args: Args<'a>, command: &'static str) -> Result<Vec<Pair<'a>>, CommandError> {
    let words = args.tail(1);
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::Arity(Cow::Borrowed(command)));
    }
    let mut pairs: Vec<Pair<'_>> = Vec::with_capacity(words.len() / 2);
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(words.len() / 2);
    let mut words = words.iter();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        let place = *places.entry(key).or_insert(pairs.len());
        match pairs.get_mut(place) {
            Some(pair) => pair.1 = value,
            None => pairs.push((key, value)),
        }
    }
    Ok(pairs)
}

/// `MSET key value...`.
pub(super) fn mset(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    for (key, value) in pairs(args, "mset")? {
        cx.edit(key, |edit| edit.assign(value, NewDeadline::Forget));
    }
    reply.ok();
    Ok(())
}

/// `MSETNX key value...`: all or none.
pub(super) fn msetnx(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let pairs = pairs(args, "msetnx")?;
    let writes = pairs.iter().all(|(key, _)| cx.read(key).is_none());
    if writes {
        for (key, value) in pairs {
            cx.edit(key, |edit| edit.assign(value, NewDeadline::Forget));
        }
    }
    reply.int(i64::from(writes));
    Ok(())
}
