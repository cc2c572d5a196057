//! `MERIDIAN.CONFLICTS [KEY key] [COUNT n]`: the newest records of the conflict inbox.

use std::sync::Arc;

use super::{clock_text, dot_text, region_name};

use crate::command::{CommandError, Outcome};
use crate::inbox::form::value_text;
use crate::inbox::page::{Filter, list};
use crate::inbox::record::id_text;
use crate::inbox::{Record, Written};
use crate::region::Region;
use crate::resp::fmt::parse_i64;
use crate::resp::{Args, Reply};

/// Records where none are asked for by number.
const COUNT: usize = 10;

/// Records of one reply at most.
const COUNT_MAX: usize = 1_000;

/// An array of maps, newest first. `KEY` is looked for in the selected database, else all are listed.
///
/// # Errors
/// [`CommandError`]
pub async fn conflicts(region: &Region, args: Args<'_>, database: u8, reply: &mut Reply<'_>) -> Outcome {
    let (filter, count) = parse(args, database)?;
    let shelf = Arc::clone(region.inbox().shelf());
    let listed = tokio::task::spawn_blocking(move || list(&shelf, &filter, None, count)).await;
    // Only a runtime that is shutting down loses the task.
    let records = listed.map_or(Ok(Vec::new()), |listed| listed.map(|page| page.records))?;
    reply.array(records.len());
    records.iter().for_each(|record| write(region, record, reply));
    Ok(())
}

fn parse(args: Args<'_>, database: u8) -> Result<(Filter, usize), CommandError> {
    let (mut filter, mut count) = (Filter::default(), COUNT);
    let mut words = args.tail(1).iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(CommandError::Syntax)?;
        if word.eq_ignore_ascii_case(b"KEY") {
            filter.key = Some(value.to_vec());
            filter.database = Some(database);
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            let number = parse_i64(value).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            count = number.ok_or(CommandError::NotInteger)?.min(COUNT_MAX);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((filter, count))
}

fn write(region: &Region, record: &Record, reply: &mut Reply<'_>) {
    reply.map(13);
    for (name, value) in [
        ("id", id_text(record.id).as_bytes()),
        ("key", record.key.as_slice()),
        ("element", record.element.as_slice()),
        ("type", record.facet.as_bytes()),
        ("policy", record.policy.as_bytes()),
        ("kind", record.kind.as_bytes()),
        ("rule", record.rule.as_bytes()),
        ("outcome", record.outcome.as_bytes()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(value);
    }
    reply.bulk(b"at");
    reply.int(i64::try_from(record.at_ms).unwrap_or(i64::MAX));
    reply.bulk(b"database");
    reply.int(i64::from(record.database));
    reply.bulk(b"rivals");
    reply.array(record.rivals.len());
    for rival in &record.rivals {
        let stamp = rival.stamp;
        reply.map(4);
        for (name, value) in [
            ("origin", region_name(region, stamp.dot.actor.region())),
            ("dot", dot_text(stamp)),
            ("stamp", clock_text(stamp)),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"value");
        write_value(&rival.wrote, reply);
    }
    reply.bulk(b"shown");
    write_value(&record.shown, reply);
    reply.bulk(b"restored");
    reply.bool(record.restored_ms.is_some());
}

/// Bytes as they are, nothing as null, all else as the JSON of `/conflicts`.
fn write_value(written: &Written, reply: &mut Reply<'_>) {
    match written {
        Written::Nothing => reply.null(),
        Written::Bytes(bytes) => reply.bulk(bytes),
        Written::Score(score) => reply.bulk(score.as_bytes()),
        other => reply.bulk(value_text(other).as_bytes()),
    }
}
