//! What is found out about a conflict after it was met, where nobody waits for its key: what the key's hook makes of
//! the values, and what another policy would have shown.
//!
//! The values are copied when the conflict is met, under the key's lock and within [`QUESTION_BYTES`]; the inbox's
//! thread asks. It gives hooks a share of its time ([`Allowance`]): what goes beyond is recorded as `unasked`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_conflict::hook::question::{Question, Subject};
use meridian_conflict::hook::{Decided, MergeHook};
use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;
use meridian_conflict::outcome::{Conflict, Kind};
use meridian_conflict::policy::{HookId, Policy};
use meridian_conflict::reading;

use super::evidence::{bounded, shown};
use super::record::{Record, Shadowed, Written};
use crate::metrics::Metrics;
use crate::policies::Active;
use crate::policies::shadow::Shadow;

/// Bytes of values of one question; larger ones are not asked.
pub const QUESTION_BYTES: usize = 256 << 10;

/// The outcome of a conflict whose hook was not asked.
pub const UNASKED: &str = "unasked";

/// The rule where a hook gave no value.
const FALLBACK: &str = "fallback";

/// How much of its time the thread gives to hooks, and how much of that it saves up.
const SHARE: f64 = 0.25;
const SAVED: Duration = Duration::from_millis(500);

/// What is to be asked about a conflict.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The key's hook.
    hook: Option<(HookId, Asked)>,
    /// Another policy.
    shadow: Option<(Arc<Shadow>, Asked)>,
}

/// What there is to be asked.
#[derive(Clone, Debug)]
enum Asked {
    /// This.
    Question(Question),
    /// Nothing: it would show this.
    Known(Written),
    /// It cannot be told within bounds.
    Unknown,
}

/// Whether a conflict is about what hooks merge.
pub fn is_merged(conflict: &Conflict) -> bool {
    let about = (conflict.kind, conflict.facet);
    matches!(about, (Kind::WriteWrite, Facet::String) | (Kind::Field, Facet::Hash))
}

fn question(key: &[u8], subject: &Subject, object: &Object) -> Option<Asked> {
    match Question::about(key, subject, object, QUESTION_BYTES) {
        Ok(question) => question.map(Asked::Question),
        Err(_) => Some(Asked::Unknown),
    }
}

impl Asking {
    /// What is to be asked about a conflict that was just met. `object` is as it was left.
    pub fn of(active: &Active, key: &[u8], object: &Object, conflict: &Conflict) -> Self {
        let policy = active.policy(key);
        let field = (conflict.facet != Facet::String).then_some(&*conflict.element);
        let hook = match policy {
            Policy::Hook(id) if is_merged(conflict) => {
                let subject = active.subject(id, field);
                // Where one value is left there is nothing to be asked.
                question(key, &subject, object).map(|asked| (id.clone(), asked))
            }
            _ => None,
        };
        let shadow = active.shadows().of(key).map(|shadow| {
            let read = |policy| {
                let Conflict { kind, facet, element, .. } = conflict;
                Asked::Known(shown(reading::seen_under(policy, object), *kind, *facet, element))
            };
            let asked = match (shadow.hook(), policy) {
                (Some(hook), _) if is_merged(conflict) => {
                    let subject = Subject::of(hook, field);
                    question(key, &subject, object).unwrap_or_else(|| read(shadow.policy()))
                }
                // Whole hashes met, of which single fields would be merged.
                (Some(_), Policy::Lww) if conflict.facet == Facet::Hash => Asked::Unknown,
                _ => read(shadow.policy()),
            };
            (Arc::clone(shadow), asked)
        });
        Self { hook, shadow }
    }

    /// Bytes of the values kept.
    pub fn len(&self) -> usize {
        let of = |asked: &Asked| match asked {
            Asked::Question(question) => question.len(),
            Asked::Known(written) => written.len(),
            Asked::Unknown => 0,
        };
        self.hook.as_ref().map_or(0, |(_, asked)| of(asked))
            + self.shadow.as_ref().map_or(0, |(_, asked)| of(asked))
    }

    /// Whether nothing is to be asked.
    pub fn is_empty(&self) -> bool {
        self.hook.is_none() && self.shadow.is_none()
    }

    /// Completes the record. `winner` is the outcome if the hook gives no value.
    pub fn complete(
        self,
        record: &mut Record,
        winner: &str,
        active: &Active,
        allowance: &mut Allowance,
        metrics: &Metrics,
    ) {
        let field = record.element.to_vec();
        let field = (record.known_facet() == Some(Facet::Hash)).then_some(field.as_slice());
        match self.hook {
            Some((id, Asked::Question(question))) if allowance.is_left() => {
                let hook = active.hook(&id, record.database);
                let hook = hook.as_ref().map(|hook| hook as &dyn MergeHook);
                if hook.is_none() {
                    active.witness().fell_back(&id);
                }
                match allowance.spend(|| question.ask(hook, field)) {
                    (value, Decided::Hook) => record.shown = written(value),
                    (_, Decided::Fallback(_)) => {
                        record.rule = FALLBACK.into();
                        record.outcome = winner.into();
                    }
                    (_, Decided::Sole) => {}
                }
            }
            Some(_) => record.outcome = UNASKED.into(),
            None => {}
        }
        let Some((shadow, asked)) = self.shadow else { return };
        let labels = [record.policy.as_str(), shadow.rule()];
        let would = match asked {
            _ if record.outcome == UNASKED => None,
            Asked::Question(question) if allowance.is_left() => {
                Some(written(allowance.spend(|| question.ask(shadow.hook(), field)).0))
            }
            Asked::Known(written) => Some(written),
            Asked::Question(_) | Asked::Unknown => None,
        };
        match would.filter(|would| record.shown != *would || would.is_whole()) {
            None => metrics.conflicts.shadow_unknown.with_label_values(&labels).inc(),
            Some(would) => {
                metrics.conflicts.shadow_evaluated.with_label_values(&labels).inc();
                if would != record.shown {
                    metrics.conflicts.shadow_differs.with_label_values(&labels).inc();
                    record.shadow = Some(Shadowed { rule: shadow.rule().to_owned(), shown: would });
                }
            }
        }
    }
}

fn written(value: Option<Vec<u8>>) -> Written {
    value.map_or(Written::Nothing, |value| bounded(value.into()))
}

/// How long hooks may still be asked.
#[derive(Debug)]
pub struct Allowance {
    left: f64,
    filled: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: SAVED.as_secs_f64(), filled: Instant::now() }
    }
}

impl Allowance {
    /// Whether a hook may be asked now.
    pub fn is_left(&mut self) -> bool {
        let since = std::mem::replace(&mut self.filled, Instant::now()).elapsed().as_secs_f64();
        self.left = (self.left + since * SHARE).min(SAVED.as_secs_f64());
        self.left > 0.0
    }

    fn spend<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let answer = ask();
        self.left -= began.elapsed().as_secs_f64();
        answer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
