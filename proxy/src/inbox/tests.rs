//! Two regions in one process, without links: what each records of the other's writes.

mod bounds;
mod meeting;
mod pages;
mod restoring;

use super::page::{Filter, list};
use super::record::id_text;
use super::*;
use crate::command::execute::Scratch;
use crate::command::meridian::restore::restore;
use crate::region::Region;
use crate::replication::seed::tests::{Place, exchange};
use crate::resp::scan::ScanLimits;
use crate::resp::{OwnedArgs, Protocol, Reply, Value, value};

/// Has the region meet a conflict about `key`: `SET` beside `SET`, the first of which lost.
pub(crate) fn note(region: &Region, key: &str, at: u64) {
    region.note_conflicts(vec![conflict(key, at, "lost")]);
}

/// A conflict about `key` between ops of this number, of which the one that wrote `lost` lost.
fn conflict(key: &str, at: u64, lost: &str) -> PlacedConflict {
    use meridian_conflict::op::Facet;
    use meridian_conflict::outcome::{Conflict, Kind, Rule, Winner};
    let wrote = |text: &str| Written::Bytes(serde_bytes::ByteBuf::from(text));
    let (rival, arrived) = (record::tests::stamp("eu", at), record::tests::stamp("us", at));
    let rivals = [
        Rival { stamp: rival.min(arrived), wrote: wrote(lost) },
        Rival { stamp: rival.max(arrived), wrote: wrote("won") },
    ];
    let conflict = Conflict {
        kind: Kind::WriteWrite,
        rule: Rule::Lww,
        winner: if rival > arrived { Winner::Local } else { Winner::Remote },
        facet: Facet::String,
        element: Box::default(),
        rival,
        arrived,
    };
    let evidence =
        Some(Box::new(Evidence { rivals, loser: 0, shown: wrote("won"), asking: Default::default() }));
    let policy = meridian_conflict::policy::Policy::Crdt;
    PlacedConflict { database: 0, key: key.as_bytes().into(), conflict, policy, evidence }
}

fn everything(region: &Region) -> Vec<Record> {
    list(region.inbox().shelf(), &Filter::default(), None, usize::MAX).unwrap().records
}

fn filtered(region: &Region, filter: Filter) -> Vec<Record> {
    list(region.inbox().shelf(), &filter, None, usize::MAX).unwrap().records
}

fn ids(records: &[Record]) -> Vec<u128> {
    let mut ids: Vec<u128> = records.iter().map(|record| record.id).collect();
    ids.sort_unstable();
    ids
}

fn kind(region: &Region, kind: &str) -> Vec<Record> {
    filtered(region, Filter { kind: Some(kind.into()), ..Filter::default() })
}

fn undo(region: &Region, id: u128) -> Value {
    let words: OwnedArgs = ["MERIDIAN.RESTORE", &id_text(id)].into_iter().collect();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    restore(region, &mut Scratch::new(1), words.args(), region.wall(), &mut reply);
    value::decode(&out, &ScanLimits::default()).unwrap().unwrap().0
}

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

fn is_error(reply: &Value, start: &str) -> bool {
    matches!(reply, Value::Error(text) if text.starts_with(start.as_bytes()))
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// Waits until what is written next has a later stamp than everything before, in whichever region.
fn tick(region: &Region) {
    let now = region.wall();
    while region.wall() <= now {
        std::thread::yield_now();
    }
}

/// What two regions that do not hear of each other write to the same keys.
async fn quarrel(more: &'static str) -> (Place, Place) {
    let (a, b) = (Place::with("eu", more), Place::with("us", more));
    for line in ["HSET gone f 1", "SADD s m", "HSET clash f x"] {
        a.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    for line in
        ["SET k first PX 99999999", "HSET h f x", "ZADD z 1 m", "SET t text", "HSET gone g 2", "SADD s m"]
    {
        a.ask(0, line);
    }
    tick(&a.region());
    for line in ["SET k second", "HSET h f y", "ZADD z 2 m", "HSET t f v g w", "DEL gone", "SREM s m"] {
        b.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        place.region().inbox().settle().await;
    }
    (a, b)
}
