//! `meridian check`: what a configuration means, without running it.

use std::fmt::Write;
use std::path::Path;

use meridian_topology::graph::RegionName;
use meridian_topology::plan::Plan;

use crate::config::Settings;
use crate::config::settings::{LogSync, Role};

/// Prints what the configuration at `config` means.
///
/// # Errors
/// Configuration errors.
pub fn run(config: &Path) -> anyhow::Result<()> {
    let settings = Settings::load(config)?;
    print!("{}", report(&settings, &config.display().to_string()));
    Ok(())
}

/// The report on valid settings.
pub fn report(settings: &Settings, file: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(settings, file, &mut text);
    text
}

fn write(settings: &Settings, file: &str, out: &mut String) -> std::fmt::Result {
    let (region, graph) = (&settings.region, &settings.topology.graph);
    writeln!(out, "{file} is valid: region {region} of cluster {}\n", settings.cluster)?;
    write!(out, "{}", Plan::of(graph))?;
    let role = match settings.role() {
        Role::Leader => "leader: accepts client writes",
        Role::Follower => "follower: applies the others' ops, refuses client writes",
    };
    let sync = match settings.log.sync {
        LogSync::Always => "always: a write is on disk before its reply",
        LogSync::Everysec => {
            "everysec: a crash may lose the last second, which peers give back where they have it"
        }
        LogSync::Never => "never: a crash may lose what the system had not written",
    };
    writeln!(out, "\nThis region, {region}")?;
    writeln!(out, "  role       {role}")?;
    writeln!(out, "  fed by     {}", list(graph.feeders(region)))?;
    writeln!(out, "  feeds      {}", list(graph.fed_by(region)))?;
    writeln!(out, "  clients    {} (TCP)", settings.listen.resp)?;
    writeln!(out, "  links      {} (UDP)", settings.listen.link)?;
    writeln!(out, "  admin      http://{}", settings.listen.admin)?;
    writeln!(out, "  log.sync   {sync}")
}

fn list<'a>(names: impl IntoIterator<Item = &'a RegionName>) -> String {
    let names: Vec<&str> = names.into_iter().map(RegionName::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
