//! The settings written back as TOML, every key and default spelled out.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::path::Path;

use meridian_topology::shape::Shape;

use super::settings::{Hook, LogSync, MetricsAccess, Policy, Role, Settings, StoreKind};
use super::units::{format_duration, format_size};

impl Settings {
    /// A configuration file that resolves to these settings if it lies in `directory`: paths below it
    /// are written relative to it. Holds no secret: password and token stay in their files, and a user and
    /// password in `store.url` are left out.
    pub fn to_toml(&self, directory: &Path) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut Writer { text: &mut text, directory });
        text
    }

    fn write(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.pair("cluster", quoted(&self.cluster))?;
        out.pair("region", quoted(&self.region))?;
        out.path("data_dir", &self.data_dir)?;
        out.table("listen")?;
        out.pair("resp", quoted(self.listen.resp))?;
        out.pair("link", quoted(self.listen.link))?;
        out.pair("admin", quoted(self.listen.admin))?;
        self.write_admin(out)?;
        if let Some(auth) = &self.auth {
            out.table("auth")?;
            out.path("password_file", &auth.password_file)?;
        }
        if let Some(tls) = &self.tls {
            out.table("tls")?;
            out.path("ca", &tls.ca)?;
            out.path("cert", &tls.cert)?;
            out.path("key", &tls.key)?;
        }
        self.write_topology(out)?;
        self.write_store(out)?;
        for rule in &self.conflicts {
            out.array("conflicts")?;
            out.pair("keys", quoted(&rule.keys))?;
            out.policy(&rule.policy)?;
            if let Some(shadow) = &rule.shadow {
                // The table of the rule that was begun last.
                out.table("conflicts.shadow")?;
                out.policy(shadow)?;
            }
        }
        self.write_homes(out)?;
        self.write_inbox(out)?;
        out.table("clock")?;
        out.pair("max_skew", quoted(format_duration(self.clock.max_skew)))?;
        self.write_limits(out)?;
        out.table("seed")?;
        out.pair("donor_pace", quoted(format_size(self.seed.donor_pace)))?;
        out.pair("donor_share", self.seed.donor_share)?;
        out.pair("stale_reads", self.seed.stale_reads)?;
        out.table("anti_entropy")?;
        out.pair("enabled", self.anti_entropy.enabled)?;
        out.pair("keys_per_second", self.anti_entropy.keys_per_second)?;
        out.pair("every", quoted(format_duration(self.anti_entropy.every)))?;
        out.table("dev")?;
        out.pair("faults", self.dev.faults)
    }

    fn write_admin(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.table("admin")?;
        if let Some(token_file) = &self.admin.token_file {
            out.path("token_file", token_file)?;
        }
        let open = self.admin.metrics == MetricsAccess::Open;
        out.pair("metrics", quoted(if open { "open" } else { "token" }))
    }

    fn write_topology(&self, out: &mut Writer<'_>) -> fmt::Result {
        let shape = &self.topology.shape;
        out.table("topology")?;
        out.pair("shape", quoted(shape.kind()))?;
        match shape {
            Shape::Ring { order } => out.pair("order", list(order.iter().map(quoted)))?,
            Shape::Star { hub, standby_hubs } => {
                out.pair("hub", quoted(hub))?;
                if !standby_hubs.is_empty() {
                    out.pair("standby_hubs", list(standby_hubs.iter().map(quoted)))?;
                }
            }
            Shape::Mesh => {}
            Shape::Custom { feeds } => {
                let pairs = feeds.iter().map(|feed| list([quoted(&feed.from), quoted(&feed.to)]));
                out.pair("feeds", list(pairs))?;
            }
        }
        out.pair("heal_after", quoted(format_duration(self.topology.heal_after)))?;
        let regions: &BTreeMap<_, _> = &self.regions;
        for region in regions.values() {
            out.array("regions")?;
            out.pair("name", quoted(&region.name))?;
            out.pair("address", quoted(&region.address))?;
            out.pair("role", quoted(if region.role == Role::Leader { "leader" } else { "follower" }))?;
        }
        Ok(())
    }

    fn write_store(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.table("store")?;
        out.pair("kind", quoted(if self.store.kind == StoreKind::Embedded { "embedded" } else { "redis" }))?;
        out.pair("memory_max", quoted(format_size(self.store.memory_max)))?;
        if let StoreKind::Redis { url, position_db } = &self.store.kind {
            out.pair("url", quoted(without_login(url)))?;
            out.pair("position_db", position_db)?;
        }
        out.table("log")?;
        let sync = match self.log.sync {
            LogSync::Always => "always",
            LogSync::Everysec => "everysec",
            LogSync::Never => "never",
        };
        out.pair("sync", quoted(sync))?;
        out.pair("retention", quoted(format_duration(self.log.retention)))?;
        out.pair("retention_max", quoted(format_size(self.log.retention_max)))
    }

    fn write_homes(&self, out: &mut Writer<'_>) -> fmt::Result {
        for rule in &self.homes {
            out.array("homes")?;
            out.pair("keys", quoted(&rule.keys))?;
            out.pair("region", quoted(&rule.region))?;
            out.pair("elsewhere", quoted(rule.elsewhere.name()))?;
            out.pair("lease", quoted(format_duration(rule.lease)))?;
            out.pair("timeout", quoted(format_duration(rule.timeout)))?;
        }
        Ok(())
    }

    fn write_inbox(&self, out: &mut Writer<'_>) -> fmt::Result {
        let inbox = &self.inbox;
        out.table("inbox")?;
        out.pair("max", quoted(format_size(inbox.max)))?;
        out.pair("retention", quoted(format_duration(inbox.retention)))?;
        out.pair("records_per_second", inbox.records_per_second)?;
        out.pair("burst", inbox.burst)
    }

    fn write_limits(&self, out: &mut Writer<'_>) -> fmt::Result {
        let limits = &self.limits;
        out.table("limits")?;
        out.pair("max_clients", limits.max_clients)?;
        for (key, bytes) in [
            ("proto_max_bulk_len", limits.proto_max_bulk_len),
            ("client_output_max", limits.client_output_max),
            ("query_buffer_max", limits.query_buffer_max),
            ("pending_max", limits.pending_max),
            ("tail_cache", limits.tail_cache),
            ("max_op", limits.max_op),
        ] {
            out.pair(key, quoted(format_size(bytes)))?;
        }
        Ok(())
    }
}

