//! The command line: what `meridian` can be told, and where each command lives.

pub mod admin;
pub mod cert;
pub mod check;
pub mod completions;
pub mod conflicts;
pub mod demo;
pub mod exit;
pub mod hook;
pub mod logging;
pub mod serve;
pub mod signals;
pub mod status;
#[cfg(test)]
mod tests;
pub mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use logging::LogFormat;

/// Multi-leader replication for the Redis protocol: every region reads and writes locally, conflicts
/// are settled alike everywhere and counted.
#[derive(Debug, Parser)]
#[command(
    name = "meridian",
    version,
    after_help = "\
Examples:
  meridian demo                             three regions on this machine, to try things out
  meridian check --config eu.toml           what a configuration means, before it runs
  meridian serve --config eu.toml           run a region
  meridian status --watch                   see how it is doing
  meridian conflicts --follow               see conflicts as they are met

Logs go to standard error; MERIDIAN_LOG filters them (info, debug, meridian_proxy::link=trace).
Exit codes: 0 done, 64 wrong arguments or configuration (each error on a line), 1 anything else."
)]
pub struct Cli {
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one region
    #[command(after_help = "\
SIGTERM or Ctrl-C ends it in order within 10 seconds: no new clients, log flushed, peers told.
A second signal ends it at once.

Example:
  meridian serve --config /etc/meridian/eu.toml")]
    Serve(ConfigArgs),
    /// Run several regions on this machine with throw-away certificates
    #[command(after_help = "\
Region i serves Redis clients on port P+i, other regions on UDP P+1000+i and HTTP on P+3000+i.
Prints `ready` when every link is up and runs until Ctrl-C. Data goes with it, unless --data-dir is given.

Examples:
  meridian demo
  meridian demo --topology star --regions 5
  meridian demo --base-port 16381 --data-dir ./demo-data")]
    Demo(demo::DemoArgs),
    /// Check a configuration and say in sentences what it means
    #[command(after_help = "\
Says who feeds whom, what happens when a region fails or a line is cut, and what this region needs and keeps.
Of up to 8 regions every single failure is rehearsed with the code that heals; of more the worst is told.
Looks at no certificates, so it works on a machine that has none. docs/configuration.md explains every key.

Example:
  meridian check --config eu.toml")]
    Check(ConfigArgs),
    /// Make the certificates by which regions know each other
    #[command(after_help = "\
Example, for three regions:
  meridian cert ca --out tls
  meridian cert region eu --ca tls --out tls
  meridian cert region us --ca tls --out tls
  meridian cert region ap --ca tls --out tls")]
    Cert {
        /// Whose.
        #[command(subcommand)]
        command: cert::CertCommand,
    },
    /// Show a running region: links, lag, conflicts, store
    #[command(after_help = "\
Examples:
  meridian status
  meridian status --admin http://10.0.0.1:9380 --watch
  meridian status --json | jq .links")]
    Status(status::StatusArgs),
    /// Try merge hooks before they are used, replay conflicts, release from quarantine
    Hook {
        /// What to do.
        #[command(subcommand)]
        command: hook::HookCommand,
    },
    /// Compare everything a region shows with its neighbours, and mend what differs
    #[command(after_help = "\
What a neighbour has not applied yet is no difference: it is waited for.
Exit code 0: all equal. 2: keys had diverged; they are named, and the log names them, too.
1: not everything could be compared.

Example:
  meridian verify --admin http://10.0.0.1:9380")]
    Verify(verify::VerifyArgs),
    /// Show a region's conflict inbox, newest first
    #[command(after_help = "\
A loser is written back with `MERIDIAN.RESTORE id`, sent to the region by any Redis client.

Examples:
  meridian conflicts
  meridian conflicts --admin http://10.0.0.1:9380 --token-file token --key user:1
  meridian conflicts --follow --kind field
  meridian conflicts --json --limit 1000 | jq -r .id")]
    Conflicts(conflicts::ConflictsArgs),
    /// Print what a shell needs to complete commands and options
    #[command(after_help = "\
Where to put it, so that new shells find it:
  bash        meridian completions bash > ~/.local/share/bash-completion/completions/meridian
  zsh         meridian completions zsh > \"${fpath[1]}/_meridian\"
  fish        meridian completions fish > ~/.config/fish/completions/meridian.fish
  elvish      meridian completions elvish >> ~/.config/elvish/rc.elv
  powershell  meridian completions powershell >> $PROFILE

For this shell alone (bash):
  source <(meridian completions bash)")]
    Completions(completions::CompletionsArgs),
}

/// A configuration file.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration (TOML)
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

impl Cli {
    /// What is logged where `MERIDIAN_LOG` does not say. The demo prints for people, so it logs less.
    pub fn default_log_level(&self) -> &'static str {
        if matches!(self.command, Command::Demo(_)) { "warn" } else { "info" }
    }

    /// Does it.
    ///
    /// # Errors
    /// What [`exit::failure`] tells apart.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(&args.config).await,
            Command::Demo(args) => demo::run(&args).await,
            Command::Check(args) => check::run(&args.config),
            Command::Cert { command } => cert::run(&command),
            Command::Status(args) => status::run(&args).await,
            Command::Hook { command } => hook::run(&command).await,
            Command::Verify(args) => verify::run(&args).await,
            Command::Conflicts(args) => conflicts::run(&args).await,
            Command::Completions(args) => completions::run(&args),
        }
    }
}
