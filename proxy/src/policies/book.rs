//! What is known of all regions' policies, and what follows from it for this one.

use std::sync::Arc;

use meridian_conflict::policy::PolicyTable;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Hooks, Policies};

/// The tables of all regions. Regions must read alike, so all use the one of the smallest version
/// ([`PolicyTable::in_force`]) until they agree.
#[derive(Debug)]
pub struct Book {
    pages: Mutex<Pages>,
    own: watch::Sender<Arc<PolicyTable>>,
}

struct Pages {
    others: Vec<PolicyTable>,
    /// Every hook that was loaded, for a table that others still have.
    hooks: Hooks,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("others", &self.others).finish_non_exhaustive()
    }
}

impl Book {
    /// That of a region which knows its own `table` alone.
    pub fn new(table: PolicyTable, hooks: Hooks, policies: &Policies) -> Self {
        let pages = Mutex::new(Pages { others: Vec::new(), hooks });
        let book = Self { pages, own: watch::Sender::new(Arc::new(table)) };
        book.enforce(policies);
        book
    }

    /// This region's own table.
    pub fn own(&self) -> Arc<PolicyTable> {
        Arc::clone(&self.own.borrow())
    }

    /// Tells when this region's own table changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyTable>> {
        self.own.subscribe()
    }

    /// This region's policies are others now.
    pub fn set_own(&self, table: PolicyTable, hooks: Hooks, policies: &Policies) {
        self.pages.lock().hooks.extend(hooks);
        self.own.send_replace(Arc::new(table));
        self.enforce(policies);
    }

    /// The tables of all other regions, as far as they are known.
    pub fn set_others(&self, others: Vec<PolicyTable>, policies: &Policies) {
        if std::mem::replace(&mut self.pages.lock().others, others.clone()) != others {
            self.enforce(policies);
        }
    }

    fn enforce(&self, policies: &Policies) {
        let (own, pages) = (self.own(), self.pages.lock());
        let Some(wanted) = PolicyTable::in_force(pages.others.iter().chain([&*own])) else { return };
        if policies.current().table() != wanted {
            let (version, digest) = (wanted.version(), format!("{:032x}", wanted.digest()));
            if wanted.digest() == own.digest() {
                tracing::info!(version, digest, rules = wanted.rules().len(), "these policies are in force");
            } else {
                tracing::error!(
                    version,
                    digest,
                    own_version = own.version(),
                    "policies differ between regions; the oldest are in force everywhere until all have the same"
                );
            }
        }
        policies.enforce(wanted.clone(), pages.hooks.clone());
    }
}
