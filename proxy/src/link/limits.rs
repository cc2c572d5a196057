//! What one peer, or a stranger, can make an endpoint hold.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Bytes a peer may have sent on one connection that we have not read yet.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The same for one stream: 100 Mbit/s times 150 ms is 1.9 MB.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Bytes we keep for a peer until it acknowledges them.
pub const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// Streams that a peer may have open one way.
pub const STREAMS_MAX: u32 = 16;

/// Writes that a region may have on their way to their homes over one link.
pub const FORWARDS_PER_LINK: u32 = 512;

/// Streams for questions that a peer may have open: writes on their way, and the rest.
pub const QUESTIONS_MAX: u32 = FORWARDS_PER_LINK + STREAMS_MAX;

/// Connection attempts that wait for the acceptor.
pub const INCOMING_MAX: usize = 64;

/// Bytes kept for attempts that wait, for one and for all together.
pub const INCOMING_BUFFER_BYTES: u64 = 1 << 20;

/// How often a silent connection says that it is alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Silence after which a connection is over.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Kernel buffers of the socket, each way. The kernel may grant less (`net.core.rmem_max`).
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Open handshakes above which an address must first prove that it receives what we send.
pub const RETRY_ABOVE: usize = 16;

/// Open handshakes above which attempts are turned away.
pub const HANDSHAKES_MAX: usize = 64;

/// The share of those that one IP address may hold, so that one stalling stranger does not keep peers out.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 32;

/// The bounds of one endpoint. The defaults suit links up to 100 Mbit/s at 150 ms; the product of
/// bandwidth and round trip is what the windows must hold, and the memory a peer can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportLimits {
    /// Unread bytes per connection.
    pub connection_window_bytes: u32,
    /// Unread bytes per stream.
    pub stream_window_bytes: u32,
    /// Unacknowledged bytes per connection.
    pub send_window_bytes: u64,
    /// Streams one way per connection.
    pub streams_max: u32,
    /// Streams both ways per connection.
    pub questions_max: u32,
    /// Connection attempts that wait for the acceptor.
    pub incoming_max: usize,
    /// Bytes kept for one waiting attempt, and for all of them together.
    pub incoming_buffer_bytes: u64,
    /// Interval of keep-alives.
    pub keep_alive: Duration,
    /// Silence after which a connection is over.
    pub idle_timeout: Duration,
    /// The longest handshake, both when dialling and when accepting.
    pub handshake_timeout: Duration,
    /// Kernel buffers of the socket, each way.
    pub socket_buffer_bytes: usize,
    /// Open handshakes above which an unproven address is asked to retry.
    pub retry_above: usize,
    /// Open handshakes above which attempts are turned away.
    pub handshakes_max: usize,
    /// Open handshakes of one IP address above which its attempts are turned away.
    pub handshakes_per_address_max: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            send_window_bytes: SEND_WINDOW_BYTES,
            streams_max: STREAMS_MAX,
            questions_max: QUESTIONS_MAX,
            incoming_max: INCOMING_MAX,
            incoming_buffer_bytes: INCOMING_BUFFER_BYTES,
            keep_alive: KEEP_ALIVE,
            idle_timeout: IDLE_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            socket_buffer_bytes: SOCKET_BUFFER_BYTES,
            retry_above: RETRY_ABOVE,
            handshakes_max: HANDSHAKES_MAX,
            handshakes_per_address_max: HANDSHAKES_PER_ADDRESS_MAX,
        }
    }
}

impl TransportLimits {
    /// The settings of a connection, for both sides.
    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        // More than the wire can say (2^62 ms) is as good as for ever.
        let idle = IdleTimeout::try_from(self.idle_timeout).ok();
        let mut config = TransportConfig::default();
        config
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .send_window(self.send_window_bytes)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.questions_max))
            .max_concurrent_uni_streams(VarInt::from_u32(self.streams_max))
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(idle);
        Arc::new(config)
    }

    /// The settings of the accepting side.
    pub(super) fn server(
        &self,
        crypto: Arc<dyn quinn::crypto::ServerConfig>,
        transport: Arc<TransportConfig>,
    ) -> quinn::ServerConfig {
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        // Addresses are proven by Retry alone: no tokens that outlive a connection.
        let mut tokens = quinn::ValidationTokenConfig::default();
        tokens.sent(0);
        config
            .transport_config(transport)
            .validation_token_config(tokens)
            .migration(false)
            .max_incoming(self.incoming_max)
            .incoming_buffer_size(self.incoming_buffer_bytes)
            .incoming_buffer_size_total(self.incoming_buffer_bytes);
        config
    }
}
