//! Home regions: writes that are made in one region at a time, by clients of all.

mod failover;
mod locks;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;
use meridian_proxy::resp::Value;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, wait_for};

/// A rule of the configuration.
fn rule(keys: &str, region: &str, elsewhere: &str, lease: &str) -> String {
    format!(
        "[[homes]]\nkeys = \"{keys}\"\nregion = \"{region}\"\nelsewhere = \"{elsewhere}\"\n\
         lease = \"{lease}\"\ntimeout = \"2s\"\n"
    )
}

/// A cluster with these rules whose homes may act.
fn start(shape: Shape, regions: usize, rules: &str) -> Cluster {
    start_with(Options { extra: rules.to_owned(), ..Options::new(shape, regions) })
}

fn start_with(options: Options) -> Cluster {
    let cluster = Cluster::start(options);
    await_leases(&cluster);
    cluster
}

/// What a region says of its homes: pattern, home, lease.
fn homes(cluster: &Cluster, i: usize) -> Vec<(String, String, String)> {
    let reply = cluster.client(i).call(&["MERIDIAN.HOMES"]);
    let field = |rule: &Value, name: &str| {
        let words = rule.elements().unwrap();
        let at = words.iter().position(|word| word.text() == Some(name)).unwrap();
        words[at + 1].text().unwrap().to_owned()
    };
    let each = reply.elements().unwrap().iter();
    each.map(|rule| (field(rule, "keys"), field(rule, "home"), field(rule, "lease"))).collect()
}

/// What `/status` says of them.
fn homes_in_status(cluster: &Cluster, i: usize) -> Vec<(String, String, String)> {
    let status = cluster.status(i);
    let text = |home: &serde_json::Value, name: &str| home[name].as_str().unwrap().to_owned();
    let each = status["homes"].as_array().unwrap().iter();
    each.map(|home| (text(home, "keys"), text(home, "home"), text(home, "lease"))).collect()
}

/// Waits until every home that should have a lease has one.
fn await_leases(cluster: &Cluster) {
    for i in cluster.all().filter(|i| cluster.is_up(*i)) {
        wait_for("leases", PATIENCE, || {
            homes(cluster, i).iter().all(|(.., lease)| lease != "none" && lease != "moving").then_some(())
        });
    }
}

/// The code that an error begins with; nothing for what is none.
fn code(reply: &Value) -> Option<String> {
    match reply {
        Value::Error(text) => Some(String::from_utf8_lossy(text).split(' ').next().unwrap().to_owned()),
        _ => None,
    }
}

