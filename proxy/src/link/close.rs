//! Why a connection ends: one table between reasons, QUIC application close codes and texts.
//!
//! The codes are part of the wire format: numbers are never reused. Both sides log the reason.

use quinn::{ConnectionError, VarInt};

use super::endpoint::PeerConnection;

/// The longest detail that is sent with a close, so that the packet fits any path.
const DETAIL_MAX_BYTES: usize = 256;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why one side ends a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
        }

        impl CloseReason {
            /// Every reason, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that travels.
            pub fn code(self) -> u32 {
                match self { $(Self::$name => $code,)* }
            }

            /// The reason that `code` stands for; none for a code of a later version.
            pub fn from_code(code: u64) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// One sentence for logs and `/status`.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The other side's program let the connection go without a reason, as when it stops at once.
    Dropped = 0, "the connection was dropped without a reason";
    /// A drain: dial again, it comes back.
    ShuttingDown = 1, "the region is shutting down";
    /// A newer connection between the same two regions takes over.
    Replaced = 2, "replaced by a newer connection between the same regions";
    /// The hello named another cluster.
    WrongCluster = 3, "the regions belong to different clusters";
    /// Certificate, hello and configuration do not agree on the region.
    WrongRegion = 4, "certificate, hello and configuration do not name the same region";
    /// The certificate names a region that the other side's topology has no link to.
    UnknownRegion = 5, "no link to this region is configured";
    /// The certificate cannot serve as a region's identity.
    BadCertificate = 6, "the certificate does not identify a region";
    /// The certificate of this connection is about to end: connect again with the new one.
    CertificateEnding = 7, "the certificate of this connection is about to end";
    /// No common protocol version.
    VersionMismatch = 8, "no protocol version in common";
    /// A frame that cannot be decoded, or that may not come now.
    ProtocolError = 9, "a frame broke the protocol";
    /// A frame longer than the receiver allows.
    FrameTooLarge = 10, "a frame is longer than allowed";
    /// The same identity is live twice, as after copying a data directory.
    IncarnationConflict = 11, "this identity is in use by another instance";
    /// The peer needs ops that the log no longer holds: it must re-seed.
    PastLog = 12, "the log no longer holds what the peer lacks; it must re-seed";
    /// The peer's clock is further ahead than allowed.
    ClockSkew = 13, "the peer's clock is further ahead than allowed";
    /// Regions that disagree on who feeds whom.
    TopologyMismatch = 14, "the regions' topologies differ";
    /// Regions that would decide conflicts differently.
    PolicyMismatch = 15, "the regions' conflict policies differ";
    /// The region was removed, or was away beyond its lease.
    Fenced = 16, "the region is fenced and must re-seed";
    /// Nothing was heard for too long.
    Silent = 17, "nothing was heard for too long";
    /// A defect or a failing disk on this side.
    Internal = 18, "internal error";
    /// A link beyond those of the topology, made to heal a route that is healed.
    Unneeded = 19, "the link is not needed any more";
}

impl CloseReason {
    /// Whether it is about who the other side is or what it speaks: dialling again does not help until somebody
    /// has changed something.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::WrongCluster
                | Self::WrongRegion
                | Self::UnknownRegion
                | Self::BadCertificate
                | Self::VersionMismatch
                | Self::IncarnationConflict
                | Self::Fenced
        )
    }
}

impl PeerConnection {
    /// Ends the connection. `detail` is for the peer's log: no data of users, and cut at 256 bytes.
    pub fn close(&self, reason: CloseReason, detail: &str) {
        close(&self.connection, reason, detail);
    }
}

pub(super) fn close(connection: &quinn::Connection, reason: CloseReason, detail: &str) {
    let end = (0..=DETAIL_MAX_BYTES.min(detail.len())).rev().find(|at| detail.is_char_boundary(*at));
    let detail = end.and_then(|end| detail.get(..end)).unwrap_or_default();
    connection.close(VarInt::from_u32(reason.code()), detail.as_bytes());
}

