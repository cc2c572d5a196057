//! Who a data directory belongs to, and in which life: the file `identity.toml`.
//!
//! A life ends when what it gave out can no longer be trusted. One sign of that is the file itself:
//! it holds its own inode number, so a directory that was restored from a backup or copied is seen
//! to be another one, and does not go on with numbers that its original may have given out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use meridian_conflict::clock::{Origin, RegionId};
use serde::{Deserialize, Serialize};

use crate::config::settings::Settings;

const FILE: &str = "identity.toml";
const VERSION: u32 = 1;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    version: u32,
    cluster: String,
    region: String,
    incarnation: u32,
    /// Device and inode of the file, as it was written.
    device: u64,
    inode: u64,
}

impl Identity {
    /// A new life of the configured region.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn fresh(settings: &Settings) -> anyhow::Result<Self> {
        let mut bytes = [0u8; 4];
        getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness for an incarnation: {e}"))?;
        Ok(Self {
            version: VERSION,
            cluster: settings.cluster.clone(),
            region: settings.region.to_string(),
            incarnation: u32::from_le_bytes(bytes),
            device: 0,
            inode: 0,
        })
    }

    /// The origin of this life's ops.
    pub fn origin(&self) -> Origin {
        Origin::new(RegionId::of(&self.region), self.incarnation)
    }

    /// Reads the directory's identity. `None` when it has none yet.
    ///
    /// # Errors
    /// When the file cannot be read, or the directory belongs to another region or cluster.
    pub fn load(directory: &Path, settings: &Settings) -> anyhow::Result<Option<Loaded>> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let identity: Identity =
            toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if identity.version != VERSION {
            bail!("{} has version {}, this program knows {VERSION}", path.display(), identity.version);
        }
        if identity.cluster != settings.cluster || identity.region != settings.region.as_str() {
            bail!(
                "data_dir {} belongs to region \"{}\" of cluster \"{}\"; this is \"{}\" of \"{}\"",
                directory.display(),
                identity.region,
                identity.cluster,
                settings.region,
                settings.cluster,
            );
        }
        let metadata = fs::metadata(&path)?;
        let moved = metadata.dev() != identity.device || metadata.ino() != identity.inode;
        Ok(Some(Loaded { identity, moved }))
    }

    /// Writes the directory's identity, atomically and durably.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is still there.
    pub fn store(mut self, directory: &Path) -> anyhow::Result<()> {
        let (path, new) = (directory.join(FILE), directory.join("identity.toml.new"));
        let write = || -> anyhow::Result<()> {
            let mut file = fs::File::create(&new)?;
            let metadata = file.metadata()?;
            (self.device, self.inode) = (metadata.dev(), metadata.ino());
            file.write_all(toml::to_string(&self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(directory)?.sync_all()?;
            Ok(())
        };
        let mut write = write;
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// An identity as found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file says.
    pub identity: Identity,
    /// Whether the file is not where it was written: the directory was copied or restored.
    pub moved: bool,
}
