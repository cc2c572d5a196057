//! Runs commands: locks their keys, brings objects in, gives the collected effects their place in
//! the order, applies them.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use meridian_conflict::clock::Seen;
use meridian_conflict::object::Applying;
use meridian_conflict::op::{self, BodyBuilder};
use meridian_topology::time::WallMs;
use smallvec::SmallVec;

use super::{Command, CommandError, Context, Family, Keys};
use crate::homes::judge::{HomeError, Involved, refused};
use crate::homes::rule::Grants;
use crate::keyspace::merging::Merged;
use crate::keyspace::{KeyRef, Locked};
use crate::oplog::LogHealth;
use crate::region::Region;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::sequencer::Place;

/// The longest key, field or member. A row's key holds a key and an element, and the store's rows
/// have keys of at most 64 KiB.
pub const NAME_MAX: usize = 32_000;

/// What a session lends for running commands, so that nothing is allocated anew.
#[derive(Debug, Default)]
pub struct Scratch {
    body: BodyBuilder,
    random: u64,
    /// What a hook has made of the next command's key, which was written since.
    outgrown: Option<Box<Merged>>,
    grants: Grants,
}

impl Scratch {
    /// Scratch space whose random picks start from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { body: BodyBuilder::default(), random: seed, outgrown: None, grants: Grants::default() }
    }

    /// What the replies since the last look rest on.
    pub fn grants(&mut self) -> &mut Grants {
        &mut self.grants
    }
}

/// A queued command of a transaction.
pub struct Queued {
    /// Which.
    pub command: &'static Command,
    /// With what.
    pub args: OwnedArgs,
    /// In which database.
    pub database: u8,
}

/// A key that a session watches, as it was.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The database.
    pub database: u8,
    /// The key.
    pub key: Box<[u8]>,
    /// [`Locked::last_change`] when the watch began.
    pub change: u64,
    /// Whether the key had passed its deadline then.
    pub expired: bool,
}

/// What became of a command or transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    /// The reply must wait until the log is durable past this position; see
    /// [`Region::wait_durable`]. Zero for nothing.
    pub wait_for: u64,
    /// The op that was written, if one was.
    pub wrote: Option<Place>,
}

/// Whether a key, field or member is short enough to be written. For handlers, before the first edit.
///
/// # Errors
/// [`CommandError::NameTooLong`].
pub fn check_element(name: &[u8]) -> Result<(), CommandError> {
    if name.len() > NAME_MAX {
        return Err(CommandError::NameTooLong { length: name.len(), limit: NAME_MAX });
    }
    Ok(())
}

/// The keys that a command names, in their databases.
fn keys_of<'a>(
    command: &Command,
    args: Args<'a>,
    database: u8,
) -> Result<SmallVec<[KeyRef<'a>; 4]>, CommandError> {
    let keys: SmallVec<[KeyRef<'a>; 4]> = match command.keys {
        Keys::Elsewhere(find) => {
            find(args, database).into_iter().map(|(database, key)| KeyRef::new(database, key)).collect()
        }
        keys => keys.of(args).into_iter().map(|key| KeyRef::new(database, key)).collect(),
    };
    keys.iter().try_for_each(|key| check_element(key.key))?;
    Ok(keys)
}

/// Whether a write may begin.
///
/// # Errors
/// [`CommandError::Log`], [`CommandError::Text`] for a follower.
fn check_writable(region: &Region) -> Result<(), CommandError> {
    if region.is_follower() {
        return Err(CommandError::text("READONLY You can't write against a read only replica."));
    }
    match region.log().health() {
        LogHealth::Ok => Ok(()),
        LogHealth::Full => Err(CommandError::Log("the disk is full".into())),
        LogHealth::Failed => Err(CommandError::Log("a write or flush failed; restart this region".into())),
        LogHealth::Closed => Err(CommandError::Log("this region is shutting down".into())),
    }
}

