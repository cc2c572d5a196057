//! Writes of other regions' clients, done here because here is their home.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use meridian_conflict::clock::VersionVector;
use meridian_topology::home::message::{Answer, Line, Refusal};
use tokio::time::Instant;

use super::ask::left;
use super::forward::AGAIN;
use super::judge::HomeError;
use crate::command::execute::{self, Queued, Ran, Scratch};
use crate::command::{CommandError, Flags, find};
use crate::keyspace::DATABASES;
use crate::region::Region;
use crate::replication::entropy::is_applied;
use crate::resp::{OwnedArgs, Protocol, Reply};

/// What is to be done.
pub(super) struct Work {
    pub(super) lines: Vec<Line>,
    pub(super) transaction: bool,
    pub(super) protocol: u8,
    pub(super) seen: VersionVector,
}

/// Runs it, unless it certainly cannot be. Returns the answer, and the reply's bytes.
pub(super) async fn run(region: &Arc<Region>, work: Work, deadline: Instant) -> (Answer, Vec<u8>) {
    match try_run(region, work, deadline).await {
        Ok(done) => done,
        Err(answer) => (answer, Vec::new()),
    }
}

fn refuse(reason: &str, text: impl Into<String>) -> Answer {
    Answer::Refused(Refusal::Other { reason: reason.into(), text: text.into() })
}

async fn try_run(region: &Arc<Region>, work: Work, deadline: Instant) -> Result<(Answer, Vec<u8>), Answer> {
    if region.is_draining() || !region.is_confirmed() {
        return Err(refuse("starting", "HOME the home is starting or stopping: nothing was done; try again"));
    }
    let queue = queue(work.lines, work.transaction)?;
    if !is_applied(region, &work.seen, left(deadline)).await {
        return Err(Answer::Refused(Refusal::Behind));
    }
    if region.is_strained() {
        region.wait_for_relief().await.map_err(|text| refuse("strained", text))?;
    }
    let protocol = if work.protocol == 3 { Protocol::Resp3 } else { Protocol::Resp2 };
    if left(deadline).is_zero() {
        // Whoever asked has given up.
        return Err(Answer::Refused(Refusal::Behind));
    }
    let mut scratch = Scratch::new(seed(region));
    let mut out = Vec::new();
    let ran = loop {
        if region.keyspace().policies().has_hooks() {
            let commands: Vec<_> = queue.iter().map(|q| (q.command, q.args.args(), q.database)).collect();
            execute::merge_ahead(region, &commands).await;
        }
        let mut reply = Reply::new(&mut out, protocol);
        match at_once(region, &mut scratch, &queue, work.transaction, &mut reply) {
            Ok(ran) => break ran,
            Err(CommandError::Home(HomeError::Forward(_))) => return Err(elsewhere(region).await),
            Err(CommandError::Home(HomeError::Moving { .. })) if !left(deadline).is_zero() => {
                region.homes().until_changed(AGAIN.min(left(deadline))).await;
            }
            Err(CommandError::Home(error)) => return Err(refuse("home", error.to_string())),
            Err(error) => {
                // As the client would be told at home.
                reply.truncate(0);
                reply.error(&error.to_string());
                break Ran::default();
            }
        }
        out.clear();
    };
    let shows = match ran.wrote {
        Some(place) => std::iter::once(place.stamp.dot).collect(),
        None => region.sequencer().applied(),
    };
    let unsure = |text: &str| Answer::Uncertain(text.to_owned());
    region.wait_durable(ran.wait_for).await.map_err(|_| unsure("the home cannot write its log"))?;
    if !scratch.grants().take_valid() {
        return Err(unsure("the home lost its lease while it ran the command"));
    }
    let wrote = ran.wrote.map(|place| place.stamp.dot);
    Ok((Answer::Ran { bytes: out.len() as u64, wrote, shows }, out))
}

/// The commands, if a client could have asked for them.
fn queue(lines: Vec<Line>, transaction: bool) -> Result<Vec<Queued>, Answer> {
    let unknown = || refuse("unknown", "HOME the home does not know this command: nothing was done");
    if lines.is_empty() || (!transaction && lines.len() > 1) {
        return Err(unknown());
    }
    let mut queue = Vec::with_capacity(lines.len());
    for Line { database, words } in lines {
        let command = words.first().and_then(|name| find(name)).ok_or_else(unknown)?;
        let fits = if transaction {
            !command.flags.has(Flags::NO_MULTI)
        } else {
            command.flags.has(Flags::WRITE) && !command.flags.has(Flags::SESSION)
        };
        if !fits || !command.accepts(words.len()) || usize::from(database) >= DATABASES {
            return Err(unknown());
        }
        let args: OwnedArgs = words.iter().collect();
        queue.push(Queued { command, args, database });
    }
    Ok(queue)
}

fn at_once(
    region: &Region,
    scratch: &mut Scratch,
    queue: &[Queued],
    transaction: bool,
    reply: &mut Reply<'_>,
) -> Result<Ran, CommandError> {
    let now = region.wall();
    match queue {
        [only] if !transaction => {
            execute::attempt(region, scratch, only.command, only.args.args(), only.database, now, reply)
        }
        queue => Ok(execute::run_transaction(region, scratch, queue, &[], now, reply)?.unwrap_or_default()),
    }
}

/// What this region knows of who is home.
async fn elsewhere(region: &Arc<Region>) -> Answer {
    let told = super::change(region, |_, book| book.told(|_, _| true)).await;
    Answer::Elsewhere(told.unwrap_or_default())
}

/// Where the random picks of a command start.
fn seed(region: &Region) -> u64 {
    let count = region.homes().runs.fetch_add(1, Ordering::Relaxed);
    region.boot() ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ region.wall().0
}
