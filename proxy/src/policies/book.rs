//! What is known of all regions' policies and hooks, and what follows from it for this one.

use std::path::Path;
use std::sync::Arc;

use meridian_conflict::clock::RegionId;
use meridian_conflict::hook::quarantine::{Entry, Quarantine};
use meridian_conflict::policy::{HookId, PolicyTable};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::load::Loaded;
use super::quarantine::QuarantineFile;
use super::shadow::Shadows;
use super::{Hooks, Policies};
use crate::metrics::Metrics;

/// The tables of all regions. Regions must read alike, so all use the one of the smallest version
/// ([`PolicyTable::in_force`]) until they agree.
pub struct Book {
    pages: Mutex<Pages>,
    own: watch::Sender<Arc<PolicyTable>>,
    quarantine: watch::Sender<Arc<Quarantine>>,
    file: QuarantineFile,
    metrics: Arc<Metrics>,
}

/// What people call a region.
pub type NameOf<'a> = &'a dyn Fn(RegionId) -> String;

struct Pages {
    others: Vec<PolicyTable>,
    /// Every hook that was loaded, for a table that others still have.
    hooks: Hooks,
    shadows: Arc<Shadows>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("others", &self.pages.lock().others).finish_non_exhaustive()
    }
}

impl Book {
    /// That of a region which knows its own `table` alone, and the hooks that its data directory says are in
    /// quarantine.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn open(
        loaded: Loaded,
        data_dir: &Path,
        policies: &Policies,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let file = QuarantineFile::of(data_dir);
        let quarantine = watch::Sender::new(Arc::new(file.load()?));
        let Loaded { table, hooks, shadows } = loaded;
        let pages = Mutex::new(Pages { others: Vec::new(), hooks, shadows: Arc::new(shadows) });
        let book = Self { pages, own: watch::Sender::new(Arc::new(table)), quarantine, file, metrics };
        book.enforce(policies);
        Ok(book)
    }

    /// This region's own table.
    pub fn own(&self) -> Arc<PolicyTable> {
        Arc::clone(&self.own.borrow())
    }

    /// Tells when this region's own table changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyTable>> {
        self.own.subscribe()
    }

    /// This region's policies are others now. Returns whether they differ from those before.
    pub fn set_own(&self, loaded: Loaded, policies: &Policies) -> bool {
        let Loaded { table, hooks, shadows } = loaded;
        let mut pages = self.pages.lock();
        let same_shadows = *pages.shadows == shadows;
        if *self.own() == table && same_shadows {
            return false;
        }
        pages.hooks.extend(hooks);
        pages.shadows = Arc::new(shadows);
        drop(pages);
        // Shadows concern nobody else.
        self.own.send_if_modified(|own| {
            let changes = **own != table;
            *own = Arc::new(table);
            changes
        });
        self.enforce(policies);
        true
    }

    /// The tables of all other regions, as far as they are known.
    pub fn set_others(&self, others: Vec<PolicyTable>, policies: &Policies) {
        if std::mem::replace(&mut self.pages.lock().others, others.clone()) != others {
            self.enforce(policies);
        }
    }

    /// The hooks in quarantine.
    pub fn quarantine(&self) -> Arc<Quarantine> {
        Arc::clone(&self.quarantine.borrow())
    }

    /// Tells when a hook is confined or released.
    pub fn subscribe_quarantine(&self) -> watch::Receiver<Arc<Quarantine>> {
        self.quarantine.subscribe()
    }

    /// Takes over what is known elsewhere of hooks in quarantine, and keeps it. Blocks on the disk if it is news.
    pub fn learn(&self, entries: impl IntoIterator<Item = Entry>, policies: &Policies, names: NameOf<'_>) {
        let mut news = Vec::new();
        self.quarantine.send_if_modified(|known| {
            let mut set = (**known).clone();
            news.extend(entries.into_iter().filter(|entry| set.join(entry.clone())));
            *known = Arc::new(set);
            !news.is_empty()
        });
        if news.is_empty() {
            return;
        }
        if let Err(error) = self.file.store(&self.quarantine()) {
            tracing::error!(%error, "cannot keep which hooks are in quarantine; a restart asks the neighbours");
        }
        news.iter().for_each(|entry| self.tell(entry, names));
        self.enforce(policies);
    }

    /// Releases the hooks in force that are called `name`, or have this identity in hexadecimal, in all regions.
    /// Returns those that were in quarantine. Blocks on the disk.
    pub fn release(&self, name: &str, policies: &Policies, names: NameOf<'_>) -> Vec<HookId> {
        let (active, mut set) = (policies.current(), (*self.quarantine()).clone());
        let meant = |id: &&HookId| &*id.name == name || hex(&id.identity) == name;
        let ids = active.hook_ids().into_iter().filter(meant);
        let released: Vec<HookId> = ids.filter(|id| set.release(id.identity)).cloned().collect();
        if !released.is_empty() {
            self.learn(set.entries(), policies, names);
        }
        released
    }

    fn tell(&self, entry: &Entry, names: NameOf<'_>) {
        let hooks = &self.pages.lock().hooks;
        let identity = hex(&entry.hook);
        let name = hooks.get(&entry.hook).map_or(identity.as_str(), |hook| &hook.id().name);
        match &entry.reason {
            None => tracing::warn!(hook = name, identity, "released from quarantine: it is asked again"),
            Some(reason) => {
                self.metrics.hooks.quarantines.with_label_values(&[name]).inc();
                let [(one, _), (other, _)] = reason.answers;
                let regions = format!("{} and {}", names(one), names(other));
                tracing::error!(
                    hook = name,
                    identity,
                    database = reason.database,
                    key = %reason.key.escape_ascii(),
                    subject = ?reason.subject,
                    regions,
                    "two answers to one question: the hook is in quarantine, the greatest stamp shows everywhere"
                );
            }
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
        policies.enforce(wanted.clone(), pages.hooks.clone(), self.quarantine(), Arc::clone(&pages.shadows));
    }
}

/// An identity for people.
pub fn hex(identity: &[u8; 32]) -> String {
    identity.iter().map(|byte| format!("{byte:02x}")).collect()
}
