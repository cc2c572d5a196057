//! Homes that move, and homes that are taken over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{await_leases, code, error, homes, rule, start, start_with};
use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, until, wait_for};

fn home_of(cluster: &Cluster, i: usize) -> String {
    homes(cluster, i)[0].1.clone()
}

fn await_home(cluster: &Cluster, name: &str) {
    for i in cluster.all().filter(|i| cluster.is_up(*i)) {
        wait_for("all to know the home", PATIENCE, || (home_of(cluster, i) == name).then_some(()));
    }
}

/// What was counted: the replies that came, and how many had no certain outcome.
fn count(cluster: &Cluster, i: usize, stop: &AtomicBool) -> (Vec<i64>, usize) {
    let (mut counted, mut unsure) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let mut client = cluster.client(i);
        while !stop.load(Ordering::Relaxed) {
            match client.try_call(&["INCR", "h:n"]) {
                Ok(reply) => match code(&reply).as_deref() {
                    None => counted
                        .push(reply.text().map_or_else(|| number(&reply), |text| text.parse().unwrap())),
                    Some("UNCERTAIN") => unsure += 1,
                    Some("HOME") => {}
                    Some(_) => panic!("{reply:?}"),
                },
                Err(_) => {
                    unsure += 1;
                    break;
                }
            }
        }
    }
    (counted, unsure)
}

fn number(reply: &meridian_proxy::resp::Value) -> i64 {
    match reply {
        meridian_proxy::resp::Value::Int(number) => *number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_home_moves_under_load_and_nothing_is_granted_twice() {
    let cluster = start(Shape::Mesh, 3, &rule("h:*", "a", "forward", "3s"));
    let stop = AtomicBool::new(false);
    let (mut counted, mut unsure) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let (cluster, stop) = (&cluster, &stop);
        let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || count(cluster, n % 3, stop))).collect();
        // Asked for at the home, and elsewhere.
        for (at, to) in [(0, "b"), (0, "c"), (2, "a"), (1, "b")] {
            let mut client = cluster.client(at);
            wait_for("the home to act, and to move", PATIENCE, || {
                let moved = client.call(&["MERIDIAN.HOME", "MOVE", "h:*", to]);
                (!moved.is_error()).then_some(())
            });
            await_home(cluster, to);
            until(Instant::now() + Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let (some, more) = thread.join().unwrap();
            counted.extend(some);
            unsure += more;
        }
    });
    let replies = counted.len();
    counted.sort_unstable();
    counted.dedup();
    assert_eq!(counted.len(), replies, "the same number was given out twice");
    assert!(replies > 100, "{replies}");
    cluster.await_converged(PATIENCE);
    let total: usize = cluster.client(2).maybe(&["GET", "h:n"]).unwrap().parse().unwrap();
    assert!((replies..=replies + unsure).contains(&total), "{replies} and perhaps {unsure}: {total}");
}

#[test]
fn a_home_stays_where_it_is_over_restarts() {
    let mut cluster = start(Shape::Mesh, 3, &rule("h:*", "a", "forward", "600ms"));
    cluster.client(2).ok(&["MERIDIAN.HOME", "MOVE", "h:*", "b"]);
    await_home(&cluster, "b");
    cluster.client(2).ok(&["SET", "h:1", "x"]);
    for i in 0..3 {
        cluster.kill9(i);
    }
    for i in 0..3 {
        cluster.spawn(i);
    }
    for i in 0..3 {
        cluster.await_ready_of(i);
    }
    cluster.await_links();
    await_leases(&cluster);
    for i in cluster.all() {
        assert_eq!(home_of(&cluster, i), "b");
        cluster.client(i).ok(&["SET", "h:1", "y"]);
    }
    let refused = error(cluster.client(0).call(&["MERIDIAN.HOME", "MOVE", "h:*", "nowhere"]));
    assert!(refused.starts_with("HOME "), "{refused}");
    assert!(error(cluster.client(0).call(&["MERIDIAN.HOME", "MOVE", "x", "b"])).contains("no rule"));
    assert!(cluster.client(0).call(&["MERIDIAN.HOME", "MAKE", "x", "b"]).is_error());
}

/// Asks for a grant until there is one; when it was asked for.
fn first_grant(client: &mut Client, key: &str) -> Instant {
    wait_for("a grant", PATIENCE, || {
        let reply = client.try_call(&["INCR", key]).ok()?;
        code(&reply).is_none().then(Instant::now)
    })
}

#[test]
fn a_home_that_is_cut_off_has_stopped_before_another_is_taken_in_its_place() {
    let options = Options {
        heal_after: "500ms",
        extra: rule("h:*", "a", "forward", "1500ms"),
        ..Options::new(Shape::Mesh, 3)
    };
    let cluster = start_with(options);
    let alive = error(cluster.client(1).call(&["MERIDIAN.HOME", "TAKE", "h:*"]));
    assert!(alive.contains("is bound to the home"), "{alive}");
    assert_eq!(home_of(&cluster, 1), "a", "what lives is not taken");
    assert_eq!(cluster.client(0).int(&["INCR", "h:n"]), 1);
    cluster.await_converged(PATIENCE);
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    let stop = AtomicBool::new(false);
    let (last, first) = std::thread::scope(|scope| {
        // The last time at which the old home, asked again and again, has still granted something.
        let old = scope.spawn(|| {
            let (mut client, mut last) = (cluster.client(0), Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                match client.try_call(&["INCR", "h:old"]) {
                    Ok(reply) if code(&reply).is_none() => last = asked,
                    Ok(_) => {}
                    Err(_) => client = cluster.client(0),
                }
            }
            last
        });
        let mut b = cluster.client(1);
        b.ok(&["MERIDIAN.HOME", "TAKE", "h:*"]);
        let first = first_grant(&mut b, "h:n");
        assert_eq!(b.maybe(&["GET", "h:n"]), Some("2".into()), "it has what the others had");
        until(Instant::now() + Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        (old.join().unwrap(), first)
    });
    assert!(last < first, "the old home granted {:?} after the new one", last - first);
    cluster.mend_all();
    await_home(&cluster, "b");
    // What the old home had acknowledged and nobody had is an ordinary write of its own.
    cluster.await_converged(PATIENCE);
    wait_for("the old home to forward", PATIENCE, || {
        code(&cluster.client(0).call(&["INCR", "h:n"])).is_none().then_some(())
    });
}

#[test]
fn of_two_regions_neither_is_taken_without_the_operator_s_word() {
    let options = Options {
        heal_after: "500ms",
        extra: rule("h:*", "a", "forward", "600ms"),
        ..Options::new(Shape::Mesh, 2)
    };
    let mut cluster = start_with(options);
    cluster.client(1).ok(&["SET", "h:1", "x"]);
    cluster.cut(0, 1);
    let alone = error(cluster.client(1).call(&["MERIDIAN.HOME", "TAKE", "h:*"]));
    assert!(alone.contains("1 of 2 votes"), "{alone}");
    cluster.client(0).ok(&["SET", "h:1", "the home goes on alone"]);
    cluster.kill9(0);
    cluster.client(1).ok(&["MERIDIAN.HOME", "TAKE", "h:*", "FORCE"]);
    cluster.client(1).ok(&["SET", "h:1", "y"]);
    cluster.mend_all();
    cluster.restart(0);
    cluster.await_links();
    await_home(&cluster, "b");
    cluster.client(0).ok(&["SET", "h:1", "z"]);
    assert_eq!(cluster.client(0).maybe(&["GET", "h:1"]), Some("z".into()));
    cluster.await_converged(PATIENCE);
}
