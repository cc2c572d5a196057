//! Redis' own tools and a client library, unchanged. The command that runs the tests installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{Cluster, Options, PATIENCE, Shape, scale};

/// What to run when a tool is missing.
const INSTALL: &str = "install what the tests need: apt-get install redis-tools python3-venv && \
                       python3 -m venv target/python && target/python/bin/pip install redis";

/// What a command prints, which must succeed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {INSTALL}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn redis_cli(cluster: &Cluster, i: usize, args: &[&str]) -> String {
    let port = cluster.resp_address(i).port().to_string();
    run(Command::new("redis-cli").args(["-p", &port]).args(args)).trim_end().to_owned()
}

#[test]
fn redis_cli_works() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    assert_eq!(redis_cli(&cluster, 0, &["SET", "greeting", "hello"]), "OK");
    assert_eq!(redis_cli(&cluster, 0, &["-3", "HSET", "h", "f", "1", "g", "2"]), "2");
    assert_eq!(redis_cli(&cluster, 0, &["SADD", "s", "x", "y"]), "2");
    assert_eq!(redis_cli(&cluster, 0, &["ZADD", "z", "1.5", "m"]), "1");
    cluster.await_converged(PATIENCE);
    assert_eq!(redis_cli(&cluster, 1, &["GET", "greeting"]), "hello");
    assert_eq!(redis_cli(&cluster, 1, &["HGETALL", "h"]), "f\n1\ng\n2");
    assert_eq!(redis_cli(&cluster, 1, &["-3", "HGETALL", "h"]), "f 1\ng 2");
    assert_eq!(redis_cli(&cluster, 1, &["ZSCORE", "z", "m"]), "1.5");
    assert_eq!(redis_cli(&cluster, 1, &["--scan", "--pattern", "gree*"]), "greeting");
    assert!(redis_cli(&cluster, 1, &["INFO", "server"]).contains("redis_version:"));
    assert!(redis_cli(&cluster, 1, &["NOSUCH"]).starts_with("ERR unknown command"));
}

#[test]
fn redis_benchmark_works() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let port = cluster.resp_address(0).port().to_string();
    let requests = (20_000 * scale()).to_string();
    let tests = ["-t", "set,get,incr,sadd,hset,zadd", "-n", &requests, "-P", "16", "-q", "-r", "1000"];
    let said = run(Command::new("redis-benchmark").args(["-p", &port]).args(tests));
    for test in ["SET", "GET", "INCR", "SADD", "HSET", "ZADD"] {
        let last = said.split(['\r', '\n']).rfind(|line| line.starts_with(test));
        assert!(last.is_some_and(|line| line.contains("requests per second")), "{test}: {said}");
    }
    assert!(!said.to_lowercase().contains("error"), "{said}");
    println!(
        "{}",
        said.split(['\r', '\n']).filter(|line| line.contains("requests per")).collect::<Vec<_>>().join("\n")
    );
    cluster.await_converged(PATIENCE);
}

/// The interpreter with `redis` installed.
pub fn python() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = workspace.join("target/python/bin/python");
    let python = if python.exists() { python } else { PathBuf::from("python3") };
    let found = Command::new(&python).args(["-c", "import redis"]).output();
    assert!(found.is_ok_and(|output| output.status.success()), "no redis for {python:?}; {INSTALL}");
    python
}

#[test]
fn redis_py_works() {
    let cluster = Cluster::start(Options::new(Shape::Mesh, 2));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/redis_py.py");
    let port = |i: usize| cluster.resp_address(i).port().to_string();
    let python = python();
    for protocol in ["2", "3"] {
        let said = run(Command::new(&python).arg(&script).args([&port(0), protocol]));
        assert_eq!(said.trim_end(), "ok");
    }
    cluster.await_converged(PATIENCE);
    assert_eq!(cluster.client(1).text(&["GET", "py:counter"]), "50");
}
