#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::status::Status;
use crate::inbox::tests::note;
use crate::metrics::Metrics;
use crate::region::recover::Threads;
use crate::service::LinkState;
use crate::service::tests::settings;

const NAMES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metric-names.txt"));

/// Writes the token's file.
fn set_token(directory: &Path, content: &[u8], mode: u32) {
    let path = directory.join("token");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A region alone with an admin server.
struct Lab {
    view: View,
    server: Server,
    threads: Option<Threads>,
    directory: tempfile::TempDir,
}

impl Lab {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more configuration, and the token in the file `token`.
    async fn with(more: &str) -> Self {
        Self::at(more, "127.0.0.1:9380").await
    }

    /// As configured for this address; it listens on loopback in any case.
    async fn at(more: &str, admin: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        set_token(directory.path(), b"s3cret\n", 0o600);
        let mut settings = settings(directory.path(), &format!("[log]\nsync = \"never\"\n{more}"));
        settings.listen.admin = admin.parse().unwrap();
        let (region, threads) = Region::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
        let view = View::new(region, LinkStates::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(listener, view.clone());
        Self { view, server, threads: Some(threads), directory }
    }

    /// The status line and the body.
    async fn ask(&self, request: &str) -> (String, String) {
        let (head, body) = self.ask_with(request, "host: localhost:9380\r\n").await;
        (head.lines().next().unwrap().to_owned(), body)
    }

    /// The head and the body.
    async fn ask_with(&self, request: &str, headers: &str) -> (String, String) {
        let answer = self.send(&format!("{request} HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// All that is answered until the end.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.server.address().unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop_threads(&mut self) {
        let threads = self.threads.take().unwrap();
        tokio::task::spawn_blocking(move || threads.stop()).await.unwrap().unwrap();
    }

    async fn end(mut self) {
        if self.threads.is_some() {
            self.stop_threads().await;
        }
        self.server.stop().await;
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_healthy_region() {
    let lab = Lab::new().await;
    assert_eq!(lab.ask("GET /healthz").await, ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    let (line, body) = lab.ask("GET /readyz").await;
    assert_eq!((line.as_str(), json(&body)), ("HTTP/1.1 200 OK", json!({ "ready": true, "reasons": [] })));
    lab.end().await;
}

#[tokio::test]
async fn not_ready_says_why() {
    let mut lab = Lab::new().await;
    lab.view.region.begin_drain();
    lab.stop_threads().await;
    let (line, body) = lab.ask("GET /readyz").await;
    assert_eq!(line, "HTTP/1.1 503 Service Unavailable");
    let reasons = json!(["draining: the region is being stopped", "log: closed"]);
    assert_eq!(json(&body), json!({ "ready": false, "reasons": reasons }));
    assert!(lab.ask("GET /healthz").await.0.contains("200"), "alive all the same");
    lab.end().await;
}

#[tokio::test]
async fn nothing_but_reading_is_served() {
    let lab = Lab::new().await;
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/conflicts", "/conflicts/follow"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let (line, _) = lab.ask(&format!("{method} {path}")).await;
            assert_eq!(line, "HTTP/1.1 405 Method Not Allowed", "{method} {path}");
        }
    }
    let (line, body) = lab.ask("GET /nothing").await;
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    assert_eq!(json(&body)["error"], "no such page");
    // Started from no file: there is nothing to reload.
    let (line, body) = lab.ask("POST /reload").await;
    assert_eq!(line, "HTTP/1.1 409 Conflict");
    assert_eq!(json(&body)["reloaded"], false);
    lab.end().await;
}

#[tokio::test]
async fn the_inbox_is_listed_and_followed() {
    let lab = Lab::new().await;
    let (line, body) = lab.ask("GET /conflicts").await;
    assert_eq!((line.as_str(), json(&body)), ("HTTP/1.1 200 OK", json!({ "conflicts": [], "next": null })));
    assert_eq!(lab.ask("GET /conflicts?limit=0").await.0, "HTTP/1.1 400 Bad Request");
    assert_eq!(lab.ask("GET /conflicts/follow?limit=1").await.0, "HTTP/1.1 400 Bad Request");
    assert_eq!(lab.ask(&format!("GET /conflicts/follow?after={:032x}", 1)).await.0, "HTTP/1.1 410 Gone");
    let region = &lab.view.region;
    for at in 1..=3 {
        note(region, if at == 2 { "other" } else { "k" }, at);
    }
    region.inbox().settle().await;
    let listed = json(&lab.ask("GET /conflicts?key=k").await.1);
    let ids: Vec<&str> =
        listed["conflicts"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    let newest = &listed["conflicts"][0];
    assert_eq!((&newest["shown"], &newest["rivals"][0]["value"]), (&json!("won"), &json!("lost")));

    // From the oldest on: what is there already, then what comes.
    let mut stream = TcpStream::connect(lab.server.address().unwrap()).await.unwrap();
    let request = format!("GET /conflicts/follow?key=k HTTP/1.0\r\nlast-event-id: {}\r\n\r\n", ids[1]);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    read_until(&mut stream, &mut answer, &format!("id: {}", ids[0])).await;
    note(region, "k", 9);
    read_until(&mut stream, &mut answer, "1700000000009.0").await;
    let told = String::from_utf8(answer).unwrap();
    assert!(told.contains("content-type: text/event-stream") && !told.contains("other"), "{told}");
    // It ends with the region, not with the server's patience.
    region.begin_drain();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    lab.end().await;
}

/// Reads on until `answer` contains `wanted`.
async fn read_until(stream: &mut TcpStream, answer: &mut Vec<u8>, wanted: &str) {
    while !String::from_utf8_lossy(answer).contains(wanted) {
        assert!(stream.read_buf(answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn the_status_document() {
    let lab = Lab::new().await;
    let link = LinkState { mismatches: vec!["policies".into()], ..LinkState::not_yet("us", 5) };
    lab.view.links.lock().insert("us".into(), link.clone());
    lab.view.region.sequencer().local(lab.view.region.origin(), lab.view.region.wall(), b"").unwrap();
    lab.view.region.log().wake();

    let (line, body) = lab.ask("GET /status").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let status: Status = serde_json::from_str(&body).unwrap();
    let incarnation = lab.view.region.origin().incarnation();
    assert_eq!((status.cluster.as_str(), status.region.as_str()), ("test", "eu"));
    assert_eq!(status.origin, format!("eu.{incarnation:08x}"));
    assert_eq!((status.role.as_str(), status.ready, status.incarnation), ("leader", true, incarnation));
    assert_eq!(status.topology.shape, "mesh");
    assert_eq!(status.applied.len(), 1);
    assert_eq!((status.applied[0].region.as_str(), status.applied[0].sequence), ("eu", 1));
    assert_eq!(status.log.sync, "never");
    assert_eq!(status.links, [link]);
    assert_eq!(status.config_mismatches[0].what, "policies");
    assert_eq!(status.warnings, [] as [String; 0]);
    lab.end().await;
}

/// The document that `meridian status` is tested with has the fields of the real one, all of them.
#[tokio::test]
async fn the_golden_document_is_one_of_these() {
    let lab = Lab::new().await;
    let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/status.json"));
    let keys = |text: &str| json(text).as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let told = lab.ask("GET /status").await.1;
    assert_eq!(keys(golden), keys(&told));
    let disk = ["disk_available_bytes", "disk_capacity_bytes"].map(|key| json(&told)["store"][key].as_u64());
    assert!(disk[0] > Some(0) && disk[0] <= disk[1], "{disk:?}");
    lab.end().await;
}

#[tokio::test]
async fn metrics_are_sampled_when_asked_for() {
    let lab = Lab::new().await;
    lab.view.region.certificate().set_end(SystemTime::now() + Duration::from_secs(1000));
    let link =
        LinkState { connected: true, rtt_ms: Some(20.0), unacked_ops: 7, ..LinkState::not_yet("us", 5) };
    lab.view.links.lock().insert("us".into(), link);
    lab.view.region.sequencer().local(lab.view.region.origin(), lab.view.region.wall(), b"").unwrap();
    sample::take(&lab.view);

    let (line, text) = lab.ask("GET /metrics").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let origin = format!("eu.{:08x}", lab.view.region.origin().incarnation());
    let value = |name: &str| {
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let (_, value) =
            line.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap()
    };
    assert_eq!(value(&format!("meridian_applied_sequence{{origin=\"{origin}\"}}")), 1.0);
    assert!(value("meridian_oplog_bytes") > 0.0);
    assert!(value("meridian_disk_available_bytes") > 0.0);
    assert!(value("meridian_disk_available_bytes") <= value("meridian_disk_capacity_bytes"));
    assert_eq!(value("meridian_hook_quarantine_room"), 1024.0);
    assert!((900.0..=1000.0).contains(&value("meridian_cert_expiry_seconds")));
    assert_eq!(value("meridian_link_up{peer=\"us\"}"), 1.0);
    assert_eq!(value("meridian_link_rtt_seconds{peer=\"us\"}"), 0.02);
    assert_eq!(value("meridian_unacked_ops{peer=\"us\"}"), 7.0);
    for part in ["objects", "tail", "log_buffer", "store_cache", "store_write_buffer"] {
        value(&format!("meridian_memory_bytes{{part=\"{part}\"}}"));
    }
    lab.end().await;
}

/// Dashboards and alerts are written against these names: adding is free, renaming is a break.
#[test]
fn metric_names_are_a_promise() {
    let metrics = Metrics::new().unwrap();
    let names: BTreeSet<&str> = metrics.described().iter().map(|metric| metric.name.as_str()).collect();
    let promised: BTreeSet<&str> = NAMES.lines().collect();
    assert_eq!(names, promised);
}

#[tokio::test]
async fn fault_knobs_that_are_off_cannot_be_turned() {
    let lab = Lab::new().await;
    for method in ["GET", "POST"] {
        let (status, body) = lab.ask(&format!("{method} /faults")).await;
        assert!(status.contains("404") && body.contains("[dev] faults = true"), "{status} {body}");
    }
    lab.end().await;
}
