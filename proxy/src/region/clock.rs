//! The hybrid clock over restarts: the file `clock` keeps a reading.
//!
//! Readings of ops come back with the log. Those that were told to other regions while nobody wrote are
//! kept here before they are told, so that no op is ever stamped before them, whatever the wall clock
//! does while this region is down.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use meridian_conflict::clock::Hlc;

use crate::store::row;

const FILE: &str = "clock";
const VERSION: u8 = 1;

/// The file.
#[derive(Debug)]
pub struct ClockFile {
    path: PathBuf,
}

impl ClockFile {
    /// That of this data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    /// The reading kept; zero if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn load(&self) -> std::io::Result<Hlc> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Hlc(0)),
            Err(error) => return Err(error),
        };
        let malformed = || std::io::Error::new(ErrorKind::InvalidData, "the file `clock` is damaged");
        match row::open(&bytes).ok().and_then(<[u8]>::split_first) {
            Some((&VERSION, reading)) => {
                Ok(Hlc(u64::from_be_bytes(reading.try_into().map_err(|_| malformed())?)))
            }
            _ => Err(malformed()),
        }
    }

    /// Keeps a reading, durably. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be written; the one before stands.
    pub fn store(&self, reading: Hlc) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        let mut payload = vec![VERSION];
        payload.extend_from_slice(&reading.0.to_be_bytes());
        file.write_all(&row::seal(&payload))?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn k3_a_reading_is_read_back_and_damage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = ClockFile::of(directory.path());
        assert_eq!(file.load().unwrap(), Hlc(0));
        file.store(Hlc(0x0102_0304_0506_0708)).unwrap();
        assert_eq!(file.load().unwrap(), Hlc(0x0102_0304_0506_0708));
        let bytes = fs::read(directory.path().join(FILE)).unwrap();
        assert_eq!(row::open(&bytes).unwrap(), [1, 1, 2, 3, 4, 5, 6, 7, 8]);
        fs::write(directory.path().join(FILE), b"nonsense").unwrap();
        assert!(file.load().is_err());
    }
}
