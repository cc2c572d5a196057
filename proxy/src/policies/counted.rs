//! Hooks with their figures.

use std::time::Instant;

use meridian_conflict::hook::{Call, Failure, HashCall, MergeHook, MergedHash};
use meridian_conflict::policy::HookId;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::metrics::Metrics;

/// A hook whose calls are counted and timed.
pub(super) struct Counted {
    hook: Box<dyn MergeHook>,
    calls: IntCounter,
    failures: IntCounterVec,
    seconds: Histogram,
}

impl Counted {
    pub(super) fn new(hook: Box<dyn MergeHook>, metrics: &Metrics) -> Self {
        let name = hook.id().name.clone();
        Self {
            calls: metrics.hooks.calls.with_label_values(&[&name]),
            failures: metrics.hooks.failures.clone(),
            seconds: metrics.hooks.seconds.with_label_values(&[&name]),
            hook,
        }
    }

    fn count<T>(&self, call: impl FnOnce(&dyn MergeHook) -> Result<T, Failure>) -> Result<T, Failure> {
        let began = Instant::now();
        let answer = call(&*self.hook);
        self.seconds.observe(began.elapsed().as_secs_f64());
        self.calls.inc();
        if let Err(failure) = &answer {
            self.failures.with_label_values(&[&self.hook.id().name, failure.name()]).inc();
        }
        answer
    }
}

impl MergeHook for Counted {
    fn id(&self) -> &HookId {
        self.hook.id()
    }

    fn merge(&self, call: &Call<'_>) -> Result<Vec<u8>, Failure> {
        self.count(|hook| hook.merge(call))
    }

    fn merges_values(&self) -> bool {
        self.hook.merges_values()
    }

    fn merges_hashes(&self) -> bool {
        self.hook.merges_hashes()
    }

    fn merge_hash(&self, call: &HashCall<'_>) -> Result<MergedHash, Failure> {
        self.count(|hook| hook.merge_hash(call))
    }
}
