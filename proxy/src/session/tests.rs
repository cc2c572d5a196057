//! Connections over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::config::FileChecks;
use crate::config::settings::Settings;
use crate::metrics::Metrics;
use crate::oplog::SimDisk;
use crate::region::Region;
use crate::region::recover::Threads;
use crate::resp::scan::ScanLimits;
use crate::resp::{Value, request, value};

mod disk;
mod password;

struct Server {
    region: Arc<Region>,
    threads: Option<Threads>,
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    directory: Arc<TempDir>,
    disk: Option<SimDisk>,
}

impl Server {
    fn start(more: &str) -> Self {
        Self::open(Arc::new(TempDir::new().unwrap()), more, None)
    }

    /// With the op log on a disk that the test rules.
    fn on(directory: &Arc<TempDir>, disk: &SimDisk) -> Self {
        Self::open(Arc::clone(directory), "", Some(disk.clone()))
    }

    fn open(directory: Arc<TempDir>, more: &str, disk: Option<SimDisk>) -> Self {
        if more.contains("password") {
            use std::os::unix::fs::PermissionsExt;
            let file = directory.path().join("password");
            std::fs::write(&file, "secret\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let text = format!(
            "cluster = \"test\"\nregion = \"eu\"\ndata_dir = {:?}\n[log]\nsync = \"always\"\n{more}",
            directory.path().join("data")
        );
        let settings = Settings::parse(&text, directory.path(), FileChecks::Skip).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (region, threads) = match &disk {
            Some(disk) => Region::open_on(settings, metrics, Arc::new(disk.clone())),
            None => Region::open(settings, metrics),
        }
        .unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(super::accept::listen(Arc::clone(&region), listener));
        Self { region, threads: Some(threads), runtime: Some(runtime), address, directory, disk }
    }

    /// Waits for what the log's writer or another session is about to do.
    fn until(&self, what: impl Fn(&Region) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what(&self.region) {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::yield_now();
        }
    }

    fn connect(&self) -> Peer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Peer { stream, buffer: Vec::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.region.begin_drain();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        if let Some(disk) = &self.disk {
            disk.hold_flushes(false);
        }
        if let Some(threads) = self.threads.take() {
            // A disk that failed keeps the log from its orderly end.
            assert!(threads.stop().is_ok() || self.disk.is_some());
        }
    }
}

struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply, or `None` when the connection was closed.
    fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some((value, length)) = value::decode(&self.buffer, &ScanLimits::default()).unwrap() {
                self.buffer.drain(..length);
                return Some(value);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn say(&mut self, line: &str) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        request::encode(&mut out, &words);
        self.send(&out);
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.receive().expect("a reply")
    }

    /// Whether nothing comes for a moment.
    fn is_kept_waiting(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let nothing = self.buffer.is_empty() && self.stream.peek(&mut [0]).is_err();
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        nothing
    }
}

fn text(value: &Value) -> &str {
    value.text().unwrap_or_default()
}

#[test]
fn pipelines_cut_at_every_byte_are_answered_in_order() {
    let server = Server::start("");
    let mut out = Vec::new();
    for words in [vec!["SET", "a", "1"], vec!["INCR", "a"], vec!["GET", "a"], vec!["PING"]] {
        request::encode(&mut out, &words);
    }
    out.extend_from_slice(b"ECHO inline\r\n");
    for cut in 1..out.len() {
        let mut peer = server.connect();
        peer.send(&out[..cut]);
        peer.send(&out[cut..]);
        assert_eq!(text(&peer.receive().unwrap()), "OK");
        assert_eq!(peer.receive().unwrap(), Value::Int(2));
        assert_eq!(text(&peer.receive().unwrap()), "2");
        assert_eq!(text(&peer.receive().unwrap()), "PONG");
        assert_eq!(text(&peer.receive().unwrap()), "inline");
    }
}

