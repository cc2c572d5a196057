//! Strangers on the link port and on the client port: refused or closed, with bounded memory, and
//! nobody else notices. Named after the failures they rehearse.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_proxy::cert;
use meridian_proxy::link::close::{CloseReason, Ended};
use meridian_proxy::link::endpoint::{LinkError, PeerConnection};
use meridian_proxy::link::framing::write_frame;
use meridian_proxy::resp::Value;
use meridian_topology::frame::{PROTOCOLS, Protocols};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::runtime::Runtime;

use crate::harness::peer::{endpoint, hello, hello_speaking};
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, wait_for};
use crate::load::Random;

const WITHIN: Duration = Duration::from_secs(30);

/// Dials region a as `name`, sends `frame` on a control stream if the handshake seems to succeed, and
/// returns how the connection ended. In TLS 1.3 the dialling side may believe that it is in.
fn knock(cluster: &Cluster, files: &Path, name: &str, frame: &[u8]) -> Ended {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let endpoint = endpoint(files, name);
        match endpoint.dial("a", cluster.link_address(0)).await {
            Ok(peer) => tokio::time::timeout(WITHIN, speak(peer, frame)).await.expect("to be closed"),
            Err(LinkError::Handshake { ended, .. }) => ended,
            Err(other) => panic!("{other}"),
        }
    })
}

async fn speak(peer: PeerConnection, frame: &[u8]) -> Ended {
    if let Ok((mut send, _receive)) = peer.connection.open_bi().await {
        // The other side may have closed already.
        let _ = write_frame(&mut send, Bytes::copy_from_slice(frame), 64 << 20).await;
        return Ended::from(&peer.connection.closed().await);
    }
    Ended::from(&peer.connection.closed().await)
}

/// The cluster still replicates both ways, and holds no connection of a stranger.
fn still_well(cluster: &Cluster) {
    cluster.await_links();
    cluster.client(0).ok(&["SET", "from a", "well"]);
    cluster.client(1).ok(&["SET", "from b", "well"]);
    cluster.await_converged(PATIENCE);
}

#[test]
fn s1_strangers_on_the_link_port_are_refused() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let own = cluster.directory().to_owned();
    let foreign = tempfile::tempdir().unwrap();
    cert::create_ca(foreign.path()).unwrap();
    cert::create_region("b", foreign.path(), foreign.path(), &[], cert::REGION_VALIDITY).unwrap();
    // It trusts both authorities: the refusal is a's.
    let authority = |files: &Path| fs::read_to_string(files.join("ca.pem")).unwrap();
    fs::write(foreign.path().join("ca.pem"), authority(foreign.path()) + &authority(&own)).unwrap();
    cert::create_region("zz", &own, &own, &[], cert::REGION_VALIDITY).unwrap();

    let refused = || cluster.metric(0, "meridian_link_refusals_total", &[]);
    let before = refused();
    let ended = knock(&cluster, foreign.path(), "b", b"");
    assert!(matches!(ended, Ended::RefusedByPeer { .. }), "{ended}");
    let ended = knock(&cluster, &own, "zz", &hello("test", "zz"));
    assert!(matches!(ended, Ended::ByPeer { reason: CloseReason::UnknownRegion, .. }), "{ended}");
    wait_for("the refusals to be counted", PATIENCE, || (refused() >= before + 1.0).then_some(()));
    still_well(&cluster);
}

/// Dials region a from an address of its own with `certificate` and `key`, whatever they are, and returns how
/// the connection ended.
fn knock_with(cluster: &Cluster, from: Ipv4Addr, certificate: &rcgen::Certificate, key: &KeyPair) -> Ended {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let signs = provider.key_provider.load_private_key(private).unwrap();
    let shown = CertifiedKey::new(vec![certificate.der().clone()], signs);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.directory().join("ca.pem")).unwrap()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    tls.alpn_protocols = vec![b"meridian/1".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut endpoint = quinn::Endpoint::client(SocketAddr::from((from, 0))).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        let ended = match endpoint.connect(cluster.link_address(0), "a").unwrap().await {
            Ok(connection) => tokio::time::timeout(WITHIN, connection.closed()).await.expect("to be closed"),
            Err(error) => error,
        };
        Ended::from(&ended)
    })
}

