//! `MERIDIAN.RESTORE id`: writes a conflict's loser back, as an ordinary write of today.
//!
//! Each loser is written back once: a second time is an error. The record is this region's own, so another region may do
//! the same, which is a write like any other.

use meridian_topology::time::WallMs;

use crate::command::execute::{Queued, Ran, Scratch, run, run_transaction};
use crate::command::{CommandError, find};
use crate::inbox::Record;
use crate::inbox::record::parse_id;
use crate::inbox::restore::commands;
use crate::keyspace::KeyRef;
use crate::region::Region;
use crate::resp::scan::ScanLimits;
use crate::resp::value::decode;
use crate::resp::{Args, OwnedArgs, Protocol, Reply, Value};

/// Runs the command: replies `OK`, or the error of the write.
pub fn restore(
    region: &Region,
    scratch: &mut Scratch,
    args: Args<'_>,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Ran {
    match try_restore(region, scratch, args, now) {
        Ok(ran) => {
            reply.ok();
            ran
        }
        Err(text) => {
            reply.error(&text);
            Ran::default()
        }
    }
}

/// An error is the text for the client; nothing was written.
fn try_restore(region: &Region, scratch: &mut Scratch, args: Args<'_>, now: WallMs) -> Result<Ran, String> {
    let id = args.get(1).and_then(parse_id);
    let id = id.ok_or("ERR a conflict's id is 32 hex digits, as MERIDIAN.CONFLICTS shows them")?;
    let claim = region.inbox().claim(id).map_err(|error| error.to_string())?;
    let record = claim.record();
    let deadline_ms = deadline(region, record, now).map_err(|error| error.to_string())?;
    let commands = commands(record, deadline_ms).map_err(|error| error.to_string())?;
    let ran = write(region, scratch, &commands, record.database, now)?;
    claim.done(now.0);
    Ok(ran)
}

/// The key's deadline, if it shows.
fn deadline(region: &Region, record: &Record, now: WallMs) -> Result<Option<u64>, CommandError> {
    let key = KeyRef::new(record.database, &record.key);
    let locked = region.keyspace().lock_loaded(&[key], region.log().durable_lsn().0)?;
    Ok(locked.object(&key).filter(|object| object.is_visible(now.0)).and_then(|object| object.deadline_ms()))
}

fn write(
    region: &Region,
    scratch: &mut Scratch,
    commands: &[OwnedArgs],
    database: u8,
    now: WallMs,
) -> Result<Ran, String> {
    let mut queue = Vec::new();
    for args in commands {
        let command = args.args().first().and_then(find).ok_or("ERR unknown command")?;
        queue.push(Queued { command, args: args.clone(), database });
    }
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    let ran = match queue.as_slice() {
        [only] => run(region, scratch, only.command, only.args.args(), database, now, &mut reply),
        queue => {
            let ran = run_transaction(region, scratch, queue, &[], now, &mut reply);
            ran.map_err(|error| error.to_string())?.unwrap_or_default()
        }
    };
    let replies = decode(&out, &ScanLimits::default()).ok().flatten().map(|(value, _)| value);
    match replies.as_ref().and_then(error_in) {
        Some(text) => Err(text),
        None => Ok(ran),
    }
}

fn error_in(reply: &Value) -> Option<String> {
    match reply {
        Value::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
        reply => reply.elements()?.iter().find_map(error_in),
    }
}
