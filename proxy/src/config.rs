//! The configuration: what the file may say ([`file`]) and what the rest of the program sees
//! ([`Settings`]).
//!
//! The file form is strings and options, and nothing outside this module sees it. Resolving it either
//! gives settings that cannot be wrong or every error at once, each naming its key. What is understood
//! but not built yet is refused by name in [`not_built`], never ignored.

mod collect;
mod error;
mod file;
mod files;
mod not_built;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod reference;
mod render;
mod resolve;
mod resolve_admin;
mod resolve_homes;
mod resolve_regions;
pub mod settings;
pub mod units;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, FileProblem, Problem};
pub use files::{read_password, read_token};
pub use settings::Settings;

use std::path::Path;

/// The largest configuration file that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Whether loading also looks at the TLS files, hooks and the token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChecks {
    /// Do not: `meridian check` works on a machine that has no keys.
    Skip,
    /// Report files that cannot be read, and a private key that others may read, as `serve` does.
    Require,
}

/// The documented example: region `eu` of a ring of three, each key explained.
pub fn example() -> &'static str {
    include_str!("config/example.toml")
}

impl Settings {
    /// Reads the configuration at `path`, without looking at the TLS files.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_with(path, FileChecks::Skip)
    }

    /// Reads the configuration at `path`. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, at once.
    pub fn load_with(path: &Path, checks: FileChecks) -> Result<Self, ConfigErrors> {
        let text = files::read_bounded(path, MAX_CONFIG_BYTES)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| FileProblem::NotUtf8))
            .map_err(|problem| ConfigErrors::one(path.display().to_string(), problem.into()))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self::parse(&text, directory, checks)
    }

    /// Resolves the configuration `text`, whose relative paths start at `directory`. Touches no file
    /// but the password file and, if asked to, the TLS files, hooks and the token file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, at once. A syntax error hides all others.
    pub fn parse(text: &str, directory: &Path, checks: FileChecks) -> Result<Self, ConfigErrors> {
        let file = file::ConfigFile::parse(text)?;
        resolve::resolve(file, directory, checks)
    }
}
