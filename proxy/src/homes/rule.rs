//! A rule, and how its home stands.

use std::sync::Arc;
use std::time::Duration;

use meridian_topology::home::Term;
use meridian_topology::time::MonoMs;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::millis;
use crate::config::settings::{Elsewhere, HomeRule};

/// The longest part of a key that an error shows.
const SHOWN_BYTES: usize = 120;

/// Who is home of a rule's keys, and until when it may grant writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The present term.
    pub term: Term,
    /// Until when this region may grant writes, if it is the home.
    pub until: MonoMs,
    /// This region is the home and does not act: it is about to hand over, or has not had its first
    /// lease or not applied all that it has to.
    pub moving: bool,
    /// The term that was given up for the present one: what was granted in it the present home has.
    pub released: Option<Term>,
}

/// A rule in force.
#[derive(Debug)]
pub struct Rule {
    /// The pattern.
    pub keys: Box<[u8]>,
    /// What becomes of a write elsewhere.
    pub elsewhere: Elsewhere,
    /// How long a lease is.
    pub lease_ms: u64,
    /// How long a forwarded write may take.
    pub timeout: Duration,
    region: String,
    standing: RwLock<Standing>,
}

impl Rule {
    /// The configured rule with how its home stands.
    pub fn new(rule: &HomeRule, standing: Standing) -> Self {
        Self {
            keys: rule.keys.as_bytes().into(),
            elsewhere: rule.elsewhere,
            lease_ms: millis(rule.lease),
            timeout: rule.timeout,
            region: rule.region.to_string(),
            standing: RwLock::new(standing),
        }
    }

    /// Whether it is what `rule` says.
    pub fn is(&self, rule: &HomeRule) -> bool {
        *self.keys == *rule.keys.as_bytes()
            && self.elsewhere == rule.elsewhere
            && self.lease_ms == millis(rule.lease)
            && self.timeout == rule.timeout
            && self.region == rule.region.as_str()
    }

    /// How its home stands.
    pub fn standing(&self) -> Standing {
        *self.standing.read()
    }

    pub(super) fn set(&self, standing: Standing) {
        *self.standing.write() = standing;
    }
}

/// A key as an error shows it.
pub fn shown(key: &[u8]) -> String {
    let start = key.get(..SHOWN_BYTES).unwrap_or(key);
    let more = if start.len() < key.len() { "..." } else { "" };
    format!("'{}{more}'", start.escape_ascii())
}

/// That this region was the home of what it wrote, in the term.
#[derive(Clone, Debug)]
struct Grant {
    rule: Arc<Rule>,
    term: Term,
}

/// What replies rest on: they may leave only while this region still has its leases. If one was lost and won again in
/// the same term, nobody else was home in between.
#[derive(Clone, Debug, Default)]
pub struct Grants(SmallVec<[Grant; 1]>);

impl Grants {
    /// Notes that a write under `rule` was granted.
    pub fn note(&mut self, rule: &Arc<Rule>, term: Term) {
        let known = |grant: &Grant| Arc::ptr_eq(&grant.rule, rule) && grant.term == term;
        if !self.0.iter().any(known) {
            self.0.push(Grant { rule: Arc::clone(rule), term });
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them still hold. Forgets them.
    pub fn take_valid(&mut self) -> bool {
        let now = super::now();
        let holds = |grant: &Grant| {
            let standing = grant.rule.standing();
            // One that hands over had its lease when it stopped, and its heir has all that it granted before.
            let is_kept = standing.moving || now < standing.until;
            standing.released == Some(grant.term) || (standing.term == grant.term && is_kept)
        };
        let valid = self.0.iter().all(holds);
        self.0.clear();
        valid
    }
}