#[test]
fn transactions_queue_abort_and_watch() {
    let server = Server::start("");
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!(text(&one.ask("MULTI")), "OK");
    assert_eq!(text(&one.ask("SET a 1")), "QUEUED");
    assert!(two.ask("GET a").is_null());
    assert!(text(&one.ask("MULTI")).contains("nested"));
    assert_eq!(one.ask("EXEC").elements().unwrap().len(), 1);
    one.ask("MULTI");
    assert!(one.ask("NOSUCH x").is_error());
    assert!(text(&one.ask("EXEC")).starts_with("EXECABORT"));
    one.ask("WATCH a");
    two.ask("SET a 2");
    one.ask("MULTI");
    one.ask("SET a 3");
    assert!(one.ask("EXEC").is_null());
    assert_eq!(text(&one.ask("GET a")), "2");
    one.ask("MULTI");
    one.ask("SELECT 3");
    one.ask("SET only 3");
    one.ask("EXEC");
    assert_eq!(text(&one.ask("GET only")), "3", "SELECT inside the transaction stays");
    assert!(two.ask("GET only").is_null());
    assert!(text(&one.ask("EXEC")).contains("without MULTI"));
    assert!(text(&one.ask("DISCARD")).contains("without MULTI"));
}

#[test]
fn hello_switches_the_protocol_within_a_pipeline() {
    let server = Server::start("");
    let mut peer = server.connect();
    peer.send(b"GET nothing\r\nHELLO 3\r\nGET nothing\r\nHELLO 2\r\nGET nothing\r\n");
    let mut raw = Vec::new();
    while raw.windows(5).filter(|w| w == b"$-1\r\n").count() < 2 {
        let mut more = [0; 4096];
        let count = peer.stream.read(&mut more).unwrap();
        raw.extend_from_slice(&more[..count]);
    }
    assert!(raw.starts_with(b"$-1\r\n%7\r\n"));
    assert!(raw.windows(3).any(|w| w == b"_\r\n"));
    assert!(peer.ask("HELLO 4").is_error());
}

#[test]
fn s2_a_password_is_asked_for_and_limits_hold_before() {
    let server = Server::start("[auth]\npassword_file = \"password\"\n");
    let mut peer = server.connect();
    assert!(text(&peer.ask("GET a")).starts_with("NOAUTH"));
    assert!(text(&peer.ask("AUTH wrong")).starts_with("WRONGPASS"));
    assert_eq!(text(&peer.ask("AUTH secret")), "OK");
    assert!(peer.ask("GET a").is_null());
    let mut eleven = server.connect();
    eleven.send(b"*11\r\n");
    assert!(text(&eleven.receive().unwrap()).contains("unauthenticated multibulk length"));
    assert!(eleven.receive().is_none());
    let mut large = server.connect();
    large.send(b"*2\r\n$3\r\nGET\r\n$20000\r\n");
    assert!(text(&large.receive().unwrap()).contains("unauthenticated bulk length"));
    assert!(large.receive().is_none());
}

#[test]
fn s2_cve_2025_21605_an_unauthenticated_client_that_does_not_read_is_closed() {
    let server = Server::start("[auth]\npassword_file = \"password\"\n");
    let mut peer = server.connect();
    let flood = b"PING\r\n".repeat(10_000);
    let deadline = Instant::now() + Duration::from_secs(20);
    while peer.stream.write_all(&flood).is_ok() {
        assert!(Instant::now() < deadline, "the flood goes on");
    }
}

#[test]
fn s2_protocol_errors_are_answered_and_close() {
    let server = Server::start("");
    for (sent, said) in [
        (&b"*2147483648\r\n"[..], "invalid multibulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$500000000\r\nabc", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"GET \"x\r\n", "unbalanced quotes"),
    ] {
        let mut peer = server.connect();
        peer.send(sent);
        assert!(text(&peer.receive().unwrap()).contains(said), "{said}");
        assert!(peer.receive().is_none(), "{said}");
    }
    let mut browser = server.connect();
    browser.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(browser.receive().is_none(), "closed without a word");
    assert_eq!(text(&server.connect().ask("PING")), "PONG");
}

#[test]
fn clients_are_listed_named_and_killed() {
    let server = Server::start("");
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!(text(&one.ask("CLIENT SETNAME one")), "OK");
    assert_eq!(text(&one.ask("CLIENT GETNAME")), "one");
    let id = match two.ask("CLIENT ID") {
        Value::Int(id) => id,
        other => panic!("{other:?}"),
    };
    let list = one.ask("CLIENT LIST");
    assert!(text(&list).contains("name=one") && text(&list).contains(&format!("id={id} ")));
    assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), Value::Int(1));
    assert!(two.receive().is_none());
    assert_eq!(text(&one.ask("CLIENT SETINFO LIB-NAME mine")), "OK");
}

