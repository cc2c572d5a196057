//! `meridian status --watch` on a terminal.

use std::process::{Command, Stdio};

use meridian_proxy::cli::status::screen::columns;

use crate::cli::start_alone;

const TERMINAL: &str = include_str!("watch/terminal.py");

/// The alternate screen without a cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J";

/// What was there before.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

#[test]
fn cli_watch_takes_a_terminal_fits_it_and_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let (_region, url, _) = start_alone(directory.path());
    let watch = [env!("CARGO_BIN_EXE_meridian"), "status", "--watch", "--interval", "200ms", "--admin", &url];
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).args(watch).env_remove("NO_COLOR").stdin(Stdio::null());
    let output = terminal.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["code"], 0, "Ctrl-C is how it is ended");
    assert_eq!(told["echo"], serde_json::json!([true, false, true]));
    let written = told["written"].as_str().unwrap();
    let screens = written.strip_prefix(ENTER).and_then(|rest| rest.strip_suffix(LEAVE)).expect(written);
    assert!(!screens.contains("\u{1b}[2J"), "it flickers: {screens:?}");
    assert!(screens.contains("\u{1b}[32m● ready"), "{screens:?}");
    let last = screens.rsplit("\u{1b}[H").next().unwrap();
    let last = last.replace("\u{1b}[K", "").replace("\u{1b}[J", "").replace('\r', "");
    assert!(last.lines().count() <= 10, "{last}");
    assert!(last.lines().all(|line| columns(line) <= 40) && last.contains('…'), "{last}");
}
