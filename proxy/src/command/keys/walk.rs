//! Visiting all keys of a database without stopping the world: `SCAN`, `KEYS` and `RANDOMKEY`
//! outside of `MULTI`, and digests.
//!
//! The store's rows give the order, by the hash of the key, so a cursor is the hash to go on at.
//! A walk that starts anew first has everything committed, so that keys which were only in memory
//! have rows: then what was there before the walk and stays is found. No lock is held between keys.

use meridian_conflict::object::Object;
use meridian_topology::time::WallMs;

use super::super::{Command, CommandError, Outcome};
use super::scan::{Filter, Scan};
use crate::keyspace::KeyRef;
use crate::keyspace::walk::Page;
use crate::region::Region;
use crate::resp::{Args, Reply};
use crate::store::StoreError;

/// Keys looked at before others get their turn.
const PAGE: usize = 256;

/// Keys that `RANDOMKEY` looks at before it moves on.
const RANDOM_PAGE: usize = 16;

/// Runs a command with [`Flags::WALK`](super::Flags::WALK) outside of a transaction.
///
/// # Errors
/// [`CommandError`]; nothing was written to `reply`.
pub async fn walk(
    region: &Region,
    command: &Command,
    args: Args<'_>,
    database: u8,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Outcome {
    let start = reply.written();
    let outcome = match command.name {
        "scan" => scan(region, args, database, now.0, reply).await,
        "keys" => keys(region, args, database, now.0, reply).await,
        "randomkey" => randomkey(region, database, now.0, reply).await,
        _ => Err(CommandError::text("ERR this command does not walk over keys")),
    };
    if outcome.is_err() {
        reply.truncate(start);
    }
    outcome
}

/// Has the rows of every key in the store that was written before the call.
///
/// # Errors
/// [`StoreError::Failed`] when the store takes nothing, or the region stops.
async fn settle(region: &Region) -> Result<(), StoreError> {
    // Not by the count of dirty objects: those of a round that is under way do not count any more
    // and may have no row yet.
    if region.sequencer().position().1 <= region.committer().committed_lsn() {
        return Ok(());
    }
    region.commit_all().await
}

/// Visits every object of a database that has a row, shown or not. Writes that come meanwhile may or
/// may not be seen.
///
/// # Errors
/// [`StoreError`]; some objects have been visited.
pub async fn for_each_key(
    region: &Region,
    database: u8,
    mut visit: impl FnMut(&[u8], &Object),
) -> Result<(), StoreError> {
    settle(region).await?;
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let page = region.keyspace().page(database, from, PAGE)?;
        for key in &page.keys {
            let look = |object: Option<&Object>| object.map(|object| visit(key, object));
            region.keyspace().peek(&KeyRef::new(database, key), look)?;
        }
        cursor = page.next;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Keeps the keys of a page that are wanted.
fn select(
    region: &Region,
    database: u8,
    now_ms: u64,
    filter: &Filter<'_>,
    page: &mut Page,
) -> Result<(), StoreError> {
    let mut failed = None;
    page.keys.retain(|key| {
        let look = |object: Option<&Object>| object.is_some_and(|object| filter.shows(object, now_ms));
        let shows = || region.keyspace().peek(&KeyRef::new(database, key), look);
        failed.is_none()
            && filter.names(key)
            && shows().unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
    });
    failed.map_or(Ok(()), Err)
}

async fn scan(region: &Region, args: Args<'_>, database: u8, now_ms: u64, reply: &mut Reply<'_>) -> Outcome {
    let Scan { cursor, count, filter } = Scan::read(args)?;
    if cursor == 0 {
        settle(region).await?;
    }
    let mut found = Vec::new();
    let (mut cursor, mut left) = (Some(cursor), count);
    while let Some(from) = cursor.filter(|_| left > 0) {
        let mut page = region.keyspace().page(database, from, left.min(PAGE))?;
        left = left.saturating_sub(page.keys.len());
        select(region, database, now_ms, &filter, &mut page)?;
        found.append(&mut page.keys);
        cursor = page.next;
        tokio::task::yield_now().await;
    }
    reply.array(2);
    reply.bulk(cursor.unwrap_or(0).to_string().as_bytes());
    reply.array(found.len());
    for key in &found {
        reply.bulk(key);
    }
    Ok(())
}

async fn keys(region: &Region, args: Args<'_>, database: u8, now_ms: u64, reply: &mut Reply<'_>) -> Outcome {
    let filter = Filter::of_keys(args)?;
    settle(region).await?;
    let list = reply.defer_array();
    let (mut cursor, mut count) = (Some(0), 0);
    while let Some(from) = cursor {
        let mut page = region.keyspace().page(database, from, PAGE)?;
        select(region, database, now_ms, &filter, &mut page)?;
        for key in &page.keys {
            reply.bulk(key);
        }
        count += page.keys.len();
        cursor = page.next;
        tokio::task::yield_now().await;
    }
    reply.finish(list, count);
    Ok(())
}

/// Picks the first key that shows from a random hash on. Keys after a wide gap come up more often
/// than others; the gaps of a good hash are small and change with every key.
async fn randomkey(region: &Region, database: u8, now_ms: u64, reply: &mut Reply<'_>) -> Outcome {
    settle(region).await?;
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| CommandError::text("ERR the system has no randomness"))?;
    let start = u64::from_le_bytes(bytes);
    let (mut from, mut wrapped) = (start, false);
    loop {
        let mut page = region.keyspace().page(database, from, RANDOM_PAGE)?;
        select(region, database, now_ms, &Filter::default(), &mut page)?;
        if let Some(key) = page.keys.first() {
            reply.bulk(key);
            return Ok(());
        }
        from = match page.next {
            Some(next) if !wrapped || next < start => next,
            None if !wrapped => {
                wrapped = true;
                0
            }
            _ => break,
        };
        tokio::task::yield_now().await;
    }
    reply.null();
    Ok(())
}
