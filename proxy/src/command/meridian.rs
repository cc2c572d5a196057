//! `MERIDIAN.*`: what Redis has no command for.

use meridian_conflict::clock::{RegionId, Stamp};
use meridian_conflict::digest;
use meridian_conflict::op::Facet;
use meridian_topology::time::WallMs;

use super::table::ONE;
use super::{Command, CommandError, Context, Family, Flags, Keys, Outcome};
use crate::keyspace::DATABASES;
use crate::region::Region;
use crate::resp::{Args, Reply};

/// Elements of a collection that `MERIDIAN.EXPLAIN` lists.
const EXPLAINED_ELEMENTS: usize = 64;

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "meridian.digest",
        arity: 1,
        flags: Flags::READONLY.and(Flags::WALK).and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.token",
        arity: 1,
        flags: Flags::SESSION.and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.await",
        arity: 3,
        flags: Flags::SESSION.and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.vector",
        arity: 1,
        flags: Flags::READONLY,
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.explain",
        arity: 2,
        flags: Flags::READONLY,
        keys: ONE,
        family: Family::Meridian,
        handler: explain,
    },
];

/// `MERIDIAN.DIGEST`: the digest of everything that shows, as hex.
///
/// # Errors
/// [`CommandError::Store`].
pub async fn digest(region: &Region, now: WallMs, reply: &mut Reply<'_>) -> Outcome {
    let mut sum = 0u128;
    for database in 0..DATABASES as u8 {
        super::keys::walk::for_each_key(region, database, |key, object| {
            sum = sum.wrapping_add(digest::digest(database, key, object, now.0));
        })
        .await?;
    }
    reply.bulk(format!("{sum:032x}").as_bytes());
    Ok(())
}

/// The name of the region with this number, if the configuration knows it.
fn region_name(region: &Region, id: RegionId) -> String {
    let membership = region.membership();
    let known = membership.regions.keys().find(|name| RegionId::of(name.as_str()) == id);
    known.map_or_else(|| format!("{:08x}", id.0), ToString::to_string)
}

/// `MERIDIAN.VECTOR`: an array of region, incarnation, sequence.
fn vector(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let region = context.region();
    let applied = region.sequencer().applied();
    reply.array(applied.iter().count());
    for dot in applied.iter() {
        reply.array(3);
        reply.bulk(region_name(region, dot.actor.region()).as_bytes());
        reply.int(i64::from(dot.actor.incarnation()));
        reply.int(i64::try_from(dot.counter).unwrap_or(i64::MAX));
    }
    Ok(())
}

struct Contribution {
    place: String,
    stamp: Stamp,
    value: String,
}

/// `MERIDIAN.EXPLAIN key`: a flat map of what is known of the key.
fn explain(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = args.get(1).ok_or(CommandError::Syntax)?;
    let region = context.region();
    let Some(object) = context.read_any(key) else {
        reply.null();
        return Ok(());
    };
    let shown = object.is_visible(context.now_ms()).then(|| object.facet()).flatten();
    let mut contributions = Vec::new();
    let mut elided = 0usize;
    for facet in Facet::ALL {
        collect(object, facet, &mut contributions, &mut elided);
    }
    reply.map(6);
    reply.bulk(b"type");
    reply.bulk(shown.map_or("none", Facet::name).as_bytes());
    reply.bulk(b"policy");
    reply.bulk(context.policy(key).as_bytes());
    reply.bulk(b"deadline");
    match object.deadline_ms() {
        Some(at) => reply.int(i64::try_from(at).unwrap_or(i64::MAX)),
        None => reply.null(),
    }
    reply.bulk(b"contributions");
    reply.array(contributions.len());
    for contribution in &contributions {
        let stamp = contribution.stamp;
        reply.map(5);
        reply.bulk(b"place");
        reply.bulk(contribution.place.as_bytes());
        reply.bulk(b"origin");
        reply.bulk(region_name(region, stamp.dot.actor.region()).as_bytes());
        reply.bulk(b"dot");
        reply.bulk(format!("{}:{}", stamp.dot.actor, stamp.dot.counter).as_bytes());
        reply.bulk(b"stamp");
        reply.bulk(format!("{}.{}", stamp.hlc.ms(), stamp.hlc.counter()).as_bytes());
        reply.bulk(b"value");
        reply.bulk(contribution.value.as_bytes());
    }
    reply.bulk(b"elided");
    reply.int(i64::try_from(elided).unwrap_or(i64::MAX));
    reply.bulk(b"hidden_types");
    let hidden: Vec<&str> = Facet::ALL
        .into_iter()
        .filter(|facet| Some(*facet) != object.facet() && object.has_visible(*facet))
        .map(Facet::name)
        .collect();
    reply.array(hidden.len());
    hidden.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

/// Readable and bounded.
fn clip(bytes: &[u8]) -> String {
    const SHOWN: usize = 128;
    match bytes.get(..SHOWN) {
        Some(start) if bytes.len() > SHOWN => format!("{}... ({} bytes)", start.escape_ascii(), bytes.len()),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn collect(
    object: &meridian_conflict::object::Object,
    facet: Facet,
    into: &mut Vec<Contribution>,
    elided: &mut usize,
) {
    let mut add =
        |place: String, stamp: Stamp, value: String| into.push(Contribution { place, stamp, value });
    match facet {
        Facet::String => {
            let Some(string) = object.string() else { return };
            for sibling in string.siblings() {
                add("string".into(), sibling.stamp, clip(&sibling.value));
            }
            for delta in string.deltas().iter().filter(|d| d.is_live()) {
                let sum = delta.total.minus(&delta.seen_total);
                add("string".into(), delta.stamp, format!("+{}", sum.to_text()));
            }
        }
        Facet::Hash => {
            let Some(hash) = object.hash() else { return };
            *elided += hash.fields().len().saturating_sub(EXPLAINED_ELEMENTS);
            for (field, scalar) in hash.fields().iter().take(EXPLAINED_ELEMENTS) {
                for stamp in scalar.live_stamps() {
                    let value = scalar.siblings().iter().find(|s| s.stamp == stamp);
                    let value = value.map_or_else(|| "increments".into(), |s| clip(&s.value));
                    add(format!("hash {}", clip(field)), stamp, value);
                }
            }
        }
        Facet::Set => {
            let Some(set) = object.set() else { return };
            *elided += set.len().saturating_sub(EXPLAINED_ELEMENTS);
            for (member, additions) in set.members().iter().take(EXPLAINED_ELEMENTS) {
                additions
                    .iter()
                    .for_each(|stamp| add(format!("set {}", clip(member)), *stamp, String::new()));
            }
        }
        Facet::SortedSet => {
            let Some(sorted) = object.sorted_set() else { return };
            *elided += sorted.members().len().saturating_sub(EXPLAINED_ELEMENTS);
            for (member, scalar) in sorted.members().iter().take(EXPLAINED_ELEMENTS) {
                for stamp in scalar.live_stamps() {
                    let value = scalar.siblings().iter().find(|s| s.stamp == stamp);
                    let value = value.map_or_else(|| "increments".into(), |s| s.value.get().to_string());
                    add(format!("zset {}", clip(member)), stamp, value);
                }
            }
        }
    }
}
