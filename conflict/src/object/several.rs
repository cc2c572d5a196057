//! Strings and fields of which several values are alive, and what is shown of them instead.

use super::Object;
use crate::crdt::Hash;
use crate::scalar::{Scalar, Sibling, Value};

/// What was made of the values alive, and by what.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    by: [u8; 32],
    shown: Box<Object>,
}

impl Object {
    /// Whether a string or a hash field has several values alive. Constant time.
    pub fn is_plural(&self) -> bool {
        self.string().is_some_and(Scalar::is_plural) || self.hash().is_some_and(Hash::is_plural)
    }

    /// What was kept by [`Object::keep_merged`] since the object changed last.
    pub fn merged(&self, by: &[u8; 32]) -> Option<&Object> {
        let merged = self.wholes.as_ref()?.merged.get()?;
        (merged.by == *by).then_some(&*merged.shown)
    }

    /// Keeps what `by` makes of the values alive until the object changes. The first that is kept
    /// stays; [`Object::forget_merged`] makes room for another.
    pub fn keep_merged(&self, by: [u8; 32], shown: Object) {
        if let Some(wholes) = &self.wholes {
            // One that came first says the same, or is forgotten before the next one is made.
            let _ = wholes.merged.set(Merged { by, shown: Box::new(shown) });
        }
    }

    /// Forgets what anything but `by` has made of the values alive.
    pub fn forget_merged(&mut self, by: &[u8; 32]) {
        if self.merged(by).is_none()
            && let Some(wholes) = &mut self.wholes
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
