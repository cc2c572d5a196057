//! `MERIDIAN.HOME`: a home hands over, or is taken over from one that is not heard of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::{RegionId, VersionVector};
use meridian_topology::home::message::{Answer, Ask, Refusal};
use meridian_topology::home::{Appointment, Ballot, Term, guard, to_win};
use tokio::time::Instant;

use super::ask::{AskError, Question, ask, left};
use super::{change, members, now, others};
use crate::command::meridian::region_name;
use crate::config::settings::Role;
use crate::region::Region;

/// How long one round of votes may take.
const ROUND_WITHIN: Duration = Duration::from_secs(2);

/// Between two rounds.
const BETWEEN: Duration = Duration::from_millis(50);

/// How long a home may take to hand over, its log's flush included.
const MOVE_WITHIN: Duration = Duration::from_secs(30);

/// An error for the client.
type Text = String;

fn no_rule(keys: &[u8]) -> Text {
    format!("HOME there is no rule {}", super::rule::shown(keys))
}

/// `MERIDIAN.HOME MOVE`: has the home of the pattern hand over to `heir`, wherever the home is.
///
/// # Errors
/// The text for the client.
pub async fn move_to(region: &Arc<Region>, keys: Vec<u8>, heir: RegionId) -> Result<Term, Text> {
    let homes = region.homes();
    let home = homes.rule(&keys).ok_or_else(|| no_rule(&keys))?.standing().term.holder;
    let appointment = if home == homes.me {
        hand_over(region, keys.clone(), heir).await?
    } else {
        let body = Bytes::from(Ask::Move { keys: keys.clone(), heir }.encode());
        let deadline = Instant::now() + MOVE_WITHIN;
        let question = Question { to: home, path: vec![homes.me], body, is_write: false, deadline };
        let name = region_name(region, home);
        match ask(region, &question).await.map(|arriving| arriving.answer) {
            Ok(Answer::Moved(appointment)) => appointment,
            Ok(Answer::Refused(Refusal::Other { text, .. })) => return Err(text),
            Err(AskError::Unreachable | AskError::Busy) | Ok(Answer::Refused(_)) => {
                return Err(format!(
                    "HOME the home is {name}, which is unreachable from here: nothing was done"
                ));
            }
            _ => return Err(format!("UNCERTAIN {name} was asked to hand over; see MERIDIAN.HOMES")),
        }
    };
    let term = appointment.term;
    let told = appointment.clone();
    change(region, move |_, book| book.seat_mut(&keys).is_some_and(|(seat, _)| seat.adopt(&told))).await;
    Ok(term)
}

/// The home, which is here, stops at one point of its order, and hands over.
pub(super) async fn hand_over(
    region: &Arc<Region>,
    keys: Vec<u8>,
    heir: RegionId,
) -> Result<Appointment, Text> {
    check_heir(region, heir)?;
    let region = Arc::clone(region);
    // A task of its own: a client that leaves must not leave a home that has stopped.
    let handing = tokio::spawn(async move { try_hand_over(&region, keys, heir).await });
    handing.await.map_err(|_| "HOME this region is shutting down".to_owned())?
}

fn check_heir(region: &Region, heir: RegionId) -> Result<(), Text> {
    let membership = region.membership();
    let found = membership.regions.values().find(|known| RegionId::of(known.name.as_str()) == heir);
    match found {
        None => Err("HOME there is no such region".into()),
        Some(found) if found.role == Role::Follower => Err("HOME a follower cannot be a home".into()),
        Some(_) if heir == region.homes().me => Err("HOME it is the home already".into()),
        Some(_) => Ok(()),
    }
}

async fn try_hand_over(region: &Arc<Region>, keys: Vec<u8>, heir: RegionId) -> Result<Appointment, Text> {
    let pattern = keys.clone();
    let stopped = change(region, move |region, book| {
        let members = members(region);
        let (seat, lease_ms) = book.seat_mut(&pattern)?;
        seat.stop(now(), &members, lease_ms).then_some(())
    });
    stopped.await.flatten().ok_or("HOME this region is not the home, or has no lease: nothing was done")?;
    let after = stop_here(region).await;
    let handed = match after {
        Some(after) => {
            let pattern = keys.clone();
            change(region, move |_, book| {
                let (seat, _) = book.seat_mut(&pattern)?;
                // Unless a greater term was heard of meanwhile.
                seat.is_stopped().then(|| seat.hand_over(heir, after))
            })
            .await
            .flatten()
        }
        None => None,
    };
    if handed.is_none() {
        change(region, move |_, book| book.seat_mut(&keys).map(|(seat, _)| seat.go_on())).await;
    }
    handed.ok_or_else(|| "HOME it could not be noted durably: nothing has changed".into())
}

