//! The laws of homes: whatever is lost, late or begun again, there are never two that may grant.

use proptest::prelude::*;

use super::*;

const LEASE_MS: u64 = 800;

fn id(n: u32) -> RegionId {
    RegionId(n)
}

fn ids(n: usize) -> BTreeSet<RegionId> {
    (0..n as u32).map(id).collect()
}

fn at(ms: u64) -> MonoMs {
    MonoMs(ms)
}

fn seats(n: usize) -> Vec<Seat> {
    let learned = |me: u32| {
        let mut seat = Seat::fresh(id(me), id(0), at(0), LEASE_MS);
        seat.learned();
        seat
    };
    (0..n as u32).map(learned).collect()
}

/// The holder asks all in `who` at `now`.
fn round(seats: &mut [Seat], holder: usize, who: &[usize], now: u64) -> Verdict {
    let verdict = seats[holder].claim_own(at(now), LEASE_MS);
    let claimed = seats[holder].appointment().clone();
    for member in who.iter().filter(|member| **member != holder) {
        if seats[*member].claim(at(now), &claimed, LEASE_MS) == Verdict::Confirmed {
            seats[holder].confirmed_by(id(*member as u32), claimed.term, at(now));
        }
    }
    verdict
}

fn grants(seats: &[Seat], i: usize, now: u64) -> bool {
    seats[i].may_grant(at(now), &ids(seats.len()), LEASE_MS)
}

fn ask(seats: &mut [Seat], voter: usize, candidate: u32, number: u64, now: u64) -> Ballot {
    let members = ids(seats.len());
    let wanted = Term { number, holder: id(candidate) };
    seats[voter].vote(at(now), wanted, false, VersionVector::new, &members, LEASE_MS)
}

fn has_vote(ballot: &Ballot) -> bool {
    matches!(ballot, Ballot::Given { .. })
}

#[test]
fn the_two_sets_always_meet() {
    for n in 1..200 {
        assert!(to_lease(n) + to_win(n) > n, "{n}");
        assert!(to_win(n) + to_win(n) > n);
    }
    assert_eq!((to_lease(2), to_win(2)), (1, 2));
    assert_eq!((to_lease(3), to_win(3)), (2, 2));
    assert_eq!((to_lease(4), to_win(4)), (2, 3));
}

#[test]
fn a_home_grants_for_the_lease_from_when_it_asked_and_no_longer() {
    let mut seats = seats(3);
    assert!(!grants(&seats, 0, 0), "nobody has confirmed it");
    round(&mut seats, 0, &[], 0);
    assert!(!grants(&seats, 0, 0), "alone it is too few");
    round(&mut seats, 0, &[1], 10);
    assert!(grants(&seats, 0, 809) && !grants(&seats, 0, 810));
    assert!(!grants(&seats, 1, 20) && !grants(&seats, 2, 20));
}

#[test]
fn a_region_alone_is_enough_and_so_is_one_of_two() {
    for n in [1, 2] {
        let mut seats = seats(n);
        let other: &[usize] = if n == 2 { &[1] } else { &[] };
        // Fresh, it needs most of them once.
        round(&mut seats, 0, &[], 0);
        assert_eq!(grants(&seats, 0, 1), n == 1);
        round(&mut seats, 0, other, 0);
        seats[0].settle(&ids(n), LEASE_MS);
        round(&mut seats, 0, &[], 5_000);
        assert!(grants(&seats, 0, 5_001));
    }
}

#[test]
fn a_voter_is_bound_until_the_lease_it_confirmed_is_over_by_any_clock() {
    let mut seats = seats(3);
    round(&mut seats, 0, &[1, 2], 0);
    assert_eq!(ask(&mut seats, 1, 2, 1, 100), Ballot::Bound { for_ms: 800 });
    assert!(has_vote(&ask(&mut seats, 1, 2, 1, 900)));
    assert!(has_vote(&ask(&mut seats, 2, 2, 1, 900)));
    assert!(matches!(ask(&mut seats, 1, 0, 1, 900), Ballot::Promised(_)), "one vote in a term");
    assert!(has_vote(&ask(&mut seats, 1, 2, 1, 900)), "it may ask again");
    assert!(matches!(round(&mut seats, 0, &[1], 901), Verdict::Confirmed));
    assert!(!grants(&seats, 0, 902), "who voted does not confirm the old one any more");
    let won = seats[2].win(1, VersionVector::new()).unwrap();
    assert_eq!(round(&mut seats, 2, &[1], 902), Verdict::Confirmed);
    assert!(grants(&seats, 2, 903));
    // What the old home hears ends it at once.
    assert_eq!(seats[0].claim(at(903), &won, LEASE_MS), Verdict::Confirmed);
    assert!(!seats[0].is_mine());
    assert!(matches!(ask(&mut seats, 0, 1, 1, 9_000), Ballot::Outdone(_)));
}

