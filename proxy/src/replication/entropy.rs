//! Anti-entropy: regions compare what they show with every region they have a link to, and mend what
//! differs though the same ops were applied. Lag is never taken for that; the rule is
//! [`meridian_conflict::repair::verdict`].
//!
//! One task per region asks (`run`): what neighbours say has diverged, then keys that were committed
//! lately, then all others bit by bit. Neighbours are answered by [`answer`]. What one comparison does is
//! in [`compare`] and [`mend`]. Both sides mend their own keys only; who finds a divergence tells the other to look.
//!
//! | stream | direction | frames |
//! |---|---|---|
//! | comparison | both, opened by the asker | an [`Ask`](meridian_topology::entropy::Ask), then [`Answer`]s |

pub(super) mod answer;
mod compare;
mod mend;
mod run;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::{RegionId, VersionVector};
use meridian_topology::entropy::{Answer, EntropyFormatError, EntropyRefusal};
use meridian_topology::seed::SeedFormatError;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};

use crate::link::framing::{FrameError, FrameReader};
use crate::region::Region;
use crate::store::{StoreError, row};
pub(super) use run::run;

/// The longest frame: the keys of a settlement or a list, or a piece of an object.
const FRAME_MAX: usize = 1 << 20;

/// Keys of a range whose digests are added up.
const RANGE_KEYS: usize = 128;

/// Keys compared by one question, about.
const STEP_KEYS: usize = 1024;

/// Ranges in one answer: empty databases are ranges, too.
const RANGES_MAX: usize = 32;

/// Keys in one list.
const LIST_KEYS: usize = 256;

/// Bytes of keys in one list or settlement, about: one key too many at most.
const KEYS_BYTES: usize = 256 << 10;

/// Suspects settled by one question.
const SUSPECTS_MAX: usize = 64;

/// How long to wait for ops that the other side has applied.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// The longest exchange: what the other side may wait, and as much again.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(15);

/// The largest object that is sent to mend another.
const OBJECT_MAX: usize = 256 << 20;

/// The longest record of an object.
const RECORD_MAX: usize = row::MAX_PAYLOAD_BYTES + row::MAX_KEY_BYTES + 64;

/// Pieces of an object.
const PIECE_BYTES: usize = 256 << 10;

/// Keys that others asked to look at, and that wait.
const LOOKS_MAX: usize = 4096;