/// How a connection ended, as this side saw it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer ended it for a reason of the table.
    #[error("closed by the peer: {} {detail:?}", .reason.text())]
    ByPeer {
        /// The reason.
        reason: CloseReason,
        /// What the peer adds: untrusted text.
        detail: String,
    },
    /// The peer ended it with a code that this version does not know.
    #[error("closed by the peer with unknown code {code} {detail:?}")]
    UnknownCode {
        /// The code.
        code: u64,
        /// What the peer adds: untrusted text.
        detail: String,
    },
    /// The peer did not accept our certificate.
    #[error("the peer refused our certificate: {}", alert_text(*alert))]
    RefusedByPeer {
        /// The TLS alert.
        alert: u8,
    },
    /// We did not accept the peer's certificate.
    #[error("the peer's certificate was refused: {}; {detail}", alert_text(*alert))]
    CertificateRefused {
        /// The TLS alert we sent.
        alert: u8,
        /// What the verifier said.
        detail: String,
    },
    /// Nothing was heard for the idle time: peer or path are down, or UDP is blocked.
    #[error("nothing was heard from the peer; it is down, unreachable, or UDP is blocked")]
    Silent,
    /// The peer does not know the connection, as after its restart.
    #[error("the peer has restarted")]
    Reset,
    /// This side ended it.
    #[error("closed by this side")]
    Local,
    /// The peer refused to talk: too many handshakes at once, or it takes no connections.
    #[error("the peer is not accepting connections now")]
    Busy,
    /// Any other breach of QUIC.
    #[error("transport error: {0}")]
    Transport(String),
}

const CODE_CONNECTION_REFUSED: u64 = 0x02;

impl Ended {
    /// Whether there is another connection in its place: nothing that somebody should look at.
    pub fn is_replacement(&self) -> bool {
        matches!(self, Self::ByPeer { reason: CloseReason::Replaced, .. })
    }
}

impl From<&ConnectionError> for Ended {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let detail = String::from_utf8_lossy(&close.reason).into_owned();
                match CloseReason::from_code(close.error_code.into_inner()) {
                    Some(reason) => Self::ByPeer { reason, detail },
                    None => Self::UnknownCode { code: close.error_code.into_inner(), detail },
                }
            }
            ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
                CODE_CONNECTION_REFUSED => Self::Busy,
                code => match alert(code) {
                    Some(alert) => Self::RefusedByPeer { alert },
                    None => Self::Transport(close.to_string()),
                },
            },
            ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
                Some(alert) => Self::CertificateRefused { alert, detail: error.reason.clone() },
                None => Self::Transport(error.to_string()),
            },
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::Local,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::Transport(error.to_string())
            }
        }
    }
}

/// TLS alerts are the QUIC error codes 0x100..=0x1ff (RFC 9001, 4.8).
fn alert(code: u64) -> Option<u8> {
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn alert_text(alert: u8) -> &'static str {
    match alert {
        42 | 43 | 49 => "it does not fit this region (tls.cert, tls.ca)",
        45 => "it has ended or has not begun (renew tls.cert, or set the clock right)",
        48 => "it is signed by another authority (tls.ca differs between the regions)",
        116 => "none was presented",
        120 => "no protocol in common (is this a Meridian link port?)",
        _ => "TLS refused it",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_distinct() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(u64::from(reason.code())), Some(*reason));
            assert!(seen.insert(reason.code()) && !reason.text().is_empty());
        }
        assert_eq!(CloseReason::from_code(1 << 40), None);
    }

    /// Numbers on the wire never change meaning between versions.
    #[test]
    fn codes_are_fixed() {
        let table: Vec<String> = CloseReason::ALL.iter().map(|r| format!("{}={r:?}", r.code())).collect();
        assert_eq!(
            table.join(" "),
            "0=Dropped 1=ShuttingDown 2=Replaced 3=WrongCluster 4=WrongRegion 5=UnknownRegion 6=BadCertificate \
             7=CertificateEnding 8=VersionMismatch 9=ProtocolError 10=FrameTooLarge 11=IncarnationConflict \
             12=PastLog 13=ClockSkew 14=TopologyMismatch 15=PolicyMismatch 16=Fenced 17=Silent 18=Internal \
             19=Unneeded"
        );
    }
}
