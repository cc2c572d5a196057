//! A client's connection: reads pipelines, runs their commands, writes their replies.
//!
//! All commands that have arrived are run before anything is written; then the replies wait, once,
//! for the flush that covers everything they show (`log.sync = "always"`), and leave in one write.
//! Nothing is read while replies cannot be written, so a client that does not read holds one
//! bounded buffer and no more.
//!
//! | module | room of |
//! |---|---|
//! | [`accept`] | connections that come and go |
//! | [`clients`] | who is connected: `CLIENT LIST`, limits, `CLIENT KILL` |
//! | [`control`] | commands about the connection itself |
//! | `dispatch` | from a command's name to whoever runs it |
//! | `homed` | writes of keys that have a home |
//! | [`password`] | what clients have to say first |
//! | [`transaction`] | `MULTI`, `EXEC`, `WATCH` |
//! | `waiting` | `WAIT`, tokens |

pub mod accept;
pub mod clients;
mod control;
mod dispatch;
mod homed;
pub mod password;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
mod transaction;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use meridian_conflict::clock::Dot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::command::execute::{self, Scratch};
use crate::command::{Command, Family, Flags};
use crate::region::Region;
use crate::resp::{Limits, Parsed, Parser, Protocol, ProtocolError, Reply};
use clients::Client;
use transaction::Transaction;

/// Replies are written once they have grown to this, even if more commands wait.
const WRITE_AT: usize = 256 << 10;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// Reply bytes that an unauthenticated client may leave unread (CVE-2025-21605).
const UNAUTHENTICATED_OUTPUT: usize = 4 << 10;

/// How long a client may take to authenticate.
const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may take over the rest of a command.
const FINISH_COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// How long a client may leave replies unread.
const READ_REPLIES_WITHIN: Duration = Duration::from_secs(60);

/// Buffers larger than this are given back when a pipeline is done.
const KEEP_BUFFER: usize = 1 << 20;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client left.
    Left,
    /// It asked to (`QUIT`), or was told to (`CLIENT KILL`, shutdown); replies have been written.
    Asked,
    /// It broke the protocol.
    Protocol(ProtocolError),
    /// It was too slow or asked too much.
    Limit(&'static str),
    /// The socket failed.
    Io(std::io::Error),
    /// The log failed: what the replies show may not last, so they are not sent.
    Log,
    /// This region lost the lease that the replies rest on before they could be sent.
    Lease,
}

/// What is to be done after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Go on.
    Continue,
    /// Write the replies, then close.
    Close,
}

/// One client's connection.
pub struct Session {
    region: Arc<Region>,
    stream: TcpStream,
    client: Arc<Client>,
    input: BytesMut,
    output: Vec<u8>,
    parser: Parser,
    limits: Limits,
    scratch: Scratch,
    protocol: Protocol,
    database: u8,
    authenticated: bool,
    transaction: Option<Transaction>,
    watched: Vec<execute::Watched>,
    /// The replies so far must wait for the log up to here.
    wait_for: u64,
    /// The last op that this connection wrote.
    last_write: Option<Dot>,
    /// `CLIENT REPLY OFF`.
    silent: bool,
    /// Whether this command waited for relief: earlier replies are out, and time has passed.
    waited: bool,
    /// `CLIENT REPLY SKIP`: 2 from the command on, 1 for the one to be skipped.
    skip: u8,
    opened: Instant,
    /// The command before.
    last: Option<&'static Command>,
    counts: [u64; Family::ALL.len()],
}

