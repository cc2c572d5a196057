//! The lives of regions that were removed, kept over restarts: they are refused for good. A removed
//! region comes back as a new one, with an empty data directory.
//!
//! The file `retired` holds a line per life: the origin as 16 hexadecimal digits.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use meridian_conflict::clock::Origin;

const FILE: &str = "retired";

/// Reads the lives noted in the data directory; none if there is no file.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn load(data_dir: &Path) -> io::Result<BTreeSet<Origin>> {
    let text = match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let malformed = |_| io::Error::new(ErrorKind::InvalidData, "a line is not an origin");
    text.lines().map(|line| u64::from_str_radix(line, 16).map(Origin).map_err(malformed)).collect()
}

/// Notes the lives durably, in place of what was noted before.
///
/// # Errors
/// When the file cannot be written; what was noted before stands.
pub fn store(data_dir: &Path, origins: &BTreeSet<Origin>) -> io::Result<()> {
    let (path, new) = (data_dir.join(FILE), data_dir.join("retired.new"));
    let mut file = File::create(&new)?;
    for origin in origins {
        writeln!(file, "{:016x}", origin.0)?;
    }
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_back_and_damage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).unwrap().is_empty());
        let origins: BTreeSet<Origin> = [1, 0xfeed_0000_0000_beef, u64::MAX].map(Origin).into();
        store(directory.path(), &origins).unwrap();
        assert_eq!(load(directory.path()).unwrap(), origins);
        fs::write(directory.path().join(FILE), "nonsense\n").unwrap();
        assert!(load(directory.path()).is_err());
    }
}
