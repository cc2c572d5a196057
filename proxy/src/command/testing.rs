//! Running commands in tests: against a region in a temporary directory, and side by side against a
//! real Redis, whose replies are the reference.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_topology::time::WallMs;
use tempfile::TempDir;

use super::execute::{Queued, Scratch, Watched, run, run_transaction, watch};
use super::find;
use crate::config::FileChecks;
use crate::config::settings::Settings;
use crate::metrics::Metrics;
use crate::region::Region;
use crate::region::recover::Threads;
use crate::resp::scan::ScanLimits;
use crate::resp::{Args, OwnedArgs, Protocol, Reply, Value, request, value};

/// A region alone, with its directory.
pub(crate) struct Lab {
    pub(crate) region: Arc<Region>,
    threads: Option<Threads>,
    scratch: Scratch,
    pub(crate) protocol: Protocol,
    pub(crate) database: u8,
    _directory: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let text = format!(
            "cluster = \"test\"\nregion = \"eu\"\ndata_dir = {:?}\n[log]\nsync = \"never\"\n",
            directory.path().join("data")
        );
        let settings = Settings::parse(&text, directory.path(), FileChecks::Skip).unwrap();
        let (region, threads) = Region::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
        Self {
            region,
            threads: Some(threads),
            scratch: Scratch::new(7),
            protocol: Protocol::Resp2,
            database: 0,
            _directory: directory,
        }
    }

    pub(crate) fn now(&self) -> WallMs {
        self.region.wall()
    }

    /// The raw reply of one command.
    pub(crate) fn raw(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let args: OwnedArgs = words.iter().collect();
        self.raw_args(args.args())
    }

    fn raw_args(&mut self, args: Args<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.protocol);
        let name = args.first().unwrap();
        let Some(command) = find(name) else {
            reply.error(&format!("ERR unknown command '{}'", name.escape_ascii()));
            return out;
        };
        if !command.accepts(args.len()) {
            reply.error(&format!("ERR wrong number of arguments for '{}' command", command.name));
            return out;
        }
        let now = self.region.wall();
        run(&self.region, &mut self.scratch, command, args, self.database, now, &mut reply);
        out
    }

    /// The reply of one command given as words separated by spaces.
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let raw = self.raw(&words);
        value::decode(&raw, &ScanLimits::default()).unwrap().unwrap().0
    }

    /// Takes everything to the store and out of memory.
    pub(crate) fn commit_and_evict(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(self.region.committer().commit_now()));
        assert!(self.region.keyspace().evict(u64::MAX).objects > 0);
    }

    /// Watches keys for [`Lab::transaction`].
    pub(crate) fn watch(&mut self, keys: &[&str]) -> Vec<Watched> {
        let keys: Vec<&[u8]> = keys.iter().map(|k| k.as_bytes()).collect();
        watch(&self.region, &keys, self.database, self.region.wall()).unwrap()
    }

    /// Runs lines as one transaction; `None` when a watched key changed.
    pub(crate) fn transaction(&mut self, lines: &[&str], watched: &[Watched]) -> Option<Value> {
        let queue: Vec<Queued> = lines
            .iter()
            .map(|line| {
                let args: OwnedArgs = line.split(' ').collect();
                Queued { command: find(args.args().first().unwrap()).unwrap(), args, database: self.database }
            })
            .collect();
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.protocol);
        let now = self.region.wall();
        run_transaction(&self.region, &mut self.scratch, &queue, watched, now, &mut reply).unwrap()?;
        Some(value::decode(&out, &ScanLimits::default()).unwrap().unwrap().0)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.stop().unwrap();
        }
    }
}

/// A real Redis for reference, ended with the test.
pub(crate) struct Reference {
    server: Child,
    stream: TcpStream,
    buffer: Vec<u8>,
    _directory: TempDir,
}

