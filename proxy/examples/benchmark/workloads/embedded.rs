//! One region with its embedded store against one Redis.

use crate::Bench;
use crate::cluster::Sync;
use crate::contest::Contest;
use crate::load::Load;
use crate::report::{Bar, Row};

const SET: &str = "SET key:KEY VALUE";
const GET: &str = "GET key:KEY";

/// Members of a set: enough that most of a round's are new.
const MEMBERS: usize = 1_000_000;

fn everysec(bench: &Bench, workload: &str, load: Load, bar: Bar) -> anyhow::Result<Vec<Row>> {
    let contest = Contest::start(bench, 1, Sync::Everysec, Sync::Everysec)?;
    if load.command == GET {
        contest.fill()?;
    }
    Ok(vec![contest.run(workload, load, bar)?])
}

fn always(bench: &Bench, workload: &str, load: Load, bar: Bar) -> anyhow::Result<Vec<Row>> {
    let contest = Contest::start(bench, 1, Sync::Always, Sync::Always)?;
    Ok(vec![contest.run(workload, load, bar)?])
}

pub fn set_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, SET P16", Load::new(SET, 16), Bar::AtLeast(1.2, 2.0))
}

pub fn get_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, GET P16", Load::new(GET, 16), Bar::AtLeast(1.2, 1.4))
}

pub fn get_p64(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, GET P64", Load::new(GET, 64), Bar::AtLeast(1.3, 2.0))
}

pub fn incr_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, INCR P16", Load::new("INCR count:KEY", 16), Bar::AtLeast(1.0, 1.4))
}

pub fn hset_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let load = Load::new("HSET hash field:KEY VALUE", 16);
    everysec(bench, "embedded, HSET P16", load, Bar::AtLeast(1.0, 1.4))
}

pub fn zadd_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let load = Load::new("ZADD sorted KEY member:KEY", 16);
    everysec(bench, "embedded, ZADD P16", load, Bar::AtLeast(1.0, 1.4))
}

pub fn sadd_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let load = Load::new("SADD set:ROUND member:KEY", 16).among(MEMBERS);
    everysec(bench, "embedded, SADD P16", load, Bar::AtLeast(0.9, 1.4))
}

pub fn set_p1(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, SET P1", Load::new(SET, 1), Bar::AtLeast(0.9, 1.0))
}

pub fn get_p1(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    everysec(bench, "embedded, GET P1", Load::new(GET, 1), Bar::AtLeast(0.9, 1.0))
}

pub fn always_set_p1(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    always(bench, "embedded, always, SET P1", Load::new(SET, 1), Bar::AtLeast(0.9, 1.1))
}

pub fn always_set_p16(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    always(bench, "embedded, always, SET P16", Load::new(SET, 16), Bar::AtLeast(1.2, 2.0))
}
