//! Taking over another region's state.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use meridian_conflict::clock::{RegionId, Skew, VersionVector, covers_all};
use meridian_conflict::object::Object;
use meridian_topology::seed::{Assembler, Cursor, Record, Request, SeedRefusal};
use meridian_topology::sequence::Position;
use meridian_topology::takeover;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{FRAME_BYTES, FRAME_MAX, RECORD_MAX, SeedError, send_frame};
use crate::keyspace::load::facet_of;
use crate::keyspace::{DATABASES, KeyRef};
use crate::link::compress::{Decompressor, Packing};
use crate::link::framing::FrameReader;
use crate::region::Region;
use crate::region::seeding::Stage;
use crate::store::row::key_hash;

/// Bytes merged after which they are committed and the place is remembered.
const CHECKPOINT_BYTES: usize = 64 << 20;

/// Keys looked at at once when looking for those that the donor lacks.
const PAGE: usize = 256;

/// Everything is merged and adopted. While it is held, the donor keeps the log that is still needed.
#[derive(Debug)]
pub struct TakenOver<W> {
    /// What has to be applied before clients are served.
    pub until: VersionVector,
    /// The open side of the stream.
    pub lease: W,
}

/// Takes over `donor`'s state, from the beginning or from where an earlier stream broke off: asks on
/// `output`, reads from `input`. No op may be applied meanwhile, neither local nor remote.
///
/// # Errors
/// [`SeedError`]. The region is loading until a later call succeeds, unless it had not begun.
pub async fn receive<W: AsyncWrite + Unpin>(
    region: &Arc<Region>,
    donor: RegionId,
    input: impl AsyncRead + Unpin,
    mut output: W,
) -> Result<TakenOver<W>, SeedError> {
    let resume = match region.seeding().stage() {
        Some(Stage::Merging { begin: Some(begin), from, .. }) => Some((begin.applied, from)),
        _ => None,
    };
    send_frame(&mut output, &[&Request { resume }.encode()]).await?;
    let mut frames = FrameReader::new(input, FRAME_MAX);
    let mut decompressor = Decompressor::new()?;
    let mut assembler = Assembler::new(RECORD_MAX);
    let mut merging = None;
    while let Some(mut frame) = frames.next().await? {
        if region.is_draining() {
            return Err(SeedError::Draining);
        }
        region.seeding().progress().bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        region.metrics().seeding.bytes.with_label_values(&["received"]).inc_by(frame.len() as u64);
        if frame.is_empty() {
            return Err(SeedError::Protocol("an empty frame"));
        }
        let packing = Packing::from_byte(frame.split_to(1).first().copied().unwrap_or_default())?;
        assembler.push(&decompressor.decompress(packing, frame, FRAME_BYTES)?);
        while let Some(record) = assembler.next_record()? {
            match (&mut merging, record) {
                (None, Record::Head { position, from, keys }) => {
                    merging = Some(Merging::begin(region, donor, position, from, keys).await?);
                }
                (_, Record::Refused { reason }) => return Err(refused(region, reason)),
                (Some(merging), Record::End) => {
                    let until = merging.finish().await?;
                    return Ok(TakenOver { until, lease: output });
                }
                (Some(merging), record) => merging.take(record).await?,
                (None, _) => return Err(SeedError::Protocol("rows before the head")),
            }
        }
    }
    Err(SeedError::Ended)
}

/// Asks a donor whether this region, a part of whose takeover is lost, may begin anew: whether the donor is loading
/// itself, and has all that was here before. Nothing is taken over.
///
/// # Errors
/// [`SeedError`], [`SeedError::Refused`] when it is loading.
pub async fn may_begin_anew<W: AsyncWrite + Unpin>(
    region: &Arc<Region>,
    input: impl AsyncRead + Unpin,
    mut output: W,
) -> Result<bool, SeedError> {
    send_frame(&mut output, &[&Request::default().encode()]).await?;
    let mut frames = FrameReader::new(input, FRAME_MAX);
    let mut decompressor = Decompressor::new()?;
    let mut assembler = Assembler::new(RECORD_MAX);
    while let Some(mut frame) = frames.next().await? {
        if frame.is_empty() {
            return Err(SeedError::Protocol("an empty frame"));
        }
        let packing = Packing::from_byte(frame.split_to(1).first().copied().unwrap_or_default())?;
        assembler.push(&decompressor.decompress(packing, frame, FRAME_BYTES)?);
        match assembler.next_record()? {
            Some(Record::Head { position, .. }) => {
                let base = region.seeding().base().unwrap_or_else(|| region.sequencer().applied());
                return Ok(takeover::may_begin_anew(&base, &Position::decode(position)?.applied));
            }
            Some(Record::Refused { reason }) => return Err(SeedError::Refused(reason)),
            Some(_) => return Err(SeedError::Protocol("rows before the head")),
            None => {}
        }
    }
    Err(SeedError::Ended)
}

