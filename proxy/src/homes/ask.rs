//! Asking other regions about homes, by neighbours where there is no link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meridian_conflict::clock::RegionId;
use meridian_topology::home::message::{Answer, Head, Refusal};
use meridian_topology::home::way::first_hops;
use parking_lot::RwLock;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::millis;
use crate::config::settings::Settings;
use crate::link::framing::{FrameReader, put_frame};
use crate::link::limits::FORWARDS_PER_LINK;
use crate::region::Region;
use crate::replication::frame_limit;

/// Writes of this region's clients that may be under way to their homes.
pub const FORWARDS_MAX: usize = 4096;

/// Questions of other regions that may be worked on or passed on.
pub const ANSWERS_MAX: usize = 4096;

/// The longest frame of an answer.
pub(super) const ANSWER_FRAME_MAX: usize = 1 << 20;

/// A connection, and room for writes under way on it.
#[derive(Clone, Debug)]
struct Link {
    connection: quinn::Connection,
    room: Arc<Semaphore>,
}

/// Whom this region can ask, and how much at once.
#[derive(Debug)]
pub(super) struct Links {
    by_peer: RwLock<BTreeMap<RegionId, Link>>,
    pub(super) forwards: Arc<Semaphore>,
    pub(super) answers: Arc<Semaphore>,
    /// Room for questions that are read, in KiB: as much as the longest one.
    pub(super) kibibytes: Arc<Semaphore>,
    /// The longest question.
    pub(super) question_max: usize,
}

/// A question could not be asked, or not answered.
#[derive(Clone, Debug)]
pub(super) enum AskError {
    /// Nobody was asked: there is no way.
    Unreachable,
    /// Nobody was asked: every way is full.
    Busy,
    /// It was sent, and nothing is known of what became of it.
    Broken(String),
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Whom.
    pub(super) to: RegionId,
    /// By whom it came, this region last.
    pub(super) path: Vec<RegionId>,
    /// The question's bytes.
    pub(super) body: Bytes,
    /// Whether it is a write, of which only so many may be under way.
    pub(super) is_write: bool,
    /// When the asker gives up.
    pub(super) deadline: Instant,
}

/// An answer that has begun to arrive.
pub(super) struct Arriving {
    /// It.
    pub(super) answer: Answer,
    /// Its bytes.
    pub(super) raw: Bytes,
    /// What follows.
    pub(super) frames: FrameReader<quinn::RecvStream>,
    /// Room on the link until all has arrived.
    _room: Option<OwnedSemaphorePermit>,
}

impl Links {
    pub(super) fn new(settings: &Settings) -> Self {
        let question_max = frame_limit(settings);
        Self {
            by_peer: RwLock::default(),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            kibibytes: Arc::new(Semaphore::new(kibibytes(question_max) as usize)),
            question_max,
        }
    }

    /// These stand. Returns whether there is a new one among them.
    pub(super) fn set(&self, connections: BTreeMap<RegionId, quinn::Connection>) -> bool {
        let mut links = self.by_peer.write();
        let mut is_news = false;
        let standing = connections.into_iter().map(|(peer, connection)| {
            let known = links.get(&peer).filter(|link| link.connection.stable_id() == connection.stable_id());
            is_news |= known.is_none();
            let new = || Link { connection, room: Arc::new(Semaphore::new(FORWARDS_PER_LINK as usize)) };
            (peer, known.cloned().unwrap_or_else(new))
        });
        let standing: BTreeMap<_, _> = standing.collect();
        *links = standing;
        is_news
    }

    /// With whom there is a link.
    pub(super) fn live(&self) -> BTreeSet<RegionId> {
        self.by_peer.read().keys().copied().collect()
    }

    fn get(&self, peer: RegionId) -> Option<Link> {
        self.by_peer.read().get(&peer).cloned()
    }
}

/// What `bytes` take of the room for questions.
pub(super) fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// How long there is until `deadline`.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Asks by the shortest way that is open. Another way is tried only while it is certain that nobody has acted.
pub(super) async fn ask(region: &Region, question: &Question) -> Result<Arriving, AskError> {
    let links = &region.homes().links;
    let membership = region.membership();
    let hops = first_hops(&membership.topology.graph, question.to, &question.path, &links.live());
    let mut is_busy = false;
    for hop in hops {
        let Some(link) = links.get(hop) else { continue };
        let room = match question.is_write.then(|| Arc::clone(&link.room).try_acquire_owned()) {
            Some(Err(_)) => {
                is_busy = true;
                continue;
            }
            Some(Ok(room)) => Some(room),
            None => None,
        };
        let Ok(Ok((send, receive))) = timeout_at(question.deadline, link.connection.open_bi()).await else {
            continue;
        };
        // From here on somebody may have acted.
        let exchange = exchange(question, send, receive, room);
        match timeout_at(question.deadline, exchange).await {
            Ok(Ok(arriving)) if arriving.answer == Answer::Refused(Refusal::Unreachable) => {}
            Ok(Ok(arriving)) => return Ok(arriving),
            Ok(Err(error)) => return Err(AskError::Broken(error)),
            Err(_) => return Err(AskError::Broken("no answer in time".into())),
        }
    }
    Err(if is_busy { AskError::Busy } else { AskError::Unreachable })
}

async fn exchange(
    question: &Question,
    mut send: quinn::SendStream,
    receive: quinn::RecvStream,
    room: Option<OwnedSemaphorePermit>,
) -> Result<Arriving, String> {
    let head = Head {
        to: question.to,
        path: question.path.clone(),
        within_ms: millis(left(question.deadline)),
        bytes: question.body.len() as u64,
    };
    let (mut frames, head) = (BytesMut::new(), head.encode());
    let framed = put_frame(&mut frames, &head, head.len())
        .and_then(|()| put_frame(&mut frames, &question.body, question.body.len()));
    framed.map_err(|error| error.to_string())?;
    send.write_all(&frames).await.map_err(|error| error.to_string())?;
    // The stream may have been closed by an answer already.
    let _ = send.shutdown().await;
    let mut frames = FrameReader::new(receive, ANSWER_FRAME_MAX);
    let raw = frames.next().await.map_err(|error| error.to_string())?.ok_or("the answer broke off")?;
    let answer = Answer::decode(&raw).map_err(|error| error.to_string())?;
    Ok(Arriving { answer, raw, frames, _room: room })
}
