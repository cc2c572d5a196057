//! Logs: to standard error, filtered by `MERIDIAN_LOG`, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::exit::UsageError;

/// The environment variable that filters.
const VARIABLE: &str = "MERIDIAN_LOG";

/// The store's engine tells of its files at `info`, which is for whoever asks for it by name.
const QUIETER: &str = "fjall=warn,lsm_tree=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Begins to log. Once per process.
///
/// # Errors
/// [`UsageError`] when the filter means nothing.
pub fn start(format: LogFormat, default: &str) -> anyhow::Result<()> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let filter = filter(if directives.is_empty() { default } else { &directives })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}

fn filter(directives: &str) -> Result<EnvFilter, UsageError> {
    EnvFilter::try_new(format!("{QUIETER},{directives}"))
        .map_err(|error| UsageError(format!("{VARIABLE}: \"{directives}\" is not a filter: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        assert!(filter("info,meridian_proxy::link=debug").is_ok());
        let shown = filter("info,lsm_tree=debug").unwrap().to_string();
        assert!(shown.contains("fjall=warn") && shown.contains("lsm_tree=debug"), "{shown}");
        assert!(!shown.contains("lsm_tree=warn"), "{shown}");
        assert!(filter("meridian_proxy=loud").unwrap_err().to_string().starts_with("MERIDIAN_LOG: "));
    }
}