/// Runs one command outside of a transaction. The reply is written, an error's text included.
pub fn run(
    region: &Region,
    scratch: &mut Scratch,
    command: &Command,
    args: Args<'_>,
    database: u8,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Ran {
    let start = reply.written();
    match attempt(region, scratch, command, args, database, now, reply) {
        Ok(ran) => ran,
        Err(error) => {
            reply.truncate(start);
            reply.error(&error.to_string());
            Ran::default()
        }
    }
}

/// Whether a command may run: while another region's state is taken over, none that changes data, and none that
/// shows it unless `seed.stale_reads` is on.
///
/// # Errors
/// [`CommandError::Text`].
pub fn check_loaded(region: &Region, command: &Command) -> Result<(), CommandError> {
    use super::{Family, Flags};
    let idle = matches!((command.keys, command.family), (Keys::None, family) if family != Family::Keys)
        && !command.flags.has(Flags::WRITE)
        && !command.flags.has(Flags::WALK);
    let stale = region.settings().seed.stale_reads && !command.flags.has(Flags::WRITE);
    if region.is_loading() && !idle && !stale {
        return Err(CommandError::text("LOADING Meridian is loading the dataset in memory"));
    }
    Ok(())
}

/// Runs one command outside of a transaction. After an error part of a reply may have been written.
///
/// # Errors
/// [`CommandError`]; nothing was done.
pub fn attempt(
    region: &Region,
    scratch: &mut Scratch,
    command: &Command,
    args: Args<'_>,
    database: u8,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Result<Ran, CommandError> {
    let outgrown = scratch.outgrown.take();
    check_loaded(region, command)?;
    let writes = command.flags.has(super::Flags::WRITE);
    if writes {
        check_writable(region)?;
    }
    let keys = keys_of(command, args, database)?;
    let mut homes = Involved::new(region.homes(), writes);
    involve(&mut homes, command, &keys);
    homes.check(region)?;
    let mut locked = match command.keys {
        Keys::All => region.keyspace().lock_all(),
        Keys::None => region.keyspace().lock(&[]),
        _ => region.keyspace().lock_loaded(&keys, region.log().durable_lsn().0)?,
    };
    homes.grant(region, &mut scratch.grants)?;
    let peeks = command.flags.has(super::Flags::NO_TOUCH);
    if !peeks {
        locked.begin_reading();
    }
    if let Some(merged) = outgrown
        && !writes
        && keys.len() == 1
    {
        locked.show_outgrown(*merged);
    }
    scratch.body.clear();
    let origin = region.origin();
    let mut context = Context {
        region,
        locked: &mut locked,
        body: &mut scratch.body,
        database,
        now_ms: now.0,
        origin,
        random: scratch.random,
    };
    let outcome = (command.handler)(&mut context, args, reply);
    scratch.random = context.random;
    outcome?;
    if !writes || scratch.body.is_empty() {
        let wait_for = if matches!((command.keys, command.family), (Keys::None, Family::Keys)) {
            // It counts all keys, so it may show any of them.
            region.sequencer().end().0
        } else if peeks {
            keys.iter().map(|key| locked.last_change(key) + 1).max().unwrap_or(0)
        } else {
            locked.read_position()
        };
        return Ok(Ran { wait_for, wrote: None });
    }
    let body = scratch.body.body();
    let mut changes = op::changes(body);
    let place = match (keys.as_slice(), changes.next(), changes.next()) {
        ([key], Some(Ok(change)), None) if !matches!(command.keys, Keys::All) => {
            let place = || region.sequencer().local(origin, now, body);
            let applied = locked.apply_one(key, &change, place, |place| {
                (Applying { stamp: place.stamp, seen: Seen::All }, place.lsn)
            });
            applied?.0
        }
        _ => {
            locked.mark_body_dirty(body)?;
            let place = region.sequencer().local(origin, now, body)?;
            locked.apply_body(body, place.stamp, Seen::All, place.lsn.0)?;
            place
        }
    };
    drop(locked);
    region.log().wake();
    Ok(Ran { wait_for: place.lsn.0 + 1, wrote: Some(place) })
}

/// Notes which home rules a write is under.
fn involve<'a>(homes: &mut Involved<'a>, command: &Command, keys: &[KeyRef<'a>]) {
    keys.iter().for_each(|key| homes.key(key.key));
    if matches!(command.keys, Keys::All) {
        homes.everything();
    }
}

/// Has hooks merge what the command is about to look at, so that nobody waits for a hook who waits for a key's
/// lock. A command that only reads one key shows what was merged even if the key is written meanwhile: the key
/// showed it after the command had come in. What others find written meanwhile is merged under the lock after all.
pub async fn merge_ahead_of(
    region: &Region,
    scratch: &mut Scratch,
    command: &Command,
    args: Args<'_>,
    database: u8,
) {
    scratch.outgrown = merge_ahead(region, &[(command, args, database)]).await;
}

/// Has hooks merge what the commands are about to look at. Returns one of those that were outgrown by a write.
pub async fn merge_ahead(region: &Region, commands: &[(&Command, Args<'_>, u8)]) -> Option<Box<Merged>> {
    let policies = region.keyspace().policies().active()?;
    let keys = commands.iter().flat_map(|(command, args, database)| keys_of(command, *args, *database));
    let keys: Vec<KeyRef<'_>> = keys.flatten().filter(|key| policies.is_hooked(key.key)).collect();
    if keys.is_empty() {
        return None;
    }
    // Whatever is wrong with the keys or the store, the command says.
    let unmerged = region.keyspace().unmerged(&keys, region.log().durable_lsn().0).unwrap_or_default();
    if unmerged.is_empty() {
        return None;
    }
    let merge = move || unmerged.into_iter().map(|unmerged| unmerged.merge(&policies)).collect::<Vec<_>>();
    let merged = region.keyspace().policies().workers().run(merge).await.unwrap_or_default();
    merged.into_iter().filter_map(|merged| region.keyspace().keep_merged(merged).err()).last()
}

/// Notes keys as they are now, for `WATCH`.
///
/// # Errors
/// [`CommandError::Store`].
pub fn watch(
    region: &Region,
    keys: &[&[u8]],
    database: u8,
    now: WallMs,
) -> Result<Vec<Watched>, CommandError> {
    let refs: Vec<KeyRef<'_>> = keys.iter().map(|key| KeyRef::new(database, key)).collect();
    let locked = region.keyspace().lock_loaded(&refs, region.log().durable_lsn().0)?;
    Ok(refs
        .iter()
        .map(|key| Watched {
            database,
            key: key.key.into(),
            change: locked.last_change(key),
            expired: locked.read(key).is_some_and(|object| object.is_expired(now.0)),
        })
        .collect())
}

/// Runs a transaction: one op, visible at once. Returns `None`, with nothing done, when a watched
/// key has changed. The replies are written as one array.
///
/// # Errors
/// [`CommandError`]; nothing was done.
pub fn run_transaction(
    region: &Region,
    scratch: &mut Scratch,
    queue: &[Queued],
    watched: &[Watched],
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Result<Option<Ran>, CommandError> {
    queue.iter().try_for_each(|queued| check_loaded(region, queued.command))?;
    let writes = queue.iter().any(|queued| queued.command.flags.has(super::Flags::WRITE));
    if writes {
        check_writable(region)?;
    }
    let mut keys: Vec<KeyRef<'_>> = watched.iter().map(|w| KeyRef::new(w.database, &w.key)).collect();
    let mut homes = Involved::new(region.homes(), writes);
    for queued in queue {
        let named = keys_of(queued.command, queued.args.args(), queued.database)?;
        if queued.command.flags.has(super::Flags::WRITE) {
            involve(&mut homes, queued.command, &named);
        }
        keys.extend(named);
    }
    homes.check(region).map_err(|error| unwatched(region, error, watched))?;
    let mut locked = if queue.iter().any(|queued| matches!(queued.command.keys, Keys::All)) {
        region.keyspace().lock_all_loaded(&keys, region.log().durable_lsn().0)?
    } else {
        region.keyspace().lock_loaded(&keys, region.log().durable_lsn().0)?
    };
    homes.grant(region, &mut scratch.grants).map_err(|error| unwatched(region, error, watched))?;
    let untouched = |w: &Watched| {
        let key = KeyRef::new(w.database, &w.key);
        let expired = locked.read(&key).is_some_and(|object| object.is_expired(now.0));
        locked.last_change(&key) == w.change && expired == w.expired
    };
    if !watched.iter().all(untouched) {
        return Ok(None);
    }
    let ran = run_queue(region, scratch, queue, &mut locked, now, reply)?;
    drop(locked);
    if ran.wrote.is_some() {
        region.log().wake();
    }
    Ok(Some(ran))
}

/// What is watched is watched here: a transaction that depends on it cannot be sent away.
fn unwatched(region: &Region, error: HomeError, watched: &[Watched]) -> HomeError {
    match error {
        HomeError::Forward(to) if !watched.is_empty() => refused(region, to.home, "watch", || {
            format!("the home of {} is {}, and WATCH is of this region: nothing was done", to.key, to.name)
        }),
        error => error,
    }
}

fn run_queue(
    region: &Region,
    scratch: &mut Scratch,
    queue: &[Queued],
    locked: &mut Locked<'_>,
    now: WallMs,
    reply: &mut Reply<'_>,
) -> Result<Ran, CommandError> {
    locked.begin_reading();
    scratch.body.clear();
    let origin = region.origin();
    reply.array(queue.len());
    let mut held = None;
    for queued in queue {
        let (start, done) = (reply.written(), scratch.body.body().len());
        let mut context = Context {
            region,
            locked,
            body: &mut scratch.body,
            database: queued.database,
            now_ms: now.0,
            origin,
            random: scratch.random,
        };
        let mut outcome = (queued.command.handler)(&mut context, queued.args.args(), reply);
        scratch.random = context.random;
        let limit = region.max_op();
        if outcome.is_ok() && scratch.body.body().len() > limit {
            outcome = Err(CommandError::TooLarge { limit });
        }
        if let Err(error) = outcome {
            scratch.body.truncate(done);
            reply.truncate(start);
            reply.error(&error.to_string());
            continue;
        }
        let Some(new) = scratch.body.body().get(done..).filter(|new| !new.is_empty()) else { continue };
        // The order is held from the first effect on: later commands see it under its final stamp,
        // and the position of a store commit cannot fall between op and keys.
        let order = match &mut held {
            Some(order) => order,
            None => held.insert(region.sequencer().hold(origin)?),
        };
        let stamp = order.stamp(now);
        let lsn = order.next_lsn().0;
        locked.mark_body_dirty(new)?;
        locked.apply_body(new, stamp, Seen::All, lsn)?;
    }
    match held {
        Some(order) => {
            let place = order.finish(now, scratch.body.body())?;
            Ok(Ran { wait_for: place.lsn.0 + 1, wrote: Some(place) })
        }
        None => Ok(Ran { wait_for: locked.read_position(), wrote: None }),
    }
}
