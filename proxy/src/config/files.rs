//! The files that a configuration names.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::FileProblem;
use super::settings::Secret;

/// The longest password, in bytes: what an unauthenticated client may send in one argument.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// The longest bearer token, in bytes: well within what the admin server reads of a request.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Permission bits by which any user may read or write.
const OTHERS: u32 = 0o006;

/// Reads the regular file at `path`, of at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, FileProblem> {
    open(path).and_then(|(file, _)| read(file, most))
}

/// Reads a password, less one newline at its end.
///
/// # Errors
/// [`FileProblem`]
pub fn read_password(path: &Path) -> Result<Secret, FileProblem> {
    read_secret(path, MAX_PASSWORD_BYTES).map(Secret::new)
}

/// Reads a bearer token, less one newline at its end. What is left can be a header's value.
///
/// # Errors
/// [`FileProblem`]
pub fn read_token(path: &Path) -> Result<Secret, FileProblem> {
    let token = read_secret(path, MAX_TOKEN_BYTES)?;
    if token.iter().all(u8::is_ascii_graphic) { Ok(Secret::new(token)) } else { Err(FileProblem::NotAToken) }
}

fn read_secret(path: &Path, most: u64) -> Result<Vec<u8>, FileProblem> {
    let (file, metadata) = open(path)?;
    check_private(&metadata)?;
    let mut secret = read(file, most)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    if secret.is_empty() { Err(FileProblem::Empty) } else { Ok(secret) }
}

/// Checks that a certificate can be read.
pub(super) fn check_readable(path: &Path) -> Result<(), FileProblem> {
    open(path).map(drop)
}

/// Checks that a private key can be read, and not by everybody.
pub(super) fn check_key(path: &Path) -> Result<(), FileProblem> {
    open(path).and_then(|(_, metadata)| check_private(&metadata))
}

fn check_private(metadata: &Metadata) -> Result<(), FileProblem> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 { Ok(()) } else { Err(FileProblem::OpenToAll { mode }) }
}

/// Opens a regular file. Anything else is refused before it is opened, as opening a pipe could block.
fn open(path: &Path) -> Result<(File, Metadata), FileProblem> {
    let unreadable = |error: std::io::Error| FileProblem::Unreadable { message: error.to_string() };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(FileProblem::NotAFile);
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    Ok((file, metadata))
}

fn read(file: File, most: u64) -> Result<Vec<u8>, FileProblem> {
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| FileProblem::Unreadable { message: error.to_string() })?;
    if bytes.len() as u64 > most { Err(FileProblem::TooLarge { most }) } else { Ok(bytes) }
}
