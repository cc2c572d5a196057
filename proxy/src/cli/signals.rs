//! SIGTERM and SIGINT: the first asks to end in order, the second not to wait for it. SIGHUP reloads.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The longest that ending in order may take.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The signals that end a process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal's name, of those that end the process.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The next signal: `None` for one that asks to reload.
    pub async fn next_or_reload(&mut self) -> Option<&'static str> {
        tokio::select! {
            _ = self.terminate.recv() => Some("SIGTERM"),
            _ = self.interrupt.recv() => Some("SIGINT"),
            _ = self.hangup.recv() => None,
        }
    }

    /// Runs `end` to its end, for [`DRAIN_MAX`] or until another signal.
    ///
    /// # Errors
    /// Those of `end`, and when it was cut off.
    pub async fn drain(&mut self, end: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            ended = tokio::time::timeout(DRAIN_MAX, end) => {
                ended.map_err(|_| anyhow!("did not end within {} s and was cut off", DRAIN_MAX.as_secs()))?
            }
            name = self.next() => Err(anyhow!("{name} again: ended at once")),
        }
    }
}