fn error(reply: Value) -> String {
    match reply {
        Value::Error(text) => String::from_utf8(text).unwrap(),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn a_forwarded_write_answers_as_the_home_does_and_is_read_at_once() {
    let cluster = start(Shape::Mesh, 3, &rule("h:*", "a", "forward", "9s"));
    for i in cluster.all() {
        assert_eq!(homes_in_status(&cluster, i), homes(&cluster, i));
    }
    let mut clients: Vec<Client> = cluster.all().map(|i| cluster.client(i)).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        for round in 0..20 {
            let (key, value) = (format!("h:{i}"), round.to_string());
            client.ok(&["SET", &key, &value]);
            assert_eq!(client.maybe(&["GET", &key]), Some(value.clone()), "its own write, at once");
            assert_eq!(client.int(&["INCR", "h:counter"]), (i * 20 + round + 1) as i64);
            assert_eq!(client.maybe(&["GET", "h:counter"]), Some((i * 20 + round + 1).to_string()));
            client.ok(&["SET", &format!("free:{i}"), &value]);
        }
        // An error, and a reply that is no string, are the home's, too.
        assert_eq!(code(&client.call(&["SADD", "h:0", "x"])), Some("WRONGTYPE".into()));
        assert_eq!(client.int(&["SADD", &format!("h:set{i}"), "x", "y"]), 2);
        assert_eq!(client.int(&["WAIT", "2", "20000"]), 2, "of the write that the home made");
        assert_eq!(client.call(&["MSET", "h:m1", "1", "h:m2", "2"]), Value::Simple(b"OK".to_vec()));
        assert_eq!(client.maybe(&["GET", "h:m2"]), Some("2".into()));
        // In a pipeline, in order.
        let pipeline = ["SET h:p 1", "INCR h:p", "GET h:p", "DEL h:p", "EXISTS h:p"];
        let commands: Vec<Vec<String>> =
            pipeline.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
        let replies = client.pipeline(&commands).unwrap();
        assert_eq!(replies[1..], [Value::Int(2), Value::Bulk(b"2".to_vec()), Value::Int(1), Value::Int(0)]);
    }
    // In the client's own version of the protocol.
    clients[1].call(&["HELLO", "3"]);
    clients[1].call(&["ZADD", "h:z", "1.5", "m"]);
    let popped = clients[1].call(&["ZPOPMIN", "h:z"]);
    assert!(matches!(popped.elements(), Some([_, Value::Double(_)])), "{popped:?}");
    // Where it went, the log says: only the home wrote those keys.
    let forwarded = |i: usize| cluster.metric(i, "meridian_homes_forwarded_total", &[("outcome", "done")]);
    assert!(forwarded(0) == 0.0 && forwarded(1) >= 40.0 && forwarded(2) >= 40.0);
    cluster.await_converged(PATIENCE);
}

#[test]
fn transactions_go_as_one_and_what_has_several_homes_is_refused_whole() {
    let rules = rule("h:*", "a", "forward", "9s") + &rule("g:*", "b", "forward", "9s");
    let cluster = start(Shape::Mesh, 3, &rules);
    let mut c = cluster.client(2);
    c.ok(&["MULTI"]);
    c.call(&["SET", "h:1", "x"]);
    c.call(&["SET", "free", "y"]);
    c.call(&["LPUSH?", "h:1"]);
    assert_eq!(code(&c.call(&["EXEC"])), Some("EXECABORT".into()));
    c.ok(&["MULTI"]);
    for line in ["SET h:1 x", "SADD h:1 y", "SET free z", "GET h:1"] {
        c.call(&line.split(' ').collect::<Vec<_>>());
    }
    let replies = c.call(&["EXEC"]);
    let replies = replies.elements().unwrap();
    assert_eq!(replies.len(), 4);
    assert_eq!(code(&replies[1]), Some("WRONGTYPE".into()));
    assert_eq!(replies[3], Value::Bulk(b"x".to_vec()));
    assert_eq!(c.maybe(&["GET", "free"]), Some("z".into()), "all of it is here at once");
    let several = error(c.call(&["MSET", "h:1", "1", "g:1", "2"]));
    assert!(several.starts_with("HOME ") && several.contains("different homes"), "{several}");
    let several = error(cluster.client(0).call(&["MSET", "h:1", "1", "g:1", "2"]));
    assert!(several.starts_with("HOME ") && several.contains("different homes"), "{several}");
    c.ok(&["MULTI"]);
    c.call(&["SET", "h:1", "1"]);
    c.call(&["SET", "g:1", "1"]);
    assert_eq!(code(&c.call(&["EXEC"])), Some("HOME".into()));
    c.ok(&["WATCH", "h:1"]);
    c.ok(&["MULTI"]);
    c.call(&["SET", "h:1", "1"]);
    let watched = error(c.call(&["EXEC"]));
    assert!(watched.starts_with("HOME ") && watched.contains("WATCH"), "{watched}");
    let mut a = cluster.client(0);
    a.ok(&["WATCH", "h:1"]);
    a.ok(&["MULTI"]);
    a.call(&["SET", "h:1", "2"]);
    assert_eq!(
        a.call(&["EXEC"]).elements().unwrap().len(),
        1,
        "at home there is nothing to be said against it"
    );
    for i in cluster.all() {
        assert_eq!(code(&cluster.client(i).call(&["FLUSHALL"])), Some("HOME".into()));
    }
    assert_eq!(c.maybe(&["GET", "g:1"]), None, "nothing was done in part");
    cluster.await_converged(PATIENCE);
}

#[test]
fn elsewhere_refuse_names_the_home_and_elsewhere_accept_counts() {
    let rules = rule("r:*", "b", "refuse", "9s") + &rule("o:*", "b", "accept", "9s");
    let cluster = start(Shape::Ring, 3, &rules);
    let mut a = cluster.client(0);
    let refused = error(a.call(&["SET", "r:1", "x"]));
    assert_eq!(refused, "HOME the home of 'r:1' is b: write there");
    cluster.client(1).ok(&["SET", "r:1", "x"]);
    a.ok(&["SET", "o:1", "x"]);
    assert_eq!(cluster.metric(0, "meridian_homes_accepted_total", &[("home", "b")]), 1.0);
    let refusals = [("home", "b"), ("reason", "elsewhere")];
    assert_eq!(cluster.metric(0, "meridian_homes_refused_total", &refusals), 1.0);
    assert_eq!(cluster.metric(1, "meridian_homes_held", &[]), 2.0);
    cluster.await_converged(PATIENCE);
    assert_eq!(a.maybe(&["GET", "r:1"]), Some("x".into()), "reads are local");
}

/// Pops from one key in all regions at once until it is empty.
fn pop_all(cluster: &Cluster, command: &[&str]) -> Vec<String> {
    std::thread::scope(|scope| {
        let pop = |i: usize| {
            let mut client = cluster.client(i);
            move || {
                let mut popped = Vec::new();
                loop {
                    match client.call(command) {
                        Value::Bulk(member) => popped.push(String::from_utf8(member).unwrap()),
                        Value::Null => return popped,
                        Value::Array(pair) if pair.is_empty() => return popped,
                        Value::Array(pair) => popped.push(pair[0].text().unwrap().to_owned()),
                        other => panic!("{other:?}"),
                    }
                }
            }
        };
        let threads: Vec<_> = (0..6).map(|n| scope.spawn(pop(n % 3))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn elements_are_popped_exactly_once_by_clients_of_all_regions() {
    const MEMBERS: usize = 600;
    let cluster = start(Shape::Mesh, 3, &rule("q:*", "a", "forward", "9s"));
    let mut b = cluster.client(1);
    for n in 0..MEMBERS {
        b.call(&["SADD", "q:set", &n.to_string()]);
        b.call(&["ZADD", "q:zset", &n.to_string(), &n.to_string()]);
    }
    for command in [&["SPOP", "q:set"][..], &["ZPOPMIN", "q:zset"]] {
        let popped = pop_all(&cluster, command);
        assert_eq!(popped.len(), MEMBERS, "{command:?}");
        assert_eq!(popped.iter().collect::<BTreeSet<_>>().len(), MEMBERS, "{command:?}: twice");
    }
    cluster.await_converged(PATIENCE);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(client: &mut Client, key: &str) -> Duration {
    let times = (0..21).map(|n| {
        let began = Instant::now();
        client.ok(&["SET", key, &n.to_string()]);
        began.elapsed()
    });
    median(times.collect())
}

#[test]
fn a_forwarded_write_costs_one_round_trip_more() {
    const ONE_WAY: Duration = Duration::from_millis(60);
    let options = Options {
        extra: rule("h:*", "a", "forward", "9s"),
        conditions: Conditions { delay: ONE_WAY, ..Conditions::default() },
        ..Options::new(Shape::Mesh, 3)
    };
    let cluster = start_with(options);
    let (mut a, mut b) = (cluster.client(0), cluster.client(1));
    let (at_home, forwarded) = (timed(&mut a, "h:1"), timed(&mut b, "h:2"));
    let added = forwarded.saturating_sub(at_home);
    println!("at home {at_home:?}, forwarded {forwarded:?}, added {added:?}, round trip {:?}", ONE_WAY * 2);
    assert!(forwarded >= ONE_WAY * 2, "{forwarded:?}");
    assert!(added < ONE_WAY * 3, "more than a round trip and a half: {added:?}");
}

#[test]
fn where_there_is_no_link_neighbours_pass_writes_on() {
    let cluster = start(Shape::Ring, 4, &rule("h:*", "a", "forward", "9s"));
    let mut c = cluster.client(2);
    for n in 1..=100 {
        assert_eq!(c.int(&["INCR", "h:n"]), n, "each once");
        assert_eq!(c.maybe(&["GET", "h:n"]), Some(n.to_string()));
    }
    let passed: f64 = [1, 3].iter().map(|i| cluster.metric(*i, "meridian_homes_relayed_total", &[])).sum();
    assert!(passed >= 100.0, "{passed}");
    // Around a link that is down.
    let longest = if cluster.metric(1, "meridian_homes_relayed_total", &[]) > 50.0 { 1 } else { 3 };
    cluster.cut(longest, 2);
    wait_for("the other way", PATIENCE, || {
        matches!(c.call(&["INCR", "h:other"]), Value::Int(_)).then_some(())
    });
    cluster.mend_all();
    cluster.await_converged(PATIENCE);
}

#[test]
fn a_home_that_cannot_be_reached_is_said_so_and_reads_go_on() {
    let options = Options {
        heal_after: "500ms",
        extra: rule("h:*", "a", "forward", "3s"),
        ..Options::new(Shape::Mesh, 3)
    };
    let cluster = start_with(options);
    let mut b = cluster.client(1);
    b.ok(&["SET", "h:1", "x"]);
    cluster.cut(0, 1);
    // By way of c it can be reached all the same.
    wait_for("the way around", PATIENCE, || code(&b.call(&["SET", "h:1", "y"])).is_none().then_some(()));
    cluster.cut(0, 2);
    let first = error(b.call(&["SET", "h:1", "z"]));
    assert!(first.starts_with("UNCERTAIN ") || first.starts_with("HOME "), "{first}");
    let said = wait_for("the loss to be noticed", PATIENCE, || {
        let said = error(b.call(&["SET", "h:1", "z"]));
        said.contains("unreachable").then_some(said)
    });
    assert_eq!(said, "HOME the home of 'h:1' is a, which is unreachable from here: nothing was done");
    assert!(b.maybe(&["GET", "h:1"]).is_some());
    // Alone of three, the home grants nothing once its lease has run out.
    let refused = wait_for("the lease to run out", PATIENCE, || {
        // A connection is closed if the lease is lost between its write and the reply.
        let reply = cluster.client(0).try_call(&["SET", "h:1", "at home"]).ok()?;
        code(&reply).map(|_| error(reply))
    });
    assert!(refused.contains("no lease"), "{refused}");
    let without = || cluster.metric(0, "meridian_homes_without_lease", &[]);
    wait_for("the figure of it", PATIENCE, || (without() == 1.0).then_some(()));
    assert!(cluster.client(0).maybe(&["GET", "h:1"]).is_some());
    cluster.mend_all();
    wait_for("the lease", PATIENCE, || code(&b.call(&["SET", "h:1", "again"])).is_none().then_some(()));
    cluster.await_converged(PATIENCE);
}

fn reload(cluster: &Cluster, i: usize, rules: &str) {
    let text = fs::read_to_string(cluster.config(i)).unwrap();
    let kept = text.split("[[homes]]").next().unwrap();
    fs::write(cluster.config(i), format!("{kept}{rules}")).unwrap();
    let (status, body) = cluster.post(i, "/reload", "");
    assert_eq!(status, 200, "{body}");
}

#[test]
fn rules_change_by_reload_and_the_mismatch_shows_until_all_have_them() {
    let cluster = start(Shape::Mesh, 3, "");
    let rules = rule("h:*", "a", "refuse", "600ms");
    let differs = |i| cluster.metric(i, "meridian_config_mismatch", &[("what", "homes")]) > 0.0;
    cluster.client(1).ok(&["SET", "h:1", "before"]);
    reload(&cluster, 0, &rules);
    wait_for("the mismatch to show", PATIENCE, || (differs(0) && differs(1)).then_some(()));
    assert_eq!(
        code(&cluster.client(0).call(&["SET", "h:1", "x"])),
        Some("HOME".into()),
        "too few have the rule"
    );
    reload(&cluster, 1, &rules);
    reload(&cluster, 2, &rules);
    wait_for("the mismatch to go", PATIENCE, || cluster.all().all(|i| !differs(i)).then_some(()));
    await_leases(&cluster);
    cluster.client(0).ok(&["SET", "h:1", "after"]);
    assert_eq!(code(&cluster.client(1).call(&["SET", "h:1", "x"])), Some("HOME".into()));
    cluster.all().for_each(|i| reload(&cluster, i, ""));
    cluster.client(1).ok(&["SET", "h:1", "free"]);
    cluster.await_converged(PATIENCE);
}
