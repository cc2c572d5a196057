use std::time::Duration;

use super::blocks::screen;
use super::looks::Watched;
use super::screen::{columns, fit};
use crate::admin::status::Status;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/status.json"));

/// When the golden document was looked at.
const NOW_MS: u64 = 1_700_000_120_000;

fn document() -> Status {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// Region eu, looked at every two seconds: conflicts in bursts, lag of 50 ms, a takeover that goes on.
fn watched(looks: u64) -> Watched {
    let mut watched = Watched::new("http://127.0.0.1:9381".to_owned());
    for look in 0..looks {
        let mut status = document();
        status.uptime_seconds += 2 * look;
        status.applied[0].sequence += 240 * look;
        status.applied[1].sequence += 25 * look;
        status.applied[1].lag_count += 25 * look;
        status.applied[1].lag_seconds += 1.25 * look as f64;
        status.links[0].sent_bytes += 40_000 * look;
        status.links[0].received_bytes += 3_000 * look;
        status.conflicts_total[0].count += 3 * look * (look % 5);
        status.seeding.as_mut().unwrap().keys += 900 * look;
        watched.saw(Duration::from_secs(2 * look), status);
    }
    watched
}

fn shown(watched: &[Watched], width: usize, height: usize, colour: bool) -> String {
    let lines = fit(screen(watched, NOW_MS), width, height, colour);
    assert!(lines.len() <= height);
    assert!(lines.iter().all(|line| columns(line) <= width), "{lines:#?}");
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_golden_screens() {
    let well = |name: &str| {
        let mut status = document();
        name.clone_into(&mut status.region);
        (status.seeding, status.hooks, status.warnings) = (None, Vec::new(), Vec::new());
        status.config_mismatches.clear();
        let mut watched = Watched::new(format!("http://{name}:9380"));
        watched.saw(Duration::ZERO, status.clone());
        watched.saw(Duration::from_secs(2), status);
        watched
    };
    let mut away = Watched::new("http://10.2.0.1:9380".to_owned());
    away.missed("http://10.2.0.1:9380 does not answer".to_owned());
    let mut gone = well("sa");
    gone.missed("http://sa:9380 does not answer".to_owned());
    for (name, text) in [
        ("one", shown(&[watched(12)], 110, 60, false)),
        ("first", shown(&[watched(1)], 80, 24, false)),
        ("small", shown(&[watched(12)], 50, 14, false)),
        ("several", shown(&[watched(12), well("us"), gone, away], 100, 60, false)),
        ("colour", shown(&[watched(3)], 80, 60, true)),
    ] {
        let golden = format!("{}/tests/golden/watch-{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap(), "{name}");
    }
}

#[test]
fn every_size_of_terminal_is_kept_to() {
    let all = [watched(30), watched(2), Watched::new("http://a:1".to_owned())];
    for width in [0, 1, 2, 40, 200] {
        for height in [0, 1, 5, 10, 100] {
            let coloured = shown(&all, width, height, true);
            let plain = shown(&all, width, height, false);
            assert_eq!(
                coloured.lines().map(columns).collect::<Vec<_>>(),
                plain.lines().map(columns).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_restart_begins_all_rates_anew() {
    let mut watched = watched(3);
    let mut status = document();
    status.uptime_seconds = 1;
    watched.saw(Duration::from_secs(6), status.clone());
    assert!(watched.change().is_none());
    status.uptime_seconds = 3;
    status.applied[0].sequence += 20;
    watched.saw(Duration::from_secs(8), status.clone());
    assert!((watched.change().unwrap().ops(&status.applied[0]) - 10.0).abs() < 1e-9);
}

#[test]
fn a_route_that_is_not_the_usual_one_is_marked() {
    let mut watched = Watched::new("http://a:1".to_owned());
    let mut status = document();
    status.topology.hops.insert("us".to_owned(), 2);
    status.topology.ways.insert("us".to_owned(), vec!["ap".to_owned()]);
    watched.saw(Duration::ZERO, status.clone());
    let text = shown(&[watched.clone()], 100, 60, false);
    let row = text.lines().find(|line| line.ends_with(" 99")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["us", "-", "-", "ap", "2", "99"]);
    status.topology.ways.insert("us".to_owned(), vec!["us".to_owned()]);
    watched.saw(Duration::ZERO, status);
    assert!(shown(&[watched], 100, 60, true).contains("\x1b[33m  us"));
}

#[test]
fn a_terminal_obeys_nothing_from_a_peer() {
    let mut status = document();
    for text in [&mut status.region, &mut status.links[1].peer, &mut status.warnings[0]] {
        *text = "\x1b[2Jgone\r\n".to_owned();
    }
    status.hooks[0].quarantine.as_mut().unwrap().key = "\x1b]0;x\x07".to_owned();
    let mut watched = Watched::new("http://a:1".to_owned());
    watched.saw(Duration::ZERO, status);
    watched.missed("\x1b[2J".to_owned());
    assert!(!shown(&[watched.clone(), watched], 100, 60, false).contains(['\x1b', '\r', '\x07']));
}
