//! `meridian verify`: a full comparison of a region with its neighbours, with progress.

use std::time::Duration;

use anyhow::{Context, bail};

use super::admin::AdminArgs;
use super::status::http;
use crate::replication::entropy::verify::Progress;

/// How often the region is asked how far it is.
const EVERY: Duration = Duration::from_millis(500);

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Whom.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Keys had diverged.
#[derive(Debug, thiserror::Error)]
#[error("{found} keys had diverged, {remaining} of them still differ")]
pub struct Diverged {
    /// How many.
    pub found: u64,
    /// How many of them are not mended.
    pub remaining: u64,
}

/// Begins a comparison, or joins the one that goes on, and shows it until it ends.
///
/// # Errors
/// [`Diverged`]; others when the region does not answer, or not everything could be compared.
pub async fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let mut progress = read(&args.admin, &http::post(&args.admin, "/verify").await?)?;
    let mut shown = String::new();
    loop {
        let line = line(&progress);
        if line != shown {
            println!("{line}");
            shown = line;
        }
        if !progress.is_running() {
            return judge(&progress);
        }
        tokio::time::sleep(EVERY).await;
        progress = read(&args.admin, &http::get(&args.admin, "/verify").await?)?;
    }
}

fn read(admin: &AdminArgs, body: &[u8]) -> anyhow::Result<Progress> {
    serde_json::from_slice(body).with_context(|| format!("{admin} answers /verify with something else"))
}

/// How far it is, in one line.
fn line(progress: &Progress) -> String {
    let peers = progress.peers.iter().map(|(name, peer)| {
        let percent = match (peer.done, peer.keys_expected) {
            (true, _) | (_, 0) => 100,
            (false, expected) => (peer.keys.saturating_mul(100) / expected).min(99),
        };
        let mut text = format!("{name}: {} keys ({percent}%)", peer.keys);
        if peer.divergent > 0 {
            text += &format!(", {} diverged, {} still differ", peer.divergent, peer.remaining);
        }
        if peer.unsettled > 0 {
            text += &format!(", {} being written", peer.unsettled);
        }
        if let Some(error) = &peer.error {
            text += &format!(", broke off: {error}");
        }
        text
    });
    let absent = progress.absent.iter().map(|name| format!("{name}: no link"));
    peers.chain(absent).collect::<Vec<_>>().join("; ")
}

fn judge(progress: &Progress) -> anyhow::Result<()> {
    for (database, key) in &progress.divergent {
        println!("diverged: database {database}, key {key}");
    }
    if progress.found() > 0 {
        let remaining = progress.peers.values().map(|peer| peer.remaining).sum();
        return Err(Diverged { found: progress.found(), remaining }.into());
    }
    if progress.peers.is_empty() {
        bail!("there is no neighbour to compare with");
    }
    if !progress.is_complete() {
        bail!("not everything could be compared");
    }
    println!("all equal");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::cli::exit;
    use crate::replication::entropy::verify::{PeerProgress, Stage};

    #[test]
    fn progress_and_exit_codes() {
        let peer = PeerProgress { keys: 500, keys_expected: 1_000, ..PeerProgress::default() };
        let mut progress = Progress { stage: Stage::Running, ..Progress::default() };
        progress.peers.insert("us".into(), peer);
        assert_eq!(line(&progress), "us: 500 keys (50%)");
        progress.stage = Stage::Done;
        assert_eq!(exit::code(&judge(&progress).unwrap_err()), exit::RUNTIME, "it is not complete");
        progress.peers.get_mut("us").unwrap().done = true;
        judge(&progress).unwrap();
        progress.absent.push("ap".into());
        assert_eq!(line(&progress), "us: 500 keys (100%); ap: no link");
        assert_eq!(exit::code(&judge(&progress).unwrap_err()), exit::RUNTIME);
        progress.peers.get_mut("us").unwrap().divergent = 3;
        assert_eq!(exit::code(&judge(&progress).unwrap_err()), exit::DIVERGED);
        let body = serde_json::to_vec(&progress).unwrap();
        assert_eq!(serde_json::from_slice::<Progress>(&body).unwrap(), progress);
    }
}
