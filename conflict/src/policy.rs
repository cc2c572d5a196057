//! Which policy settles the conflicts of a key.
//!
//! A [`PolicyTable`] is an ordered list of key patterns; the first that matches decides, `crdt`
//! where none does. The state of a key never depends on its policy: a policy says how the state is
//! read (and, under `lww`, how a write is put into effects), so changing it rewrites nothing.
//!
//! Regions must read alike. Each tells the others its table; while the [digests](PolicyTable::digest)
//! differ, every region uses the table of the smallest version ([`PolicyTable::in_force`]), so
//! they still show the same.
//!
//! # Encoding (version 1, postcard)
//!
//! | field | form |
//! |---|---|
//! | format | 1 byte, 1 |
//! | version | `varint u64` |
//! | rules | list of: keys bytes, policy number `varint` (0 crdt, 1 lww, 2 multi-value, 3 hook), for a hook its name as bytes and 32 bytes of identity |

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::glob;

/// The most rules of a table: every write of a key without a match tries them all.
pub const MAX_RULES: usize = 1024;

/// The longest pattern in bytes: matching costs at most the product of the lengths of pattern and key.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// The longest name of a hook in bytes.
pub const MAX_HOOK_NAME_BYTES: usize = 255;

/// The longest encoded table: it is told to other regions in one message.
pub const MAX_TABLE_BYTES: usize = 256 << 10;

/// The format's number, the first byte of an encoded table.
const FORMAT: u8 = 1;

/// Which hook: two regions may merge with it together only if they mean the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HookId {
    /// What metrics, the inbox and people call it.
    pub name: Box<str>,
    /// What it does: a collision-resistant hash of the module and of how it is run, or of the name
    /// and revision of a built-in hook.
    pub identity: [u8; 32],
}

impl fmt::Debug for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.identity;
        write!(f, "{}@{a:02x}{b:02x}{c:02x}{d:02x}", self.name)
    }
}

/// How conflicts on a key are settled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// By type: what was seen is replaced, what was not survives.
    Crdt,
    /// The whole key is one register; the greatest stamp wins, deletes included.
    Lww,
    /// Concurrent strings and fields are kept; the greatest stamp shows.
    MultiValue,
    /// As multi-value, and what shows is the hook's merge of them.
    Hook(HookId),
}

impl Policy {
    /// What the configuration may say.
    pub const NAMES: [&str; 4] = ["crdt", "lww", "multi-value", "hook"];

    /// The name in configuration, metrics and the inbox.
    pub fn name(&self) -> &'static str {
        match self {
            Policy::Crdt => "crdt",
            Policy::Lww => "lww",
            Policy::MultiValue => "multi-value",
            Policy::Hook(_) => "hook",
        }
    }

    /// The policy called `name`.
    ///
    /// # Errors
    /// An unknown name, `hook` without a hook, a hook with another policy, a name too long.
    pub fn parse(name: &str, hook: Option<HookId>) -> Result<Self, PolicyProblem> {
        let policy = match (name, hook) {
            ("crdt", None) => Policy::Crdt,
            ("lww", None) => Policy::Lww,
            ("multi-value", None) => Policy::MultiValue,
            ("hook", Some(hook)) => Policy::Hook(hook),
            ("hook", None) => return Err(PolicyProblem::HookMissing),
            ("crdt" | "lww" | "multi-value", Some(_)) => return Err(PolicyProblem::HookUnused),
            _ => return Err(PolicyProblem::Unknown { name: name.into() }),
        };
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), PolicyProblem> {
        match self {
            Policy::Hook(HookId { name, .. }) if name.is_empty() => Err(PolicyProblem::HookMissing),
            Policy::Hook(HookId { name, .. }) if name.len() > MAX_HOOK_NAME_BYTES => {
                Err(PolicyProblem::HookNameTooLong { bytes: name.len() })
            }
            _ => Ok(()),
        }
    }
}

/// A policy for the keys that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The pattern; see [`glob::matches`].
    #[serde(with = "serde_bytes")]
    pub keys: Box<[u8]>,
    /// Their policy.
    pub policy: Policy,
}

impl PolicyRule {
    fn check(&self) -> Result<(), PolicyProblem> {
        match self.keys.len() {
            0 => Err(PolicyProblem::PatternEmpty),
            bytes if bytes > MAX_PATTERN_BYTES => Err(PolicyProblem::PatternTooLong { bytes }),
            _ => self.policy.check(),
        }
    }
}

