//! Exact sums: what `INCRBY`, `INCRBYFLOAT` and `ZINCRBY` add up.
//!
//! Binary floating point does not add associatively, so regions that add the same increments in
//! different orders would differ in the last digit. Increments are therefore taken as the decimal
//! numbers their writers typed and added exactly.

use std::fmt;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, ToPrimitive};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Powers of ten that one increment may span in either direction, so that it cannot cost unbounded
/// memory. Beyond what a double can express.
const MAX_EXPONENT: i64 = 400;

/// The same for sums that are read back. Wider, so that no sum of accepted increments is refused
/// by another region or by the own store: getting there takes more than 10^100 of them.
const MAX_SUM_EXPONENT: i64 = 512;

/// Whether `value` spans at most `limit` powers of ten above and below one.
fn within(value: &BigDecimal, limit: i64) -> bool {
    let (digits, scale) = value.as_bigint_and_scale();
    // 0.30103 decimal digits a bit; off by one at most, which no caller minds.
    let places = i64::try_from(digits.bits()).unwrap_or(i64::MAX).saturating_mul(30_103) / 100_000;
    scale <= limit && places.saturating_sub(scale) <= limit
}

/// An exact decimal sum.
#[derive(Clone, PartialEq, Eq)]
pub enum Amount {
    /// Whole numbers, as nearly all are.
    Whole(i64),
    /// Anything else: fractions, and what 64 bits do not hold.
    Decimal(Box<BigDecimal>),
}

impl Default for Amount {
    fn default() -> Self {
        Amount::Whole(0)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Whole(n) => write!(f, "{n}"),
            Amount::Decimal(d) => write!(f, "{d}"),
        }
    }
}

impl From<i64> for Amount {
    fn from(n: i64) -> Self {
        Amount::Whole(n)
    }
}

