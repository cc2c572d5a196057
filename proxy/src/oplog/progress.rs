//! How far the log got, and who waits for it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Lsn;

/// A position that only rises, the mark that belongs to it, and the tasks that wait for it to pass them.
#[derive(Debug)]
pub(super) struct Progress<M> {
    lsn: AtomicU64,
    at: Mutex<(Lsn, M)>,
    waiters: Mutex<Waiters>,
    /// How often somebody has begun to wait.
    waits: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiters {
    /// By what they wait for; the number keeps equals apart.
    queue: BTreeMap<(Lsn, u64), oneshot::Sender<()>>,
    next: u64,
    /// At this length those that gave up are removed.
    prune_at: usize,
    closed: bool,
}

impl<M: Clone> Progress<M> {
    pub(super) fn new(lsn: Lsn, mark: M) -> Self {
        Self {
            lsn: AtomicU64::new(lsn.0),
            at: Mutex::new((lsn, mark)),
            waiters: Mutex::default(),
            waits: AtomicU64::new(0),
        }
    }

    pub(super) fn lsn(&self) -> Lsn {
        Lsn(self.lsn.load(Ordering::Acquire))
    }

    pub(super) fn get(&self) -> (Lsn, M) {
        self.at.lock().clone()
    }

    pub(super) fn advance(&self, lsn: Lsn, mark: M) {
        *self.at.lock() = (lsn, mark);
        self.lsn.store(lsn.0, Ordering::Release);
        let reached = {
            let mut waiters = self.waiters.lock();
            let later = waiters.queue.split_off(&(lsn, 0));
            std::mem::replace(&mut waiters.queue, later)
        };
        for (_, waiter) in reached {
            // One that gave up is not there to hear it.
            let _ = waiter.send(());
        }
    }

    /// Everyone who waits, now or later, is told that it will not come.
    pub(super) fn close(&self) {
        let waiters = {
            let mut waiters = self.waiters.lock();
            waiters.closed = true;
            std::mem::take(&mut waiters.queue)
        };
        drop(waiters);
    }

    /// Waits until the position is past `lsn`; false if it never will be.
    pub(super) async fn passed(&self, lsn: Lsn) -> bool {
        if self.lsn() > lsn {
            return true;
        }
        let Some(wait) = self.register(lsn) else { return self.lsn() > lsn };
        wait.await.is_ok()
    }

    /// How often somebody has begun to wait so far.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiters.lock().queue.len()
    }

    /// `None` if there is nothing to wait for, because it passed or was closed.
    fn register(&self, lsn: Lsn) -> Option<oneshot::Receiver<()>> {
        let mut waiters = self.waiters.lock();
        if waiters.closed || self.lsn() > lsn {
            return None;
        }
        if waiters.queue.len() >= waiters.prune_at {
            waiters.queue.retain(|_, w| !w.is_closed());
            waiters.prune_at = 2 * waiters.queue.len().max(32);
        }
        let (tell, wait) = oneshot::channel();
        self.waits.fetch_add(1, Ordering::Relaxed);
        let number = waiters.next;
        waiters.next = waiters.next.wrapping_add(1);
        waiters.queue.insert((lsn, number), tell);
        Some(wait)
    }
}
