//! Merge hooks: what shows where several values of a key are alive.
//!
//! # The contract
//!
//! A hook is a function of a [`Call`] (the key, the hash field if it is one, and the siblings by
//! rising stamp, each with its origin and stamp) to one value. It must be deterministic: the same
//! call gives the same bytes in every region. It need not be commutative, associative or
//! idempotent: every region ends with the same siblings and hands them over in the same order, all
//! at once. No merge is ever written or sent, so nothing ping-pongs; a later write that has seen
//! the siblings replaces them.
//!
//! A hook is asked only where there are two siblings or more ([`merge`]); one that fails is
//! replaced by the greatest stamp, and the reason is kept for the counters and the inbox. Hashes
//! are merged field by field, unless the hook says that it merges whole hashes
//! ([`MergeHook::merge_hash`]).
//!
//! The [court] tries a hook before it is used; [fingerprints](fingerprint) are what regions compare while
//! it is, and a hook that they differ on goes into [quarantine].

pub mod abi;
pub mod builtin;
pub mod court;
pub mod fingerprint;
mod json;
pub mod quarantine;
pub mod question;

use std::borrow::Cow;

use crate::clock::Stamp;
use crate::policy::HookId;

/// One of the values alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling<'a> {
    /// The op that wrote it; its dot's actor is the origin.
    pub stamp: Stamp,
    /// The value.
    pub value: &'a [u8],
}

/// What a hook is asked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The hash field; `None` for a string.
    pub field: Option<&'a [u8]>,
    /// By rising stamp, no stamp twice.
    pub siblings: &'a [Sibling<'a>],
}

/// A field of a hash and its siblings.
#[derive(Clone, Debug)]
pub struct FieldSiblings<'a> {
    /// The field.
    pub field: &'a [u8],
    /// As in [`Call`]; at least one.
    pub siblings: Vec<Sibling<'a>>,
}

/// What a hook that merges whole hashes is asked.
#[derive(Clone, Copy, Debug)]
pub struct HashCall<'a> {
    /// The key.
    pub key: &'a [u8],
    /// All fields that are alive, by rising name.
    pub fields: &'a [FieldSiblings<'a>],
}

/// The fields that a whole-hash hook wants shown, with their values, by rising name. Fields of the
/// call may be left out; fields that the call did not have are refused.
pub type MergedHash = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Why a hook gave no value. What shows is the greatest stamp's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Failure {
    /// The hook declined: these values are not what it merges.
    #[error("the hook does not merge these values")]
    Declined,
    /// It trapped.
    #[error("the hook trapped")]
    Trap,
    /// It used up its fuel.
    #[error("the hook used up its fuel")]
    Fuel,
    /// It asked for more memory than it may have.
    #[error("the hook asked for too much memory")]
    Memory,
    /// The siblings are larger than what a hook is given.
    #[error("the siblings are larger than a hook is given")]
    InputTooBig,
    /// Its value is larger than it may be.
    #[error("the hook's value is too large")]
    OutputTooBig,
    /// What it returned is not of the form agreed on.
    #[error("the hook returned something malformed")]
    BadOutput,
    /// It lacks the function asked for.
    #[error("the hook has no such function")]
    BadExport,
    /// It is not used because regions disagreed on its results, or it is not known here.
    #[error("the hook is in quarantine")]
    Quarantined,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Failure; 9] = [
        Failure::Declined,
        Failure::Trap,
        Failure::Fuel,
        Failure::Memory,
        Failure::InputTooBig,
        Failure::OutputTooBig,
        Failure::BadOutput,
        Failure::BadExport,
        Failure::Quarantined,
    ];

    /// The reason in metrics and in the inbox.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Declined => "declined",
            Failure::Trap => "trap",
            Failure::Fuel => "fuel",
            Failure::Memory => "memory",
            Failure::InputTooBig => "input_too_big",
            Failure::OutputTooBig => "output_too_big",
            Failure::BadOutput => "bad_output",
            Failure::BadExport => "bad_export",
            Failure::Quarantined => "quarantined",
        }
    }
}

