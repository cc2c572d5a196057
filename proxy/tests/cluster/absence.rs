//! Regions that were away, came back as somebody else, or were started twice. Named after the
//! failures they rehearse.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;

use crate::crashes::no_number_was_used_twice;
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, http, serve, wait_for};

/// Writes `count` keys of some size under `prefix`.
fn fill(client: &mut Client, prefix: &str, count: usize) {
    let value = "v".repeat(100);
    for chunk in (0..count).collect::<Vec<_>>().chunks(200) {
        let commands: Vec<Vec<String>> = chunk
            .iter()
            .map(|n| vec!["SET".into(), format!("{prefix}:{n}"), format!("{prefix}{n}{value}")])
            .collect();
        let replies = client.pipeline(&commands).unwrap();
        assert!(replies.iter().all(|reply| !reply.is_error()));
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The incarnations of a region that `client`'s region has ops of.
fn incarnations(client: &mut Client, region: &str) -> Vec<(i64, i64)> {
    let of_region = |(name, incarnation, sequence)| (name == region).then_some((incarnation, sequence));
    client.vector().into_iter().filter_map(of_region).collect()
}

#[test]
fn an_absent_region_catches_up_from_the_logs_on_disk() {
    let mut cluster = Cluster::start(Options::new(Shape::Ring, 3));
    fill(&mut cluster.client(2), "before", 100);
    cluster.await_converged(PATIENCE);
    cluster.stop(2);
    // Each start begins a segment: what c lacks lies in several, and none of it in memory.
    for life in 0..3 {
        for i in [0, 1] {
            fill(&mut cluster.client(i), &format!("life{life}"), 2_000);
            if life == 1 {
                cluster.kill9(i)
            } else {
                cluster.stop(i)
            }
            cluster.restart(i);
        }
    }
    let segments = fs::read_dir(cluster.data(1).join("log")).unwrap().count();
    assert!(segments >= 4, "{segments} files in the log");
    cluster.restart(2);
    let took = cluster.await_converged(PATIENCE);
    println!("12000 ops of an absence caught up in {took:?}");
    assert_eq!(cluster.metric(2, "meridian_parked_ops_total", &[]), 0.0);
}

#[test]
fn a_read_of_what_only_the_store_has_waits_for_no_write() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    fill(&mut cluster.client(0), "stored", 10);
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        cluster.stop(i);
        cluster.restart(i);
        let mut client = cluster.client(i);
        for command in [["GET", "stored:3"], ["STRLEN", "stored:4"], ["TYPE", "stored:5"]] {
            assert!(!client.call(&command).is_null());
        }
    }
}

#[test]
fn a_partition_that_outlives_the_connections_heals() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        fill(&mut client, cluster.name(i), 300);
        for _ in 0..50 {
            client.int(&["INCR", "counter"]);
        }
    }
    for (i, peer) in [(0, "b"), (0, "c"), (1, "a"), (2, "a")] {
        wait_for("the link to be given up", PATIENCE, || (cluster.links_of(i)[peer] == "down").then_some(()));
        assert_eq!(cluster.metric(i, "meridian_link_up", &[("peer", peer)]), 0.0);
    }
    assert_eq!(cluster.client(0).int(&["GET", "counter"]), 50, "a is alone and works");
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["GET", "counter"]), 150);
    }
}

/// Writes to a region until its log has forgotten what it held at the last start.
fn forget(cluster: &mut Cluster, i: usize) {
    cluster.stop(i);
    cluster.restart(i);
    let oldest = |cluster: &Cluster| cluster.status(i)["log"]["oldest"].as_u64().unwrap();
    let before = oldest(cluster);
    // The store takes what is dirty in rounds; after each, segments past retention go.
    let mut client = cluster.client(i);
    wait_for("the log to forget", PATIENCE, || {
        fill(&mut client, "after", 1);
        (oldest(cluster) > before).then_some(())
    });
}

