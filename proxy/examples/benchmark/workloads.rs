//! What is measured, in the order of the table.

mod collection;
mod conflicts;
mod drain;
mod embedded;
mod hooks;
mod join;
mod lag;
mod memory;
mod replicated;
mod restart;
mod unreachable;
mod wire;

use crate::Bench;
use crate::report::Row;

/// One thing to measure; it gives one row or a few.
pub struct Workload {
    /// For `--only`.
    pub name: &'static str,
    /// Measures it.
    pub run: fn(&Bench) -> anyhow::Result<Vec<Row>>,
}

const fn workload(name: &'static str, run: fn(&Bench) -> anyhow::Result<Vec<Row>>) -> Workload {
    Workload { name, run }
}

/// Everything.
pub const WORKLOADS: &[Workload] = &[
    workload("embedded-set-p16", embedded::set_p16),
    workload("embedded-get-p16", embedded::get_p16),
    workload("embedded-get-p64", embedded::get_p64),
    workload("embedded-incr-p16", embedded::incr_p16),
    workload("embedded-hset-p16", embedded::hset_p16),
    workload("embedded-zadd-p16", embedded::zadd_p16),
    workload("embedded-sadd-p16", embedded::sadd_p16),
    workload("embedded-set-p1", embedded::set_p1),
    workload("embedded-get-p1", embedded::get_p1),
    workload("always-set-p1", embedded::always_set_p1),
    workload("always-set-p16", embedded::always_set_p16),
    workload("three-regions-set-p16", replicated::three_set),
    workload("three-regions-incr-p16", replicated::three_incr),
    workload("two-regions-set-p16", replicated::two_set),
    workload("both-loaded", replicated::both_loaded),
    workload("drain", drain::run),
    workload("conflicts", conflicts::run),
    workload("hooks-calls", hooks::calls),
    workload("hooks-beside", hooks::beside),
    workload("join", join::run),
    workload("lag", lag::run),
    workload("memory-key", memory::key),
    workload("memory-lww", memory::lww),
    workload("wire", wire::run),
    workload("collection-hash", collection::hash),
    workload("collection-zset", collection::sorted_set),
    workload("restart", restart::run),
    workload("unreachable", unreachable::run),
];
