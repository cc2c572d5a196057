//! Deadlines of keys.

use std::borrow::Cow;

use meridian_conflict::edit::NewDeadline;

use super::super::string::when::Unit;
use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::resp::{Args, Reply, fmt};

/// When a deadline may be set.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    /// There is none yet.
    absent: bool,
    /// There is one.
    present: bool,
    /// It is later. No deadline is the latest.
    later: bool,
    /// It is earlier.
    earlier: bool,
}

impl Conditions {
    fn read(args: Args<'_>) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for word in args {
            let flag = match () {
                () if word.eq_ignore_ascii_case(b"nx") => &mut conditions.absent,
                () if word.eq_ignore_ascii_case(b"xx") => &mut conditions.present,
                () if word.eq_ignore_ascii_case(b"gt") => &mut conditions.later,
                () if word.eq_ignore_ascii_case(b"lt") => &mut conditions.earlier,
                () => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError::Text(Cow::Owned(format!("ERR Unsupported option {word}"))));
                }
            };
            *flag = true;
        }
        let Self { absent, present, later, earlier } = conditions;
        if absent && (present || later || earlier) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && earlier {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    fn hold(self, old: Option<u64>, new_ms: i64) -> bool {
        let is_later = old.is_some_and(|old| u64::try_from(new_ms).is_ok_and(|new| new > old));
        let is_earlier = old.is_none_or(|old| u64::try_from(new_ms).map_or(true, |new| new < old));
        !(self.absent && old.is_some()
            || self.present && old.is_none()
            || self.later && !is_later
            || self.earlier && !is_earlier)
    }
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`.
pub(super) fn expire(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(cx, args, Unit::Seconds, "expire", reply)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`.
pub(super) fn pexpire(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(cx, args, Unit::Millis, "pexpire", reply)
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`.
pub(super) fn expireat(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(cx, args, Unit::AtSeconds, "expireat", reply)
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`.
pub(super) fn pexpireat(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_deadline(cx, args, Unit::AtMillis, "pexpireat", reply)
}

fn set_deadline(
    cx: &mut Context<'_, '_>,
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
    reply: &mut Reply<'_>,
) -> Outcome {
    let [key, number] = words(args);
    let conditions = Conditions::read(args.tail(3))?;
    let number = fmt::parse_i64(number).ok_or(CommandError::NotInteger)?;
    let now_ms = cx.now_ms();
    let new_ms = unit.resolve(number, now_ms).ok_or(CommandError::ExpireTime(command))?;
    let set = cx.edit(key, |edit| {
        let Some(object) = edit.shown() else { return false };
        if !conditions.hold(object.deadline_ms(), new_ms) {
            return false;
        }
        match u64::try_from(new_ms) {
            Ok(at_ms) if at_ms > now_ms => edit.deadline(NewDeadline::At(at_ms)),
            // Already past: the key goes.
            _ => edit.clear(),
        }
        true
    });
    reply.int(i64::from(set));
    Ok(())
}

/// `PERSIST key`.
pub(super) fn persist(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    let persisted = cx.edit(key, |edit| {
        let has = edit.shown().is_some_and(|object| object.deadline_ms().is_some());
        if has {
            edit.persist();
        }
        has
    });
    reply.int(i64::from(persisted));
    Ok(())
}

/// `EXPIRETIME key`.
pub(super) fn expiretime(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(cx, args, reply, |at_ms, _| seconds(at_ms))
}

/// `PEXPIRETIME key`.
pub(super) fn pexpiretime(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(cx, args, reply, |at_ms, _| at_ms)
}

/// `TTL key`.
pub(super) fn ttl(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(cx, args, reply, |at_ms, now_ms| seconds(at_ms.saturating_sub(now_ms)))
}

/// `PTTL key`.
pub(super) fn pttl(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell(cx, args, reply, |at_ms, now_ms| at_ms.saturating_sub(now_ms))
}

fn seconds(millis: u64) -> u64 {
    millis.saturating_add(500) / 1000
}

/// Replies a figure of the deadline: -2 without the key, -1 without a deadline.
fn tell(
    cx: &mut Context<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    figure: impl Fn(u64, u64) -> u64,
) -> Outcome {
    let [key] = words(args);
    reply.int(match cx.read(key).map(|object| object.deadline_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => i64::try_from(figure(at_ms, cx.now_ms())).unwrap_or(i64::MAX),
    });
    Ok(())
}
