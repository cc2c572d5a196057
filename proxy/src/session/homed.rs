//! Writes of keys that have a home: done here, sent there, or refused.

use std::sync::Arc;
use std::time::Instant;

use meridian_conflict::clock::RegionId;
use meridian_topology::home::message::Line;
use meridian_topology::time::WallMs;

use super::{End, Session};
use crate::command::execute::{self, Queued};
use crate::command::{Command, CommandError};
use crate::homes::failover;
use crate::homes::forward::{AGAIN, Forwarded, Write, forward};
use crate::homes::judge::HomeError;
use crate::resp::{Args, Reply};

/// What came of a write that was not done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The home's reply was written.
    Answered,
    /// An error was written.
    Refused,
    /// It is to be judged anew.
    Again,
}

/// A command as it is sent.
fn line(args: Args<'_>, database: u8) -> Line {
    Line { database, words: args.iter().map(|word| word.to_vec().into()).collect() }
}

/// A transaction as it is sent.
pub(super) fn transaction(queue: &[Queued]) -> (Vec<Line>, bool) {
    (queue.iter().map(|queued| line(queued.args.args(), queued.database)).collect(), true)
}

impl Session {
    /// Runs a write while there are home rules.
    pub(super) async fn homed(
        &mut self,
        command: &'static Command,
        args: Args<'_>,
        now: WallMs,
    ) -> Result<(), End> {
        let (since, database, mut now) = (Instant::now(), self.database, now);
        loop {
            let start = self.output.len();
            let (scratch, mut reply) = (&mut self.scratch, Reply::new(&mut self.output, self.protocol));
            match execute::attempt(&self.region, scratch, command, args, database, now, &mut reply) {
                Ok(ran) => {
                    self.note(ran);
                    return Ok(());
                }
                Err(error) => {
                    reply.truncate(start);
                    let work = || (vec![line(args, database)], false);
                    if self.elsewhere(error, since, work).await? != Next::Again {
                        return Ok(());
                    }
                    now = self.region.wall();
                }
            }
        }
    }

    /// Sends what is to be sent away and writes the reply, or the error. Replies so far are sent first.
    pub(super) async fn elsewhere(
        &mut self,
        error: CommandError,
        since: Instant,
        work: impl FnOnce() -> (Vec<Line>, bool),
    ) -> Result<Next, End> {
        let to = match error {
            CommandError::Home(HomeError::Forward(to)) => to,
            CommandError::Home(HomeError::Moving { timeout, .. }) if since.elapsed() < timeout => {
                self.flush().await?;
                self.waited = true;
                self.region.homes().until_changed(AGAIN).await;
                return Ok(Next::Again);
            }
            error => {
                self.reply().error(&error.to_string());
                return Ok(Next::Refused);
            }
        };
        self.flush().await?;
        self.waited = true;
        let (lines, transaction) = work();
        let write = Write { lines, transaction, protocol: self.protocol };
        let (region, client) = (Arc::clone(&self.region), Arc::clone(&self.client));
        let forwarded = tokio::select! {
            forwarded = forward(&region, &to, &write, since) => forwarded,
            () = client.killed() => return Err(End::Asked),
        };
        match forwarded {
            Forwarded::Reply { reply, wrote } => {
                self.reply().raw(&reply);
                self.last_write = wrote.or(self.last_write);
                Ok(Next::Answered)
            }
            Forwarded::Error(text) => {
                self.reply().error(&text);
                Ok(Next::Refused)
            }
            Forwarded::Again => Ok(Next::Again),
        }
    }

    /// `MERIDIAN.HOME MOVE pattern region`, `MERIDIAN.HOME TAKE pattern [FORCE]`
    pub(super) async fn home(&mut self, args: Args<'_>) -> Result<(), End> {
        self.flush().await?;
        self.waited = true;
        let keys = args.get(2).unwrap_or_default().to_vec();
        let region = Arc::clone(&self.region);
        let verb = args.get(1).unwrap_or_default().to_ascii_uppercase();
        let done = match (verb.as_slice(), args.len(), args.get(3)) {
            (b"MOVE", 4, Some(heir)) => {
                let heir = RegionId::of(&String::from_utf8_lossy(heir));
                failover::move_to(&region, keys, heir).await
            }
            (b"TAKE", 3, _) => failover::take(&region, keys, false).await,
            (b"TAKE", 4, Some(word)) if word.eq_ignore_ascii_case(b"FORCE") => {
                failover::take(&region, keys, true).await
            }
            _ => Err(
                "ERR syntax error: MERIDIAN.HOME MOVE pattern region, or MERIDIAN.HOME TAKE pattern [FORCE]"
                    .into(),
            ),
        };
        match done {
            Ok(_) => self.reply().ok(),
            Err(text) => self.reply().error(&text),
        }
        Ok(())
    }
}
