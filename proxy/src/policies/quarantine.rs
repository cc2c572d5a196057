//! The hooks in quarantine, kept over restarts in the file `quarantine`.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::path::{Path, PathBuf};

use meridian_conflict::hook::quarantine::Quarantine;

use super::version::replace;
use crate::store::row;

const FILE: &str = "quarantine";

/// The file.
#[derive(Debug)]
pub struct QuarantineFile {
    path: PathBuf,
}

impl QuarantineFile {
    /// That of this data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    /// What it holds; nothing if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn load(&self) -> io::Result<Quarantine> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Quarantine::default()),
            Err(error) => return Err(error),
        };
        let set = row::open(&bytes).ok().and_then(|payload| Quarantine::decode(payload).ok());
        set.ok_or_else(|| Error::new(ErrorKind::InvalidData, "the file `quarantine` is damaged"))
    }

    /// Keeps a set durably in place of the one before. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written; what was kept stands.
    pub fn store(&self, set: &Quarantine) -> io::Result<()> {
        replace(&self.path, &set.encode())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::RegionId;
    use meridian_conflict::hook::quarantine::Reason;
    use meridian_conflict::hook::question::Subject;

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/quarantine-v1.bin");

    /// The format is a promise: what version 1 wrote is read by every later version. Never regenerate this file.
    #[test]
    fn h1_the_quarantine_file_keeps_its_form() {
        let directory = tempfile::tempdir().unwrap();
        let file = QuarantineFile::of(directory.path());
        assert!(file.load().unwrap().is_empty());
        let mut set = Quarantine::default();
        for (hook, subject) in [(1, Subject::String), (2, Subject::Field((*b"f").into())), (3, Subject::Hash)]
        {
            let both = [(RegionId(1), 5), (RegionId(2), 6)];
            let reason = Reason::new(1_700_000_000_000, (3, b"key", &subject), 1 << 90, both);
            assert!(set.confine([hook; 32], 0, reason));
        }
        assert!(set.release([2; 32]));
        file.store(&set).unwrap();
        assert_eq!(file.load().unwrap(), set);
        let written = fs::read(directory.path().join(FILE)).unwrap();
        if std::env::var_os("WRITE_GOLDEN").is_some() && !Path::new(GOLDEN).exists() {
            fs::write(GOLDEN, &written).unwrap();
        }
        assert_eq!(written, fs::read(GOLDEN).unwrap(), "what is written has changed");
        fs::write(directory.path().join(FILE), b"nonsense").unwrap();
        assert!(file.load().is_err());
    }
}
