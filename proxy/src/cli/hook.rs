//! `meridian hook`: a merge hook before the court without a running region (`test`), on what a region has recorded
//! (`replay`), and out of quarantine (`release`).

pub mod replay;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use meridian_conflict::hook::MergeHook;
use meridian_conflict::hook::builtin::BuiltIn;
use meridian_conflict::hook::court::{self, Answer, Case, Finding, Form, Law, Verdict};
use meridian_conflict::policy::HookId;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin::AdminArgs;
use super::status::http::{self, HttpError};
use crate::hook::{Limits, Sandbox};

/// The most samples taken from a directory: every pair of them is tried.
const MAX_SAMPLES: usize = 64;

/// Bytes of a value shown in a report.
const SHOWN_BYTES: usize = 60;

/// What to do with a hook.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Try a hook: is it deterministic, and which laws does it keep
    #[command(after_help = "\
A hook must answer the same question the same way, or it is not used. It need not be symmetric,
idempotent or associative; those are reported with the smallest case that shows the contrary.

Examples:
  meridian hook test json-merge
  meridian hook test hooks/cart.wasm --samples carts/")]
    Test(TestArgs),
    /// Run a hook on the conflicts that a region has recorded, and say what it would change
    #[command(after_help = "\
The hook runs here, not in the region, on the two rivals of each record of a string or hash field, as far as
the record has both values whole. A hook that merges whole hashes is handed the field that conflicted, alone.
Exit code 0: every record was merged or declined. 1: the hook failed on some, or could not be run.

Examples:
  meridian hook replay json-merge
  meridian hook replay hooks/cart.wasm --admin http://10.0.0.1:9380 --key cart:7
  meridian hook replay hooks/cart.wasm --json | jq .differs")]
    Replay(replay::ReplayArgs),
    /// Release a hook from quarantine, in all regions
    #[command(after_help = "\
A hook is in quarantine because it gave two answers to one question; `meridian status` says to which. The
greatest stamp shows instead. Mending the module and reloading it everywhere is the way out: the mended one is
another hook. Release the same one only if what disturbed it is gone; if it is not, it is found out again.

Example:
  meridian hook release cart.wasm --admin http://10.0.0.1:9380")]
    Release(ReleaseArgs),
}

/// Which hook, by whom.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Its name, or its identity in hexadecimal
    #[arg(value_name = "NAME")]
    pub hook: String,
    /// Whom.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Which hook, on what.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// A WebAssembly module (binary or text), or the name of a built-in hook
    #[arg(value_name = "FILE")]
    pub hook: PathBuf,
    /// A directory of values, one a file, to be tried beside the generated ones
    #[arg(long, value_name = "DIR")]
    pub samples: Option<PathBuf>,
    /// How many cases are generated
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub cases: u32,
    /// Seed of the generated cases
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// The hook is not deterministic.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not deterministic and cannot be used")]
pub struct NotDeterministic(Box<str>);

/// Does it.
///
/// # Errors
/// A hook or samples that cannot be read, a hook that is not deterministic, a region that does not answer.
pub async fn run(command: &HookCommand) -> anyhow::Result<()> {
    match command {
        HookCommand::Test(args) => run_test(args),
        HookCommand::Replay(args) => replay::run(args).await,
        HookCommand::Release(args) => {
            let name = utf8_percent_encode(&args.hook, NON_ALPHANUMERIC);
            match http::post(&args.admin, &format!("/hooks/release?hook={name}")).await {
                Err(HttpError::Status { status, .. }) if status.starts_with("404") => {
                    bail!(
                        "no hook that keys have at {} is called {:?} and in quarantine",
                        args.admin,
                        args.hook
                    )
                }
                answer => answer?,
            };
            println!("released in all regions, as they hear of it");
            Ok(())
        }
    }
}

fn run_test(args: &TestArgs) -> anyhow::Result<()> {
    let (report, verdicts, id) = test(args)?;
    print!("{report}");
    let is_deterministic = verdicts.iter().all(|(_, verdict)| verdict.is_deterministic());
    if is_deterministic { Ok(()) } else { Err(NotDeterministic(id.name).into()) }
}

/// By what the hook has a function for.
type Verdicts = Vec<(Form, Verdict)>;

/// Tries the hook; returns the report, what it is of, and which hook it was.
pub fn test(args: &TestArgs) -> anyhow::Result<(String, Verdicts, HookId)> {
    let hook = load(&args.hook)?;
    let mut cases = court::generated(args.seed, args.cases as usize);
    let generated = cases.len();
    if let Some(directory) = &args.samples {
        let samples = samples(directory).with_context(|| format!("samples in {}", directory.display()))?;
        cases.extend(court::of_samples(&samples));
    }
    let verdicts = court::try_all(hook.as_ref(), &cases);
    let report = report(hook.id(), &verdicts, [generated, cases.len() - generated]);
    Ok((report, verdicts, hook.id().clone()))
}

fn load(hook: &Path) -> anyhow::Result<Box<dyn MergeHook>> {
    if let Some(built_in) = hook.to_str().and_then(BuiltIn::named) {
        return Ok(Box::new(built_in));
    }
    Ok(Box::new(Sandbox::load(hook, Limits::default()).with_context(|| format!("{}", hook.display()))?))
}

/// The files of a directory, by name.
fn samples(directory: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
    files.sort_unstable();
    anyhow::ensure!(
        files.len() <= MAX_SAMPLES,
        "{} files, more than the {MAX_SAMPLES} accepted",
        files.len()
    );
    let limit = Limits::default().input as u64;
    let mut samples = Vec::new();
    for file in files {
        let bytes = std::fs::metadata(&file)?.len();
        anyhow::ensure!(bytes <= limit, "{} has {bytes} bytes, more than a hook is given", file.display());
        samples.push(std::fs::read(&file)?);
    }
    Ok(samples)
}

