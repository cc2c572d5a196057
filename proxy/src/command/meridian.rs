//! `MERIDIAN.*`: what Redis has no command for.
//!
//! | module | room of |
//! |---|---|
//! | [`conflicts`] | `MERIDIAN.CONFLICTS`: the inbox as a reply |
//! | [`explain`] | `MERIDIAN.EXPLAIN` |
//! | `homes` | `MERIDIAN.HOMES` |
//! | [`restore`] | `MERIDIAN.RESTORE` |
//! | `siblings` | `MERIDIAN.SIBLINGS` |

pub mod conflicts;
pub mod explain;
mod homes;
pub mod restore;
mod siblings;

use meridian_conflict::clock::{RegionId, Stamp};
use meridian_conflict::digest;
use meridian_topology::time::WallMs;

use super::table::ONE;
use super::{Command, Context, Family, Flags, Keys, Outcome};
use crate::keyspace::DATABASES;
use crate::region::Region;
use crate::resp::{Args, Reply};

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
        flags: Flags::READONLY.and(Flags::WALK).and(Flags::NO_MULTI),
        keys: ONE,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.conflicts",
        arity: -1,
        flags: Flags::READONLY.and(Flags::WALK).and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.restore",
        arity: 2,
        flags: Flags::SESSION.and(Flags::WRITE).and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.homes",
        arity: 1,
        flags: Flags::READONLY,
        keys: Keys::None,
        family: Family::Meridian,
        handler: homes::homes,
    },
    Command {
        name: "meridian.home",
        arity: -3,
        flags: Flags::SESSION.and(Flags::ADMIN).and(Flags::NO_MULTI),
        keys: Keys::None,
        family: Family::Meridian,
        handler: vector,
    },
    Command {
        name: "meridian.siblings",
        arity: -2,
        flags: Flags::READONLY,
        keys: ONE,
        family: Family::Meridian,
        handler: siblings::siblings,
    },
];

/// `MERIDIAN.DIGEST`: the digest of everything that shows, as hex.
///
/// # Errors
/// [`CommandError::Store`](super::CommandError::Store).
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
pub fn region_name(region: &Region, id: RegionId) -> String {
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

/// A dot's text: origin and sequence.
pub(crate) fn dot_text(stamp: Stamp) -> String {
    format!("{}:{}", stamp.dot.actor, stamp.dot.counter)
}

/// The text of a stamp's clock reading: milliseconds and counter.
pub(crate) fn clock_text(stamp: Stamp) -> String {
    format!("{}.{}", stamp.hlc.ms(), stamp.hlc.counter())
}
