//! Shadow policies: what keys would show under another policy, without any effect.
//!
//! They belong to this region's own configuration. They are no part of what regions compare, and their hooks are
//! neither counted with those in force nor compared with other regions'.

use std::fmt;
use std::sync::Arc;

use meridian_conflict::glob;
use meridian_conflict::hook::MergeHook;
use meridian_conflict::policy::Policy;

/// A policy that is only tried.
pub struct Shadow {
    policy: Policy,
    hook: Option<Arc<dyn MergeHook>>,
    rule: Box<str>,
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shadow").field(&self.policy).finish()
    }
}

impl PartialEq for Shadow {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy
    }
}

impl Shadow {
    /// A policy with its hook, if it has one.
    pub fn new(policy: Policy, hook: Option<Arc<dyn MergeHook>>) -> Self {
        let rule = match &policy {
            Policy::Hook(id) => format!("hook:{}", id.name).into(),
            other => other.name().into(),
        };
        Self { policy, hook, rule }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its hook.
    pub fn hook(&self) -> Option<&dyn MergeHook> {
        self.hook.as_deref()
    }

    /// What metrics call it: a policy, or `hook:NAME`.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// A pattern, and the shadow of its keys.
type Rule = (Box<[u8]>, Option<Arc<Shadow>>);

/// The shadows of a configuration, by the rules that they belong to.
#[derive(Debug, Default, PartialEq)]
pub struct Shadows {
    rules: Vec<Rule>,
    any: bool,
}

impl Shadows {
    /// Those of rules in order: pattern and shadow of each.
    pub fn new(rules: Vec<(Box<[u8]>, Option<Shadow>)>) -> Self {
        let shared = |(keys, shadow): (Box<[u8]>, Option<Shadow>)| (keys, shadow.map(Arc::new));
        let any = rules.iter().any(|(_, shadow)| shadow.is_some());
        Self { rules: rules.into_iter().map(shared).collect(), any }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    /// The shadow of `key`: that of the first rule whose pattern matches.
    pub fn of(&self, key: &[u8]) -> Option<&Arc<Shadow>> {
        if self.is_empty() {
            return None;
        }
        self.rules.iter().find(|(keys, _)| glob::matches(keys, key))?.1.as_ref()
    }

    /// All of them, with their patterns.
    pub fn listed(&self) -> impl Iterator<Item = (&[u8], &Shadow)> {
        self.rules.iter().filter_map(|(keys, shadow)| Some((&**keys, &**shadow.as_ref()?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_belongs_to_the_first_rule_that_matches() {
        let rule = |keys: &[u8], shadow: Option<Policy>| {
            (Box::from(keys), shadow.map(|policy| Shadow::new(policy, None)))
        };
        let none = Shadows::new(vec![rule(b"a*", None)]);
        assert!(none.is_empty() && none.of(b"a").is_none() && Shadows::default().is_empty());
        let shadows = Shadows::new(vec![rule(b"a*", None), rule(b"*", Some(Policy::Lww))]);
        assert!(shadows.of(b"ab").is_none());
        assert_eq!(shadows.of(b"b").unwrap().rule(), "lww");
        assert_eq!(shadows.listed().count(), 1);
    }
}
