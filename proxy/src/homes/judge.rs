//! Whether a write may be done here.

use std::time::Duration;

use meridian_conflict::clock::RegionId;
use smallvec::SmallVec;

use super::rule::{Grants, Rule, shown};
use super::{Homes, Rules, now};
use crate::command::meridian::region_name;
use crate::config::settings::Elsewhere;
use crate::region::Region;

/// Why a write is not done here. Nothing changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HomeError {
    /// It is to be sent to its home.
    #[error("HOME the home of {} is {}: write there", .0.key, .0.name)]
    Forward(Forward),
    /// This region is becoming the home, or is about to hand over.
    #[error("HOME the home of {key} is moving: nothing was done; try again")]
    Moving {
        /// A key of it, as shown.
        key: String,
        /// How long to wait for that.
        timeout: Duration,
    },
    /// It is refused; the text says why.
    #[error("{0}")]
    Refused(String),
}

/// Where a write is to be sent.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The home.
    pub home: RegionId,
    /// Its name.
    pub name: String,
    /// A key of it, as shown.
    pub key: String,
    /// How long it may take.
    pub timeout: Duration,
}

/// The rules that a write is under, each with a key of it.
#[derive(Debug)]
pub struct Involved<'a> {
    table: Option<Rules>,
    found: SmallVec<[(usize, &'a [u8]); 1]>,
    flushes: bool,
}

/// What the rules of a write come to.
enum Outcome<'a> {
    /// Done here; the home is here for those.
    Here(SmallVec<[&'a std::sync::Arc<Rule>; 1]>),
    /// To be sent away.
    There(Forward),
}

impl<'a> Involved<'a> {
    /// Of a write of which no key was looked at yet; `writes` is false for what only reads.
    pub fn new(homes: &Homes, writes: bool) -> Self {
        let table = (writes && homes.is_active()).then(|| homes.rules());
        Self { table, found: SmallVec::new(), flushes: false }
    }

    /// It names this key.
    pub fn key(&mut self, key: &'a [u8]) {
        let Some(table) = &self.table else { return };
        let rule = table.iter().position(|rule| meridian_conflict::glob::matches(&rule.keys, key));
        if let Some(rule) = rule
            && !self.found.iter().any(|(known, _)| *known == rule)
        {
            self.found.push((rule, key));
        }
    }

    /// It is about every key there is.
    pub fn everything(&mut self) {
        self.flushes |= self.table.is_some();
    }

    /// Whether the write may be done here, as things stand.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn check(&self, region: &Region) -> Result<(), HomeError> {
        match self.look(region)? {
            Outcome::Here(_) => Ok(()),
            Outcome::There(forward) => Err(HomeError::Forward(forward)),
        }
    }

    /// [`Involved::check`] under the locks of the keys: what is granted is noted, what is accepted is counted.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn grant(&self, region: &Region, grants: &mut Grants) -> Result<(), HomeError> {
        let Some(table) = &self.table else { return Ok(()) };
        match self.look(region)? {
            Outcome::Here(rules) => rules.iter().for_each(|rule| grants.note(rule, rule.standing().term)),
            Outcome::There(forward) => return Err(HomeError::Forward(forward)),
        }
        let found = self.found.iter().filter_map(|(rule, _)| table.get(*rule));
        for rule in found.filter(|rule| rule.elsewhere == Elsewhere::Accept) {
            let holder = rule.standing().term.holder;
            if holder != region.homes().me {
                let name = region_name(region, holder);
                region.metrics().homes.accepted.with_label_values(&[&name]).inc();
            }
        }
        Ok(())
    }

    fn look(&self, region: &Region) -> Result<Outcome<'_>, HomeError> {
        let (mut here, mut there) = (SmallVec::new(), None::<(Forward, &[u8])>);
        let Some(table) = &self.table else { return Ok(Outcome::Here(here)) };
        let (me, now) = (region.homes().me, now());
        let named = self.found.iter().filter_map(|(rule, key)| Some((table.get(*rule)?, *key)));
        let all = table.iter().map(|rule| (rule, &*rule.keys)).filter(|_| self.flushes);
        for (rule, key) in named.chain(all).filter(|(rule, _)| rule.elsewhere != Elsewhere::Accept) {
            let standing = rule.standing();
            let home = standing.term.holder;
            if home == me {
                if standing.moving {
                    return Err(HomeError::Moving { key: shown(key), timeout: rule.timeout });
                }
                if standing.until <= now {
                    return Err(refused(region, me, "no_lease", || no_lease(key)));
                }
                here.push(rule);
                continue;
            }
            let name = region_name(region, home);
            if self.flushes {
                let text = || {
                    format!(
                        "keys like {} have their home in {name}: nothing was flushed; use DEL",
                        shown(key)
                    )
                };
                return Err(refused(region, home, "flush", text));
            }
            if rule.elsewhere == Elsewhere::Refuse {
                let text = || format!("the home of {} is {name}: write there", shown(key));
                return Err(refused(region, home, "elsewhere", text));
            }
            if let Some((other, other_key)) = &there
                && other.home != home
            {
                return Err(refused(region, home, "several", || several(key, other_key)));
            }
            there = Some((Forward { home, name, key: shown(key), timeout: rule.timeout }, key));
        }
        match there {
            Some((forward, key)) if !here.is_empty() => {
                let here = self.found.iter().find(|(_, other)| *other != key).map_or(key, |(_, key)| key);
                Err(refused(region, forward.home, "several", || several(key, here)))
            }
            Some((forward, _)) => Ok(Outcome::There(forward)),
            None => Ok(Outcome::Here(here)),
        }
    }
}

fn no_lease(key: &[u8]) -> String {
    let key = shown(key);
    format!("this region is the home of {key} and has no lease: too few regions confirm it; nothing was done")
}

fn several(one: &[u8], other: &[u8]) -> String {
    format!("{} and {} have different homes: nothing was done", shown(one), shown(other))
}

/// A refusal, counted.
pub fn refused(region: &Region, home: RegionId, reason: &str, text: impl FnOnce() -> String) -> HomeError {
    let name = region_name(region, home);
    region.metrics().homes.refused.with_label_values(&[name.as_str(), reason]).inc();
    HomeError::Refused(format!("HOME {}", text()))
}
