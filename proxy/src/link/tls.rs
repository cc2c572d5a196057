//! The rustls configurations of links, built by hand.
//!
//! quinn's convenience constructors switch 0-RTT on, and rustls resumes sessions by default: a resumed
//! session skips the client-certificate verifier, so a revoked or removed peer would stay welcome.
//! Both are off here on both sides, and [`check_server`] and [`check_client`] assert it at start.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};

use crate::cert::Identity;

/// The application protocol of links, in the TLS handshake.
pub const ALPN: &[u8] = b"meridian/1";

/// A TLS configuration could not be built, or would allow what links forbid. No port is bound.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused the identity.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities cannot serve as roots.
    #[error("tls.ca: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
    /// The provider offers no cipher suite that QUIC needs.
    #[error("tls: the crypto provider has no QUIC initial cipher suite")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A setting that links depend on is not as it must be: a defect of this program.
    #[error("tls: {0} must be off on links")]
    Forbidden(&'static str),
    /// The protocol list is not exactly ours: a defect of this program.
    #[error("tls: ALPN must be meridian/1")]
    Alpn,
}

/// The only provider: ring, passed explicitly so that no process-wide default can change it.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The accepting side: TLS 1.3, a certificate signed by the cluster's authority is demanded.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider()).build()?;
    server_config_with(identity, verifier)
}

pub(super) fn server_config_with(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    check_server(&config)?;
    Ok(config)
}

/// The dialling side: TLS 1.3, presents our certificate, and webpki checks that the peer's certificate
/// carries the server name, which is the region that is dialled.
pub fn client_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(identity.roots.clone())
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    check_client(&config)?;
    Ok(config)
}

/// Asserts what links depend on: nothing to resume from, no early data, our protocol only.
pub fn check_server(config: &ServerConfig) -> Result<(), TlsError> {
    if config.alpn_protocols != [ALPN] {
        return Err(TlsError::Alpn);
    }
    let forbidden = [
        (config.session_storage.can_cache(), "session storage"),
        (config.ticketer.enabled(), "the ticketer"),
        (config.send_tls13_tickets != 0, "session tickets"),
        (config.max_early_data_size != 0, "0-RTT"),
        (config.send_half_rtt_data, "half-RTT data"),
        (config.enable_secret_extraction, "secret extraction"),
    ];
    refuse(&forbidden)
}

/// Asserts the same for the dialling side. Its session store cannot be inspected: that it is off is
/// shown by a test that counts verifications.
pub fn check_client(config: &ClientConfig) -> Result<(), TlsError> {
    if config.alpn_protocols != [ALPN] {
        return Err(TlsError::Alpn);
    }
    refuse(&[(config.enable_early_data, "0-RTT"), (config.enable_secret_extraction, "secret extraction")])
}

fn refuse(forbidden: &[(bool, &'static str)]) -> Result<(), TlsError> {
    match forbidden.iter().find(|(on, _)| *on) {
        Some((_, what)) => Err(TlsError::Forbidden(what)),
        None => Ok(()),
    }
}
