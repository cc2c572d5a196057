//! Threads on which hooks merge what readers wait for.
//!
//! They are few and come after everybody else for the processor, so a slow hook costs those who read its keys
//! and nobody else.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// What waits for a thread; beyond, readers wait before they are in the queue.
const QUEUE: usize = 256;

/// Their place in line for the processor, as of `nice`.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They start with the first job and end with this.
#[derive(Debug, Default)]
pub struct Workers {
    jobs: OnceLock<Option<mpsc::Sender<Job>>>,
}

impl Workers {
    /// Runs `work` on one of the threads. `None` if that came to nothing: the process is shutting down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waits any more.
            let _ = done.send(work());
        });
        let unsent = match self.jobs.get_or_init(start) {
            Some(jobs) => jobs.send(job).await.err().map(|error| error.0),
            None => Some(job),
        };
        if let Some(job) = unsent {
            // The system gives no threads of our own.
            tokio::task::spawn_blocking(job);
        }
        outcome.await.ok()
    }
}

/// Half of the cores.
fn start() -> Option<mpsc::Sender<Job>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let (jobs, queue) = mpsc::channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let started = (0..(cores / 2).max(1)).filter_map(|_| {
        let queue = Arc::clone(&queue);
        thread::Builder::new().name("hooks".to_owned()).spawn(move || work_off(&queue)).ok()
    });
    (started.count() > 0).then_some(jobs)
}

fn work_off(queue: &Mutex<mpsc::Receiver<Job>>) {
    // Of this thread alone. Without it, hooks are merely less polite.
    #[cfg(target_os = "linux")]
    if rustix::process::getpriority_process(None).is_ok_and(|own| own < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    loop {
        let job = queue.lock().blocking_recv();
        match job {
            Some(job) => job(),
            None => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_done_on_threads_of_lower_priority() {
        let workers = Workers::default();
        let own = rustix::process::getpriority_process(None).unwrap();
        for n in 0..1_000 {
            let priority = || rustix::process::getpriority_process(None).unwrap();
            let (answer, theirs) = workers.run(move || (n, priority())).await.unwrap();
            assert_eq!(answer, n);
            assert_eq!(theirs, own.max(NICE));
        }
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), own);
    }

    #[tokio::test]
    async fn more_jobs_than_there_is_room_for_wait() {
        let workers = Arc::new(Workers::default());
        let waiting: Vec<_> = (0..4 * QUEUE)
            .map(|n| {
                let workers = Arc::clone(&workers);
                tokio::spawn(async move { workers.run(move || n).await.unwrap() })
            })
            .collect();
        for (n, job) in waiting.into_iter().enumerate() {
            assert_eq!(job.await.unwrap(), n);
        }
    }
}
