//! S1: no handshake is replayed or resumed, so the certificate is verified every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::link::endpoint::Crypto;
use crate::link::tls::{self, TlsError};

use super::identity::open_as;
use super::*;

const CONNECTIONS: usize = 8;

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ClientCertVerifier>,
    calls: Arc<AtomicUsize>,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.calls.fetch_add(1, SeqCst);
        self.inner.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Region `us`, which counts how often it verifies a client's certificate.
fn counting(ca: &TestCa, change: impl FnOnce(&mut rustls::ServerConfig)) -> (Endpoint, Arc<AtomicUsize>) {
    let identity = ca.identity("us");
    let calls = Arc::new(AtomicUsize::new(0));
    let inner =
        WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), tls::provider()).build().unwrap();
    let verifier = Arc::new(Counting { inner, calls: calls.clone() });
    let mut server = tls::server_config_with(&identity, verifier).unwrap();
    change(&mut server);
    let crypto = Crypto { server, client: tls::client_config(&identity).unwrap() };
    let allowed = AllowedRegions::new(["eu"]);
    (Endpoint::bind_with(any_port(), crypto, allowed, TransportLimits::default(), None).unwrap(), calls)
}

/// Connects again and again; each connection lives until a byte has come back, after any ticket.
async fn connect_repeatedly(eu: &Endpoint, us: &Endpoint) {
    for _ in 0..CONNECTIONS {
        let (dialled, accepted) = tokio::join!(eu.dial("us", address(us)), accept(us));
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        let mut stream = accepted.connection.open_uni().await.unwrap();
        stream.write_all(b"!").await.unwrap();
        stream.finish().unwrap();
        let mut stream = dialled.connection.accept_uni().await.unwrap();
        assert_eq!(stream.read_to_end(10).await.unwrap(), b"!");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_every_connection_verifies_the_certificate() {
    let ca = TestCa::new();
    let (us, calls) = counting(&ca, |_| {});
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    within(connect_repeatedly(&eu, &us)).await;
    assert_eq!(calls.load(SeqCst), CONNECTIONS);
    // Even a dialler that would like to resume.
    let eager = open_as(&ca, |_, client| client.resumption = Resumption::default());
    within(connect_repeatedly(&eager, &us)).await;
    assert_eq!(calls.load(SeqCst), 2 * CONNECTIONS);
}

/// Shows that the count above would notice: with rustls's defaults one verification serves all.
#[tokio::test(flavor = "multi_thread")]
async fn s1_resumption_would_skip_verification() {
    let ca = TestCa::new();
    let (us, calls) = counting(&ca, |server| {
        server.session_storage = ServerSessionMemoryCache::new(64);
        server.send_tls13_tickets = 4;
    });
    let eager = open_as(&ca, |_, client| client.resumption = Resumption::default());
    within(connect_repeatedly(&eager, &us)).await;
    assert!(calls.load(SeqCst) < CONNECTIONS);
    // Our own dialler does not resume even there.
    calls.store(0, SeqCst);
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    within(connect_repeatedly(&eu, &us)).await;
    assert_eq!(calls.load(SeqCst), CONNECTIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_early_data_is_never_possible() {
    let ca = TestCa::new();
    let (us, calls) = counting(&ca, |_| {});
    let eager = open_as(&ca, |_, client| {
        client.resumption = Resumption::default();
        client.enable_early_data = true;
    });
    within(connect_repeatedly(&eager, &us)).await;
    let connecting = eager.connecting("us", address(&us));
    assert!(connecting.into_0rtt().is_err(), "there is no ticket to send early data with");
    assert_eq!(calls.load(SeqCst), CONNECTIONS);
}

#[test]
fn s1_start_up_checks_refuse_what_links_forbid() {
    let identity = TestCa::new().identity("eu");
    let server = || tls::server_config(&identity).unwrap();
    let client = || tls::client_config(&identity).unwrap();

    let mut bad = server();
    bad.max_early_data_size = u32::MAX;
    assert!(matches!(tls::check_server(&bad), Err(TlsError::Forbidden("0-RTT"))));
    let mut bad = server();
    bad.send_tls13_tickets = 2;
    assert!(matches!(tls::check_server(&bad), Err(TlsError::Forbidden(_))));
    let mut bad = server();
    bad.session_storage = ServerSessionMemoryCache::new(8);
    assert!(matches!(tls::check_server(&bad), Err(TlsError::Forbidden(_))));
    let mut bad = server();
    bad.alpn_protocols.push(b"h3".to_vec());
    assert!(matches!(tls::check_server(&bad), Err(TlsError::Alpn)));
    let mut bad = client();
    bad.enable_early_data = true;
    assert!(matches!(tls::check_client(&bad), Err(TlsError::Forbidden("0-RTT"))));
    let mut bad = client();
    bad.alpn_protocols.clear();
    assert!(matches!(tls::check_client(&bad), Err(TlsError::Alpn)));
}
