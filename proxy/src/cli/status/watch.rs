//! `meridian status --watch`: looks again and again, until Ctrl-C.
//!
//! On a terminal it takes the alternate screen and writes over what is there, line by line, so that nothing
//! flickers, and gives the screen back when it ends. Elsewhere it writes one report after the other.

use std::io::{IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::join_all;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::blocks::screen;
use super::looks::Watched;
use super::screen::{columns, fit};
use super::{StatusArgs, look, table};
use crate::cli::admin::AdminArgs;
use crate::cli::signals::Signals;

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";

/// Back to where it was.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// To the top.
const HOME: &str = "\x1b[H";

/// What was on the rest of a line goes.
const CLEAR_LINE: &str = "\x1b[K";

/// What was below goes.
const CLEAR_BELOW: &str = "\x1b[J";

/// Where a terminal does not know its size.
const SIZE: (usize, usize) = (80, 24);

/// Shows `admins` until a signal.
///
/// # Errors
/// When standard output is closed, or the system refuses signals.
pub async fn run(args: &StatusArgs, admins: &[AdminArgs]) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() && !args.json {
        on_terminal(args, admins).await
    } else {
        appended(args, admins).await
    }
}

/// One report after the other; what ends a process ends it.
async fn appended(args: &StatusArgs, admins: &[AdminArgs]) -> anyhow::Result<()> {
    let mut before: Vec<Option<crate::admin::status::Status>> = vec![None; admins.len()];
    let mut ticks = ticks(args.interval);
    loop {
        ticks.tick().await;
        let mut out = std::io::stdout().lock();
        for (admin, before) in admins.iter().zip(&mut before) {
            match look(admin).await {
                Ok((body, _)) if args.json => writeln!(out, "{}", String::from_utf8_lossy(&body))?,
                Ok((_, status)) => {
                    out.write_all(
                        table::render(&status, before.as_ref(), crate::region::wall_now().0).as_bytes(),
                    )?;
                    *before = Some(status);
                }
                Err(error) => writeln!(out, "{error:#}")?,
            }
        }
        out.flush()?;
    }
}

async fn on_terminal(args: &StatusArgs, admins: &[AdminArgs]) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut resized = signal(SignalKind::window_change()).context("cannot listen for signals")?;
    let mut watched: Vec<Watched> = admins.iter().map(|admin| Watched::new(admin.to_string())).collect();
    let colour = args.color.on();
    let (began, mut ticks) = (Instant::now(), ticks(args.interval));
    let mut terminal = Terminal::enter()?;
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            _ = resized.recv() => {}
            looks = async { ticks.tick().await; look_at(admins, args.interval).await } => {
                for (watched, look) in watched.iter_mut().zip(looks) {
                    match look {
                        Ok(status) => watched.saw(began.elapsed(), status),
                        Err(error) => watched.missed(error),
                    }
                }
            }
        }
        terminal.show(&watched, colour)?;
    }
}

/// All at once: one that hangs does not keep the others from being shown.
async fn look_at(
    admins: &[AdminArgs],
    within: Duration,
) -> Vec<Result<crate::admin::status::Status, String>> {
    let within = within.max(Duration::from_secs(1));
    let looks = admins.iter().map(|admin| async move {
        match tokio::time::timeout(within, look(admin)).await {
            Ok(Ok((_, status))) => Ok(status),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("{admin} did not answer within {} s", within.as_secs())),
        }
    });
    join_all(looks).await
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A terminal that is given back as it was.
struct Terminal {
    out: Stdout,
    /// How it was; none if what is typed does not come from a terminal.
    before: Option<Termios>,
}

impl Terminal {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).ok();
        let terminal = Self { out: std::io::stdout(), before };
        if let Some(before) = &terminal.before {
            // What is typed would be written over the table.
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet)?;
        }
        let mut out = &terminal.out;
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(terminal)
    }

    fn show(&mut self, watched: &[Watched], colour: bool) -> std::io::Result<()> {
        let size = tcgetwinsize(&self.out).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (width, height) = size.map_or(SIZE, |size| (size.ws_col.into(), size.ws_row.into()));
        let lines = fit(screen(watched, crate::region::wall_now().0), width, height, colour);
        let mut text = HOME.to_owned();
        for (at, line) in lines.iter().enumerate() {
            // A line break after the last line would scroll a full screen.
            text.push_str(if at == 0 { "" } else { "\r\n" });
            text.push_str(line);
            // In the last column it would take the last character.
            text.push_str(if columns(line) < width { CLEAR_LINE } else { "" });
        }
        text.push_str(if lines.len() < height { CLEAR_BELOW } else { "" });
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nobody is left to tell if this fails.
        let _ = self.out.write_all(LEAVE.as_bytes()).and_then(|()| self.out.flush());
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
