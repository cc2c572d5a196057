//! The seats of all rules, and the file `homes` that keeps them.
//!
//! | bytes | content |
//! |---|---|
//! | envelope | as of the store's rows: version, payload, checksum |
//! | payload | [`encode_seats`] |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use meridian_conflict::clock::RegionId;
use meridian_topology::home::message::{KeptSeat, Told, decode_seats, encode_seats};
use meridian_topology::home::{Appointment, Seat, Term};
use meridian_topology::time::MonoMs;

use super::millis;
use crate::config::settings::HomeRule;
use crate::store::row;

const FILE: &str = "homes";

/// The seats by pattern, with the length of their leases.
type Seats = BTreeMap<Box<[u8]>, (Seat, u64)>;

/// What is known of homes.
#[derive(Debug)]
pub struct Book {
    me: RegionId,
    path: PathBuf,
    seats: Seats,
    /// Who was not heard since this region began to learn.
    unheard: BTreeSet<RegionId>,
}

impl Book {
    /// The seats of `rules` as the file has them, or as configured.
    pub(super) fn open(
        me: RegionId,
        data_dir: &Path,
        rules: &[HomeRule],
        others: BTreeSet<RegionId>,
        now: MonoMs,
    ) -> std::io::Result<Self> {
        let path = data_dir.join(FILE);
        let mut kept: BTreeMap<_, _> = load(&path)?.into_iter().map(|seat| (seat.keys, seat.kept)).collect();
        let mut book = Self { me, path, seats: Seats::new(), unheard: others };
        for rule in rules {
            let lease_ms = millis(rule.lease);
            let seat = match kept.remove(rule.keys.as_bytes()) {
                Some(kept) => Seat::again(me, kept, now, lease_ms),
                None => Seat::fresh(me, RegionId::of(rule.region.as_str()), now, lease_ms),
            };
            book.seats.insert(rule.keys.as_bytes().into(), (seat, lease_ms));
        }
        book.learn();
        Ok(book)
    }

    /// These are the rules from now on.
    pub(super) fn set_rules(
        &mut self,
        rules: &[HomeRule],
        others: BTreeSet<RegionId>,
        now: MonoMs,
    ) -> std::io::Result<()> {
        let mut seats = Seats::new();
        for rule in rules {
            let (keys, lease_ms) = (rule.keys.as_bytes(), millis(rule.lease));
            let holder = RegionId::of(rule.region.as_str());
            let seat = match self.seats.get(keys) {
                Some((seat, _)) => {
                    if seat.term().number == 0 && seat.term().holder != holder {
                        tracing::warn!(
                            keys = rule.keys,
                            "a home is moved by MERIDIAN.HOME, not by the configuration"
                        );
                    }
                    seat.clone()
                }
                None => Seat::fresh(self.me, holder, now, lease_ms).wary(now, lease_ms),
            };
            seats.insert(keys.into(), (seat, lease_ms));
        }
        let mut new = Self { me: self.me, path: self.path.clone(), seats, unheard: others };
        new.learn();
        if new.kept() != self.kept() {
            new.store()?;
        }
        *self = new;
        Ok(())
    }

    /// The seat of a pattern.
    pub fn seat(&self, keys: &[u8]) -> Option<&Seat> {
        self.seats.get(keys).map(|(seat, _)| seat)
    }

    /// The seat of a pattern, and the length of its lease.
    pub(super) fn seat_mut(&mut self, keys: &[u8]) -> Option<(&mut Seat, u64)> {
        self.seats.get_mut(keys).map(|(seat, lease_ms)| (seat, *lease_ms))
    }

