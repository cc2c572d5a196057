//! The tasks of one connection: control messages in and out, op streams in.

mod dial;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use meridian_conflict::clock::RegionId;
use meridian_topology::entropy::Ask;
use meridian_topology::frame::{Control, PROTOCOLS, Protocol};
use meridian_topology::home::message::Head;
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::hub::Event;
use super::{entropy, renewal, seed};
use crate::cert::Identity;
use crate::homes;
use crate::link::close::{CloseReason, Ended};
use crate::link::compress::{Decompressor, Packing};
use crate::link::endpoint::PeerConnection;
use crate::link::framing::{FrameReader, put_frame};
use crate::region::Region;

pub(super) use dial::{announce, dial};

/// The largest control message.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// Control messages that wait for the stream: more means a peer that does not read.
const CONTROL_QUEUE: usize = 1024;

/// Control messages go out before everything else that waits to be sent on a connection.
const CONTROL_PRIORITY: i32 = 1;

/// A takeover's rows go out behind everything else.
const SEED_PRIORITY: i32 = -1;

/// How long a peer may take to open its control stream.
const CONTROL_WITHIN: Duration = Duration::from_secs(10);

/// How long a close waits for what was sent before it.
const LINGER: Duration = Duration::from_millis(500);

/// How long a peer that has ended its control stream may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How long a peer that opened a stream may take to say what it wants.
const QUESTION_WITHIN: Duration = Duration::from_secs(10);

/// What the hub tells a connection's writer.
pub(super) enum Outbound {
    /// Send this.
    Control(Control),
    /// Then close.
    Close(CloseReason, String),
}

/// Access to a connection.
pub(super) struct Wire {
    /// Whether this region dialled.
    pub(super) dialled: bool,
    pub(super) since: Instant,
    pub(super) connection: quinn::Connection,
    pub(super) outbound: mpsc::Sender<Outbound>,
}

/// Bounds the batches that wait for the hub, of all peers together; what finds no room stays unread, and
/// its sender stops when the stream's window is full.
#[derive(Clone)]
pub(super) struct Room {
    kibibytes: Arc<Semaphore>,
    most: u32,
}

impl Room {
    /// Room for this many bytes, or for one batch if that is larger.
    pub(super) fn new(bytes: usize) -> Self {
        let most = Self::kibibytes(bytes);
        Self { kibibytes: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))), most }
    }

    fn kibibytes(bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
    }

    /// Waits until there is room. It is given back when what is returned is dropped.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kibibytes = Self::kibibytes(bytes).min(self.most);
        // The semaphore is never closed.
        Arc::clone(&self.kibibytes).acquire_many_owned(kibibytes).await.ok()
    }
}

/// What every connection of a region needs.
#[derive(Clone)]
pub(super) struct Context {
    /// Connections to the peer that stand or are being greeted.
    pub(super) standing: Arc<AtomicUsize>,
    /// When the first certificate of the newest of them ends.
    pub(super) ends: Arc<Mutex<Option<SystemTime>>>,
    /// What this region proves itself with.
    pub(super) identity: watch::Receiver<Arc<Identity>>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) region: Arc<Region>,
    pub(super) frame_limit: usize,
    pub(super) room: Room,
    pub(super) received: IntCounter,
    pub(super) received_control: IntCounter,
    pub(super) sent_control: IntCounter,
}

impl Context {
    /// Tells what is wrong with a link. Without a hub there is nobody left to tell.
    pub(super) async fn trouble(&self, peer: RegionId, error: String) {
        let _ = self.events.send(Event::Trouble { peer, error }).await;
    }
}

/// What a connection speaks: [`Protocol::GREETING`] until the peer's hello has settled it. Its tasks share it.
#[derive(Clone)]
struct Spoken(Arc<AtomicU16>);

impl Spoken {
    fn greeting() -> Self {
        Self(Arc::new(AtomicU16::new(Protocol::GREETING.number())))
    }

    fn get(&self) -> Protocol {
        Protocol::numbered(self.0.load(Ordering::Acquire))
    }

    /// Takes note of what has come. Without a common version the hub closes the connection.
    fn heard(&self, control: &Control) {
        if let Control::Hello(hello) = control
            && let Some(common) = PROTOCOLS.common(hello.protocols)
        {
            self.0.store(common.number(), Ordering::Release);
        }
    }
}

/// Counts a connection while it is there.
struct Standing(Arc<AtomicUsize>);

