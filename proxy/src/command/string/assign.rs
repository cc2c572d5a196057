//! `SET` and its relatives, and what reads a string whole.

use meridian_conflict::edit::{Editor, NewDeadline};

use super::super::{CommandError, Context, Outcome};
use super::when::{Given, Unit};
use super::{shown_string, words};
use crate::resp::{Args, Reply};

/// `GET key`.
pub(super) fn get(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    reply.bulk_or_null(cx.string(key)?.as_deref());
    Ok(())
}

/// Which keys a `SET` may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    None,
    Absent,
    Present,
}

/// Which command's options are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Set,
    GetEx,
}

/// The options of `SET` and `GETEX`.
#[derive(Debug, Default)]
struct Options<'a> {
    condition: Condition,
    get: bool,
    keep: bool,
    persist: bool,
    deadline: Option<Given<'a>>,
}

impl<'a> Options<'a> {
    /// Reads options. As in Redis, an option may be repeated as long as none contradicts it.
    fn read(args: Args<'a>, form: Form) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            options.take(word, &mut words, form).ok_or(CommandError::Syntax)?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &[u8], rest: &mut impl Iterator<Item = &'a [u8]>, form: Form) -> Option<()> {
        let named = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let lasts = self.keep || self.persist;
        if let Some(unit) = Unit::of_option(word) {
            if lasts || self.deadline.is_some_and(|given| given.unit != unit) {
                return None;
            }
            self.deadline = Some(Given { unit, number: rest.next()? });
        } else if form == Form::Set && named("nx") && self.condition != Condition::Present {
            self.condition = Condition::Absent;
        } else if form == Form::Set && named("xx") && self.condition != Condition::Absent {
            self.condition = Condition::Present;
        } else if form == Form::Set && named("get") {
            self.get = true;
        } else if form == Form::Set && named("keepttl") && self.deadline.is_none() {
            self.keep = true;
        } else if form == Form::GetEx && named("persist") && self.deadline.is_none() {
            self.persist = true;
        } else {
            return None;
        }
        Some(())
    }
}

/// Makes the key `value` until `at_ms`; a deadline that has passed removes what is there.
fn assign_until(edit: &mut Editor<'_, '_>, value: &[u8], at_ms: u64, now_ms: u64) {
    if at_ms <= now_ms {
        edit.clear();
    } else {
        edit.assign(value, NewDeadline::At(at_ms));
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(super) fn set(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, value] = words(args);
    if args.len() == 3 {
        cx.edit(key, |edit| edit.assign(value, NewDeadline::Forget));
        reply.ok();
        return Ok(());
    }
    let options = Options::read(args.tail(3), Form::Set)?;
    let now_ms = cx.now_ms();
    let at_ms = options.deadline.map(|given| given.resolve(now_ms, "set")).transpose()?;
    cx.edit(key, |edit| {
        if options.get {
            let old = shown_string(edit)?.and_then(|string| string.shown());
            reply.bulk_or_null(old.as_deref());
        }
        let writes = match options.condition {
            Condition::None => true,
            Condition::Absent => edit.shown().is_none(),
            Condition::Present => edit.shown().is_some(),
        };
        if writes {
            match at_ms {
                Some(at_ms) => assign_until(edit, value, at_ms, now_ms),
                None if options.keep => edit.assign(value, NewDeadline::Keep),
                None => edit.assign(value, NewDeadline::Forget),
            }
        }
        match (options.get, writes) {
            (true, _) => {}
            (false, true) => reply.ok(),
            (false, false) => reply.null(),
        }
        Ok(())
    })
}

/// `SETNX key value`.
pub(super) fn setnx(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, value] = words(args);
    let writes = cx.edit(key, |edit| {
        let absent = edit.shown().is_none();
        if absent {
            edit.assign(value, NewDeadline::Forget);
        }
        absent
    });
    reply.int(i64::from(writes));
    Ok(())
}

/// `SETEX key seconds value`.
pub(super) fn setex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_until(cx, args, Unit::Seconds, "setex", reply)
}

/// `PSETEX key milliseconds value`.
pub(super) fn psetex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_until(cx, args, Unit::Millis, "psetex", reply)
}

fn set_until(
    cx: &mut Context<'_, '_>,
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
    reply: &mut Reply<'_>,
) -> Outcome {
    let [key, number, value] = words(args);
    let now_ms = cx.now_ms();
    let at_ms = Given { unit, number }.resolve(now_ms, command)?;
    cx.edit(key, |edit| assign_until(edit, value, at_ms, now_ms));
    reply.ok();
    Ok(())
}

/// `GETSET key value`.
pub(super) fn getset(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key, value] = words(args);
    cx.edit(key, |edit| {
        let old = shown_string(edit)?.and_then(|string| string.shown());
        reply.bulk_or_null(old.as_deref());
        edit.assign(value, NewDeadline::Forget);
        Ok(())
    })
}

/// `GETDEL key`.
pub(super) fn getdel(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    cx.edit(key, |edit| {
        let old = shown_string(edit)?.and_then(|string| string.shown());
        reply.bulk_or_null(old.as_deref());
        if old.is_some() {
            edit.clear();
        }
        Ok(())
    })
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`.
pub(super) fn getex(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key] = words(args);
    let options = Options::read(args.tail(2), Form::GetEx)?;
    let now_ms = cx.now_ms();
    cx.edit(key, |edit| {
        let Some(value) = shown_string(edit)?.and_then(|string| string.shown()) else {
            reply.null();
            return Ok(());
        };
        let at_ms = options.deadline.map(|given| given.resolve(now_ms, "getex")).transpose()?;
        reply.bulk(&value);
        match at_ms {
            Some(at_ms) if at_ms <= now_ms => edit.clear(),
            Some(at_ms) => edit.deadline(NewDeadline::At(at_ms)),
            None if options.persist && edit.shown().is_some_and(|o| o.deadline_ms().is_some()) => {
                edit.persist();
            }
            None => {}
        }
        Ok(())
    })
}