#[test]
fn s1_wrong_certificates_are_refused_counted_and_named_in_the_log() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let own = cluster.directory().to_owned();
    let authority = |files: &Path| {
        let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
        Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap()
    };
    let foreign = tempfile::tempdir().unwrap();
    cert::create_ca(foreign.path()).unwrap();
    let (ours, theirs) = (authority(&own), authority(foreign.path()));
    let key = || KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let named = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let mut expired = named("b");
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);

    for (at, case, params, issuer, swapped) in [
        (2, "expired", expired, &ours, false),
        (3, "foreign", named("b"), &theirs, false),
        (4, "swapped", named("b"), &ours, true),
        (5, "wildcard", named("*"), &ours, false),
    ] {
        let from = Ipv4Addr::new(127, 0, 0, at);
        let counted = || cluster.metric(0, "meridian_link_refusals_total", &[("reason", "BadCertificate")]);
        let (before, certified) = (counted(), key());
        let certificate = params.signed_by(&certified, issuer).unwrap();
        let ended = knock_with(&cluster, from, &certificate, &if swapped { key() } else { certified });
        let told = matches!(
            ended,
            Ended::RefusedByPeer { .. } | Ended::ByPeer { reason: CloseReason::BadCertificate, .. }
        );
        assert!(told, "{case}: {ended}");
        let what = format!("the {case} certificate to be counted");
        wait_for(&what, PATIENCE, || (counted() > before).then_some(()));
        let said = cluster.said(0);
        let line = said.lines().find(|line| line.contains(&format!("{from}:"))).expect(case);
        assert!(line.contains("refused a connection") && line.contains("certificate"), "{case}: {line}");
    }
    still_well(&cluster);
}

#[test]
fn s1_a_hello_that_does_not_fit_the_certificate_is_refused() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let own = cluster.directory().to_owned();
    cluster.stop(1);
    for (frame, reason) in [
        (hello("test", "c"), CloseReason::WrongRegion),
        (hello("test", "a"), CloseReason::IncarnationConflict),
        (hello("other", "b"), CloseReason::WrongCluster),
        (vec![0xff; 100], CloseReason::ProtocolError),
        (Vec::new(), CloseReason::ProtocolError),
        (vec![0; 2 << 20], CloseReason::ProtocolError),
    ] {
        let ended = knock(&cluster, &own, "b", &frame);
        let fits = matches!(&ended, Ended::ByPeer { reason: told, .. } if *told == reason);
        assert!(fits, "{ended} instead of {reason:?}");
    }
    cluster.restart(1);
    still_well(&cluster);
}

#[test]
fn j5_a_region_of_versions_we_do_not_speak_is_refused_by_name_and_others_go_on() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let own = cluster.directory().to_owned();
    cluster.stop(1);
    let later = Protocols { lowest: PROTOCOLS.highest + 1, highest: PROTOCOLS.highest + 2 };
    let told = format!("no protocol version in common: {PROTOCOLS} here, {later} at the peer");
    match knock(&cluster, &own, "b", &hello_speaking(later, "test", "b")) {
        Ended::ByPeer { reason: CloseReason::VersionMismatch, detail } => assert_eq!(detail, told),
        other => panic!("{other}"),
    }
    wait_for("the reason in the status", PATIENCE, || {
        let status = cluster.status(0);
        (status["links"][0]["last_error"].as_str() == Some(&told)).then_some(())
    });
    assert!(cluster.said(0).contains(&told), "{}", cluster.said(0));
    let counted = cluster.metric(0, "meridian_link_refusals_total", &[("reason", "VersionMismatch")]);
    assert!(counted >= 1.0, "{counted}");
    cluster.restart(1);
    still_well(&cluster);
}

#[test]
fn s1_a_region_of_another_cluster_is_refused_by_both() {
    let mut cluster = Cluster::prepare(Options::new(Shape::Mesh, 2));
    let config = cluster.config(1).to_owned();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("cluster = \"test\"", "cluster = \"other\"")).unwrap();
    for i in cluster.all() {
        cluster.restart(i);
    }
    for i in cluster.all() {
        let peer = cluster.name(1 - i);
        wait_for("a reason in the status", PATIENCE, || {
            let status = cluster.status(i);
            let link = status["links"].as_array().unwrap().iter().find(|link| link["peer"] == peer).cloned();
            let error = link.unwrap()["last_error"].as_str().unwrap_or_default().to_owned();
            error.contains("cluster").then_some(())
        });
        cluster.client(i).ok(&["SET", "key", peer]);
        assert_eq!(cluster.client(i).text(&["GET", "key"]), peer, "nothing crossed");
    }
}

