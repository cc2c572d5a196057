//! `meridian cert`: the mutual-TLS identities of a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use crate::cert::{
    CA_VALIDITY, CertError, IssuedFiles, REGION_VALIDITY, create_ca, create_region, renew_region,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Whose certificate to make.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make the cluster's own authority: ca.pem and ca.key
    Ca {
        /// The directory to write to; made if missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make the identity of a region: NAME.pem and NAME.key
    Region {
        /// The region, as in the configuration
        name: String,
        /// The directory with ca.pem and ca.key
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The directory to write to; made if missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Another name or address for other tools; links do not look at it. May be given again
        #[arg(long, value_name = "HOST")]
        san: Vec<String>,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = REGION_VALIDITY.as_secs() / DAY.as_secs())]
        days: u64,
        /// Replace the identity that is there; the running region takes the new one by itself. Give --san again
        #[arg(long)]
        renew: bool,
    },
}

/// Makes the files and says what to do with them.
///
/// # Errors
/// [`CertError`]
pub fn run(command: &CertCommand) -> anyhow::Result<()> {
    print!("{}", make(command)?);
    Ok(())
}

/// Makes the files; what to tell.
///
/// # Errors
/// [`CertError`]; nothing was left behind.
pub fn make(command: &CertCommand) -> Result<String, CertError> {
    match command {
        CertCommand::Ca { out } => ca(out),
        CertCommand::Region { name, ca, out, san, days, renew } => {
            let validity = Duration::from_secs(days.saturating_mul(DAY.as_secs()));
            if *renew {
                let files = renew_region(name, ca, out, san, validity)?;
                return Ok(renewed(name, &files, *days));
            }
            let files = create_region(name, ca, out, san, validity)?;
            Ok(made(name, ca, &files, *days))
        }
    }
}

fn ca(out: &Path) -> Result<String, CertError> {
    let files = create_ca(out)?;
    Ok(format!(
        "\
made {}   the authority's certificate, valid for {} days: copy it to every region
made {}   its key: signs regions. Whoever has it can join the cluster, so keep it off the servers

next, once for each region:
  meridian cert region NAME --ca {} --out {}
",
        files.cert.display(),
        CA_VALIDITY.as_secs() / DAY.as_secs(),
        files.key.display(),
        out.display(),
        out.display(),
    ))
}

fn renewed(name: &str, files: &IssuedFiles, days: u64) -> String {
    format!(
        "\
renewed {}   the certificate of region {name}, valid for {days} days
renewed {}   its key

next: copy both to the region if it runs elsewhere. It takes them within seconds; its log says so
",
        files.cert.display(),
        files.key.display(),
    )
}

fn made(name: &str, ca: &Path, files: &IssuedFiles, days: u64) -> String {
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    format!(
        "\
made {cert}   the certificate of region {name}, valid for {days} days
made {key}   its key: stays with that region

next, in the configuration of {name} (paths are relative to that file):
  [tls]
  ca   = {:?}
  cert = {cert:?}
  key  = {key:?}
",
        ca.join("ca.pem").display().to_string(),
    )
}
