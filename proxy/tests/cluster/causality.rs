//! Nothing shows before what it depends on, and transactions show whole. Named after the failures
//! they rehearse.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use meridian_proxy::link::relay::Conditions;
use meridian_proxy::resp::Value;

use crate::convergence::bad_weather;
use crate::harness::{Cluster, Options, PATIENCE, Shape, scale, wait_for};
use crate::load;

fn slow(delay_ms: u64) -> Conditions {
    Conditions { delay: Duration::from_millis(delay_ms), ..Conditions::default() }
}

/// Ends the pollers when the writers are done, or have failed.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn c1_an_answer_never_shows_before_what_it_answers() {
    let cluster = Cluster::start(Options { conditions: slow(5), ..Options::new(Shape::Mesh, 3) });
    cluster.conditions(0, 2, slow(400));
    let rounds = 15 * scale();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let poller = scope.spawn(|| {
            let mut client = cluster.client(2);
            let mut looks = 0;
            while !done.load(Relaxed) {
                for n in 0..rounds {
                    // First the answer: what is asked for after it must be there by then.
                    if client.maybe(&["GET", &format!("answer:{n}")]).is_some() {
                        let question = client.maybe(&["GET", &format!("question:{n}")]);
                        assert!(question.is_some(), "answer {n} without its question");
                    }
                    looks += 1;
                }
            }
            looks
        });
        let _done = Until(&done);
        let (mut a, mut b) = (cluster.client(0), cluster.client(1));
        for n in 0..rounds {
            let (question, answer) = (format!("question:{n}"), format!("answer:{n}"));
            a.ok(&["SET", &question, "?"]);
            wait_for("the question at b", PATIENCE, || b.maybe(&["GET", &question]));
            b.ok(&["SET", &answer, "!"]);
        }
        cluster.await_converged(PATIENCE);
        drop(_done);
        assert!(poller.join().unwrap() > rounds, "the poller hardly looked");
    });
    assert!(cluster.metric(2, "meridian_causal_waits_total", &[]) > 0.0, "c never had to wait");
    // The gauge is brought up to date a few times a second.
    wait_for("nothing pending at c", PATIENCE, || {
        (cluster.metric(2, "meridian_pending_bytes", &[]) == 0.0).then_some(())
    });
}

#[test]
fn c1_a_ring_and_a_star_never_wait() {
    for (shape, regions) in [(Shape::Ring, 3), (Shape::Star, 3)] {
        let options = Options { conditions: bad_weather(), ..Options::new(shape, regions) };
        let cluster = Cluster::start(options);
        // One link far slower than the other path, were there one.
        cluster.conditions(0, 1, slow(300));
        load::run(&cluster, 1, 40 * scale());
        cluster.await_converged(PATIENCE);
        for i in cluster.all() {
            assert_eq!(cluster.metric(i, "meridian_causal_waits_total", &[]), 0.0, "{shape:?}");
        }
    }
}

#[test]
fn c7_a_transaction_never_shows_half_elsewhere() {
    let cluster = Cluster::start(Options { conditions: bad_weather(), ..Options::new(Shape::Ring, 3) });
    let done = AtomicBool::new(false);
    let keys = ["one", "two", "three"];
    std::thread::scope(|scope| {
        let pollers: Vec<_> = [1, 2]
            .map(|i| {
                let (cluster, done) = (&cluster, &done);
                scope.spawn(move || {
                    let mut client = cluster.client(i);
                    let mut seen = 0;
                    let mut last = Value::Null;
                    while !done.load(Relaxed) {
                        let mut transaction: Vec<Vec<String>> = vec![vec!["MULTI".into()]];
                        transaction.extend(keys.map(|key| vec!["GET".into(), key.into()]));
                        transaction.push(vec!["EXEC".into()]);
                        let replies = client.pipeline(&transaction).unwrap();
                        for reply in
                            [replies.last().unwrap(), &client.call(&["MGET", keys[0], keys[1], keys[2]])]
                        {
                            let values = reply.elements().unwrap();
                            assert!(values.iter().all(|value| *value == values[0]), "half: {values:?}");
                            seen += usize::from(last != values[0]);
                            last = values[0].clone();
                        }
                    }
                    seen
                })
            })
            .into_iter()
            .collect();
        let _done = Until(&done);
        let mut writer = cluster.client(0);
        for n in 0..200 * scale() {
            let mut transaction: Vec<Vec<String>> = vec![vec!["MULTI".into()]];
            transaction.extend(keys.map(|key| vec!["SET".into(), key.into(), n.to_string()]));
            transaction.push(vec!["EXEC".into()]);
            let replies = writer.pipeline(&transaction).unwrap();
            assert_eq!(replies.last().unwrap().elements().map(<[Value]>::len), Some(3));
            if n % 20 == 19 {
                // So that the pollers have something to see in between.
                for i in [1, 2] {
                    let mut reader = cluster.client(i);
                    wait_for("the transactions so far", PATIENCE, || {
                        (reader.maybe(&["GET", keys[0]]) == Some(n.to_string())).then_some(())
                    });
                }
            }
        }
        cluster.await_converged(PATIENCE);
        drop(_done);
        for poller in pollers {
            assert!(poller.join().unwrap() > 3, "a poller saw hardly any of the transactions");
        }
    });
}