/// Waits until a region serves this key.
fn await_key(cluster: &Cluster, i: usize, key: &str) {
    let mut client = cluster.client(i);
    wait_for(&format!("{key} at {}", cluster.name(i)), PATIENCE, || {
        let reply = client.call(&["GET", key]);
        let text = reply.text().unwrap_or_default().to_owned();
        assert!(!reply.is_error() || text.starts_with("LOADING"), "{text}");
        (!reply.is_error() && !reply.is_null()).then_some(())
    });
}

#[test]
fn j3_a_region_away_past_retention_reseeds_by_itself_and_keeps_its_own_writes() {
    let options = Options { retention: "1s", ..Options::new(Shape::Mesh, 2) };
    let mut cluster = Cluster::start(options);
    fill(&mut cluster.client(0), "before", 10);
    cluster.client(1).int(&["INCRBY", "counter", "5"]);
    cluster.await_converged(PATIENCE);
    cluster.stop(0);
    fill(&mut cluster.client(1), "own", 10);
    cluster.client(1).int(&["INCRBY", "counter", "7"]);
    cluster.stop(1);
    cluster.restart(0);
    fill(&mut cluster.client(0), "missed", 10);
    cluster.client(0).int(&["INCRBY", "counter", "100"]);
    cluster.client(0).int(&["DEL", "before:3"]);
    forget(&mut cluster, 0);
    cluster.restart(1);
    await_key(&cluster, 1, "missed:0");
    await_key(&cluster, 0, "own:9");
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!(client.int(&["GET", "counter"]), 112);
        assert_eq!(client.maybe(&["GET", "before:3"]), None);
        assert!(client.maybe(&["GET", "before:4"]).is_some());
        fill(&mut client, "then", 10);
    }
    cluster.await_converged(PATIENCE);
    cluster.kill9(1);
    cluster.restart(1);
    cluster.await_converged(PATIENCE);
}

#[test]
fn j3_a_region_that_is_away_is_warned_of_before_it_is_fenced() {
    let mut cluster =
        Cluster::start(Options { retention: "12s", heal_after: "1s", ..Options::new(Shape::Mesh, 3) });
    cluster.await_links();
    let (here, away) = (0, cluster.name(2));
    let left = |cluster: &Cluster| cluster.metric(here, "meridian_seconds_until_reseed", &[("peer", away)]);
    let fenced = |cluster: &Cluster| cluster.metric(here, "meridian_fenced", &[("region", away)]) == 1.0;
    wait_for("a full lease", PATIENCE, || (left(&cluster) >= 10.0).then_some(()));
    cluster.kill9(2);
    let mut seen = vec![left(&cluster)];
    wait_for("the region to be fenced", PATIENCE, || {
        let seconds = left(&cluster);
        if fenced(&cluster) {
            return Some(());
        }
        if seen.last() != Some(&seconds) {
            seen.push(seconds);
        }
        None
    });
    // It counts down, second by second, and says so long before it happens.
    assert!(seen[1..].windows(2).all(|pair| pair[1] < pair[0]), "{seen:?}");
    assert!(seen.len() >= 8 && *seen.last().unwrap() <= 2.0, "{seen:?}");
    assert_eq!(left(&cluster), 0.0);
}

#[test]
fn j1_a_wiped_region_takes_over_a_neighbour_s_state() {
    let options = Options { retention: "1s", ..Options::new(Shape::Ring, 3) };
    let mut cluster = Cluster::start(options);
    for i in cluster.all() {
        fill(&mut cluster.client(i), cluster.name(i), 2_000);
        cluster.client(i).int(&["INCRBY", "counter", "10"]);
    }
    cluster.await_converged(PATIENCE);
    cluster.stop(2);
    for i in [0, 1] {
        forget(&mut cluster, i);
    }
    fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.restart(2);
    await_key(&cluster, 2, "a:7");
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert_eq!(cluster.client(i).int(&["INCRBY", "counter", "0"]), 30);
        fill(&mut cluster.client(i), "then", 100);
    }
    cluster.await_converged(PATIENCE);
}

