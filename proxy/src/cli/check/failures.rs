//! What each single failure does, in sentences: of rehearsals, for as long as there are few regions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::time::Duration;

use meridian_topology::graph::{Graph, RegionName};
use meridian_topology::plan::{Fault, Plan, Recovery, Rehearsal, rehearse};

use super::words::{count, names, paragraph};
use crate::config::Settings;
use crate::config::settings::LogSync;
use crate::config::units::format_duration;

/// More parts than this do not make a sentence: they are counted.
const PARTS: usize = 3;

/// Of more lines than this, only those of the region itself are told one by one.
const LINES: usize = 6;

/// Every line between two neighbours, the smaller name first.
fn lines(graph: &Graph) -> BTreeSet<(RegionName, RegionName)> {
    let feeds = graph.feeds();
    feeds.map(|feed| (feed.from.clone().min(feed.to.clone()), feed.from.max(feed.to))).collect()
}

/// Every rehearsal of a single failure; empty where the cluster is too large for that.
pub(super) fn rehearsals(graph: &Graph) -> Vec<Rehearsal> {
    let regions = graph.members().iter().cloned().map(Fault::Region);
    let lines = lines(graph).into_iter().map(|(one, other)| Fault::Line(one, other));
    regions.chain(lines).filter_map(|fault| rehearse(graph, &fault)).collect()
}

pub(super) fn write(
    settings: &Settings,
    plan: &Plan,
    rehearsals: &[Rehearsal],
    out: &mut String,
) -> std::fmt::Result {
    let (graph, heal_after) = (&settings.topology.graph, settings.topology.heal_after);
    if rehearsals.is_empty() {
        return worst(graph, plan, heal_after, out);
    }
    let everyone: BTreeSet<&RegionName> = graph.members().iter().collect();
    let (mut regions, mut lines) = (Alike::default(), Alike::default());
    let (mut level, mut unsaid) = (true, Vec::new());
    let few = rehearsals.len() - everyone.len() <= LINES;
    for rehearsal in rehearsals {
        match &rehearsal.fault {
            Fault::Region(region) => {
                level &= rehearsal.level;
                let others = everyone.iter().copied().filter(|other| *other != region).collect();
                regions.add(region.to_string(), told(rehearsal, &others, heal_after));
            }
            Fault::Line(one, other) if few || [one, other].contains(&&settings.region) => {
                lines.add(format!("{one} - {other}"), told(rehearsal, &everyone, heal_after));
            }
            Fault::Line(..) => unsaid.push(rehearsal),
        }
    }
    let after = format_duration(heal_after);
    write!(out, "\nIf a region fails, which its neighbours notice after {after}\n{regions}")?;
    if level {
        let disk = match settings.log.sync {
            LogSync::Always => "is on its disk and follows when it is back",
            LogSync::Everysec | LogSync::Never => "follows when it is back, as far as it had been flushed",
        };
        let text = format!(
            "Whichever it is, its clients have to go to another region. What it had told any other region \
             reaches all of them; what it had told nobody {disk}."
        );
        out.write_str(&paragraph(2, &text))?;
    }
    write!(out, "\nIf the line between two regions is cut, which both notice after {after}\n{lines}")?;
    if let Some(worst) =
        unsaid.iter().map(|rehearsal| rehearsal.healed).max_by_key(|healed| healed.unwrap_or(u64::MAX))
    {
        let others = count(unsaid.len(), "other line");
        match worst {
            Some(healed) => writeln!(
                out,
                "  {others}: all writes arrive again after about {}.",
                times(heal_after, healed)
            )?,
            None => writeln!(out, "  {others}: some writes arrive again only when it is mended.")?,
        }
    }
    writeln!(out, "  Whichever it is, all regions go on serving their clients.")
}

/// What happens, and all the failures that make it happen.
#[derive(Default)]
struct Alike(Vec<(String, Vec<String>)>);

impl Alike {
    fn add(&mut self, fault: String, text: String) {
        match self.0.iter_mut().find(|(known, _)| *known == text) {
            Some((_, faults)) => faults.push(fault),
            None => self.0.push((text, vec![fault])),
        }
    }
}

impl fmt::Display for Alike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut each = self.0.iter();
        each.try_for_each(|(text, faults)| f.write_str(&paragraph(2, &format!("{}: {text}", names(faults)))))
    }
}

fn times(heal_after: Duration, healed: u64) -> String {
    format_duration(heal_after.saturating_mul(u32::try_from(healed).unwrap_or(u32::MAX)))
}

