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
use xxhash_rust::xxh3::Xxh3;

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
    /// A digest of the files it was loaded from.
    pub(crate) generation: u128,
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
            generation: self.generation,
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
    Contents::read(ca, cert, key)?.identity()
}

/// What the three files hold.
pub(super) struct Contents<'a> {
    ca: (&'a Path, Vec<u8>),
    cert: (&'a Path, Vec<u8>),
    key: (&'a Path, Vec<u8>),
}

impl<'a> Contents<'a> {
    pub(super) fn read(ca: &'a Path, cert: &'a Path, key: &'a Path) -> Result<Self, CertError> {
        let read = |name: &'static str, path: &'a Path| match fs::read(path) {
            Ok(bytes) => Ok((path, bytes)),
            Err(source) => Err(CertError::Read { key: name, path: path.to_owned(), source }),
        };
        Ok(Self { ca: read("tls.ca", ca)?, cert: read("tls.cert", cert)?, key: read("tls.key", key)? })
    }

    /// A digest of it all.
    pub(super) fn generation(&self) -> u128 {
        let mut digest = Xxh3::new();
        for (_, bytes) in [&self.ca, &self.cert, &self.key] {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.digest128()
    }

    /// See [`load_identity`].
    pub(super) fn identity(&self) -> Result<Identity, CertError> {
        let Self { ca: (ca, ca_bytes), cert: (cert, cert_bytes), key: (key, key_bytes) } = self;
        let authorities = certificates("tls.ca", ca, ca_bytes)?;
        let chain = certificates("tls.cert", cert, cert_bytes)?;
        let key_der = PrivateKeyDer::from_pem_slice(key_bytes).map_err(|_| content("tls.key", key))?;

        let leaf = chain.first().ok_or_else(|| content("tls.cert", cert))?;
        let in_leaf =
            |source: LeafError| CertError::Leaf { key: "tls.cert", path: cert.to_path_buf(), source };
        let region = region_of_certificate(leaf).map_err(in_leaf)?;
        let begin = not_before(leaf).map_err(in_leaf)?;
        let not_after = not_after(leaf).map_err(in_leaf)?;

        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|_| content("tls.ca", ca))?;
        }
        let (roots, generation) = (Arc::new(roots), self.generation());
        let identity = Identity { region, not_after, roots, chain, key: key_der, generation };
        check_pair(&identity, cert, key)?;
        check_signed(&identity, begin, ca, cert)?;
        Ok(identity)
    }
}

impl Identity {
    /// This identity, if it is `region`'s.
    ///
    /// # Errors
    /// [`CertError::OtherRegion`].
    pub fn of_region(self, region: &str) -> Result<Self, CertError> {
        if self.region == region {
            return Ok(self);
        }
        Err(CertError::OtherRegion { certificate: self.region, region: region.to_owned() })
    }

    /// Whether a peer that showed `chain` would be believed now, as in a handshake.
    pub fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        self.verify(leaf, intermediates, UnixTime::now()).is_ok()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider)
            .build()
            .map_err(|error| error.to_string())?;
        let verified = verifier.verify_client_cert(leaf, intermediates, at);
        verified.map(drop).map_err(|error| error.to_string())
    }
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
    let (leaf, intermediates) = identity.chain.split_first().ok_or_else(|| content("tls.cert", cert))?;
    let at = SystemTime::now().min(identity.not_after).max(begin);
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    identity.verify(leaf, intermediates, at).map_err(|reason| CertError::NotSigned {
        cert: cert.to_owned(),
        ca: ca.to_owned(),
        reason,
    })
}

fn certificates(
    key: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(CertError::Content { key, path: path.to_owned(), wanted: "certificate" }),
    }
}

fn content(key: &'static str, path: &Path) -> CertError {
    let wanted = if key == "tls.key" { "private key" } else { "certificate" };
    CertError::Content { key, path: path.to_owned(), wanted }
}
