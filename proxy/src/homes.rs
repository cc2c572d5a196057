//! Home regions: keys that are written in one region at a time.
//!
//! A rule names a pattern of keys and what becomes of a write elsewhere. The home executes writes one after the other, so
//! what is only true in one order is true for all regions: a lock that is granted once, an element that is popped
//! once. Who is home, and whether it may act, is [`meridian_topology::home`]; here it meets clients, disk and links.
//!
//! Where there are no rules a write costs a branch. Where there are, its keys are matched once, and looked at twice: before its
//! locks are taken, to send it away early, and under them, where a home that hands over has stopped or has not.
//!
//! | module | room of |
//! |---|---|
//! | [`rule`] | a rule, and how its home stands |
//! | [`judge`] | whether a write may be done here |
//! | [`book`] | the seats, and the file that keeps them |
//! | [`ask`] | asking other regions, by neighbours where there is no link |
//! | [`answer`] | answering and passing on |
//! | [`run`] | writes of other regions' clients |
//! | [`forward`] | writes of this region's clients |
//! | [`upkeep`] | leases, and who knows what |
//! | [`failover`] | `MERIDIAN.HOME` |
//! | [`status`] | `MERIDIAN.HOMES` and `/status` |

pub mod answer;
pub mod ask;
pub mod book;
pub mod failover;
pub mod forward;
pub mod judge;
pub mod rule;
pub mod run;
pub mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use meridian_conflict::clock::RegionId;
use meridian_topology::time::MonoMs;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::settings::{Elsewhere, HomeRule, Settings};
use crate::region::Region;
use ask::Links;
use book::Book;
use rule::{Rule, Standing};

/// The rules in force.
pub type Rules = Arc<[Arc<Rule>]>;

/// Everything a region knows of homes.
#[derive(Debug)]
pub struct Homes {
    me: RegionId,
    is_active: AtomicBool,
    rules: RwLock<Rules>,
    digest: AtomicU64,
    /// Commands run for other regions.
    runs: AtomicU64,
    book: Mutex<Book>,
    links: Links,
    /// Who is known to have other rules.
    differing: Mutex<BTreeSet<RegionId>>,
    /// Told when somebody else is home, or a lease begins.
    changed: Notify,
    /// Others should hear of it now.
    hurry: Notify,
}

