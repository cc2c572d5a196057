//! Links between regions: the byte-level half, over QUIC with mutual TLS.
//!
//! This module knows regions by name, connections and frames as bytes. What the frames mean is the
//! business of `meridian-topology` and of whoever joins the two.
//!
//! - [`tls`] builds the two rustls configurations, with resumption and early data off.
//! - [`limits`] bounds what a peer can make us hold.
//! - [`endpoint`] owns the one UDP socket of a region: dialling, accepting, refusing.
//! - [`faults`] disturbs the socket, for rehearsals.
//! - [`framing`] and [`compress`] turn streams into frames.
//! - [`close`] is the one table of reasons for ending a connection.
//! - [`backoff`] says when to dial again.

pub mod backoff;
pub mod close;
pub mod compress;
pub mod endpoint;
pub mod faults;
pub mod framing;
pub mod limits;
pub mod random;
#[doc(hidden)]
pub mod relay;
pub mod strangers;
pub mod tls;

#[cfg(test)]
mod tests;