/// A merge hook.
///
/// # Invariants
/// The result is a function of the call alone: no clock, no randomness, no memory of earlier calls.
pub trait MergeHook: Send + Sync {
    /// Which hook this is.
    fn id(&self) -> &HookId;

    /// Merges the siblings of a string or of a hash field.
    ///
    /// # Errors
    /// [`Failure`]; the greatest stamp's value shows.
    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure>;

    /// Whether it merges values one by one.
    fn merges_values(&self) -> bool {
        true
    }

    /// Whether hashes are to be handed over whole.
    fn merges_hashes(&self) -> bool {
        false
    }

    /// Merges all fields of a hash at once.
    ///
    /// # Errors
    /// [`Failure`]; every field shows its greatest stamp's value.
    fn merge_hash(&self, _: &HashCall<'_>) -> Result<MergedHash, Failure> {
        Err(Failure::BadExport)
    }
}

/// How what shows came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// There was only one value.
    Sole,
    /// The hook merged them.
    Hook,
    /// The hook failed: the greatest stamp shows, and the conflict is marked.
    Fallback(Failure),
}

/// A merged value and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged<V> {
    /// What shows.
    pub value: V,
    /// Why.
    pub decided: Decided,
}

/// What shows of `siblings` (by rising stamp): the one, or the hook's merge, or the greatest
/// stamp's. `None` for no siblings.
pub fn merge<'a>(
    hook: &dyn MergeHook,
    key: &[u8],
    field: Option<&[u8]>,
    siblings: &[Sibling<'a>],
) -> Option<Merged<Cow<'a, [u8]>>> {
    let newest = Cow::Borrowed(siblings.last()?.value);
    if siblings.len() == 1 {
        return Some(Merged { value: newest, decided: Decided::Sole });
    }
    Some(match hook.merge(&Call { key, field, siblings }) {
        Ok(value) => Merged { value: Cow::Owned(value), decided: Decided::Hook },
        Err(failure) => Merged { value: newest, decided: Decided::Fallback(failure) },
    })
}

/// What shows of a hash under a hook that merges whole hashes. `fields` are sorted here; those
/// without siblings are passed over. The hook is asked where any field has two siblings or more.
pub fn merge_hash(
    hook: &dyn MergeHook,
    key: &[u8],
    mut fields: Vec<FieldSiblings<'_>>,
) -> Merged<MergedHash> {
    fields.retain(|field| !field.siblings.is_empty());
    fields.sort_unstable_by_key(|field| field.field);
    let newest = || {
        let newest = |f: &FieldSiblings<'_>| Some((f.field.into(), f.siblings.last()?.value.into()));
        fields.iter().filter_map(newest).collect()
    };
    if fields.iter().all(|field| field.siblings.len() == 1) {
        return Merged { value: newest(), decided: Decided::Sole };
    }
    let merged = hook.merge_hash(&HashCall { key, fields: &fields });
    match merged.and_then(|merged| checked(merged, &fields)) {
        Ok(value) => Merged { value, decided: Decided::Hook },
        Err(failure) => Merged { value: newest(), decided: Decided::Fallback(failure) },
    }
}

/// Sorts the fields; refuses those that were not asked about and those said twice.
fn checked(mut merged: MergedHash, fields: &[FieldSiblings<'_>]) -> Result<MergedHash, Failure> {
    merged.sort_unstable();
    let known = |name: &[u8]| fields.binary_search_by_key(&name, |field| field.field).is_ok();
    let twice = merged.iter().zip(merged.iter().skip(1)).any(|(a, b)| a.0 == b.0);
    if twice || !merged.iter().all(|(name, _)| known(name)) {
        return Err(Failure::BadOutput);
    }
    Ok(merged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
