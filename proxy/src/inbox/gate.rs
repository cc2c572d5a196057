//! How many conflicts are recorded: a token bucket, asked before anything is copied.
//!
//! A record costs one token, and one more for every [`TOKEN_BYTES`] of values that were copied for it, or of
//! elements that were passed in a collection. That is known only afterwards, so the bucket may go into debt for one
//! record's worth.

use std::time::Instant;

use parking_lot::Mutex;

/// Bytes of values that a token pays for.
const TOKEN_BYTES: usize = 4 << 10;

/// The bucket.
#[derive(Debug)]
pub struct Gate {
    rate: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    filled: Instant,
}

impl Gate {
    /// A full bucket for `burst` records, refilled by `rate` a second.
    pub fn new(rate: u32, burst: u32) -> Self {
        let (rate, burst) = (f64::from(rate), f64::from(burst));
        Self { rate, burst, state: Mutex::new(State { tokens: burst, filled: Instant::now() }) }
    }

    /// Whether one more conflict is to be recorded.
    pub fn admit(&self) -> bool {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let since = now.saturating_duration_since(state.filled).as_secs_f64();
        state.tokens = (state.tokens + since * self.rate).min(self.burst);
        state.filled = now;
        let open = state.tokens >= 1.0;
        if open {
            state.tokens -= 1.0;
        }
        open
    }

    /// Takes what the values of an admitted record cost.
    pub fn charge(&self, bytes: usize) {
        let tokens = bytes / TOKEN_BYTES;
        if tokens > 0 {
            self.state.lock().tokens -= tokens as f64;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let gate = Gate::new(10, 5);
        let start = gate.state.lock().filled;
        let admitted = |after_ms| {
            let now = start + Duration::from_millis(after_ms);
            (0..100).filter(|_| gate.admit_at(now)).count()
        };
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(300), 3);
        assert_eq!(admitted(60_000), 5, "no more than a burst is saved up");
        assert_eq!(admitted(1_000), 0, "a clock that steps back gives nothing");
    }

    #[test]
    fn large_values_cost_more() {
        let gate = Gate::new(1, 10);
        assert!(gate.admit());
        gate.charge(TOKEN_BYTES * 20);
        assert!(!gate.admit(), "in debt");
        gate.charge(TOKEN_BYTES - 1);
        let later = Instant::now() + Duration::from_secs(13);
        assert!(gate.admit_at(later));
    }

    #[test]
    fn a_rate_of_nothing_records_nothing() {
        assert!(!Gate::new(0, 0).admit());
    }
}
