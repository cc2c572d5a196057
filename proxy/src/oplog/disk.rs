//! The few things the log asks of a disk, so that tests can lose power.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::LogError;

#[cfg(test)]
mod sim;
#[cfg(test)]
pub(crate) use sim::SimDisk;

/// A directory of log files.
///
/// # Invariants
///
/// What [`Disk::create`], [`Disk::rename`] and [`Disk::remove`] did survives power loss once
/// [`Disk::sync_dir`] returned; until then any part of it may.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file (an old one of that name is emptied) of `len` zero bytes, with its space reserved.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn LogFile>>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file's name; who has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One file, read and written at positions.
pub trait LogFile: Send + Sync {
    /// Writes all of `bytes` at `offset`; on error any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `into.len()` bytes, 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes content and length durable. After an error nothing is known of what was not durable before.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of the file system, locked for this process.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    handle: File,
    _lock: File,
}

impl RealDisk {
    /// Opens (or creates) the directory and takes its lock.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let io = LogError::io;
        std::fs::create_dir_all(dir).map_err(io("create the directory"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("LOCK"))
            .map_err(io("open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { dir: dir.display().to_string() }),
            Err(TryLockError::Error(e)) => return Err(io("lock the directory")(e)),
        }
        let handle = File::open(dir).map_err(io("open the directory"))?;
        Ok(Self { dir: dir.to_owned(), handle, _lock: lock })
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn LogFile>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            // Not every file system can reserve space: there, writes may find the disk full.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
            Err(e) => return Err(e.into()),
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