/// What one failure did among `live`.
fn told(rehearsal: &Rehearsal, live: &BTreeSet<&RegionName>, heal_after: Duration) -> String {
    if let (true, Some(only)) = (live.len() == 1, live.first()) {
        return format!("{only} is alone and goes on.");
    }
    if rehearsal.stalled.is_empty() {
        return "the others do not notice.".to_owned();
    }
    let stalled = stalled(rehearsal, live);
    let Some(healed) = rehearsal.healed else {
        return format!("{stalled}, until it is mended; then everything is made up for.");
    };
    let after = times(heal_after, healed);
    let mut text = format!("{stalled}. About {after} later {}", taken(rehearsal, live));
    match rehearsal.opened.len() {
        0 => {}
        opened => {
            let links = rehearsal.opened.iter().map(|(one, other)| format!("{one} - {other}"));
            let noun = if opened == 1 { "a link" } else { "links" };
            text.push_str(&format!(", over {noun} opened for it ({})", names(links)));
        }
    }
    text.push('.');
    text
}

/// Who no longer gets whose writes.
fn stalled(rehearsal: &Rehearsal, live: &BTreeSet<&RegionName>) -> String {
    let pairs: usize = rehearsal.stalled.values().map(BTreeSet::len).sum();
    let all = live.len() * live.len().saturating_sub(1);
    if pairs == all {
        return format!("{} no longer get each other's writes", names(live));
    }
    if rehearsal.stalled.len() > PARTS {
        return format!("writes stop on {pairs} of {all} ways between the regions");
    }
    let missed = |(to, origins): (&RegionName, &BTreeSet<RegionName>)| {
        format!("{to} no longer gets the writes of {}", names(origins))
    };
    rehearsal.stalled.iter().map(missed).collect::<Vec<_>>().join("; ")
}

/// From whom they come instead.
fn taken(rehearsal: &Rehearsal, live: &BTreeSet<&RegionName>) -> String {
    let taken = &rehearsal.taken;
    let all_from = |hub: &&&RegionName| {
        live.iter().filter(|region| *region != *hub).all(|region| {
            let wanted = live.len().saturating_sub(1);
            taken.get(*region).and_then(|from| from.get(**hub)).is_some_and(|had| had.len() == wanted)
        })
    };
    if let (true, Some(hub)) = (live.len() > 2, live.iter().find(all_from)) {
        return format!("{hub} feeds all others as the hub did");
    }
    let direct = |from: &BTreeMap<RegionName, BTreeSet<RegionName>>| {
        from.iter().all(|(from, origins)| origins.len() == 1 && origins.contains(from))
    };
    if live.len() > 2 && taken.len() == live.len() && taken.values().all(direct) {
        return "they feed each other directly".to_owned();
    }
    let each = taken.iter().flat_map(|(to, by)| by.iter().map(move |(from, origins)| (to, from, origins)));
    let each: Vec<String> = each
        .map(|(to, from, origins)| match origins.contains(from) && origins.len() == 1 {
            true => format!("{to} takes the writes of {from} from {from} itself"),
            false => format!("{to} takes the writes of {} from {from}", names(origins)),
        })
        .collect();
    match each.len() {
        0 => "they come again by the ways that are left".to_owned(),
        few if few <= PARTS => each.join("; "),
        many => {
            let shown: Vec<&str> = each.iter().take(PARTS - 1).map(String::as_str).collect();
            let more = many - shown.len();
            format!("they come by other ways: {}; and {more} more changes like these", shown.join("; "))
        }
    }
}

/// Of many regions only the worst that can happen.
fn worst(graph: &Graph, plan: &Plan, heal_after: Duration, out: &mut String) -> std::fmt::Result {
    let after = format_duration(heal_after);
    let pairs = plan.paths().count();
    let regions = graph.members().iter().cloned().map(Fault::Region);
    let region = regions.map(|fault| (plan.broken_by(&fault), fault)).max();
    let lines = lines(graph).into_iter().map(|(one, other)| Fault::Line(one, other));
    let line = lines.map(|fault| (plan.broken_by(&fault), fault)).max();
    writeln!(out, "\nThe worst single failures")?;
    if let Some((broken, Fault::Region(region))) = region {
        if broken == 0 {
            writeln!(out, "  Whichever region fails, the others do not notice.")?;
        } else {
            write!(
                out,
                "  If {region} fails, {broken} of {pairs} ways between regions stop. After {after} "
            )?;
            let recovery = plan.failure(&region).map(|failure| &failure.recovery);
            match recovery {
                Some(Recovery::Standby { hub }) => writeln!(out, "{hub} feeds all others as the hub.")?,
                Some(Recovery::Around { feeds }) => writeln!(out, "ops go around it: {}.", names(feeds))?,
                Some(Recovery::Unneeded) | None => writeln!(out, "they go over the feeds that are left.")?,
            }
        }
    }
    if let Some((broken, Fault::Line(one, other))) = line {
        writeln!(
            out,
            "  If the line between {one} and {other} is cut, {} until ops go around it.",
            if broken == 1 { "1 way stops".to_owned() } else { format!("{broken} ways stop") }
        )?;
    }
    Ok(())
}