#[test]
fn j1_a_new_region_serves_nobody_before_it_has_what_the_others_have() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    fill(&mut cluster.client(0), "a", 2_000);
    cluster.await_converged(PATIENCE);
    cluster.stop(2);
    fs::remove_dir_all(cluster.data(2)).unwrap();
    let slow = Conditions { rate_bytes: 20_000, ..Conditions::default() };
    [0, 1].into_iter().for_each(|from| cluster.conditions(from, 2, slow));
    cluster.spawn(2);
    let mut client = wait_for("c to listen", PATIENCE, || cluster.try_client(2).ok());
    // Their logs reach back, so it reads those: nobody's state is taken over.
    let mut refused = 0;
    wait_for("the last key", PATIENCE, || {
        let reply = client.call(&["GET", "a:1999"]);
        if reply.is_error() {
            assert!(reply.text().unwrap().starts_with("LOADING"), "{reply:?}");
            refused += 1;
            return None;
        }
        Some(reply.text().expect("served before it was there").to_owned())
    });
    assert!(refused > 0, "it was there at once: too fast to tell anything");
    assert_eq!(cluster.metric(2, "meridian_seed_bytes_total", &[("direction", "received")]), 0.0);
    client.ok(&["SET", "own", "v"]);
    cluster.await_converged(PATIENCE);
}

#[test]
fn j3_in_a_ring_a_region_whose_feeder_has_forgotten_what_it_lacks_catches_up() {
    // The others' logs still reach back: a takeover may begin before the route to them is found.
    let options = Options { retention: "1s", heal_after: "1s", ..Options::new(Shape::Ring, 4) };
    let mut cluster = Cluster::start(options);
    fill(&mut cluster.client(0), "before", 100);
    cluster.await_converged(PATIENCE);
    cluster.stop(2);
    fill(&mut cluster.client(0), "missed", 100);
    forget(&mut cluster, 1);
    cluster.restart(2);
    await_key(&cluster, 2, "missed:99");
    fill(&mut cluster.client(2), "then", 100);
    cluster.await_converged(PATIENCE);
    assert!(cluster.client(3).maybe(&["GET", "then:99"]).is_some());
}

/// A mesh of three whose third region is wiped and takes over, slowly, what another gives. The first has `only` keys
/// that nobody else has. Returns once some keys were merged, with the donor's number.
fn taking_over_slowly(only: usize) -> (Cluster, usize) {
    let options = Options {
        retention: "1s",
        heal_after: "1s",
        extra: "[seed]\ndonor_pace = \"128KiB\"\nstale_reads = true\n".into(),
        ..Options::new(Shape::Mesh, 3)
    };
    let mut cluster = Cluster::start(options);
    fill(&mut cluster.client(0), "a", 6_000);
    fill(&mut cluster.client(1), "b", 100);
    cluster.await_converged(PATIENCE);
    cluster.stop(2);
    for i in [0, 1] {
        forget(&mut cluster, i);
    }
    cluster.await_links();
    if only > 0 {
        cluster.cut(0, 1);
        fill(&mut cluster.client(0), "only", only);
    }
    fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.spawn(2);
    wait_for("some keys to be merged", PATIENCE, || {
        let page = http::get(cluster.admin_address(2), "/metrics").ok()?.1;
        let merged = |labels: &BTreeMap<String, String>| labels["state"] == "merged";
        let keys = http::series(&page, "meridian_seed_keys");
        keys.iter().any(|(labels, keys)| merged(labels) && *keys > 0.0).then_some(())
    });
    let gives = |i: &usize| cluster.metric(*i, "meridian_seed_bytes_total", &[("direction", "sent")]) > 0.0;
    let donor = [0, 1].into_iter().find(gives).expect("somebody gives");
    (cluster, donor)
}

