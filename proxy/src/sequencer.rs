//! Gives ops their place: dot, deps, stamp, log position, all under one short mutex.
//!
//! Lock order: key shards, then this. Whoever holds it neither awaits nor touches the disk: a push
//! to the log is a copy into its buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_conflict::clock::{Causality, Hlc, Origin, Stamp, VersionVector, compare};
use meridian_conflict::op::Header;
use meridian_topology::seed::Seeded;
use meridian_topology::sequence::{Position, SequenceError};
use meridian_topology::time::WallMs;
use parking_lot::{Mutex, MutexGuard};

use crate::oplog::{Batch, Buffer, LogError, Lsn, Mark};

/// The applied vector at a point of the log.
#[derive(Clone, Debug, Default)]
pub struct AppliedMark(pub Arc<VersionVector>);

impl Mark for AppliedMark {
    fn encode(&self) -> Vec<u8> {
        // A map of integers always encodes.
        postcard::to_stdvec(&*self.0).unwrap_or_default()
    }
}

impl AppliedMark {
    /// Reads what a segment header kept. `None` if it is not ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        postcard::from_bytes(bytes).ok().map(|vector| Self(Arc::new(vector)))
    }
}

/// An op could not get its place. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The log takes no more.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A local op was made for an incarnation that has just ended.
    #[error("this region has just taken a new incarnation; try again")]
    Reincarnated,
    /// A remote op that does not follow.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
}

/// Another region's position could not be adopted. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Ops were applied since the merging began, or it was begun for another vector.
    #[error("ops were applied while another region's state was merged")]
    Disturbed,
    /// The position knows more of this life than it does itself.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The log takes no more.
    #[error(transparent)]
    Log(#[from] LogError),
}

struct Inner {
    ops: meridian_topology::sequence::Sequencer,
    buffer: Buffer,
    header: Vec<u8>,
}

/// The sequencer of a running region.
pub struct Sequencer {
    inner: Mutex<Inner>,
    /// Where the pushed records end.
    end: AtomicU64,
    max_record: usize,
}

/// A place in the order.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The op's stamp.
    pub stamp: Stamp,
    /// Where its record starts in the log.
    pub lsn: Lsn,
}

impl Sequencer {
    /// A sequencer that continues `ops` and pushes to `buffer`, records of at most `max_record` bytes.
    pub fn new(ops: meridian_topology::sequence::Sequencer, buffer: Buffer, max_record: usize) -> Self {
        let end = AtomicU64::new(buffer.end().0);
        Self { inner: Mutex::new(Inner { ops, buffer, header: Vec::new() }), end, max_record }
    }

    /// The origin that local ops are written under.
    pub fn origin(&self) -> Origin {
        self.inner.lock().ops.origin()
    }

    /// Everything applied.
    pub fn applied(&self) -> VersionVector {
        self.inner.lock().ops.applied().clone()
    }

    /// Whether everything in `vector` has been applied.
    pub fn covers(&self, vector: &VersionVector) -> bool {
        meridian_conflict::clock::covers_all(self.inner.lock().ops.applied(), vector)
    }

    /// What the store keeps with its data, and the log's end at the same moment.
    pub fn position(&self) -> (Position, Lsn) {
        let inner = self.inner.lock();
        (inner.ops.position(), inner.buffer.end())
    }

    /// What the store keeps with its data: position, floor, and the log's end at the same moment.
    pub fn to_store(&self) -> (Position, VersionVector, Lsn) {
        let inner = self.inner.lock();
        (inner.ops.position(), inner.ops.floor().clone(), inner.buffer.end())
    }

    /// What the log cannot serve, because it was jumped over; see [`Sequencer::adopt`].
    pub fn floor(&self) -> VersionVector {
        self.inner.lock().ops.floor().clone()
    }

    /// Adopts a position whose state has been merged into ours and is in the store, while `ours` was
    /// applied here. The log says so. Returns where.
    ///
    /// # Errors
    /// [`AdoptError`]; nothing changed.
    pub fn adopt(&self, position: &Position, ours: &VersionVector) -> Result<Lsn, AdoptError> {
        let record = Seeded::encode(position);
        if record.len() > self.max_record {
            return Err(LogError::RecordSize { len: record.len(), max: self.max_record }.into());
        }
        let inner = &mut *self.inner.lock();
        if compare(inner.ops.applied(), ours) != Causality::Equal {
            return Err(AdoptError::Disturbed);
        }
        inner.ops.adopt(position)?;
        let lsn = inner.buffer.push(&[&record])?;
        self.end.store(inner.buffer.end().0, Ordering::Release);
        Ok(lsn)
    }

