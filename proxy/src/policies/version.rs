//! How often this region's policies have changed, over restarts: the file `policies` keeps the version and
//! the digest of the rules that it counts.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use meridian_conflict::policy::PolicyTable;

use crate::store::row;

const FILE: &str = "policies";
const VERSION: u8 = 1;

/// The first version of a region that had no policies before.
const FIRST: u64 = 1;

/// The file.
#[derive(Debug)]
pub struct VersionFile {
    path: PathBuf,
}

impl VersionFile {
    /// That of this data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    /// The version of `table`'s rules: the one kept if they are the same, else the next, which is kept.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn count(&self, table: &PolicyTable) -> std::io::Result<u64> {
        let (version, digest) = match self.load()? {
            Some((version, digest)) => (version, digest),
            None if table.rules().is_empty() => return Ok(0),
            None => (FIRST - 1, 0),
        };
        if digest == table.digest() && version >= FIRST {
            return Ok(version);
        }
        self.store(version + 1, table.digest())?;
        Ok(version + 1)
    }

    fn load(&self) -> std::io::Result<Option<(u64, u128)>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let parts = || {
            let (&VERSION, rest) = row::open(&bytes).ok()?.split_first()? else { return None };
            let (version, digest) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*version), u128::from_be_bytes(digest.try_into().ok()?)))
        };
        let malformed = || Error::new(ErrorKind::InvalidData, "the file `policies` is damaged");
        parts().map(Some).ok_or_else(malformed)
    }

    fn store(&self, version: u64, digest: u128) -> std::io::Result<()> {
        let mut payload = vec![VERSION];
        payload.extend_from_slice(&version.to_be_bytes());
        payload.extend_from_slice(&digest.to_be_bytes());
        replace(&self.path, &payload)
    }
}

/// Writes a payload in its envelope in place of the file, durably.
///
/// # Errors
/// When it cannot be written; the file stands as it was.
pub(super) fn replace(path: &Path, payload: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&row::seal(payload))?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::policy::{Policy, PolicyRule};

    use super::*;

    fn table(keys: &[u8]) -> PolicyTable {
        PolicyTable::new(0, vec![PolicyRule { keys: keys.into(), policy: Policy::Lww }]).unwrap()
    }

    #[test]
    fn the_version_file_keeps_its_form() {
        let directory = tempfile::tempdir().unwrap();
        let file = VersionFile::of(directory.path());
        assert_eq!(file.count(&PolicyTable::default()).unwrap(), 0);
        assert!(!directory.path().join(FILE).exists(), "a region without policies keeps nothing");
        assert_eq!(file.count(&table(b"a")).unwrap(), 1);
        assert_eq!(file.count(&table(b"a")).unwrap(), 1);
        assert_eq!(file.count(&PolicyTable::default()).unwrap(), 2);
        assert_eq!(file.count(&table(b"b")).unwrap(), 3);
        let bytes = fs::read(directory.path().join(FILE)).unwrap();
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 3];
        expected.extend(table(b"b").digest().to_be_bytes());
        assert_eq!(row::open(&bytes).unwrap(), expected);
        fs::write(directory.path().join(FILE), b"nonsense").unwrap();
        assert!(file.count(&table(b"b")).is_err());
    }
}
