//! Who is connected.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Connections from one address that are accepted.
const PER_ADDRESS_MAX: u32 = 1_000;

/// What others may know of a connection.
pub struct Client {
    /// `CLIENT ID`.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
    opened: Instant,
    told: Mutex<Told>,
    kill: Notify,
    is_killed: AtomicBool,
}

/// What a client said of itself, and what it did last.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: String,
    /// The selected database.
    pub database: u8,
    /// 2 or 3.
    pub protocol: u8,
    /// The last command about the connection.
    pub command: &'static str,
}

impl Client {
    /// Changes what is known.
    pub fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
    }

    /// What is known.
    pub fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// Ends the connection after the pipeline it is at.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        // Kept for the one that waits, should it not be waiting yet.
        self.kill.notify_one();
    }

    /// Whether it is to end.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Resolves when it is to end.
    pub async fn killed(&self) {
        self.kill.notified().await;
    }

    /// A line of `CLIENT LIST`.
    pub fn line(&self) -> String {
        let told = self.told();
        format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle=0 flags=N db={} sub=0 psub=0 ssub=0 multi=-1 \
             watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 \
             events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local,
            told.name,
            self.opened.elapsed().as_secs(),
            told.database,
            if told.command.is_empty() { "NULL" } else { told.command },
            told.protocol.max(2),
            told.library,
            told.library_version,
        )
    }
}

/// Why a connection is not taken. The text goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `limits.max_clients` is reached.
    #[error("ERR max number of clients reached")]
    Full,
    /// Too many from one address.
    #[error("ERR max number of clients from one address reached")]
    PerAddress,
}

/// Every connection of a region.
#[derive(Default)]
pub struct Clients {
    by_id: DashMap<u64, Arc<Client>>,
    per_address: Mutex<BTreeMap<IpAddr, u32>>,
    next: AtomicU64,
    accepted: AtomicU64,
}

impl Clients {
    /// Takes a connection in, if the limits allow.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn enter(
        self: &Arc<Self>,
        address: SocketAddr,
        local: SocketAddr,
        max_clients: u32,
    ) -> Result<Present, Refusal> {
        let mut per_address = self.per_address.lock();
        let total: u64 = per_address.values().map(|n| u64::from(*n)).sum();
        if total >= u64::from(max_clients) {
            return Err(Refusal::Full);
        }
        let here = per_address.entry(address.ip()).or_default();
        // The applications beside a sidecar all come from the loopback address.
        if *here >= PER_ADDRESS_MAX && !address.ip().is_loopback() {
            return Err(Refusal::PerAddress);
        }
        *here += 1;
        drop(per_address);
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            address,
            local,
            opened: Instant::now(),
            told: Mutex::default(),
            kill: Notify::new(),
            is_killed: AtomicBool::new(false),
        });
        self.by_id.insert(id, Arc::clone(&client));
        Ok(Present { client, clients: Arc::clone(self) })
    }

    /// The clients, by rising id.
    pub fn list(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.by_id.iter().map(|entry| Arc::clone(entry.value())).collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// Connections.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Connections taken since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A connection's presence: dropping it leaves.
pub struct Present {
    /// Who.
    pub client: Arc<Client>,
    clients: Arc<Clients>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.clients.by_id.remove(&self.client.id);
        let mut per_address = self.clients.per_address.lock();
        if let Some(count) = per_address.get_mut(&self.client.address.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                per_address.remove(&self.client.address.ip());
            }
        }
    }
}
