//! Disks that fill up or fail under a real process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::crashes::no_number_was_used_twice;
use crate::harness::shim::{Action, SYNCS};
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, is_full, wait_for};

/// Waits until the region says that its log is not well, or is.
fn await_reason(cluster: &Cluster, reason: Option<&str>) {
    wait_for(&format!("readiness: {reason:?}"), PATIENCE, || {
        let (code, page) = cluster.get(0, "/readyz");
        match reason {
            Some(reason) => (code == 503 && page.contains(reason)).then_some(()),
            None => (code == 200).then_some(()),
        }
    });
}

fn refusal(client: &mut Client, command: &[&str]) -> String {
    let reply = client.call(command);
    assert!(reply.is_error(), "{command:?}: {reply:?}");
    reply.text().unwrap().to_owned()
}

#[test]
fn q4_a_log_that_cannot_be_written_refuses_writes_until_the_restart() {
    // A file may not grow past a limit that is set later, and the process survives being told so.
    let mut options = Options::new(Shape::Mesh, 1);
    options.launcher = Some("trap '' XFSZ; exec \"$@\"");
    let mut cluster = Cluster::start(options);
    cluster.client(0).ok(&["SET", "kept", "1"]);
    let process = Pid::from_raw(i32::try_from(cluster.pid(0)).unwrap());
    let limit = Rlimit { current: Some(1), maximum: None };
    prlimit(process, Resource::Fsize, limit).unwrap();
    let mut client = cluster.client(0);
    assert!(client.try_call(&["SET", "lost", "1"]).is_err(), "nobody can say whether it is kept");
    await_reason(&cluster, Some("log: writing failed; restart to recover"));
    let mut client = cluster.client(0);
    for command in [&["SET", "new", "1"][..], &["DEL", "kept"], &["FLUSHALL"]] {
        let told = refusal(&mut client, command);
        assert!(told.starts_with("MISCONF the op log cannot be written: "), "{told}");
    }
    assert_eq!(client.text(&["GET", "kept"]), "1", "reads go on");
    cluster.kill9(0);
    cluster.restart(0);
    let mut client = cluster.client(0);
    assert_eq!(client.text(&["GET", "kept"]), "1");
    client.ok(&["SET", "new", "1"]);
    cluster.stop(0);
}

/// Whether this system lets its users mount file systems for themselves.
fn may_mount() -> bool {
    Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
}

#[test]
fn q4_a_store_on_a_full_disk_goes_on_when_space_returns() {
    if !may_mount() {
        return eprintln!("not tried: no mounts for users here");
    }
    // Room for the store's journal and some tables, in a mount that only the process sees.
    let mut options = Options::new(Shape::Mesh, 1);
    options.launcher = Some(
        "STORE=\"${LOG%/log}/store\"; mkdir -p \"$STORE\" && export STORE && exec unshare -Urm sh -c \
         'mount -t tmpfs -o size=1g tmpfs \"$STORE\" && exec \"$@\"' sh \"$@\"",
    );
    let mut cluster = Cluster::start(options);
    cluster.client(0).ok(&["SET", "kept", "1"]);
    let mounted = PathBuf::from(format!("/proc/{}/root{}", cluster.pid(0), cluster.data(0).display()));
    let filler = mounted.join("store/filler");
    fill_disk(&filler);
    let (mut client, value) = (cluster.client(0), "x".repeat(256 << 10));
    let mut written = 0;
    // The log has room: writes go on, and the store fails once its journal ends.
    wait_for("the store to fail", PATIENCE, || {
        client.ok(&["SET", &format!("large:{written}"), &value]);
        written += 1;
        let (code, page) = cluster.get(0, "/readyz");
        (code == 503 && page.contains("store: commits fail")).then_some(())
    });
    assert_eq!(client.text(&["GET", "kept"]), "1", "reads go on");
    client.ok(&["SET", "meanwhile", "1"]);
    fs::remove_file(&filler).unwrap();
    await_reason(&cluster, None);
    wait_for("the store to have everything", PATIENCE, || {
        (cluster.metric(0, "meridian_store_lag_ops", &[]) == 0.0).then_some(())
    });
    assert!(cluster.said(0).contains("opened it anew"), "{}", cluster.said(0));
    assert_eq!(client.int(&["DBSIZE"]), 2 + written);
    assert_eq!(client.text(&["GET", "meanwhile"]), "1");
    cluster.stop(0);
}

