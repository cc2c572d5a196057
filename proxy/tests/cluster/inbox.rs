//! The conflict inbox between real processes: what each region records, lists, writes back and keeps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_proxy::resp::Value;
use serde_json::Value as Json;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, until, wait_for};
use crate::process::{Running, run};

/// Conflicts that a region has counted.
pub fn counted(cluster: &Cluster, i: usize) -> f64 {
    cluster.metric(i, "meridian_conflicts_total", &[])
}

/// Waits until every conflict that a region has counted is recorded.
pub fn await_recorded(cluster: &Cluster, i: usize, count: f64) {
    wait_for("conflicts to be recorded", PATIENCE, || {
        (cluster.metric(i, "meridian_inbox_records", &[]) >= count).then_some(())
    });
}

/// Everything that `/conflicts` lists under these filters, page by page.
pub fn listed(cluster: &Cluster, i: usize, query: &str) -> Vec<Json> {
    let mut records = Vec::new();
    let mut after = String::new();
    loop {
        let (code, body) = cluster.get(i, &format!("/conflicts?{query}{after}"));
        assert_eq!(code, 200, "{body}");
        let page: Json = serde_json::from_str(&body).unwrap();
        records.extend(page["conflicts"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return records,
        }
    }
}

/// What two regions must agree on, by id.
pub fn agreed(records: &[Json]) -> BTreeMap<String, [Json; 5]> {
    let id = |record: &Json| record["id"].as_str().unwrap().to_owned();
    let same = ["key", "kind", "rivals", "shown", "loser"];
    records.iter().map(|record| (id(record), same.map(|name| record[name].clone()))).collect()
}

fn find<'a>(records: &'a [Json], key: &str) -> &'a Json {
    records.iter().find(|record| record["key"] == key).unwrap_or_else(|| panic!("{key} in {records:#?}"))
}

/// Words of a reply, nested ones too.
pub fn words(reply: &Value) -> Vec<String> {
    match reply.elements() {
        Some(elements) => elements.iter().flat_map(words).collect(),
        None => reply.text().map(str::to_owned).into_iter().collect(),
    }
}

/// Runs commands that must not fail.
pub fn each(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let reply = client.call(&line.split(' ').collect::<Vec<_>>());
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

/// Two regions that write the same keys while they are cut apart, then meet.
fn quarrel(cluster: &Cluster) {
    let (mut a, mut b) = (cluster.client(0), cluster.client(1));
    each(&mut a, &["SET deleted 1", "HSET h untouched 1"]);
    cluster.await_converged(PATIENCE);
    cluster.cut(0, 1);
    each(&mut a, &["SET k first", "HSET h f x", "ZADD z 1 m", "SET clash text", "SET deleted 2"]);
    // Later by any clock of this machine.
    until(Instant::now() + Duration::from_millis(5));
    each(&mut b, &["SET k second", "HSET h f y", "ZADD z 2 m", "SADD clash m n", "DEL deleted"]);
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        await_recorded(cluster, i, counted(cluster, i));
    }
}

#[test]
fn conflicts_are_recorded_alike_listed_written_back_and_kept() {
    let mut cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    quarrel(&cluster);
    let before: Vec<Vec<Json>> = cluster.all().map(|i| listed(&cluster, i, "limit=3")).collect();
    for (i, records) in before.iter().enumerate() {
        assert_eq!(records.len() as f64, counted(&cluster, i));
        assert_eq!(cluster.metric(i, "meridian_conflict_records_dropped_total", &[]), 0.0);
    }
    // A delete leaves nothing behind that a later arrival could meet: only where it arrived is there a conflict.
    let met_twice = |records: &[Json]| {
        let both: Vec<Json> = records.iter().filter(|r| r["kind"] != "write_delete").cloned().collect();
        agreed(&both)
    };
    assert_eq!(met_twice(&before[0]), met_twice(&before[1]));
    assert_eq!(met_twice(&before[0]).len(), 4);
    assert_eq!(find(&before[0], "deleted")["rivals"][1]["value"], Json::Null);
    assert_eq!(find(&before[0], "k")["shown"], "second");
    filters_hold(&cluster, &before[0]);
    commands_show(&cluster, &before[0]);
    program_shows(&cluster, &before[0]);

    let mut client = cluster.client(0);
    for record in &before[0] {
        client.ok(&["MERIDIAN.RESTORE", record["id"].as_str().unwrap()]);
    }
    let twice = client.call(&["MERIDIAN.RESTORE", before[0][0]["id"].as_str().unwrap()]);
    assert!(twice.is_error(), "{twice:?}");
    assert_eq!(cluster.metric(0, "meridian_restored_total", &[]), before[0].len() as f64);
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        assert_eq!(client.text(&["GET", "k"]), "first");
        assert_eq!(client.text(&["HGET", "h", "f"]), "x");
        assert_eq!(client.text(&["ZSCORE", "z", "m"]), "1");
        assert_eq!(client.text(&["GET", "clash"]), "text");
        assert_eq!(client.maybe(&["GET", "deleted"]), None);
        assert_eq!(
            counted(&cluster, i),
            before[i].len() as f64,
            "a write that has seen all conflicts with nothing"
        );
    }

    cluster.stop(0);
    cluster.restart(0);
    cluster.kill9(1);
    cluster.restart(1);
    assert!(listed(&cluster, 0, "limit=3").iter().all(|record| record["restored"] == true));
    assert_eq!(agreed(&listed(&cluster, 0, "limit=3")), agreed(&before[0]));
    assert_eq!(listed(&cluster, 1, "limit=3"), before[1], "what is restored is this region's own affair");
}

