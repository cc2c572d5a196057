//! What clients see of a disk that is slow, full or broken, under `sync = "always"`.

use super::*;
use crate::command::execute::{Scratch, run};
use crate::command::find;
use crate::oplog::{LogHealth, Lsn, open_on};
use crate::resp::{OwnedArgs, Protocol, Reply};

fn server() -> (Server, Arc<TempDir>, SimDisk) {
    let (directory, disk) = (Arc::new(TempDir::new().unwrap()), SimDisk::default());
    (Server::on(&directory, &disk), directory, disk)
}

/// Whether the reply to this command would have to wait for the log.
fn waits(server: &Server, line: &str) -> bool {
    let args: OwnedArgs = line.split(' ').collect();
    let command = find(args.args().first().unwrap()).unwrap();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    let region = &server.region;
    let ran = run(region, &mut Scratch::new(1), command, args.args(), 0, region.wall(), &mut reply);
    region.must_wait(ran.wait_for)
}

/// Records that would be there after a loss of power now.
fn survive(disk: &SimDisk) -> usize {
    let (opened, _) = open_on(Arc::new(disk.crash(|_| 0)), Default::default()).unwrap();
    let mut replay = opened.replay(Lsn(0));
    let mut records = 0;
    while let Some(chunk) = replay.next_chunk().unwrap() {
        records += chunk.records().count();
    }
    records
}

#[test]
fn reads_wait_for_the_flush_of_what_they_show_and_for_no_other() {
    let (server, _directory, disk) = server();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    for line in ["SET old 1", "SET gone 1", "SADD set m", "SET changed before"] {
        assert!(!writer.ask(line).is_error());
    }
    disk.hold_flushes(true);
    let young = ["SET young 1", "DEL gone", "SADD set n", "SET changed after"];
    // A connection each, for one that waits reads nothing more.
    let mut writers = young.map(|line| (server.connect(), line));
    writers.iter_mut().for_each(|(peer, line)| peer.say(line));
    server.until(|region| region.sequencer().progress().0 == 8);
    assert!(writers.iter_mut().all(|(peer, _)| peer.is_kept_waiting()));

    for line in ["GET old", "GET never", "EXISTS old never", "TTL old", "OBJECT ENCODING old", "SMEMBERS no"]
    {
        assert!(!waits(&server, line), "{line}");
        assert!(!reader.ask(line).is_error(), "{line}");
    }
    // Reading does not change what the next reader has to wait for.
    for _ in 0..2 {
        for line in
            ["GET young", "GET gone", "EXISTS old young", "MGET old gone", "SISMEMBER set m", "TYPE set"]
        {
            assert!(waits(&server, line), "{line}");
        }
    }
    let reads = [("GET young", "1"), ("GET gone", ""), ("GET changed", "after"), ("TYPE young", "string")];
    let mut waiting = reads.map(|(line, shown)| (server.connect(), line, shown));
    waiting.iter_mut().for_each(|(peer, line, _)| peer.say(line));
    let mut transaction = server.connect();
    transaction.ask("MULTI");
    transaction.ask("GET young");
    transaction.say("EXEC");
    for (peer, line, _) in &mut waiting {
        assert!(peer.is_kept_waiting(), "{line}");
    }
    assert!(transaction.is_kept_waiting());
    assert_eq!(text(&reader.ask("GET old")), "1", "others go on");
    assert_eq!(survive(&disk), 4, "what is kept back is what a crash would take back");

    disk.hold_flushes(false);
    for (peer, line, shown) in &mut waiting {
        assert_eq!(text(&peer.receive().unwrap()), *shown, "{line}");
    }
    assert_eq!(transaction.receive().unwrap().elements().unwrap().len(), 1);
    for (peer, line) in &mut writers {
        assert!(!peer.receive().unwrap().is_error(), "{line}");
    }
    assert_eq!(survive(&disk), 8);
    assert!(!waits(&server, "MGET young gone changed"));
}

#[test]
fn q4_clients_are_told_of_a_full_disk_and_go_on_when_space_returns() {
    let (server, _directory, disk) = server();
    let (mut writer, mut other) = (server.connect(), server.connect());
    assert_eq!(text(&other.ask("SET a 1")), "OK");
    disk.set_space(Some(0));
    writer.say("SET b 1");
    server.until(|region| region.log().health() == LogHealth::Full);
    let refused = "MISCONF the op log cannot be written: the disk is full";
    for line in ["SET c 1", "DEL a", "FLUSHALL"] {
        assert!(text(&other.ask(line)).starts_with(refused), "{line}");
    }
    other.ask("MULTI");
    other.ask("SET c 1");
    assert!(text(&other.ask("EXEC")).starts_with(refused));
    assert_eq!(text(&other.ask("GET a")), "1", "reads go on");
    assert!(writer.is_kept_waiting());
    disk.set_space(None);
    assert_eq!(text(&writer.receive().unwrap()), "OK", "what had been taken is kept");
    server.until(|region| region.log().health() == LogHealth::Ok);
    assert_eq!(text(&other.ask("SET c 1")), "OK");
    assert_eq!(text(&other.ask("GET b")), "1");
}

#[test]
fn q4_clients_are_told_of_a_failed_flush_until_the_restart() {
    let (first, directory, disk) = server();
    let (mut writer, mut other) = (first.connect(), first.connect());
    assert_eq!(text(&other.ask("SET a 1")), "OK");
    disk.fail_next_flush();
    writer.say("SET b 1");
    assert!(writer.receive().is_none(), "closed without a word: nobody knows whether it is kept");
    first.until(|region| region.log().health() == LogHealth::Failed);
    let refused = "MISCONF the op log cannot be written: a write or flush failed; restart this region";
    for line in ["SET c 1", "DEL a"] {
        assert!(text(&other.ask(line)).starts_with(refused), "{line}");
    }
    assert_eq!(text(&other.ask("GET a")), "1", "what is durable is still read");
    let mut reader = first.connect();
    reader.say("GET b");
    assert!(reader.receive().is_none(), "what may be lost is never shown");
    drop((first, writer, other));
    let second = Server::on(&directory, &disk.crash(|_| 0));
    let mut client = second.connect();
    assert_eq!(text(&client.ask("GET a")), "1");
    assert!(client.ask("GET b").is_null());
    assert_eq!(text(&client.ask("SET b 2")), "OK");
}