#[test]
fn a_home_that_hands_over_sets_free_who_was_bound_to_it() {
    let mut seats = seats(3);
    round(&mut seats, 0, &[1, 2], 0);
    assert!(seats[0].stop(at(10), &ids(3), LEASE_MS) && !grants(&seats, 0, 10));
    let after: VersionVector =
        [meridian_conflict::clock::Dot::new(meridian_conflict::clock::Origin(7), 3)].into_iter().collect();
    let handed = seats[0].hand_over(id(2), after.clone());
    assert_eq!((handed.term.number, &handed.after), (1, &after));
    assert!(seats[2].adopt(&handed));
    assert_eq!(round(&mut seats, 2, &[1], 11), Verdict::Confirmed);
    assert!(grants(&seats, 2, 12));
    assert!(!seats[2].stop(at(5_000), &ids(3), LEASE_MS), "without a lease there is nothing to hand over");
}

#[test]
fn what_a_restart_forgets_is_waited_for() {
    let mut seats = seats(3);
    round(&mut seats, 0, &[1, 2], 0);
    seats[1] = Seat::again(id(1), seats[1].kept().clone(), at(100), LEASE_MS);
    assert!(matches!(ask(&mut seats, 1, 2, 1, 500), Ballot::Bound { .. }));
    assert_eq!(round(&mut seats, 0, &[1], 200), Verdict::Confirmed, "whom it knows it may confirm");
    // The home itself has no lease after a restart.
    seats[0] = Seat::again(id(0), seats[0].kept().clone(), at(300), LEASE_MS);
    assert!(!grants(&seats, 0, 300));
    // One that had not confirmed yet whom it knows may be bound to anybody.
    let won = Appointment { term: Term { number: 4, holder: id(2) }, ..Appointment::first(id(2)) };
    seats[1].adopt(&won);
    seats[1] = Seat::again(id(1), seats[1].kept().clone(), at(400), LEASE_MS);
    assert_eq!(seats[1].claim(at(500), &won, LEASE_MS), Verdict::Bound { for_ms: 800 });
    assert_eq!(seats[1].claim(at(1_300), &won, LEASE_MS), Verdict::Confirmed);
    // A disk that was lost: nothing is said before the others were heard.
    let mut fresh = Seat::fresh(id(1), id(0), at(0), LEASE_MS);
    assert_eq!(fresh.claim(at(1), &Appointment::first(id(0)), LEASE_MS), Verdict::Learning);
    fresh.learned();
    assert_eq!(fresh.claim(at(1), &Appointment::first(id(0)), LEASE_MS), Verdict::Confirmed);
}

#[test]
fn the_operator_s_word_does_without_votes_and_not_without_waiting_for_one_s_own() {
    let mut seats = seats(2);
    round(&mut seats, 0, &[1], 0);
    let forced = seats[1].force(VersionVector::new());
    assert_eq!(forced.term, Term { number: 1, holder: id(1) });
    assert!(matches!(seats[1].claim_own(at(100), LEASE_MS), Verdict::Bound { .. }));
    assert_eq!(seats[1].claim_own(at(900), LEASE_MS), Verdict::Confirmed);
    assert!(grants(&seats, 1, 901));
}

/// A message under way: what a member was asked, and what comes of it.
#[derive(Clone, Debug)]
enum Letter {
    Claim { to: usize, claimed: Appointment, asked: MonoMs },
    Confirmed { to: usize, by: usize, term: Term, asked: MonoMs },
    Told { to: usize, appointment: Appointment },
    Vote { to: usize, wanted: Term },
    Voted { to: usize, by: usize, wanted: Term },
}

struct World {
    seats: Vec<Seat>,
    now: u64,
    letters: Vec<Letter>,
    votes: BTreeMap<Term, BTreeSet<usize>>,
    granted: usize,
}

impl World {
    fn new(n: usize) -> Self {
        Self { seats: seats(n), now: 0, letters: Vec::new(), votes: BTreeMap::new(), granted: 0 }
    }

    /// Each clock has its own start, and runs up to 5 % fast or slow.
    fn clock(&self, i: usize) -> MonoMs {
        let rate = [1_000, 950, 1_050, 980, 1_020][i];
        at(self.now * rate / 1_000 + i as u64 * 7_777)
    }

    fn members(&self) -> BTreeSet<RegionId> {
        ids(self.seats.len())
    }

