//! What may be forgotten: tells the region how far time has passed for all, and the others how far it
//! has passed here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_conflict::clock::{Hlc, RegionId};

use super::Hub;
use crate::config::settings::{LogSync, Role};
use crate::region::Region;
use crate::region::clock::ClockFile;
use crate::region::reaper::Settled;

/// How often the clock is kept, while it goes on.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// How long ops of a life that has ended may still turn up that were durable nowhere.
const YOUNG_MS: u64 = 30_000;

/// See [`meridian_topology::replica::Settings::young_ms`]. All regions of a cluster are taken to flush
/// alike.
pub(super) fn young_ms(sync: LogSync) -> u64 {
    if sync == LogSync::Always { 0 } else { YOUNG_MS }
}

/// The clock as it is kept on disk: no other reading is told.
#[derive(Debug)]
pub(super) struct KeptClock {
    file: Arc<ClockFile>,
    kept: Arc<AtomicU64>,
    writing: Arc<AtomicBool>,
    began: Option<Instant>,
}

impl KeptClock {
    pub(super) fn of(region: &Region) -> Self {
        let file = Arc::new(ClockFile::of(&region.settings().data_dir));
        Self { file, kept: Arc::default(), writing: Arc::default(), began: None }
    }

    fn reading(&self) -> Hlc {
        Hlc(self.kept.load(Ordering::Acquire))
    }

    /// Keeps a reading, in the background, unless one has just been kept.
    fn keep(&mut self, reading: Hlc) {
        if self.began.is_some_and(|began| began.elapsed() < CLOCK_EVERY) || reading <= self.reading() {
            return;
        }
        if self.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.began = Some(Instant::now());
        let (file, kept, writing) =
            (Arc::clone(&self.file), Arc::clone(&self.kept), Arc::clone(&self.writing));
        tokio::task::spawn_blocking(move || {
            match file.store(reading) {
                Ok(()) => kept.store(reading.0, Ordering::Release),
                Err(error) => {
                    tracing::warn!(%error, "cannot keep the clock; nothing is reaped until it can be")
                }
            }
            writing.store(false, Ordering::Release);
        });
    }
}

impl Hub {
    /// Tells the state machine how far this region has come: what it gave out, and its clock as kept.
    pub(super) fn tell_progress(&mut self) {
        let (sequence, _) = self.region.sequencer().progress();
        self.replica.handle_local(sequence, self.clock.reading());
        self.tell_loading();
    }

    /// Lets the clock go on, and tells the region what is settled.
    pub(super) fn tell_settled(&mut self) {
        let (_, reading) = self.region.sequencer().progress_at(self.region.wall());
        self.clock.keep(reading);
        self.tell_progress();
        let passed = self.replica.stability_mut().passed(self.region.mono());
        let passed = if self.region.is_confirmed() { passed } else { Hlc(0) };
        let stability = self.replica.stability();
        let members = self.region.membership();
        let id = |name: &str| RegionId::of(name);
        let kept = members.regions.keys().map(|name| id(name.as_str()));
        let kept = kept.filter(|region| !stability.is_waited_for(*region)).collect();
        let live =
            || members.regions.values().filter(|region| !stability.is_fenced(id(region.name.as_str())));
        let leaders =
            live().filter(|region| region.role == Role::Leader).map(|region| id(region.name.as_str()));
        let own = id(self.region.settings().region.as_str());
        let in_charge = leaders.min() == Some(own);
        self.region.set_settled(Settled { passed, kept, in_charge, alone: false });
    }
}
