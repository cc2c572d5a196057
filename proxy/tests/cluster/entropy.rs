//! Regions compare what they show with each other, by themselves and on request.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use meridian_proxy::link::relay::Conditions;

use crate::harness::{Cluster, Options, PATIENCE, Shape, scale, wait_for};
use crate::load;

/// Comparing as fast as the tests want it.
fn eager(enabled: bool) -> String {
    format!(
        "[anti_entropy]\nenabled = {enabled}\nkeys_per_second = 1000000\nevery = \"1s\"\n[dev]\nfaults = true\n"
    )
}

fn verify(cluster: &Cluster, i: usize) -> Output {
    let admin = format!("http://{}", cluster.admin_address(i));
    Command::new(env!("CARGO_BIN_EXE_meridian")).args(["verify", "--admin", &admin]).output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn fill(cluster: &Cluster) {
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for n in 0..150 {
            client.ok(&["SET", &format!("{}:{n}", cluster.name(i)), &n.to_string()]);
        }
        client.int(&["SADD", "all", cluster.name(i)]);
    }
    cluster.await_converged(PATIENCE);
}

fn lose(cluster: &Cluster, i: usize, key: &str) {
    let (code, body) = cluster.post(i, "/faults", &format!("{{\"lose\": \"{key}\"}}"));
    assert_eq!(code, 200, "{body}");
}

fn divergent_ranges(cluster: &Cluster) -> f64 {
    cluster.all().map(|i| cluster.metric(i, "meridian_divergent_ranges", &[])).sum()
}

#[test]
fn what_a_region_lost_is_found_named_counted_and_mended() {
    let cluster = Cluster::start(Options { extra: eager(true), ..Options::new(Shape::Ring, 3) });
    fill(&cluster);
    for i in cluster.all() {
        wait_for("a round over all keys", PATIENCE, || {
            (cluster.metric(i, "meridian_entropy_rounds_total", &[]) >= 2.0).then_some(())
        });
    }
    assert_eq!(divergent_ranges(&cluster), 0.0);
    lose(&cluster, 1, "a:7");
    lose(&cluster, 1, "all");
    assert!(cluster.client(1).maybe(&["GET", "a:7"]).is_none() || divergent_ranges(&cluster) > 0.0);
    wait_for("what was lost to be counted", PATIENCE, || (divergent_ranges(&cluster) > 0.0).then_some(()));
    cluster.await_converged(PATIENCE);
    let mut client = cluster.client(1);
    assert_eq!(client.text(&["GET", "a:7"]), "7");
    assert_eq!(client.int(&["SCARD", "all"]), 3);
    let named = |key: &str| cluster.all().any(|i| cluster.said(i).contains(key));
    assert!(named("key=a:7") || named("a:7"), "{}", cluster.said(1));
    let output = verify(&cluster, 0);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("all equal"));
}

#[test]
fn verify_finds_what_regions_lost_mends_it_and_then_says_so() {
    let mut cluster = Cluster::start(Options { extra: eager(false), ..Options::new(Shape::Star, 3) });
    fill(&cluster);
    lose(&cluster, 0, "b:3");
    lose(&cluster, 2, "a:4");
    // It stays lost: nobody compares by itself.
    let output = verify(&cluster, 0);
    let told_of = told(&output);
    assert_eq!(output.status.code(), Some(2), "{told_of}");
    assert!(told_of.contains("key b:3") && told_of.contains("key a:4"), "{told_of}");
    assert!(told_of.contains(" 0 of them still differ"), "{told_of}");
    cluster.await_converged(PATIENCE);
    assert_eq!(cluster.client(2).text(&["GET", "a:4"]), "4");
    assert_eq!(verify(&cluster, 0).status.code(), Some(0));
    // A neighbour that is away is not passed over in silence.
    cluster.stop(1);
    wait_for("the link to be down", PATIENCE, || {
        (cluster.links_of(0).get("b").is_none_or(|state| state != "up")).then_some(())
    });
    let output = verify(&cluster, 0);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("b: no link"), "{}", told(&output));
}

#[test]
fn lag_is_no_divergence_under_load_with_delay_and_loss() {
    let conditions = Conditions {
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(30),
        loss_ppm: 20_000,
        reorder_ppm: 10_000,
        ..Conditions::default()
    };
    for shape in [Shape::Ring, Shape::Mesh] {
        let cluster = Cluster::start(Options { conditions, extra: eager(true), ..Options::new(shape, 3) });
        let until = Instant::now() + Duration::from_secs(8) * u32::try_from(scale()).unwrap();
        while Instant::now() < until {
            load::run(&cluster, 2, 60);
        }
        cluster.await_converged(PATIENCE);
        for i in cluster.all() {
            wait_for("a round over all keys", PATIENCE, || {
                (cluster.metric(i, "meridian_entropy_rounds_total", &[]) >= 2.0).then_some(())
            });
            assert!(cluster.metric(i, "meridian_entropy_keys_compared_total", &[]) > 0.0);
        }
        assert_eq!(divergent_ranges(&cluster), 0.0, "{}", cluster.said(0));
        let output = verify(&cluster, 1);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    }
}
