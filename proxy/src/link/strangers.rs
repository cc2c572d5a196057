//! Refused connections are logged once a minute per address, with a count.
//!
//! The address is the IP without the port, which a stranger changes at will. The map is bounded;
//! what does not fit is counted under one entry for all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often one address is worth a line.
pub const STRANGER_LOG_EVERY: Duration = Duration::from_secs(60);

/// Addresses that are told apart.
pub const STRANGERS_MAX: usize = 1024;

#[derive(Debug)]
struct Seen {
    logged_at: Instant,
    since: u64,
}

/// Decides which refusals are logged. Pure: the time comes in.
#[derive(Debug, Default)]
pub struct StrangerLog {
    seen: HashMap<IpAddr, Seen>,
    others: Option<Seen>,
}

/// One line to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerLine {
    /// The address; none when it stands for all that did not fit.
    pub address: Option<IpAddr>,
    /// Refusals since the last line, this one included.
    pub refusals: u64,
}

impl StrangerLog {
    /// Notes a refusal; returns the line to log, if one is due.
    pub fn note(&mut self, address: IpAddr, now: Instant) -> Option<StrangerLine> {
        let due = |seen: &Seen| now.saturating_duration_since(seen.logged_at) >= STRANGER_LOG_EVERY;
        if !self.seen.contains_key(&address) && self.seen.len() >= STRANGERS_MAX {
            // Only here, so that a flood pays for the sweep at most once per refusal that found the map full.
            self.seen.retain(|_, seen| !due(seen));
        }
        let (entry, address) = if self.seen.contains_key(&address) || self.seen.len() < STRANGERS_MAX {
            let fresh = Seen { logged_at: now, since: 0 };
            match self.seen.entry(address) {
                std::collections::hash_map::Entry::Occupied(entry) => (entry.into_mut(), Some(address)),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(fresh);
                    return Some(StrangerLine { address: Some(address), refusals: 1 });
                }
            }
        } else {
            let Some(others) = &mut self.others else {
                self.others = Some(Seen { logged_at: now, since: 0 });
                return Some(StrangerLine { address: None, refusals: 1 });
            };
            (others, None)
        };
        entry.since = entry.since.saturating_add(1);
        if !due(entry) {
            return None;
        }
        entry.logged_at = now;
        Some(StrangerLine { address, refusals: std::mem::take(&mut entry.since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn s1_one_line_a_minute_with_the_count() {
        let (mut log, start) = (StrangerLog::default(), Instant::now());
        assert_eq!(log.note(ip(1), start), Some(StrangerLine { address: Some(ip(1)), refusals: 1 }));
        for second in 1..60 {
            assert_eq!(log.note(ip(1), start + Duration::from_secs(second)), None);
        }
        assert!(log.note(ip(2), start).is_some());
        let line = log.note(ip(1), start + STRANGER_LOG_EVERY);
        assert_eq!(line, Some(StrangerLine { address: Some(ip(1)), refusals: 60 }));
    }

    #[test]
    fn s1_a_flood_of_addresses_is_bounded() {
        let (mut log, start) = (StrangerLog::default(), Instant::now());
        let lines = (0..5_000).filter_map(|n| log.note(ip(n), start)).count();
        assert_eq!(lines, STRANGERS_MAX + 1);
        assert_eq!(log.seen.len(), STRANGERS_MAX);
        let later = start + STRANGER_LOG_EVERY;
        assert_eq!(log.note(ip(9_999), later), Some(StrangerLine { address: Some(ip(9_999)), refusals: 1 }));
        assert_eq!(log.seen.len(), 1);
    }
}
