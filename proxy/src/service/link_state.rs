//! What is known of the links, as plain data: the link tasks write it, the admin server shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The links of a region, by peer. Held for as long as a copy takes, never across an await.
pub type LinkStates = Arc<Mutex<BTreeMap<String, LinkState>>>;

/// One link, as `/status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkState {
    /// The region at the other end.
    pub peer: String,
    /// Whether a hello was exchanged on a live connection.
    pub connected: bool,
    /// What the link is doing, in a few words for people: `dialling`, `streaming`, `refused`.
    pub state: String,
    /// When that began, Unix milliseconds.
    pub since_ms: u64,
    /// The round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Ops sent or to be sent that the peer has not made durable.
    pub unacked_ops: u64,
    /// Bytes sent, before encryption, since this region started.
    pub sent_bytes: u64,
    /// Bytes received, likewise.
    pub received_bytes: u64,
    /// Why the link was last down or refused.
    pub last_error: Option<String>,
    /// The protocol version agreed on.
    pub protocol: Option<u32>,
    /// In what the peer's configuration differs from ours.
    pub mismatches: Vec<String>,
}

impl LinkState {
    /// A link that nobody has tried yet.
    pub fn not_yet(peer: &str, now_ms: u64) -> Self {
        Self { peer: peer.to_owned(), state: "starting".to_owned(), since_ms: now_ms, ..Self::default() }
    }
}