impl Standing {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a connection until it ends, and tells why it did. Returns whether the peer accepted us.
pub(super) async fn run(
    peer_connection: PeerConnection,
    peer: RegionId,
    context: Context,
    dialled: bool,
) -> bool {
    let connection = peer_connection.connection.clone();
    let _standing = Standing::new(&context.standing);
    let opening = async { if dialled { connection.open_bi().await } else { connection.accept_bi().await } };
    let (send, receive) = match tokio::time::timeout(CONTROL_WITHIN, opening).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            let ended = Ended::from(&error);
            if !ended.is_replacement() {
                context.trouble(peer, ended.to_string()).await;
            }
            return false;
        }
        Err(_) => {
            peer_connection.close(CloseReason::ProtocolError, "no control stream");
            context.trouble(peer, "the peer opened no control stream".into()).await;
            return false;
        }
    };
    // A stream that is closed already shows when it is written to.
    let _ = send.set_priority(CONTROL_PRIORITY);
    let (outbound, queue) = mpsc::channel(CONTROL_QUEUE);
    let (told, session) = tokio::sync::oneshot::channel();
    let wire = Wire { dialled, since: Instant::now(), connection: connection.clone(), outbound };
    if context.events.send(Event::Connected { peer, wire, session: told }).await.is_err() {
        return false;
    }
    let Ok(session) = session.await else { return false };
    let spoken = Spoken::greeting();
    let guard = tokio::spawn(renewal::guard(peer_connection.clone(), peer, context.clone()));
    let sent = context.sent_control.clone();
    let writer = tokio::spawn(write_control(peer_connection, send, queue, spoken.clone(), sent));
    let accepting = accept_streams(connection.clone(), peer, session, spoken.clone(), context.clone());
    let streams = tokio::spawn(accepting);
    let questions = tokio::spawn(accept_questions(connection.clone(), peer, Arc::clone(&context.region)));
    let (accepted, fault) = read_control(receive, peer, session, &spoken, &context).await;
    let close = |why: &str| {
        connection.close(quinn::VarInt::from_u32(CloseReason::ProtocolError.code()), why.as_bytes());
    };
    match &fault {
        Some(fault) => close(fault),
        // A peer that ends its stream is about to close, and its reason says more.
        None => {
            if tokio::time::timeout(CLOSE_WITHIN, connection.closed()).await.is_err() {
                close("the control stream ended");
            }
        }
    }
    let ended = Ended::from(&connection.closed().await);
    streams.abort();
    questions.abort();
    writer.abort();
    guard.abort();
    let _ = context.events.send(Event::Disconnected { peer, session }).await;
    match fault {
        Some(fault) => context.trouble(peer, fault).await,
        // Whoever closed it on this side has told why, and that must stand.
        None if ended == Ended::Local || ended.is_replacement() => {}
        None => {
            if let Ended::ByPeer { reason, .. } = &ended
                && reason.is_refusal()
            {
                context.region.metrics().links.refused(*reason);
            }
            context.trouble(peer, ended.to_string()).await;
        }
    }
    accepted
}

/// Reads control messages until the stream ends. Returns whether the peer accepted us, which all but
/// a hello and a goodbye show, and what was wrong.
async fn read_control(
    receive: quinn::RecvStream,
    peer: RegionId,
    session: u64,
    spoken: &Spoken,
    context: &Context,
) -> (bool, Option<String>) {
    let mut frames = FrameReader::new(receive, CONTROL_BYTES_MAX);
    let mut accepted = false;
    loop {
        match frames.next().await {
            Ok(Some(payload)) => {
                context.received_control.inc_by(payload.len() as u64);
                let control = match spoken.get().decode(&payload) {
                    Ok(control) => control,
                    Err(error) => return (accepted, Some(error.to_string())),
                };
                spoken.heard(&control);
                accepted |= !matches!(control, Control::Hello(_) | Control::Goodbye { .. });
                if context.events.send(Event::Control { peer, session, control }).await.is_err() {
                    return (accepted, None);
                }
            }
            Err(error @ crate::link::framing::FrameError::TooLarge { .. }) => {
                return (accepted, Some(error.to_string()));
            }
            Ok(None) | Err(_) => return (accepted, None),
        }
    }
}

async fn write_control(
    peer: PeerConnection,
    mut send: quinn::SendStream,
    mut queue: mpsc::Receiver<Outbound>,
    spoken: Spoken,
    sent: IntCounter,
) {
    let mut out = BytesMut::new();
    let mut payload = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut closing = None;
        let mut next = Some(first);
        while let Some(outbound) = next.take() {
            match outbound {
                Outbound::Control(control) => {
                    payload.clear();
                    let hello = matches!(control, Control::Hello(_));
                    let protocol = if hello { Protocol::GREETING } else { spoken.get() };
                    protocol.encode(&control, &mut payload);
                    // Our own messages are far below the limit.
                    let _ = put_frame(&mut out, &payload, CONTROL_BYTES_MAX);
                }
                Outbound::Close(reason, detail) => {
                    closing = Some((reason, detail));
                    break;
                }
            }
            next = queue.try_recv().ok();
        }
        sent.inc_by(out.len() as u64);
        if send.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        if let Some((reason, detail)) = closing {
            let _ = send.finish();
            let _ = tokio::time::timeout(LINGER, send.stopped()).await;
            peer.close(reason, &detail);
            return;
        }
    }
}

