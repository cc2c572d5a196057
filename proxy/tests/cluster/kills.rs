//! The process ends at every single call that changes its data directory, before it or halfway through
//! it. What was acknowledged is there after the restart, no number is used twice, and the peer converges.
//! `MERIDIAN_TEST_SCALE=full` tries every call, otherwise a fixed sample is tried.

use std::os::unix::process::ExitStatusExt;

use meridian_proxy::resp::Value;

use crate::crashes::no_number_was_used_twice;
use crate::harness::shim::{Action, NAMES, SYNCS, WRITES};
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, http, is_full, wait_for};

const ALL: u64 = WRITES | SYNCS | NAMES;

/// No path is longer than this; a count that does not end is a mistake of the test.
const CALLS_MOST: u64 = 500;

/// The region that is killed.
const A: usize = 0;

/// Of these values, nine fit into a segment and ten do not.
const LARGE: usize = 7 << 20;

/// So many are written before the calls are counted, and so many meanwhile.
const LARGE_BEFORE: usize = 4;
const LARGE_MEANWHILE: usize = 6;

/// A stretch of a process's life.
#[derive(Clone, Copy, Debug)]
enum Path {
    /// From the start of the process until it serves clients.
    Start,
    /// The first write, from the command to the reply.
    FirstWrite,
    /// Writes over the end of a segment.
    Rotation,
    /// A round of the store.
    Commit,
    /// From the signal to the end in order.
    Stop,
}

/// What is known of the writes so far.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<String>,
    tried: i64,
    counted: i64,
}

impl Ledger {
    /// Writes a little; stops at the first that is not answered.
    fn write(&mut self, client: &mut Client) -> Option<()> {
        let key = format!("key:{}", self.tried);
        self.tried += 1;
        let reply = client.try_call(&["SET", &key, &key]).ok()?;
        assert_eq!(reply, Value::Simple(b"OK".to_vec()));
        self.acknowledged.push(key);
        let counted = client.try_call(&["INCR", "counter"]).ok()?;
        assert!(matches!(counted, Value::Int(_)), "{counted:?}");
        self.counted += 1;
        Some(())
    }

    fn check(&self, client: &mut Client) {
        for keys in self.acknowledged.chunks(500) {
            let mut command = vec!["MGET"];
            command.extend(keys.iter().map(String::as_str));
            let reply = client.call(&command);
            for (key, value) in keys.iter().zip(reply.elements().unwrap()) {
                assert_eq!(value.text(), Some(key.as_str()), "acknowledged and gone");
            }
        }
        let counter = client.int(&["INCRBY", "counter", "0"]);
        assert!((self.counted..=self.tried).contains(&counter), "{} {counter} {}", self.counted, self.tried);
    }
}

/// What ended a walk along a path.
#[derive(Debug, PartialEq, Eq)]
enum Walk {
    /// Killed at the chosen call.
    Killed,
    /// There are fewer calls: this many.
    Whole(u64),
}

/// Walks `path` with `action` at call number `at`. The region is up before, and down or up after.
fn walk(cluster: &mut Cluster, ledger: &mut Ledger, path: Path, at: u64, action: Action) -> Walk {
    if matches!(path, Path::Start) {
        cluster.stop(A);
        cluster.shim(A).arm(ALL, at, action);
        cluster.spawn(A);
        let admin = cluster.admin_address(A);
        wait_for("a start or an end", PATIENCE, || {
            let ready = matches!(http::get(admin, "/readyz"), Ok((200, _)));
            (ready || cluster.ended(A).map(assert_killed).is_some()).then_some(())
        });
        return outcome(cluster);
    }
    let mut client = cluster.client(A);
    if matches!(path, Path::Commit | Path::Stop) {
        // Something for the store to take.
        (0..20).for_each(|_| ledger.write(&mut client).unwrap());
    }
    if matches!(path, Path::Rotation) {
        assert!((0..LARGE_BEFORE).all(|_| large(&mut client)));
    }
    let committed = cluster.status(A)["log"]["end"].as_u64().unwrap();
    cluster.shim(A).arm(ALL, at, action);
    match path {
        Path::FirstWrite => drop(ledger.write(&mut client)),
        Path::Rotation => {
            (0..LARGE_MEANWHILE).all(|_| large(&mut client));
        }
        Path::Commit => wait_for("a round of the store", PATIENCE, || {
            let Ok((_, page)) = http::get(cluster.admin_address(A), "/status") else { return Some(()) };
            let status: serde_json::Value = serde_json::from_str(&page).unwrap();
            (status["store"]["committed"].as_u64().unwrap() >= committed).then_some(())
        }),
        Path::Stop => {
            cluster.ask_to_stop(A);
            let status = wait_for("the end", PATIENCE, || cluster.ended(A));
            if status.code() != Some(0) {
                assert_killed(status);
                return Walk::Killed;
            }
            let calls = cluster.shim(A).disarm();
            assert!(calls < at, "{calls} calls, and the one numbered {at} did not end it");
            return Walk::Whole(calls);
        }
        Path::Start => unreachable!("above"),
    }
    outcome(cluster)
}

