//! Taking over a neighbour's whole state: for a region that is new, was wiped, or was away for longer
//! than the logs reach back.
//!
//! It is merged, never loaded over what is there, so that writes nobody else knows of survive. The
//! donor names a position, has everything committed and sends its store's rows ([`donor`]); the
//! receiver merges them, adopts the position and takes the ops since from the donor's log
//! ([`receiver`]). A row may be newer than the position; the ops it has then come again, which is
//! harmless. Nothing else may be applied at the receiver while it merges: it subscribes to nothing
//! and serves no clients.
//!
//! | stream | direction | frames |
//! |---|---|---|
//! | seed | both, opened by the receiver | to the donor [`Request`](meridian_topology::seed::Request); from it packing `u8` and a piece of its [`Record`](meridian_topology::seed::Record)s |
//!
//! The receiver keeps its side open until it has caught up: so long the donor keeps its log.

pub mod donor;
pub mod receiver;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(crate) mod tests;

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use meridian_conflict::clock::{Origin, Skew};
use meridian_topology::seed::{SeedFormatError, SeedRefusal};
use meridian_topology::sequence::PositionError;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::config::settings;
use crate::link::compress::CompressError;
use crate::link::framing::{FrameError, put_frame};
use crate::oplog::LogError;
use crate::sequencer::AdoptError;
use crate::store::{StoreError, row};

/// Content of a frame.
const FRAME_BYTES: usize = 256 << 10;

/// A frame on the wire: its content and how it is packed.
const FRAME_MAX: usize = FRAME_BYTES + 1;

/// The longest request.
pub(super) const REQUEST_MAX: usize = 1 << 20;

/// The longest record: a row, its key, and their lengths.
const RECORD_MAX: usize = row::MAX_PAYLOAD_BYTES + row::MAX_KEY_BYTES + 64;

/// The most bytes of rows read at once.
const STEP_BYTES: usize = 1 << 20;

/// How fast a donor may go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes of rows per second, before they are packed.
    pub bytes_per_second: u64,
    /// The most of the time that is spent reading, in percent, so that clients keep the disk and the processor.
    pub read_share: u32,
    /// Bytes of rows read at once.
    pub step_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self::of(&settings::Seed::default())
    }
}

impl Pace {
    /// The configured one. A step takes no longer than a quarter of a second of it.
    pub fn of(seed: &settings::Seed) -> Self {
        let quarter = usize::try_from(seed.donor_pace / 4).unwrap_or(STEP_BYTES);
        let (bytes_per_second, read_share) = (seed.donor_pace, seed.donor_share);
        Self { bytes_per_second, read_share, step_bytes: quarter.min(STEP_BYTES) }
    }

    /// How long a step of so many bytes that took so long is to be followed by nothing.
    fn pause(&self, bytes: usize, took: Duration) -> Duration {
        let whole = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        let share = self.read_share.clamp(1, 100);
        whole.saturating_sub(took).max(took.saturating_mul(100 - share) / share)
    }
}

/// A takeover broke off. What was merged stays merged; try again.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The stream broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream broke while writing, or the file that remembers the takeover could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A frame does not unpack.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A message does not decode.
    #[error(transparent)]
    Format(#[from] SeedFormatError),
    /// The donor's position does not decode.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The stream ended early.
    #[error("the stream ended before the last row")]
    Ended,
    /// A message that cannot come here.
    #[error("{0}")]
    Protocol(&'static str),
    /// The donor gives nothing.
    #[error("refused: {0}")]
    Refused(SeedRefusal),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log fails.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The position could not be adopted.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The donor's clock is too far ahead.
    #[error(transparent)]
    Skew(#[from] Skew),
    /// The donor knows more of this region's life than the region itself: a new incarnation is needed first.
    #[error("the donor knows op {sequence} of {origin}, this region's own life, which does not")]
    OwnLife {
        /// This region's origin.
        origin: Origin,
        /// What the donor knows of it.
        sequence: u64,
    },
    /// This region is shutting down.
    #[error("this region is shutting down")]
    Draining,
}

async fn send_frame(out: &mut (impl AsyncWrite + Unpin), payload: &[&[u8]]) -> Result<(), SeedError> {
    let whole: usize = payload.iter().map(|part| part.len()).sum();
    let mut content = BytesMut::with_capacity(whole);
    payload.iter().for_each(|part| content.put_slice(part));
    let mut frame = BytesMut::new();
    put_frame(&mut frame, &content, REQUEST_MAX.max(FRAME_MAX))?;
    out.write_all(&frame).await?;
    Ok(())
}
