//! What clients have to say first. The file is read anew for each that says something, as it may have been replaced;
//! one that cannot be used changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinError;
use tokio::time::timeout;

use crate::config::settings::{Auth, Secret};
use crate::config::{FileProblem, read_password};

/// How long a client waits for the disk before it is compared with what is known.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// The clients' password.
#[derive(Debug)]
pub struct Password {
    file: PathBuf,
    known: Arc<Mutex<Known>>,
    /// Held by the thread that reads: a disk that does not answer holds one and no more, and what was read first is
    /// learnt first.
    reading: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Known {
    in_force: Arc<Secret>,
    /// Why the file cannot be used, since it was looked at last.
    trouble: Option<FileProblem>,
}

impl Known {
    fn learn(&mut self, read: Result<Secret, FileProblem>) {
        match read {
            Ok(secret) => {
                self.trouble = None;
                if secret != *self.in_force {
                    self.in_force = Arc::new(secret);
                    tracing::info!("another password is in force; clients that are connected stay");
                }
            }
            Err(problem) => {
                if self.trouble.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "auth.password_file cannot be used: the former password stays in force");
                }
                self.trouble = Some(problem);
            }
        }
    }
}

impl Password {
    /// As the start has read it.
    pub(crate) fn of(auth: &Auth) -> Self {
        let known = Known { in_force: Arc::new(auth.password.clone()), trouble: None };
        Self { file: auth.password_file.clone(), known: Arc::new(Mutex::new(known)), reading: Arc::default() }
    }

    /// Whether `guess` is what the file says now.
    pub(super) async fn matches(&self, guess: &[u8]) -> bool {
        self.look().await;
        let in_force = Arc::clone(&self.known.lock().in_force);
        in_force.matches(guess)
    }

    /// Why the file could not be used when it was looked at last; the password before it is in force.
    pub(crate) fn trouble(&self) -> Option<FileProblem> {
        self.known.lock().trouble.clone()
    }

    async fn look(&self) {
        let looked = timeout(READ_WITHIN, async {
            let reading = Arc::clone(&self.reading).lock_owned().await;
            let (file, known) = (self.file.clone(), Arc::clone(&self.known));
            tokio::task::spawn_blocking(move || {
                let read = read_password(&file);
                known.lock().learn(read);
                drop(reading);
            })
            .await
        });
        let message = match looked.await {
            Ok(looked) => looked.err().map(|error: JoinError| error.to_string()),
            Err(_) => Some(format!("no answer within {} s", READ_WITHIN.as_secs())),
        };
        if let Some(message) = message {
            self.known.lock().learn(Err(FileProblem::Unreadable { message }));
        }
    }
}
