//! Two kinds of time that must never be mixed: each is its own type, both come in as arguments.

use serde::{Deserialize, Serialize};

/// Milliseconds of a clock that never goes back, from any start. Timeouts and round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MonoMs(pub u64);

impl MonoMs {
    /// The moment `ms` later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero if that is later.
    pub fn since(self, earlier: MonoMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since the Unix epoch by this region's wall clock, which may be wrong and may step.
/// Stamps and deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallMs(pub u64);