    fn step(&mut self, what: u8, who: usize, which: usize) {
        let (n, now) = (self.seats.len(), self.clock(who % self.seats.len()));
        let (i, members) = (who % n, self.members());
        let others = (0..n).filter(move |other| *other != i);
        match what % 24 {
            0..=2 => {
                if self.seats[i].is_mine() && self.seats[i].claim_own(now, LEASE_MS) == Verdict::Confirmed {
                    let claimed = self.seats[i].appointment().clone();
                    self.letters.extend(others.map(|to| Letter::Claim {
                        to,
                        claimed: claimed.clone(),
                        asked: now,
                    }));
                }
                self.seats[i].settle(&members, LEASE_MS);
            }
            3..=15 => self.deliver(which),
            16 => drop((!self.letters.is_empty()).then(|| self.letters.remove(which % self.letters.len()))),
            // A candidate that asks too often only keeps others from being confirmed.
            17 if !which.is_multiple_of(3) => {}
            17 => {
                let number = self.seats[i].greatest() + 1;
                let wanted = Term { number, holder: id(i as u32) };
                let ballot = self.seats[i].vote(now, wanted, false, VersionVector::new, &members, LEASE_MS);
                if has_vote(&ballot) {
                    self.votes.entry(wanted).or_default().insert(i);
                    self.letters.extend(others.map(|to| Letter::Vote { to, wanted }));
                }
            }
            18 => {
                if self.seats[i].stop(now, &members, LEASE_MS) {
                    let heir = others.clone().nth(which % n.max(2) % (n - 1)).unwrap();
                    let appointment = self.seats[i].hand_over(id(heir as u32), VersionVector::new());
                    self.letters
                        .extend(others.map(|to| Letter::Told { to, appointment: appointment.clone() }));
                }
            }
            19 => self.seats[i] = Seat::again(id(i as u32), self.seats[i].kept().clone(), now, LEASE_MS),
            _ => self.now += which as u64 % 120,
        }
    }

    fn deliver(&mut self, which: usize) {
        if self.letters.is_empty() {
            return;
        }
        // Mostly one of the last, sometimes one that is long under way.
        let last = self.letters.len() - 1;
        let at = if which.is_multiple_of(5) { which % (last + 1) } else { last.saturating_sub(which % 4) };
        let letter = self.letters.swap_remove(at);
        let members = self.members();
        match letter {
            Letter::Claim { to, claimed, asked } => {
                let now = self.clock(to);
                match self.seats[to].claim(now, &claimed, LEASE_MS) {
                    Verdict::Confirmed => {
                        let holder = claimed.term.holder.0 as usize;
                        self.letters.push(Letter::Confirmed {
                            to: holder,
                            by: to,
                            term: claimed.term,
                            asked,
                        });
                    }
                    Verdict::Outdone(appointment) => {
                        self.letters.push(Letter::Told { to: claimed.term.holder.0 as usize, appointment });
                    }
                    _ => {}
                }
            }
            Letter::Confirmed { to, by, term, asked } => {
                self.seats[to].confirmed_by(id(by as u32), term, asked);
            }
            Letter::Told { to, appointment } => drop(self.seats[to].adopt(&appointment)),
            Letter::Vote { to, wanted } => {
                let now = self.clock(to);
                if has_vote(&self.seats[to].vote(now, wanted, false, VersionVector::new, &members, LEASE_MS))
                {
                    self.letters.push(Letter::Voted { to: wanted.holder.0 as usize, by: to, wanted });
                }
            }
            Letter::Voted { to, by, wanted } => {
                let votes = self.votes.entry(wanted).or_default();
                votes.insert(by);
                if votes.len() >= to_win(members.len()) {
                    self.seats[to].win(wanted.number, VersionVector::new());
                }
            }
        }
    }

    fn check(&mut self) {
        let members = self.members();
        let who: Vec<(usize, Term)> = (0..self.seats.len())
            .filter(|i| self.seats[*i].may_grant(self.clock(*i), &members, LEASE_MS))
            .map(|i| (i, self.seats[i].term()))
            .collect();
        assert!(who.len() <= 1, "two may grant: {who:?}");
        self.granted += who.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn never_two_may_grant(n in 2usize..6, steps in prop::collection::vec((0u8..24, 0usize..5, 0usize..1_000), 1..900)) {
        let mut world = World::new(n);
        for (what, who, which) in steps {
            world.step(what, who, which);
            world.check();
        }
    }
}

/// The law is worth something only where homes do grant and do change.
#[test]
fn homes_grant_and_change_in_the_world_of_the_law() {
    let (mut granted, mut greatest) = (0, 0);
    for seed in 0..400u64 {
        let mut world = World::new(2 + seed as usize % 4);
        let mut dice = seed;
        for _ in 0..2_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = dice >> 33;
            world.step((draw % 24) as u8, (draw / 24 % 5) as usize, (draw / 120 % 1_000) as usize);
            world.check();
        }
        granted += world.granted;
        greatest = greatest.max(world.seats.iter().map(|seat| seat.term().number).max().unwrap());
    }
    assert!(granted > 1_000 && greatest > 5, "{granted} {greatest}");
}
