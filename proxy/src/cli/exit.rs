//! Exit codes: 0 done, 2 for divergences found, 64 for what the user can mend in arguments and configuration, 1 for the rest.

use std::process::ExitCode;

use super::verify::Diverged;
use crate::cert::CertError;
use crate::config::ConfigErrors;

/// Wrong arguments or configuration (`EX_USAGE` of sysexits.h).
pub const CONFIGURATION: u8 = 64;

/// Regions had diverged; see [`super::verify`].
pub const DIVERGED: u8 = 2;

/// Anything else that failed.
pub const RUNTIME: u8 = 1;

/// Arguments or environment that mean nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The code for an error.
pub fn code(error: &anyhow::Error) -> u8 {
    let of_making = |error: &CertError| {
        matches!(error, CertError::Exists(_) | CertError::Write { .. } | CertError::Issue(_))
    };
    let configuration = error.is::<ConfigErrors>()
        || error.is::<UsageError>()
        || error.downcast_ref::<CertError>().is_some_and(|error| !of_making(error));
    match configuration {
        true => CONFIGURATION,
        false if error.is::<Diverged>() => DIVERGED,
        false => RUNTIME,
    }
}

/// Prints an error, configuration errors one per line, and gives its code.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ConfigErrors>() {
        Some(errors) => eprintln!("{errors}"),
        None => eprintln!("error: {error:#}"),
    }
    ExitCode::from(code(error))
}

/// Prints what clap has to say: help and version are no errors.
pub fn usage(told: &clap::Error) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = told.print();
    if told.use_stderr() { ExitCode::from(CONFIGURATION) } else { ExitCode::SUCCESS }
}
