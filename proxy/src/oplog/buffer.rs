//! What was pushed and not yet taken by the writer.

use super::{
    LogError, Lsn,
    frame::{self, BATCH_HEAD, BATCH_WORD, RECORD_HEAD},
};

/// The log's end in memory. Its owner keeps it inside the lock that orders ops, so that log order is
/// application order; a push is a copy.
#[derive(Debug)]
pub struct Buffer {
    start: Lsn,
    bytes: Vec<u8>,
    max_record: usize,
}

impl Buffer {
    /// A buffer whose first batch starts at `start` (see [`super::Log::buffer`]).
    pub(super) fn new(start: Lsn, max_record: usize) -> Self {
        Self { start, bytes: Vec::new(), max_record }
    }

    /// Pushes one record whose payload is `parts` joined. Returns the record's LSN.
    /// Fails, with nothing pushed, if the payload is empty or over `max_record`.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<Lsn, LogError> {
        let len = parts.iter().map(|p| p.len()).fold(0, usize::saturating_add);
        if len == 0 || len > self.max_record {
            return Err(LogError::RecordSize { len, max: self.max_record });
        }
        self.open_batch();
        let lsn = self.end();
        self.bytes.reserve(RECORD_HEAD + len);
        self.bytes.extend_from_slice(&frame::open_head(len as u32));
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok(lsn)
    }

    /// Pushes one record whose payload `encode` appends to the given buffer; it must not touch what is already
    /// there. Fails like [`Buffer::push`].
    pub fn push_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Lsn, LogError> {
        let before = self.bytes.len();
        self.open_batch();
        let lsn = self.end();
        let head_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEAD]);
        encode(&mut self.bytes);
        let len = self.bytes.len().saturating_sub(head_at + RECORD_HEAD);
        match self.bytes.get_mut(head_at..).and_then(<[u8]>::first_chunk_mut) {
            Some(head) if len > 0 && len <= self.max_record => {
                *head = frame::open_head(len as u32);
                Ok(lsn)
            }
            _ => {
                self.bytes.truncate(before);
                Err(LogError::RecordSize { len, max: self.max_record })
            }
        }
    }

    /// Each batch starts with room for its head, which the writer fills.
    fn open_batch(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&frame::open_head(BATCH_WORD));
            self.bytes.extend_from_slice(&[0; BATCH_HEAD - RECORD_HEAD]);
        }
    }

    /// Where the pushed bytes end.
    pub fn end(&self) -> Lsn {
        self.start.plus(self.bytes.len())
    }

    /// Bytes pushed and not yet taken: bound it by slowing writers down.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Moves everything pushed into `batch`, whose old memory is used for what comes.
    pub fn take(&mut self, batch: &mut Batch) {
        batch.bytes.clear();
        batch.start = self.start;
        self.start = self.end();
        std::mem::swap(&mut self.bytes, &mut batch.bytes);
    }
}

/// Frames on their way from the [`Buffer`] to the disk, in one write.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) start: Lsn,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    pub(super) fn end(&self) -> Lsn {
        self.start.plus(self.bytes.len())
    }

    pub(super) fn clear(&mut self) {
        // One giant batch must not hold its memory for ever.
        const KEEP: usize = 8 << 20;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes.shrink_to(KEEP);
        }
    }
}
