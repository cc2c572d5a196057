//! What a store's directory says of itself: the `FORMAT` marker, and the lock that keeps a second holder out.
//!
//! ```text
//! meridian store 1
//! created 1763871234567
//! ```
//!
//! The number in the first line is the format; the second line, milliseconds since 1970, is for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::StoreError;

/// The format that this program reads and writes.
pub(super) const FORMAT: u32 = 1;

const MARKER: &str = "FORMAT";
const LOCK: &str = "LOCK";
const TITLE: &str = "meridian store ";

/// Creates the directory or recognises it, and takes its lock. Dropping the file gives the lock back.
pub(super) fn claim(path: &Path) -> Result<File, StoreError> {
    std::fs::create_dir_all(path).map_err(io("create its directory"))?;
    let marked = path.join(MARKER).try_exists().map_err(io("look for its marker"))?;
    // Before a stranger's directory gets so much as a lock file.
    if !marked && has_strangers(path).map_err(io("list its directory"))? {
        return Err(StoreError::NotAStore { path: path.to_owned() });
    }
    let lock = lock(path)?;
    match std::fs::read_to_string(path.join(MARKER)) {
        Ok(text) => check(path, &text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => create(path).map_err(io("write its marker"))?,
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(StoreError::NotAStore { path: path.to_owned() });
        }
        Err(error) => return Err(io("read its marker")(error)),
    }
    Ok(lock)
}

/// Makes the entries of a directory survive a power loss.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn has_strangers(path: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != "FORMAT.new" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK))
        .map_err(io("open its lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io("take its lock")(error)),
    }
}

fn check(path: &Path, text: &str) -> Result<(), StoreError> {
    let found = text.lines().next().and_then(|line| line.strip_prefix(TITLE)).and_then(|n| n.parse().ok());
    match found {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(StoreError::Format { path: path.to_owned(), found, supported: FORMAT }),
        None => Err(StoreError::NotAStore { path: path.to_owned() }),
    }
}

/// Written aside and renamed: a marker is there as a whole or not at all.
fn create(path: &Path) -> std::io::Result<()> {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis());
    let aside = path.join("FORMAT.new");
    let mut file = File::create(&aside)?;
    write!(file, "{TITLE}{FORMAT}\ncreated {created}\n")?;
    file.sync_all()?;
    std::fs::rename(&aside, path.join(MARKER))?;
    sync_directory(path)?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_directory)
}

fn io(during: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { during, source }
}
