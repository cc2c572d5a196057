//! A userspace UDP relay that disturbs a link: for tests and for rehearsing failures.
//!
//! It stands between diallers and one target. Each source address gets its own socket towards the
//! target, so several connections pass at once and each side sees one address per connection. Both
//! directions have their own conditions, which can change at any time; random decisions come from a
//! seed, though the order in which the system delivers datagrams does not.

mod line;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use line::{Line, Sink, Source};

/// Source addresses served at once; datagrams of others are dropped and counted.
const FLOWS_MAX: usize = 256;

/// Datagrams between the listening socket and a flow's line.
const HANDOVER_MAX: usize = 1024;

/// Longer delays are cut to this: any link is dead long before.
const DELAY_MAX: Duration = Duration::from_secs(3600);

pub(super) const DATAGRAM_MAX_BYTES: usize = 65_535;

/// What happens to datagrams of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// The shortest delay.
    pub delay: Duration,
    /// Up to this much is added to the delay. Order is kept.
    pub jitter: Duration,
    /// Lost, per million.
    pub loss_ppm: u32,
    /// Delivered twice, per million.
    pub duplicate_ppm: u32,
    /// Held back behind later ones, per million.
    pub reorder_ppm: u32,
    /// Bytes a second; 0 for no bound.
    pub rate_bytes: u64,
    /// Bytes that may wait or be under way; what comes on top is dropped and counted.
    pub queue_bytes: u64,
}

impl Default for Conditions {
    /// A perfect line, with room for 8 MiB.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            rate_bytes: 0,
            queue_bytes: 8 << 20,
        }
    }
}

/// One of the two ways through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From those who dial to the target.
    ToTarget,
    /// From the target back.
    FromTarget,
}

/// What has happened to datagrams of one direction so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed on, duplicates included.
    pub forwarded: u64,
    /// Bytes passed on.
    pub forwarded_bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Sent a second time.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Dropped because the direction was cut.
    pub cut: u64,
}

/// The switches and counters of one direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    cut: AtomicBool,
    delay_us: AtomicU64,
    jitter_us: AtomicU64,
    loss_ppm: AtomicU32,
    duplicate_ppm: AtomicU32,
    reorder_ppm: AtomicU32,
    rate_bytes: AtomicU64,
    queue_bytes: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) forwarded_bytes: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) duplicated: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) cut_count: AtomicU64,
}

impl Way {
    fn set(&self, to: Conditions) {
        let micros = |time: Duration| u64::try_from(time.min(DELAY_MAX).as_micros()).unwrap_or(u64::MAX);
        self.delay_us.store(micros(to.delay), Relaxed);
        self.jitter_us.store(micros(to.jitter), Relaxed);
        self.loss_ppm.store(to.loss_ppm, Relaxed);
        self.duplicate_ppm.store(to.duplicate_ppm, Relaxed);
        self.reorder_ppm.store(to.reorder_ppm, Relaxed);
        self.rate_bytes.store(to.rate_bytes, Relaxed);
        self.queue_bytes.store(to.queue_bytes, Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    pub(super) fn conditions(&self) -> Conditions {
        Conditions {
            delay: Duration::from_micros(self.delay_us.load(Relaxed)),
            jitter: Duration::from_micros(self.jitter_us.load(Relaxed)),
            loss_ppm: self.loss_ppm.load(Relaxed),
            duplicate_ppm: self.duplicate_ppm.load(Relaxed),
            reorder_ppm: self.reorder_ppm.load(Relaxed),
            rate_bytes: self.rate_bytes.load(Relaxed),
            queue_bytes: self.queue_bytes.load(Relaxed),
        }
    }
}

/// Changes a running relay and reads its counters. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RelayControl {
    to_target: Arc<Way>,
    from_target: Arc<Way>,
}

impl RelayControl {
    fn way(&self, direction: Direction) -> &Arc<Way> {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::FromTarget => &self.from_target,
        }
    }

    /// Sets the conditions of one direction.
    pub fn set(&self, direction: Direction, conditions: Conditions) {
        self.way(direction).set(conditions);
    }

    /// Sets the conditions of both directions.
    pub fn set_both(&self, conditions: Conditions) {
        self.to_target.set(conditions);
        self.from_target.set(conditions);
    }

    /// Cuts one direction, or mends it. What is under way when a direction is cut is lost too.
    pub fn cut(&self, direction: Direction, cut: bool) {
        self.way(direction).cut.store(cut, Relaxed);
    }

    /// Cuts or mends both directions.
    pub fn cut_both(&self, cut: bool) {
        self.cut(Direction::ToTarget, cut);
        self.cut(Direction::FromTarget, cut);
    }

    /// The counters of one direction.
    pub fn counts(&self, direction: Direction) -> Counts {
        let way = self.way(direction);
        Counts {
            forwarded: way.forwarded.load(Relaxed),
            forwarded_bytes: way.forwarded_bytes.load(Relaxed),
            lost: way.lost.load(Relaxed),
            duplicated: way.duplicated.load(Relaxed),
            reordered: way.reordered.load(Relaxed),
            overflowed: way.overflowed.load(Relaxed),
            cut: way.cut_count.load(Relaxed),
        }
    }
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    control: RelayControl,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens at `listen` (port 0 for any) and forwards to `target`. Starts as a perfect line.
    pub async fn start(listen: SocketAddr, target: SocketAddr, seed: u64) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind(listen).await?);
        let address = front.local_addr()?;
        let control = RelayControl::default();
        control.set_both(Conditions::default());
        let task = tokio::spawn(serve(front, target, control.clone(), seed));
        Ok(Self { address, control, task })
    }

    /// Where to dial instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The switches.
    pub fn control(&self) -> &RelayControl {
        &self.control
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(front: Arc<UdpSocket>, target: SocketAddr, control: RelayControl, seed: u64) {
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    // Dropped with this task, and with it every flow.
    let mut lines = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        // An error belongs to a datagram sent before (its port is closed): nothing to do here.
        let Ok((bytes, source)) = front.recv_from(&mut datagram).await else { continue };
        let Some(payload) = datagram.get(..bytes) else { continue };
        if !flows.contains_key(&source) {
            if flows.len() >= FLOWS_MAX {
                control.to_target.overflowed.fetch_add(1, Relaxed);
                continue;
            }
            let number = flows.len() as u64;
            let Ok(back) = towards(target).await else { continue };
            let back = Arc::new(back);
            let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
            let seed = seed.wrapping_add(number.wrapping_mul(2));
            let there = Line::new(control.to_target.clone(), seed);
            let again = Line::new(control.from_target.clone(), seed.wrapping_add(1));
            lines.spawn(there.run(Source::Handover(receiver), Sink::Connected(back.clone())));
            lines.spawn(again.run(Source::Socket(back), Sink::To(front.clone(), source)));
            flows.insert(source, sender);
        }
        if let Some(flow) = flows.get(&source)
            && flow.try_send(Bytes::copy_from_slice(payload)).is_err()
        {
            control.to_target.overflowed.fetch_add(1, Relaxed);
        }
    }
}

async fn towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}