/// Keys that three regions write while each is alone.
const DISPUTED: usize = 20;

/// Three regions write the same strings alone, and meet: of each pair of writes each region knows, and each of the
/// losers can be had again.
fn every_loser_of_three_regions_is_known_everywhere(shape: Shape) {
    let cluster = Cluster::start(Options::new(shape, 3));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        cluster.cut(i, j);
    }
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for n in 0..DISPUTED {
            client.ok(&["SET", &format!("k{n}"), &format!("{} {n}", cluster.name(i))]);
        }
        // What the next region writes is later by any clock of this machine.
        until(Instant::now() + Duration::from_millis(5));
    }
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    let pairs = 3 * DISPUTED;
    let all: Vec<Vec<Json>> = cluster
        .all()
        .map(|i| {
            assert_eq!(counted(&cluster, i), pairs as f64, "in {}", cluster.name(i));
            await_recorded(&cluster, i, pairs as f64);
            listed(&cluster, i, "")
        })
        .collect();
    for (i, records) in all.iter().enumerate() {
        assert_eq!(records.len(), pairs);
        // What showed when the second of three had come is no matter of agreement.
        let fixed = |records| -> BTreeMap<_, _> {
            let same = |[key, kind, rivals, _, loser]: [Json; 5]| [key, kind, rivals, loser];
            agreed(records).into_iter().map(|(id, record)| (id, same(record))).collect()
        };
        assert_eq!(fixed(records), fixed(&all[0]), "in {}", cluster.name(i));
        assert_eq!(fixed(records).len(), pairs, "each pair once");
    }
    for key in ["k0", "k7"] {
        for (region, loser) in [(0, 1), (1, 0)] {
            let lost = format!("{} {}", cluster.name(loser), &key[1..]);
            let of_loser = |record: &&Json| record["key"] == *key && record["rivals"][0]["value"] == *lost;
            let record = all[region].iter().find(of_loser).unwrap();
            cluster.client(region).ok(&["MERIDIAN.RESTORE", record["id"].as_str().unwrap()]);
            cluster.await_converged(PATIENCE);
            cluster.all().for_each(|i| assert_eq!(cluster.client(i).text(&["GET", key]), lost));
        }
    }
    cluster.all().for_each(|i| assert_eq!(counted(&cluster, i), pairs as f64, "what was seen is no rival"));
}

#[test]
fn every_loser_of_a_mesh_is_known_everywhere_under_one_id() {
    every_loser_of_three_regions_is_known_everywhere(Shape::Mesh);
}

#[test]
fn every_loser_of_a_ring_is_known_everywhere_under_one_id() {
    every_loser_of_three_regions_is_known_everywhere(Shape::Ring);
}

fn filters_hold(cluster: &Cluster, all: &[Json]) {
    let keys = |query: &str| -> Vec<String> {
        listed(cluster, 0, query).iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("key=k"), ["k"]);
    assert_eq!(keys("key=k&database=1"), [""; 0]);
    assert_eq!(keys("policy=crdt").len(), all.len());
    assert_eq!(keys("policy=lww"), [""; 0]);
    assert_eq!(keys("kind=type_clash"), ["clash"]);
    assert_eq!(cluster.get(0, "/conflicts?limit=0").0, 400);
    assert_eq!(cluster.get(0, "/conflicts?colour=red").0, 400);
}