/// What a connection gets for `bytes` until it is closed.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address).unwrap();
    // It may be closed before everything is taken.
    let _ = client.send(bytes);
    client.read_to_close().unwrap()
}

const MIB: u64 = 1 << 20;

#[test]
fn s2_garbage_is_an_error_and_the_end() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let address = cluster.resp_address(0);
    let mut other = cluster.client(0);
    let before = cluster.resident(0);
    let nested = b"*1\r\n".repeat(100_000);
    let long_line = [vec![b'x'; 100_000], b"\r\n".to_vec()].concat();
    let vectors: [&[u8]; 9] = [
        b"*2147483647\r\n",
        b"*2000000000\r\n$3\r\nGET\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2147483648\r\nabc",
        b"*1\r\n$-5\r\n",
        b"*x\r\n",
        b"*1\r\n+PING\r\n",
        b"GET \"x\r\n",
        &nested,
        &long_line,
    ];
    for vector in vectors {
        let start = String::from_utf8_lossy(&vector[..vector.len().min(40)]).into_owned();
        let said = String::from_utf8(answer(address, vector)).unwrap();
        assert!(said.starts_with("-ERR Protocol error"), "{start:?}: {said:?}");
        assert_eq!(said.lines().count(), 1, "{start:?}: {said:?}");
        other.ok(&["SET", "other", "fine"]);
    }
    for probe in ["POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        answer(address, probe.as_bytes());
        assert_eq!(other.maybe(&["GET", "a"]), None);
    }
    // Odd, and still commands.
    let mut odd = cluster.client(0);
    for inline in ["PING \"a\\xff\"\r\n", "PING \"x\\x4\"\r\n"] {
        odd.send(inline.as_bytes()).unwrap();
        assert!(!odd.reply().unwrap().is_error());
    }
    let grown = cluster.resident(0).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
    still_well(&cluster);
}

#[test]
fn s2_half_commands_on_many_connections_hold_little() {
    const CONNECTIONS: usize = 400;
    // With huge pages what is resident is mostly what nobody has touched.
    let launcher = Some(r#"MIMALLOC_ALLOW_THP=0 exec "$@""#);
    let cluster = Cluster::start(Options { launcher, ..Options::new(Shape::Mesh, 2) });
    let before = cluster.resident(0);
    let open: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = cluster.client(0);
            // Announces far more than it sends.
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000000\r\nabc").unwrap();
            client
        })
        .collect();
    wait_for("all to be seen", PATIENCE, || {
        (cluster.metric(0, "meridian_clients", &[]) >= CONNECTIONS as f64).then_some(())
    });
    let mut other = cluster.client(0);
    for n in 0..100 {
        other.ok(&["SET", "other", &n.to_string()]);
    }
    let each = cluster.resident(0).saturating_sub(before) / CONNECTIONS as u64;
    assert!(each < 96 << 10, "{each} bytes for each");
    drop(open);
    wait_for("all to be gone", PATIENCE, || {
        (cluster.metric(0, "meridian_clients", &[]) < 10.0).then_some(())
    });
    still_well(&cluster);
}

#[test]
fn s2_a_client_that_does_not_read_holds_little() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let mut other = cluster.client(0);
    other.ok(&["SET", "large", &"x".repeat(1 << 20)]);
    let before = cluster.resident(0);
    let mut deaf: Vec<Client> = (0..4).map(|_| cluster.client(0)).collect();
    for client in &mut deaf {
        client.send(&b"GET large\r\n".repeat(500)).unwrap();
    }
    for n in 0..100 {
        other.ok(&["SET", "other", &n.to_string()]);
    }
    let grown = cluster.resident(0).saturating_sub(before);
    assert!(grown < 48 * MIB, "{grown} bytes more, for 2000 MiB of replies");
    drop(deaf);
    still_well(&cluster);
}