/// What is wrong with one rule. No table was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// The pattern is empty.
    #[error("the pattern of keys is empty")]
    PatternEmpty,
    /// The pattern is longer than [`MAX_PATTERN_BYTES`].
    #[error("the pattern of keys has {bytes} bytes, more than the {MAX_PATTERN_BYTES} accepted")]
    PatternTooLong {
        /// Its length.
        bytes: usize,
    },
    /// No policy has this name.
    #[error("{name:?} is not one of crdt, lww, multi-value, hook")]
    Unknown {
        /// What was asked for.
        name: Box<str>,
    },
    /// The policy is `hook` and no hook is named.
    #[error("the policy \"hook\" needs a hook")]
    HookMissing,
    /// A hook is named and the policy is not `hook`.
    #[error("a hook is only used with the policy \"hook\"")]
    HookUnused,
    /// The hook's name is longer than [`MAX_HOOK_NAME_BYTES`].
    #[error("the hook's name has {bytes} bytes, more than the {MAX_HOOK_NAME_BYTES} accepted")]
    HookNameTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A table cannot be made. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More rules than [`MAX_RULES`].
    #[error("{rules} rules, more than the {MAX_RULES} accepted")]
    TooManyRules {
        /// How many there are.
        rules: usize,
    },
    /// It takes more than [`MAX_TABLE_BYTES`] when encoded.
    #[error("the rules take {bytes} bytes, more than the {MAX_TABLE_BYTES} accepted")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// Rules that cannot be, each with its place from 0.
    #[error("{}", listed(.0))]
    Rules(Vec<(usize, PolicyProblem)>),
    /// The bytes are no table of a format that this version reads.
    #[error("not a policy table of format {FORMAT}")]
    Malformed,
}

fn listed(problems: &[(usize, PolicyProblem)]) -> String {
    let each = problems.iter().map(|(at, problem)| format!("rule {at}: {problem}"));
    each.collect::<Vec<_>>().join("; ")
}

/// The policies of a region. See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    version: u64,
    rules: Vec<PolicyRule>,
    digest: u128,
}

#[derive(Serialize, Deserialize)]
struct TableForm {
    version: u64,
    rules: Vec<PolicyRule>,
}

impl Default for PolicyTable {
    /// Version 0, no rule: everything is `crdt`.
    fn default() -> Self {
        Self::checked(0, Vec::new())
    }
}

impl PolicyTable {
    /// A table of `rules` in order. `version` rises with every change of the rules.
    ///
    /// # Errors
    /// [`PolicyError`], with all rules that are wrong.
    pub fn new(version: u64, rules: Vec<PolicyRule>) -> Result<Self, PolicyError> {
        if rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules { rules: rules.len() });
        }
        let problems: Vec<_> =
            rules.iter().enumerate().filter_map(|(at, rule)| Some((at, rule.check().err()?))).collect();
        if !problems.is_empty() {
            return Err(PolicyError::Rules(problems));
        }
        let (table, mut encoded) = (Self::checked(version, rules), Vec::new());
        table.encode(&mut encoded);
        if encoded.len() > MAX_TABLE_BYTES {
            return Err(PolicyError::TooLong { bytes: encoded.len() });
        }
        Ok(table)
    }

    fn checked(version: u64, rules: Vec<PolicyRule>) -> Self {
        // Writing to a Vec cannot fail.
        let digest = xxh3_128(&postcard::to_stdvec(&rules).unwrap_or_default());
        Self { version, rules, digest }
    }

    /// The policy of `key`: that of the first rule whose pattern matches.
    pub fn policy(&self, key: &[u8]) -> &Policy {
        static DEFAULT: Policy = Policy::Crdt;
        let first = self.rules.iter().find(|rule| glob::matches(&rule.keys, key));
        first.map_or(&DEFAULT, |rule| &rule.policy)
    }

    /// Whether every key has the policy `crdt`, so that no key need be looked up.
    pub fn is_all_crdt(&self) -> bool {
        self.rules.iter().all(|rule| rule.policy == Policy::Crdt)
    }

    /// The rules in order.
    pub fn rules(&self) -> &[PolicyRule] {
        &self.rules
    }

    /// How often the rules had been changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Equal for equal rules, hooks included, whatever the version.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The table that all the regions with these tables use: the one of the smallest version, and
    /// of equal versions the one of the smallest digest. A function of the set of tables, so
    /// regions that know the same tables use the same one. `None` for no table.
    pub fn in_force<'a>(tables: impl IntoIterator<Item = &'a PolicyTable>) -> Option<&'a PolicyTable> {
        tables.into_iter().min_by_key(|table| (table.version, table.digest))
    }

    /// Appends the encoded table.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        let form = TableForm { version: self.version, rules: self.rules.clone() };
        let _ = postcard::to_io(&form, out);
    }

    /// Decodes a whole table, and checks it as [`PolicyTable::new`] does.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyError> {
        let Some((&FORMAT, rest)) = bytes.split_first() else { return Err(PolicyError::Malformed) };
        match postcard::take_from_bytes::<TableForm>(rest) {
            Ok((form, [])) => Self::new(form.version, form.rules),
            _ => Err(PolicyError::Malformed),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