/// Lets every write that was judged before end, and makes all that is applied durable. Returns that.
async fn stop_here(region: &Arc<Region>) -> Option<VersionVector> {
    let here = Arc::clone(region);
    let locking = tokio::task::spawn_blocking(move || {
        let locked = here.keyspace().lock_all();
        let applied = here.sequencer().applied();
        drop(locked);
        applied
    });
    let after = locking.await.ok()?;
    // The heir waits for all of it: nothing that a crash could take back may be among it.
    region.log().sync_now().await.ok()?;
    Some(after)
}

/// Answers a region that wants to be home.
pub(super) async fn ballot(
    region: &Arc<Region>,
    candidate: RegionId,
    keys: Vec<u8>,
    number: u64,
    dry: bool,
) -> Answer {
    if !dry && region.log().sync_now().await.is_err() {
        return Answer::Refused(Refusal::Busy);
    }
    let wanted = Term { number, holder: candidate };
    let voted = change(region, move |region, book| {
        let members = members(region);
        // What is durable here cannot be lost before the candidate has it.
        let applied = || region.log().durable().1.0.as_ref().clone();
        match book.seat_mut(&keys) {
            Some((seat, lease_ms)) => seat.vote(now(), wanted, dry, applied, &members, lease_ms),
            None => Ballot::Unknown,
        }
    });
    match voted.await {
        Some(ballot) => Answer::Ballot(ballot),
        None => Answer::Refused(Refusal::Busy),
    }
}

/// What a round of votes came to.
#[derive(Default)]
struct Tally {
    given: usize,
    applied: VersionVector,
    /// The greatest number anybody knows.
    greatest: u64,
    /// Why others did not vote.
    against: BTreeMap<String, String>,
    news: Vec<Appointment>,
}

impl Tally {
    fn add(&mut self, name: String, ballot: Result<Ballot, String>) {
        let why = match ballot {
            Ok(Ballot::Given { applied }) => {
                self.given += 1;
                applied.iter().for_each(|dot| {
                    meridian_conflict::clock::raise(&mut self.applied, *dot.actor, dot.counter);
                });
                return;
            }
            Ok(Ballot::Outdone(appointment)) => {
                self.greatest = self.greatest.max(appointment.term.number);
                self.news.push(appointment);
                "knows a greater term".into()
            }
            Ok(Ballot::Promised(term)) => {
                self.greatest = self.greatest.max(term.number);
                "has voted for another".into()
            }
            Ok(Ballot::Bound { for_ms }) => {
                format!("is bound to the home for {for_ms} ms, and longer if that asks again")
            }
            Ok(Ballot::Learning) => "has just started".into(),
            Ok(Ballot::Unknown) => "has no such rule".into(),
            Err(text) => text,
        };
        self.against.insert(name, why);
    }

    fn reasons(&self) -> String {
        let each = self.against.iter().map(|(name, why)| format!("{name} {why}"));
        each.collect::<Vec<_>>().join("; ")
    }
}

/// `MERIDIAN.HOME TAKE`: makes this region the home of the pattern, with the votes of most members; with `force` without.
/// Returns once it grants writes.
///
/// # Errors
/// The text for the client.
pub async fn take(region: &Arc<Region>, keys: Vec<u8>, force: bool) -> Result<Term, Text> {
    let homes = region.homes();
    let rule = homes.rule(&keys).ok_or_else(|| no_rule(&keys))?;
    check_candidate(region)?;
    let lasts = Duration::from_millis(guard(rule.lease_ms));
    let deadline = Instant::now() + lasts + rule.timeout;
    let term = match force {
        true => take_by_force(region, &keys).await?,
        false => win(region, &keys, deadline).await?,
    };
    tracing::warn!(keys = %super::rule::shown(&keys), term = term.number, force, "this region has become a home");
    // The lease of who was home may still run where this region was bound to it.
    let deadline = Instant::now() + lasts + rule.timeout;
    loop {
        let Some(rule) = homes.rule(&keys) else { return Err(no_rule(&keys)) };
        let standing = rule.standing();
        if standing.term != term {
            return Err("HOME another region has become the home meanwhile".into());
        }
        if !standing.moving && now() < standing.until {
            return Ok(term);
        }
        if left(deadline).is_zero() {
            return Err(format!(
                "HOME this region is the home in term {}, and grants nothing yet; see MERIDIAN.HOMES",
                term.number
            ));
        }
        homes.until_changed(BETWEEN.min(left(deadline))).await;
    }
}

