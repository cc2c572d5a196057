#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ED25519, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// An authority in memory, and leaves of any shape: right ones and every wrong one.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Meridian");
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn identity(&self, region: &str) -> Identity {
        self.leaf(&[region], |_| {})
    }

    /// A leaf with these names, changed by `change`, unchecked.
    pub(crate) fn leaf(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (params, key) = leaf_params(names, change);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        self.identity_of(der, &key)
    }

    /// A leaf that signs itself but trusts this authority.
    pub(crate) fn self_signed(&self, region: &str) -> Identity {
        let (params, key) = leaf_params(&[region], |_| {});
        let der = params.self_signed(&key).unwrap().der().clone();
        self.identity_of(der, &key)
    }

    /// An identity of `other`'s that believes in this authority: it would talk to us if we let it.
    pub(crate) fn adopt(&self, other: Identity) -> Identity {
        Identity { roots: self.roots(), ..other }
    }

    /// A leaf of another authority of the same name, with a hundred more of them to try.
    pub(crate) fn crowded(&self, region: &str) -> Identity {
        let mut identity = self.adopt(Self::new().identity(region));
        identity.chain.extend((0..100).map(|_| Self::new().der));
        identity
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }

    fn identity_of(&self, der: CertificateDer<'static>, key: &KeyPair) -> Identity {
        Identity {
            region: "test".to_owned(),
            not_after: not_after(&der).unwrap(),
            roots: self.roots(),
            chain: vec![der],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            generation: 0,
        }
    }
}

fn leaf_params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    (params, KeyPair::generate_for(&PKCS_ED25519).unwrap())
}

fn region(names: &[&str]) -> Result<String, LeafError> {
    region_of_certificate(&TestCa::new().leaf(names, |_| {}).chain[0])
}

#[test]
fn the_region_is_the_one_name_without_a_dot() {
    assert_eq!(region(&["eu"]), Ok("eu".to_owned()));
    assert_eq!(region(&["EU-West-1", "link.example.org", "10.0.0.1"]), Ok("eu-west-1".to_owned()));
    assert_eq!(region(&["link.example.org"]), Err(LeafError::NoRegion));
    assert_eq!(region(&["eu", "us"]), Err(LeafError::SeveralRegions(vec!["eu".into(), "us".into()])));
    assert_eq!(region(&["eu", "*.example.org"]), Err(LeafError::Wildcard("*.example.org".into())));
    assert_eq!(region(&["*"]), Err(LeafError::Wildcard("*".into())));
    assert_eq!(region(&["123"]), Err(LeafError::BadName("123".into())));
    assert_eq!(region(&["e_u"]), Err(LeafError::BadName("e_u".into())));
}

#[test]
fn a_common_name_is_no_region_and_both_usages_are_needed() {
    let ca = TestCa::new();
    let named = ca.leaf(&[], |params| params.distinguished_name.push(DnType::CommonName, "eu"));
    assert_eq!(region_of_certificate(&named.chain[0]), Err(LeafError::NoRegion));
    for usages in
        [vec![], vec![ExtendedKeyUsagePurpose::ClientAuth], vec![ExtendedKeyUsagePurpose::ServerAuth]]
    {
        let leaf = ca.leaf(&["eu"], |params| params.extended_key_usages = usages);
        assert_eq!(region_of_certificate(&leaf.chain[0]), Err(LeafError::WrongUsage));
    }
}

/// Fuzz target: what a stranger presents is looked at before anything about it was checked.
#[test]
fn fuzz_region_of_certificate() {
    let whole = TestCa::new().identity("eu").chain[0].to_vec();
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, edits)| {
        let mut damaged = whole.clone();
        for (at, byte) in edits {
            let at = usize::from(*at) % damaged.len();
            damaged[at] = *byte;
        }
        for der in [bytes, &damaged] {
            if let Ok(region) = region_of_certificate(der) {
                assert!(is_region_name(&region), "{region:?}");
            }
            let _ = (not_after(der), not_before(der));
        }
    });
}

#[test]
fn damaged_certificates_are_errors() {
    let der = TestCa::new().identity("eu").chain[0].to_vec();
    for end in 0..der.len() {
        assert!(region_of_certificate(&der[..end]).is_err());
    }
    for at in 0..der.len() {
        let mut damaged = der.clone();
        damaged[at] ^= 0x55;
        // Whatever the answer, it is not a panic.
        let _ = (region_of_certificate(&damaged), not_after(&damaged), not_before(&damaged));
    }
}

fn issue(dir: &Path, name: &str, sans: &[&str]) -> Result<IssuedFiles, CertError> {
    let sans: Vec<String> = sans.iter().map(|san| (*san).to_owned()).collect();
    create_region(name, dir, dir, &sans, REGION_VALIDITY)
}

