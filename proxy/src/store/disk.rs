//! What the disk below a directory has left.

use std::io;
use std::path::Path;

/// A file system, as one without special rights sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What may still be written.
    pub available_bytes: u64,
    /// How large it is.
    pub capacity_bytes: u64,
}

impl Disk {
    /// That of `path`. May wait for the disk, where that is somewhere else.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn of(path: &Path) -> io::Result<Self> {
        let told = rustix::fs::statvfs(path)?;
        Ok(Self {
            available_bytes: told.f_bavail.saturating_mul(told.f_frsize),
            capacity_bytes: told.f_blocks.saturating_mul(told.f_frsize),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_one_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::of(directory.path()).unwrap();
        assert!(disk.available_bytes > 0 && disk.available_bytes <= disk.capacity_bytes);
        assert!(Disk::of(&directory.path().join("nowhere")).is_err());
    }
}
