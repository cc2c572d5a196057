//! The mutual-TLS identities of links: making them, loading them, and reading a region's name from one.
//!
//! A link trusts exactly one thing: the region's name in the peer's certificate, signed by the
//! cluster's own authority. The name is the single DNS name *without a dot* among the certificate's
//! subject alternative names. Names with a dot and addresses may stand beside it (other tools look
//! for them) and are ignored here; so are the common name and every other kind of name. A certificate
//! with no such name, or with two, is refused, because it would be a matter of taste whom it names.
//!
//! webpki checks signature, validity and, on the dialling side, that the name is present. It accepts
//! a certificate without any extended key usage, and it matches wildcards; [`region_of_certificate`]
//! is stricter and is applied to every peer after the handshake, before the connection is used.

mod identity;
mod issue;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use identity::{Identity, load_identity};
pub use issue::{CA_VALIDITY, IssuedFiles, REGION_VALIDITY, create_ca, create_region, renew_region};
pub use watch::{Look, Standing, Watch};

/// The longest region name: one DNS label.
pub const REGION_NAME_MAX_BYTES: usize = 63;

/// Why a certificate does not name a region. The peer that presents it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The bytes are not a certificate.
    #[error("not a readable X.509 certificate")]
    Unreadable,
    /// No DNS name without a dot: the certificate belongs to something that is not a region.
    #[error(
        "names no region (no DNS subject alternative name without a dot); issue one with `meridian cert region NAME`"
    )]
    NoRegion,
    /// Two or more DNS names without a dot: which region it is cannot be decided.
    #[error("names several regions ({}); one certificate names one region", .0.join(", "))]
    SeveralRegions(Vec<String>),
    /// A wildcard name, which would match names nobody listed.
    #[error("carries the wildcard name {0}; list names one by one")]
    Wildcard(String),
    /// The name could not be a region's name.
    #[error("{0:?} is not a region name: lowercase letters, digits and hyphens, at most 63, not digits only")]
    BadName(String),
    /// The extended key usage is missing or lacks a purpose: links use each certificate on both sides.
    #[error("is not marked for both client and server authentication (extended key usage)")]
    WrongUsage,
}

/// A certificate or key file could not be made or used. Nothing was loaded; files of this call that
/// had been written before the failure are removed again.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A configured file cannot be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Read {
        /// The configuration key, or the argument, that named the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no PEM section of the wanted kind, or a broken one.
    #[error("{key}: {} holds no usable {wanted}", path.display())]
    Content {
        /// The configuration key, or the argument, that named the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The kind of section that was looked for.
        wanted: &'static str,
    },
    /// The certificate names no region.
    #[error("{key}: the certificate in {} {source}", path.display())]
    Leaf {
        /// The configuration key that named the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LeafError,
    },
    /// Certificate and key are not a pair, as after half a rotation.
    #[error("tls.key: {} is not the key of the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate was not signed by the configured authority: every peer would refuse it.
    #[error("tls.cert: {} is not signed by the authority in {} ({reason})", cert.display(), ca.display())]
    NotSigned {
        /// The certificate's file.
        cert: PathBuf,
        /// The authority's file.
        ca: PathBuf,
        /// What the verifier said.
        reason: String,
    },
    /// The certificate is another region's.
    #[error("tls.cert: the certificate is for region \"{certificate}\", this region is \"{region}\"")]
    OtherRegion {
        /// Whom the certificate names.
        certificate: String,
        /// The configured region.
        region: String,
    },
    /// The certificate has ended: it cannot replace one that is in force.
    #[error("tls.cert: the certificate in {} has ended", cert.display())]
    Ended {
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The name given for a new region cannot be one.
    #[error("{0:?} is not a region name: lowercase letters, digits and hyphens, at most 63, not digits only")]
    RegionName(String),
    /// An extra name that would be taken for a region, or is no name at all.
    #[error("--san {0:?}: extra names are addresses or contain a dot; wildcards are not allowed")]
    ExtraName(String),
    /// A validity of nothing, or of more than a century.
    #[error("a certificate is valid for at least a second and at most a hundred years, not {0:?}")]
    Validity(Duration),
    /// A file of that name exists; identities are replaced only if that is asked for.
    #[error("{} exists already; renew a region by --renew, else move it away or choose another directory", .0.display())]
    Exists(PathBuf),
    /// There is no such file, so nothing to renew.
    #[error("{} does not exist, so there is nothing to renew; leave out --renew", .0.display())]
    NothingToRenew(PathBuf),
    /// A new file or its directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// True for a name that a region may have: one lowercase DNS label that is not a number.
pub fn is_region_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    bytes.len() <= REGION_NAME_MAX_BYTES
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && !bytes.iter().all(u8::is_ascii_digit)
}

/// The region that a certificate (DER) names, in lower case.
///
/// Checks what webpki does not: exactly one name without a dot, no wildcard, both key usages. It does
/// *not* check signature or validity; that is the handshake's work.
pub fn region_of_certificate(der: &[u8]) -> Result<String, LeafError> {
    let certificate = parse(der)?;
    let usage = certificate.extended_key_usage().map_err(|_| LeafError::Unreadable)?;
    if !usage.is_some_and(|usage| usage.value.client_auth && usage.value.server_auth) {
        return Err(LeafError::WrongUsage);
    }
    let names = certificate.subject_alternative_name().map_err(|_| LeafError::Unreadable)?;
    let mut regions = Vec::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        let GeneralName::DNSName(name) = name else { continue };
        if name.contains('*') {
            return Err(LeafError::Wildcard((*name).to_owned()));
        }
        if !name.contains('.') {
            regions.push(name.to_ascii_lowercase());
        }
    }
    match regions.pop() {
        None => Err(LeafError::NoRegion),
        Some(last) if !regions.is_empty() => {
            regions.push(last);
            Err(LeafError::SeveralRegions(regions))
        }
        Some(region) if is_region_name(&region) => Ok(region),
        Some(region) => Err(LeafError::BadName(region)),
    }
}

/// When a certificate (DER) ends. A link is recycled before that moment.
pub fn not_after(der: &[u8]) -> Result<SystemTime, LeafError> {
    Ok(moment(parse(der)?.validity().not_after.timestamp()))
}

/// When a certificate (DER) begins to be valid.
pub fn not_before(der: &[u8]) -> Result<SystemTime, LeafError> {
    Ok(moment(parse(der)?.validity().not_before.timestamp()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, LeafError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(LeafError::Unreadable),
    }
}

/// Moments before 1970 are all the same to us: long past.
fn moment(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
