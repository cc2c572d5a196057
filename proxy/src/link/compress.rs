//! Batches are compressed where that pays: zstd level 1 from 16 KiB on, stored when it does not shrink.

use bytes::Bytes;
use zstd::zstd_safe::get_frame_content_size;

/// Payloads below this are stored.
pub const COMPRESS_FROM_BYTES: usize = 16 << 10;

/// Payloads from here on are packed and unpacked beside the runtime's threads, which have heartbeats to send.
const BESIDE_FROM_BYTES: u64 = 1 << 20;

const LEVEL: i32 = 1;

/// How a payload travels. The byte is part of the frame format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Stored,
    /// One zstd frame that declares its content's size.
    Zstd,
}

impl Packing {
    /// The byte that travels.
    pub fn byte(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    /// The packing that `byte` stands for.
    pub fn from_byte(byte: u8) -> Result<Self, CompressError> {
        match byte {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            other => Err(CompressError::UnknownPacking(other)),
        }
    }
}

/// A payload could not be unpacked: the link must close. Or a context could not be made: out of memory.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A packing of a later version.
    #[error("unknown packing {0}")]
    UnknownPacking(u8),
    /// The content is larger than the limit: refused before it was allocated.
    #[error("a payload unpacks to {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The declared or actual size.
        bytes: u64,
        /// The limit.
        limit: usize,
    },
    /// Not one whole zstd frame with the size of its content.
    #[error("not a zstd frame with a declared size")]
    Malformed,
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Ended,
    /// zstd could not set up a context.
    #[error("zstd: {0}")]
    Context(#[from] std::io::Error),
}

/// Packs the payloads of one sender; keeps zstd's memory between them.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor of its own for each sender.
    pub fn new() -> Result<Self, CompressError> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)? })
    }

    /// [`Compressor::compress`], large payloads on a thread that may block.
    ///
    /// # Errors
    /// [`CompressError::Ended`].
    pub async fn compress_beside(mut self, payload: Bytes) -> Result<(Self, Packing, Bytes), CompressError> {
        if (payload.len() as u64) < BESIDE_FROM_BYTES {
            let (packing, packed) = self.compress(payload);
            return Ok((self, packing, packed));
        }
        let packing = tokio::task::spawn_blocking(move || {
            let (packing, packed) = self.compress(payload);
            (self, packing, packed)
        });
        packing.await.map_err(|_| CompressError::Ended)
    }

    /// The smaller of payload and compressed payload. Storing shares the payload's memory.
    pub fn compress(&mut self, payload: Bytes) -> (Packing, Bytes) {
        if payload.len() < COMPRESS_FROM_BYTES {
            return (Packing::Stored, payload);
        }
        // Room for less than the payload: zstd gives up as soon as it would not shrink.
        let mut out = Vec::with_capacity(payload.len() - 1);
        match self.zstd.compress_to_buffer(&payload, &mut out) {
            Ok(written) if written < payload.len() => (Packing::Zstd, Bytes::from(out)),
            _ => (Packing::Stored, payload),
        }
    }
}

/// Unpacks the payloads of one peer; keeps zstd's memory between them.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// A decompressor of its own for each peer.
    pub fn new() -> Result<Self, CompressError> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()? })
    }

    /// [`Decompressor::decompress`], large payloads on a thread that may block.
    ///
    /// # Errors
    /// [`CompressError`].
    pub async fn decompress_beside(
        mut self,
        packing: Packing,
        bytes: Bytes,
        limit: usize,
    ) -> Result<(Self, Bytes), CompressError> {
        if packing == Packing::Stored || declared(&bytes)? < BESIDE_FROM_BYTES {
            let payload = self.decompress(packing, bytes, limit)?;
            return Ok((self, payload));
        }
        let unpacking = tokio::task::spawn_blocking(move || {
            let payload = self.decompress(packing, bytes, limit)?;
            Ok((self, payload))
        });
        unpacking.await.map_err(|_| CompressError::Ended)?
    }

    /// The payload, at most `limit` bytes of it: a larger one is refused by its declared size, and a frame
    /// that declares less than it holds finds no room.
    pub fn decompress(
        &mut self,
        packing: Packing,
        bytes: Bytes,
        limit: usize,
    ) -> Result<Bytes, CompressError> {
        let size = match packing {
            Packing::Stored => bytes.len() as u64,
            Packing::Zstd => declared(&bytes)?,
        };
        let size = match usize::try_from(size) {
            Ok(size) if size <= limit => size,
            _ => return Err(CompressError::TooLarge { bytes: size, limit }),
        };
        if packing == Packing::Stored {
            return Ok(bytes);
        }
        let mut out = Vec::with_capacity(size);
        match self.zstd.decompress_to_buffer(&bytes, &mut out) {
            Ok(written) if written == size => Ok(Bytes::from(out)),
            _ => Err(CompressError::Malformed),
        }
    }
}

