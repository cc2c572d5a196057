//! Sizes and durations as the configuration writes them: a whole number and a unit, nothing between.

use std::time::Duration;

/// Units of sizes in bytes, largest first.
const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Units of durations in milliseconds, largest first.
const DURATIONS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a size or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not start with a whole number.
    #[error("must be a whole number followed by a unit ({units})")]
    NotANumber {
        /// The units there are.
        units: String,
    },
    /// It is a number alone.
    #[error("has no unit ({units})")]
    NoUnit {
        /// The units there are.
        units: String,
    },
    /// The unit is another one.
    #[error("\"{unit}\" is not a unit ({units})")]
    UnknownUnit {
        /// What stands in its place.
        unit: String,
        /// The units there are.
        units: String,
    },
    /// It does not fit 64 bits.
    #[error("is too large")]
    TooLarge,
}

/// Bytes of a size such as `512KiB` or `64MB`.
///
/// # Errors
///
/// [`UnitError`] says what is wrong; a number without a unit is.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZES)
}

/// The duration of a text such as `500ms` or `24h`.
///
/// # Errors
///
/// [`UnitError`] says what is wrong; a number without a unit is.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, DURATIONS).map(Duration::from_millis)
}

/// `bytes` in the largest unit that gives a whole number.
pub fn format_size(bytes: u64) -> String {
    format(bytes, SIZES)
}

/// `duration` in the largest unit that gives a whole number; below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATIONS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    if number.is_empty() {
        return Err(UnitError::NotANumber { units: names() });
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit { units: names() });
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: names() });
    };
    // Digits alone fail to parse only by overflow.
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (name, factor) = whole.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", value / factor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("7B", 7),
            ("512KiB", 524_288),
            ("64MB", 64_000_000),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1", "1024", "MiB", "-1MiB", "1.5GiB", "1 GiB", "1gib", "1GiBs", "١KiB", "1é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("17179869184GiB"), Err(UnitError::TooLarge));
        assert_eq!(parse_size("99999999999999999999B"), Err(UnitError::TooLarge));
        assert!(parse_size("1024").unwrap_err().to_string().contains("has no unit"));
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("3s", 3_000), ("500ms", 500), ("24h", 86_400_000), ("2m", 120_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "3", "s", "3S", "3 s", "1h30m", "-3s", "3min"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn formatting_is_read_back(value: u64) {
            prop_assert_eq!(parse_size(&format_size(value)), Ok(value));
            let duration = Duration::from_millis(value);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
