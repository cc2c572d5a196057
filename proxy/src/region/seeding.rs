//! How far taking over another region's state has come, and the file `seeding` that remembers it.
//!
//! The file is there from before the first object is merged until every op has been applied that any
//! of them may include. While it is, clients are not served: what they would see is no state that ever was.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use meridian_conflict::clock::{RegionId, VersionVector, covers_all};
use meridian_topology::seed::Cursor;
use meridian_topology::sequence::Position;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::store::row;

const FILE: &str = "seeding";
const VERSION: u8 = 2;

/// Written before there was a base.
const WITHOUT_BASE: u8 = 1;

/// Where a takeover stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Objects are being merged.
    Merging {
        /// Whose.
        donor: RegionId,
        /// What will be adopted; `None` when it has to begin anew.
        begin: Option<Position>,
        /// Everything before is merged.
        from: Cursor,
        /// What the objects merged so far may include.
        ahead: VersionVector,
    },
    /// All are merged and the position is adopted; ops up to here are still to be applied.
    CatchingUp {
        /// That vector.
        until: VersionVector,
    },
    /// What was taken over is lost in part: the next start begins with nothing.
    Anew,
}

impl Stage {
    /// What has to be applied before clients are served.
    fn wanted(&self) -> Option<&VersionVector> {
        match self {
            Self::Merging { ahead, .. } => Some(ahead),
            Self::CatchingUp { until } => Some(until),
            Self::Anew => None,
        }
    }
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    stage: Stage,
    /// What was here before, once nothing is added to that any more.
    base: Option<VersionVector>,
}

/// Figures for status and metrics.
#[derive(Debug, Default)]
pub struct Progress {
    /// Keys merged.
    pub keys: AtomicU64,
    /// About how many there are.
    pub keys_expected: AtomicU64,
    /// Bytes received, as they travelled.
    pub bytes: AtomicU64,
    /// Ranges merged, of [`meridian_topology::seed::RANGES`].
    pub ranges: AtomicU64,
}

impl Progress {
    pub(crate) fn restart(&self) {
        [&self.keys, &self.keys_expected, &self.bytes, &self.ranges]
            .into_iter()
            .for_each(|figure| figure.store(0, Ordering::Relaxed));
    }
}

/// The state of a takeover.
#[derive(Debug)]
pub struct Seeding {
    path: PathBuf,
    kept: Mutex<Option<Kept>>,
    loading: AtomicBool,
    progress: Arc<Progress>,
}

impl Seeding {
    /// What the data directory remembers. A file that is damaged means: begin anew.
    ///
    /// # Errors
    /// When the file cannot be read, or another version of the program wrote it.
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => match row::open(&bytes).ok().and_then(<[u8]>::first) {
                Some(version) if ![VERSION, WITHOUT_BASE].contains(version) => {
                    bail!("{} has version {version}, this program knows {VERSION}", path.display())
                }
                _ => Some(decode(&bytes).unwrap_or_else(anew)),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let loading = AtomicBool::new(kept.is_some());
        Ok(Self { path, kept: Mutex::new(kept), loading, progress: Arc::default() })
    }

    /// Whether a takeover is under way: one atomic load.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    /// Where it stands.
    pub fn stage(&self) -> Option<Stage> {
        self.kept.lock().as_ref().map(|kept| kept.stage.clone())
    }

    /// What was here before the takeover under way: all that others may count on.
    pub fn base(&self) -> Option<VersionVector> {
        if !self.is_loading() {
            return None;
        }
        self.kept.lock().as_ref()?.base.clone()
    }

    /// Nothing is added any more to what was here before, unless that was said already. Kept with the next stage.
    pub fn note_base(&self, applied: &VersionVector) {
        if let Some(kept) = &mut *self.kept.lock() {
            kept.base.get_or_insert_with(|| applied.clone());
        }
    }

    /// What clients wait for.
    pub fn wanted(&self) -> Option<VersionVector> {
        if !self.is_loading() {
            return None;
        }
        self.kept.lock().as_ref()?.stage.wanted().cloned()
    }

    /// Whether objects are being merged, now or once somebody gives: no op may be applied to them then.
    pub fn is_merging(&self) -> bool {
        self.is_loading() && self.donor().is_some()
    }

    /// While catching up: until where.
    pub fn until(&self) -> Option<VersionVector> {
        if !self.is_loading() {
            return None;
        }
        match self.kept.lock().as_ref()?.stage {
            Stage::CatchingUp { ref until } => Some(until.clone()),
            _ => None,
        }
    }

    /// Whom objects are being merged from.
    pub fn donor(&self) -> Option<RegionId> {
        match self.kept.lock().as_ref()?.stage {
            Stage::Merging { donor, .. } => Some(donor),
            _ => None,
        }
    }