impl Amount {
    /// Reads a decimal number as `INCRBYFLOAT` accepts it (no spaces, no infinity, no NaN).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text.is_empty() || text.len() > 512 {
            return None;
        }
        let first = text.trim_start_matches(['+', '-']);
        if !first.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        {
            return None;
        }
        if let Ok(n) = text.parse::<i64>() {
            return Some(Amount::from(n));
        }
        // The exponent is checked before anything of its size is built.
        if let Some((_, exponent)) = text.split_once(['e', 'E']) {
            let exponent: i64 = exponent.parse().ok()?;
            if exponent.abs() > MAX_EXPONENT {
                return None;
            }
        }
        text.parse::<BigDecimal>().ok().and_then(Self::checked)
    }

    /// The shortest decimal that reads back as `value`. `None` for infinities and NaN.
    pub fn from_f64(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        Self::parse(format!("{value:e}").as_bytes())
    }

    fn checked(value: BigDecimal) -> Option<Self> {
        let value = value.normalized();
        within(&value, MAX_EXPONENT).then(|| Self::canonical(value))
    }

    /// One form per value, so that equal sums are equal bytes in every region.
    fn canonical(value: BigDecimal) -> Self {
        let value = value.normalized();
        match (value.as_bigint_and_scale().1, value.to_i64()) {
            (..=0, Some(whole)) => Amount::Whole(whole),
            _ => Amount::Decimal(Box::new(value)),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Amount::Whole(_) => 0,
            Amount::Decimal(d) => {
                let bits = d.as_bigint_and_scale().0.bits();
                size_of::<BigDecimal>() + usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether adding this changes nothing.
    pub fn is_zero(&self) -> bool {
        *self == Amount::Whole(0)
    }

    fn to_decimal(&self) -> BigDecimal {
        match self {
            Amount::Whole(n) => BigDecimal::from(*n),
            Amount::Decimal(d) => (**d).clone(),
        }
    }

    /// The sum. Saturates never: past 64 bits it goes on as a decimal.
    #[must_use]
    pub fn plus(&self, other: &Amount) -> Amount {
        if let (Amount::Whole(a), Amount::Whole(b)) = (self, other)
            && let Some(sum) = a.checked_add(*b)
        {
            return Amount::Whole(sum);
        }
        Self::canonical(self.to_decimal() + other.to_decimal())
    }

    /// The difference.
    #[must_use]
    pub fn minus(&self, other: &Amount) -> Amount {
        match other {
            Amount::Whole(n) if *n != i64::MIN => self.plus(&Amount::Whole(-n)),
            _ => self.plus(&Amount::Decimal(Box::new(-other.to_decimal()))),
        }
    }

    /// As a 64-bit integer, where it is one.
    pub fn to_i64(&self) -> Option<i64> {
        match self {
            Amount::Whole(n) => Some(*n),
            Amount::Decimal(_) => None,
        }
    }

    /// The nearest double, the same on every platform: by way of text, whose reading is exact.
    pub fn to_f64(&self) -> f64 {
        match self {
            Amount::Whole(n) => *n as f64,
            Amount::Decimal(d) => {
                let (digits, scale) = d.as_bigint_and_scale();
                format!("{digits}e{}", -scale).parse().unwrap_or(f64::NAN)
            }
        }
    }

    /// As Redis shows an `INCRBYFLOAT` result: plain digits, at most 17 significant ones, no
    /// trailing zeros.
    pub fn to_text(&self) -> String {
        match self {
            Amount::Whole(n) => n.to_string(),
            Amount::Decimal(d) => {
                // Redis prints a long double with 17 digits behind the point.
                let shown = d.with_scale_round(17, bigdecimal::RoundingMode::HalfEven).normalized();
                shown.to_plain_string()
            }
        }
    }
}

impl Serialize for Amount {
    /// Whole, up to 128 bits: the number as `i128` varint behind tag 0; decimal: tag 1, scale, two's-complement
    /// digits. Integers only, so every region reads the same.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Amount::Whole(n) => AmountForm::Whole(i128::from(*n)).serialize(serializer),
            Amount::Decimal(d) => {
                let (digits, scale) = d.as_bigint_and_exponent();
                if let (..=0, Some(whole)) = (scale, d.to_i128()) {
                    return AmountForm::Whole(whole).serialize(serializer);
                }
                AmountForm::Decimal { scale, digits: digits.to_signed_bytes_le() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match AmountForm::deserialize(deserializer)? {
            AmountForm::Whole(n) => {
                Ok(i64::try_from(n).map_or_else(|_| Self::canonical(BigDecimal::from(n)), Amount::Whole))
            }
            AmountForm::Decimal { scale, digits } => {
                let out_of_range = || serde::de::Error::custom("amount out of range");
                if scale.saturating_abs() > MAX_SUM_EXPONENT || digits.len() > 512 {
                    return Err(out_of_range());
                }
                let value = BigDecimal::new(BigInt::from_signed_bytes_le(&digits), scale).normalized();
                if !within(&value, MAX_SUM_EXPONENT) {
                    return Err(out_of_range());
                }
                Ok(Self::canonical(value))
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
enum AmountForm {
    Whole(i128),
    Decimal { scale: i64, digits: Vec<u8> },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_order() {
        let parts: Vec<Amount> =
            ["0.1", "0.2", "0.3", "1e-9", "5"].iter().map(|t| Amount::parse(t.as_bytes()).unwrap()).collect();
        let forward = parts.iter().fold(Amount::default(), |sum, p| sum.plus(p));
        let backward = parts.iter().rev().fold(Amount::default(), |sum, p| sum.plus(p));
        assert_eq!(forward, backward);
        assert_eq!(forward.to_text(), "5.600000001");
    }

    #[test]
    fn odd_texts_are_refused() {
        let long = "9".repeat(500);
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "inf",
            "1e999999999",
            "0x10",
            "--1",
            "e5",
            "1_000",
            ".",
            "+",
            "1e",
            ".e5",
            "1e401",
            "1e-401",
            "1e5e5",
            "1e+-5",
            &long,
        ] {
            assert!(Amount::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert_eq!(Amount::parse(b"5.0e3").unwrap(), Amount::Whole(5000));
        assert_eq!(Amount::parse(b"-1.5").unwrap().minus(&Amount::Whole(1)).to_text(), "-2.5");
    }

    #[test]
    fn sums_of_the_greatest_increments_can_still_be_read() {
        for text in ["9e399", "-9e399", "9e-400", &format!("{}.{}", "9".repeat(100), "9".repeat(400))] {
            let amount = Amount::parse(text.as_bytes()).unwrap();
            let mut sum = amount.clone();
            for _ in 0..200 {
                sum = sum.plus(&amount).plus(&sum);
                let bytes = postcard::to_stdvec(&sum).unwrap();
                assert_eq!(postcard::from_bytes::<Amount>(&bytes).unwrap(), sum, "{text}");
            }
        }
    }

    #[test]
    fn doubles_are_the_nearest() {
        for text in ["0.1", "4.35", "1e23", "1.7976931348623157e308", "5e-324", "-2.2250738585072014e-308"] {
            assert_eq!(Amount::parse(text.as_bytes()).unwrap().to_f64(), text.parse::<f64>().unwrap());
        }
        assert_eq!(Amount::parse(b"1e399").unwrap().to_f64(), f64::INFINITY);
    }

    #[test]
    fn encoding_round_trips() {
        for text in ["0", "-7", "0.001", "123456789012345678901234567890", "1e300", "-2.5e-300"] {
            let amount = Amount::parse(text.as_bytes()).unwrap();
            let bytes = postcard::to_stdvec(&amount).unwrap();
            assert_eq!(postcard::from_bytes::<Amount>(&bytes).unwrap(), amount, "{text}");
        }
    }
}