fn refused(region: &Region, reason: SeedRefusal) -> SeedError {
    if let (SeedRefusal::StartOver, Some(Stage::Merging { donor, ahead, .. })) =
        (reason, region.seeding().stage())
    {
        region.seeding().note(Stage::Merging { donor, begin: None, from: Cursor::default(), ahead });
    }
    SeedError::Refused(reason)
}

/// The merging of one stream.
struct Merging<'r> {
    region: &'r Arc<Region>,
    donor: RegionId,
    begin: Position,
    /// What is applied here, all the time.
    ours: VersionVector,
    cursor: Cursor,
    ahead: VersionVector,
    /// The object whose elements are coming.
    open: Option<(u8, Box<[u8]>, Object)>,
    /// Keys that came since the cursor.
    came: HashSet<(u8, Box<[u8]>)>,
    /// Bytes merged since the last checkpoint.
    since: usize,
}

impl<'r> Merging<'r> {
    async fn begin(
        region: &'r Arc<Region>,
        donor: RegionId,
        position: &[u8],
        from: Cursor,
        keys: u64,
    ) -> Result<Self, SeedError> {
        let (known, mut ahead) = match region.seeding().stage() {
            Some(Stage::Merging { begin, ahead, from: expected, .. }) => {
                (begin.filter(|_| expected == from), ahead)
            }
            Some(Stage::CatchingUp { until }) => (None, until),
            Some(Stage::Anew) => return Err(SeedError::Draining),
            None => (None, VersionVector::new()),
        };
        let begin = match (position.is_empty(), known) {
            (true, Some(known)) => known,
            (false, _) if from == Cursor::default() => Position::decode(position)?,
            _ => return Err(SeedError::Protocol("the rows do not go on from where they broke off")),
        };
        check(region, &begin)?;
        crdts::CvRDT::merge(&mut ahead, begin.applied.clone());
        let progress = region.seeding().progress();
        if from == Cursor::default() {
            progress.restart();
        }
        progress.keys_expected.store(keys, Ordering::Relaxed);
        let mut merging = Self {
            region,
            donor,
            begin,
            ours: VersionVector::new(),
            cursor: from,
            ahead,
            open: None,
            came: HashSet::new(),
            since: 0,
        };
        // The file first, which holds clients off. Then the store: everything here has a row, and
        // recovery replays nothing over what is merged.
        merging.remember().await?;
        merging.ours = region.sequencer().applied();
        region.commit_all().await?;
        region.seeding().note_base(&merging.ours);
        merging.remember().await?;
        Ok(merging)
    }

    fn stage(&self) -> Stage {
        let (begin, ahead) = (Some(self.begin.clone()), self.ahead.clone());
        Stage::Merging { donor: self.donor, begin, from: self.cursor, ahead }
    }

    async fn remember(&self) -> Result<(), SeedError> {
        enter(self.region, self.stage()).await
    }

    async fn take(&mut self, record: Record<'_>) -> Result<(), SeedError> {
        match record {
            Record::Object { database, key, head } => {
                self.close().await?;
                if usize::from(database) >= DATABASES {
                    return Err(SeedError::Protocol("a database that cannot be"));
                }
                let object =
                    Object::decode_head(head).map_err(|_| SeedError::Protocol("a malformed head"))?;
                self.since += head.len() + key.len();
                self.open = Some((database, key.into(), object));
            }
            Record::Element { facet, element, record } => {
                let malformed = || SeedError::Protocol("a malformed element");
                let (_, _, object) = self.open.as_mut().ok_or_else(malformed)?;
                let facet = facet_of(facet).ok_or_else(malformed)?;
                object.restore_element(facet, element, record).map_err(|_| malformed())?;
                self.since += element.len() + record.len();
            }
            Record::Passed { cursor } => self.pass(cursor).await?,
            Record::Ahead { applied } => crdts::CvRDT::merge(&mut self.ahead, applied),
            Record::Head { .. } | Record::End | Record::Refused { .. } => {
                return Err(SeedError::Protocol("a record that cannot come here"));
            }
        }
        Ok(())
    }

    /// Merges the object whose last element has come.
    async fn close(&mut self) -> Result<(), SeedError> {
        let Some((database, key, object)) = self.open.take() else { return Ok(()) };
        self.merge(database, &key, &object).await?;
        self.region.seeding().progress().keys.fetch_add(1, Ordering::Relaxed);
        self.came.insert((database, key));
        Ok(())
    }

