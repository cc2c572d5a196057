//! Collects errors while values are resolved.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use meridian_topology::graph::RegionName;

use super::error::{ConfigError, Problem};
use super::file::{Field, Unknown};
use super::units::{UnitError, format_duration, format_size, parse_duration, parse_size};

/// The errors so far. Whatever its methods return after adding one is a stand-in that is thrown away
/// with the settings.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) errors: Vec<ConfigError>,
}

impl Collector {
    pub(super) fn push(&mut self, key: impl Display, problem: Problem) {
        self.errors.push(ConfigError { key: key.to_string(), problem });
    }

    /// Reports the keys of the table `path` that nobody knows.
    pub(super) fn unknown(&mut self, path: &str, unknown: &Unknown) {
        for key in unknown.keys() {
            let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.push(key, Problem::UnknownKey);
        }
    }

    /// The value, if it is there and of the right type.
    pub(super) fn optional<T>(&mut self, key: &str, field: Field<T>) -> Option<T> {
        match field {
            Field::Set(value) => Some(value),
            Field::Absent => None,
            Field::Wrong(message) => {
                self.push(key, Problem::WrongType { message });
                None
            }
        }
    }

    /// The value, which must be there.
    pub(super) fn required<T>(&mut self, key: &str, field: Field<T>) -> Option<T> {
        if field.is_absent() {
            self.push(key, Problem::Missing);
        }
        self.optional(key, field)
    }

    /// A string that must be there and have something in it.
    pub(super) fn text(&mut self, key: &str, field: Field<String>) -> Option<String> {
        let text = self.required(key, field)?;
        if text.is_empty() {
            self.push(key, Problem::Empty);
            return None;
        }
        Some(text)
    }

    /// Passes on `result`, reporting its error.
    pub(super) fn ok<T>(&mut self, key: impl Display, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.push(key, problem)).ok()
    }

    pub(super) fn name(&mut self, key: impl Display, name: &str) -> Option<RegionName> {
        let parsed = RegionName::new(name);
        self.ok(key, parsed.map_err(|error| Problem::Name { name: name.to_owned(), error }))
    }

    /// The meaning of one of the `allowed` words, found at the same position.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        field: Field<String>,
        allowed: &'static [&'static str],
        meanings: &[T],
        default: T,
    ) -> T {
        let Some(value) = self.optional(key, field) else { return default };
        match allowed.iter().zip(meanings).find(|(word, _)| **word == value) {
            Some((_, meaning)) => *meaning,
            None => {
                self.push(key, Problem::NotOneOf { value, allowed });
                default
            }
        }
    }

    pub(super) fn size(
        &mut self,
        key: &str,
        field: Field<String>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        self.measure(key, field, default, bounds, parse_size, format_size)
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        field: Field<String>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        self.measure(key, field, default, bounds, parse_duration, format_duration)
    }

    fn measure<T: Copy + PartialOrd>(
        &mut self,
        key: &str,
        field: Field<String>,
        default: T,
        bounds: RangeInclusive<T>,
        parse: fn(&str) -> Result<T, UnitError>,
        format: fn(T) -> String,
    ) -> T {
        let Some(text) = self.optional(key, field) else { return default };
        let problem = match parse(&text) {
            Ok(value) if bounds.contains(&value) => return value,
            Ok(_) => Problem::OutOfBounds {
                value: text,
                least: format(*bounds.start()),
                most: format(*bounds.end()),
            },
            Err(error) => Problem::Unit { value: text, error },
        };
        self.push(key, problem);
        default
    }
}
