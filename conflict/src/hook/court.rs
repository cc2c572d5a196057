//! The court: tries a hook before it is used.
//!
//! Every case is a few values that might have been written at the same time. A hook *must* be
//! deterministic: asked twice the same, it answers the same, failures included. Whether it is
//! symmetric, idempotent and associative is reported with the smallest case that shows the
//! contrary; a hook that is not still converges, because all regions ask it the same.

use super::{Call, Failure, FieldSiblings, HashCall, MergeHook, Sibling};
use crate::clock::{Dot, Hlc, Origin, RegionId, Stamp};
use crate::policy::HookId;

/// Values that might have been written at the same time.
pub type Case = Vec<Vec<u8>>;

/// The key that cases without one of their own are tried under.
const KEY: &[u8] = b"court";

/// The most siblings of a case that are tried in every order.
const MOST_PERMUTED: usize = 4;

/// What a hook should be. Only [`Law::Deterministic`] is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// The same siblings always give the same answer.
    Deterministic,
    /// Which of the values is newer does not matter.
    Symmetric,
    /// Values that are all the same merge to that value.
    Idempotent,
    /// Merging step by step, from either end, gives what merging at once does.
    Associative,
}

impl Law {
    /// Every law.
    pub const ALL: [Law; 4] = [Law::Deterministic, Law::Symmetric, Law::Idempotent, Law::Associative];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Law::Deterministic => "deterministic",
            Law::Symmetric => "symmetric",
            Law::Idempotent => "idempotent",
            Law::Associative => "associative",
        }
    }
}

/// What came of one merge.
pub type Answer = Result<Vec<u8>, Failure>;

/// A case that breaks a law: two ways to merge it that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The values, oldest first.
    pub siblings: Case,
    /// What came of them.
    pub one: Answer,
    /// What should have been the same.
    pub other: Answer,
}

impl Counterexample {
    /// Fewer siblings, then fewer bytes, then an order that no run changes.
    fn size(&self) -> (usize, usize, &Case) {
        (self.siblings.len(), self.siblings.iter().map(Vec::len).sum(), &self.siblings)
    }
}

/// How a hook did under one law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which law.
    pub law: Law,
    /// How many cases could be tried: those where the merges concerned did not fail.
    pub tried: usize,
    /// How many of them broke it.
    pub broken: usize,
    /// The smallest that did.
    pub smallest: Option<Counterexample>,
}

/// What the court found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One for each law, in the order of [`Law::ALL`].
    pub findings: Vec<Finding>,
    /// How often merging a whole case failed, by reason.
    pub failures: Vec<(Failure, usize)>,
    /// How many cases were tried.
    pub cases: usize,
}

impl Verdict {
    /// Whether the hook may be used.
    pub fn is_deterministic(&self) -> bool {
        self.findings.iter().all(|f| f.law != Law::Deterministic || f.broken == 0)
    }

    /// The finding under `law`.
    pub fn finding(&self, law: Law) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.law == law)
    }
}

/// Tries `hook` on `cases`.
pub fn try_hook(hook: &dyn MergeHook, cases: &[Case]) -> Verdict {
    let mut bench = Bench { hook, findings: Law::ALL.map(Finding::new).to_vec() };
    let mut failures: Vec<(Failure, usize)> = Vec::new();
    for case in cases {
        if let Err(failure) = bench.case(case) {
            match failures.iter_mut().find(|(known, _)| *known == failure) {
                Some((_, count)) => *count += 1,
                None => failures.push((failure, 1)),
            }
        }
    }
    // A hook that remembers earlier calls answers the same question differently after others.
    for case in cases.iter().rev() {
        let first = bench.ask(case);
        let _ = bench.ask(&case.iter().rev().cloned().collect::<Case>());
        let again = bench.ask(case);
        bench.note(Law::Deterministic, case, &first, &again);
    }
    failures.sort_unstable();
    Verdict { findings: bench.findings, failures, cases: cases.len() }
}

/// What a hook has a function for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Single values.
    Values,
    /// Whole hashes.
    Hashes,
}

/// Tries `hook` on `cases`, by each function that it has: the one for whole hashes is asked about hashes of
/// one field.
pub fn try_all(hook: &dyn MergeHook, cases: &[Case]) -> Vec<(Form, Verdict)> {
    let values = hook.merges_values().then(|| (Form::Values, try_hook(hook, cases)));
    let hashes = hook.merges_hashes().then(|| (Form::Hashes, try_hook(&OneField(hook), cases)));
    values.into_iter().chain(hashes).collect()
}

/// A hook for whole hashes, asked about hashes of one field.
struct OneField<'a>(&'a dyn MergeHook);

impl MergeHook for OneField<'_> {
    fn id(&self) -> &HookId {
        self.0.id()
    }

    fn merge(&self, call: &Call<'_>) -> Answer {
        let field = FieldSiblings { field: b"field", siblings: call.siblings.to_vec() };
        let merged = self.0.merge_hash(&HashCall { key: call.key, fields: &[field] })?;
        merged.into_iter().next().map(|(_, value)| value.into_vec()).ok_or(Failure::Declined)
    }
}

impl Finding {
    fn new(law: Law) -> Self {
        Self { law, tried: 0, broken: 0, smallest: None }
    }
}

struct Bench<'a> {
    hook: &'a dyn MergeHook,
    findings: Vec<Finding>,
}

