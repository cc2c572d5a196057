//! Reading the log behind its writer: from memory where that reaches, else from the files.

use std::{collections::VecDeque, fmt};

use bytes::{Bytes, BytesMut};

use super::{
    Log, LogError, Lsn, Mark,
    frame::{self, Frame, Parsed},
    log::{OpenSegment, Read},
};

/// How far a reader may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// What power loss cannot take back.
    Durable,
    /// What was written.
    Written,
}

/// Some records in a row.
#[derive(Clone, Debug)]
pub struct Chunk {
    start: Lsn,
    len: usize,
    parts: Vec<Bytes>,
}

impl Chunk {
    /// `bytes` are whole frames.
    pub(super) fn new(start: Lsn, bytes: Bytes) -> Self {
        Self { start, len: bytes.len(), parts: vec![bytes] }
    }

    /// Where it starts.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// Where it ends: where the next one starts or, at the end of a segment, before that.
    pub fn end(&self) -> Lsn {
        self.start.plus(self.len)
    }

    /// Its size in the log.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// The records and where they start.
    pub fn records(&self) -> Records<'_> {
        Records { parts: self.parts.iter(), part: &[], lsn: self.start }
    }
}

/// Iterates over a [`Chunk`].
#[derive(Debug)]
pub struct Records<'a> {
    parts: std::slice::Iter<'a, Bytes>,
    part: &'a [u8],
    lsn: Lsn,
}

impl<'a> Iterator for Records<'a> {
    type Item = (Lsn, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.part.is_empty() {
                self.part = self.parts.next()?;
            }
            let lsn = self.lsn;
            // Verified when it came from disk, our own work when it comes from memory.
            let Parsed::Frame { frame, len } = frame::parse(self.part, lsn, usize::MAX, false) else {
                return None;
            };
            self.part = self.part.get(len..)?;
            self.lsn = lsn.plus(len);
            if let Frame::Record(payload) = frame {
                return Some((lsn, payload));
            }
        }
    }
}

/// The most recent batches.
pub(super) struct Ring {
    batches: VecDeque<(Lsn, Bytes)>,
    /// Where small batches are gathered, so that they cost no allocation each.
    arena: BytesMut,
    bytes: usize,
    limit: usize,
}

/// About as much as one chunk brings.
const CHUNK: usize = 256 << 10;

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Self { batches: VecDeque::new(), arena: BytesMut::new(), bytes: 0, limit }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, start: Lsn, batch: &[u8]) {
        if batch.len() > self.limit {
            self.batches.clear();
            self.bytes = 0;
            return;
        }
        let kept = if batch.len() > CHUNK / 4 {
            Bytes::copy_from_slice(batch)
        } else {
            if self.arena.capacity() < batch.len() {
                self.arena = BytesMut::with_capacity(CHUNK);
            }
            self.arena.extend_from_slice(batch);
            self.arena.split().freeze()
        };
        self.bytes += kept.len();
        self.batches.push_back((start, kept));
        while self.bytes > self.limit
            && let Some((_, old)) = self.batches.pop_front()
        {
            self.bytes -= old.len();
        }
    }

    /// Whole batches from `at` on, ending at or before `limit`; `None` if `at` is not in memory.
    fn read(&self, at: Lsn, limit: Lsn, max_record: usize) -> Result<Option<Chunk>, LogError> {
        let first = self.batches.partition_point(|(start, bytes)| start.plus(bytes.len()) <= at);
        let mut rest = self.batches.range(first..);
        let Some((start, bytes)) = rest.next().filter(|(start, _)| *start <= at) else { return Ok(None) };
        let skip = boundary(*start, bytes, at, max_record)?;
        if start.plus(bytes.len()) > limit {
            return Ok(None);
        }
        let mut chunk = Chunk::new(at, bytes.slice(skip..));
        for (start, bytes) in rest {
            let end = start.plus(bytes.len());
            if *start != chunk.end() || end > limit || chunk.len >= CHUNK {
                break;
            }
            chunk.len += bytes.len();
            chunk.parts.push(bytes.clone());
        }
        Ok(Some(chunk))
    }
}

/// Where `at` lies in the batch, if a frame starts there.
fn boundary(start: Lsn, bytes: &[u8], at: Lsn, max_record: usize) -> Result<usize, LogError> {
    let mut skip = 0;
    while start.plus(skip) < at {
        match frame::parse(bytes.get(skip..).unwrap_or_default(), start.plus(skip), max_record, false) {
            Parsed::Frame { len, .. } => skip += len,
            _ => return Err(LogError::NotARecord { lsn: at }),
        }
    }
    if start.plus(skip) == at { Ok(skip) } else { Err(LogError::NotARecord { lsn: at }) }
}

/// Reads on from a position, waiting for the writer at the end. Any number may read at their own pace.
pub struct TailReader<M> {
    log: Log<M>,
    at: Lsn,
    file: Option<OpenSegment>,
}

impl<M> fmt::Debug for TailReader<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailReader").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<M: Mark> TailReader<M> {
    pub(super) fn new(log: Log<M>, at: Lsn) -> Self {
        Self { log, at, file: None }
    }

    /// Where the next chunk starts.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The next records, at least one frame, about 256 KiB at most unless one record is larger; waits for them if
    /// need be. May be cancelled: nothing is skipped then.
    ///
    /// Fails with [`LogError::Truncated`] if the position is gone, [`LogError::Damaged`] if the files are, and, at the
    /// end, with what ended the log.
    pub async fn next(&mut self, upto: Upto) -> Result<Chunk, LogError> {
        loop {
            let progress = match upto {
                Upto::Durable => &self.log.shared.durable,
                Upto::Written => &self.log.shared.written,
            };
            let limit = progress.lsn();
            if self.at >= limit {
                if !progress.passed(self.at).await {
                    return Err(self.log.shared.ended());
                }
                continue;
            }
            let max_record = self.log.shared.settings.max_record;
            let cached = self.log.shared.ring.lock().read(self.at, limit, max_record)?;
            if let Some(chunk) = cached {
                self.file = None;
                self.at = chunk.end();
                return Ok(chunk);
            }
            match self.read_files(limit).await? {
                Read::Chunk(chunk) => {
                    self.at = chunk.end();
                    return Ok(chunk);
                }
                Read::Skip(to) => self.at = to,
                // Nothing between here and the limit but the gap before this run's first record.
                Read::End => return Err(LogError::NotARecord { lsn: self.at }),
            }
        }
    }

    async fn read_files(&mut self, limit: Lsn) -> Result<Read, LogError> {
        let (log, at, mut file) = (self.log.clone(), self.at, self.file.take());
        let reading = tokio::task::spawn_blocking(move || {
            let read = log.shared.segments.read(at, limit, &mut file);
            (read, file)
        });
        // Only a runtime that is shutting down loses the task.
        let (read, file) = reading.await.map_err(|_| LogError::Closed)?;
        self.file = file;
        read
    }
}
