//! `INFO`.

use std::fmt::Write;

use crate::command::{Context, Outcome};
use crate::keyspace::DATABASES;
use crate::resp::{Args, Reply};

const SECTIONS: &[&str] =
    &["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "keyspace", "meridian"];

/// `INFO [section ...]`.
pub(super) fn info(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let asked: Vec<String> =
        args.tail(1).iter().map(|a| String::from_utf8_lossy(a).to_ascii_lowercase()).collect();
    let everything =
        asked.is_empty() || asked.iter().any(|a| matches!(a.as_str(), "all" | "default" | "everything"));
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|s| everything || asked.iter().any(|a| a == *s)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        write_section(context, section, &mut text);
    }
    reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

fn write_section(context: &Context<'_, '_>, section: &str, out: &mut String) {
    let region = context.region();
    let settings = region.settings();
    let mut lines: Vec<(&str, String)> = Vec::new();
    match section {
        "server" => {
            lines.push(("redis_version", super::REDIS_VERSION.into()));
            lines.push(("redis_mode", "standalone".into()));
            lines.push(("meridian_version", env!("CARGO_PKG_VERSION").into()));
            lines.push(("os", std::env::consts::OS.into()));
            lines.push(("arch_bits", usize::BITS.to_string()));
            lines.push(("process_id", std::process::id().to_string()));
            lines.push(("tcp_port", settings.listen.resp.port().to_string()));
            lines.push(("uptime_in_seconds", region.uptime().as_secs().to_string()));
            lines.push(("uptime_in_days", (region.uptime().as_secs() / 86_400).to_string()));
        }
        "clients" => {
            lines.push(("connected_clients", region.clients().len().to_string()));
            lines.push(("maxclients", settings.limits.max_clients.to_string()));
            lines.push(("blocked_clients", "0".into()));
        }
        "memory" => {
            lines.push(("used_memory", region.keyspace().memory_bytes().to_string()));
            lines.push(("maxmemory", settings.store.memory_max.to_string()));
            lines.push(("maxmemory_policy", "noeviction".into()));
        }
        "persistence" => {
            lines.push(("loading", u8::from(region.is_loading()).to_string()));
            lines.push(("aof_enabled", "1".into()));
            lines.push(("oplog_bytes", region.log().total_bytes().to_string()));
            lines.push(("store_lag_objects", region.keyspace().dirty_objects().to_string()));
        }
        "stats" => {
            let metrics = region.metrics();
            let commands: u64 = metrics.clients.commands.iter().map(|counter| counter.get()).sum();
            lines.push(("total_connections_received", region.clients().accepted().to_string()));
            lines.push(("total_commands_processed", commands.to_string()));
            lines.push(("conflicts_total", metrics.conflicts.total().to_string()));
        }
        "replication" => {
            lines.push(("role", if region.is_follower() { "slave" } else { "master" }.into()));
            lines.push(("connected_slaves", "0".into()));
        }
        "cpu" => {}
        "keyspace" => {
            for database in 0..DATABASES {
                let keys = region.keyspace().len(database as u8);
                if keys > 0 {
                    lines.push(("", format!("db{database}:keys={keys},expires=0,avg_ttl=0")));
                }
            }
        }
        _ => {
            lines.push(("cluster", settings.cluster.clone()));
            lines.push(("region", settings.region.to_string()));
            lines.push(("origin", region.origin().to_string()));
            lines.push(("topology", region.membership().topology.shape.to_string()));
        }
    }
    let mut title = section.to_owned();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "# {title}\r\n");
    for (name, value) in lines {
        let _ = if name.is_empty() { write!(out, "{value}\r\n") } else { write!(out, "{name}:{value}\r\n") };
    }
}
