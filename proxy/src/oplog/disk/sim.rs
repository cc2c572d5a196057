//! A disk in memory that loses power: any subset of what was not synced is gone, each write torn at any byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::{Condvar, Mutex};

use super::{Disk, LogFile};

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = *at as usize;
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len as usize, 0),
        }
    }
}

#[derive(Clone)]
enum Entry {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, id) => drop(names.insert(name.clone(), *id)),
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Entry>,
    /// Bytes that may still be written or allocated.
    space: Option<u64>,
    fail_flush: bool,
    flushes: u64,
    gate: Arc<Gate>,
}

/// What flushes pass through: closed, they take as long as the test likes.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    held: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.held += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.closed);
        state.held -= 1;
    }
}

impl State {
    fn spend(&mut self, bytes: u64) -> u64 {
        let Some(space) = &mut self.space else { return bytes };
        let granted = bytes.min(*space);
        *space -= granted;
        granted
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// The disk after a power loss; `pick(n)` chooses a number below `n`. This disk is untouched.
    pub(crate) fn crash(&self, mut pick: impl FnMut(usize) -> usize) -> Self {
        let mut state = self.0.lock().clone();
        for file in &mut state.files {
            for change in std::mem::take(&mut file.pending) {
                match (pick(3), change) {
                    (0, _) => {}
                    (1, Change::Write(at, data)) => {
                        // Any run of the write's bytes may have made it.
                        let (a, b) = (pick(data.len() + 1), pick(data.len() + 1));
                        let (a, b) = (a.min(b), a.max(b));
                        Change::Write(at + a as u64, data[a..b].to_vec()).apply(&mut file.durable);
                    }
                    (_, change) => change.apply(&mut file.durable),
                }
            }
            file.now = file.durable.clone();
        }
        for entry in std::mem::take(&mut state.pending_names) {
            if pick(2) == 0 {
                entry.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.space = None;
        state.fail_flush = false;
        state.gate = Arc::default();
        Self(Arc::new(Mutex::new(state)))
    }

    /// A copy whose content is all durable.
    pub(crate) fn settled(&self) -> Self {
        let mut state = self.0.lock().clone();
        for file in &mut state.files {
            file.durable = file.now.clone();
            file.pending.clear();
        }
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn set_space(&self, space: Option<u64>) {
        self.0.lock().space = space;
    }

    /// The next flush fails and drops what it should have kept.
    pub(crate) fn fail_next_flush(&self) {
        self.0.lock().fail_flush = true;
    }

    /// From now on flushes do not end, until this is taken back.
    pub(crate) fn hold_flushes(&self, hold: bool) {
        let gate = Arc::clone(&self.0.lock().gate);
        gate.state.lock().closed = hold;
        gate.changed.notify_all();
    }

    /// Returns once a flush is held.
    pub(crate) fn wait_for_held_flush(&self) {
        let gate = Arc::clone(&self.0.lock().gate);
        gate.changed.wait_while(&mut gate.state.lock(), |state| state.held == 0);
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.0.lock().flushes
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.files[state.names[name]].now.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.create(name, 0).unwrap().write_at(bytes, 0).unwrap();
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.list().unwrap()
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.0.lock();
        let id = state.files.len();
        // As `fallocate` does: all or nothing.
        if state.space.is_some_and(|space| space < len) {
            return Err(full());
        }
        state.spend(len);
        let mut content = Content::default();
        content.now.resize(len as usize, 0);
        content.pending.push(Change::SetLen(len));
        state.files.push(content);
        state.names.insert(name.to_owned(), id);
        state.pending_names.push(Entry::Link(name.to_owned(), id));
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let id = *self.0.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let entry = Entry::Rename(from.to_owned(), to.to_owned());
        let mut state = self.0.lock();
        entry.apply(&mut state.names);
        state.pending_names.push(entry);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let entry = Entry::Remove(name.to_owned());
        let mut state = self.0.lock();
        entry.apply(&mut state.names);
        state.pending_names.push(entry);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl LogFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let granted = state.spend(bytes.len() as u64) as usize;
        let change = Change::Write(offset, bytes[..granted].to_vec());
        let file = &mut state.files[self.id];
        change.apply(&mut file.now);
        file.pending.push(change);
        if granted < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let bytes = &state.files[self.id].now;
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        let gate = Arc::clone(&self.disk.0.lock().gate);
        gate.pass();
        let mut state = self.disk.0.lock();
        state.flushes += 1;
        let failed = std::mem::take(&mut state.fail_flush);
        let file = &mut state.files[self.id];
        file.pending.clear();
        if failed {
            return Err(io::Error::other("simulated"));
        }
        file.durable = file.now.clone();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let file = &mut state.files[self.id];
        file.now.resize(len as usize, 0);
        file.pending.push(Change::SetLen(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.id].now.len() as u64)
    }
}
