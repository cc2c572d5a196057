//! Certificates that are replaced while everything runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meridian_proxy::cert;
use tempfile::TempDir;

use crate::harness::{Cluster, Options, PATIENCE, Shape, wait_for};

/// Leaves are replaced so often, and with every fifth the authority.
const ROTATIONS: usize = 20;

/// The longest that a link may be seen down: reconnecting, and a look a second at its state.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(3);

/// An authority in a directory of its own.
struct Authority(TempDir);

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        cert::create_ca(directory.path()).unwrap();
        Self(directory)
    }

    fn pem(&self) -> String {
        fs::read_to_string(self.0.path().join("ca.pem")).unwrap()
    }

    /// A new identity for each region, put in the place of its files.
    fn renew_leaves(&self, cluster: &Cluster) {
        for i in cluster.all() {
            let name = cluster.name(i);
            let fresh = tempfile::tempdir().unwrap();
            cert::create_region(name, self.0.path(), fresh.path(), &[], cert::REGION_VALIDITY).unwrap();
            for file in [format!("{name}.pem"), format!("{name}.key")] {
                fs::copy(fresh.path().join(&file), cluster.directory().join(&file)).unwrap();
            }
        }
    }
}

/// Puts the files of the directory in force everywhere and waits until every link stands on new connections.
fn put_in_force(cluster: &Cluster) {
    let renewed = |i| cluster.metric(i, "meridian_cert_renewals_total", &[("outcome", "renewed")]);
    let connections = |i, peer| cluster.metric(i, "meridian_link_connections_total", &[("peer", peer)]);
    let pairs = || cluster.all().flat_map(|i| cluster.all().filter(move |j| *j != i).map(move |j| (i, j)));
    let before: Vec<f64> = pairs().map(|(i, j)| connections(i, cluster.name(j))).collect();
    for i in cluster.all() {
        let count = renewed(i);
        assert_eq!(cluster.post(i, "/reload", "").0, 200);
        wait_for("the certificate to be in force", PATIENCE, || (renewed(i) > count).then_some(()));
    }
    for ((i, j), before) in pairs().zip(before) {
        let name = cluster.name(j);
        let what = format!("a new connection of {} and {name}", cluster.name(i));
        wait_for(&what, PATIENCE, || (connections(i, name) > before).then_some(()));
    }
}

fn set_authorities(cluster: &Cluster, authorities: &[&Authority]) {
    let text: String = authorities.iter().map(|authority| authority.pem()).collect();
    fs::write(cluster.directory().join("ca.pem"), text).unwrap();
}

/// Looks at every link until told to stop; the longest time that one was down.
fn longest_down(cluster: &Cluster, stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    let mut down: std::collections::BTreeMap<(usize, String), Instant> = Default::default();
    while !stop.load(Ordering::Relaxed) {
        for i in cluster.all() {
            for (peer, state) in cluster.links_of(i) {
                if state == "up" {
                    down.remove(&(i, peer));
                } else {
                    longest = longest.max(down.entry((i, peer)).or_insert_with(Instant::now).elapsed());
                }
            }
        }
    }
    longest
}

#[test]
fn certificates_and_authority_are_replaced_twenty_times_under_load() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 3));
    cluster.await_links();
    let mut authority = Authority::new();
    for file in ["ca.pem", "ca.key"] {
        fs::copy(cluster.directory().join(file), authority.0.path().join(file)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (mut written, mut down) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let load = |i: usize| {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || {
                let (mut client, mut count) = (cluster.client(i), 0_i64);
                while !stop.load(Ordering::Relaxed) {
                    // Both fail the test if the call fails.
                    client.int(&["INCR", "total"]);
                    client.ok(&["SET", &format!("key{}", count % 100), &count.to_string()]);
                    count += 1;
                }
                count
            })
        };
        let loads: Vec<_> = cluster.all().map(load).collect();
        let looking = scope.spawn(|| longest_down(&cluster, &stop));
        for rotation in 1..=ROTATIONS {
            if rotation % 5 == 0 {
                let next = Authority::new();
                set_authorities(&cluster, &[&authority, &next]);
                put_in_force(&cluster);
                authority = next;
                authority.renew_leaves(&cluster);
                put_in_force(&cluster);
                set_authorities(&cluster, &[&authority]);
            } else {
                authority.renew_leaves(&cluster);
            }
            put_in_force(&cluster);
        }
        stop.store(true, Ordering::Relaxed);
        written = loads.into_iter().map(|load| load.join().unwrap()).sum();
        down = looking.join().unwrap();
    });
    cluster.await_converged(PATIENCE);
    assert_eq!(cluster.client(1).int(&["GET", "total"]), written);
    println!("{written} increments, the longest that a link was down: {down:?}");
    assert!(down < RECONNECTED_WITHIN, "{down:?}");
    for i in cluster.all() {
        let refused = cluster.metric(i, "meridian_cert_renewals_total", &[("outcome", "refused")]);
        assert_eq!(refused, 0.0, "{}", cluster.name(i));
    }
}

#[test]
fn files_that_do_not_fit_are_kept_out_and_told() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    cluster.await_links();
    let name = cluster.name(0);
    let path = |file: &str| -> PathBuf { Path::new(cluster.directory()).join(file) };
    let pem = fs::read(path(&format!("{name}.pem"))).unwrap();
    fs::write(path(&format!("{name}.pem")), &pem[..pem.len() / 2]).unwrap();
    cluster.post(0, "/reload", "");
    let warned = || {
        let warnings = cluster.status(0)["warnings"].to_string();
        warnings.contains("tls.cert").then_some(warnings)
    };
    wait_for("a warning", PATIENCE, warned);
    assert_eq!(cluster.metric(0, "meridian_cert_renewals_total", &[("outcome", "refused")]), 1.0);
    cluster.client(0).ok(&["SET", "k", "v"]);
    cluster.await_converged(PATIENCE);
    fs::write(path(&format!("{name}.pem")), &pem).unwrap();
    cluster.post(0, "/reload", "");
    wait_for("the warning to go", PATIENCE, || warned().is_none().then_some(()));
}
