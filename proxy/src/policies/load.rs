//! From the configured rules to a table with its hooks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian_conflict::hook::builtin::BuiltIn;
use meridian_conflict::hook::{MergeHook, court};
use meridian_conflict::policy::{Policy, PolicyError, PolicyRule, PolicyTable};

use super::Hooks;
use super::counted::Counted;
use super::shadow::{Shadow, Shadows};
use super::version::VersionFile;
use crate::config::settings::{self, ConflictRule, Hook};
use crate::hook::{Limits, LoadError, Sandbox};
use crate::metrics::Metrics;

/// Cases that a module is tried on before it is used: one that uses up its fuel each time costs a few seconds.
const TRIAL_CASES: usize = 24;

/// The generated cases' seed: the same in every region.
const TRIAL_SEED: u64 = 1;

/// A module cannot be used as a hook.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Asked twice the same, it answered differently.
    #[error("is not deterministic; see `meridian hook test`")]
    NotDeterministic,
}

/// Loads a module and tries it in the court.
///
/// # Errors
/// [`ModuleError`].
pub fn load_module(path: &Path) -> Result<Sandbox, ModuleError> {
    let hook = Sandbox::load(path, Limits::default())?;
    let verdicts = court::try_all(&hook, &court::generated(TRIAL_SEED, TRIAL_CASES));
    let is_deterministic = verdicts.iter().all(|(_, verdict)| verdict.is_deterministic());
    if is_deterministic { Ok(hook) } else { Err(ModuleError::NotDeterministic) }
}

/// The policies cannot be used. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadPoliciesError {
    /// A hook.
    #[error("{path}: {source}")]
    Hook {
        /// Its module.
        path: PathBuf,
        /// What is wrong with it.
        source: ModuleError,
    },
    /// The table.
    #[error(transparent)]
    Table(#[from] PolicyError),
    /// The file with the version.
    #[error("cannot count the versions of the policies: {0}")]
    Version(#[from] std::io::Error),
}

/// What a configuration says of policies.
pub struct Loaded {
    /// The table.
    pub table: PolicyTable,
    /// The hooks that it names.
    pub hooks: Hooks,
    /// Policies that are only tried.
    pub shadows: Shadows,
}

/// The policies of `rules` with the version that this data directory counts. Reads files and compiles modules.
///
/// # Errors
/// [`LoadPoliciesError`].
pub fn load_versioned(
    rules: &[ConflictRule],
    data_dir: &Path,
    metrics: &Metrics,
) -> Result<Loaded, LoadPoliciesError> {
    let loaded = load(rules, metrics)?;
    let version = VersionFile::of(data_dir).count(&loaded.table)?;
    let table = PolicyTable::new(version, loaded.table.rules().to_vec())?;
    Ok(Loaded { table, ..loaded })
}

fn load(rules: &[ConflictRule], metrics: &Metrics) -> Result<Loaded, LoadPoliciesError> {
    let mut hooks = Hooks::new();
    let (mut loaded, mut shadows) = (Vec::with_capacity(rules.len()), Vec::with_capacity(rules.len()));
    for rule in rules {
        let policy = match &rule.policy {
            settings::Policy::Crdt => Policy::Crdt,
            settings::Policy::Lww => Policy::Lww,
            settings::Policy::MultiValue => Policy::MultiValue,
            settings::Policy::Hook(hook) => {
                let hook = load_hook(hook)?;
                let id = hook.id().clone();
                hooks.entry(id.identity).or_insert_with(|| Arc::new(Counted::new(hook, metrics)));
                Policy::Hook(id)
            }
        };
        let keys: Box<[u8]> = rule.keys.as_bytes().into();
        loaded.push(PolicyRule { keys: keys.clone(), policy });
        shadows.push((keys, rule.shadow.as_ref().map(load_shadow).transpose()?));
    }
    Ok(Loaded { table: PolicyTable::new(0, loaded)?, hooks, shadows: Shadows::new(shadows) })
}

fn load_shadow(policy: &settings::Policy) -> Result<Shadow, LoadPoliciesError> {
    Ok(match policy {
        settings::Policy::Crdt => Shadow::new(Policy::Crdt, None),
        settings::Policy::Lww => Shadow::new(Policy::Lww, None),
        settings::Policy::MultiValue => Shadow::new(Policy::MultiValue, None),
        settings::Policy::Hook(hook) => {
            let hook: Arc<dyn MergeHook> = Arc::from(load_hook(hook)?);
            Shadow::new(Policy::Hook(hook.id().clone()), Some(hook))
        }
    })
}

fn load_hook(hook: &Hook) -> Result<Box<dyn MergeHook>, LoadPoliciesError> {
    Ok(match hook {
        Hook::BuiltIn(kind) => Box::new(BuiltIn::new(*kind)),
        Hook::File(path) => {
            let loaded = load_module(path);
            Box::new(loaded.map_err(|source| LoadPoliciesError::Hook { path: path.clone(), source })?)
        }
    })
}
