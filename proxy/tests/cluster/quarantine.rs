//! Hooks that misbehave, or answer otherwise in one region than in another (H1).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, PATIENCE, Shape, until, wait_for};
use crate::process::run;

/// Bytes a second that an idle link may cost, both ways together, as in `idle`.
const LINK_BYTES: f64 = 1_000.0;

const LINES: &str = "[dev]\nfaults = true\n[[conflicts]]\nkeys = \"c:*\"\npolicy = \"hook\"\nhook = \"concat-unique-lines\"\n";
const NAME: &str = "concat-unique-lines";

fn options(shape: Shape, regions: usize) -> Options {
    Options { extra: LINES.to_owned(), ..Options::new(shape, regions) }
}

fn disturb(cluster: &Cluster, i: usize, how: &str) {
    let (status, body) = cluster.post(i, "/faults", &format!("{{\"hooks\": \"{how}\"}}"));
    assert_eq!(status, 200, "{body}");
}

/// Every region writes the key without having seen the others' value.
fn quarrel(cluster: &Cluster, key: &str) {
    cluster.all().for_each(|i| (0..i).for_each(|other| cluster.cut(i, other)));
    for i in cluster.all() {
        cluster.client(i).ok(&["SET", key, &format!("{}{key}", cluster.name(i))]);
    }
    cluster.mend_all();
}

fn await_equal_vectors(cluster: &Cluster) {
    wait_for("vectors to be equal", PATIENCE, || {
        let vectors: Vec<_> = cluster.all().map(|i| cluster.client(i).vector()).collect();
        vectors.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    });
}

fn shown(cluster: &Cluster, key: &str) -> Vec<String> {
    cluster.all().map(|i| cluster.client(i).text(&["GET", key])).collect()
}

fn is_confined(cluster: &Cluster, i: usize, hook: &str) -> bool {
    cluster.metric(i, "meridian_hook_quarantined", &[("hook", hook)]) > 0.0
}

fn await_confined(cluster: &Cluster, hook: &str, confined: bool) {
    wait_for("every region to agree on the quarantine", PATIENCE, || {
        cluster.all().all(|i| is_confined(cluster, i, hook) == confined).then_some(())
    });
}