    /// Places a local op that was made for `origin`: sums of deltas are per origin.
    ///
    /// # Errors
    /// [`PlaceError::Log`] when the op is too large for a record, [`PlaceError::Reincarnated`]; no
    /// number was given out.
    pub fn local(&self, origin: Origin, wall: WallMs, body: &[u8]) -> Result<Place, PlaceError> {
        self.hold(origin)?.finish(wall, body)
    }

    /// Holds the order still, for a transaction of `origin` whose commands see each other's effects.
    ///
    /// # Errors
    /// [`PlaceError::Reincarnated`].
    pub fn hold(&self, origin: Origin) -> Result<Held<'_>, PlaceError> {
        let inner = self.inner.lock();
        if inner.ops.origin() != origin {
            return Err(PlaceError::Reincarnated);
        }
        Ok(Held { sequencer: self, inner, header: None })
    }

    /// Places a remote op: records it as applied and in the log. Returns its full deps and position.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing changed.
    pub fn remote(&self, header: &Header, body: &[u8]) -> Result<(Arc<VersionVector>, Lsn), PlaceError> {
        let inner = &mut *self.inner.lock();
        check_size(body.len(), self.max_record)?;
        let deps = Arc::clone(inner.ops.remote(header)?);
        let lsn = push(inner, header, body)?;
        self.end.store(inner.buffer.end().0, Ordering::Release);
        Ok((deps, lsn))
    }

    /// Goes on under a new incarnation.
    pub fn reincarnate(&self, origin: Origin) {
        self.inner.lock().ops.reincarnate(origin);
    }

    /// For the log's writer: everything pushed since the last call, with the applied vector there.
    pub fn take(&self, batch: &mut Batch) -> Option<AppliedMark> {
        let mut inner = self.inner.lock();
        if inner.buffer.is_empty() {
            return None;
        }
        inner.buffer.take(batch);
        Some(AppliedMark(Arc::new(inner.ops.applied().clone())))
    }

    /// Where the records pushed so far end: one atomic load.
    pub fn end(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Acquire))
    }

    /// [`Sequencer::progress`], with a clock that goes on, too, while nobody writes.
    pub fn progress_at(&self, wall: WallMs) -> (u64, Hlc) {
        let mut inner = self.inner.lock();
        inner.ops.merge_clock(Hlc::from_ms(wall.0));
        (inner.ops.sequence(), inner.ops.hlc())
    }

    /// The last sequence number given out under the current origin, and the clock.
    pub fn progress(&self) -> (u64, Hlc) {
        let inner = self.inner.lock();
        (inner.ops.sequence(), inner.ops.hlc())
    }
}

/// Room for a header beside the body in a record.
const HEADER_ROOM: usize = 64 << 10;

fn check_size(body: usize, max_record: usize) -> Result<(), LogError> {
    if body.saturating_add(HEADER_ROOM) > max_record {
        return Err(LogError::RecordSize { len: body, max: max_record.saturating_sub(HEADER_ROOM) });
    }
    Ok(())
}

fn push(inner: &mut Inner, header: &Header, body: &[u8]) -> Result<Lsn, LogError> {
    let Inner { buffer, header: scratch, .. } = inner;
    scratch.clear();
    // Writing to a Vec cannot fail.
    let _ = postcard::to_io(header, &mut *scratch);
    buffer.push(&[scratch, body])
}

/// Splits an op's log record into its header and body. `None` when it is not an op of ours.
pub fn read_record(record: &[u8]) -> Option<(Header, &[u8])> {
    // No op has origin zero; see [`Seeded`].
    postcard::take_from_bytes::<Header>(record).ok().filter(|(header, _)| header.dot.actor != Origin(0))
}

/// The order, held still.
pub struct Held<'a> {
    sequencer: &'a Sequencer,
    inner: MutexGuard<'a, Inner>,
    header: Option<Header>,
}

impl Held<'_> {
    /// The stamp of the op being made; the first call gives out its number, so the op must then be
    /// finished.
    pub fn stamp(&mut self, wall: WallMs) -> Stamp {
        let inner = &mut *self.inner;
        self.header.get_or_insert_with(|| inner.ops.local(wall)).stamp()
    }

    /// Where the op's record will start.
    pub fn next_lsn(&self) -> Lsn {
        self.inner.buffer.end()
    }

    /// Ends the op.
    ///
    /// # Errors
    /// [`PlaceError::Log`] when the body is too large for a record.
    pub fn finish(mut self, wall: WallMs, body: &[u8]) -> Result<Place, PlaceError> {
        check_size(body.len(), self.sequencer.max_record)?;
        let inner = &mut *self.inner;
        let header = match self.header.take() {
            Some(header) => header,
            None => inner.ops.local(wall),
        };
        let lsn = push(inner, &header, body)?;
        self.sequencer.end.store(inner.buffer.end().0, Ordering::Release);
        Ok(Place { stamp: header.stamp(), lsn })
    }
}