    /// Figures for status and metrics.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Remembers a stage, durably. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be written; the stage before counts.
    pub fn enter(&self, stage: Stage) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        let base = self.kept.lock().as_ref().and_then(|kept| kept.base.clone());
        file.write_all(&encode(&Kept { stage: stage.clone(), base }))?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.sync_directory()?;
        self.note(stage);
        Ok(())
    }

    /// Remembers a stage until the process ends: a stream that breaks goes on from there.
    pub fn note(&self, stage: Stage) {
        let mut kept = self.kept.lock();
        let base = kept.take().and_then(|kept| kept.base);
        *kept = Some(Kept { stage, base });
        drop(kept);
        self.loading.store(true, Ordering::Release);
    }

    /// Ends the takeover once everything up to its end is durable here. Returns whether it did.
    /// Blocks on the disk, once.
    ///
    /// # Errors
    /// When the file cannot be removed; the takeover is not over.
    pub fn note_durable(&self, durable: &VersionVector) -> std::io::Result<bool> {
        if !self.until().is_some_and(|until| covers_all(durable, &until)) {
            return Ok(false);
        }
        self.forget()?;
        Ok(true)
    }

    /// Forgets the takeover. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be removed; the takeover is not over.
    pub fn forget(&self) -> std::io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => self.sync_directory()?,
        }
        *self.kept.lock() = None;
        self.loading.store(false, Ordering::Release);
        Ok(())
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        self.path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
    }
}

fn anew() -> Kept {
    let (begin, from, ahead) = (None, Cursor::default(), VersionVector::new());
    Kept { stage: Stage::Merging { donor: RegionId(0), begin, from, ahead }, base: None }
}

fn encode(kept: &Kept) -> Vec<u8> {
    let mut payload = vec![VERSION];
    // Writing to a Vec cannot fail.
    let _ = postcard::to_io(kept, &mut payload);
    row::seal(&payload)
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    match row::open(bytes).ok()?.split_first() {
        Some((&VERSION, kept)) => postcard::from_bytes(kept).ok(),
        Some((&WITHOUT_BASE, stage)) => {
            postcard::from_bytes(stage).ok().map(|stage| Kept { stage, base: None })
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Dot, Origin};

    use super::*;

    fn vector(sequence: u64) -> VersionVector {
        [Dot::new(Origin(1), sequence)].into_iter().collect()
    }

    #[test]
    fn the_file_keeps_its_form_and_damage_means_to_begin_anew() {
        let stage = Stage::Merging {
            donor: RegionId(7),
            begin: Some(Position::default()),
            from: Cursor { range: 1, database: 2, hash: 1 << 60 },
            ahead: vector(9),
        };
        let kept = Kept { stage: stage.clone(), base: Some(vector(4)) };
        let bytes = encode(&kept);
        let mut payload =
            vec![2, 0, 7, 1, 0, 0, 0, 1, 2, 128, 128, 128, 128, 128, 128, 128, 128, 16, 1, 1, 9];
        payload.extend([1, 1, 1, 4]);
        assert_eq!(row::open(&bytes).unwrap(), payload);
        assert_eq!(decode(&bytes), Some(kept));
        // As the version before wrote it.
        payload[0] = WITHOUT_BASE;
        payload.truncate(payload.len() - 4);
        assert_eq!(decode(&row::seal(&payload)), Some(Kept { stage, base: None }));
        let anew = row::seal(&[2, 2, 0]);
        assert_eq!(decode(&anew), Some(Kept { stage: Stage::Anew, base: None }));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None);
        }
        bolero::check!().for_each(|payload: &[u8]| {
            if let Some(kept) = decode(&row::seal(payload)) {
                assert_eq!(decode(&encode(&kept)), Some(kept));
            }
        });
    }

    #[test]
    fn c5_loading_ends_when_everything_is_durable_and_survives_a_restart_until_then() {
        let directory = tempfile::TempDir::new().unwrap();
        let seeding = Seeding::load(directory.path()).unwrap();
        assert!(!seeding.is_loading());
        seeding.enter(Stage::CatchingUp { until: vector(5) }).unwrap();
        seeding.note_base(&vector(2));
        seeding.note_base(&vector(3));
        seeding.enter(Stage::CatchingUp { until: vector(5) }).unwrap();
        assert!(!seeding.note_durable(&vector(4)).unwrap());
        let seeding = Seeding::load(directory.path()).unwrap();
        assert!(seeding.is_loading());
        assert_eq!(seeding.until().unwrap(), vector(5));
        assert_eq!(seeding.base().unwrap(), vector(2));
        assert!(seeding.note_durable(&vector(5)).unwrap());
        assert!(!Seeding::load(directory.path()).unwrap().is_loading());
        fs::write(directory.path().join(FILE), b"not one").unwrap();
        let seeding = Seeding::load(directory.path()).unwrap();
        assert!(matches!(seeding.stage(), Some(Stage::Merging { begin: None, .. })));
        // J5: what a newer version has begun is not begun anew by an older one.
        fs::write(directory.path().join(FILE), row::seal(&[VERSION + 1, 7])).unwrap();
        let refused = Seeding::load(directory.path()).unwrap_err().to_string();
        assert!(refused.ends_with("has version 3, this program knows 2"), "{refused}");
    }
}
