//! From a command's name to whoever runs it.

use std::sync::Arc;

use meridian_topology::time::WallMs;

use super::{After, End, Session, transaction};
use crate::command::execute;
use crate::command::{Command, Family, Flags, Keys, find};
use crate::resp::{Args, ProtocolError, Reply};

impl Session {
    pub(super) async fn command(
        &mut self,
        args: Args<'_>,
        now: WallMs,
        first: &mut Option<Family>,
    ) -> Result<After, End> {
        let start = self.output.len();
        let after = self.dispatch(args, now, first).await?;
        if self.skip == 1 || self.silent {
            // What was there before went out if this command had to wait.
            self.output.truncate(if self.waited { 0 } else { start });
        }
        self.skip = self.skip.saturating_sub(1);
        Ok(after)
    }

    async fn dispatch(
        &mut self,
        args: Args<'_>,
        now: WallMs,
        first: &mut Option<Family>,
    ) -> Result<After, End> {
        let name = args.first().unwrap_or_default();
        let Some(command) = self.find(name) else {
            if is_http(name) {
                return Err(End::Protocol(ProtocolError::HttpProbe));
            }
            self.refuse(&unknown(args));
            return Ok(After::Continue);
        };
        first.get_or_insert(command.family);
        if let Some(count) = self.counts.get_mut(command.family as usize) {
            *count += 1;
        }
        if !command.accepts(args.len()) {
            self.refuse(&format!("ERR wrong number of arguments for '{}' command", command.name));
            return Ok(After::Continue);
        }
        if !self.authenticated && !command.flags.has(Flags::NO_AUTH) {
            self.refuse("NOAUTH Authentication required.");
            return Ok(After::Continue);
        }
        let mut now = now;
        if !matches!(command.keys, Keys::None) && self.region.is_strained() {
            if let Some(refusal) = self.relieve(command).await? {
                self.refuse(refusal);
                return Ok(After::Continue);
            }
            now = self.region.wall();
        }
        if self.transaction.is_some() && !transaction::runs_at_once(command) {
            self.queue(command, args);
            return Ok(After::Continue);
        }
        if command.flags.has(Flags::SESSION) {
            return self.control(command, args, now).await;
        }
        if command.flags.has(Flags::WALK) {
            self.walk(command, args, now).await;
            return Ok(After::Continue);
        }
        if self.region.keyspace().policies().has_hooks() {
            execute::merge_ahead_of(&self.region, &mut self.scratch, command, args, self.database).await;
        }
        if command.flags.has(Flags::WRITE) && self.region.homes().is_active() {
            self.homed(command, args, now).await?;
            return Ok(After::Continue);
        }
        let mut reply = Reply::new(&mut self.output, self.protocol);
        let ran =
            execute::run(&self.region, &mut self.scratch, command, args, self.database, now, &mut reply);
        self.note(ran);
        Ok(After::Continue)
    }

    /// Notes what the replies have to wait for, and what was written.
    pub(super) fn note(&mut self, ran: execute::Ran) {
        self.wait_for = self.wait_for.max(ran.wait_for);
        if let Some(place) = ran.wrote {
            self.last_write = Some(place.stamp.dot);
        }
    }

    /// The command called `name`: mostly the one before, so that one is tried first.
    fn find(&mut self, name: &[u8]) -> Option<&'static Command> {
        if let Some(last) = self.last
            && last.name.as_bytes().eq_ignore_ascii_case(name)
        {
            return Some(last);
        }
        self.last = find(name);
        self.last
    }

    /// Answers with an error; inside `MULTI` the transaction is lost.
    pub(super) fn refuse(&mut self, text: &str) {
        self.reply().error(text);
        if let Some(transaction) = &mut self.transaction {
            transaction.spoil();
        }
    }

    async fn walk(&mut self, command: &'static Command, args: Args<'_>, now: WallMs) {
        let region = Arc::clone(&self.region);
        let start = self.output.len();
        // What a walk shows may be as young as the log's end.
        self.wait_for = self.wait_for.max(region.sequencer().position().1.0);
        let mut reply = Reply::new(&mut self.output, self.protocol);
        let outcome = crate::command::walk(&region, command, args, self.database, now, &mut reply).await;
        if let Err(error) = outcome {
            reply.truncate(start);
            reply.error(&error.to_string());
        }
    }
}

/// Words that only browsers send first (CVE-2016-10517).
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Redis' text for a command that is not there.
fn unknown(args: Args<'_>) -> String {
    const SHOWN: usize = 128;
    let clip = |word: &[u8]| {
        let word = word.get(..SHOWN).unwrap_or(word);
        String::from_utf8_lossy(word).replace(['\r', '\n'], " ")
    };
    let mut text = format!(
        "ERR unknown command '{}', with args beginning with: ",
        clip(args.first().unwrap_or_default())
    );
    let mut listed = 0;
    for arg in args.tail(1).iter() {
        if listed >= SHOWN {
            break;
        }
        let word = clip(arg.get(..SHOWN - listed).unwrap_or(arg));
        listed += word.len();
        text.push_str(&format!("'{word}' "));
    }
    text
}
