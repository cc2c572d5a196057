//! The unit of change: rows put and deleted, and the position they lead to.

use super::StoreError;
use super::row;

/// Changes that are applied together. Reusable: [`Batch::clear`] keeps the memory.
///
/// Rows are kept end to end in one buffer, values already in their envelope, so that filling a batch costs
/// no allocation per row. Of two changes to one key the later counts.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    position: Option<Vec<u8>>,
}

/// Where a change ends in the buffer. The key starts where the change before it ends.
#[derive(Clone, Copy, Debug)]
struct Change {
    key_end: usize,
    /// `None` deletes the row.
    value_end: Option<usize>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row, replacing what was there.
    ///
    /// # Errors
    /// [`StoreError::Key`] or [`StoreError::Value`]; the batch is unchanged. Refused here and not at the
    /// commit, so that one impossible row cannot hold up the others.
    pub fn put(&mut self, key: &[u8], payload: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        if payload.len() > row::MAX_PAYLOAD_BYTES {
            return Err(StoreError::Value { length: payload.len(), limit: row::MAX_PAYLOAD_BYTES });
        }
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        row::seal_into(&mut self.bytes, payload);
        self.changes.push(Change { key_end, value_end: Some(self.bytes.len()) });
        Ok(())
    }

    /// Deletes a row, whether it exists or not.
    ///
    /// # Errors
    /// [`StoreError::Key`]; the batch is unchanged.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        check_key(key)?;
        self.bytes.extend_from_slice(key);
        self.changes.push(Change { key_end: self.bytes.len(), value_end: None });
        Ok(())
    }

    /// Sets the position that the store is at once this batch is applied. Without one it keeps its position.
    pub fn set_position(&mut self, position: &[u8]) {
        let kept = self.position.get_or_insert_default();
        kept.clear();
        row::seal_into(kept, position);
    }

    /// Number of changes, the position not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True when a commit would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.position.is_none()
    }

    /// Bytes of all keys and values, envelopes included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.position.as_ref().map_or(0, Vec::len)
    }

    /// Empties the batch for its next use.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
        self.position = None;
    }

    /// The changes in order: key, and the sealed value or `None` for a delete. The position's row comes last.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        let rows = self.changes.iter().filter_map(move |change| {
            let key = self.bytes.get(start..change.key_end)?;
            start = change.value_end.unwrap_or(change.key_end);
            let value = match change.value_end {
                Some(end) => Some(self.bytes.get(change.key_end..end)?),
                None => None,
            };
            Some((key, value))
        });
        rows.chain(self.position.as_deref().map(|position| (row::POSITION_KEY, Some(position))))
    }
}

fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if row::is_possible(key) {
        Ok(())
    } else {
        Err(StoreError::Key { length: key.len(), limit: row::MAX_KEY_BYTES })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_yields_its_changes_in_order_and_the_position_last() {
        let mut batch = Batch::new();
        batch.set_position(b"p");
        batch.put(b"a", b"1").unwrap();
        batch.delete(b"b").unwrap();
        batch.put(b"c", b"").unwrap();
        let changes: Vec<_> =
            batch.changes().map(|(key, value)| (key, value.map(|v| row::open(v).unwrap()))).collect();
        let expected: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"a", Some(b"1")), (b"b", None), (b"c", Some(b"")), (row::POSITION_KEY, Some(b"p"))];
        assert_eq!(changes, expected);
        assert_eq!((batch.len(), batch.size_bytes()), (3, 3 + 6 + 5 + 6));
        batch.clear();
        assert!(batch.is_empty() && batch.size_bytes() == 0 && batch.changes().next().is_none());
    }

    #[test]
    fn an_impossible_key_is_refused_and_leaves_the_batch_as_it_was() {
        let mut batch = Batch::new();
        batch.put(&vec![b'k'; row::MAX_KEY_BYTES], b"1").unwrap();
        let long = vec![b'k'; row::MAX_KEY_BYTES + 1];
        for key in [b"".as_slice(), b"\0", b"\0x", long.as_slice()] {
            assert!(matches!(batch.put(key, b""), Err(StoreError::Key { .. })));
            assert!(matches!(batch.delete(key), Err(StoreError::Key { .. })));
        }
        assert_eq!(batch.len(), 1);
    }
}
