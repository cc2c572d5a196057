//! A store that comes back empty, or as an older copy, beside a log that went on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meridian_conflict::clock::Origin;
use tempfile::TempDir;

use super::{Region, ask, bulk, open, settings};
use crate::metrics::Metrics;
use crate::resp::Value;

/// A region that has stopped, and its store as it was before the last writes.
struct Stopped {
    directory: TempDir,
    origin: Origin,
}

impl Stopped {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (region, threads) = open(directory.path(), "always", "");
        let origin = region.origin();
        ask(&region, "SET a old");
        ask(&region, "INCRBY n 5");
        threads.stop().unwrap();
        drop(region);
        let this = Self { directory, origin };
        copy(&this.store(), &this.path("older"));
        let (region, threads) = open(this.directory.path(), "always", "");
        ask(&region, "SET a new");
        ask(&region, "INCRBY n 3");
        threads.stop().unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("data/store")
    }

    fn put_back_the_older_store(&self) {
        fs::remove_dir_all(self.store()).unwrap();
        copy(&self.path("older"), &self.store());
    }

    /// Starts it and sees that nothing is missing.
    fn has_all(&self, replayed: u64) {
        let (region, threads) = open(self.directory.path(), "always", "");
        assert_eq!(region.recovered().replayed, replayed);
        assert_eq!(region.origin(), self.origin);
        assert_eq!(ask(&region, "GET a"), bulk("new"));
        assert_eq!(ask(&region, "GET n"), bulk("8"));
        assert_eq!(ask(&region, "INCR n"), Value::Int(9));
        assert_eq!(region.sequencer().progress().0, 5, "no number was given out twice");
        threads.stop().unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn r2_a_store_that_comes_back_older_is_noticed_by_its_position_and_brought_forward() {
    let stopped = Stopped::new();
    stopped.put_back_the_older_store();
    stopped.has_all(2);
}

#[test]
fn r2_a_store_that_comes_back_empty_is_built_again_from_the_log() {
    let stopped = Stopped::new();
    fs::remove_dir_all(stopped.store()).unwrap();
    stopped.has_all(4);
}

#[tokio::test]
async fn r2_a_store_older_than_the_log_reaches_back_is_refused_and_nothing_is_changed() {
    let stopped = Stopped::new();
    // A crash ends a segment; what it held is in the store.
    let (region, threads) = open(stopped.directory.path(), "always", "");
    ask(&region, "SET b 1");
    region.log().sync_now().await.unwrap();
    threads.crash();
    drop(region);
    let (region, threads) = open(stopped.directory.path(), "always", "");
    ask(&region, "SET b 2");
    assert!(region.committer().commit_now().await);
    assert!(region.log().truncate_below(region.committer().committed_lsn()).unwrap() > 0);
    threads.stop().unwrap();
    drop(region);
    copy(&stopped.store(), &stopped.path("newer"));
    stopped.put_back_the_older_store();
    let settings = settings(stopped.directory.path(), "always", "");
    let refused = Region::open(settings, std::sync::Arc::new(Metrics::new().unwrap()));
    let error = format!("{:#}", refused.err().unwrap());
    assert!(error.contains("behind the store's position") && error.contains("Put back"), "{error}");
    // The right one still fits.
    fs::remove_dir_all(stopped.store()).unwrap();
    copy(&stopped.path("newer"), &stopped.store());
    let (region, threads) = open(stopped.directory.path(), "always", "");
    assert_eq!(ask(&region, "GET b"), bulk("2"));
    assert_eq!(ask(&region, "GET n"), bulk("8"));
    threads.stop().unwrap();
}
