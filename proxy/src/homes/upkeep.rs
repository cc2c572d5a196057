//! Keeps leases: a home asks all members to confirm it, several times while a lease lasts. With that regions tell each
//! other who is home, and compare their rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::RegionId;
use meridian_topology::home::message::{Answer, Ask, Claim, Told};
use meridian_topology::home::{Term, Verdict};
use meridian_topology::time::MonoMs;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::ask::{Question, ask};
use super::{change, members, now};
use crate::region::Region;

/// How often a lease is confirmed while it lasts.
const ROUNDS_PER_LEASE: u64 = 3;

/// How often the others are asked by a region that has to hear them, or has to catch up, first.
const IMPATIENT: Duration = Duration::from_millis(100);

/// How often regions without a rule look whether there is one. A reload wakes them.
const IDLE: Duration = Duration::from_secs(10);

/// Rounds less than so far apart are one.
const APART: Duration = Duration::from_millis(5);

/// Questions to one member that may wait for an answer.
const WAITING_MAX: usize = 4;

/// What is asked of whom in one round.
struct Round {
    body: Bytes,
    whom: BTreeSet<RegionId>,
    asked: MonoMs,
    terms: Vec<(Vec<u8>, Term)>,
    next: Duration,
    within: Duration,
}

/// Keeps the leases of a region until it drains.
pub async fn keep(region: Arc<Region>) {
    let homes = region.homes();
    let drained = region.drain.notified();
    tokio::pin!(drained);
    drained.as_mut().enable();
    let waiting: Arc<parking_lot::Mutex<std::collections::BTreeMap<RegionId, Arc<Semaphore>>>> =
        Arc::default();
    while !region.is_draining() {
        let mut next = IDLE;
        if homes.is_active() {
            next = IMPATIENT;
            if let Some(round) = begin(&region).await {
                next = round.next;
                spread(&region, &round, &waiting);
            }
        }
        let earliest = Instant::now() + APART;
        tokio::select! {
            () = &mut drained => return,
            () = homes.hurry.notified() => tokio::time::sleep_until(earliest).await,
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Begins a round: this region confirms itself where it is home.
async fn begin(region: &Arc<Region>) -> Option<Round> {
    let live = region.homes().links.live();
    let digest = region.homes().digest();
    change(region, move |region, book| {
        let (asked, members) = (now(), members(region));
        let me = region.homes().me;
        let (mut claims, mut shortest, mut is_impatient) = (Vec::new(), u64::MAX, book.is_learning(asked));
        for (keys, seat, lease_ms) in book.seats_mut() {
            shortest = shortest.min(lease_ms);
            if !seat.is_mine() {
                continue;
            }
            seat.claim_own(asked, lease_ms);
            seat.settle(&members, lease_ms);
            is_impatient |= !seat.may_grant(asked, &members, lease_ms);
            is_impatient |= !region.sequencer().covers(&seat.appointment().after);
            let told = Told { keys: keys.to_vec(), appointment: seat.appointment().clone() };
            claims.push(Claim { told, lease_ms });
        }
        let told = book.told(|_, appointment| appointment.term.holder != me);
        let mut whom = if claims.is_empty() && !book.is_learning(asked) { live } else { members };
        whom.remove(&me);
        let terms =
            claims.iter().map(|claim| (claim.told.keys.clone(), claim.told.appointment.term)).collect();
        let pace = Duration::from_millis(shortest / ROUNDS_PER_LEASE);
        Round {
            body: Bytes::from(Ask::Claims { digest, claims, told }.encode()),
            whom,
            asked,
            terms,
            next: if is_impatient { pace.min(IMPATIENT) } else { pace },
            within: Duration::from_millis(shortest),
        }
    })
    .await
}

/// Asks, each on its own.
fn spread(
    region: &Arc<Region>,
    round: &Round,
    waiting: &parking_lot::Mutex<std::collections::BTreeMap<RegionId, Arc<Semaphore>>>,
) {
    let me = region.homes().me;
    for member in &round.whom {
        let room = Arc::clone(
            waiting.lock().entry(*member).or_insert_with(|| Arc::new(Semaphore::new(WAITING_MAX))),
        );
        let Ok(turn) = room.try_acquire_owned() else { continue };
        let deadline = Instant::now() + round.within;
        let body = round.body.clone();
        let question = Question { to: *member, path: vec![me], body, is_write: false, deadline };
        let (region, member, asked, terms) = (Arc::clone(region), *member, round.asked, round.terms.clone());
        tokio::spawn(async move {
            if let Ok(arriving) = ask(&region, &question).await {
                hear(&region, member, asked, terms, arriving.answer).await;
            }
            drop(turn);
        });
    }
}

/// Takes in what a member answers.
async fn hear(
    region: &Arc<Region>,
    member: RegionId,
    asked: MonoMs,
    terms: Vec<(Vec<u8>, Term)>,
    answer: Answer,
) {
    let Answer::Claims { digest, verdicts, told } = answer else { return };
    region.homes().compare(region, member, digest);
    change(region, move |region, book| {
        let members = members(region);
        book.adopt(&told);
        for ((keys, term), verdict) in terms.into_iter().zip(verdicts) {
            let Some((seat, lease_ms)) = book.seat_mut(&keys) else { continue };
            match verdict {
                Verdict::Confirmed => {
                    seat.confirmed_by(member, term, asked);
                    seat.settle(&members, lease_ms);
                }
                Verdict::Outdone(appointment) => {
                    seat.adopt(&appointment);
                }
                Verdict::Promised(_) | Verdict::Bound { .. } | Verdict::Learning | Verdict::Unknown => {}
            }
        }
        book.heard(member);
    })
    .await;
}
