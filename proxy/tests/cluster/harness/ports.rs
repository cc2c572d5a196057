//! Ports below those that the system gives out by itself, so that a region that is down finds its own
//! ports free again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use super::config::Addresses;

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Three ports that nobody uses now and that are given out once in this process.
pub fn take() -> Addresses {
    Addresses { resp: local(find(1, tcp)), link: local(find(1, udp)), admin: local(find(1, tcp)) }
}

/// The first port of a demo of so many regions, whose others are at fixed distances from it.
pub fn take_for_demo(regions: u16) -> u16 {
    find(regions, |first| {
        (first..first + regions).all(|port| tcp(port) && udp(port + 1000) && tcp(port + 3000))
    })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn tcp(port: u16) -> bool {
    TcpListener::bind(local(port)).is_ok()
}

fn udp(port: u16) -> bool {
    UdpSocket::bind(local(port)).is_ok()
}

/// The first of `count` ports that nobody uses now. None of them is given out to anybody else meanwhile.
fn find(count: u16, is_free: impl Fn(u16) -> bool) -> u16 {
    // Another run at the same time starts elsewhere.
    let start = u16::try_from(std::process::id() * 331 % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(count, Ordering::Relaxed) % COUNT) % COUNT;
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port");
}
