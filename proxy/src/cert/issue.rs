//! Making the authority and the regions' certificates.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};

use super::{CertError, is_region_name};

/// How long a new authority is valid: ten years.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a region's certificate is valid unless the caller says otherwise: one year.
pub const REGION_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

const VALIDITY_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Certificates begin a little in the past, so that a region whose clock is slow accepts a new one.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// The two files of an identity that has just been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// The private key, PEM, readable by its owner only.
    pub key: PathBuf,
}

/// Makes a new authority: `ca.pem` and `ca.key` in `out`, which is created when missing.
///
/// The key signs regions and nothing else needs it: keep it off the machines that serve.
pub fn create_ca(out: &Path) -> Result<IssuedFiles, CertError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    set_validity(&mut params, CA_VALIDITY)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Meridian");
    params.distinguished_name.push(DnType::CommonName, "Meridian link authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    write_pair(out, "ca", &certificate.pem(), &key.serialize_pem())
}

/// Makes the identity of region `name`, signed by the authority in `ca_dir`: `NAME.pem` and `NAME.key`
/// in `out`. `sans` are extra names for other tools: addresses, or host names with a dot.
pub fn create_region(
    name: &str,
    ca_dir: &Path,
    out: &Path,
    sans: &[String],
    validity: Duration,
) -> Result<IssuedFiles, CertError> {
    let (cert, key) = sign_region(name, ca_dir, sans, validity)?;
    write_pair(out, name, &cert, &key)
}

/// Replaces the identity of region `name` in `out` by a new one with a new key; otherwise as [`create_region`].
///
/// Each file is whole at every moment. Between the two replacements they do not fit together: a region that
/// watches them leaves that alone, and one that starts right then refuses to.
///
/// # Errors
/// [`CertError`]: the former files are as they were, unless the second of the two cannot be replaced; then the
/// same call again mends it.
pub fn renew_region(
    name: &str,
    ca_dir: &Path,
    out: &Path,
    sans: &[String],
    validity: Duration,
) -> Result<IssuedFiles, CertError> {
    let (cert, key) = sign_region(name, ca_dir, sans, validity)?;
    let former = files_of(out, name);
    if let Some(missing) = [&former.cert, &former.key].into_iter().find(|file| !file.exists()) {
        return Err(CertError::NothingToRenew(missing.clone()));
    }
    let fresh = room_beside(out, name)?;
    let made = write_pair(&fresh, name, &cert, &key).and_then(|files| {
        for (from, to) in [(files.key, &former.key), (files.cert, &former.cert)] {
            fs::rename(from, to).map_err(|source| CertError::Write { path: to.clone(), source })?;
        }
        Ok(former)
    });
    // What is left in there is of no use; a renewal that worked is not undone because it stays.
    let _ = fs::remove_dir_all(&fresh);
    made
}

/// A new directory beside the files of `name`, so that they can be moved into place.
fn room_beside(out: &Path, name: &str) -> Result<PathBuf, CertError> {
    let path = out.join(format!(".{name}.renewal"));
    // Of a renewal that was broken off.
    let _ = fs::remove_dir_all(&path);
    match fs::create_dir(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(CertError::Write { path, source }),
    }
}

/// A certificate and its key, PEM.
fn sign_region(
    name: &str,
    ca_dir: &Path,
    sans: &[String],
    validity: Duration,
) -> Result<(String, String), CertError> {
    let region = name.to_ascii_lowercase();
    if !is_region_name(&region) {
        return Err(CertError::RegionName(name.to_owned()));
    }
    if let Some(bad) = sans.iter().find(|san| !is_extra_name(san)) {
        return Err(CertError::ExtraName(bad.clone()));
    }
    let issuer = load_authority(ca_dir)?;

    let names: Vec<String> = std::iter::once(region).chain(sans.iter().cloned()).collect();
    let mut params = CertificateParams::new(names)?;
    set_validity(&mut params, validity)?;
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn files_of(dir: &Path, stem: &str) -> IssuedFiles {
    IssuedFiles { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) }
}

fn load_authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, CertError> {
    let read = |name: &str| {
        let path = dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(CertError::Read { key: "--ca", path, source }),
        }
    };
    let (key_path, key) = read("ca.key")?;
    let (cert_path, cert) = read("ca.pem")?;
    let key = KeyPair::from_pem(&key).map_err(|_| CertError::Content {
        key: "--ca",
        path: key_path,
        wanted: "private key",
    })?;
    Issuer::from_ca_cert_pem(&cert, key).map_err(|_| CertError::Content {
        key: "--ca",
        path: cert_path,
        wanted: "certificate",
    })
}

fn is_extra_name(san: &str) -> bool {
    san.parse::<IpAddr>().is_ok() || (san.contains('.') && !san.contains('*') && !san.ends_with('.'))
}

fn set_validity(params: &mut CertificateParams, validity: Duration) -> Result<(), CertError> {
    if validity < Duration::from_secs(1) || validity > VALIDITY_MAX {
        return Err(CertError::Validity(validity));
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch.saturating_add(validity);
    Ok(())
}

fn write_pair(dir: &Path, stem: &str, cert: &str, key: &str) -> Result<IssuedFiles, CertError> {
    fs::create_dir_all(dir).map_err(|source| CertError::Write { path: dir.to_owned(), source })?;
    let files = files_of(dir, stem);
    write_new(&files.key, key, KEY_MODE)?;
    if let Err(error) = write_new(&files.cert, cert, CERTIFICATE_MODE) {
        // A key without its certificate is of no use and would block the next attempt.
        let _ = fs::remove_file(&files.key);
        return Err(error);
    }
    Ok(files)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CertError::Exists(path.to_owned()));
        }
        Err(source) => return Err(CertError::Write { path: path.to_owned(), source }),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        // Written by this call and incomplete: nothing that anyone could miss.
        let _ = fs::remove_file(path);
        CertError::Write { path: path.to_owned(), source }
    })
}
