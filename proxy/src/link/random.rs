//! A small seeded generator for delays: not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is a good one.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`; `low` when the range is empty. The bias of the multiplication is below
    /// 2^-32 for ranges that a delay can have.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let Some(span) = high.checked_sub(low).and_then(|span| span.checked_add(1)) else {
            return if high < low { low } else { self.next_u64() };
        };
        let scaled = (u128::from(self.next_u64()) * u128::from(span)) >> 64;
        low + u64::try_from(scaled).unwrap_or(0)
    }

    /// True `per_million` times in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.between(0, 999_999) < u64::from(per_million)
    }
}
