//! Answering what other regions ask about homes, and passing it on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meridian_conflict::clock::RegionId;
use meridian_topology::graph::MAX_REGIONS;
use meridian_topology::home::Verdict;
use meridian_topology::home::message::{Answer, Ask, Claim, Head, Refusal, Told};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};

use super::ask::{ANSWER_FRAME_MAX, AskError, Question, ask, kibibytes};
use super::{change, failover, now, run};
use crate::link::framing::{FrameReader, put_frame};
use crate::region::Region;

/// The longest that anybody is waited for, whatever the asker says.
const WITHIN_MOST: Duration = Duration::from_secs(120);

/// Pieces of a reply.
const PIECE_BYTES: usize = 256 << 10;

/// An exchange broke off.
type Broken = String;

/// Answers the question that begins with the frame `head`; `peer` has handed it over.
///
/// # Errors
/// A text, when the exchange broke off.
pub(crate) async fn answer(
    region: &Arc<Region>,
    peer: RegionId,
    head: &[u8],
    mut input: FrameReader<impl AsyncRead + Unpin>,
    send: quinn::SendStream,
) -> Result<(), Broken> {
    let mut output = Output(send);
    let head = Head::decode(head).map_err(|error| error.to_string())?;
    let homes = region.homes();
    let is_sane = head.path.last() == Some(&peer)
        && head.path.len() <= MAX_REGIONS
        && !head.path.contains(&homes.me)
        && head.bytes <= homes.links.question_max as u64;
    if !is_sane {
        return Err("a question that cannot come here".into());
    }
    let deadline = Instant::now() + Duration::from_millis(head.within_ms).min(WITHIN_MOST);
    let bytes = usize::try_from(head.bytes).unwrap_or(usize::MAX);
    let Ok(_turn) = Arc::clone(&homes.links.answers).try_acquire_owned() else {
        return output.answer(&Answer::Refused(Refusal::Busy)).await;
    };
    let room = Arc::clone(&homes.links.kibibytes).acquire_many_owned(kibibytes(bytes));
    let Ok(Ok(room)) = timeout_at(deadline, room).await else {
        return output.answer(&Answer::Refused(Refusal::Busy)).await;
    };
    input.set_limit(bytes);
    let body = timeout_at(deadline, input.next()).await.map_err(|_| "the question did not arrive in time")?;
    let body = body.map_err(|error| error.to_string())?.ok_or("the question broke off")?;
    if head.to != homes.me {
        return pass_on(region, head, body, deadline, &mut output).await;
    }
    let asker = head.path.first().copied().unwrap_or(peer);
    let ask = Ask::decode(&body).map_err(|error| error.to_string())?;
    // What was read is worked on now: its room is for the next.
    drop((room, body));
    let (answer, reply) = serve(region, asker, ask, deadline).await;
    output.answer(&answer).await?;
    for piece in reply.chunks(PIECE_BYTES) {
        output.frame(piece).await?;
    }
    output.end()
}

async fn serve(region: &Arc<Region>, asker: RegionId, ask: Ask, deadline: Instant) -> (Answer, Vec<u8>) {
    let answer = match ask {
        Ask::Run { lines, transaction, protocol, seen } => {
            let work = run::Work { lines, transaction, protocol, seen };
            return run::run(region, work, deadline).await;
        }
        Ask::Claims { digest, claims, told } => claims_of(region, asker, digest, claims, told).await,
        Ask::Vote { keys, number, dry } => failover::ballot(region, asker, keys, number, dry).await,
        Ask::Move { keys, heir } => match failover::hand_over(region, keys, heir).await {
            Ok(appointment) => Answer::Moved(appointment),
            Err(text) => Answer::Refused(Refusal::Other { reason: "move".into(), text }),
        },
    };
    (answer, Vec::new())
}

/// A member tells where it is home and what it knows.
async fn claims_of(
    region: &Arc<Region>,
    asker: RegionId,
    digest: u64,
    claims: Vec<Claim>,
    told: Vec<Told>,
) -> Answer {
    let homes = region.homes();
    homes.compare(region, asker, digest);
    let answered = change(region, move |_, book| {
        book.adopt(&told);
        let judge = |claim: &Claim| match book.seat_mut(&claim.told.keys) {
            Some((seat, _)) => seat.claim(now(), &claim.told.appointment, claim.lease_ms),
            None => Verdict::Unknown,
        };
        let verdicts: Vec<Verdict> = claims.iter().map(judge).collect();
        // What the asker does not know, or has said itself.
        let said: Vec<&Told> = told.iter().chain(claims.iter().map(|claim| &claim.told)).collect();
        let is_known =
            |keys: &[u8], term| said.iter().any(|told| told.keys == keys && told.appointment.term >= term);
        let told = book.told(|keys, appointment| !is_known(keys, appointment.term));
        (verdicts, told)
    });
    let Some((verdicts, told)) = answered.await else {
        return Answer::Refused(Refusal::Busy);
    };
    Answer::Claims { digest: homes.digest(), verdicts, told }
}

/// Passes a question on, and its answer back as it comes.
async fn pass_on(
    region: &Region,
    head: Head,
    body: Bytes,
    deadline: Instant,
    output: &mut Output,
) -> Result<(), Broken> {
    let mut path = head.path;
    path.push(region.homes().me);
    let is_write = Ask::is_write(&body);
    let question = Question { to: head.to, path, body, is_write, deadline };
    region.metrics().homes.relayed.inc();
    let refusal = match ask(region, &question).await {
        Ok(mut arriving) => {
            output.frame(&arriving.raw).await?;
            while let Some(frame) = arriving.frames.next().await.map_err(|error| error.to_string())? {
                output.frame(&frame).await?;
            }
            return output.end();
        }
        Err(AskError::Unreachable) => Answer::Refused(Refusal::Unreachable),
        Err(AskError::Busy) => Answer::Refused(Refusal::Busy),
        Err(AskError::Broken(text)) => Answer::Uncertain(text),
    };
    output.answer(&refusal).await?;
    output.end()
}

/// Where the answer goes.
struct Output(quinn::SendStream);

impl Output {
    async fn answer(&mut self, answer: &Answer) -> Result<(), Broken> {
        self.frame(&answer.encode()).await
    }

    async fn frame(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let mut frame = BytesMut::new();
        put_frame(&mut frame, payload, ANSWER_FRAME_MAX).map_err(|error| error.to_string())?;
        self.0.write_all(&frame).await.map_err(|error| error.to_string())
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.0.finish().map_err(|error| error.to_string())
    }
}