impl Bench<'_> {
    /// Asks the hook about values of which each is newer than the one before, from two regions in turn.
    fn ask<V: AsRef<[u8]>>(&self, values: &[V]) -> Answer {
        let siblings: Vec<Sibling<'_>> = values
            .iter()
            .zip(0..)
            .map(|(value, at)| Sibling { stamp: written(at), value: value.as_ref() })
            .collect();
        self.hook.merge(&Call { key: KEY, field: None, siblings: &siblings })
    }

    fn note(&mut self, law: Law, case: &[Vec<u8>], one: &Answer, other: &Answer) {
        let Some(finding) = self.findings.iter_mut().find(|finding| finding.law == law) else { return };
        finding.tried += 1;
        if one == other {
            return;
        }
        finding.broken += 1;
        let found = Counterexample { siblings: case.to_vec(), one: one.clone(), other: other.clone() };
        if finding.smallest.as_ref().is_none_or(|smallest| found.size() < smallest.size()) {
            finding.smallest = Some(found);
        }
    }

    /// Returns how merging the whole case failed, if it did.
    fn case(&mut self, case: &Case) -> Result<(), Failure> {
        let whole = self.ask(case);
        let again = self.ask(case);
        self.note(Law::Deterministic, case, &whole, &again);
        if case.len() <= MOST_PERMUTED {
            for order in permutations(case.len()).into_iter().skip(1) {
                let permuted: Case = order.iter().filter_map(|at| case.get(*at).cloned()).collect();
                let other = self.ask(&permuted);
                self.note(Law::Symmetric, case, &whole, &other);
            }
        }
        for value in case {
            let same = vec![value.clone(), value.clone()];
            let merged = self.ask(&same);
            if merged.is_ok() {
                self.note(Law::Idempotent, &same, &merged, &Ok(value.clone()));
            }
        }
        if whole.is_ok() && case.len() > 2 {
            let ways = [self.older_first(case), self.newer_first(case)];
            for stepwise in ways.into_iter().flatten() {
                self.note(Law::Associative, case, &whole, &Ok(stepwise));
            }
        }
        whole.map(|_| ())
    }

    fn older_first(&self, case: &Case) -> Answer {
        let mut values = case.iter().cloned();
        let oldest = values.next().ok_or(Failure::Declined)?;
        values.try_fold(oldest, |merged, newer| self.ask(&[merged, newer]))
    }

    fn newer_first(&self, case: &Case) -> Answer {
        let mut values = case.iter().rev().cloned();
        let newest = values.next().ok_or(Failure::Declined)?;
        values.try_fold(newest, |merged, older| self.ask(&[older, merged]))
    }
}

/// The stamp of the value at this place of a case.
fn written(at: u64) -> Stamp {
    let region = if at.is_multiple_of(2) { RegionId(1) } else { RegionId(2) };
    let dot = Dot::new(Origin::new(region, 1), at / 2 + 1);
    Stamp { hlc: Hlc::from_ms(1_000 + at), dot }
}

/// All orders of `n` things; the first is the one they are in.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for new in 0..n {
        // Behind all others first, so that the first order stays the one they are in.
        let longer = |order: &Vec<usize>| {
            let order = order.clone();
            (0..=new).rev().map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, new);
                longer
            })
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Cases that hooks have stumbled over: nothing at all, numbers, near numbers, lines, JSON, bytes.
/// A function of `seed`, so a report can be had again.
pub fn generated(seed: u64, count: usize) -> Vec<Case> {
    let mut dice = Dice(seed);
    (0..count).map(|_| (0..2 + dice.below(3)).map(|_| dice.value()).collect()).collect()
}

/// Every pair and every neighbouring triple of the samples, in both orders of age.
pub fn of_samples(samples: &[Vec<u8>]) -> Vec<Case> {
    let pairs = samples.iter().enumerate().flat_map(|(at, a)| {
        samples.iter().skip(at).flat_map(move |b| [vec![a.clone(), b.clone()], vec![b.clone(), a.clone()]])
    });
    let triples =
        samples.windows(3).flat_map(|three| [three.to_vec(), three.iter().rev().cloned().collect::<Case>()]);
    pairs.chain(triples).collect()
}

/// Splitmix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => Vec::new(),
            1 => (self.below(21) as i64 - 10).to_string().into_bytes(),
            2 => format!("{}.{}e{}", self.below(3), self.below(100), self.below(5) as i64 - 2).into_bytes(),
            3 => (0..self.below(4)).flat_map(|_| [b'a' + self.below(3) as u8, b'\n']).collect(),
            4 => self.json(2).into_bytes(),
            5 => ["null", "{}", "[]", "{\"a\":", "nan", "-0", "1e400", "\u{e9}"]
                .get(self.below(8) as usize)
                .copied()
                .unwrap_or_default()
                .into(),
            6 => (0..self.below(9)).map(|_| self.below(256) as u8).collect(),
            _ => vec![b'a' + self.below(3) as u8; self.below(40) as usize],
        }
    }

    fn json(&mut self, depth: u64) -> String {
        match self.below(4) {
            0 => self.below(10).to_string(),
            1 => format!("\"{}\"", self.below(3)),
            2 => format!("[{},{}]", self.below(3), self.below(3)),
            _ if depth == 0 => "true".to_owned(),
            _ => {
                let names = ["a", "b", "c"].into_iter().filter(|_| self.below(3) > 0).collect::<Vec<_>>();
                let members = names.into_iter().map(|name| format!("\"{name}\":{}", self.json(depth - 1)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }
}
