//! S1: whoever is not exactly the region it should be is refused before a frame is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{DnType, date_time_ymd};

use crate::cert::LeafError;
use crate::link::close::{CloseReason, Ended};
use crate::link::endpoint::{Crypto, LinkError, Refusal};
use crate::link::tls;

use super::*;

/// Every wrong way of being region `eu`.
fn impostors(ca: &TestCa) -> BTreeMap<&'static str, Identity> {
    BTreeMap::from([
        ("expired", ca.leaf(&["eu"], |params| params.not_after = date_time_ymd(2001, 1, 1))),
        ("not yet valid", ca.leaf(&["eu"], |params| params.not_before = date_time_ymd(2100, 1, 1))),
        ("another authority", ca.adopt(TestCa::new().identity("eu"))),
        ("another region", ca.identity("ap")),
        ("two regions", ca.leaf(&["eu", "us"], |_| {})),
        ("wildcard", ca.leaf(&["*"], |_| {})),
        ("wildcard beside the name", ca.leaf(&["eu", "*.example.org"], |_| {})),
        ("common name only", ca.leaf(&[], |params| params.distinguished_name.push(DnType::CommonName, "eu"))),
        ("host name only", ca.leaf(&["eu.example.org"], |_| {})),
        ("no extended key usage", ca.leaf(&["eu"], |params| params.extended_key_usages.clear())),
        ("client usage only", ca.leaf(&["eu"], |params| params.extended_key_usages.truncate(1))),
        ("server usage only", ca.leaf(&["eu"], |params| drop(params.extended_key_usages.remove(0)))),
        ("self-signed", ca.self_signed("eu")),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_impostors_that_dial_are_refused() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    for (case, identity) in impostors(&ca) {
        let impostor = open(&identity, &["us"], TransportLimits::default());
        let (dialled, accepted) = tokio::join!(impostor.dial("us", address(&us)), accept(&us));
        let refused = accepted.expect_err(case);
        // In TLS 1.3 the dialling side may believe it is in; what it sends goes nowhere and it is told.
        let ended = match dialled {
            Ok(peer) => Ended::from(&within(peer.connection.closed()).await),
            Err(LinkError::Handshake { ended, .. }) => ended,
            Err(other) => panic!("{case}: {other}"),
        };
        let told = match &refused.refusal {
            Refusal::Certificate(_) => {
                matches!(ended, Ended::ByPeer { reason: CloseReason::BadCertificate, .. })
            }
            Refusal::UnknownRegion(_) => {
                matches!(ended, Ended::ByPeer { reason: CloseReason::UnknownRegion, .. })
            }
            _ => matches!(ended, Ended::RefusedByPeer { .. }),
        };
        assert!(told, "{case}: {refused} / {ended}");
    }
    // The real one still gets in.
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (dialled, accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert_eq!((dialled.unwrap().region, accepted.unwrap().region), ("us".to_owned(), "eu".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_impostors_that_are_dialled_are_refused() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu", "ap"], TransportLimits::default());
    for (case, identity) in impostors(&ca) {
        let impostor = open(&identity, &["us"], TransportLimits::default());
        let error = within(us.dial("eu", address(&impostor))).await.expect_err(case);
        let named = matches!(error, LinkError::NotThePeer { .. })
            || matches!(error, LinkError::Handshake { ended: Ended::CertificateRefused { .. }, .. });
        assert!(named, "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_nobody_connects_without_a_certificate() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    let nobody = open_as(&ca, |_, client| client.client_auth_cert_resolver = Arc::new(NoCertificate));
    let (dialled, accepted) = tokio::join!(nobody.dial("us", address(&us)), accept(&us));
    assert!(matches!(accepted.unwrap_err().refusal, Refusal::Handshake(Ended::CertificateRefused { .. })));
    let ended = Ended::from(&within(dialled.unwrap().connection.closed()).await);
    assert_eq!(ended, Ended::RefusedByPeer { alert: 116 });
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_another_protocol_is_refused() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    let other = open_as(&ca, |_, client| client.alpn_protocols = vec![b"h3".to_vec()]);
    let (dialled, accepted) = tokio::join!(other.dial("us", address(&us)), accept(&us));
    assert!(accepted.is_err());
    assert!(matches!(dialled, Err(LinkError::Handshake { ended: Ended::RefusedByPeer { alert: 120 }, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_certificate_with_the_key_of_another_opens_nothing() {
    let ca = TestCa::new();
    let swapped = Identity { key: ca.identity("eu").key, ..ca.identity("eu") };
    let bound = Endpoint::bind(any_port(), &swapped, AllowedRegions::default(), TransportLimits::default());
    assert!(matches!(bound, Err(LinkError::Tls(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_the_peer_must_be_the_region_that_was_dialled() {
    let ca = TestCa::new();
    let eu = open(&ca.identity("eu"), &["us", "ap"], TransportLimits::default());
    let ap = open(&ca.identity("ap"), &["eu"], TransportLimits::default());
    let error = within(eu.dial("us", address(&ap))).await.unwrap_err();
    assert!(matches!(error, LinkError::Handshake { ended: Ended::CertificateRefused { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_regions_can_change_while_the_endpoint_runs() {
    let ca = TestCa::new();
    let allowed = AllowedRegions::new(["ap"]);
    let us =
        Endpoint::bind(any_port(), &ca.identity("us"), allowed.clone(), TransportLimits::default()).unwrap();
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (_, refused) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert_eq!(refused.unwrap_err().refusal, Refusal::UnknownRegion("eu".to_owned()));
    allowed.replace(["EU"]);
    let (_, accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert_eq!(accepted.unwrap().region, "eu");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_serves_new_connections_and_spares_old_ones() {
    let ca = TestCa::new();
    let soon = ca.leaf(&["us"], |params| params.not_after = date_time_ymd(2100, 1, 1));
    let us = open(&soon, &["eu"], TransportLimits::default());
    let eu = open(&ca.identity("eu"), &["us"], TransportLimits::default());
    let (old, _accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    let old = old.unwrap();
    us.replace_identity(&ca.leaf(&["us"], |params| params.not_after = date_time_ymd(2200, 1, 1))).unwrap();
    let (new, _accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    assert!(new.unwrap().not_after > old.not_after && old.not_after > SystemTime::now());
    assert_eq!(old.connection.close_reason(), None);
}

/// Path building has a budget: RUSTSEC-2023-0053.
#[tokio::test(flavor = "multi_thread")]
async fn s1_a_chain_of_a_hundred_candidates_is_refused() {
    let ca = TestCa::new();
    let us = open(&ca.identity("us"), &["eu"], TransportLimits::default());
    let eu = open(&ca.crowded("eu"), &["us"], TransportLimits::default());
    let (_, accepted) = tokio::join!(eu.dial("us", address(&us)), accept(&us));
    let refusal = accepted.unwrap_err().refusal;
    assert!(matches!(refusal, Refusal::Handshake(Ended::CertificateRefused { .. })), "{refusal}");
}

#[test]
fn a_refusal_says_what_to_do() {
    assert!(Refusal::from(LeafError::NoRegion).to_string().contains("meridian cert region"));
    assert!(Refusal::UnknownRegion("ap".into()).to_string().contains("[topology]"));
}

/// Region `eu` with TLS configurations that break our rules.
pub(super) fn open_as(
    ca: &TestCa,
    change: impl FnOnce(&mut rustls::ServerConfig, &mut rustls::ClientConfig),
) -> Endpoint {
    let identity = ca.identity("eu");
    let mut server = tls::server_config(&identity).unwrap();
    let mut client = tls::client_config(&identity).unwrap();
    change(&mut server, &mut client);
    let allowed = AllowedRegions::new(["us"]);
    Endpoint::bind_with(any_port(), Crypto { server, client }, allowed, TransportLimits::default(), None)
        .unwrap()
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
