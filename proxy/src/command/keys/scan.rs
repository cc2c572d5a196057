//! `SCAN`, `KEYS` and `RANDOMKEY`: what they ask for, and their handlers inside `MULTI`, where
//! everything is locked.

use meridian_conflict::glob;
use meridian_conflict::object::Object;

use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::resp::{Args, Reply, fmt};

/// The longest pattern: matching costs at most the product of the lengths of pattern and key.
const PATTERN_MAX: usize = 1024;

fn check_pattern(pattern: &[u8]) -> Result<&[u8], CommandError> {
    match pattern.len() {
        0..=PATTERN_MAX => Ok(pattern),
        _ => Err(CommandError::text("ERR the pattern is longer than 1024 bytes")),
    }
}

/// Which keys are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filter<'a> {
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    /// The filter of `KEYS pattern`.
    pub(super) fn of_keys(args: Args<'a>) -> Result<Self, CommandError> {
        let [pattern] = words(args);
        Ok(Self { pattern: Some(check_pattern(pattern)?), type_name: None })
    }

    /// Whether the name fits.
    pub(super) fn names(&self, key: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, key))
    }

    /// Whether the object shows and has the type.
    pub(super) fn shows(&self, object: &Object, now_ms: u64) -> bool {
        let typed =
            |name: &[u8]| object.facet().is_some_and(|f| name.eq_ignore_ascii_case(f.name().as_bytes()));
        object.is_visible(now_ms) && self.type_name.is_none_or(typed)
    }
}

/// The arguments of `SCAN`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a> {
    pub(super) cursor: u64,
    pub(super) count: usize,
    pub(super) filter: Filter<'a>,
}

impl<'a> Scan<'a> {
    /// Reads `SCAN cursor [MATCH pattern] [COUNT n] [TYPE name]`.
    pub(super) fn read(args: Args<'a>) -> Result<Self, CommandError> {
        let [cursor] = words(args);
        let digits = cursor.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok());
        let cursor = number.filter(|_| digits).ok_or(CommandError::text("ERR invalid cursor"))?;
        let mut scan = Self { cursor, count: 10, filter: Filter::default() };
        let mut words = args.tail(2).iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if word.eq_ignore_ascii_case(b"match") {
                scan.filter.pattern = Some(check_pattern(value)?);
            } else if word.eq_ignore_ascii_case(b"count") {
                let count = fmt::parse_i64(value).ok_or(CommandError::NotInteger)?;
                scan.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if word.eq_ignore_ascii_case(b"type") {
                scan.filter.type_name = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(scan)
    }
}

/// `SCAN` inside `MULTI`: everything at once.
pub(super) fn scan(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let scan = Scan::read(args)?;
    reply.array(2);
    reply.bulk(b"0");
    list(cx, &scan.filter, reply)
}

/// `KEYS pattern` inside `MULTI`.
pub(super) fn keys(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let filter = Filter::of_keys(args)?;
    list(cx, &filter, reply)
}

fn list(cx: &mut Context<'_, '_>, filter: &Filter<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut found = cx.all_keys()?;
    let now_ms = cx.now_ms();
    found.retain(|key| filter.names(key) && cx.read(key).is_some_and(|o| filter.shows(o, now_ms)));
    reply.array(found.len());
    for key in &found {
        reply.bulk(key);
    }
    Ok(())
}

/// `RANDOMKEY` inside `MULTI`.
pub(super) fn randomkey(cx: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let found = cx.all_keys()?;
    let at = cx.random_below(found.len());
    reply.bulk_or_null(found.get(at).map(|key| &**key));
    Ok(())
}
