//! `meridian status`: a running region's `/status`, for people.

pub mod blocks;
pub mod http;
pub mod looks;
pub mod screen;
pub mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use super::admin::{AdminArgs, Url};
use crate::admin::status::Status;
use crate::config::units::parse_duration;

/// How often `--watch` may look.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(3600);

/// What to show, and of whom.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The region's admin address; of several, --watch shows a line each, and the first in full
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9380", value_parser = Url::parse)]
    pub admin: Vec<Url>,
    /// A file with the token of the regions' admin.token_file, if they have one
    #[arg(long, value_name = "FILE", env = "MERIDIAN_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
    /// How often --watch looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub interval: Duration,
    /// Whether --watch may use colours; auto heeds NO_COLOR
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Print the document as it came
    #[arg(long)]
    pub json: bool,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// On a terminal.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    fn on(self) -> bool {
        let refused = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self == Self::Always || (self == Self::Auto && !refused())
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    INTERVAL.contains(&interval).then_some(interval).ok_or_else(|| "is not between 200ms and 1h".to_owned())
}

/// Shows the status.
///
/// # Errors
/// When a region does not answer; with `--watch` that is shown and asked again.
pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let admin = |url: &Url| AdminArgs { url: url.clone(), token_file: args.token_file.clone() };
    let admins: Vec<AdminArgs> = args.admin.iter().map(admin).collect();
    if args.watch {
        return watch::run(args, &admins).await;
    }
    for admin in &admins {
        let (body, status) = look(admin).await?;
        let text = if args.json {
            format!("{}\n", String::from_utf8_lossy(&body))
        } else {
            table::render(&status, None, crate::region::wall_now().0)
        };
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The document, and what it says.
async fn look(admin: &AdminArgs) -> anyhow::Result<(Vec<u8>, Status)> {
    let body = http::get(admin, "/status").await?;
    let status = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answers /status with something else"))?;
    Ok((body, status))
}
