//! Strings and fields of which several values are alive, and what is shown of them instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Object;
use crate::crdt::Hash;
use crate::scalar::{Scalar, Sibling, Value};

/// What objects keep of what was made of their values, in bytes: one figure for all that are given it. Such copies
/// come and go behind shared references, so [`Object::heap_bytes`] cannot tell of them.
#[derive(Clone, Debug, Default)]
pub struct CopyBytes(Arc<AtomicUsize>);

impl CopyBytes {
    /// The figure now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was made of the values alive, and by what.
#[derive(Debug)]
pub(super) struct Merged {
    by: [u8; 32],
    shown: Box<Object>,
    /// Counted in there as long as this lives.
    figure: CopyBytes,
    bytes: usize,
}

impl Merged {
    fn new(by: [u8; 32], shown: Object, figure: &CopyBytes) -> Self {
        let bytes = size_of::<Object>() + shown.heap_bytes();
        figure.0.fetch_add(bytes, Ordering::Relaxed);
        Self { by, shown: Box::new(shown), figure: figure.clone(), bytes }
    }
}

impl Clone for Merged {
    fn clone(&self) -> Self {
        Self::new(self.by, (*self.shown).clone(), &self.figure)
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        self.figure.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Object {
    /// Whether a string or a hash field has several values alive. Constant time.
    pub fn is_plural(&self) -> bool {
        self.string().is_some_and(Scalar::is_plural) || self.hash().is_some_and(Hash::is_plural)
    }

    /// What was kept by [`Object::keep_merged`] since the object changed last.
    pub fn merged(&self, by: &[u8; 32]) -> Option<&Object> {
        let merged = self.wholes()?.merged.get()?;
        (merged.by == *by).then_some(&*merged.shown)
    }

    /// Keeps what `by` makes of the values alive until the object changes, counted in `figure`. The first
    /// that is kept stays; [`Object::forget_merged`] makes room for another.
    pub fn keep_merged(&self, by: [u8; 32], shown: Object, figure: &CopyBytes) {
        if let Some(wholes) = self.wholes() {
            // One that came first says the same, or is forgotten before the next one is made.
            let _ = wholes.merged.set(Merged::new(by, shown, figure));
        }
    }

    /// Bytes of what [`Object::keep_merged`] keeps.
    pub fn merged_bytes(&self) -> usize {
        self.wholes().and_then(|wholes| wholes.merged.get()).map_or(0, |merged| merged.bytes)
    }

    /// Forgets what anything but `by` has made of the values alive.
    pub fn forget_merged(&mut self, by: &[u8; 32]) {
        if self.merged(by).is_none()
            && let Some(wholes) = self.wholes_mut()
        {
            wholes.merged.take();
        }
    }

    /// The string shows `value` alone.
    pub(crate) fn show_string(&mut self, value: Vec<u8>) {
        self.on_string(|string| *string = alone(string, value));
        self.simplify();
    }

    /// The field shows `value` alone, or nothing.
    pub(crate) fn show_field(&mut self, field: &[u8], value: Option<Vec<u8>>) {
        self.on_hash(|hash| {
            let scalar = hash.field(field).zip(value).map(|(scalar, value)| alone(scalar, value));
            hash.restore(field, scalar.unwrap_or_default());
        });
        self.simplify();
    }
}

/// A scalar that shows `value` under the greatest stamp that is alive in `scalar`.
fn alone(scalar: &Scalar<Value>, value: Vec<u8>) -> Scalar<Value> {
    let stamp = scalar.live_stamps().max();
    let sole = stamp.map(|stamp| Sibling { stamp, value: value.into() });
    Scalar::from_parts(sole.into_iter().collect(), Vec::new())
}
