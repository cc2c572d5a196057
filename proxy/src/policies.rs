//! The policies in force, and what keys show under them.
//!
//! Where every key is `crdt` there is nothing to look up: [`Policies::active`] is one branch. A table
//! is put in force as a whole; what works on keys under their locks goes on with the one it began with.

pub mod book;
mod counted;
pub mod load;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod version;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meridian_conflict::hook::MergeHook;
use meridian_conflict::object::{CopyBytes, Object};
use meridian_conflict::policy::{HookId, Policy, PolicyTable};
use meridian_conflict::reading;
use parking_lot::RwLock;

/// The hooks that a region has, by identity.
pub type Hooks = BTreeMap<[u8; 32], Arc<dyn MergeHook>>;

/// By whom values are merged of a hook that this region does not have.
const NOBODY: [u8; 32] = [0; 32];

/// The policies in force.
#[derive(Debug, Default)]
pub struct Policies {
    /// Whether some key has another policy than `crdt`.
    is_active: AtomicBool,
    has_hooks: AtomicBool,
    current: RwLock<Arc<Active>>,
    copies: CopyBytes,
}

/// A table in force with its hooks.
#[derive(Default)]
pub struct Active {
    table: PolicyTable,
    hooks: Hooks,
    has_hooks: bool,
    copies: CopyBytes,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Policies {
    /// Puts a table in force.
    pub fn enforce(&self, table: PolicyTable, hooks: Hooks) {
        let is_active = !table.is_all_crdt();
        let active = Active::new(table, hooks, self.copies.clone());
        self.has_hooks.store(active.has_hooks, Ordering::Release);
        *self.current.write() = Arc::new(active);
        self.is_active.store(is_active, Ordering::Release);
    }

    /// The table in force, unless every key is `crdt`.
    pub fn active(&self) -> Option<Arc<Active>> {
        self.is_active.load(Ordering::Acquire).then(|| self.current())
    }

    /// Whether some key has the policy `hook`.
    pub fn has_hooks(&self) -> bool {
        self.has_hooks.load(Ordering::Acquire)
    }

    /// Bytes of what objects keep of what hooks have made of their values.
    pub fn copy_bytes(&self) -> usize {
        self.copies.get()
    }

    /// The table in force, whatever it says.
    pub fn current(&self) -> Arc<Active> {
        Arc::clone(&self.current.read())
    }
}

impl Active {
    /// `table` with the hooks that this region has; of others' the greatest stamp shows. What objects keep
    /// of what hooks make is counted in `copies`.
    pub fn new(table: PolicyTable, hooks: Hooks, copies: CopyBytes) -> Self {
        let has_hooks = table.rules().iter().any(|rule| matches!(rule.policy, Policy::Hook(_)));
        Self { table, hooks, has_hooks, copies }
    }

    /// The table.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// Whether some key has the policy `hook`.
    pub fn has_hooks(&self) -> bool {
        self.has_hooks
    }

    /// The policy of `key`.
    pub fn policy(&self, key: &[u8]) -> &Policy {
        self.table.policy(key)
    }

    /// Whether writes of `key` state the whole of it.
    pub fn is_lww(&self, key: &[u8]) -> bool {
        *self.policy(key) == Policy::Lww
    }

    /// Whether a hook says what `key` shows.
    pub fn is_hooked(&self, key: &[u8]) -> bool {
        matches!(self.policy(key), Policy::Hook(_))
    }

    /// What a reader sees of `object`. Values that a hook has not merged since the object changed are
    /// merged here: see [`Active::unmerged`] for doing that where nobody waits.
    pub fn shown<'a>(&self, key: &[u8], object: &'a Object) -> &'a Object {
        match self.policy(key) {
            Policy::Hook(id) if object.is_plural() => self.merged(id, key, object),
            policy => reading::seen_under(policy, object),
        }
    }

    fn merged<'a>(&self, id: &HookId, key: &[u8], object: &'a Object) -> &'a Object {
        let by = self.merger(id);
        if object.merged(&by).is_none() {
            self.keep(object, by, self.merge(id, key, object));
        }
        object.merged(&by).unwrap_or(object)
    }

    /// Has `object` keep what `by` has made of its values until it changes.
    pub fn keep(&self, object: &Object, by: [u8; 32], shown: Object) {
        object.keep_merged(by, shown, &self.copies);
    }

    /// What the hook of this name makes of the values alive.
    pub fn merge(&self, id: &HookId, key: &[u8], object: &Object) -> Object {
        let hook = self.hooks.get(&id.identity).map(|hook| &**hook);
        reading::under_hook(hook, key, object, |_| {})
    }

    /// By whom values are merged that are under the hook `id`.
    pub fn merger(&self, id: &HookId) -> [u8; 32] {
        if self.hooks.contains_key(&id.identity) { id.identity } else { NOBODY }
    }

    /// The hook that `object` has to be merged by, if it was not since it changed.
    pub fn unmerged(&self, key: &[u8], object: &Object) -> Option<&HookId> {
        match self.policy(key) {
            Policy::Hook(id) if object.is_plural() && object.merged(&self.merger(id)).is_none() => Some(id),
            _ => None,
        }
    }

    /// Forgets what another than the hook in force has made of the values alive.
    pub fn forget_others(&self, key: &[u8], object: &mut Object) {
        if let Policy::Hook(id) = self.policy(key)
            && object.is_plural()
        {
            object.forget_merged(&self.merger(id));
        }
    }
}
