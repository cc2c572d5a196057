//! What a region may be called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// The name of a region: 1 to 32 lowercase letters, digits and dashes, with no dash at either end.
///
/// Names are also one label of the DNS name in the region's certificate, which is why a dot and a dash
/// at an end are refused. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegionName(Arc<str>);

impl RegionName {
    /// Checks and takes `name`.
    ///
    /// # Errors
    ///
    /// [`NameError`] says which rule `name` breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the rule that regions' and clusters' names share.
///
/// # Errors
///
/// [`NameError`] says which rule `name` breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::DashAtEnd);
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("a name must not be empty")]
    Empty,
    /// It is longer than a name may be.
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// The length found.
        bytes: usize,
    },
    /// It starts or ends with a dash, which no DNS label may.
    #[error("a name must not start or end with a dash")]
    DashAtEnd,
    /// It has a character that names do not have.
    #[error("a name has only lowercase letters, digits and dashes, not {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for RegionName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for RegionName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<RegionName> for String {
    fn from(name: RegionName) -> Self {
        name.as_str().to_owned()
    }
}