#[test]
fn j1_a_takeover_whose_donor_is_lost_goes_on_with_another() {
    let (mut cluster, donor) = taking_over_slowly(0);
    let other = 1 - donor;
    assert_eq!(cluster.metric(2, "meridian_loading", &[]), 1.0);
    assert_eq!(cluster.metric(2, "meridian_seed_keys", &[("state", "all")]), 6_101.0);
    let mut client = cluster.client(2);
    assert!(!client.call(&["GET", "a:1"]).is_error(), "stale reads are on");
    let refused = client.call(&["SET", "a:1", "new"]);
    assert!(refused.text().unwrap().starts_with("LOADING"), "{refused:?}");
    cluster.kill9(donor);
    wait_for("the rest to come from the other", PATIENCE, || {
        let loading = cluster.metric(2, "meridian_loading", &[]);
        (loading == 0.0).then_some(())
    });
    assert!(cluster.metric(other, "meridian_seed_bytes_total", &[("direction", "sent")]) > 0.0);
    assert!(cluster.metric(2, "meridian_seed_bytes_total", &[("direction", "received")]) > 0.0);
    let digest = |i| cluster.client(i).text(&["MERIDIAN.DIGEST"]);
    assert_eq!(digest(other), digest(2));
    cluster.restart(donor);
    fill(&mut cluster.client(2), "then", 10);
    cluster.await_converged(PATIENCE);
}

#[test]
fn j1_what_a_lost_donor_alone_had_is_not_waited_for_for_ever() {
    let (mut cluster, donor) = taking_over_slowly(1_000);
    assert_eq!(donor, 0, "the one that has most");
    cluster.kill9(0);
    let told = "beginning with nothing, under a new incarnation";
    wait_for("c to begin anew", PATIENCE, || cluster.said(2).contains(told).then_some(()));
    cluster.await_ready_of(2);
    await_key(&cluster, 2, "b:99");
    // Nothing is left of what was taken over from a.
    wait_for("b and c to be the same", PATIENCE, || {
        let [b, c] = [1, 2].map(|i| cluster.client(i).text(&["MERIDIAN.DIGEST"]));
        (b == c).then_some(())
    });
    fill(&mut cluster.client(2), "then", 10);
    await_key(&cluster, 1, "then:9");
    // It was not lost after all: what it alone had is applied as if nothing had been taken over.
    cluster.mend_all();
    cluster.restart(0);
    cluster.await_converged(PATIENCE);
    assert!(cluster.client(1).maybe(&["GET", "only:999"]).is_some());
}

#[test]
fn k4_both_edited_while_cut_both_restarted_then_joined() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    cluster.client(0).ok(&["SET", "key", "common"]);
    cluster.await_converged(PATIENCE);
    cluster.cut(0, 1);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        let name = cluster.name(i);
        for n in 0..20 {
            client.ok(&["SET", "key", &format!("{name}{n}")]);
            client.int(&["HSET", "hash", "field", &format!("{name}{n}")]);
            client.int(&["INCR", "counter"]);
            client.int(&["SADD", "set", &format!("{name}{n}")]);
            client.int(&["ZADD", "sorted", &n.to_string(), name]);
        }
    }
    cluster.stop(0);
    cluster.kill9(1);
    cluster.restart(0);
    cluster.restart(1);
    cluster.mend_all();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        // b wrote last, and the clocks are one machine's.
        assert_eq!(client.text(&["GET", "key"]), "b19");
        assert_eq!(client.text(&["HGET", "hash", "field"]), "b19");
        assert_eq!(client.int(&["GET", "counter"]), 40);
        assert_eq!(client.int(&["SCARD", "set"]), 40);
        assert_eq!(client.int(&["ZCARD", "sorted"]), 2);
        let labels = [("kind", "write_write")];
        assert!(cluster.metric(i, "meridian_conflicts_total", &labels) > 0.0, "{}", cluster.name(i));
    }
}

/// A mesh of three whose region a has written on after a copy of its data was made, and the copy.
fn gone_on_after_a_copy() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    fill(&mut cluster.client(0), "old", 50);
    cluster.await_converged(PATIENCE);
    cluster.stop(0);
    let copy = cluster.directory().join("copy");
    copy_directory(cluster.data(0), &copy);
    cluster.restart(0);
    fill(&mut cluster.client(0), "later", 50);
    cluster.await_converged(PATIENCE);
    (cluster, copy)
}

