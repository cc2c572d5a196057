//! Watching the files of `[tls]`, so that a certificate is replaced without a restart.
//!
//! Whoever replaces them writes one file after the other, or swaps the directory that holds them (Kubernetes). So what
//! is read is taken only once it was the same in two looks, and only as a whole: key, certificate and authority have
//! to belong together, as at the start.

use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::identity::Contents;
use super::{CertError, Identity};
use crate::config::settings::Tls;

/// How this region's own certificate stands: for `/status` and metrics.
#[derive(Debug, Default)]
pub struct Standing {
    end: Mutex<Option<SystemTime>>,
    trouble: Mutex<Option<String>>,
    /// Woken when the files are to be looked at now.
    pub(crate) look: Notify,
}

impl Standing {
    /// When the certificate in force ends; none without `[tls]`.
    pub fn end(&self) -> Option<SystemTime> {
        *self.end.lock()
    }

    /// Notes the certificate in force.
    pub fn set_end(&self, end: SystemTime) {
        *self.end.lock() = Some(end);
    }

    /// Why the files as they are now are not in force.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }
}

/// What the files hold, as far as telling it from something else goes; `None` if they cannot be read.
type Generation = Option<u128>;

/// What a look at the files has found.
#[derive(Debug)]
pub enum Look {
    /// What is in force.
    InForce,
    /// Something new, which may be half of it: look again soon.
    Unsettled,
    /// What was refused before, and was not mended yet.
    StillRefused,
    /// Something new that cannot be used. Told once; the identity in force stays.
    Refused(CertError),
    /// A new identity of the same region. It counts as in force now.
    Renewed(Box<Identity>),
}

/// The files of `[tls]`, watched.
#[derive(Debug)]
pub struct Watch {
    files: Tls,
    region: String,
    in_force: Generation,
    seen: Generation,
    refused: Option<Generation>,
}

impl Watch {
    /// Watches `files`, from which `identity` was loaded.
    pub fn new(files: &Tls, identity: &Identity) -> Self {
        let in_force = Some(identity.generation);
        Self {
            files: files.clone(),
            region: identity.region.clone(),
            in_force,
            seen: in_force,
            refused: None,
        }
    }

    /// Reads the files.
    pub fn look(&mut self) -> Look {
        let contents = Contents::read(&self.files.ca, &self.files.cert, &self.files.key);
        let generation = contents.as_ref().ok().map(Contents::generation);
        let was_seen = std::mem::replace(&mut self.seen, generation) == generation;
        if generation == self.in_force {
            self.refused = None;
            return Look::InForce;
        }
        if !was_seen {
            return Look::Unsettled;
        }
        if self.refused == Some(generation) {
            return Look::StillRefused;
        }
        match contents.and_then(|contents| self.judge(&contents)) {
            Ok(identity) => {
                (self.in_force, self.refused) = (generation, None);
                Look::Renewed(Box::new(identity))
            }
            Err(error) => {
                self.refused = Some(generation);
                Look::Refused(error)
            }
        }
    }

