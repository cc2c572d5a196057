//! Listing records: filtered, newest first, a page at a time; and following as they come.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::record::Record;
use super::shelf::Shelf;
use crate::store::StoreError;

/// Records that one listing looks at, however few of them the filter lets through.
const EXAMINED_MAX: usize = 20_000;

/// Bytes of records that a page holds; the first record always fits.
const PAGE_BYTES: usize = 1 << 20;

/// Index rows of a key that are read at once.
const KEY_STEP: usize = 64;

/// How far a follower may fall behind before it is cut off.
const BEHIND_MAX: u64 = 10_000;

/// Records that a follower reads at once.
const FOLLOW_STEP: usize = 64;

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this database.
    pub database: Option<u8>,
    /// About this key.
    pub key: Option<Vec<u8>>,
    /// Under this policy.
    pub policy: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Those that a shadow policy would have settled otherwise.
    pub shadow_differs: bool,
}

impl Filter {
    /// Whether a record is among them.
    pub fn lets(&self, record: &Record) -> bool {
        self.database.is_none_or(|database| database == record.database)
            && self.key.as_ref().is_none_or(|key| **key == **record.key)
            && self.policy.as_ref().is_none_or(|policy| *policy == record.policy)
            && self.kind.as_ref().is_none_or(|kind| *kind == record.kind)
            && (!self.shadow_differs || record.shadow.is_some())
    }
}

/// Records, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Where to go on: the id of the last record looked at, unless there was nothing behind it.
    pub next: Option<u128>,
}

/// Records that `filter` lets through, from the one before `after` on, at most `limit`. An `after` that is not
/// here (any more) has nothing behind it.
///
/// # Errors
/// [`StoreError`]
pub fn list(shelf: &Shelf, filter: &Filter, after: Option<u128>, limit: usize) -> Result<Page, StoreError> {
    let head = shelf.head();
    let before = match after {
        None => head.next,
        Some(id) => match shelf.number_of(id)? {
            Some(number) => number,
            None => return Ok(Page::default()),
        },
    };
    let mut numbers =
        Numbers { shelf, key: filter.key.as_deref(), oldest: head.oldest, before, ahead: Vec::new() };
    let mut page = Page::default();
    let (mut bytes, mut examined) = (0, 0);
    let mut last = None;
    while let Some(number) = numbers.next()? {
        if page.records.len() >= limit || examined >= EXAMINED_MAX || bytes >= PAGE_BYTES {
            page.next = last;
            break;
        }
        examined += 1;
        let Some(record) = shelf.record(number)? else { continue };
        last = Some(record.id);
        if filter.lets(&record) {
            bytes += record.weight();
            page.records.push(record);
        }
    }
    Ok(page)
}

/// Numbers of records, falling: all there are, or those of a key's hash.
struct Numbers<'a> {
    shelf: &'a Shelf,
    key: Option<&'a [u8]>,
    oldest: u64,
    before: u64,
    /// The next ones of the key, the last first.
    ahead: Vec<u64>,
}

impl Numbers<'_> {
    fn next(&mut self) -> Result<Option<u64>, StoreError> {
        let number = match self.key {
            None => self.before.checked_sub(1),
            Some(key) => {
                if self.ahead.is_empty() {
                    self.ahead = self.shelf.numbers_of_key(key, self.before, KEY_STEP)?;
                    self.ahead.reverse();
                }
                self.ahead.pop()
            }
        };
        let number = number.filter(|number| *number >= self.oldest);
        self.before = number.unwrap_or(self.before);
        Ok(number)
    }
}

/// What a follower gets.
#[derive(Debug)]
pub enum Followed {
    /// New records, the oldest first.
    Records(Vec<Record>),
    /// It is too far behind: records passed it by.
    TooSlow,
    /// The inbox is closed, or cannot be read.
    Ended,
}

/// Somebody who is told of records as they come. Holds a place of its own in the inbox and reads from there, so
/// nothing is kept for it.
pub struct Follower {
    shelf: Arc<Shelf>,
    newest: watch::Receiver<u64>,
    at: u64,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    pub(super) fn new(
        shelf: Arc<Shelf>,
        newest: watch::Receiver<u64>,
        at: u64,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { shelf, newest, at, _place: place }
    }

    /// Waits for records.
    pub async fn next(&mut self) -> Followed {
        let at = self.at;
        let Ok(newest) = self.newest.wait_for(|newest| *newest > at).await.map(|newest| *newest) else {
            return Followed::Ended;
        };
        if self.shelf.head().oldest > at || newest - at > BEHIND_MAX {
            return Followed::TooSlow;
        }
        let shelf = Arc::clone(&self.shelf);
        let read = tokio::task::spawn_blocking(move || read(&shelf, at, newest)).await;
        match read {
            Ok(Ok((records, at))) => {
                self.at = at;
                Followed::Records(records)
            }
            _ => Followed::Ended,
        }
    }
}

/// Records from `at` on, as many as are read at once, and where the rest begins.
fn read(shelf: &Shelf, at: u64, newest: u64) -> Result<(Vec<Record>, u64), StoreError> {
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, at);
    while next < newest && records.len() < FOLLOW_STEP && bytes < PAGE_BYTES {
        if let Some(record) = shelf.record(next)? {
            bytes += record.weight();
            records.push(record);
        }
        next += 1;
    }
    Ok((records, next))
}