/// Takes op streams in. A new subscription means a new stream; the old one is reset by its sender.
async fn accept_streams(
    connection: quinn::Connection,
    peer: RegionId,
    session: u64,
    spoken: Spoken,
    context: Context,
) {
    while let Ok(stream) = connection.accept_uni().await {
        let (connection, context) = (connection.clone(), context.clone());
        // Nobody opens one before the hellos.
        let protocol = spoken.get();
        tokio::spawn(async move {
            if let Err(fault) = read_ops(stream, peer, session, protocol, context).await {
                connection
                    .close(quinn::VarInt::from_u32(CloseReason::ProtocolError.code()), fault.as_bytes());
            }
        });
    }
}

/// Answers what the peer asks on streams of its own: our state, one time after the other, how ours
/// compares with its own, or what concerns homes.
async fn accept_questions(connection: quinn::Connection, peer: RegionId, region: Arc<Region>) {
    let giving = Arc::new(Semaphore::new(1));
    while let Ok((send, receive)) = connection.accept_bi().await {
        // The transport bounds how many there can be at once.
        let (region, giving) = (Arc::clone(&region), Arc::clone(&giving));
        tokio::spawn(async move {
            let mut input = FrameReader::new(receive, seed::REQUEST_MAX);
            let Ok(Ok(Some(question))) = tokio::time::timeout(QUESTION_WITHIN, input.next()).await else {
                return;
            };
            let name = || region.membership().name_of(peer);
            if Head::is_one(&question) {
                if let Err(error) = homes::answer::answer(&region, peer, &question, input, send).await {
                    tracing::debug!(peer = name(), error, "a question about homes broke off");
                }
                return;
            }
            if Ask::is_one(&question) {
                if let Err(error) = entropy::answer::answer(&region, peer, question, send).await {
                    tracing::debug!(peer = name(), %error, "a comparison broke off");
                }
                return;
            }
            // Nobody closes the semaphore.
            let Ok(_turn) = giving.acquire().await else { return };
            tracing::info!(peer = name(), "giving our state to a peer");
            let pace = seed::Pace::of(&region.settings().seed);
            let _ = send.set_priority(SEED_PRIORITY);
            match seed::donor::donate_to(&region, peer, pace, &question, input, send).await {
                Ok(()) => tracing::info!(peer = name(), "gave our state to a peer"),
                Err(error) => tracing::warn!(peer = name(), %error, "giving our state to a peer broke off"),
            }
        });
    }
}

/// Reads one op stream to its end. An error is a breach of the protocol.
async fn read_ops(
    stream: quinn::RecvStream,
    peer: RegionId,
    session: u64,
    protocol: Protocol,
    context: Context,
) -> Result<(), String> {
    use crate::link::framing::FrameError;
    let mut frames = FrameReader::new(stream, context.frame_limit);
    let mut decompressor = Decompressor::new().map_err(|error| error.to_string())?;
    let mut subscription = None;
    loop {
        let frame = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error @ FrameError::TooLarge { .. }) => return Err(error.to_string()),
            // Reset by a change of route, or the connection is gone.
            Err(_) => return Ok(()),
        };
        let Some(id) = subscription else {
            subscription = Some(head(protocol, &frame)?);
            continue;
        };
        context.received.inc_by(frame.len() as u64);
        let batch;
        (decompressor, batch) = unpack(decompressor, frame, context.frame_limit).await?;
        let room = context.room.take(batch.len()).await;
        let event = Event::Batch { peer, session, subscription: id, batch, room };
        if context.events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

fn head(protocol: Protocol, frame: &[u8]) -> Result<u64, String> {
    match frame.split_first() {
        Some((form, id)) if *form == protocol.stream_form() => {
            let id: [u8; 8] = id.try_into().map_err(|_| "malformed head of an op stream".to_owned())?;
            Ok(u64::from_le_bytes(id))
        }
        Some((version, _)) => Err(format!("op stream of version {version}")),
        None => Err("empty head of an op stream".into()),
    }
}

async fn unpack(
    decompressor: Decompressor,
    mut frame: Bytes,
    limit: usize,
) -> Result<(Decompressor, Bytes), String> {
    if frame.is_empty() {
        return Err("empty frame on an op stream".into());
    }
    let packing = frame.split_to(1).first().copied().unwrap_or_default();
    let packing = Packing::from_byte(packing).map_err(|error| error.to_string())?;
    decompressor.decompress_beside(packing, frame, limit).await.map_err(|error| error.to_string())
}