struct Writer<'a> {
    text: &'a mut String,
    directory: &'a Path,
}

impl Writer<'_> {
    fn table(&mut self, name: &str) -> fmt::Result {
        writeln!(self.text, "\n[{name}]")
    }

    fn array(&mut self, name: &str) -> fmt::Result {
        writeln!(self.text, "\n[[{name}]]")
    }

    fn policy(&mut self, policy: &Policy) -> fmt::Result {
        let name = match policy {
            Policy::Crdt => "crdt",
            Policy::Lww => "lww",
            Policy::MultiValue => "multi-value",
            Policy::Hook(_) => "hook",
        };
        self.pair("policy", quoted(name))?;
        match policy {
            Policy::Hook(Hook::BuiltIn(kind)) => self.pair("hook", quoted(kind.name())),
            Policy::Hook(Hook::File(path)) => self.path("hook", path),
            Policy::Crdt | Policy::Lww | Policy::MultiValue => Ok(()),
        }
    }

    fn pair(&mut self, key: &str, value: impl Display) -> fmt::Result {
        writeln!(self.text, "{key} = {value}")
    }

    fn path(&mut self, key: &str, path: &Path) -> fmt::Result {
        let shown = path.strip_prefix(self.directory).unwrap_or(path);
        // The directory itself is not nothing.
        let shown = if shown.as_os_str().is_empty() { Path::new(".") } else { shown };
        self.pair(key, quoted(shown.display()))
    }
}

/// A TOML string, escaped.
fn quoted(value: impl Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

/// `scheme://user:password@rest` without the user and password.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}
