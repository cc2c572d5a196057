//! Sending a subscription: tails the log, takes what the feed wants, packs it, writes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use meridian_conflict::clock::covers_all;
use meridian_topology::feed::Feed;
use meridian_topology::frame::Protocol;
use meridian_topology::frame::batch::BatchEncoder;
use meridian_topology::seed::Seeded;
use prometheus::{IntCounter, IntGauge};

use super::frame_limit;
use crate::config::settings::LogSync;
use crate::link::compress::{Compressor, Packing};
use crate::link::framing::{write_frame, write_marked_frame};
use crate::oplog::{LogError, Lsn, TailReader, Upto};
use crate::region::Region;
use crate::sequencer::{AppliedMark, read_record};

/// A batch is sent when it has grown to this.
const BATCH_BYTES: usize = 128 << 10;

/// Below this round trip the processor is dearer than the line, and batches go as they are.
const COMPRESS_FROM_ROUND_TRIP: Duration = Duration::from_millis(2);

/// Why a feed ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedEnd {
    /// The stream or connection broke.
    #[error(transparent)]
    Frame(#[from] crate::link::framing::FrameError),
    /// The connection broke before the stream was open.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The log cannot be read from there, or ended.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record was not written by this program.
    #[error("the log record at {0} is foreign")]
    Foreign(Lsn),
    /// Behind here the log goes on after ops that it does not have and the subscriber lacks.
    #[error("the log jumps over ops that the subscriber lacks")]
    PastLog,
    /// zstd could not be set up.
    #[error(transparent)]
    Compress(#[from] crate::link::compress::CompressError),
}

/// The state of one feed's task.
struct Outgoing {
    region: Arc<Region>,
    connection: quinn::Connection,
    stream: quinn::SendStream,
    /// Away while it packs a large batch.
    compressor: Option<Compressor>,
    encoder: BatchEncoder,
    limit: usize,
    sent_bytes: IntCounter,
    unsent_bytes: IntGauge,
}

/// Sends `feed` on a new stream until something ends it.
pub(super) async fn send(
    region: Arc<Region>,
    connection: quinn::Connection,
    protocol: Protocol,
    subscription: u64,
    mut feed: Feed,
    sent_bytes: IntCounter,
    unsent_bytes: IntGauge,
) -> Result<(), FeedEnd> {
    let mut head = BytesMut::new();
    head.put_u8(protocol.stream_form());
    head.put_u64_le(subscription);
    let limit = frame_limit(region.settings());
    let mut stream = connection.open_uni().await?;
    write_frame(&mut stream, head.freeze(), limit).await?;
    let start = first_record(&region, &feed);
    let mut reader = region.log().read_from(start);
    let upto = match region.settings().log.sync {
        LogSync::Always => Upto::Durable,
        LogSync::Everysec | LogSync::Never => Upto::Written,
    };
    let compressor = Some(Compressor::new()?);
    let encoder = protocol.batch_encoder();
    let mut out =
        Outgoing { region, connection, stream, compressor, encoder, limit, sent_bytes, unsent_bytes };
    loop {
        out.send_chunk(&mut reader, upto, &mut feed).await?;
    }
}

/// Where in the log everything the feed lacks is still ahead: the youngest segment at whose start
/// the subscriber had all before it. Further on the log may jump over what it lacks.
pub(super) fn first_record(region: &Region, feed: &Feed) -> Lsn {
    let segments = region.log().segments();
    let covered = segments.iter().rev().find(|segment| {
        AppliedMark::decode(&segment.mark)
            .is_some_and(|mark| covers_all(feed.cursor(), &mark.0) || feed.is_within(&mark.0))
    });
    covered.or(segments.first()).map_or(region.log().start_lsn(), |segment| segment.start)
}

impl Outgoing {
    async fn send_chunk(
        &mut self,
        reader: &mut TailReader<AppliedMark>,
        upto: Upto,
        feed: &mut Feed,
    ) -> Result<(), FeedEnd> {
        let chunk = reader.next(upto).await?;
        let unsent = self.region.log().written_lsn().since(chunk.start());
        self.unsent_bytes.set(i64::try_from(unsent).unwrap_or(i64::MAX));
        let mut records = chunk.records();
        loop {
            let mut more = false;
            for (lsn, record) in records.by_ref() {
                if Seeded::is_one(record) {
                    let seeded = Seeded::decode(record).map_err(|_| FeedEnd::Foreign(lsn))?;
                    if !feed.is_within(&seeded.position.applied) {
                        // What went before is good; the subscriber asks anew, and is told no if it still lacks it.
                        self.flush().await?;
                        return Err(FeedEnd::PastLog);
                    }
                    continue;
                }
                let (header, body) = read_record(record).ok_or(FeedEnd::Foreign(lsn))?;
                if feed.offer(&header) {
                    self.encoder.push(&header, body);
                    if self.encoder.bytes() >= BATCH_BYTES {
                        more = true;
                        break;
                    }
                }
            }
            self.flush().await?;
            if !more {
                let unsent = self.region.log().written_lsn().since(chunk.end());
                self.unsent_bytes.set(i64::try_from(unsent).unwrap_or(i64::MAX));
                return Ok(());
            }
        }
    }

    async fn flush(&mut self) -> Result<(), FeedEnd> {
        if self.encoder.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::new();
        self.encoder.finish(&mut batch);
        let batch = Bytes::from(batch);
        let (packing, packed) = if self.connection.rtt() >= COMPRESS_FROM_ROUND_TRIP {
            self.pack(batch).await?
        } else {
            (Packing::Stored, batch)
        };
        self.sent_bytes.inc_by(packed.len() as u64 + 1);
        write_marked_frame(&mut self.stream, packing.byte(), packed, self.limit).await?;
        Ok(())
    }

    async fn pack(&mut self, batch: Bytes) -> Result<(Packing, Bytes), FeedEnd> {
        let compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => Compressor::new()?,
        };
        let (compressor, packing, packed) = compressor.compress_beside(batch).await?;
        self.compressor = Some(compressor);
        Ok((packing, packed))
    }
}
