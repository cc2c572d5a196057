//! Whom an endpoint talks to.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

/// The regions that may be at the other end of a connection. Clones share the set: replacing it takes
/// effect on the next connection. Closing those that exist is the caller's decision.
#[derive(Debug, Clone, Default)]
pub struct AllowedRegions {
    names: Arc<RwLock<BTreeSet<String>>>,
}

impl AllowedRegions {
    /// A set of these regions.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let set = Self::default();
        set.replace(names);
        set
    }

    /// Puts other regions in the place of the present ones.
    pub fn replace<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) {
        let names = names.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        *self.names.write() = names;
    }

    /// Whether `name`, in lower case, is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.names.read().contains(name)
    }
}