    /// As at the start; and what has ended already replaces nothing.
    fn judge(&self, contents: &Contents<'_>) -> Result<Identity, CertError> {
        let identity = contents.identity()?.of_region(&self.region)?;
        if identity.not_after <= SystemTime::now() {
            return Err(CertError::Ended { cert: self.files.cert.clone() });
        }
        Ok(identity)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::cert::{REGION_VALIDITY, create_ca, create_region, load_identity};

    fn issue(directory: &Path, region: &str, validity: Duration) -> Tls {
        create_ca(directory).unwrap();
        create_region(region, directory, directory, &[], validity).unwrap();
        files(directory, region)
    }

    fn files(directory: &Path, region: &str) -> Tls {
        let path = |name: String| directory.join(name);
        Tls {
            ca: path("ca.pem".into()),
            cert: path(format!("{region}.pem")),
            key: path(format!("{region}.key")),
        }
    }

    fn watch(tls: &Tls) -> Watch {
        Watch::new(tls, &load_identity(&tls.ca, &tls.cert, &tls.key).unwrap())
    }

    fn overwrite(with: &Tls, tls: &Tls) {
        for (from, to) in [(&with.ca, &tls.ca), (&with.cert, &tls.cert), (&with.key, &tls.key)] {
            fs::copy(from, to).unwrap();
        }
    }

    #[test]
    fn files_replaced_one_by_one_are_taken_when_they_fit_and_have_settled() {
        let [old, new] = [(); 2].map(|()| TempDir::new().unwrap());
        let tls = issue(old.path(), "eu", REGION_VALIDITY);
        let renewed = issue(new.path(), "eu", REGION_VALIDITY);
        let mut watch = watch(&tls);
        assert!(matches!(watch.look(), Look::InForce));
        fs::copy(&renewed.cert, &tls.cert).unwrap();
        assert!(matches!(watch.look(), Look::Unsettled));
        // Half of it is refused, once.
        assert!(matches!(watch.look(), Look::Refused(CertError::KeyMismatch { .. })));
        assert!(matches!(watch.look(), Look::StillRefused));
        fs::copy(&renewed.key, &tls.key).unwrap();
        assert!(matches!(watch.look(), Look::Unsettled));
        assert!(matches!(watch.look(), Look::Refused(CertError::NotSigned { .. })));
        let whole = fs::read(&renewed.ca).unwrap();
        fs::write(&tls.ca, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(watch.look(), Look::Unsettled));
        fs::write(&tls.ca, whole).unwrap();
        // It has changed since.
        assert!(matches!(watch.look(), Look::Unsettled));
        assert!(matches!(watch.look(), Look::Renewed(identity) if identity.region == "eu"));
        assert!(matches!(watch.look(), Look::InForce));
    }

    #[test]
    fn a_directory_that_is_swapped_is_one_generation() {
        let home = TempDir::new().unwrap();
        let [old, new] = ["old", "new"].map(|name| home.path().join(name));
        for directory in [&old, &new] {
            fs::create_dir(directory).unwrap();
            issue(directory, "eu", REGION_VALIDITY);
        }
        let data = home.path().join("..data");
        symlink(&old, &data).unwrap();
        let mut watch = watch(&files(&data, "eu"));
        assert!(matches!(watch.look(), Look::InForce));
        let swap = home.path().join("..data_tmp");
        symlink(&new, &swap).unwrap();
        fs::rename(&swap, &data).unwrap();
        assert!(matches!(watch.look(), Look::Unsettled));
        assert!(matches!(watch.look(), Look::Renewed(_)));
    }

    #[test]
    fn what_is_lost_ended_or_another_s_changes_nothing_and_what_was_in_force_may_come_back() {
        let [own, other, ended, aside] = [(); 4].map(|()| TempDir::new().unwrap());
        let tls = issue(own.path(), "eu", REGION_VALIDITY);
        overwrite(&tls, &issue(aside.path(), "eu", REGION_VALIDITY));
        let mut watch = watch(&tls);
        let settle = |watch: &mut Watch| {
            assert!(matches!(watch.look(), Look::Unsettled));
            watch.look()
        };
        overwrite(&issue(other.path(), "us", REGION_VALIDITY), &tls);
        assert!(matches!(settle(&mut watch), Look::Refused(CertError::OtherRegion { .. })));
        let short = issue(ended.path(), "eu", Duration::from_secs(1));
        let end = load_identity(&short.ca, &short.cert, &short.key).unwrap().not_after;
        while SystemTime::now() < end {
            std::thread::yield_now();
        }
        overwrite(&short, &tls);
        assert!(matches!(settle(&mut watch), Look::Refused(CertError::Ended { .. })));
        fs::remove_file(&tls.key).unwrap();
        assert!(matches!(settle(&mut watch), Look::Refused(CertError::Read { .. })));
        overwrite(&files(aside.path(), "eu"), &tls);
        assert!(matches!(watch.look(), Look::InForce));
    }
}
