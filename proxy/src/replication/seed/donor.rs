//! Giving this region's state to another one.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use meridian_conflict::clock::{RegionId, VersionVector, covers_all};
use meridian_topology::seed::{Cursor, Record, Request, SEED_VERSION, SeedRefusal};
use meridian_topology::takeover::may_give_while_loading;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{FRAME_BYTES, Pace, REQUEST_MAX, SeedError, send_frame};
use crate::keyspace::DATABASES;
use crate::keyspace::rows::RowWalk;
use crate::link::compress::Compressor;
use crate::link::framing::FrameReader;
use crate::oplog::Lsn;
use crate::region::Region;
use crate::region::committer::Pin;
use crate::sequencer::AppliedMark;
use crate::store::StoreError;

/// Serves one receiver: reads its request from `input`, sends rows on `output`, and keeps the log until the
/// receiver closes its side.
///
/// # Errors
/// [`SeedError`]; nothing was changed here.
pub async fn donate(
    region: &Arc<Region>,
    asker: RegionId,
    pace: Pace,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Result<(), SeedError> {
    let mut input = FrameReader::new(input, REQUEST_MAX);
    let request = input.next().await?.ok_or(SeedError::Ended)?;
    donate_to(region, asker, pace, &request, input, output).await
}

/// [`donate`], with the request read already.
///
/// # Errors
/// As [`donate`].
pub async fn donate_to(
    region: &Arc<Region>,
    asker: RegionId,
    pace: Pace,
    request: &[u8],
    mut input: FrameReader<impl AsyncRead + Unpin>,
    output: impl AsyncWrite + Unpin,
) -> Result<(), SeedError> {
    let request = Request::decode(request)?;
    let sent = region.metrics().seeding.bytes.with_label_values(&["sent"]);
    let compressor = Compressor::new()?;
    let mut out = Sender { stream: output, compressor, sent, bytes: vec![SEED_VERSION] };
    let begun = match begin(region, asker, &request).await {
        Ok(begun) => begun,
        Err(reason) => {
            Record::Refused { reason }.encode(&mut out.bytes)?;
            out.finish().await?;
            return Err(SeedError::Refused(reason));
        }
    };
    let keys = (0..DATABASES as u8).map(|database| region.keyspace().len(database)).sum();
    Record::Head { position: &begun.position, from: begun.from, keys }.encode(&mut out.bytes)?;
    send_rows(region, RowWalk::new(begun.from), pace, &mut out).await?;
    Record::End.encode(&mut out.bytes)?;
    out.finish().await?;
    // Whatever ends it: the receiver needs the log no more, or comes back soon.
    let _ = input.stream_mut().read_u8().await;
    Ok(())
}

struct Begun {
    /// Encoded, empty when the receiver has one.
    position: Vec<u8>,
    from: Cursor,
    _pin: Pin,
}

async fn begin(region: &Arc<Region>, asker: RegionId, request: &Request) -> Result<Begun, SeedRefusal> {
    if region.is_draining() {
        return Err(SeedRefusal::Draining);
    }
    let has = region.elsewhere(asker).unwrap_or_default();
    let gives = |wanted: VersionVector| may_give_while_loading(&has, &wanted);
    // A file that was damaged does not say what is waited for.
    let wanted = region.seeding().wanted().filter(|wanted| !wanted.is_empty());
    if region.is_loading() && !wanted.is_some_and(gives) {
        return Err(SeedRefusal::Loading);
    }
    let begun = match &request.resume {
        None => {
            let (position, lsn) = region.sequencer().position();
            let _pin = region.committer().pin(lsn);
            Begun { position: position.encode(), from: Cursor::default(), _pin }
        }
        Some((begin, from)) => {
            let lsn = log_behind(region, begin).ok_or(SeedRefusal::StartOver)?;
            Begun { position: Vec::new(), from: *from, _pin: region.committer().pin(lsn) }
        }
    };
    // From here on no row is older than the position, and it is durable.
    region.commit_all().await.map_err(|_| SeedRefusal::Store)?;
    Ok(begun)
}

/// Where the log begins to hold all that is not in `begin`, if this region is at least there.
fn log_behind(region: &Region, begin: &VersionVector) -> Option<Lsn> {
    let has = |mark: &VersionVector| covers_all(begin, mark);
    if !covers_all(&region.sequencer().applied(), begin) || !has(&region.sequencer().floor()) {
        return None;
    }
    let segments = region.log().segments();
    let known = |mark: &[u8]| AppliedMark::decode(mark).is_some_and(|mark| has(&mark.0));
    Some(segments.iter().rev().find(|segment| known(&segment.mark))?.start)
}

async fn send_rows(
    region: &Arc<Region>,
    mut walk: RowWalk,
    pace: Pace,
    out: &mut Sender<impl AsyncWrite + Unpin>,
) -> Result<(), SeedError> {
    loop {
        if region.is_draining() {
            return Err(SeedError::Draining);
        }
        let began = Instant::now();
        let store = Arc::clone(region.keyspace().store());
        let step = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            let more = walk.fill(&*store, &mut rows, pace.step_bytes);
            more.map(|more| (walk, rows, more))
        });
        // Only a runtime that is shutting down loses the task.
        let (next, rows, more) = step.await.map_err(|_| StoreError::Failed)??;
        walk = next;
        let took = began.elapsed();
        // The store holds nothing that the log could lose.
        let (_, durable) = region.log().durable();
        Record::Ahead { applied: VersionVector::clone(&durable.0) }.encode(&mut out.bytes)?;
        out.bytes.extend_from_slice(&rows);
        out.send().await?;
        if !more {
            return Ok(());
        }
        tokio::time::sleep(pace.pause(rows.len(), took)).await;
    }
}

struct Sender<W> {
    stream: W,
    compressor: Compressor,
    sent: IntCounter,
    /// Records to be sent.
    bytes: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    async fn send(&mut self) -> Result<(), SeedError> {
        let mut bytes = Bytes::from(std::mem::take(&mut self.bytes));
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(FRAME_BYTES));
            let (packing, packed) = self.compressor.compress(piece);
            send_frame(&mut self.stream, &[&[packing.byte()], &packed]).await?;
            self.sent.inc_by(packed.len() as u64 + 1);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), SeedError> {
        self.send().await?;
        self.stream.shutdown().await?;
        Ok(())
    }
}
