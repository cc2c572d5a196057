//! `MERIDIAN.EXPLAIN key`: whose writes make up what a key shows, and how its last conflict was settled.

use meridian_conflict::clock::Stamp;
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use meridian_conflict::policy::{HookId, Policy};
use meridian_conflict::reading;
use meridian_topology::time::WallMs;

use super::{clock_text, dot_text, region_name};
use crate::command::execute::check_element;
use crate::command::{CommandError, Outcome};
use crate::inbox::Record;
use crate::inbox::record::id_text;
use crate::keyspace::KeyRef;
use crate::region::Region;
use crate::resp::{Args, Reply};

/// Elements of a collection that are listed.
const EXPLAINED_ELEMENTS: usize = 64;

struct Contribution {
    place: String,
    stamp: Stamp,
    value: String,
}

/// A flat map of what is known of the key; null if there is nothing.
///
/// # Errors
/// [`CommandError`]
pub async fn explain(
    region: &Region,
    args: Args<'_>,
    database: u8,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Outcome {
    let key = args.get(1).ok_or(CommandError::Syntax)?;
    check_element(key)?;
    // Before the key is locked: nothing is read from the store under its lock.
    let last = last_conflict(region, database, key).await?;
    let key = KeyRef::new(database, key);
    let locked = region.keyspace().lock_loaded(&[key], region.log().durable_lsn().0)?;
    match (locked.object(&key), &last) {
        (None, None) => reply.null(),
        (object, last) => {
            let policy = locked.policies().map_or(&Policy::Crdt, |policies| policies.policy(key.key));
            let confined = |hook: &HookId| {
                locked.policies().is_some_and(|all| all.quarantine().is_confined(&hook.identity))
            };
            let hook = match policy {
                Policy::Hook(hook) if confined(hook) => Some(format!("{} (in quarantine)", hook.name)),
                Policy::Hook(hook) => Some(hook.name.to_string()),
                _ => None,
            };
            describe(region, (policy, hook), object.unwrap_or(&Object::default()), last.as_ref(), now, reply);
        }
    }
    Ok(())
}

async fn last_conflict(region: &Region, database: u8, key: &[u8]) -> Result<Option<Record>, CommandError> {
    let (inbox, key) = (std::sync::Arc::clone(region.inbox()), key.to_vec());
    let found = tokio::task::spawn_blocking(move || inbox.last_of(database, &key)).await;
    // Only a runtime that is shutting down loses the task.
    found.map_or(Ok(None), |found| Ok(found?))
}

fn describe(
    region: &Region,
    (policy, hook): (&Policy, Option<String>),
    object: &Object,
    last: Option<&Record>,
    now: WallMs,
    reply: &mut Reply<'_>,
) {
    let read = reading::seen_under(policy, object);
    let shown = read.is_visible(now.0).then(|| read.facet()).flatten();
    let mut contributions = Vec::new();
    let mut elided = 0usize;
    for facet in Facet::ALL {
        collect(object, facet, &mut contributions, &mut elided);
    }
    reply.map(8);
    reply.bulk(b"type");
    reply.bulk(shown.map_or("none", Facet::name).as_bytes());
    reply.bulk(b"policy");
    reply.bulk(policy.name().as_bytes());
    reply.bulk(b"hook");
    match hook {
        Some(name) => reply.bulk(name.as_bytes()),
        None => reply.null(),
    }
    reply.bulk(b"deadline");
    match read.deadline_ms() {
        Some(at) => reply.int(i64::try_from(at).unwrap_or(i64::MAX)),
        None => reply.null(),
    }
    reply.bulk(b"contributions");
    reply.array(contributions.len());
    for contribution in &contributions {
        let stamp = contribution.stamp;
        reply.map(5);
        for (name, value) in [
            ("place", &contribution.place),
            ("origin", &region_name(region, stamp.dot.actor.region())),
            ("dot", &dot_text(stamp)),
            ("stamp", &clock_text(stamp)),
            ("value", &contribution.value),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
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
    reply.bulk(b"last_conflict");
    match last {
        Some(record) => describe_conflict(record, reply),
        None => reply.null(),
    }
}

/// What decided, and the id that tells the rest.
fn describe_conflict(record: &Record, reply: &mut Reply<'_>) {
    reply.map(7);
    for (name, value) in [
        ("id", id_text(record.id).as_bytes()),
        ("kind", record.kind.as_bytes()),
        ("rule", record.rule.as_bytes()),
        ("outcome", record.outcome.as_bytes()),
        ("element", record.element.as_slice()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(value);
    }
    reply.bulk(b"at");
    reply.int(i64::try_from(record.at_ms).unwrap_or(i64::MAX));
    reply.bulk(b"restored");
    reply.bool(record.restored_ms.is_some());
}

/// Readable and bounded.
fn clip(bytes: &[u8]) -> String {
    const SHOWN: usize = 128;
    match bytes.get(..SHOWN) {
        Some(start) if bytes.len() > SHOWN => format!("{}... ({} bytes)", start.escape_ascii(), bytes.len()),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn collect(object: &Object, facet: Facet, into: &mut Vec<Contribution>, elided: &mut usize) {
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
