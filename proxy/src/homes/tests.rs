//! Judging writes in one region, without links. That homes act, move and are reached is tested between processes.

use std::sync::Arc;

use meridian_conflict::clock::RegionId;
use tempfile::TempDir;

use super::judge::HomeError;
use super::*;
use crate::command::execute::{self, Scratch};
use crate::command::{CommandError, Flags, Keys, find, table};
use crate::config::FileChecks;
use crate::metrics::Metrics;
use crate::region::recover::Threads;
use crate::resp::{OwnedArgs, Protocol, Reply};

struct Place {
    region: Arc<Region>,
    threads: Option<Threads>,
    _directory: TempDir,
}

impl Place {
    /// Region `eu` of `eu` and `us` with these rules.
    fn new(rules: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let text = format!(
            "cluster = \"test\"\nregion = \"eu\"\ndata_dir = {:?}\n[log]\nsync = \"never\"\n\
             [tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[topology]\nshape = \"mesh\"\n\
             [[regions]]\nname = \"eu\"\n[[regions]]\nname = \"us\"\naddress = \"h:1\"\n{rules}",
            directory.path().join("data")
        );
        let settings = Settings::parse(&text, directory.path(), FileChecks::Skip).unwrap();
        let (region, threads) = Region::open(settings, Arc::new(Metrics::new().unwrap())).unwrap();
        Self { region, threads: Some(threads), _directory: directory }
    }

    fn attempt(&self, words: &[&str]) -> Result<(), CommandError> {
        let args: OwnedArgs = words.iter().collect();
        let (mut out, mut scratch) = (Vec::new(), Scratch::new(1));
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        let command = find(words[0].as_bytes()).unwrap();
        let now = self.region.wall();
        execute::attempt(&self.region, &mut scratch, command, args.args(), 0, now, &mut reply).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.threads.take().unwrap().stop().unwrap();
    }
}

fn rule(keys: &str, region: &str, elsewhere: &str) -> String {
    format!("[[homes]]\nkeys = \"{keys}\"\nregion = \"{region}\"\nelsewhere = \"{elsewhere}\"\n")
}

/// Whatever command is added: if it writes and names keys, it is judged by them.
#[test]
fn every_write_of_a_key_is_judged_by_its_home() {
    let place = Place::new(&rule("1", "us", "forward"));
    let mut judged = 0;
    for command in table::all().filter(|command| command.flags.has(Flags::WRITE)) {
        if command.flags.has(Flags::SESSION) {
            assert_eq!(command.name, "meridian.restore", "it runs others, which are judged");
            continue;
        }
        assert!(!matches!(command.keys, Keys::None), "{}: what does it write?", command.name);
        // All arguments are `1`: it is a key wherever there is one, and a count of one.
        let mut words = vec!["1"; command.arity.unsigned_abs() as usize + 1];
        words.truncate(if command.accepts(words.len()) { words.len() } else { words.len() - 1 });
        words[0] = command.name;
        let outcome = place.attempt(&words);
        let is_judged = match &outcome {
            Err(CommandError::Home(HomeError::Forward(to))) => to.home == RegionId::of("us"),
            Err(CommandError::Home(HomeError::Refused(text))) => {
                matches!(command.keys, Keys::All) && text.starts_with("HOME ")
            }
            _ => false,
        };
        assert!(is_judged, "{}: {outcome:?}", command.name);
        judged += 1;
    }
    assert!(judged > 40, "{judged}");
    place.attempt(&["SET", "2", "x"]).unwrap();
    place.attempt(&["GET", "1"]).unwrap();
    assert_eq!(place.region.sequencer().progress().0, 1, "one op");
}

#[test]
fn the_first_rule_that_matches_decides_and_a_home_without_lease_refuses() {
    let rules =
        rule("a:open:*", "us", "accept") + &rule("a:*", "us", "refuse") + &rule("b:*", "eu", "forward");
    let place = Place::new(&rules);
    place.attempt(&["SET", "a:open:1", "x"]).unwrap();
    let said = |words: &[&str]| place.attempt(words).unwrap_err().to_string();
    assert_eq!(said(&["SET", "a:1", "x"]), "HOME the home of 'a:1' is us: write there");
    assert_eq!(said(&["MSET", "a:open:1", "x", "a:1", "x"]), "HOME the home of 'a:1' is us: write there");
    assert!(said(&["SET", "b:1", "x"]).contains("has no lease"));
    let metrics = place.region.metrics();
    assert_eq!(metrics.homes.accepted.with_label_values(&["us"]).get(), 1);
    assert_eq!(metrics.homes.refused.with_label_values(&["us", "elsewhere"]).get(), 2);
    assert_eq!(metrics.homes.refused.with_label_values(&["eu", "no_lease"]).get(), 1);
    place.attempt(&["SET", "c", "x"]).unwrap();
}

#[test]
fn the_clock_of_leases_goes_on() {
    let first = now();
    assert!(first.0 > 0 && now() >= first);
}