fn report(id: &HookId, verdicts: &Verdicts, cases: [usize; 2]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(id, verdicts, cases, &mut text);
    text
}

fn write(
    id: &HookId,
    verdicts: &Verdicts,
    [generated, of_samples]: [usize; 2],
    out: &mut String,
) -> std::fmt::Result {
    let identity: String = id.identity.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "{} ({identity}): {generated} cases generated, {of_samples} of samples", id.name)?;
    for (form, verdict) in verdicts {
        match form {
            // What most hooks merge need not be said.
            Form::Values if verdicts.len() == 1 => {}
            Form::Values => writeln!(out, " values")?,
            Form::Hashes => writeln!(out, " whole hashes, here of one field")?,
        }
        for finding in &verdict.findings {
            write_finding(finding, out)?;
        }
        for (failure, count) in &verdict.failures {
            writeln!(out, "  failed {count} of {} cases: {failure}", verdict.cases)?;
        }
    }
    Ok(())
}

fn write_finding(finding: &Finding, out: &mut String) -> std::fmt::Result {
    let Finding { law, tried, broken, smallest } = finding;
    let Some(smallest) = smallest else {
        return writeln!(out, "  {:<14} yes ({tried} tried)", law.name());
    };
    writeln!(out, "  {:<14} no ({broken} of {tried}); the smallest case:", law.name())?;
    writeln!(out, "    siblings    {}", values(&smallest.siblings))?;
    let (one, other) = match law {
        Law::Deterministic => ("at first", "again"),
        Law::Symmetric => ("in order", "otherwise"),
        Law::Idempotent => ("merged", "each"),
        Law::Associative => ("at once", "stepwise"),
    };
    writeln!(out, "    {one:<11} {}", answer(&smallest.one))?;
    writeln!(out, "    {other:<11} {}", answer(&smallest.other))
}

fn values(case: &Case) -> String {
    case.iter().map(|value| shown(value)).collect::<Vec<_>>().join(" | ")
}

fn answer(answer: &Answer) -> String {
    match answer {
        Ok(value) => shown(value),
        Err(failure) => format!("({failure})"),
    }
}

fn shown(value: &[u8]) -> String {
    match value.get(..SHOWN_BYTES) {
        Some(start) if value.len() > SHOWN_BYTES => {
            format!("\"{}\"... ({} bytes)", start.escape_ascii(), value.len())
        }
        _ => format!("\"{}\"", value.escape_ascii()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn args(hook: impl Into<PathBuf>, samples: Option<PathBuf>) -> TestArgs {
        TestArgs { hook: hook.into(), samples, cases: 300, seed: 1 }
    }

    #[test]
    fn a_built_in_hook_is_reported_law_by_law() {
        let (report, verdicts, _) = test(&args("longest", None)).unwrap();
        assert!(matches!(verdicts.as_slice(), [(Form::Values, verdict)] if verdict.is_deterministic()));
        let lines: Vec<&str> = report.lines().collect();
        assert!(lines[0].starts_with("longest (") && lines[0].ends_with("300 cases generated, 0 of samples"));
        assert!(lines[1].starts_with("  deterministic  yes ("));
        assert!(lines[2].starts_with("  symmetric      no ("));
        assert!(lines[3].starts_with("    siblings    \""));
        assert!(lines.iter().any(|line| line.starts_with("  associative    yes (")));
    }

    #[test]
    fn a_module_is_tried_on_generated_values_and_on_samples() {
        let directory = tempfile::tempdir().unwrap();
        let module = directory.path().join("first.wat");
        std::fs::write(&module, include_str!("../../../examples/hooks/first-writer.wat")).unwrap();
        let samples = directory.path().join("samples");
        std::fs::create_dir(&samples).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(samples.join(name), format!("sample {name}")).unwrap();
        }
        let (report, verdicts, id) = test(&args(&module, Some(samples))).unwrap();
        assert_eq!((&*id.name, verdicts[0].1.is_deterministic()), ("first.wat", true));
        assert!(report.contains("300 cases generated, 14 of samples"), "{report}");
        assert!(report.contains("idempotent     yes"), "{report}");
        assert!(test(&args(directory.path().join("none.wasm"), None)).is_err());
        assert!(test(&args("max", Some(directory.path().join("none")))).is_err());
    }

    #[test]
    fn a_module_with_two_functions_is_tried_by_both() {
        let cart = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hooks/cart"));
        let (report, verdicts, _) = test(&args(cart.join("cart.wasm"), Some(cart.join("samples")))).unwrap();
        assert!(verdicts.iter().all(|(_, verdict)| verdict.is_deterministic()));
        let forms: Vec<Form> = verdicts.iter().map(|(form, _)| *form).collect();
        assert_eq!(forms, [Form::Values, Form::Hashes]);
        // Every sample is a cart in a string, none is a quantity.
        assert_eq!(verdicts[0].1.finding(Law::Symmetric).unwrap().broken, 0, "{report}");
        assert!(report.contains("\n whole hashes, here of one field\n"), "{report}");
    }

    #[test]
    fn a_long_value_is_shown_by_its_start() {
        assert_eq!(shown(b"a\n\xff"), "\"a\\n\\xff\"");
        assert_eq!(shown(&[b'x'; 61]), format!("\"{}\"... (61 bytes)", "x".repeat(60)));
    }
}
