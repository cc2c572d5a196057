//! Frames: how a record rests in a segment. The byte table is in the parent's documentation.

use super::Lsn;

pub(super) const RECORD_HEAD: usize = 8;
pub(super) const BATCH_HEAD: usize = 16;
pub(super) const SEAL: usize = 8;
pub(super) const BATCH_WORD: u32 = 0xFFFF_FFF0;

/// How a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    Rolled,
    Closed,
    Recovered,
}

impl Seal {
    fn word(self) -> u32 {
        match self {
            Self::Rolled => 0xFFFF_FFF1,
            Self::Closed => 0xFFFF_FFF2,
            Self::Recovered => 0xFFFF_FFF3,
        }
    }

    fn from_word(word: u32) -> Option<Self> {
        [Self::Rolled, Self::Closed, Self::Recovered].into_iter().find(|s| s.word() == word)
    }

    pub(super) fn encode(self, lsn: Lsn) -> [u8; SEAL] {
        let word = self.word();
        join(word, checksum(word, lsn, &[]))
    }
}

fn join(word: u32, crc: u32) -> [u8; 8] {
    (u64::from(word) | u64::from(crc) << 32).to_le_bytes()
}

fn split(head: [u8; 8]) -> (u32, u32) {
    let both = u64::from_le_bytes(head);
    ((both & 0xFFFF_FFFF) as u32, (both >> 32) as u32)
}

/// The LSN is part of the sum, so a frame copied or left over elsewhere is not valid there.
fn checksum(word: u32, lsn: Lsn, body: &[u8]) -> u32 {
    let mut prefix = [0; 12];
    for (to, from) in prefix.iter_mut().zip(word.to_le_bytes().into_iter().chain(lsn.0.to_le_bytes())) {
        *to = from;
    }
    crc32c::crc32c_append(crc32c::crc32c(&prefix), body)
}

/// A frame's head as it is pushed: without checksum.
pub(super) fn open_head(word: u32) -> [u8; 8] {
    join(word, 0)
}

fn body_len(word: u32) -> usize {
    if word == BATCH_WORD { BATCH_HEAD - RECORD_HEAD } else { word as usize }
}

/// Completes a batch of pushed frames that starts at `start`: checksums, and `durable` in its head.
pub(super) fn finish(bytes: &mut [u8], start: Lsn, durable: Lsn) {
    let mut lsn = start;
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk_mut::<8>() {
        let (word, _) = split(*head);
        let Some((body, after)) = after.split_at_mut_checked(body_len(word)) else { return };
        if word == BATCH_WORD {
            body.copy_from_slice(&durable.0.to_le_bytes());
        }
        *head = join(word, checksum(word, lsn, body));
        lsn = lsn.plus(RECORD_HEAD).plus(body.len());
        rest = after;
    }
}

/// One frame found by [`parse`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Record(&'a [u8]),
    Batch { durable: Lsn },
}

/// What lies at a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Frame {
        frame: Frame<'a>,
        len: usize,
    },
    Seal(Seal),
    /// A zero word: nothing was written here.
    Zero,
    /// The frame needs this many bytes in all.
    Short(usize),
    Bad,
}

/// Reads the frame at the start of `bytes`, whose LSN is `lsn`. Checksums are verified only if `verify`.
pub(super) fn parse(bytes: &[u8], lsn: Lsn, max_record: usize, verify: bool) -> Parsed<'_> {
    let Some((head, after)) = bytes.split_first_chunk::<8>() else { return Parsed::Short(RECORD_HEAD) };
    let (word, crc) = split(*head);
    if word == 0 {
        return Parsed::Zero;
    }
    if let Some(seal) = Seal::from_word(word) {
        return if crc == checksum(word, lsn, &[]) { Parsed::Seal(seal) } else { Parsed::Bad };
    }
    let len = body_len(word);
    if word != BATCH_WORD && len > max_record {
        return Parsed::Bad;
    }
    let Some(body) = after.get(..len) else { return Parsed::Short(RECORD_HEAD + len) };
    if verify && crc != checksum(word, lsn, body) {
        return Parsed::Bad;
    }
    let frame = match body.first_chunk::<8>() {
        Some(durable) if word == BATCH_WORD => Frame::Batch { durable: Lsn(u64::from_le_bytes(*durable)) },
        _ => Frame::Record(body),
    };
    Parsed::Frame { frame, len: RECORD_HEAD + len }
}

/// Why [`walk`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Sealed(Seal),
    Zero,
    Short(usize),
    Bad,
    End,
}

/// Verifies frame after frame from the start of `bytes`; returns how many bytes are good and why it stopped.
pub(super) fn walk(bytes: &[u8], lsn: Lsn, max_record: usize) -> (usize, Stop) {
    let mut good = 0;
    loop {
        let rest = bytes.get(good..).unwrap_or_default();
        if rest.is_empty() {
            return (good, Stop::End);
        }
        match parse(rest, lsn.plus(good), max_record, true) {
            Parsed::Frame { len, .. } => good += len,
            Parsed::Seal(seal) => return (good, Stop::Sealed(seal)),
            Parsed::Zero => return (good, Stop::Zero),
            Parsed::Short(need) => return (good, Stop::Short(need)),
            Parsed::Bad => return (good, Stop::Bad),
        }
    }
}
