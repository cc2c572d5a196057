//! The hooks that need no file.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bigdecimal::num_bigint::Sign;

use super::{Call, Failure, MergeHook, Sibling, json};
use crate::amount::Amount;
use crate::policy::HookId;

/// What a built-in hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The greatest number where all siblings are numbers, else the bytewise greatest value. Of
    /// equal numbers written differently the newest.
    Max,
    /// The least, likewise.
    Min,
    /// The longest value; of those the newest.
    Longest,
    /// The lines of all siblings in stamp order, each once. A line ends with a line feed, which a
    /// sibling's last line may lack; the merged value ends with one if the newest sibling does.
    ConcatUniqueLines,
    /// JSON documents: objects are merged by path, and at a path where not all are objects the
    /// newest value stands whole. Declines where a sibling is not JSON.
    JsonMerge,
}

impl Kind {
    /// Every built-in hook.
    pub const ALL: [Kind; 5] =
        [Kind::Max, Kind::Min, Kind::Longest, Kind::ConcatUniqueLines, Kind::JsonMerge];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Max => "max",
            Kind::Min => "min",
            Kind::Longest => "longest",
            Kind::ConcatUniqueLines => "concat-unique-lines",
            Kind::JsonMerge => "json-merge",
        }
    }

    /// Raised whenever the hook merges anything differently than before: regions of different
    /// revisions do not mean the same hook.
    fn revision(self) -> u8 {
        match self {
            Kind::Max | Kind::Min | Kind::Longest | Kind::ConcatUniqueLines | Kind::JsonMerge => 1,
        }
    }
}

/// A built-in hook.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    kind: Kind,
    id: HookId,
}

impl BuiltIn {
    /// The hook of this kind.
    pub fn new(kind: Kind) -> Self {
        let mut identity = [0; 32];
        let text = format!("built-in:{}:{}", kind.name(), kind.revision());
        identity.iter_mut().zip(text.bytes()).for_each(|(slot, byte)| *slot = byte);
        Self { kind, id: HookId { name: kind.name().into(), identity } }
    }

    /// The hook of this name.
    pub fn named(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).map(Self::new)
    }
}

impl MergeHook for BuiltIn {
    fn id(&self) -> &HookId {
        &self.id
    }

    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        let siblings = call.siblings;
        match self.kind {
            Kind::Max => extreme(siblings, Ordering::Greater),
            Kind::Min => extreme(siblings, Ordering::Less),
            Kind::Longest => {
                // Of equals, max_by_key gives the last, which is the newest.
                let longest = siblings.iter().max_by_key(|s| s.value.len());
                longest.map(|s| s.value.to_vec()).ok_or(Failure::Declined)
            }
            Kind::ConcatUniqueLines => Ok(unique_lines(siblings)),
            Kind::JsonMerge => json::merge(siblings.iter().map(|s| s.value)).ok_or(Failure::Declined),
        }
    }
}

/// The sibling that is furthest in the direction `wanted`; of equals the newest.
fn extreme(siblings: &[Sibling<'_>], wanted: Ordering) -> Result<Vec<u8>, Failure> {
    let numbers: Option<Vec<Amount>> = siblings.iter().map(|s| Amount::parse(s.value)).collect();
    let further = |new: usize, best: usize| {
        let order = match &numbers {
            Some(numbers) => numbers.get(new).zip(numbers.get(best)).map(|(new, best)| compare(new, best)),
            None => siblings.get(new).zip(siblings.get(best)).map(|(new, best)| new.value.cmp(best.value)),
        };
        order.is_some_and(|order| order == wanted || order == Ordering::Equal)
    };
    let best = (0..siblings.len()).reduce(|best, new| if further(new, best) { new } else { best });
    best.and_then(|at| siblings.get(at)).map(|s| s.value.to_vec()).ok_or(Failure::Declined)
}

fn compare(a: &Amount, b: &Amount) -> Ordering {
    match a.minus(b) {
        Amount::Whole(difference) => difference.cmp(&0),
        Amount::Decimal(difference) if difference.sign() == Sign::Minus => Ordering::Less,
        Amount::Decimal(_) => Ordering::Greater,
    }
}

fn unique_lines(siblings: &[Sibling<'_>]) -> Vec<u8> {
    let mut known = BTreeSet::new();
    let mut merged = Vec::new();
    for sibling in siblings {
        let text = sibling.value.strip_suffix(b"\n").unwrap_or(sibling.value);
        if sibling.value.is_empty() {
            continue;
        }
        for line in text.split(|byte| *byte == b'\n').filter(|line| known.insert(*line)) {
            merged.extend_from_slice(line);
            merged.push(b'\n');
        }
    }
    let last_of = siblings.iter().rev().find(|s| !s.value.is_empty());
    if last_of.is_some_and(|s| !s.value.ends_with(b"\n")) {
        merged.pop();
    }
    merged
}
