//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.

use std::time::Instant;

use meridian_topology::time::WallMs;

use super::homed::{self, Next};
use super::{End, Session};
use crate::command::execute::{self, Queued};
use crate::command::{Command, Flags};
use crate::resp::{Args, Reply};

/// Commands that a transaction may queue.
const QUEUE_MAX: usize = 100_000;

/// Bytes of arguments that a transaction may queue.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A transaction being collected.
#[derive(Default)]
pub(super) struct Transaction {
    queue: Vec<Queued>,
    bytes: usize,
    spoiled: bool,
    /// The database that queued commands go to.
    database: u8,
}

impl Transaction {
    /// Something was refused: `EXEC` will not run the rest.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }
}

/// Commands that are not queued inside a transaction.
pub(super) fn runs_at_once(command: &Command) -> bool {
    matches!(command.name, "multi" | "exec" | "discard" | "watch" | "unwatch" | "quit" | "reset")
}

impl Session {
    pub(super) fn queue(&mut self, command: &'static Command, args: Args<'_>) {
        if command.flags.has(Flags::NO_MULTI) {
            return self.refuse("ERR Command not allowed inside a transaction");
        }
        let Some(transaction) = &mut self.transaction else { return };
        transaction.bytes += args.bytes();
        if transaction.queue.len() >= QUEUE_MAX || transaction.bytes > QUEUE_BYTES_MAX {
            transaction.spoil();
            return self.refuse("ERR the transaction is too large");
        }
        let database = transaction.database;
        if command.name == "select" {
            match args.get(1).and_then(super::control::parse_database) {
                Some(chosen) => transaction.database = chosen,
                None => return self.refuse("ERR DB index is out of range"),
            }
        }
        transaction.queue.push(Queued { command, args: args.to_owned(), database });
        self.reply().simple("QUEUED");
    }

    pub(super) fn multi(&mut self) {
        if self.transaction.is_some() {
            return self.reply().error("ERR MULTI calls can not be nested");
        }
        self.transaction = Some(Transaction { database: self.database, ..Transaction::default() });
        self.reply().ok();
    }

    pub(super) fn discard(&mut self) {
        if self.transaction.take().is_none() {
            return self.reply().error("ERR DISCARD without MULTI");
        }
        self.watched.clear();
        self.reply().ok();
    }

    pub(super) async fn exec(&mut self, now: WallMs) -> Result<(), End> {
        let Some(transaction) = self.transaction.take() else {
            self.reply().error("ERR EXEC without MULTI");
            return Ok(());
        };
        let watched = std::mem::take(&mut self.watched);
        if transaction.spoiled {
            self.reply().error("EXECABORT Transaction discarded because of previous errors.");
            return Ok(());
        }
        let (queue, since, mut now) = (&transaction.queue, Instant::now(), now);
        if self.region.keyspace().policies().has_hooks() {
            let commands: Vec<_> = queue.iter().map(|q| (q.command, q.args.args(), q.database)).collect();
            execute::merge_ahead(&self.region, &commands).await;
        }
        loop {
            let start = self.output.len();
            let mut reply = Reply::new(&mut self.output, self.protocol);
            let scratch = &mut self.scratch;
            let ran = execute::run_transaction(&self.region, scratch, queue, &watched, now, &mut reply);
            match ran {
                Ok(Some(ran)) => {
                    self.database = transaction.database;
                    self.note(ran);
                }
                Ok(None) => reply.null_array(),
                Err(error) => {
                    reply.truncate(start);
                    match self.elsewhere(error, since, || homed::transaction(queue)).await? {
                        Next::Again => {
                            now = self.region.wall();
                            continue;
                        }
                        Next::Answered => self.database = transaction.database,
                        Next::Refused => {}
                    }
                }
            }
            return Ok(());
        }
    }

    pub(super) fn watch(&mut self, args: Args<'_>, now: WallMs) {
        if self.transaction.is_some() {
            return self.reply().error("ERR WATCH inside MULTI is not allowed");
        }
        let keys: Vec<&[u8]> = args.tail(1).iter().collect();
        match execute::watch(&self.region, &keys, self.database, now) {
            Ok(watched) => {
                for watch in watched {
                    let known = |w: &execute::Watched| w.database == watch.database && w.key == watch.key;
                    if !self.watched.iter().any(known) {
                        self.watched.push(watch);
                    }
                }
                self.reply().ok();
            }
            Err(error) => self.reply().error(&error.to_string()),
        }
    }

    pub(super) fn unwatch(&mut self) {
        self.watched.clear();
        self.reply().ok();
    }
}
