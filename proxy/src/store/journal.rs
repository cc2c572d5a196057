//! A look at fjall's journals before fjall replays them.
//!
//! A batch in a journal starts with its sequence number, which its checksum does not cover. A flipped bit in
//! it would let fjall replay the batch at another place in time: older values would hide newer ones, beside
//! a position that says otherwise. Commits take rising numbers under one lock, so a number out of order is
//! such a bit; one that keeps the order changes nothing. All other damage is left for fjall to find.
//!
//! | entry | bytes after its tag, integers little-endian |
//! |---|---|
//! | 1 start | item count u32, sequence number u64 |
//! | 2 item | value type u8, compression u8 (0), keyspace u64, key length u16, value length u32, stored length u32, key, value |
//! | 3 end | checksum u64, `FJL`, 3 |
//! | 4 clear | keyspace u64 |

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Ends every batch; its last byte is fjall's format.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// A batch stands behind one that was committed after it.
#[derive(Debug, Error)]
#[error("journal {} has batch {found} after batch {before}", path.display())]
pub(super) struct OutOfOrder {
    path: PathBuf,
    before: u64,
    found: u64,
}

/// Checks that the batches of all journals in `rows`, oldest first, have rising numbers.
pub(super) fn check_order(rows: &Path) -> std::io::Result<Result<(), OutOfOrder>> {
    let mut newest = None;
    for path in journals(rows)? {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(&path)?);
        while let Some(found) = next_batch(&mut reader)? {
            if let Some(before) = newest.filter(|&before| found <= before) {
                return Ok(Err(OutOfOrder { path, before, found }));
            }
            newest = Some(found);
        }
    }
    Ok(Ok(()))
}

fn journals(rows: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(rows) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let id = path.extension().filter(|end| *end == "jnl").and(path.file_stem());
        if let Some(id) = id.and_then(|id| id.to_str()?.parse::<u64>().ok()) {
            found.push((id, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The number of the next whole batch, or `None` where the journal ends or stops making sense.
///
/// A crash may leave the head of a batch without its end, even with a number half written: fjall drops such
/// a batch, so its number does not count.
fn next_batch(reader: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let mut number = None;
    loop {
        let Some([tag]) = take::<1>(reader)? else { return Ok(None) };
        let skipped = match tag {
            1 if number.is_none() => {
                number = take::<4>(reader)?.and(take::<8>(reader)?).map(u64::from_le_bytes);
                number.is_some()
            }
            2 => skip_item(reader)?,
            3 if take::<8>(reader)?.and(take::<4>(reader)?) == Some(TRAILER) => return Ok(number),
            4 => take::<8>(reader)?.is_some(),
            _ => false,
        };
        if !skipped {
            return Ok(None);
        }
    }
}

/// False where the journal ends within the item.
fn skip_item(reader: &mut impl BufRead) -> std::io::Result<bool> {
    let Some([_, compression]) = take::<2>(reader)? else { return Ok(false) };
    let (Some(_), Some(key), Some(_), Some(value)) =
        (take::<8>(reader)?, take::<2>(reader)?, take::<4>(reader)?, take::<4>(reader)?)
    else {
        return Ok(false);
    };
    let length = u64::from(u16::from_le_bytes(key)) + u64::from(u32::from_le_bytes(value));
    let skipped = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(compression == 0 && skipped == length)
}

fn take<const N: usize>(reader: &mut impl BufRead) -> std::io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
