//! One direction of one flow: what comes in leaves later, or not at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Conditions, DATAGRAM_MAX_BYTES, Way};
use crate::link::random::SplitMix64;

/// How far a reordered datagram falls behind, beyond its delay.
const HELD_BACK_MAX: Duration = Duration::from_millis(10);

/// Timers are no finer than this.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

pub(super) enum Source {
    Handover(mpsc::Receiver<Bytes>),
    Socket(Arc<UdpSocket>),
}

impl Source {
    /// The next datagram; `None` when there will be none.
    async fn next(&mut self, buffer: &mut [u8]) -> Option<Bytes> {
        match self {
            Self::Handover(receiver) => receiver.recv().await,
            Self::Socket(socket) => loop {
                // An error here says that an earlier datagram met a closed port.
                if let Ok(bytes) = socket.recv(buffer).await {
                    return buffer.get(..bytes).map(Bytes::copy_from_slice);
                }
            },
        }
    }
}

pub(super) enum Sink {
    Connected(Arc<UdpSocket>),
    To(Arc<UdpSocket>, SocketAddr),
}

impl Sink {
    async fn send(&self, datagram: &[u8]) {
        // The network promises nothing either.
        let _ = match self {
            Self::Connected(socket) => socket.send(datagram).await,
            Self::To(socket, address) => socket.send_to(datagram, *address).await,
        };
    }
}

/// Due time, then order of arrival, which makes every entry distinct.
type Queued = Reverse<(Instant, u64, Bytes)>;

pub(super) struct Line {
    way: Arc<Way>,
    random: SplitMix64,
    queue: BinaryHeap<Queued>,
    queued_bytes: u64,
    arrivals: u64,
    /// When the last bit of what was let in has left, at the set rate.
    free_at: Instant,
    /// Due time of the last datagram in order.
    last_due: Instant,
}

impl Line {
    pub(super) fn new(way: Arc<Way>, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            way,
            random: SplitMix64::new(seed),
            queue: BinaryHeap::new(),
            queued_bytes: 0,
            arrivals: 0,
            free_at: now,
            last_due: now,
        }
    }

    pub(super) async fn run(mut self, mut source: Source, sink: Sink) {
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        loop {
            let next_due = self.queue.peek().map(|Reverse((due, ..))| *due);
            tokio::select! {
                datagram = source.next(&mut buffer) => match datagram {
                    Some(datagram) => self.admit(datagram, Instant::now()),
                    None => return,
                },
                () = until(next_due) => {}
            }
            while let Some(datagram) = self.due(Instant::now()) {
                sink.send(&datagram).await;
            }
        }
    }

    fn admit(&mut self, datagram: Bytes, now: Instant) {
        let conditions = self.way.conditions();
        if self.way.is_cut() {
            self.way.cut_count.fetch_add(1, Relaxed);
            return;
        }
        if self.random.chance(conditions.loss_ppm) {
            self.way.lost.fetch_add(1, Relaxed);
            return;
        }
        if self.random.chance(conditions.duplicate_ppm) {
            self.way.duplicated.fetch_add(1, Relaxed);
            self.enqueue(datagram.clone(), &conditions, now);
        }
        self.enqueue(datagram, &conditions, now);
    }

    fn enqueue(&mut self, datagram: Bytes, conditions: &Conditions, now: Instant) {
        let bytes = datagram.len() as u64;
        if self.queued_bytes.saturating_add(bytes) > conditions.queue_bytes {
            self.way.overflowed.fetch_add(1, Relaxed);
            return;
        }
        self.free_at = match bytes.saturating_mul(1_000_000).checked_div(conditions.rate_bytes) {
            Some(micros) => self.free_at.max(now) + Duration::from_micros(micros),
            None => now,
        };
        let jitter = self.up_to(conditions.jitter);
        let mut due = (self.free_at + conditions.delay + jitter).max(self.last_due);
        if self.random.chance(conditions.reorder_ppm) {
            self.way.reordered.fetch_add(1, Relaxed);
            due += TIMER_GRAIN + self.up_to(HELD_BACK_MAX);
        } else {
            self.last_due = due;
        }
        self.queued_bytes += bytes;
        self.arrivals += 1;
        self.queue.push(Reverse((due, self.arrivals, datagram)));
    }

    /// The next datagram whose time has come.
    fn due(&mut self, now: Instant) -> Option<Bytes> {
        while self.queue.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Reverse((_, _, datagram)) = self.queue.pop()?;
            self.queued_bytes -= datagram.len() as u64;
            if self.way.is_cut() {
                self.way.cut_count.fetch_add(1, Relaxed);
                continue;
            }
            self.way.forwarded.fetch_add(1, Relaxed);
            self.way.forwarded_bytes.fetch_add(datagram.len() as u64, Relaxed);
            return Some(datagram);
        }
        None
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.between(0, micros))
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