/// A copy of region a's data is made, a goes on, and is then set back to the copy by `restore`.
fn set_back(restore: impl Fn(&Path, &Path)) {
    let (mut cluster, copy) = gone_on_after_a_copy();
    let first = incarnations(&mut cluster.client(1), "a");
    assert_eq!(first.len(), 1, "{first:?}");
    cluster.stop(0);
    restore(&copy, cluster.data(0));
    cluster.restart(0);
    let mut a = cluster.client(0);
    wait_for("its own later ops from its peers", PATIENCE, || a.maybe(&["GET", "later:49"]));
    a.ok(&["SET", "after", "the restore"]);
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    let now = incarnations(&mut cluster.client(1), "a");
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.contains(&first[0]), "the first life's numbers went on: {first:?}, {now:?}");
    for i in cluster.all() {
        assert_eq!(cluster.client(i).text(&["GET", "after"]), "the restore");
    }
}

#[test]
fn r1_a_restored_copy_takes_a_new_incarnation() {
    set_back(|copy, data| {
        fs::rename(data, data.with_extension("broken")).unwrap();
        copy_directory(copy, data);
    });
}

#[test]
fn r1_files_put_back_in_place_are_found_out_by_the_peers() {
    set_back(|copy, data| {
        // The identity keeps its place on the disk: only what the peers know tells.
        for part in ["log", "store"] {
            fs::remove_dir_all(data.join(part)).unwrap();
            copy_directory(&copy.join(part), &data.join(part));
        }
    });
}

#[test]
fn r3_a_second_process_on_the_same_data_is_refused() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let free = "127.0.0.1:0";
    let mut text = fs::read_to_string(cluster.config(0)).unwrap();
    for port in [cluster.resp_address(0), cluster.link_address(0), cluster.admin_address(0)] {
        text = text.replacen(&port.to_string(), free, 1);
    }
    let config = cluster.directory().join("second.toml");
    fs::write(&config, text).unwrap();
    let output = serve(&config).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("open in another process"), "{said}");
    fill(&mut cluster.client(0), "first", 10);
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        cluster.stop(i);
    }
    no_number_was_used_twice(&cluster);
}

#[test]
fn r3_a_copy_started_beside_the_original_writes_under_another_incarnation() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    fill(&mut cluster.client(0), "first", 20);
    cluster.await_converged(PATIENCE);
    cluster.stop(0);
    let copy = cluster.directory().join("copy");
    copy_directory(cluster.data(0), &copy);
    cluster.restart(0);
    let twin = cluster.twin(0, &copy);
    wait_for("the twin to write", Duration::from_secs(30), || {
        let mut client = Client::connect(twin.resp).ok()?;
        client.try_call(&["SET", "twin", "yes"]).ok().filter(|reply| !reply.is_error())
    });
    fill(&mut cluster.client(0), "second", 20);
    drop(twin);
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    assert!(incarnations(&mut cluster.client(0), "a").iter().all(|(_, sequence)| *sequence > 0));
    for i in cluster.all() {
        assert!(cluster.client(i).maybe(&["GET", "second:19"]).is_some());
        cluster.stop(i);
    }
}

#[test]
fn r1_what_a_restored_region_writes_before_it_hears_of_it_is_not_lost() {
    let (mut cluster, copy) = gone_on_after_a_copy();
    cluster.stop(0);
    for part in ["log", "store"] {
        fs::remove_dir_all(cluster.data(0).join(part)).unwrap();
        copy_directory(&copy.join(part), &cluster.data(0).join(part));
    }
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    cluster.restart(0);
    fill(&mut cluster.client(0), "alone", 10);
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert!(cluster.client(i).maybe(&["GET", "alone:9"]).is_some());
        assert!(cluster.client(i).maybe(&["GET", "later:0"]).is_some());
    }
}

#[test]
fn a_region_ends_promptly_while_a_peer_is_down() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    // a dials both others, c is dialled by both.
    cluster.kill9(1);
    for i in [0, 2] {
        wait_for("the loss of b", PATIENCE, || {
            cluster.links_of(i).get("b").is_some_and(|state| state != "up").then_some(())
        });
    }
    for i in [0, 2] {
        let asked = Instant::now();
        cluster.stop(i);
        println!("{} ended within {:?}", cluster.name(i), asked.elapsed());
        assert!(!cluster.said(i).contains("did not end in time"), "{}", cluster.said(i));
    }
}