/// All regions show the greatest stamp's value.
fn await_fallback(cluster: &Cluster, key: &str) {
    wait_for("the greatest stamp to show", PATIENCE, || {
        let shown = shown(cluster, key);
        let newest = shown[0].ends_with(key) && !shown[0].contains('\n') && !shown[0].contains('(');
        (newest && shown.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
    });
}

/// No more bytes than heartbeats take.
fn is_idle(cluster: &Cluster) {
    until(Instant::now() + Duration::from_secs(2));
    let sent = || -> f64 {
        let of = |i| cluster.metric(i, "meridian_link_bytes_total", &[("direction", "sent")]);
        cluster.all().map(of).sum()
    };
    let (began, before) = (Instant::now(), sent());
    until(began + Duration::from_secs(5));
    let regions = cluster.all().count() as f64;
    let rate = (sent() - before) / began.elapsed().as_secs_f64() / (regions * (regions - 1.0) / 2.0);
    assert!(rate < LINK_BYTES, "{rate:.0} bytes a second and link");
}

#[test]
fn h1_a_hook_that_answers_otherwise_in_one_region_is_in_quarantine_everywhere() {
    // In a ring of four regions the contrary one has no link with the one opposite.
    for (shape, regions) in [(Shape::Ring, 4), (Shape::Star, 3)] {
        let mut cluster = Cluster::start(options(shape, regions));
        disturb(&cluster, 1, "differ");
        // Nobody reads the key: the conflict alone has the hooks asked.
        quarrel(&cluster, "c:k");
        await_equal_vectors(&cluster);
        await_confined(&cluster, NAME, true);
        await_fallback(&cluster, "c:k");
        for i in cluster.all() {
            let status = cluster.status(i);
            let why = &status["hooks"][0]["quarantine"];
            assert_eq!((why["key"].as_str(), why["answers"].as_array().unwrap().len()), (Some("c:k"), 2));
            let told: Vec<_> = status["warnings"].as_array().unwrap().iter().collect();
            assert!(told.iter().any(|w| w.as_str().unwrap().contains("in quarantine")), "{told:?}");
            let counted = cluster.metric(i, "meridian_hook_quarantines_total", &[("hook", NAME)]);
            assert!(counted >= 1.0);
            let contrary = cluster.name(1);
            wait_for("the log to name the regions", PATIENCE, || {
                let log = cluster.log(i);
                let line = log.lines().find(|line| line.contains("two answers to one question"))?;
                let names = |other: &str| {
                    line.contains(&format!("\"{other} and {contrary}\""))
                        || line.contains(&format!("\"{contrary} and {other}\""))
                };
                cluster.all().any(|other| names(cluster.name(other))).then_some(())
            });
        }
        cluster.await_converged(PATIENCE);
        is_idle(&cluster);
        // What is new is not merged either, and a restart changes nothing.
        cluster.stop(0);
        cluster.restart(0);
        assert!(is_confined(&cluster, 0, NAME), "before its links stand");
        cluster.await_links();
        quarrel(&cluster, "c:other");
        await_equal_vectors(&cluster);
        await_fallback(&cluster, "c:other");
        disturb(&cluster, 1, "no");
        let (status, body) = cluster.post(2, &format!("/hooks/release?hook={NAME}"), "");
        assert_eq!(status, 200, "{body}");
        await_confined(&cluster, NAME, false);
        wait_for("all values to show again", PATIENCE, || {
            let all = shown(&cluster, "c:k");
            (all[0].lines().count() == regions && all.windows(2).all(|pair| pair[0] == pair[1])).then_some(())
        });
        assert_eq!(cluster.post(2, &format!("/hooks/release?hook={NAME}"), "").0, 404, "it is free");
        cluster.await_converged(PATIENCE);
        is_idle(&cluster);
        assert!(cluster.all().all(|i| !is_confined(&cluster, i, NAME)), "nobody complains again");
    }
}

#[test]
fn h1_a_hook_that_contradicts_itself_is_in_quarantine_everywhere() {
    let cluster = Cluster::start(options(Shape::Mesh, 2));
    disturb(&cluster, 0, "unsteady");
    quarrel(&cluster, "c:k");
    await_equal_vectors(&cluster);
    await_confined(&cluster, NAME, true);
    await_fallback(&cluster, "c:k");
    is_idle(&cluster);
}

/// A module whose `merge` is this.
fn module(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(format!("{name}.wat"));
    let text = format!(
        "(module (memory (export \"memory\") 1)
           (func (export \"alloc\") (param i32) (result i32) (i32.const 1024))
           (func (export \"merge\") (param i32) (param i32) (result i64) {body}))"
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn h1_hooks_that_loop_allocate_trap_or_overflow_fall_back_alike_and_hold_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let bodies = [
        ("fuel", "(loop $again (br $again)) (i64.const 0)"),
        ("memory", "(drop (memory.grow (i32.const 65000))) (i64.const 0)"),
        ("trap", "unreachable"),
        ("output_too_big", "(i64.const 2147483647)"),
    ];
    let mut extra = String::new();
    for (reason, body) in bodies {
        let path = module(directory.path(), reason, body);
        extra += &format!("[[conflicts]]\nkeys = \"{reason}:*\"\npolicy = \"hook\"\nhook = {path:?}\n");
    }
    let extra = format!("[dev]\nfaults = true\n{extra}");
    let cluster = Cluster::start(Options { extra, ..Options::new(Shape::Mesh, 3) });
    for (reason, _) in bodies {
        let key = format!("{reason}:k");
        quarrel(&cluster, &key);
        await_equal_vectors(&cluster);
        await_fallback(&cluster, &key);
        for i in cluster.all() {
            let labels = [("reason", reason)];
            assert!(cluster.metric(i, "meridian_hook_failures_total", &labels) > 0.0, "{reason}");
            wait_for("the records to be marked", PATIENCE, || {
                let (_, body) = cluster.get(i, &format!("/conflicts?key={key}"));
                let listed: serde_json::Value = serde_json::from_str(&body).unwrap();
                let records = listed["conflicts"].as_array().unwrap();
                let marked = |record: &serde_json::Value| {
                    record["rule"] == "fallback" && record["outcome"] != "merged"
                };
                (!records.is_empty() && records.iter().all(marked)).then_some(())
            });
        }
    }
    cluster.await_converged(PATIENCE);
    // To fail alike is to answer alike.
    wait_for("answers to be compared", PATIENCE, || {
        cluster
            .all()
            .all(|i| cluster.metric(i, "meridian_hook_answers_compared_total", &[]) > 0.0)
            .then_some(())
    });
    for (reason, _) in bodies {
        let name = format!("{reason}.wat");
        assert!(cluster.all().all(|i| !is_confined(&cluster, i, &name)), "{reason}");
    }
    is_idle(&cluster);
}

/// What a shadow would have changed, and what a hook would have made of the same conflicts afterwards.
#[test]
fn a_policy_is_tried_before_it_is_used_and_a_hook_on_what_was_recorded() {
    let extra =
        "[[conflicts]]\nkeys = \"s:*\"\npolicy = \"crdt\"\nshadow = { policy = \"hook\", hook = \"min\" }\n";
    let cluster = Cluster::start(Options { extra: extra.to_owned(), ..Options::new(Shape::Mesh, 2) });
    quarrel(&cluster, "s:k");
    cluster.await_converged(PATIENCE);
    assert_eq!(shown(&cluster, "s:k"), ["bs:k", "bs:k"], "without effect");
    for i in cluster.all() {
        wait_for("the shadow to be tried", PATIENCE, || {
            (cluster.metric(i, "meridian_shadow_differs_total", &[("rule", "hook:min")]) == 1.0).then_some(())
        });
        let listed = wait_for("the record", PATIENCE, || {
            let (_, body) = cluster.get(i, "/conflicts?shadow=differs");
            let listed: serde_json::Value = serde_json::from_str(&body).unwrap();
            (!listed["conflicts"].as_array().unwrap().is_empty()).then_some(listed)
        });
        assert_eq!(listed["conflicts"][0]["shadow"]["shown"], "as:k", "{listed}");
        assert_eq!(cluster.status(i)["shadows"][0]["differs"], 1);
    }
    let url = format!("http://{}", cluster.admin_address(1));
    let replay = |hook: &str| run(&["hook", "replay", hook, "--admin", &url, "--json"]);
    let report = |hook: &str| -> (Option<i32>, serde_json::Value) {
        let output = replay(hook);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    let (code, min) = report("min");
    assert_eq!((code, min["merged"].as_u64(), min["differs"].as_u64()), (Some(0), Some(1), Some(1)), "{min}");
    assert_eq!(min["differences"][0]["would"], "\"as:k\"");
    assert_eq!((report("max").0, report("max").1["differs"].as_u64()), (Some(0), Some(0)));
    assert_eq!(report("json-merge").1["failed"]["declined"], 1);
    let directory = tempfile::tempdir().unwrap();
    let traps = module(directory.path(), "traps", "unreachable");
    let (code, traps) = report(traps.to_str().unwrap());
    assert_eq!((code, traps["failed"]["trap"].as_u64()), (Some(1), Some(1)), "{traps}");
    assert_eq!(run(&["hook", "replay", "none.wasm", "--admin", &url]).status.code(), Some(1));
    let released = run(&["hook", "release", "min", "--admin", &url]);
    assert_eq!(released.status.code(), Some(1), "it is in no quarantine");
}
