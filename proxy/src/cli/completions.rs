//! `meridian completions`: what a shell needs to complete our commands and options.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

/// For whom.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The script for `shell`.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = super::Cli::command();
    clap_complete::generate(shell, &mut command, "meridian", &mut script);
    script
}

/// Prints the script.
///
/// # Errors
/// When nobody reads standard output to the end.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(&script(args.shell))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        let commands: Vec<String> =
            super::super::Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for shell in Shell::value_variants() {
            let text = String::from_utf8(script(*shell)).unwrap();
            for command in &commands {
                assert!(text.contains(command.as_str()), "{shell}: {command}");
            }
            assert!(text.contains("base-port"), "{shell}");
        }
    }

    #[test]
    fn bash_can_read_its_script() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script(Shell::Bash)).unwrap();
        let read = std::process::Command::new("bash").arg("-n").arg(file.path()).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
        let offers = "source \"$1\"; COMP_WORDS=(meridian che); COMP_CWORD=1; \
            _meridian meridian che meridian; echo \"${COMPREPLY[*]}\"";
        let offers = std::process::Command::new("bash")
            .args(["-c", offers, "bash"])
            .arg(file.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(offers.stdout).unwrap().trim(), "check");
    }
}