/// Writes to `path` until the disk is full.
fn fill_disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    loop {
        match file.write_all(&[1; 64 << 10]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn q4_a_full_disk_refuses_writes_until_space_returns() {
    if !may_mount() {
        // `q4_clients_are_told_of_a_full_disk_and_go_on_when_space_returns` asks the same of a disk in memory.
        return eprintln!("not tried: no mounts for users here");
    }
    // Room for two segments and a little, in a mount that only the process sees.
    let mut options = Options::new(Shape::Mesh, 1);
    options.launcher = Some(
        "mkdir -p \"$LOG\" && exec unshare -Urm sh -c \
         'mount -t tmpfs -o size=160m tmpfs \"$LOG\" && exec \"$@\"' sh \"$@\"",
    );
    let mut cluster = Cluster::start(options);
    cluster.client(0).ok(&["SET", "kept", "1"]);
    let mounted = PathBuf::from(format!("/proc/{}/root{}", cluster.pid(0), cluster.data(0).display()));
    let filler = mounted.join("log/filler");
    fill_disk(&filler);
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut client, value) = (cluster.client(0), "x".repeat(1 << 20));
            let mut written = 0;
            while !done.load(Relaxed) {
                // The one that finds the disk full is answered once there is space.
                client.ok(&["SET", &format!("large:{written}"), &value]);
                written += 1;
            }
            written
        });
        await_reason(&cluster, Some("log: the disk is full"));
        let mut client = cluster.client(0);
        for command in [&["SET", "new", "1"][..], &["DEL", "kept"], &["FLUSHALL"]] {
            let told = refusal(&mut client, command);
            assert!(told.starts_with("MISCONF the op log cannot be written: the disk is full"), "{told}");
        }
        assert_eq!(client.text(&["GET", "kept"]), "1", "reads go on");
        done.store(true, Relaxed);
        fs::remove_file(&filler).unwrap();
        writer.join().unwrap()
    });
    await_reason(&cluster, None);
    let mut client = cluster.client(0);
    client.ok(&["SET", "new", "1"]);
    assert_eq!(client.int(&["DBSIZE"]), 2 + written, "nothing that was refused is there");
    cluster.stop(0);
}

/// Writes until one is not answered; the keys of those that were.
fn write_until_refused(client: &mut Client, prefix: &str) -> Vec<String> {
    let mut kept = Vec::new();
    loop {
        let key = format!("{prefix}:{}", kept.len());
        match client.try_call(&["SET", &key, "v"]) {
            Ok(reply) if !reply.is_error() => kept.push(key),
            _ => return kept,
        }
    }
}

#[test]
fn q4_a_flush_that_failed_once_ends_trust_until_the_restart() {
    let mut cluster = Cluster::start(Options { shim: true, ..Options::new(Shape::Mesh, 2) });
    let mut kept = vec!["before".to_owned()];
    cluster.client(0).ok(&["SET", "before", "v"]);
    let flushes = if is_full() { (1..=20).collect() } else { vec![1, 2, 7] };
    for at in flushes {
        let mut client = cluster.client(0);
        cluster.shim(0).arm_within("log/", SYNCS, at, Action::Fail);
        kept.extend(write_until_refused(&mut client, &format!("at{at}")));
        // Every later flush would succeed: that it is not tried is what this is about.
        await_reason(&cluster, Some("log: writing failed; restart to recover"));
        let mut client = cluster.client(0);
        for command in [&["SET", "lost", "1"][..], &["INCR", "lost"], &["DEL", "before"]] {
            let told = refusal(&mut client, command);
            assert!(told.starts_with("MISCONF the op log cannot be written: "), "{told}");
        }
        kept.iter().for_each(|key| assert_eq!(client.text(&["GET", key]), "v", "reads go on"));
        cluster.kill9(0);
        cluster.restart(0);
        cluster.await_links();
        cluster.await_converged(PATIENCE);
        for i in cluster.all() {
            let mut client = cluster.client(i);
            kept.iter().for_each(|key| assert_eq!(client.text(&["GET", key]), "v", "{key}"));
            assert_eq!(client.maybe(&["GET", "lost"]), None);
            client.int(&["INCR", "works"]);
        }
    }
    for i in cluster.all() {
        cluster.stop(i);
    }
    no_number_was_used_twice(&cluster);
}

#[test]
fn q4_a_failed_flush_of_the_store_loses_nothing() {
    let mut cluster = Cluster::start(Options { shim: true, ..Options::new(Shape::Mesh, 2) });
    let mut kept = Vec::new();
    for round in 0..if is_full() { 4 } else { 1 } {
        let mut client = cluster.client(0);
        for n in 0..100 {
            let key = format!("key:{round}:{n}");
            client.ok(&["SET", &key, "v"]);
            kept.push(key);
        }
        cluster.shim(0).arm_within("store/", SYNCS, 1, Action::Fail);
        wait_for("a round of the store", PATIENCE, || (cluster.shim(0).seen() > 0).then_some(()));
        wait_for("the error to be counted", PATIENCE, || {
            (cluster.metric(0, "meridian_store_errors_total", &[]) > 0.0).then_some(())
        });
        kept.iter().for_each(|key| assert_eq!(client.text(&["GET", key]), "v", "reads go on"));
        cluster.kill9(0);
        cluster.restart(0);
        cluster.await_links();
        cluster.await_converged(PATIENCE);
        let mut client = cluster.client(0);
        kept.iter().for_each(|key| assert_eq!(client.text(&["GET", key]), "v", "{key}"));
    }
    cluster.stop(0);
}
