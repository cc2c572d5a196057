//! Conflicts with the place where they were met, and what they were about.

use std::borrow::Cow;

use meridian_conflict::outcome::{Conflict, Winner};
use meridian_conflict::policy::Policy;

use super::Keyspace;
use super::entry::Entry;
use crate::inbox::Evidence;
use crate::inbox::asking::is_merged;
use crate::policies::Active;

/// A conflict with the place where it happened.
#[derive(Clone, Debug)]
pub struct PlacedConflict {
    /// The database.
    pub database: u8,
    /// The key.
    pub key: Box<[u8]>,
    /// What happened.
    pub conflict: Conflict,
    /// The key's policy.
    pub policy: Policy,
    /// The values it was about, if it is to be recorded.
    pub evidence: Option<Box<Evidence>>,
}

impl PlacedConflict {
    /// Whether the key's hook settles it.
    fn hook(&self) -> Option<&str> {
        let Policy::Hook(hook) = &self.policy else { return None };
        is_merged(&self.conflict).then_some(&*hook.name)
    }

    /// Which rule settled it, as metrics name it.
    pub fn rule(&self) -> Cow<'static, str> {
        match self.hook() {
            Some(name) => Cow::Owned(format!("hook:{name}")),
            None => Cow::Borrowed(self.conflict.rule.name()),
        }
    }

    /// Whose value shows, as metrics name it.
    pub fn outcome(&self) -> &'static str {
        if self.hook().is_some() { Winner::Merged.name() } else { self.conflict.winner.name() }
    }
}

/// Says where conflicts were met, and of what they were.
pub(super) fn placed(
    keyspace: &Keyspace,
    policies: Option<&Active>,
    entry: &Entry,
    conflicts: Vec<Conflict>,
) -> impl Iterator<Item = PlacedConflict> {
    conflicts.into_iter().map(move |conflict| {
        let policy = policies.map_or(Policy::Crdt, |policies| policies.policy(entry.key()).clone());
        PlacedConflict {
            database: entry.database(),
            key: entry.key().into(),
            evidence: evidence_of((keyspace, policies), entry, &conflict, policy == Policy::Lww),
            conflict,
            policy,
        }
    })
}

/// The values of a conflict, right after it was met. Nothing is copied unless the inbox has room for it.
fn evidence_of(
    (keyspace, policies): (&Keyspace, Option<&Active>),
    entry: &Entry,
    conflict: &Conflict,
    lww: bool,
) -> Option<Box<Evidence>> {
    let gate = keyspace.gate.get().filter(|gate| gate.admit())?;
    let object = &entry.object;
    let evidence = Evidence::of(object, conflict, lww);
    let evidence = match policies {
        Some(policies) => evidence.asking(policies, entry.key(), object, conflict),
        None => evidence,
    };
    gate.charge(evidence.cost(object, conflict));
    Some(Box::new(evidence))
}
