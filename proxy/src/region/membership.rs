//! What may change while a region runs: who belongs to the cluster, where they are, how they are joined,
//! the policies and the homes. Everything else of the configuration holds until the next start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use meridian_conflict::clock::RegionId;
use meridian_topology::graph::RegionName;

use super::Region;
use crate::config::settings::{self, Role, Settings, Topology};
use crate::config::{ConfigErrors, FileChecks};
use crate::policies::load::{LoadPoliciesError, load_versioned};

/// Keys that a reload may change.
pub(crate) const CHANGEABLE: [&str; 8] = [
    "conflicts",
    "homes",
    "regions",
    "topology.shape",
    "topology.order",
    "topology.hub",
    "topology.standby_hubs",
    "topology.feeds",
];

/// Who belongs to the cluster, as this region's configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// How the regions are joined.
    pub topology: Topology,
    /// Every region, this one among them.
    pub regions: BTreeMap<RegionName, settings::Region>,
}

/// A reload was refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The region was not started from a file.
    #[error("this region was not started from a configuration file")]
    NoFile,
    /// The policies cannot be used.
    #[error(transparent)]
    Policies(#[from] LoadPoliciesError),
    /// Who is home cannot be stored.
    #[error("cannot store who is home: {0}")]
    Homes(std::io::Error),
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// It changes what holds until the next start.
    #[error("cannot change while the region runs, restart it: {}", .0.join(", "))]
    Fixed(Vec<String>),
}

impl Membership {
    /// That of `settings`.
    pub fn of(settings: &Settings) -> Self {
        Self { topology: settings.topology.clone(), regions: settings.regions.clone() }
    }

    /// A region's name for people; its number in hexadecimal if it is not configured any more.
    pub fn name_of(&self, region: RegionId) -> String {
        let mut names = self.regions.keys();
        let name = names.find(|name| RegionId::of(name.as_str()) == region);
        name.map_or_else(|| format!("{:08x}", region.0), ToString::to_string)
    }

    fn role(&self, region: &RegionName) -> Role {
        self.regions.get(region).map_or(Role::Leader, |region| region.role)
    }
}

/// Every key of the settings with its value as text.
fn keys(settings: &Settings) -> BTreeMap<String, String> {
    fn flatten(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    flatten(&key, value, out);
                }
            }
            value => drop(out.insert(prefix.to_owned(), value.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    // What the program writes itself can be read.
    if let Ok(table) = settings.to_toml(Path::new("/")).parse::<toml::Table>() {
        flatten("", &toml::Value::Table(table), &mut found);
    }
    found
}

/// Keys that differ and may not.
fn fixed_changes(old: &Settings, new: &Settings) -> Vec<String> {
    let (old, new) = (keys(old), keys(new));
    let all: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    all.into_iter()
        .filter(|key| old.get(*key) != new.get(*key) && !CHANGEABLE.contains(&key.as_str()))
        .cloned()
        .collect()
}

impl Region {
    /// Who belongs to the cluster now.
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.borrow())
    }

    /// Notes where the configuration was read from, for [`Region::reload`].
    pub fn set_config_file(&self, path: &Path) {
        // The first stays: a region has one file.
        let _ = self.config_file.set(path.to_owned());
    }

    /// Reads the configuration anew and puts members, their addresses and roles, the topology and the
    /// policies in force, all or nothing. Returns whether anything changed. Reads files. The certificate is looked at
    /// soon after.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn reload(&self) -> Result<bool, ReloadError> {
        self.certificate().look.notify_one();
        let path = self.config_file.get().ok_or(ReloadError::NoFile)?;
        self.change(&Settings::load_with(path, FileChecks::Require)?)
    }

    /// [`Region::reload`] with these settings.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn change(&self, new: &Settings) -> Result<bool, ReloadError> {
        let fixed = fixed_changes(&self.settings, new);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        let policies_changed = self.change_policies(new)?;
        let homes_changed = self.homes.change_rules(self, &new.homes).map_err(ReloadError::Homes)?;
        let membership = Membership::of(new);
        if *self.membership() == membership {
            return Ok(policies_changed || homes_changed);
        }
        let follows = membership.role(&self.settings.region) == Role::Follower;
        self.follower.store(follows, Ordering::Release);
        let (shape, regions) = (membership.topology.shape.to_string(), membership.regions.len());
        tracing::info!(shape, regions, follower = follows, "the membership has changed");
        self.membership.send_replace(Arc::new(membership));
        Ok(true)
    }

    /// Puts the policies of `new` in force. Other regions go on with theirs, and all with the oldest, until all
    /// have been changed.
    fn change_policies(&self, new: &Settings) -> Result<bool, LoadPoliciesError> {
        // A hook may have changed though the configuration has not.
        let loaded = load_versioned(&new.conflicts, &self.settings.data_dir, &self.metrics)?;
        Ok(self.policies.set_own(loaded, self.keyspace.policies()))
    }
}