/// The size of its content that a zstd frame declares.
fn declared(bytes: &[u8]) -> Result<u64, CompressError> {
    get_frame_content_size(bytes).ok().flatten().ok_or(CompressError::Malformed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn both() -> (Compressor, Decompressor) {
        (Compressor::new().unwrap(), Decompressor::new().unwrap())
    }

    fn noise(bytes: usize) -> Bytes {
        let mut random = crate::link::random::SplitMix64::new(1);
        (0..bytes).map(|_| random.next_u64().to_le_bytes()[0]).collect()
    }

    #[test]
    fn compresses_only_where_it_pays() {
        let (mut compressor, mut decompressor) = both();
        let repeated = Bytes::from(b"user:12345 visits ".repeat(4_000));
        let small = repeated.slice(..COMPRESS_FROM_BYTES - 1);
        assert_eq!(compressor.compress(small.clone()), (Packing::Stored, small));
        let random = noise(64 << 10);
        assert_eq!(compressor.compress(random.clone()), (Packing::Stored, random));
        let (packing, packed) = compressor.compress(repeated.clone());
        assert!(packing == Packing::Zstd && packed.len() < repeated.len() / 20);
        assert_eq!(decompressor.decompress(packing, packed, LIMIT).unwrap(), repeated);
    }

    #[tokio::test]
    async fn q2_large_payloads_are_packed_and_unpacked_beside_the_runtime() {
        let (compressor, decompressor) = both();
        for bytes in [COMPRESS_FROM_BYTES, 3 << 20] {
            let (mut compressor, mut decompressor) = both();
            let payload = Bytes::from(vec![7; bytes]);
            let expected = compressor.compress(payload.clone());
            let (_, packing, packed) = compressor.compress_beside(payload.clone()).await.unwrap();
            assert_eq!((packing, packed.clone()), expected);
            assert_eq!(decompressor.decompress(packing, packed.clone(), bytes).unwrap(), payload);
            let (_, unpacked) = decompressor.decompress_beside(packing, packed, bytes).await.unwrap();
            assert_eq!(unpacked, payload);
        }
        let (_, packing, packed) = compressor.compress_beside(noise(2 << 20)).await.unwrap();
        assert_eq!(packing, Packing::Stored);
        let over = decompressor.decompress_beside(packing, packed, LIMIT).await;
        assert!(matches!(over, Err(CompressError::TooLarge { bytes: 2_097_152, .. })));
    }

    #[test]
    fn a_bomb_is_refused_by_its_size() {
        let (mut compressor, mut decompressor) = both();
        let (packing, bomb) = compressor.compress(Bytes::from(vec![0; 64 << 20]));
        assert!(bomb.len() < 16 << 10);
        let error = decompressor.decompress(packing, bomb, LIMIT).unwrap_err();
        assert!(matches!(error, CompressError::TooLarge { bytes: 67_108_864, .. }));
    }

    #[test]
    fn a_frame_that_lies_about_its_size_or_hides_it_is_refused() {
        let (_, mut decompressor) = both();
        let honest = zstd::bulk::compress(&vec![5; 100_000], 1).unwrap();
        // Content size field: descriptor byte 4 says 4 bytes; with a single segment they follow it.
        let mut lying = honest.clone();
        assert_eq!(get_frame_content_size(&lying).unwrap(), Some(100_000));
        let at = lying.windows(4).position(|w| w == 100_000u32.to_le_bytes()).unwrap();
        lying[at..at + 4].copy_from_slice(&50u32.to_le_bytes());
        let error = decompressor.decompress(Packing::Zstd, lying.into(), LIMIT).unwrap_err();
        assert!(matches!(error, CompressError::Malformed));

        let mut hidden = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        std::io::Write::write_all(&mut hidden, &[5; 100_000]).unwrap();
        let error =
            decompressor.decompress(Packing::Zstd, hidden.finish().unwrap().into(), LIMIT).unwrap_err();
        assert!(matches!(error, CompressError::Malformed));
        // Two frames in a row: the second does not fit what the first declares.
        let twice = [honest.clone(), honest].concat();
        assert!(decompressor.decompress(Packing::Zstd, twice.into(), LIMIT).is_err());
        assert!(Packing::from_byte(2).is_err());
    }

    /// Fuzz target: damaged payloads unpack within the limit or are refused.
    #[test]
    fn fuzz_decompress() {
        let (mut compressor, mut decompressor) = both();
        let (packing, whole) = compressor.compress(Bytes::from(b"user:12345 visits ".repeat(1_000)));
        assert_eq!(packing, Packing::Zstd);
        bolero::check!().with_type::<(u16, Vec<u8>, Vec<(u16, u8)>)>().for_each(|(limit, bytes, edits)| {
            let limit = usize::from(*limit);
            let mut damaged = whole.to_vec();
            for (at, byte) in edits {
                let at = usize::from(*at) % damaged.len();
                damaged[at] = *byte;
            }
            let started = [&[0x28, 0xb5, 0x2f, 0xfd][..], bytes].concat();
            for wire in [damaged, started, bytes.clone()] {
                for packing in [Packing::Stored, Packing::Zstd] {
                    if let Ok(out) = decompressor.decompress(packing, wire.clone().into(), limit) {
                        assert!(out.len() <= limit);
                    }
                }
            }
            // What was refused has not harmed the context.
            let whole = decompressor.decompress(Packing::Zstd, whole.clone(), LIMIT).unwrap();
            assert_eq!(whole.len(), 18_000);
        });
    }

    proptest! {
        #[test]
        fn any_bytes_unpack_within_the_limit_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut wire = vec![0x28, 0xb5, 0x2f, 0xfd];
            wire.extend(bytes);
            let (_, mut decompressor) = both();
            if let Ok(out) = decompressor.decompress(Packing::Zstd, wire.into(), 10_000) {
                prop_assert!(out.len() <= 10_000);
            }
        }
    }
}