#[test]
fn s2_patterns_and_transactions_meant_to_hurt() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let mut client = cluster.client(0);
    client.ok(&["SET", &"a".repeat(2_000), "x"]);
    let began = Instant::now();
    for pattern in ["a*".repeat(400) + "b", "[".repeat(1_000), "\\[".repeat(500), "*".repeat(1_000) + "b"] {
        assert!(client.call(&["KEYS", &pattern]).text().is_none_or(|text| text.starts_with("ERR")));
        client.call(&["SCAN", "0", "MATCH", &pattern]);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let said = |replies: Vec<Value>| replies.last().unwrap().text().unwrap_or_default().to_owned();
    let lines =
        |lines: &[&str]| lines.iter().map(|l| l.split(' ').map(String::from).collect()).collect::<Vec<_>>();
    let unknown = client.pipeline(&lines(&["MULTI", "NOSUCH x", "SET half x", "EXEC"])).unwrap();
    assert!(said(unknown).starts_with("EXECABORT"));
    let arity = client.pipeline(&lines(&["MULTI", "SET half", "EXEC"])).unwrap();
    assert!(said(arity).starts_with("EXECABORT"));
    assert!(said(client.pipeline(&lines(&["EXEC"])).unwrap()).starts_with("ERR EXEC without MULTI"));
    assert!(
        said(client.pipeline(&lines(&["MULTI", "MULTI"])).unwrap()).starts_with("ERR MULTI calls can not")
    );
    client.ok(&["DISCARD"]);
    let empty = client.pipeline(&lines(&["MULTI", "EXEC"])).unwrap();
    assert_eq!(empty.last(), Some(&Value::Array(Vec::new())));
    let mut leaver = cluster.client(0);
    leaver.pipeline(&lines(&["MULTI", "SET half x"])).unwrap();
    drop(leaver);
    assert_eq!(client.maybe(&["GET", "half"]), None);
    still_well(&cluster);
}

#[test]
fn s1_a_flood_of_datagrams_changes_nothing() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let before = cluster.resident(0);
    let mut random = Random::new(9);
    for _ in 0..50 {
        // Each from another address.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for n in 0..400usize {
            let mut datagram: Vec<u8> = (0..1200).map(|_| random.below(256) as u8).collect();
            if n % 2 == 0 {
                // As the start of a connection, version 1.
                datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            }
            // The other side's buffer may be full.
            let _ = socket.send_to(&datagram[..1200 - n % 700], cluster.link_address(0));
        }
    }
    still_well(&cluster);
    let grown = cluster.resident(0).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
}

#[test]
fn s2_before_authentication_little_is_taken() {
    let mut cluster = Cluster::prepare(Options::new(Shape::Mesh, 2));
    let password = cluster.directory().join("password");
    fs::write(&password, "secret\n").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = cluster.config(0).to_owned();
    let text = fs::read_to_string(&config).unwrap() + "[auth]\npassword_file = \"password\"\n";
    fs::write(&config, text).unwrap();
    for i in cluster.all() {
        cluster.restart(i);
    }
    let address = cluster.resp_address(0);
    let mut silent = Client::connect(address).unwrap();
    for (vector, told) in [
        ("*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        ("*2\r\n$4\r\nAUTH\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"),
        ("*2147483647\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"),
    ] {
        let said = String::from_utf8(answer(address, vector.as_bytes())).unwrap();
        // The largest count is no count at all.
        assert!(
            said == told || said == "-ERR Protocol error: invalid multibulk length\r\n",
            "{vector:?}: {said}"
        );
    }
    let before = cluster.resident(0);
    let mut deaf = Client::connect(address).unwrap();
    let pings = b"PING\r\n".repeat(100_000);
    // Nothing is read: writing fails when the other side closes. What it had answered may be lost.
    let _ = deaf.send(&pings);
    assert!(deaf.read_to_close().unwrap().len() < pings.len());
    let closed = || cluster.metric(0, "meridian_client_errors_total", &[("reason", "unauthenticated")]);
    wait_for("the close to be counted", PATIENCE, || (closed() == 1.0).then_some(()));
    assert!(cluster.resident(0).saturating_sub(before) < 16 * MIB);

    let mut client = Client::connect(address).unwrap();
    assert!(client.call(&["GET", "key"]).text().unwrap().starts_with("NOAUTH"));
    assert!(client.call(&["AUTH", "wrong"]).text().unwrap().starts_with("WRONGPASS"));
    client.ok(&["AUTH", "secret"]);
    let wide: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let command = [vec!["SADD".to_owned(), "set".to_owned()], wide].concat();
    assert_eq!(client.int(&command), 50);
    let mut b = cluster.client(1);
    wait_for("the members at b", PATIENCE, || (b.int(&["SCARD", "set"]) == 50).then_some(()));
    assert!(silent.read_to_close().unwrap().is_empty(), "who says nothing is not waited for");
}