/// A comparison broke off. Nothing is half done; it is taken up again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntropyError {
    /// The stream broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream could not be opened or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A message does not decode.
    #[error(transparent)]
    Format(#[from] EntropyFormatError),
    /// An object's records do not decode.
    #[error(transparent)]
    Record(#[from] SeedFormatError),
    /// A message that cannot come here.
    #[error("{0}")]
    Protocol(&'static str),
    /// The other side does not answer.
    #[error("refused: {0}")]
    Refused(EntropyRefusal),
    /// It took too long.
    #[error("no answer in time")]
    Slow,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This region stops.
    #[error("this region is shutting down")]
    Draining,
}

/// A neighbour to compare with.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) connection: quinn::Connection,
}

/// What a region's links, tasks and admin server share about comparing.
#[derive(Debug)]
pub struct Entropy {
    /// Whom to compare with now.
    peers: Mutex<BTreeMap<RegionId, Peer>>,
    /// Keys that a neighbour found divergent.
    looks: Mutex<VecDeque<Look>>,
    verify: Mutex<verify::Progress>,
    verify_wanted: AtomicBool,
    wake: Notify,
    /// Only one question is worked on at a time: what others ask costs one core at most.
    answering: Semaphore,
}

/// A key to be looked at.
#[derive(Clone, Debug)]
struct Look {
    peer: RegionId,
    database: u8,
    key: Box<[u8]>,
}

impl Default for Entropy {
    fn default() -> Self {
        Self {
            peers: Mutex::default(),
            looks: Mutex::default(),
            verify: Mutex::default(),
            verify_wanted: AtomicBool::new(false),
            wake: Notify::new(),
            answering: Semaphore::new(1),
        }
    }
}

impl Entropy {
    /// These can be compared with from now on.
    pub(crate) fn set_peers(&self, peers: BTreeMap<RegionId, Peer>) {
        *self.peers.lock() = peers;
    }

    fn peers(&self) -> BTreeMap<RegionId, Peer> {
        self.peers.lock().clone()
    }

    /// Keys to be looked at; what finds no room is found again by walking.
    fn note(&self, looks: impl IntoIterator<Item = Look>) {
        let mut queue = self.looks.lock();
        for look in looks {
            if queue.len() < LOOKS_MAX {
                queue.push_back(look);
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Some of the keys to be looked at together with `peer`, all of one database.
    fn take_looks(&self, peer: RegionId) -> Option<(u8, Vec<Box<[u8]>>)> {
        let mut queue = self.looks.lock();
        let database = queue.iter().find(|look| look.peer == peer)?.database;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        queue.retain(|look| {
            let fits = taken.len() < SUSPECTS_MAX && bytes < KEYS_BYTES;
            let takes = fits && look.peer == peer && look.database == database;
            if takes {
                bytes += look.key.len();
                taken.push(look.key.clone());
            }
            !takes
        });
        Some((database, taken))
    }

    /// Forgets what regions that cannot be compared with have asked for.
    fn forget_looks(&self, peers: &BTreeMap<RegionId, Peer>) {
        self.looks.lock().retain(|look| peers.contains_key(&look.peer));
    }

    /// Begins a full comparison, unless one goes on. Returns how it stands.
    pub fn begin_verify(&self, region: &Region) -> verify::Progress {
        let mut progress = self.verify.lock();
        if !progress.is_running() {
            *progress = verify::Progress::beginning(region, &self.peers());
            // Without anybody to compare with it has ended already.
            self.verify_wanted.store(progress.is_running(), Ordering::Release);
            self.wake.notify_one();
        }
        progress.clone()
    }

    /// How the last full comparison stands.
    pub fn verify_progress(&self) -> verify::Progress {
        self.verify.lock().clone()
    }
}

/// A way to open streams to a peer.
pub(crate) trait Wire {
    /// What it says.
    type Input: AsyncRead + Unpin + Send;
    /// What we say.
    type Output: AsyncWrite + Unpin + Send;

    /// Opens a stream.
    fn open(&self) -> impl Future<Output = io::Result<(Self::Input, Self::Output)>> + Send;
}

impl Wire for quinn::Connection {
    type Input = quinn::RecvStream;
    type Output = quinn::SendStream;

    async fn open(&self) -> io::Result<(Self::Input, Self::Output)> {
        let (send, receive) = self.open_bi().await?;
        Ok((receive, send))
    }
}

/// The answers to one question.
struct Answers<R> {
    frames: FrameReader<R>,
    bytes: u64,
}

impl<R: AsyncRead + Unpin> Answers<R> {
    /// The next one. A refusal is an error.
    async fn next(&mut self) -> Result<Answer, EntropyError> {
        let frame: Bytes = self.frames.next().await?.ok_or(EntropyError::Protocol("no answer"))?;
        self.bytes += frame.len() as u64;
        match Answer::decode(&frame)? {
            Answer::Refused(reason) => Err(EntropyError::Refused(reason)),
            answer => Ok(answer),
        }
    }
}

/// The time by which keys of both sides are judged: no region has reaped what is not past by then.
fn judged_at(region: &Region) -> u64 {
    let (_, hlc) = region.sequencer().progress();
    region.wall().0.max(hlc.ms())
}

/// Waits until `vector` is applied here, for `within` at most.
pub(crate) async fn is_applied(region: &Region, vector: &VersionVector, within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        // Listening before looking: what happens in between is not missed.
        let news = region.progress.notified();
        tokio::pin!(news);
        news.as_mut().enable();
        if region.sequencer().covers(vector) {
            return true;
        }
        if region.is_draining() || tokio::time::timeout_at(deadline, news).await.is_err() {
            return region.sequencer().covers(vector);
        }
    }
}

/// Work that reads the store or takes long.
async fn blocking<T: Send + 'static>(
    region: &Arc<Region>,
    work: impl FnOnce(&Region) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, EntropyError> {
    let region = Arc::clone(region);
    // Only a runtime that is shutting down loses the task.
    let done = tokio::task::spawn_blocking(move || work(&region)).await;
    Ok(done.map_err(|_| EntropyError::Draining)??)
}

/// The stream's frame for a message.
fn framed(message: &[u8]) -> Result<bytes::BytesMut, EntropyError> {
    let mut frame = bytes::BytesMut::new();
    crate::link::framing::put_frame(&mut frame, message, FRAME_MAX)?;
    Ok(frame)
}