impl Reference {
    /// Starts `redis-server` on a free port.
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (see the README's test command)");
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => {
                    assert!(Instant::now() < deadline, "redis-server does not listen: {error}");
                    std::thread::yield_now();
                }
            }
        };
        stream.set_nodelay(true).unwrap();
        Self { server, stream, buffer: Vec::new(), _directory: directory }
    }

    /// The reply of one command.
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> Value {
        let mut out = Vec::new();
        request::encode(&mut out, words);
        self.stream.write_all(&out).unwrap();
        loop {
            if let Some((value, length)) = value::decode(&self.buffer, &ScanLimits::default()).unwrap() {
                self.buffer.drain(..length);
                return value;
            }
            let mut more = [0; 65536];
            let count = self.stream.read(&mut more).unwrap();
            assert!(count > 0, "the reference closed the connection");
            self.buffer.extend_from_slice(&more[..count]);
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Meridian and a real Redis, asked the same.
pub(crate) struct SideBySide {
    pub(crate) ours: Lab,
    pub(crate) theirs: Reference,
}

impl SideBySide {
    pub(crate) fn start() -> Self {
        Self { ours: Lab::new(), theirs: Reference::start() }
    }

    /// Both replies of one command.
    pub(crate) fn both(&mut self, words: &[&[u8]]) -> (Value, Value) {
        let raw = self.ours.raw(words);
        let ours = value::decode(&raw, &ScanLimits::default()).unwrap().unwrap().0;
        (ours, self.theirs.ask(words))
    }

    /// Asserts that both reply the same to each line (words separated by single spaces).
    pub(crate) fn same(&mut self, lines: &[&str]) {
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let (ours, theirs) = self.both(&words);
            assert_eq!(ours, theirs, "{line}");
        }
    }

    /// As [`SideBySide::same`], where the order of a reply's elements is free.
    pub(crate) fn same_elements(&mut self, lines: &[&str]) {
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let (ours, theirs) = self.both(&words);
            let sorted = |value: &Value| {
                let mut elements: Vec<String> =
                    value.elements().unwrap_or_default().iter().map(|e| format!("{e:?}")).collect();
                elements.sort();
                elements
            };
            assert_eq!(sorted(&ours), sorted(&theirs), "{line}");
        }
    }

    /// Asserts that both reply the same, however the replies' elements are ordered. `place` tells
    /// where the test stood.
    pub(crate) fn same_unordered(&mut self, line: &str, place: &str) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let (ours, theirs) = self.both(&words);
        let pairs = ["HSCAN", "HGETALL"].iter().any(|command| line.starts_with(command));
        assert_eq!(unordered(&ours, pairs), unordered(&theirs, pairs), "{line} ({place})");
    }

    /// Switches both to a protocol version.
    pub(crate) fn speak(&mut self, protocol: Protocol) {
        let version: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
        self.theirs.ask(&[b"HELLO", version]);
        self.ours.protocol = protocol;
    }

    /// Asserts that both hold the same data, as far as `DEBUG`-free commands tell.
    pub(crate) fn same_keys(&mut self) {
        self.same_elements(&["KEYS *"]);
        self.same(&["DBSIZE"]);
    }
}

/// A reply with its elements sorted, at every depth. `pairs`: flat arrays are of pairs.
pub(crate) fn unordered(value: &Value, pairs: bool) -> Value {
    let sorted = |elements: &[Value]| {
        let mut elements: Vec<Value> = elements.iter().map(|e| unordered(e, pairs)).collect();
        let strings = elements.iter().all(|e| e.elements().is_none());
        if pairs && strings && elements.len().is_multiple_of(2) {
            elements = elements.chunks(2).map(|pair| Value::Array(pair.to_vec())).collect();
        }
        elements.sort_by_key(|e| format!("{e:?}"));
        elements
    };
    match value {
        Value::Array(elements) => Value::Array(sorted(elements)),
        Value::Set(elements) => Value::Set(sorted(elements)),
        Value::Map(entries) => {
            let mut entries = entries.clone();
            entries.sort_by_key(|e| format!("{e:?}"));
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

/// Seeded random numbers for tests.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}
