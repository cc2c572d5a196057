//! The policies in force, and what keys show under them.
//!
//! Where every key is `crdt` there is nothing to look up: [`Policies::active`] is one branch. A table
//! is put in force as a whole; what works on keys under their locks goes on with the one it began with.
//!
//! | module | room of |
//! |---|---|
//! | [`load`] | from the configured rules to a table and its hooks |
//! | [`version`] | how often the rules have changed |
//! | [`book`] | what is known of all regions' policies |
//! | [`witness`] | what hooks answer here |
//! | [`shadow`] | policies that are only tried |
//! | [`quarantine`] | the hooks that are not used any more, on disk |

pub mod book;
mod counted;
pub mod load;
pub mod quarantine;
pub mod shadow;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
pub mod version;
pub mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meridian_conflict::hook::fingerprint::Asker;
use meridian_conflict::hook::quarantine::Quarantine;
use meridian_conflict::hook::question::Subject;
use meridian_conflict::hook::{Decided, Failure, MergeHook};
use meridian_conflict::object::{CopyBytes, Object};
use meridian_conflict::policy::{HookId, Policy, PolicyTable};
use meridian_conflict::reading;
use parking_lot::RwLock;

use crate::hook::workers::Workers;
use shadow::Shadows;
use witness::{Noting, Witness};

/// The hooks that a region has, by identity.
pub type Hooks = BTreeMap<[u8; 32], Arc<dyn MergeHook>>;

/// By whom values are merged of a hook that this region does not have, or does not trust.
const NOBODY: [u8; 32] = [0; 32];

/// The policies in force.
#[derive(Debug, Default)]
pub struct Policies {
    /// Whether some key has another policy than `crdt`, or a shadow.
    is_active: AtomicBool,
    has_hooks: AtomicBool,
    current: RwLock<Arc<Active>>,
    witness: Arc<Witness>,
    copies: CopyBytes,
    workers: Workers,
}

/// A table in force with its hooks.
#[derive(Default)]
pub struct Active {
    table: PolicyTable,
    hooks: Hooks,
    has_hooks: bool,
    quarantine: Arc<Quarantine>,
    shadows: Arc<Shadows>,
    witness: Arc<Witness>,
    copies: CopyBytes,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Policies {
    /// Puts a table in force.
    pub fn enforce(
        &self,
        table: PolicyTable,
        hooks: Hooks,
        quarantine: Arc<Quarantine>,
        shadows: Arc<Shadows>,
    ) {
        let is_active = !table.is_all_crdt() || !shadows.is_empty();
        let has_hooks = table.rules().iter().any(|rule| matches!(rule.policy, Policy::Hook(_)));
        let witness = Arc::clone(&self.witness);
        let copies = self.copies.clone();
        let active = Active { table, hooks, has_hooks, quarantine, shadows, witness, copies };
        self.has_hooks.store(has_hooks, Ordering::Release);
        *self.current.write() = Arc::new(active);
        self.is_active.store(is_active, Ordering::Release);
    }

    /// The table in force, unless every key is `crdt` and has no shadow.
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

    /// Where hooks merge what readers wait for.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// What hooks answer here.
    pub fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }
}

impl Active {
    /// The table.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// Whether some key has the policy `hook`.
    pub fn has_hooks(&self) -> bool {
        self.has_hooks
    }

    /// The hooks that keys have, in the order of the rules, each once.
    pub fn hook_ids(&self) -> Vec<&HookId> {
        let mut ids: Vec<&HookId> = Vec::new();
        for rule in self.table.rules() {
            if let Policy::Hook(id) = &rule.policy
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ids
    }

    /// The hooks that are not used any more.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The policies that are only tried.
    pub fn shadows(&self) -> &Arc<Shadows> {
        &self.shadows
    }

    /// What hooks answer here.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// What the hook is asked about a field, or about the string where there is none.
    pub fn subject(&self, id: &HookId, field: Option<&[u8]>) -> Subject {
        match (self.hooks.get(&id.identity), field) {
            (Some(hook), field) => Subject::of(&**hook, field),
            (None, Some(field)) => Subject::Field(field.into()),
            (None, None) => Subject::String,
        }
    }

    /// The policy of `key`.
    pub fn policy(&self, key: &[u8]) -> &Policy {
        self.table.policy(key)
    }

    /// Whether writes of `key` state the whole of it.
    pub fn is_lww(&self, key: &[u8]) -> bool {
        *self.policy(key) == Policy::Lww
    }

    /// The hook for keys of `database`, if this region has it and it is not in quarantine. What it answers is noted.
    pub fn hook(&self, id: &HookId, database: u8) -> Option<Noting<'_>> {
        let hook = self.hooks.get(&id.identity).filter(|_| !self.quarantine.is_confined(&id.identity))?;
        Some(Noting { hook: &**hook, asker: self.asker(id), database, witness: &self.witness })
    }

    /// Under which name regions compare what the hook answers.
    pub fn asker(&self, id: &HookId) -> Asker {
        Asker { hook: id.identity, generation: self.quarantine.generation(&id.identity) }
    }

    /// Whether a hook says what `key` shows.
    pub fn is_hooked(&self, key: &[u8]) -> bool {
        matches!(self.policy(key), Policy::Hook(_))
    }

    /// What a reader sees of `object`. Values that a hook has not merged since the object changed are
    /// merged here: see [`Active::unmerged`] for doing that where nobody waits.
    pub fn shown<'a>(&self, database: u8, key: &[u8], object: &'a Object) -> &'a Object {
        match self.policy(key) {
            Policy::Hook(id) if object.is_plural() => self.merged(id, database, key, object),
            policy => reading::seen_under(policy, object),
        }
    }

    fn merged<'a>(&self, id: &HookId, database: u8, key: &[u8], object: &'a Object) -> &'a Object {
        let by = self.merger(id);
        if object.merged(&by).is_none() {
            self.keep(object, by, self.merge(id, database, key, object));
        }
        object.merged(&by).unwrap_or(object)
    }

    /// Has `object` keep what `by` has made of its values until it changes.
    pub fn keep(&self, object: &Object, by: [u8; 32], shown: Object) {
        object.keep_merged(by, shown, &self.copies);
    }

    /// What the hook makes of the values alive.
    pub fn merge(&self, id: &HookId, database: u8, key: &[u8], object: &Object) -> Object {
        let hook = self.hook(id, database);
        let hook = hook.as_ref().map(|hook| hook as &dyn MergeHook);
        reading::under_hook(hook, key, object, |decided| {
            if decided == Decided::Fallback(Failure::Quarantined) {
                self.witness.fell_back(id);
            }
        })
    }

    /// By whom values are merged that are under the hook `id`.
    pub fn merger(&self, id: &HookId) -> [u8; 32] {
        if self.hook(id, 0).is_some() { id.identity } else { NOBODY }
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