    async fn merge(&self, database: u8, key: &[u8], object: &Object) -> Result<(), SeedError> {
        let region = self.region;
        while region.is_strained() {
            // A store that cannot keep up for long is waited for: nobody else is.
            if region.wait_for_relief().await.is_err() && region.is_draining() {
                return Err(SeedError::Draining);
            }
        }
        let durable = region.log().durable_lsn().0;
        let key = KeyRef::new(database, key);
        let merged = {
            let mut locked = region.keyspace().lock_loaded(&[key], durable)?;
            locked.merge_object(&key, object, &self.ours, &self.begin.applied)
        };
        region.note_conflicts(merged.conflicts);
        tokio::task::consume_budget().await;
        Ok(())
    }

    /// Everything before `cursor` has come: what is here and did not, the donor has deleted or never had.
    async fn pass(&mut self, cursor: Cursor) -> Result<(), SeedError> {
        self.close().await?;
        if cursor < self.cursor {
            return Err(SeedError::Protocol("rows that go back"));
        }
        let none = Object::default();
        for interval in self.cursor.until(cursor, DATABASES as u8) {
            let mut next = Some(interval.from);
            while let Some(from) = next.filter(|from| interval.to.is_none_or(|to| *from < to)) {
                let page = self.region.keyspace().page(interval.database, from, PAGE)?;
                for key in page.keys {
                    let behind = interval.to.is_some_and(|to| key_hash(&key) >= to);
                    let place = (interval.database, key);
                    if !behind && !self.came.contains(&place) {
                        self.merge(place.0, &place.1, &none).await?;
                    }
                }
                next = page.next;
            }
        }
        self.came.clear();
        self.cursor = cursor;
        self.region.seeding().progress().ranges.store(u64::from(cursor.range), Ordering::Relaxed);
        if self.since >= CHECKPOINT_BYTES {
            self.since = 0;
            self.region.commit_all().await?;
            self.remember().await?;
        } else {
            self.region.seeding().note(self.stage());
        }
        Ok(())
    }

    /// Order matters: what is merged is in the store before the log says that it is, and the log says so before
    /// the file that would have it merged again changes.
    async fn finish(&mut self) -> Result<VersionVector, SeedError> {
        self.close().await?;
        if self.cursor != Cursor::END {
            return Err(SeedError::Protocol("an end before the last row"));
        }
        self.region.commit_all().await?;
        self.region.sequencer().adopt(&self.begin, &self.ours)?;
        self.region.log().sync_now().await?;
        let until = std::mem::take(&mut self.ahead);
        enter(self.region, Stage::CatchingUp { until: until.clone() }).await?;
        let (_, durable) = self.region.log().durable();
        if covers_all(&durable.0, &until) {
            note_durable(self.region).await?;
        }
        Ok(until)
    }
}

/// Whether a position can be adopted here at all.
fn check(region: &Region, position: &Position) -> Result<(), SeedError> {
    let (origin, (sequence, _)) = (region.origin(), region.sequencer().progress());
    let known = position.applied.get(&origin);
    if known > sequence {
        return Err(SeedError::OwnLife { origin, sequence: known });
    }
    let ahead_ms = position.hlc.ms().saturating_sub(region.wall().0);
    let max_skew_ms = u64::try_from(region.settings().clock.max_skew.as_millis()).unwrap_or(u64::MAX);
    if ahead_ms > max_skew_ms {
        return Err(Skew { ahead_ms, max_skew_ms }.into());
    }
    Ok(())
}

/// Waits for no more than this from now on, before clients are served.
///
/// # Errors
/// When the file that remembers the takeover cannot be written.
pub async fn wait_for(region: &Arc<Region>, until: VersionVector) -> Result<(), SeedError> {
    enter(region, Stage::CatchingUp { until }).await
}

/// Gives up what was taken over: the next start begins with nothing. No clients are served until then.
///
/// # Errors
/// When the file that says so cannot be written.
pub async fn give_up(region: &Arc<Region>) -> Result<(), SeedError> {
    enter(region, Stage::Anew).await
}

async fn enter(region: &Arc<Region>, stage: Stage) -> Result<(), SeedError> {
    let region = Arc::clone(region);
    Ok(blocking(move || region.seeding().enter(stage)).await?)
}

/// Tells the region what is durable: clients are served again once that is enough. Returns whether it was.
///
/// # Errors
/// When the file that remembers the takeover cannot be removed.
pub async fn note_durable(region: &Arc<Region>) -> std::io::Result<bool> {
    let region = Arc::clone(region);
    blocking(move || region.seeding().note_durable(&region.log().durable().1.0)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    // Only a runtime that is shutting down loses the task.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
}