fn commands_show(cluster: &Cluster, all: &[Json]) {
    let mut client = cluster.client(0);
    let ids: Vec<&str> = all.iter().map(|record| record["id"].as_str().unwrap()).collect();
    let shown = words(&client.call(&["MERIDIAN.CONFLICTS", "COUNT", "100"]));
    let shown: Vec<&str> = shown.iter().map(String::as_str).filter(|word| ids.contains(word)).collect();
    assert_eq!(shown, ids, "newest first");
    assert_eq!(client.call(&["MERIDIAN.CONFLICTS", "COUNT", "2"]).elements().unwrap().len(), 2);
    let of_key = client.call(&["MERIDIAN.CONFLICTS", "KEY", "k"]);
    assert_eq!(of_key.elements().unwrap().len(), 1);
    let siblings = words(&client.call(&["MERIDIAN.SIBLINGS", "k"]));
    assert!(
        siblings.contains(&"first".to_owned()) && siblings.contains(&"second".to_owned()),
        "{siblings:?}"
    );
    assert_eq!(client.call(&["MERIDIAN.SIBLINGS", "h", "f"]).elements().unwrap().len(), 2);
    let explained = words(&client.call(&["MERIDIAN.EXPLAIN", "k"]));
    let id = find(all, "k")["id"].as_str().unwrap();
    assert!(explained.contains(&id.to_owned()) && explained.contains(&"lww".to_owned()), "{explained:?}");
}

fn program_shows(cluster: &Cluster, all: &[Json]) {
    let url = format!("http://{}", cluster.admin_address(0));
    let output = run(&["conflicts", "--admin", &url, "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let shown: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(shown, all);
    let table = run(&["conflicts", "--admin", &url, "--key", "k"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("\"first\" of a") && table.contains("\"second\""), "{table}");
    assert_eq!(table.lines().count(), 2, "{table}");
    // From the oldest on, in the order in which they came.
    let (oldest, rest) = all.split_last().unwrap();
    let after = oldest["id"].as_str().unwrap();
    let following = Running::start(&["conflicts", "--admin", &url, "--follow", "--json", "--after", after]);
    for record in rest.iter().rev() {
        following.wait_for_start(&format!("{{\"id\":\"{}\"", record["id"].as_str().unwrap()));
    }
}

/// Keys that both regions write in the storm.
const STORM: usize = 20_000;

/// What `inbox.max` allows in the storm.
const STORM_BYTES: f64 = (1 << 20) as f64;

#[test]
fn a_storm_of_conflicts_is_counted_exactly_and_recorded_in_part() {
    let extra = "[inbox]\nmax = \"1MiB\"\nrecords_per_second = 500\nburst = 2000\n".to_owned();
    let mut cluster = Cluster::start(Options { extra, sync: "everysec", ..Options::new(Shape::Mesh, 2) });
    cluster.cut(0, 1);
    for i in cluster.all() {
        let mut client = cluster.client(i);
        let set = |n: usize| vec!["SET".to_owned(), format!("k{n}"), format!("{n} of {i}, {:0400}", 0)];
        for start in (0..STORM).step_by(1_000) {
            client.pipeline(&(start..start + 1_000).map(set).collect::<Vec<_>>()).unwrap();
        }
    }
    cluster.mend_all();
    cluster.await_links();
    cluster.await_converged(PATIENCE);
    for i in cluster.all() {
        assert_eq!(counted(&cluster, i), STORM as f64);
        let dropped = cluster.metric(i, "meridian_conflict_records_dropped_total", &[]);
        assert!(dropped > 0.0 && dropped < STORM as f64, "{dropped}");
        let kept = wait_for("the inbox to be within its bound", PATIENCE, || {
            let bytes = cluster.metric(i, "meridian_inbox_bytes", &[]);
            let kept = cluster.metric(i, "meridian_inbox_records", &[]);
            (kept > 0.0 && bytes <= STORM_BYTES).then_some(kept)
        });
        assert!(kept + dropped <= STORM as f64, "{kept} kept, {dropped} dropped");
        println!("{}: {kept} of {STORM} kept, {dropped} not recorded", cluster.name(i));
        assert!(listed(&cluster, i, "limit=1000&kind=write_write").len() as f64 > kept / 2.0);
    }
    cluster.stop(0);
    cluster.restart(0);
    assert!(cluster.metric(0, "meridian_inbox_records", &[]) > 0.0);
}
