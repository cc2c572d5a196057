//! Fault knobs: disturbs the datagrams between this region and its peers, so that users can rehearse bad
//! nights and tests can have them (`[dev] faults`, `POST /faults`).
//!
//! They act at the socket, below QUIC: what the link then does is what it does on a bad line. A cut and
//! losses concern both directions, a delay what this region sends.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::random::SplitMix64;

/// Datagrams that are being delayed; more are lost, as on a line whose buffer is full.
const DELAYED_MAX: usize = 16_384;

/// How a link is disturbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How long what is sent takes longer.
    pub delay: Duration,
    /// How many datagrams in a million are lost, in each direction.
    pub loss_per_million: u32,
    /// Whether nothing passes at all.
    pub cut: bool,
}

impl Fault {
    /// Whether it disturbs anything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The knobs of one region. Clones turn the same knobs.
#[derive(Clone, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    by_peer: RwLock<BTreeMap<String, Fault>>,
    /// Whose address it is, as far as connections have shown.
    peers: RwLock<BTreeMap<SocketAddr, String>>,
    /// Whether any fault is set: one load on the way of every datagram.
    any: AtomicBool,
    delayed: AtomicUsize,
    random: Mutex<Option<SplitMix64>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("by_peer", &*self.shared.by_peer.read()).finish_non_exhaustive()
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Faults {
    /// Notes that `peer` is at `address`.
    pub(super) fn learn(&self, peer: &str, address: SocketAddr) {
        self.shared.peers.write().insert(canonical(address), peer.to_owned());
    }

    /// Disturbs the link to `peer` as `fault` says, which replaces what was set before.
    pub fn set(&self, peer: &str, fault: Fault) {
        let mut by_peer = self.shared.by_peer.write();
        if fault.is_none() {
            by_peer.remove(peer);
        } else {
            by_peer.insert(peer.to_owned(), fault);
        }
        self.shared.any.store(!by_peer.is_empty(), Ordering::Release);
    }

    /// The links that are disturbed.
    pub fn all(&self) -> BTreeMap<String, Fault> {
        self.shared.by_peer.read().clone()
    }

    fn at(&self, address: SocketAddr) -> Option<Fault> {
        if !self.shared.any.load(Ordering::Acquire) {
            return None;
        }
        let peers = self.shared.peers.read();
        let peer = peers.get(&canonical(address))?;
        self.shared.by_peer.read().get(peer).copied()
    }

    /// Whether a datagram to or from there is lost.
    fn loses(&self, fault: Fault) -> bool {
        let mut random = self.shared.random.lock();
        let seed = || std::process::id().into();
        fault.cut || random.get_or_insert_with(|| SplitMix64::new(seed())).chance(fault.loss_per_million)
    }

    /// A socket whose datagrams meet these faults.
    pub(super) fn disturb(&self, socket: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(Disturbed { socket, faults: self.clone() })
    }
}

/// A socket that meets faults.
#[derive(Debug)]
struct Disturbed {
    socket: Arc<dyn AsyncUdpSocket>,
    faults: Faults,
}

impl Disturbed {
    /// Sends later. What the socket does not take then is lost.
    fn send_later(&self, transmit: &Transmit<'_>, delay: Duration) {
        let shared = Arc::clone(&self.faults.shared);
        if shared.delayed.fetch_add(1, Ordering::AcqRel) >= DELAYED_MAX {
            shared.delayed.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let socket = Arc::clone(&self.socket);
        let (destination, ecn, src_ip) = (transmit.destination, transmit.ecn, transmit.src_ip);
        let (contents, segment_size) = (transmit.contents.to_vec(), transmit.segment_size);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ =
                socket.try_send(&Transmit { destination, ecn, contents: &contents, segment_size, src_ip });
            shared.delayed.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

impl AsyncUdpSocket for Disturbed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.faults.at(transmit.destination) {
            Some(fault) if self.faults.loses(fault) => Ok(()),
            Some(fault) if !fault.delay.is_zero() => {
                self.send_later(transmit, fault.delay);
                Ok(())
            }
            _ => self.socket.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.socket.poll_recv(cx, bufs, meta))?;
            let mut kept = 0;
            for at in 0..received {
                let Some(one) = meta.get(at).copied() else { break };
                if self.faults.at(one.addr).is_some_and(|fault| self.faults.loses(fault)) {
                    continue;
                }
                if kept != at {
                    let (front, back) = bufs.split_at_mut(at);
                    let to = front.get_mut(kept).and_then(|to| to.get_mut(..one.len));
                    if let (Some(to), Some(from)) = (to, back.first().and_then(|from| from.get(..one.len))) {
                        to.copy_from_slice(from);
                    }
                    if let Some(slot) = meta.get_mut(kept) {
                        *slot = one;
                    }
                }
                kept += 1;
            }
            if kept > 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// One, so that a loss is the loss of one datagram.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use quinn::Runtime;

    use super::*;

    async fn pair(faults: &Faults) -> (Arc<dyn AsyncUdpSocket>, tokio::net::UdpSocket, SocketAddr) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = faults.disturb(quinn::TokioRuntime.wrap_udp_socket(socket).unwrap());
        let theirs = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = theirs.local_addr().unwrap();
        faults.learn("us", address);
        (ours, theirs, address)
    }

    fn send(socket: &Arc<dyn AsyncUdpSocket>, to: SocketAddr, byte: u8) {
        let transmit =
            Transmit { destination: to, ecn: None, contents: &[byte], segment_size: None, src_ip: None };
        socket.try_send(&transmit).unwrap();
    }

    async fn receive(socket: &Arc<dyn AsyncUdpSocket>) -> Vec<u8> {
        let mut storage = [[0u8; 2048]; 4];
        let mut meta = [RecvMeta::default(); 4];
        let mut bufs: Vec<IoSliceMut<'_>> = storage.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let count = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut meta)).await.unwrap();
        (0..count).map(|at| bufs[at][0]).collect()
    }

    #[tokio::test]
    async fn a_cut_link_carries_nothing_either_way_until_it_is_healed() {
        let faults = Faults::default();
        let (ours, theirs, address) = pair(&faults).await;
        faults.set("us", Fault { cut: true, ..Fault::default() });
        send(&ours, address, 1);
        theirs.send_to(&[2], ours.local_addr().unwrap()).await.unwrap();
        faults.set("eu", Fault { cut: true, ..Fault::default() });
        // A stranger's datagram passes; the peer's, which came before it, is gone.
        let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&[3], ours.local_addr().unwrap()).await.unwrap();
        assert_eq!(receive(&ours).await, [3]);
        faults.set("us", Fault::default());
        send(&ours, address, 4);
        let mut byte = [0];
        theirs.recv(&mut byte).await.unwrap();
        assert_eq!(byte, [4]);
        assert_eq!(faults.all().keys().collect::<Vec<_>>(), ["eu"]);
    }

    #[tokio::test]
    async fn a_delay_holds_what_is_sent() {
        let faults = Faults::default();
        let (ours, theirs, address) = pair(&faults).await;
        faults.set("us", Fault { delay: Duration::from_millis(50), ..Fault::default() });
        let started = std::time::Instant::now();
        send(&ours, address, 1);
        let mut byte = [0];
        theirs.recv(&mut byte).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(50) && byte == [1]);
    }

    #[tokio::test]
    async fn losses_are_about_as_many_as_asked_for() {
        let faults = Faults::default();
        let lossy = Fault { loss_per_million: 100_000, ..Fault::default() };
        let lost = (0..20_000).filter(|_| faults.loses(lossy)).count();
        assert!((1_500..2_500).contains(&lost), "{lost}");
    }
}