fn check_candidate(region: &Region) -> Result<(), Text> {
    if region.is_follower() {
        return Err("HOME a follower cannot be a home".into());
    }
    if region.is_loading() || !region.is_confirmed() {
        return Err("HOME this region has only just started".into());
    }
    Ok(())
}

async fn take_by_force(region: &Arc<Region>, keys: &[u8]) -> Result<Term, Text> {
    let keys = keys.to_vec();
    let forced = change(region, move |region, book| {
        let applied = region.sequencer().applied();
        book.seat_mut(&keys).map(|(seat, _)| seat.force(applied).term)
    });
    forced.await.flatten().ok_or_else(|| "HOME it could not be noted durably: nothing was done".into())
}

/// Gets the votes: first asks who would vote, so that votes are given only where they suffice.
async fn win(region: &Arc<Region>, keys: &[u8], deadline: Instant) -> Result<Term, Text> {
    let needed = to_win(members(region).len());
    loop {
        let pattern = keys.to_vec();
        let known = change(region, move |_, book| book.seat(&pattern).map(|seat| seat.greatest())).await;
        let known = known.flatten().ok_or_else(|| no_rule(keys))?;
        let mut tally = poll(region, keys, known + 1, true, deadline).await;
        if tally.greatest > known {
            tally = poll(region, keys, tally.greatest + 1, true, deadline).await;
        }
        let number = known.max(tally.greatest) + 1;
        if tally.given >= needed {
            tally = poll(region, keys, number, false, deadline).await;
            if tally.given >= needed {
                let (pattern, after) = (keys.to_vec(), std::mem::take(&mut tally.applied));
                let won = change(region, move |_, book| book.seat_mut(&pattern)?.0.win(number, after));
                if let Some(appointment) = won.await.flatten() {
                    return Ok(appointment.term);
                }
            }
        }
        let news = std::mem::take(&mut tally.news);
        let pattern = keys.to_vec();
        change(region, move |_, book| {
            let seat = book.seat_mut(&pattern);
            seat.map(|(seat, _)| news.iter().filter(|appointment| seat.adopt(appointment)).count())
        })
        .await;
        if left(deadline).is_zero() {
            return Err(format!(
                "HOME {} of {needed} votes, nothing has changed: {}",
                tally.given,
                tally.reasons()
            ));
        }
        tokio::time::sleep(BETWEEN.min(left(deadline))).await;
    }
}

/// Asks all members, this region among them.
async fn poll(region: &Arc<Region>, keys: &[u8], number: u64, dry: bool, deadline: Instant) -> Tally {
    let me = region.homes().me;
    let deadline = deadline.max(Instant::now() + BETWEEN).min(Instant::now() + ROUND_WITHIN);
    let body = Bytes::from(Ask::Vote { keys: keys.to_vec(), number, dry }.encode());
    let mut asking = tokio::task::JoinSet::new();
    for member in others(region, me) {
        let (region, body) = (Arc::clone(region), body.clone());
        asking.spawn(async move {
            let question = Question { to: member, path: vec![me], body, is_write: false, deadline };
            let ballot = match ask(&region, &question).await.map(|arriving| arriving.answer) {
                Ok(Answer::Ballot(ballot)) => Ok(ballot),
                Ok(_) => Err("did not vote".to_owned()),
                Err(AskError::Unreachable | AskError::Busy) => Err("is unreachable".to_owned()),
                Err(AskError::Broken(_)) => Err("did not answer".to_owned()),
            };
            (region_name(&region, member), ballot)
        });
    }
    let mut tally = Tally::default();
    let own = match ballot(region, me, keys.to_vec(), number, dry).await {
        Answer::Ballot(ballot) => Ok(ballot),
        _ => Err("could not note its vote".to_owned()),
    };
    tally.add(region_name(region, me), own);
    while let Some(asked) = asking.join_next().await {
        if let Ok((name, ballot)) = asked {
            tally.add(name, ballot);
        }
    }
    tally
}