/// A clock that goes on while the process, or the machine, stands still.
pub fn now() -> MonoMs {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    MonoMs(seconds.saturating_mul(1_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Equal for equal rules; zero for none.
fn digest(rules: &[HomeRule]) -> u64 {
    if rules.is_empty() {
        return 0;
    }
    let form: Vec<(&str, &str, &str, u64)> = rules
        .iter()
        .map(|rule| (rule.keys.as_str(), rule.region.as_str(), rule.elsewhere.name(), millis(rule.lease)))
        .collect();
    // Zero stands for no rules.
    xxh3_64(&postcard::to_stdvec(&form).unwrap_or_default()).max(1)
}

impl Homes {
    /// Those of `settings`, as far as the data directory remembers who is home.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn open(settings: &Settings, data_dir: &Path) -> std::io::Result<Self> {
        let me = RegionId::of(settings.region.as_str());
        let others = settings.peers().map(|peer| RegionId::of(peer.name.as_str())).collect();
        let book = Book::open(me, data_dir, &settings.homes, others, now())?;
        let homes = Self {
            me,
            is_active: AtomicBool::new(false),
            rules: RwLock::new(Arc::new([])),
            digest: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            book: Mutex::new(book),
            links: Links::new(settings),
            differing: Mutex::default(),
            changed: Notify::new(),
            hurry: Notify::new(),
        };
        homes.enforce(&settings.homes, &homes.book.lock());
        Ok(homes)
    }

    /// Whether there are any rules.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// The rules in force.
    pub fn rules(&self) -> Rules {
        Arc::clone(&self.rules.read())
    }

    /// Digest of the rules as configured; zero for none.
    pub fn digest(&self) -> u64 {
        self.digest.load(Ordering::Acquire)
    }

    /// The rule of this pattern.
    pub fn rule(&self, keys: &[u8]) -> Option<Arc<Rule>> {
        self.rules.read().iter().find(|rule| *rule.keys == *keys).cloned()
    }

    /// Whether a neighbour is known to have other rules.
    pub fn differs(&self, peer: RegionId) -> bool {
        self.differing.lock().contains(&peer)
    }

    /// Puts rules in force. What is known of homes stays; a rule that is gone is forgotten, one that is new begins with
    /// what the configuration says. Returns whether anything changed. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be stored; nothing changed.
    pub fn change_rules(&self, region: &Region, rules: &[HomeRule]) -> std::io::Result<bool> {
        let known = self.rules();
        let same = known.len() == rules.len() && known.iter().zip(rules).all(|(rule, new)| rule.is(new));
        if same {
            return Ok(false);
        }
        let others = others(region, self.me);
        let mut book = self.book.lock();
        book.set_rules(rules, others, now())?;
        self.enforce(rules, &book);
        self.publish(region, &book);
        drop(book);
        tracing::info!(rules = rules.len(), "the home rules have changed");
        self.hurry.notify_one();
        Ok(true)
    }

    /// Makes the table that writes are judged by.
    fn enforce(&self, rules: &[HomeRule], book: &Book) {
        let standing = |keys: &str| {
            let term = book.seat(keys.as_bytes()).map(meridian_topology::home::Seat::term);
            term.map(|term| Standing { term, until: MonoMs(0), moving: false, released: None })
        };
        let table = rules.iter().filter_map(|rule| Some(Arc::new(Rule::new(rule, standing(&rule.keys)?))));
        *self.rules.write() = table.collect();
        self.digest.store(digest(rules), Ordering::Release);
        self.is_active.store(!rules.is_empty(), Ordering::Release);
    }

    /// Shows writes how homes stand now.
    fn publish(&self, region: &Region, book: &Book) {
        let (members, now) = (members(region), now());
        let (mut held, mut without_lease) = (0, 0);
        for rule in self.rules().iter() {
            let Some(seat) = book.seat(&rule.keys) else { continue };
            let until = seat.lease_until(&members, rule.lease_ms).unwrap_or_default();
            let has_applied = || region.sequencer().covers(&seat.appointment().after);
            let moving = seat.is_mine() && (seat.is_stopped() || seat.is_beginning() || !has_applied());
            let released = seat.appointment().released;
            rule.set(Standing { term: seat.term(), until, moving, released });
            held += i64::from(seat.is_mine());
            let needs_lease = seat.is_mine() && rule.elsewhere != Elsewhere::Accept;
            without_lease += i64::from(needs_lease && (moving || until <= now));
        }
        region.metrics().homes.held.set(held);
        let gauge = &region.metrics().homes.without_lease;
        if gauge.get() != without_lease {
            tracing::info!(held, without_lease, "homes have won or lost their lease");
        }
        gauge.set(without_lease);
        self.changed.notify_waiters();
    }

    /// Changes what is known of homes, stores what has to be kept, and shows it. Blocks on the disk where there is something
    /// to keep.
    ///
    /// # Errors
    /// When it cannot be stored; nothing changed.
    fn change<T>(&self, region: &Region, work: impl FnOnce(&mut Book) -> T) -> std::io::Result<T> {
        let mut book = self.book.lock();
        let before = book.terms();
        let done = book.change(work)?;
        self.publish(region, &book);
        if book.terms() != before {
            // Whoever is home by this asks for its lease; and others hear of it.
            self.hurry.notify_one();
        }
        Ok(done)
    }

    /// How long until somebody else may be home, or `within` has passed.
    pub(crate) async fn until_changed(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.changed.notified()).await;
    }

    /// Notes whether a member has the same rules.
    fn compare(&self, region: &Region, member: RegionId, digest: u64) {
        let mut differing = self.differing.lock();
        let differs = digest != self.digest();
        let is_news = if differs { differing.insert(member) } else { differing.remove(&member) };
        if is_news && differs {
            let peer = region.membership().name_of(member);
            tracing::error!(peer, "home rules differ between regions");
        }
    }

    /// These can be asked from now on.
    pub(crate) fn set_links(&self, connections: BTreeMap<RegionId, quinn::Connection>) {
        if self.links.set(connections) {
            self.hurry.notify_one();
        }
    }
}

/// [`Homes::change`] beside the runtime, with what cannot be stored in the log.
async fn change<T: Send + 'static>(
    region: &Arc<Region>,
    work: impl FnOnce(&Region, &mut Book) -> T + Send + 'static,
) -> Option<T> {
    let region = Arc::clone(region);
    let changing =
        tokio::task::spawn_blocking(move || region.homes().change(&region, |book| work(&region, book)));
    match changing.await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot store what is known of home regions");
            None
        }
        // Only a runtime that is shutting down loses the task.
        Err(_) => None,
    }
}

/// The members of the cluster.
fn members(region: &Region) -> BTreeSet<RegionId> {
    region.membership().regions.keys().map(|name| RegionId::of(name.as_str())).collect()
}

/// All members but this one.
fn others(region: &Region, me: RegionId) -> BTreeSet<RegionId> {
    let mut others = members(region);
    others.remove(&me);
    others
}
