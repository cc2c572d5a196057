//! Writes of this region's clients, sent to their home.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_conflict::clock::Dot;
use meridian_topology::home::message::{Answer, Ask, Line, Refusal, Told};

use super::ask::{Arriving, AskError, Question, ask, left};
use super::change;
use super::judge::Forward;
use crate::region::Region;
use crate::replication::entropy::is_applied;
use crate::resp::Protocol;

/// How long to wait before a home that has just changed is asked again.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// A client's write.
#[derive(Clone, Debug)]
pub struct Write {
    /// One command, or those of a transaction.
    pub lines: Vec<Line>,
    /// Whether it is a transaction.
    pub transaction: bool,
    /// What the client speaks.
    pub protocol: Protocol,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Forwarded {
    /// The home's reply.
    Reply {
        /// Its bytes.
        reply: Vec<u8>,
        /// The op that was written.
        wrote: Option<Dot>,
    },
    /// An error, as the client is told.
    Error(String),
    /// Nothing was done, and the home is another one by now: judge it anew.
    Again,
}

/// Sends a write to its home, and waits for the reply and until this region has applied what it shows. `since` is
/// when the client asked for it.
pub async fn forward(region: &Arc<Region>, to: &Forward, write: &Write, since: Instant) -> Forwarded {
    let deadline = tokio::time::Instant::from_std(since) + to.timeout;
    let homes = region.homes();
    let metrics = region.metrics();
    let count = |outcome: &str| metrics.homes.forwarded.with_label_values(&[to.name.as_str(), outcome]).inc();
    let Ok(_turn) = Arc::clone(&homes.links.forwards).try_acquire_owned() else {
        count("busy");
        return Forwarded::Error(busy(to));
    };
    metrics.homes.in_flight.inc();
    let asked = put(region, to, write, deadline).await;
    metrics.homes.in_flight.dec();
    let (outcome, forwarded) = match asked {
        Came::Answer(Answer::Elsewhere(told)) => {
            if !learn(region, told).await {
                homes.until_changed(AGAIN.min(left(deadline))).await;
            }
            if left(deadline).is_zero() {
                let text = format!("HOME the home of {} is moving: nothing was done; try again", to.key);
                ("moving", Forwarded::Error(text))
            } else {
                ("elsewhere", Forwarded::Again)
            }
        }
        Came::Answer(Answer::Refused(Refusal::Busy)) | Came::Not(AskError::Busy) => {
            ("busy", Forwarded::Error(busy(to)))
        }
        Came::Answer(Answer::Refused(Refusal::Unreachable)) | Came::Not(AskError::Unreachable) => {
            let text = format!(
                "HOME the home of {} is {}, which is unreachable from here: nothing was done",
                to.key, to.name
            );
            ("unreachable", Forwarded::Error(text))
        }
        Came::Answer(Answer::Refused(Refusal::Behind)) => {
            let text = format!(
                "HOME {}, the home of {}, has not applied yet what is known here: nothing was done; try again",
                to.name, to.key
            );
            ("behind", Forwarded::Error(text))
        }
        Came::Answer(Answer::Refused(Refusal::Other { text, .. })) => ("refused", Forwarded::Error(text)),
        Came::Answer(Answer::Uncertain(text)) | Came::Not(AskError::Broken(text)) => {
            ("uncertain", Forwarded::Error(uncertain(to, &text)))
        }
        Came::Answer(_) => ("uncertain", Forwarded::Error(uncertain(to, "an answer to something else"))),
        Came::Reply { reply, wrote, late } => {
            let outcome = if late { "late" } else { "done" };
            (outcome, Forwarded::Reply { reply, wrote })
        }
    };
    count(outcome);
    if matches!(outcome, "done" | "late") {
        metrics.homes.forward_seconds.observe(since.elapsed().as_secs_f64());
    }
    forwarded
}

fn busy(to: &Forward) -> String {
    format!("HOME too many writes are on their way to {}: nothing was done; try again", to.name)
}

fn uncertain(to: &Forward, text: &str) -> String {
    let Forward { key, name, .. } = to;
    format!(
        "UNCERTAIN the write of {key} was sent to its home {name}, and whether it was done is not known: {text}"
    )
}

/// What came of asking.
enum Came {
    /// The whole reply.
    Reply {
        reply: Vec<u8>,
        wrote: Option<Dot>,
        /// This region has not applied yet what it shows.
        late: bool,
    },
    /// Anything else.
    Answer(Answer),
    /// Nothing.
    Not(AskError),
}

async fn put(region: &Arc<Region>, to: &Forward, write: &Write, deadline: tokio::time::Instant) -> Came {
    let homes = region.homes();
    let ask_for = Ask::Run {
        lines: write.lines.clone(),
        transaction: write.transaction,
        protocol: if write.protocol == Protocol::Resp3 { 3 } else { 2 },
        seen: region.sequencer().applied(),
    };
    let body = Bytes::from(ask_for.encode());
    if body.len() > homes.links.question_max {
        let text = "HOME the write is too large to be forwarded: nothing was done".into();
        return Came::Answer(Answer::Refused(Refusal::Other { reason: "too_large".into(), text }));
    }
    let question = Question { to: to.home, path: vec![homes.me], body, is_write: true, deadline };
    let arriving = match ask(region, &question).await {
        Ok(arriving) => arriving,
        Err(error) => return Came::Not(error),
    };
    let Answer::Ran { bytes, wrote, ref shows } = arriving.answer else {
        return Came::Answer(arriving.answer);
    };
    let shows = shows.clone();
    let most = region.settings().limits.client_output_max;
    let reply = tokio::time::timeout_at(deadline, collect(arriving, bytes, most)).await;
    match reply.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok(reply) => {
            let late = !is_applied(region, &shows, left(deadline)).await;
            Came::Reply { reply, wrote, late }
        }
        Err(text) => Came::Not(AskError::Broken(text)),
    }
}

/// The reply's pieces.
async fn collect(mut arriving: Arriving, bytes: u64, most: u64) -> Result<Vec<u8>, String> {
    if bytes > most {
        return Err(format!(
            "it was done, and the reply of {bytes} bytes is longer than limits.client_output_max"
        ));
    }
    let mut reply = Vec::new();
    while (reply.len() as u64) < bytes {
        let piece = arriving.frames.next().await.map_err(|error| error.to_string())?;
        reply.extend_from_slice(&piece.ok_or("it was done, and the reply broke off")?);
    }
    if reply.len() as u64 == bytes {
        Ok(reply)
    } else {
        Err("it was done, and the reply is malformed".into())
    }
}

/// Takes note of who is home. Returns whether that was news.
async fn learn(region: &Arc<Region>, told: Vec<Told>) -> bool {
    change(region, move |_, book| book.adopt(&told)).await.unwrap_or(false)
}
