//! Segment files: names, headers, and reading frames out of them.

use std::io;

use bytes::Bytes;

use super::{
    LogError, LogFile, Lsn,
    frame::{self, SEAL, Stop},
};

const MAGIC: [u8; 8] = *b"MERIDLOG";
const VERSION: u8 = 1;
const FIXED: usize = 44;
const ALIGN: usize = 4096;
const MAX_MARK: usize = 1 << 20;
/// What a reader asks the disk for at a time, unless one frame is larger.
const READ: usize = 256 << 10;

pub(super) const SPARE: &str = "spare.tmp";
pub(super) const DAMAGED: &str = ".damaged";

/// One segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// LSN of its first frame.
    pub start: Lsn,
    /// Where its data ends (so far, for the one being written).
    pub end: Lsn,
    /// Where the previous segment ended; nothing lies between there and `start`.
    pub previous_end: Lsn,
    /// The encoded mark: what was applied below `start`.
    pub mark: Bytes,
    /// When it was created, milliseconds since 1970.
    pub created_at_ms: u64,
    /// Bytes it takes on disk, preallocated ones included.
    pub bytes: u64,
    pub(super) header_len: usize,
}

impl SegmentInfo {
    pub(super) fn file_name(&self) -> String {
        file_name(self.start)
    }

    /// File offset of the frame at `lsn`.
    pub(super) fn offset(&self, lsn: Lsn) -> u64 {
        lsn.since(self.start).saturating_add(self.header_len as u64)
    }
}

pub(super) fn file_name(start: Lsn) -> String {
    format!("{:020}.log", start.0)
}

pub(super) fn parse_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".log")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok().map(Lsn)).flatten()
}

/// Bytes a header with a mark of this length takes.
pub(super) fn header_len(mark_len: usize) -> Result<usize, LogError> {
    if mark_len > MAX_MARK {
        return Err(LogError::MarkSize { len: mark_len });
    }
    Ok((FIXED + mark_len + 4).next_multiple_of(ALIGN))
}

pub(super) fn encode_header(
    start: Lsn,
    previous_end: Lsn,
    created_at_ms: u64,
    mark: &[u8],
) -> Result<Vec<u8>, LogError> {
    let len = header_len(mark.len())?;
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    for word in [start.0, previous_end.0, created_at_ms] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&(mark.len() as u32).to_le_bytes());
    out.extend_from_slice(mark);
    out.resize(len - 4, 0);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    Ok(out)
}

/// What the start of a segment file tells.
#[derive(Debug)]
pub(super) enum Header {
    Good(SegmentInfo),
    Bad,
    OtherVersion(u8),
}

pub(super) fn read_header(file: &dyn LogFile) -> io::Result<Header> {
    let file_len = file.len()?;
    let fixed = read_up_to(file, 0, FIXED)?;
    if fixed.first_chunk() != Some(&MAGIC) {
        return Ok(Header::Bad);
    }
    match fixed.get(8) {
        Some(&VERSION) => {}
        Some(&found) => return Ok(Header::OtherVersion(found)),
        None => return Ok(Header::Bad),
    }
    let fields =
        (u32_at(&fixed, 12), u64_at(&fixed, 16), u64_at(&fixed, 24), u64_at(&fixed, 32), u32_at(&fixed, 40));
    let (Some(len), Some(start), Some(previous_end), Some(created_at_ms), Some(mark_len)) = fields else {
        return Ok(Header::Bad);
    };
    let (len, mark_len) = (len as usize, mark_len as usize);
    if header_len(mark_len).ok() != Some(len) {
        return Ok(Header::Bad);
    }
    let all = read_up_to(file, 0, len)?;
    let sum = all.get(..len - 4).map(crc32c::crc32c);
    if sum.is_none() || sum != u32_at(&all, len - 4) || previous_end > start {
        return Ok(Header::Bad);
    }
    Ok(Header::Good(SegmentInfo {
        start: Lsn(start),
        end: Lsn(start),
        previous_end: Lsn(previous_end),
        mark: Bytes::copy_from_slice(all.get(FIXED..FIXED + mark_len).unwrap_or_default()),
        created_at_ms,
        bytes: file_len,
        header_len: len,
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// Reads `want` bytes, or fewer where the file ends.
pub(super) fn read_up_to(file: &dyn LogFile, offset: u64, want: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; want];
    let mut have = 0;
    while let Some(room) = out.get_mut(have..).filter(|r| !r.is_empty()) {
        match file.read_at(room, offset.saturating_add(have as u64)) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    out.truncate(have);
    Ok(out)
}

/// Verified frames from one place of a segment.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) bytes: Vec<u8>,
    /// [`Stop::Short`] never escapes: a frame that the file or `limit` cuts off is [`Stop::Bad`]; `None` means
    /// there is more to read behind `bytes`.
    pub(super) stop: Option<Stop>,
}

/// Reads whole frames from `lsn` on, at most to `limit`: about 256 KiB, or one frame if that is larger.
pub(super) fn read_frames(
    file: &dyn LogFile,
    segment: &SegmentInfo,
    lsn: Lsn,
    limit: Lsn,
    max_record: usize,
) -> io::Result<Frames> {
    let available = usize::try_from(limit.since(lsn)).unwrap_or(usize::MAX);
    let mut want = READ.min(available);
    loop {
        let mut bytes = read_up_to(file, segment.offset(lsn), want)?;
        let all = bytes.len() < want || want == available;
        let (good, stop) = frame::walk(&bytes, lsn, max_record);
        let stop = match stop {
            Stop::Short(need) if good == 0 && !all && need <= available => {
                want = need;
                continue;
            }
            Stop::Short(_) if all || good == 0 => Some(Stop::Bad),
            Stop::End if all => Some(Stop::End),
            Stop::Short(_) | Stop::End => None,
            other => Some(other),
        };
        bytes.truncate(good);
        return Ok(Frames { bytes, stop });
    }
}

/// Whether the segment's data ends with a seal at `end`.
pub(super) fn sealed_at(file: &dyn LogFile, segment: &SegmentInfo, end: Lsn) -> io::Result<bool> {
    if end < segment.start {
        return Ok(false);
    }
    let bytes = read_up_to(file, segment.offset(end), SEAL)?;
    Ok(matches!(frame::parse(&bytes, end, 0, true), frame::Parsed::Seal(_)))
}