/// Whether a large value was written; there is ever only one.
fn large(client: &mut Client) -> bool {
    let reply = client.try_call(&["SET", "large", &"x".repeat(LARGE)]);
    assert!(!reply.as_ref().is_ok_and(Value::is_error), "{reply:?}");
    reply.is_ok()
}

fn assert_killed(status: std::process::ExitStatus) {
    assert_eq!(status.signal(), Some(9), "{status}");
}

/// Whether the region was killed; waits for its end if it was.
fn outcome(cluster: &mut Cluster) -> Walk {
    if !cluster.is_up(A) {
        return Walk::Killed;
    }
    let calls = cluster.shim(A).disarm();
    let at = cluster.shim(A).at();
    if calls < at {
        return Walk::Whole(calls);
    }
    assert_killed(wait_for("the end", PATIENCE, || cluster.ended(A)));
    Walk::Killed
}

/// Kills region a at the calls of `path`: at every one, or at every `stride`th.
fn kill_along(path: Path, stride: u64) {
    let options = Options { shim: true, ..Options::new(Shape::Mesh, 2) };
    let mut cluster = Cluster::start(options);
    let mut ledger = Ledger::default();
    let stride = if is_full() { 1 } else { stride };
    let (mut kills, mut at) = (0, 1);
    let calls = loop {
        // Where not both are tried, they take turns.
        let actions = [Action::KillBefore, Action::KillWithin];
        let actions = if is_full() { &actions[..] } else { &actions[(at / stride % 2) as usize..][..1] };
        let mut whole = None;
        for action in actions {
            match walk(&mut cluster, &mut ledger, path, at, *action) {
                Walk::Killed => kills += 1,
                Walk::Whole(calls) => whole = Some(calls),
            }
            cluster.shim(A).disarm();
            if !cluster.is_up(A) {
                cluster.restart(A);
            }
            let mut client = cluster.client(A);
            ledger.check(&mut client);
            ledger.write(&mut client).unwrap();
            client.int(&["DEL", "large"]);
            cluster.await_links();
            cluster.await_converged(PATIENCE);
        }
        ledger.check(&mut cluster.client(1));
        if let Some(calls) = whole {
            break calls;
        }
        at += stride;
        assert!(at < CALLS_MOST);
    };
    println!("{path:?}: {calls} calls, killed {kills} times, {} writes kept", ledger.acknowledged.len());
    assert!(kills > 0, "nothing was killed");
    for i in cluster.all() {
        cluster.stop(i);
    }
    // Segments are let go where so much is written: there the equal digests have to do.
    if !matches!(path, Path::Rotation) {
        no_number_was_used_twice(&cluster);
    }
}

#[test]
fn r4_killed_at_every_call_of_a_start() {
    kill_along(Path::Start, 3);
}

#[test]
fn r4_killed_at_every_call_of_the_first_write() {
    kill_along(Path::FirstWrite, 1);
}

#[test]
fn r4_killed_at_every_call_of_a_segment_s_end() {
    kill_along(Path::Rotation, 4);
}

#[test]
fn r4_killed_at_every_call_of_a_commit_to_the_store() {
    kill_along(Path::Commit, 2);
}

#[test]
fn r4_killed_at_every_call_of_a_clean_stop() {
    kill_along(Path::Stop, 3);
}
