//! The relays between regions, one for each pair and side that dials.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use meridian_proxy::link::relay::{Conditions, Direction, Relay};
use tokio::runtime::Runtime;

use super::config::Addresses;

/// The relays of a cluster, on threads of their own.
pub struct Links {
    /// By the region that dials and the one that is dialled.
    relays: BTreeMap<(usize, usize), Relay>,
    targets: Vec<SocketAddr>,
    _runtime: Runtime,
}

impl Links {
    /// A relay for each pair and direction: the one with the smaller name dials whenever there is no
    /// connection, the other once at its start.
    pub fn start(addresses: &[Addresses], conditions: Conditions) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let targets: Vec<SocketAddr> = addresses.iter().map(|a| a.link).collect();
        let mut relays = BTreeMap::new();
        for from in 0..targets.len() {
            for (to, target) in targets.iter().enumerate().filter(|(to, _)| *to != from) {
                let seed = (from * 16 + to) as u64;
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let relay = runtime.block_on(Relay::start(any, *target, seed)).unwrap();
                relay.control().set_both(conditions);
                relays.insert((from, to), relay);
            }
        }
        Self { relays, targets, _runtime: runtime }
    }

    /// Where `from` reaches `to`.
    pub fn address(&self, from: usize, to: usize) -> SocketAddr {
        self.relays.get(&(from, to)).map_or(self.targets[to], Relay::address)
    }

    /// Sets one direction of a link, whoever dialled it.
    pub fn set(&self, from: usize, to: usize, conditions: Conditions) {
        self.relays[&(from, to)].control().set(Direction::ToTarget, conditions);
        self.relays[&(to, from)].control().set(Direction::FromTarget, conditions);
    }

    /// Cuts one direction of a link, whoever dialled it.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.relays[&(from, to)].control().cut(Direction::ToTarget, true);
        self.relays[&(to, from)].control().cut(Direction::FromTarget, true);
    }

    /// Cuts or mends a link.
    pub fn cut(&self, a: usize, b: usize, cut: bool) {
        self.relays[&(a, b)].control().cut_both(cut);
        self.relays[&(b, a)].control().cut_both(cut);
    }
}
