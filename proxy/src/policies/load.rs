//! From the configured rules to a table with its hooks.

use std::path::PathBuf;
use std::sync::Arc;

use meridian_conflict::hook::MergeHook;
use meridian_conflict::hook::builtin::BuiltIn;
use meridian_conflict::policy::{HookId, Policy, PolicyError, PolicyRule, PolicyTable};

use super::Hooks;
use super::counted::Counted;
use crate::config::settings::{self, ConflictRule, Hook};
use crate::hook::{Limits, LoadError, Sandbox};
use crate::metrics::Metrics;

/// The policies cannot be used. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadPoliciesError {
    /// A hook.
    #[error("{path}: {source}")]
    Hook {
        /// Its module.
        path: PathBuf,
        /// What is wrong with it.
        source: LoadError,
    },
    /// The table.
    #[error(transparent)]
    Table(#[from] PolicyError),
}

/// The table of `rules` with this version, and the hooks that it names. Reads files and compiles modules.
///
/// # Errors
/// [`LoadPoliciesError`].
pub fn load(
    rules: &[ConflictRule],
    version: u64,
    metrics: &Metrics,
) -> Result<(PolicyTable, Hooks), LoadPoliciesError> {
    let mut hooks = Hooks::new();
    let mut loaded = Vec::with_capacity(rules.len());
    for rule in rules {
        let policy = match &rule.policy {
            settings::Policy::Crdt => Policy::Crdt,
            settings::Policy::Lww => Policy::Lww,
            settings::Policy::MultiValue => Policy::MultiValue,
            settings::Policy::Hook(hook) => Policy::Hook(load_hook(hook, &mut hooks, metrics)?),
        };
        loaded.push(PolicyRule { keys: rule.keys.as_bytes().into(), policy });
    }
    Ok((PolicyTable::new(version, loaded)?, hooks))
}

fn load_hook(hook: &Hook, hooks: &mut Hooks, metrics: &Metrics) -> Result<HookId, LoadPoliciesError> {
    let hook: Box<dyn MergeHook> = match hook {
        Hook::BuiltIn(kind) => Box::new(BuiltIn::new(*kind)),
        Hook::File(path) => {
            let loaded = Sandbox::load(path, Limits::default());
            Box::new(loaded.map_err(|source| LoadPoliciesError::Hook { path: path.clone(), source })?)
        }
    };
    let id = hook.id().clone();
    hooks.entry(id.identity).or_insert_with(|| Arc::new(Counted::new(hook, metrics)));
    Ok(id)
}