impl Session {
    fn new(region: Arc<Region>, stream: TcpStream, client: Arc<Client>) -> Self {
        let settings = region.settings();
        let limits = Limits {
            bulk: usize::try_from(settings.limits.proto_max_bulk_len).unwrap_or(usize::MAX),
            command: usize::try_from(settings.limits.query_buffer_max).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let authenticated = settings.auth.is_none();
        let seed = client.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ region.wall().0;
        Self {
            stream,
            client,
            input: BytesMut::new(),
            output: Vec::new(),
            parser: Parser::new(),
            limits: if authenticated { limits } else { limits.before_auth() },
            scratch: Scratch::new(seed),
            protocol: Protocol::Resp2,
            database: 0,
            authenticated,
            transaction: None,
            watched: Vec::new(),
            wait_for: 0,
            last_write: None,
            silent: false,
            waited: false,
            skip: 0,
            opened: Instant::now(),
            last: None,
            counts: [0; Family::ALL.len()],
            region,
        }
    }

    async fn run(&mut self) -> End {
        let region = Arc::clone(&self.region);
        let client = Arc::clone(&self.client);
        let (drained, killed) = (region.drain.notified(), client.killed());
        tokio::pin!(drained, killed);
        // Listening before looking: a shutdown that begins in between is not missed.
        drained.as_mut().enable();
        if region.is_draining() {
            return End::Asked;
        }
        loop {
            let ended = tokio::select! {
                biased;
                read = self.read() => read.err(),
                () = &mut drained => Some(End::Asked),
                () = &mut killed => Some(End::Asked),
            };
            if let Some(end) = ended {
                return end;
            }
            match self.run_pipeline().await {
                Ok(After::Continue) if region.is_draining() || client.is_killed() => return End::Asked,
                Ok(After::Continue) => {}
                Ok(After::Close) => return End::Asked,
                Err(end) => return end,
            }
        }
    }

    /// Reads what has come, at least something.
    async fn read(&mut self) -> Result<(), End> {
        let within = if !self.authenticated {
            Some(AUTHENTICATE_WITHIN.saturating_sub(self.opened.elapsed()))
        } else if self.parser.is_mid_command() || !self.input.is_empty() {
            Some(FINISH_COMMAND_WITHIN)
        } else {
            None
        };
        self.input.reserve(READ_BYTES.min(self.limits.command));
        let read = self.stream.read_buf(&mut self.input);
        let count = match within {
            Some(within) => timeout(within, read).await.map_err(|_| End::Limit("slow"))?,
            None => read.await,
        };
        match count {
            Ok(0) => Err(End::Left),
            Ok(_) => Ok(()),
            Err(error) => Err(End::Io(error)),
        }
    }

    /// Runs every complete command of the input and writes the replies.
    async fn run_pipeline(&mut self) -> Result<After, End> {
        let began = Instant::now();
        let mut first = None;
        let mut now = self.region.wall();
        let mut after = After::Continue;
        let mut input = std::mem::take(&mut self.input);
        let mut parser = std::mem::take(&mut self.parser);
        let mut used = 0;
        while after == After::Continue {
            let rest = input.get(used..).unwrap_or_default();
            match parser.parse(rest, &self.limits) {
                Ok(Parsed::Incomplete { consumed, .. }) => {
                    used += consumed;
                    break;
                }
                Ok(Parsed::Command { consumed }) => {
                    let args = parser.args(rest);
                    after = self.command(args, now, &mut first).await?;
                    if std::mem::take(&mut self.waited) {
                        now = self.region.wall();
                    }
                    used += consumed;
                }
                Err(error) => {
                    if !matches!(error, ProtocolError::HttpProbe) {
                        self.reply().error(&format!("ERR {error}"));
                        self.flush().await?;
                    }
                    return Err(End::Protocol(error));
                }
            }
            if self.output.len() >= WRITE_AT {
                self.flush().await?;
                now = self.region.wall();
            }
        }
        input.advance(used);
        // An empty buffer's memory is found again by the next reserve; a huge one goes.
        self.input = if input.is_empty() && input.capacity() > KEEP_BUFFER { BytesMut::new() } else { input };
        self.parser = parser;
        self.flush().await?;
        self.count(first, began);
        Ok(after)
    }

    fn count(&mut self, first: Option<Family>, began: Instant) {
        let metrics = self.region.metrics();
        for (count, counter) in self.counts.iter_mut().zip(&metrics.clients.commands) {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
        if let Some(histogram) = first.and_then(|family| metrics.clients.command_seconds.get(family as usize))
        {
            histogram.observe(began.elapsed().as_secs_f64());
        }
    }

    /// Waits before `command` until the region is no longer strained. Returns what the client is told when that
    /// takes too long for a command that needs more memory.
    async fn relieve(&mut self, command: &Command) -> Result<Option<&'static str>, End> {
        // What waits here has seen nothing yet: let earlier replies go first.
        self.flush().await?;
        self.waited = true;
        let region = Arc::clone(&self.region);
        if !command.flags.has(Flags::DENY_OOM) {
            region.pause_for_relief().await;
            return Ok(None);
        }
        Ok(region.wait_for_relief().await.err())
    }

    fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.output, self.protocol)
    }

    /// Writes the replies once what they show is durable.
    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let wait_for = std::mem::take(&mut self.wait_for);
        if self.region.must_wait(wait_for) && self.region.wait_durable(wait_for).await.is_err() {
            return Err(End::Log);
        }
        if !self.scratch.grants().is_empty() && !self.scratch.grants().take_valid() {
            return Err(End::Lease);
        }
        if !self.authenticated && self.output.len() > UNAUTHENTICATED_OUTPUT {
            return Err(End::Limit("unauthenticated"));
        }
        if self.output.len() as u64 > self.region.settings().limits.client_output_max {
            return Err(End::Limit("output"));
        }
        let within = if self.authenticated { READ_REPLIES_WITHIN } else { AUTHENTICATE_WITHIN };
        // Most replies go out at once; only then is a timer worth its cost.
        let sent = match self.stream.try_write(&self.output) {
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(End::Io(error)),
        };
        if let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            match timeout(within, self.stream.write_all(rest)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(End::Io(error)),
                Err(_) => return Err(End::Limit("unread")),
            }
        }
        self.output.clear();
        self.output.shrink_to(KEEP_BUFFER);
        Ok(())
    }
}