#[test]
fn made_identities_load() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, ca) = (dir.path(), create_ca(&dir.path().join("ca")).unwrap());
    let sans = ["link.example.org".to_owned(), "10.0.0.1".to_owned()];
    let files = create_region("eu", &dir.join("ca"), dir, &sans, REGION_VALIDITY).unwrap();
    assert_eq!(files.cert, dir.join("eu.pem"));
    let identity = load_identity(&ca.cert, &files.cert, &files.key).unwrap();
    assert_eq!(identity.region, "eu");
    let left = identity.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left > REGION_VALIDITY - Duration::from_secs(60) && left <= REGION_VALIDITY, "{left:?}");
    assert!(!format!("{identity:?}").contains("key"));
    for key in [&ca.key, &files.key] {
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_renewal_replaces_both_files_and_nothing_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create_ca(dir.path()).unwrap();
    let renew = |name: &str| renew_region(name, dir.path(), dir.path(), &[], REGION_VALIDITY);
    let refused = renew("eu").unwrap_err();
    assert!(matches!(&refused, CertError::NothingToRenew(path) if path.ends_with("eu.pem")), "{refused}");
    assert!(!dir.path().join("eu.key").exists());

    let files = issue(dir.path(), "eu", &[]).unwrap();
    let read = || (fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());
    let before = read();
    // What a renewal that was broken off has left is in nobody's way.
    fs::create_dir(dir.path().join(".eu.renewal")).unwrap();
    fs::write(dir.path().join(".eu.renewal/eu.key"), "half").unwrap();
    assert_eq!(renew("eu").unwrap(), files);
    let after = read();
    assert!(before.0 != after.0 && before.1 != after.1);
    assert_eq!(load_identity(&ca.cert, &files.cert, &files.key).unwrap().region, "eu");
    assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join(".eu.renewal").exists());
}

#[test]
fn files_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create_ca(dir.path()).unwrap();
    let before = fs::read(&ca.key).unwrap();
    assert!(matches!(create_ca(dir.path()), Err(CertError::Exists(_))));
    assert_eq!(fs::read(&ca.key).unwrap(), before);
    // A certificate alone is in the way too, and no stray key is left beside it.
    fs::write(dir.path().join("eu.pem"), "mine").unwrap();
    assert!(matches!(issue(dir.path(), "eu", &[]), Err(CertError::Exists(_))));
    assert!(!dir.path().join("eu.key").exists());
    assert_eq!(fs::read(dir.path().join("eu.pem")).unwrap(), b"mine");
}

#[test]
fn names_that_would_confuse_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    create_ca(dir.path()).unwrap();
    let long = "a".repeat(64);
    for name in ["", "a.b", "../eu", "*", "-eu", "eu-", "12", "e u", "é", long.as_str()] {
        assert!(matches!(issue(dir.path(), name, &[]), Err(CertError::RegionName(_))), "{name:?}");
    }
    for san in ["us", "*.example.org", "", "example.org."] {
        assert!(matches!(issue(dir.path(), "eu", &[san]), Err(CertError::ExtraName(_))), "{san:?}");
    }
    let nothing = create_region("eu", dir.path(), dir.path(), &[], Duration::ZERO);
    assert!(matches!(nothing, Err(CertError::Validity(_))));
}

#[test]
fn loading_errors_name_the_configuration_key() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (create_ca(&dir.path().join("a")).unwrap(), create_ca(&dir.path().join("b")).unwrap());
    let dir = dir.path();
    let eu = create_region("eu", &dir.join("a"), dir, &[], REGION_VALIDITY).unwrap();
    let us = create_region("us", &dir.join("b"), dir, &[], REGION_VALIDITY).unwrap();
    let text = |ca: &Path, cert: &Path, key: &Path| load_identity(ca, cert, key).unwrap_err().to_string();

    assert!(text(&dir.join("none"), &eu.cert, &eu.key).starts_with("tls.ca: cannot read"));
    assert!(text(&ca.cert, &eu.key, &eu.key).starts_with("tls.cert: "));
    assert!(text(&ca.cert, &eu.cert, &eu.cert).starts_with("tls.key: "));
    assert!(matches!(load_identity(&ca.cert, &eu.cert, &us.key), Err(CertError::KeyMismatch { .. })));
    assert!(matches!(load_identity(&other.cert, &eu.cert, &eu.key), Err(CertError::NotSigned { .. })));
    assert!(matches!(load_identity(&ca.cert, &ca.cert, &ca.key), Err(CertError::Leaf { .. })));
}

#[test]
fn a_region_with_an_ended_certificate_still_starts() {
    let ca = TestCa::new();
    let ended = ca.leaf(&["eu"], |params| params.not_after = date_time_ymd(2001, 1, 1));
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, kind: &str, der: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, pem(kind, der)).unwrap();
        path
    };
    let key = match &ended.key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der(),
        _ => panic!("not PKCS 8"),
    };
    let loaded = load_identity(
        &write("ca.pem", "CERTIFICATE", &ca.der),
        &write("eu.pem", "CERTIFICATE", &ended.chain[0]),
        &write("eu.key", "PRIVATE KEY", key),
    );
    assert!(loaded.unwrap().not_after < SystemTime::now());
}

fn pem(kind: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}
