//! What the configuration says of this region alone: its ports, its links, its keys, its disk.

use std::collections::BTreeSet;
use std::fmt::Write;

use meridian_topology::graph::RegionName;
use meridian_topology::plan::{MAX_REHEARSED, Rehearsal, dials};

use super::words::{count, names, paragraph};
use crate::config::Settings;
use crate::config::settings::{ConflictRule, Elsewhere, Hook, LogSync, Policy, Role};
use crate::config::units::{format_duration, format_size};

/// More rules than this are counted, not told.
const RULES: usize = 4;

pub(super) fn write(settings: &Settings, rehearsals: &[Rehearsal], out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nThis region, {}", settings.region)?;
    let role = match settings.role() {
        Role::Leader => "It is a leader: it accepts client writes.",
        Role::Follower => "It is a follower: it applies the others' writes and refuses those of its clients.",
    };
    let listen = &settings.listen;
    let ports = format!("Clients reach it at {} (TCP), operators at http://{}.", listen.resp, listen.admin);
    let mut sentences = vec![role.to_owned(), ports];
    sentences.extend(links(settings, rehearsals));
    sentences.extend(durability(settings));
    sentences.push(policies(&settings.conflicts));
    sentences.extend(homes(settings));
    sentences.iter().try_for_each(|sentence| out.write_str(&paragraph(2, sentence)))
}

/// Who dials whom, for whoever opens ports.
fn links(settings: &Settings, rehearsals: &[Rehearsal]) -> Vec<String> {
    let (region, graph) = (&settings.region, &settings.topology.graph);
    let neighbours = graph.neighbours(region);
    let mut sentences = Vec::new();
    let dialled = dials(graph, region);
    let address = |peer: &RegionName| match settings.regions.get(peer) {
        Some(peer) => format!("{} at {}", peer.name, peer.address),
        None => peer.to_string(),
    };
    if !dialled.is_empty() {
        sentences.push(format!("It dials {}: needs UDP to there.", names(dialled.iter().map(address))));
    }
    let accepted: BTreeSet<&RegionName> = neighbours.difference(&dialled).collect();
    if !accepted.is_empty() {
        let link = settings.listen.link;
        sentences.push(format!("It is dialled by {}: needs UDP from there to {link}.", names(accepted)));
    }
    let opened = rehearsals.iter().flat_map(|rehearsal| &rehearsal.opened);
    let others = opened.filter_map(|(one, other)| match (one == region, other == region) {
        (true, _) => Some(other),
        (_, true) => Some(one),
        _ => None,
    });
    let others: BTreeSet<&RegionName> = others.collect();
    let far = graph.members().iter().filter(|member| *member != region && !neighbours.contains(*member));
    if !others.is_empty() {
        let others = names(others.into_iter().map(address));
        sentences.push(format!("While a region or line is down, it needs UDP to and from {others}, too."));
    } else if graph.members().len() > MAX_REHEARSED && far.count() > 0 {
        sentences.push("While others are down, it may need UDP to and from any other region.".to_owned());
    }
    sentences
}

fn durability(settings: &Settings) -> Vec<String> {
    let log = &settings.log;
    let sync = match log.sync {
        LogSync::Always => "A write is on disk before its reply (log.sync = \"always\").",
        LogSync::Everysec => {
            "A crash may lose the last second of writes, which peers give back where they have it \
             (log.sync = \"everysec\")."
        }
        LogSync::Never => "A crash may lose what the system had not written yet (log.sync = \"never\").",
    };
    if settings.topology.graph.members().len() == 1 {
        return vec![sync.to_owned()];
    }
    let (retention, most) = (format_duration(log.retention), format_size(log.retention_max));
    let away = format!(
        "A region that is away for less than {retention}, or {most} of log, catches up; after that it takes over \
         a neighbour's state."
    );
    vec![sync.to_owned(), away]
}

fn policies(rules: &[ConflictRule]) -> String {
    let name = |policy: &Policy| match policy {
        Policy::Crdt => "merge by type".to_owned(),
        Policy::Lww => "are won by the last writer".to_owned(),
        Policy::MultiValue => "keep all values".to_owned(),
        Policy::Hook(Hook::BuiltIn(kind)) => format!("are merged by {}", kind.name()),
        Policy::Hook(Hook::File(path)) => {
            format!("are merged by {}", path.file_name().unwrap_or_default().to_string_lossy())
        }
    };
    match rules.len() {
        0 => "Conflicts on all keys merge by type.".to_owned(),
        few if few <= RULES => {
            let each = rules.iter().map(|rule| format!("on {} {}", rule.keys, name(&rule.policy)));
            format!(
                "Conflicts {}; on all other keys they merge by type.",
                each.collect::<Vec<_>>().join(", ")
            )
        }
        many => format!("{many} rules say how conflicts are settled; on all other keys they merge by type."),
    }
}

fn homes(settings: &Settings) -> Option<String> {
    let rules = &settings.homes;
    if rules.is_empty() {
        return None;
    }
    if rules.len() > RULES {
        let homes: BTreeSet<&RegionName> = rules.iter().map(|rule| &rule.region).collect();
        return Some(format!("{} give keys a home, in {}.", count(rules.len(), "rule"), names(homes)));
    }
    let each = rules.iter().map(|rule| {
        let (keys, region) = (&rule.keys, &rule.region);
        match rule.elsewhere {
            Elsewhere::Forward => format!("{keys} in {region}, to where other regions forward writes"),
            Elsewhere::Refuse => format!("{keys} in {region}, other regions refuse writes"),
            Elsewhere::Accept => format!("{keys} in {region}, other regions accept writes and count them"),
        }
    });
    Some(format!("Some keys have a home: {}.", each.collect::<Vec<_>>().join("; ")))
}
