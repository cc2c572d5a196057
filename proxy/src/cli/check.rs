//! `meridian check`: what a configuration means, without running it, for somebody who is woken by it.

mod failures;
mod region;
mod words;

use std::fmt::Write;
use std::path::Path;

use meridian_topology::graph::{Graph, RegionName};
use meridian_topology::plan::{MAX_REHEARSED, Plan};

use crate::config::Settings;
use words::{count, names, paragraph};

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
    let graph = &settings.topology.graph;
    writeln!(out, "{file} is valid: region {} of cluster {}\n", settings.region, settings.cluster)?;
    writeln!(out, "topology: {}", graph.shape())?;
    let plan = Plan::of(graph);
    let rehearsals = failures::rehearsals(graph);
    if graph.members().len() > 1 {
        joined(settings, &plan, out)?;
        failures::write(settings, &plan, &rehearsals, out)?;
    }
    region::write(settings, &rehearsals, out)
}

/// Who feeds whom.
fn joined(settings: &Settings, plan: &Plan, out: &mut String) -> std::fmt::Result {
    let graph = &settings.topology.graph;
    let feeds = graph.feeds().count();
    write!(out, "{}, {}; ", count(graph.members().len(), "region"), count(feeds, "feed"))?;
    let Some(longest) = plan.longest() else { return writeln!(out) };
    let hops = count(longest.hops(), "hop");
    let all = graph.members().len() <= MAX_REHEARSED;
    match (all, longest.regions()) {
        (false, [origin, .., last]) => {
            writeln!(out, "the longest way of a write is {hops}, from {origin} to {last}.")?
        }
        _ => writeln!(out, "the longest way of a write is {hops}, {longest}.")?,
    }
    writeln!(out, "\nWho feeds whom")?;
    if longest.hops() == 1 {
        return writeln!(out, "  Every region feeds every other, so all writes arrive directly.");
    }
    let mut shown = graph.members().iter().filter(|member| all || **member == settings.region);
    shown.try_for_each(|region| out.write_str(&paragraph(2, &feeds_of(graph, plan, region))))
}

/// `eu is fed by ap and feeds us. Writes made in us reach it through ap, in 2 hops.`
fn feeds_of(graph: &Graph, plan: &Plan, region: &RegionName) -> String {
    let (feeders, fed) = (graph.feeders(region), graph.fed_by(region));
    let mut text = if feeders == fed {
        format!("{region} and {} feed each other.", names(feeders))
    } else {
        format!("{region} is fed by {} and feeds {}.", names(feeders), names(fed))
    };
    let routes = graph.routes(region);
    let mut far = false;
    for feeder in feeders {
        let far_origins = routes.iter().filter(|(origin, from)| *from == feeder && *origin != feeder);
        let origins: Vec<&RegionName> = far_origins.map(|(origin, _)| origin).collect();
        let hops = origins.iter().filter_map(|origin| plan.path(origin, region)).map(|path| path.hops());
        let (Some(least), Some(most)) = (hops.clone().min(), hops.max()) else { continue };
        far = true;
        let hops = if least == most { count(most, "hop") } else { format!("{least} to {most} hops") };
        text.push_str(&format!(" Writes made in {} reach it through {feeder}, in {hops}.", names(origins)));
    }
    if !far {
        text.push_str(" Every write reaches it directly.");
    }
    text
}
