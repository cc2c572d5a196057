//! Loading this region's identity from the files that the configuration names.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use super::{CertError, LeafError, not_after, not_before, region_of_certificate};

/// What a region proves itself with, and whom it believes.
pub struct Identity {
    /// The region that the certificate names.
    pub region: String,
    /// When the certificate ends. The files should be replaced well before.
    pub not_after: SystemTime,
    /// The cluster's authorities: one, or two while the authority itself is rotated.
    pub(crate) roots: Arc<RootCertStore>,
    /// The certificate, then any intermediate ones.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("region", &self.region)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            region: self.region.clone(),
            not_after: self.not_after,
            roots: self.roots.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// Loads and checks the three files of `[tls]`. Errors name the configuration key.
///
/// Checked: the files hold what they should, certificate and key are a pair, the certificate names one
/// region, and the authority signed it. *Not* refused: a certificate that has ended or has not begun.
/// A region must be able to restart and serve its own applications with one; its peers refuse it, and
/// [`Identity::not_after`] lets the caller say so.
pub fn load_identity(ca: &Path, cert: &Path, key: &Path) -> Result<Identity, CertError> {
    let authorities = certificates("tls.ca", ca)?;
    let chain = certificates("tls.cert", cert)?;
    let key_der =
        PrivateKeyDer::from_pem_slice(&read("tls.key", key)?).map_err(|_| content("tls.key", key))?;

    let leaf = chain.first().ok_or_else(|| content("tls.cert", cert))?;
    let in_leaf = |source: LeafError| CertError::Leaf { key: "tls.cert", path: cert.to_owned(), source };
    let region = region_of_certificate(leaf).map_err(in_leaf)?;
    let begin = not_before(leaf).map_err(in_leaf)?;
    let end = not_after(leaf).map_err(in_leaf)?;

    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|_| content("tls.ca", ca))?;
    }
    let identity = Identity { region, not_after: end, roots: Arc::new(roots), chain, key: key_der };
    check_pair(&identity, cert, key)?;
    check_signed(&identity, begin, ca, cert)?;
    Ok(identity)
}

fn check_pair(identity: &Identity, cert: &Path, key: &Path) -> Result<(), CertError> {
    let signing =
        rustls::crypto::ring::sign::any_supported_type(&identity.key).map_err(|_| content("tls.key", key))?;
    CertifiedKey::new(identity.chain.clone(), signing)
        .keys_match()
        .map_err(|_| CertError::KeyMismatch { cert: cert.to_owned(), key: key.to_owned() })
}

/// Verifies the chain as of a moment at which the certificate is valid: see [`load_identity`].
fn check_signed(identity: &Identity, begin: SystemTime, ca: &Path, cert: &Path) -> Result<(), CertError> {
    let refused = |reason: String| CertError::NotSigned { cert: cert.to_owned(), ca: ca.to_owned(), reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let (leaf, intermediates) = identity.chain.split_first().ok_or_else(|| content("tls.cert", cert))?;
    let at = SystemTime::now().min(identity.not_after).max(begin);
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    match verifier.verify_client_cert(leaf, intermediates, at) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let bytes = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(CertError::Content { key, path: path.to_owned(), wanted: "certificate" }),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CertError> {
    fs::read(path).map_err(|source| CertError::Read { key, path: path.to_owned(), source })
}

fn content(key: &'static str, path: &Path) -> CertError {
    let wanted = if key == "tls.key" { "private key" } else { "certificate" };
    CertError::Content { key, path: path.to_owned(), wanted }
}