    /// All seats with their patterns and leases.
    pub(super) fn seats_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut Seat, u64)> {
        self.seats.iter_mut().map(|(keys, (seat, lease_ms))| (&**keys, seat, *lease_ms))
    }

    /// All seats with their patterns.
    pub(super) fn seats(&self) -> impl Iterator<Item = (&[u8], &Seat)> {
        self.seats.iter().map(|(keys, (seat, _))| (&**keys, seat))
    }

    /// The present term of each seat.
    pub(super) fn terms(&self) -> Vec<Term> {
        self.seats().map(|(_, seat)| seat.term()).collect()
    }

    /// Whether some seat has to hear the others before it takes part.
    pub(super) fn is_learning(&self, now: MonoMs) -> bool {
        self.seats.values().any(|(seat, _)| seat.is_learning(now))
    }

    /// A member told all that it knows.
    pub(super) fn heard(&mut self, member: RegionId) {
        self.unheard.remove(&member);
        self.learn();
    }

    fn learn(&mut self) {
        if self.unheard.is_empty() {
            self.seats.values_mut().for_each(|(seat, _)| seat.learned());
        }
    }

    /// Takes note of appointments. Returns whether any is news.
    pub(super) fn adopt(&mut self, told: &[Told]) -> bool {
        let mut news = false;
        for Told { keys, appointment } in told {
            news |= self.seat_mut(keys).is_some_and(|(seat, _)| seat.adopt(appointment));
        }
        news
    }

    /// Appointments that the configuration does not say, of those that `wanted` picks.
    pub(super) fn told(&self, wanted: impl Fn(&[u8], &Appointment) -> bool) -> Vec<Told> {
        let known = self.seats().map(|(keys, seat)| (keys, seat.appointment()));
        known
            .filter(|(keys, appointment)| appointment.term.number > 0 && wanted(keys, appointment))
            .map(|(keys, appointment)| Told { keys: keys.to_vec(), appointment: appointment.clone() })
            .collect()
    }

    /// Does `work`, and stores what has to be kept if it has changed. If it cannot be, nothing has.
    pub(super) fn change<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> std::io::Result<T> {
        let (seats, unheard, before) = (self.seats.clone(), self.unheard.clone(), self.kept());
        let done = work(self);
        if self.kept() != before
            && let Err(error) = self.store()
        {
            (self.seats, self.unheard) = (seats, unheard);
            return Err(error);
        }
        Ok(done)
    }

    fn kept(&self) -> Vec<KeptSeat> {
        // What is fresh is what the configuration says; nothing was promised to anybody.
        let known = self
            .seats()
            .filter(|(_, seat)| !seat.kept().fresh || seat.kept().promised.is_some() || seat.kept().settled);
        known.map(|(keys, seat)| KeptSeat { keys: keys.to_vec(), kept: seat.kept().clone() }).collect()
    }

    fn store(&self) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&row::seal(&encode_seats(&self.kept())))?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn load(path: &Path) -> std::io::Result<Vec<KeptSeat>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let malformed = || Error::new(ErrorKind::InvalidData, "the file `homes` is damaged");
    let payload = row::open(&bytes).map_err(|_| malformed())?;
    decode_seats(payload).map_err(|_| malformed())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use meridian_topology::graph::RegionName;

    use super::*;
    use crate::config::settings::Elsewhere;

    fn rule(keys: &str) -> HomeRule {
        HomeRule {
            keys: keys.into(),
            region: RegionName::new("eu").unwrap(),
            elsewhere: Elsewhere::Forward,
            lease: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_was_promised_and_who_is_home_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (eu, us) = (RegionId::of("eu"), RegionId::of("us"));
        let open = |me| {
            Book::open(me, directory.path(), &[rule("a*"), rule("b*")], BTreeSet::new(), MonoMs(0)).unwrap()
        };
        let mut book = open(us);
        assert!(!directory.path().join(FILE).exists(), "nothing is known but the configuration");
        assert_eq!(book.seat(b"a*").unwrap().term().holder, eu);
        let forced = book.change(|book| book.seat_mut(b"a*").unwrap().0.force(Default::default())).unwrap();
        let book = open(us);
        assert_eq!(book.seat(b"a*").unwrap().term(), forced.term);
        assert_eq!(book.seat(b"a*").unwrap().kept().promised, Some(forced.term));
        assert_eq!(book.told(|_, _| true).len(), 1);
        // A rule that is gone is forgotten.
        let mut book = open(us);
        book.set_rules(&[rule("b*")], BTreeSet::new(), MonoMs(0)).unwrap();
        book.set_rules(&[rule("a*"), rule("b*")], BTreeSet::new(), MonoMs(0)).unwrap();
        assert_eq!(book.seat(b"a*").unwrap().term().number, 0);
        std::fs::write(directory.path().join(FILE), b"nonsense").unwrap();
        assert!(load(&directory.path().join(FILE)).is_err());
    }
}
