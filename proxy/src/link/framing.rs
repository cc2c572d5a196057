//! Frames on a stream.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the payload, little endian |
//! | length | payload |
//!
//! No checksum: QUIC authenticates every packet. The length is checked against a limit before anything
//! is allocated, and the buffer grows only with what has arrived (at most twice that, plus one step).

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::SendStream;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the length before each payload.
pub const FRAME_HEADER_BYTES: usize = 4;

/// What a reader asks for at once when it knows no better.
const READ_STEP_BYTES: usize = 64 << 10;

/// A frame could not be read or written. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The payload is longer than the limit. When reading: nothing was allocated for it, and the link must
    /// close. When writing: nothing was sent.
    #[error("a frame of {bytes} bytes is longer than the limit of {limit}")]
    TooLarge {
        /// The declared or actual length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The stream or its connection broke while reading.
    #[error("reading: {0}")]
    Read(#[from] io::Error),
    /// The stream or its connection broke while writing.
    #[error("writing: {0}")]
    Write(#[from] quinn::WriteError),
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames whose payload is at most `limit` bytes.
    pub fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// The next payload, or `None` when the stream ended between two frames.
    ///
    /// Safe to cancel: what has arrived is kept for the next call. The payload shares the read buffer;
    /// copy what is to live long out of it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let missing = match self.declared()? {
                Some(length) => {
                    let whole = FRAME_HEADER_BYTES + length;
                    if self.buffer.len() >= whole {
                        self.buffer.advance(FRAME_HEADER_BYTES);
                        return Ok(Some(self.buffer.split_to(length).freeze()));
                    }
                    whole - self.buffer.len()
                }
                None => FRAME_HEADER_BYTES,
            };
            if self.buffer.capacity() - self.buffer.len() < missing.min(READ_STEP_BYTES) {
                // Doubling keeps copies linear for large frames; what a peer only announces costs one step.
                let step = missing.min(self.buffer.len().max(READ_STEP_BYTES));
                self.buffer.reserve(step.max(READ_STEP_BYTES / 4));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// Lowers or raises the limit for the frames that follow, as after a hello.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The stream underneath, for its id or to stop it.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The payload's length, once its header has arrived.
    fn declared(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let bytes = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if bytes > self.limit {
            return Err(FrameError::TooLarge { bytes, limit: self.limit });
        }
        Ok(Some(bytes))
    }
}

/// Appends a frame to `out`, so that several small ones leave in one write.
pub fn put_frame(out: &mut BytesMut, payload: &[u8], limit: usize) -> Result<(), FrameError> {
    let header = header(payload.len(), limit)?;
    out.reserve(FRAME_HEADER_BYTES + payload.len());
    out.put_slice(&header);
    out.put_slice(payload);
    Ok(())
}

/// Writes one frame without copying the payload.
///
/// *Not* safe to cancel: a part of the frame may be on its way. Give the stream to one task.
pub async fn write_frame(stream: &mut SendStream, payload: Bytes, limit: usize) -> Result<(), FrameError> {
    let header = Bytes::copy_from_slice(&header(payload.len(), limit)?);
    stream.write_all_chunks(&mut [header, payload]).await?;
    Ok(())
}

/// Writes one frame whose payload is `mark` and `rest`, without copying `rest`. Not safe to cancel either.
pub async fn write_marked_frame(
    stream: &mut SendStream,
    mark: u8,
    rest: Bytes,
    limit: usize,
) -> Result<(), FrameError> {
    let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES + 1);
    head.put_slice(&header(rest.len().saturating_add(1), limit)?);
    head.put_u8(mark);
    stream.write_all_chunks(&mut [head.freeze(), rest]).await?;
    Ok(())
}

fn header(bytes: usize, limit: usize) -> Result<[u8; FRAME_HEADER_BYTES], FrameError> {
    match u32::try_from(bytes) {
        Ok(length) if bytes <= limit => Ok(length.to_le_bytes()),
        _ => Err(FrameError::TooLarge { bytes, limit }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn read_all(bytes: &[u8], limit: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut reader = FrameReader::new(bytes, limit);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn a_declared_length_is_refused_before_it_is_allocated() {
        let mut wire = u32::MAX.to_le_bytes().to_vec();
        wire.extend([0; 100]);
        let mut reader = FrameReader::new(wire.as_slice(), 1 << 20);
        let error = block_on(reader.next()).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { limit: 1_048_576, .. }));
        assert!(reader.buffer.capacity() <= 2 * READ_STEP_BYTES);
        assert!(put_frame(&mut BytesMut::new(), &[0; 10], 9).is_err());
    }

    #[test]
    fn memory_follows_what_arrived_not_what_was_announced() {
        let mut wire = (64u32 << 20).to_le_bytes().to_vec();
        wire.extend([7; 1000]);
        let mut reader = FrameReader::new(wire.as_slice(), 64 << 20);
        assert!(matches!(block_on(reader.next()), Err(FrameError::Truncated)));
        assert!(reader.buffer.capacity() <= 3 * READ_STEP_BYTES, "{}", reader.buffer.capacity());
    }

    #[test]
    fn reading_can_be_cancelled_at_every_byte() {
        block_on(async {
            let mut wire = BytesMut::new();
            put_frame(&mut wire, b"first", 100).unwrap();
            put_frame(&mut wire, b"", 100).unwrap();
            put_frame(&mut wire, b"third one", 100).unwrap();
            let (mut sender, receiver) = tokio::io::duplex(64);
            let mut reader = FrameReader::new(receiver, 100);
            let mut frames = Vec::new();
            for byte in wire {
                sender.write_all(&[byte]).await.unwrap();
                // Polls once or a few times, then drops the future.
                tokio::select! {
                    biased;
                    frame = reader.next() => frames.extend(frame.unwrap()),
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(sender);
            assert_eq!(reader.next().await.unwrap(), None);
            assert_eq!(frames, [&b"first"[..], b"", b"third one"]);
        });
    }

    /// Fuzz target: any bytes are frames that make them up again, or an error.
    #[test]
    fn fuzz_frames() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(limit, wire)| {
            let limit = usize::from(*limit);
            let Ok(frames) = runtime.block_on(read_all(wire, limit)) else { return };
            let mut again = BytesMut::new();
            for frame in &frames {
                put_frame(&mut again, frame, limit).unwrap();
            }
            assert_eq!(again, wire);
        });
    }

    proptest! {
        #[test]
        fn frames_round_trip(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200_000), 0..8)) {
            let mut wire = BytesMut::new();
            for frame in &frames {
                put_frame(&mut wire, frame, 200_000).unwrap();
            }
            let read = block_on(read_all(&wire, 200_000)).unwrap();
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_end_in_frames_or_an_error(wire in prop::collection::vec(any::<u8>(), 0..2_000), limit in 0usize..500) {
            if let Ok(frames) = block_on(read_all(&wire, limit)) {
                prop_assert!(frames.iter().all(|frame| frame.len() <= limit));
            }
        }
    }
}
