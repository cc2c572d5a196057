//! `meridian status`: a running region's `/status`, for people.

pub mod http;
pub mod table;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;

use super::admin::AdminArgs;
use crate::admin::status::Status;

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(2);

/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What to show, and of whom.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Whom.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Print the document as it came
    #[arg(long)]
    pub json: bool,
}

/// Shows the status.
///
/// # Errors
/// When the region does not answer; with `--watch` that is shown and asked again.
pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    if !args.watch {
        let (text, _) = once(args, None).await?;
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before = None;
    loop {
        match once(args, before.as_ref()).await {
            Ok((text, status)) => {
                print!("{clear}{text}");
                before = Some(status);
            }
            Err(error) => println!("{clear}{error:#}"),
        }
        std::io::stdout().flush()?;
        tokio::time::sleep(EVERY).await;
    }
}

async fn once(args: &StatusArgs, before: Option<&Status>) -> anyhow::Result<(String, Status)> {
    let body = http::get(&args.admin, "/status").await?;
    let status: Status = serde_json::from_slice(&body)
        .with_context(|| format!("{} answers /status with something else", args.admin))?;
    let text = if args.json {
        format!("{}\n", String::from_utf8_lossy(&body))
    } else {
        table::render(&status, before, crate::region::wall_now().0)
    };
    Ok((text, status))
}
