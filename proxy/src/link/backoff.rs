//! When to dial again: exponential backoff with full jitter.
//!
//! Full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015) spreads the regions that lost the
//! same hub at the same moment. We depart from it by a floor: a delay is never below
//! [`BACKOFF_MIN`], so that a peer that refuses at once is not dialled in a tight loop.

use std::time::Duration;

use super::random::SplitMix64;

/// The shortest delay.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest delay.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Delays between attempts to reach one peer. Pure: the same seed gives the same delays.
#[derive(Debug, Clone)]
pub struct Backoff {
    random: SplitMix64,
    failures: u32,
}

impl Backoff {
    /// Starts afresh; give every peer of every region its own seed.
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed), failures: 0 }
    }

    /// The delay after one more failure: uniform between [`BACKOFF_MIN`] and a ceiling that doubles with each
    /// failure up to [`BACKOFF_MAX`].
    pub fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let ceiling = BACKOFF_MIN.saturating_mul(factor).min(BACKOFF_MAX);
        let millis = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.between(millis(BACKOFF_MIN), millis(ceiling)))
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The peer was reached, *and* accepted us: call this after its hello, not after the handshake. In
    /// TLS 1.3 the dialling side finishes before the other has looked at its certificate.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_bounds_and_grow() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            assert!(backoff.after_failure() <= BACKOFF_MIN * 2);
            for _ in 0..100 {
                let delay = backoff.after_failure();
                assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&delay), "{delay:?}");
            }
            backoff.reset();
            assert!(backoff.after_failure() <= BACKOFF_MIN * 2);
        }
    }

    #[test]
    fn jitter_is_full_and_replays() {
        let late = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..20).map(|_| backoff.after_failure()).last().unwrap_or_default()
        };
        let delays: Vec<_> = (0..2_000).map(late).collect();
        assert!(delays.iter().any(|d| *d < Duration::from_millis(400)));
        assert!(delays.iter().any(|d| *d > Duration::from_millis(4_700)));
        assert_eq!(delays, (0..2_000).map(late).collect::<Vec<_>>());
    }
}
