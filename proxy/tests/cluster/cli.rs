//! What the command line answers: exit codes, errors, and ending in order.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Client, ports, wait_for};
use crate::process::{PATIENCE, Running, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn config(directory: &Path, content: &str) -> PathBuf {
    let path = directory.join("region.toml");
    fs::write(&path, content).unwrap();
    path
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn every_configuration_error_is_listed() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(
        directory.path(),
        "cluster = \"Shop!\"\nregion = \"eu\"\ncolour = \"red\"\n\
         [listen]\nresp = \"0.0.0.0:6380\"\nadmin = \"here\"\n[log]\nsync = \"sometimes\"\nretention = \"24\"\n\
         [topology]\nshape = \"ring\"\norder = [\"eu\"]\n\
         [[regions]]\nname = \"eu\"\n[[regions]]\nname = \"us\"\naddress = \"us\"\n",
    );
    for command in ["serve", "check"] {
        let output = run(&[command, "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(64), "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
        let errors = text(&output.stderr);
        let keys: Vec<&str> = errors.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        for key in [
            "colour",
            "cluster",
            "data_dir",
            "listen.resp",
            "listen.admin",
            "regions[1].address",
            "topology.order",
            "tls",
            "log.sync",
            "log.retention",
        ] {
            assert!(keys.contains(&key), "{command}: {key} is not in\n{errors}");
        }
        assert_eq!(keys.len(), 10, "{errors}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else was touched");
}

#[test]
fn nonsense_of_every_kind_is_a_configuration_error() {
    let directory = tempfile::tempdir().unwrap();
    for content in ["", "][", "cluster = 1", "\u{0}", "[[regions]]"] {
        let path = config(directory.path(), content);
        let output = run(&["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(64), "{content:?}");
        assert!(!output.stderr.is_empty(), "{content:?}");
    }
    let missing = directory.path().join("none.toml");
    let output = run(&["serve", "--config", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("none.toml: cannot be read: "));
    assert_eq!(run(&["serve", "--konfig", "x"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn certificates_that_do_not_fit_are_configuration_errors() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    assert!(run(&["cert", "ca", "--out", out]).status.success());
    assert!(run(&["cert", "region", "us", "--ca", out, "--out", out]).status.success());
    let path = config(
        directory.path(),
        "cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
         [tls]\nca = \"ca.pem\"\ncert = \"us.pem\"\nkey = \"us.key\"\n",
    );
    let output = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("tls.cert: the certificate is for region \"us\""));
    assert!(!directory.path().join("data").exists());
}

#[test]
fn a_busy_port_is_a_runtime_failure() {
    let directory = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = busy.local_addr().unwrap();
    let path = config(
        directory.path(),
        &format!("cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"data\"\n[listen]\nresp = \"{address}\"\n"),
    );
    let output = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("listen.resp: cannot listen on {address}")));
}

#[test]
fn serve_ends_in_order_on_sigterm_and_sigint() {
    let directory = tempfile::tempdir().unwrap();
    let admin = free_port();
    let path = config(
        directory.path(),
        &format!(
            "cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
             [listen]\nresp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:{admin}\"\n"
        ),
    );
    for signal in ["TERM", "INT"] {
        let mut region = Running::start(&["serve", "--config", path.to_str().unwrap()]);
        let url = format!("http://127.0.0.1:{admin}");
        let deadline = Instant::now() + PATIENCE;
        let shown = loop {
            let output = run(&["status", "--admin", &url]);
            if output.status.success() {
                break text(&output.stdout);
            }
            assert_eq!(output.status.code(), Some(1));
            assert!(Instant::now() < deadline, "{}", text(&output.stderr));
        };
        assert!(shown.starts_with("eu of a, leader, ready, up "), "{shown}");
        let asked = Instant::now();
        region.signal(signal);
        assert_eq!(region.wait().code(), Some(0), "{signal}");
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}

/// A region alone, ready, with its admin server's address and its RESP port.
pub(crate) fn start_alone(directory: &Path) -> (Running, String, u16) {
    let (admin, resp) = (free_port(), free_port());
    let path = config(
        directory,
        &format!(
            "cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
             [listen]\nresp = \"127.0.0.1:{resp}\"\nadmin = \"127.0.0.1:{admin}\"\n"
        ),
    );
    let region = Running::start(&["serve", "--config", path.to_str().unwrap()]);
    let url = format!("http://127.0.0.1:{admin}");
    wait_for("the region to be ready", PATIENCE, || {
        run(&["status", "--admin", &url]).status.success().then_some(())
    });
    (region, url, resp)
}

#[test]
fn status_watch_shows_again_and_outlives_the_region() {
    let directory = tempfile::tempdir().unwrap();
    let (mut region, url, resp) = start_alone(directory.path());
    let mut watch = Running::start(&["status", "--watch", "--admin", &url]);
    for _ in 0..2 {
        let line = watch.wait_for_start("eu of a, leader, ready, up ");
        assert!(!line.contains('\u{1b}'), "only a terminal is cleared: {line:?}");
    }
    let address = (Ipv4Addr::LOCALHOST, resp).into();
    Client::connect(address).unwrap().ok(&["SET", "key", "value"]);
    region.signal("TERM");
    assert_eq!(region.wait().code(), Some(0));
    watch.wait_for_start(&url);
    let again = directory.path().join("region.toml");
    let mut region = Running::start(&["serve", "--config", again.to_str().unwrap()]);
    watch.wait_for_start("eu of a, leader, ready, up ");
    // Not INT, which whoever started this in the background may have had ignored.
    watch.signal("TERM");
    assert!(!watch.wait().success());
    region.signal("TERM");
    assert_eq!(region.wait().code(), Some(0));
}

#[test]
fn cli_status_of_nobody_says_what_to_look_at() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let output = run(&["status", "--admin", &url]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains(&url) && told.contains("is the region running, and is this its listen.admin?"),
        "{told}"
    );
}

#[test]
fn cli_words_that_are_nearly_right_are_guessed() {
    for (wrong, guess) in [
        (["chekc", "--config", "a"].as_slice(), "check"),
        (&["status", "--wach"], "--watch"),
        (&["demo", "--topology", "rign"], "ring"),
        (&["completions", "bahs"], "bash"),
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        let told = text(&output.stderr);
        assert!(told.contains("similar") && told.contains(&format!("'{guess}'")), "{told}");
    }
}

#[test]
fn cli_completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("meridian"), "{shell}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let (mut region, url, resp) = start_alone(directory.path());
        // A client that does not read what it asked for keeps the region from ending in order.
        let mut client = Client::connect((Ipv4Addr::LOCALHOST, resp).into()).unwrap();
        client.ok(&["SET", "large", &"x".repeat(8 << 20)]);
        let request = b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n".repeat(16);
        client.send(&request).unwrap();
        client.await_first_byte().unwrap();
        region.signal("TERM");
        // Not ready any more, or not even answering: the first signal has arrived.
        wait_for("the first signal to be heard", PATIENCE, || {
            let shown = text(&run(&["status", "--admin", &url]).stdout);
            (!shown.contains(", ready,")).then_some(())
        });
        region.signal(signal);
        assert_eq!(region.wait().code(), Some(1), "{signal}: ended in order instead of at once");
    }
}

#[test]
fn a_demo_of_one_says_ready_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let port = ports::take_for_demo(1);
    let data = directory.path().join("data");
    let arguments =
        ["demo", "--regions", "1", "--base-port", &port.to_string(), "--data-dir", data.to_str().unwrap()];
    let mut demo = Running::start(&arguments);
    let said = demo.wait_for_line("ready").join("\n");
    assert!(said.contains(&format!("redis-cli -p {port} SET greeting hello")), "{said}");
    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0));
    assert!(data.join("eu").is_dir(), "the data was to be kept");
}