#[test]
fn too_many_clients_are_told_so() {
    let server = Server::start("[limits]\nmax_clients = 2\n");
    let (mut one, mut two) = (server.connect(), server.connect());
    one.ask("PING");
    two.ask("PING");
    let mut three = server.connect();
    assert!(text(&three.receive().unwrap()).contains("max number of clients"));
    assert!(three.receive().is_none());
}

#[test]
fn introspection_answers() {
    let server = Server::start("");
    let mut peer = server.connect();
    peer.ask("SET a 1");
    assert!(text(&peer.ask("INFO")).contains("db0:keys=1"));
    assert!(text(&peer.ask("INFO server")).contains("redis_version:7.2"));
    assert_eq!(peer.ask("CONFIG GET maxclients").elements().unwrap().len(), 2);
    assert_eq!(peer.ask("COMMAND INFO get nosuch").elements().unwrap().len(), 2);
    assert_eq!(peer.ask("COMMAND GETKEYS MSET a 1 b 2").elements().unwrap().len(), 2);
    assert_eq!(text(&peer.ask("MERIDIAN.DIGEST")).len(), 32);
    assert_eq!(peer.ask("MERIDIAN.VECTOR").elements().unwrap().len(), 1);
    assert!(peer.ask("MERIDIAN.EXPLAIN a").elements().is_some());
    assert!(peer.ask("MERIDIAN.EXPLAIN b").is_null());
    let unknown = peer.ask("NOSUCH a b");
    assert_eq!(text(&unknown), "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ");
}

#[test]
fn the_inbox_is_read_and_undone_over_a_connection() {
    let server = Server::start("");
    let mut peer = server.connect();
    assert_eq!(peer.ask("MERIDIAN.CONFLICTS"), Value::Array(Vec::new()));
    crate::inbox::tests::note(&server.region, "k", 1);
    crate::inbox::tests::note(&server.region, "other", 2);
    server.until(|region| region.inbox().shelf().head().records() == 2);
    peer.ask("SET k won");
    let listed = peer.ask("MERIDIAN.CONFLICTS KEY k COUNT 5");
    let [record] = listed.elements().unwrap() else { panic!("{listed:?}") };
    let id = text(&record.elements().unwrap()[1]);
    assert_eq!(peer.ask("MERIDIAN.CONFLICTS count 1").elements().unwrap().len(), 1);
    for bad in ["COUNT 0", "COUNT x", "KEY", "COLOUR red"] {
        assert!(peer.ask(&format!("MERIDIAN.CONFLICTS {bad}")).is_error(), "{bad}");
    }
    let explained = peer.ask("MERIDIAN.EXPLAIN k");
    let last = explained.elements().unwrap().last().unwrap();
    assert_eq!(text(&last.elements().unwrap()[1]), id);
    assert!(!peer.ask("MERIDIAN.EXPLAIN other").is_null(), "there is no such key, but a conflict about it");
    assert_eq!(peer.ask("MERIDIAN.SIBLINGS k").elements().unwrap().len(), 1);
    assert_eq!(peer.ask("MERIDIAN.SIBLINGS none").elements().unwrap().len(), 0);
    peer.ask("SADD s m");
    assert!(text(&peer.ask("MERIDIAN.SIBLINGS s")).starts_with("WRONGTYPE"));
    assert!(text(&peer.ask("MERIDIAN.SIBLINGS s m")).starts_with("WRONGTYPE"));

    assert!(text(&peer.ask("MERIDIAN.RESTORE k")).starts_with("ERR a conflict's id"));
    assert_eq!(text(&peer.ask(&format!("MERIDIAN.RESTORE {id}"))), "OK");
    assert_eq!(text(&peer.ask("GET k")), "lost");
    assert!(
        text(&peer.ask(&format!("MERIDIAN.RESTORE {id}")))
            .starts_with("ERR this conflict's loser was already")
    );
    peer.ask("MULTI");
    assert!(peer.ask(&format!("MERIDIAN.RESTORE {id}")).is_error());
    assert!(text(&peer.ask("EXEC")).starts_with("EXECABORT"));
}
