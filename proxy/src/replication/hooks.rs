//! Asking hooks here what they were asked elsewhere, so that the answers can be compared though nobody reads the key
//! here.
//!
//! Nobody waits for it: a question is asked on a thread for what blocks, after which the task rests for several times
//! as long. Where the values are others than there, they may be on their way: it is looked again a few times, then
//! given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_conflict::policy::Policy;
use meridian_topology::ledger::Waiting;
use tokio::sync::mpsc;

use crate::keyspace::{DATABASES, KeyRef};
use crate::region::Region;
use crate::store::StoreError;

/// Questions that wait to be asked.
pub(super) const QUESTIONS_MAX: usize = 256;

/// Questions that wait for their values.
const LATER_MAX: usize = 1_024;

/// How often values are looked for, and how long apart.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many times as long as it worked the task rests.
const REST: u32 = 4;

/// Bytes of values of one question: more than a hook is given.
const QUESTION_BYTES: usize = 2 << 20;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It was asked.
    Now,
    /// The values are others.
    NotYet,
    /// It need not be asked: the hook is another, or in quarantine.
    Never,
}

/// A question that waits for its values.
struct Later {
    waiting: Waiting,
    looks: u32,
    at: tokio::time::Instant,
}

/// Asks until the region drains.
pub(super) async fn run(region: Arc<Region>, mut heard: mpsc::Receiver<Waiting>) {
    let mut later: VecDeque<Later> = VecDeque::new();
    loop {
        let next = later.front().map(|first| first.at);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (waiting, looks) = tokio::select! {
            () = due => match later.pop_front() {
                Some(first) => (first.waiting, first.looks),
                None => continue,
            },
            waiting = heard.recv() => match waiting {
                Some(waiting) => (waiting, 0),
                None => return,
            },
        };
        let began = Instant::now();
        let (asking, asked) = (Arc::clone(&region), waiting.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&asking, &asked)).await;
        match asked {
            Ok(Ok(Asked::Now | Asked::Never)) => {}
            Ok(Ok(Asked::NotYet)) if looks < LOOKS && later.len() < LATER_MAX => {
                let at = tokio::time::Instant::now() + LOOK_EVERY;
                later.push_back(Later { waiting, looks: looks + 1, at });
            }
            // Also where the store cannot be read: that is told elsewhere.
            _ => region.metrics().hooks.answers_unasked.inc(),
        }
        tokio::time::sleep(began.elapsed() * REST).await;
    }
}

/// Asks the hook, if the key has the values that it was asked about.
fn ask(region: &Region, waiting: &Waiting) -> Result<Asked, StoreError> {
    let Waiting { hook, generation, answered, .. } = waiting;
    let active = region.keyspace().policies().current();
    let Policy::Hook(id) = active.policy(&answered.key) else { return Ok(Asked::Never) };
    let asker = active.asker(id);
    if usize::from(answered.database) >= DATABASES || (asker.hook, asker.generation) != (*hook, *generation) {
        return Ok(Asked::Never);
    }
    let Some(noting) = active.hook(id, answered.database) else { return Ok(Asked::Never) };
    let key = KeyRef::new(answered.database, &answered.key);
    let durable = region.log().durable_lsn().0;
    match region.keyspace().question(&key, &answered.subject, QUESTION_BYTES, durable)? {
        Ok(Some(question)) if question.digest(&asker) == answered.question => {
            // The witness takes the answer down.
            question.ask(Some(&noting), None);
            Ok(Asked::Now)
        }
        Ok(_) => Ok(Asked::NotYet),
        Err(_) => Ok(Asked::Never),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::replication::seed::tests::{Place, exchange};

    const RULES: &str = "[[conflicts]]\nkeys = \"max:*\"\npolicy = \"hook\"\nhook = \"max\"\n";

    #[tokio::test]
    async fn h1_what_was_asked_elsewhere_is_asked_where_the_values_are_the_same() {
        let places = [Place::with("eu", RULES), Place::with("us", RULES)];
        let notes = |place: &Place| place.region().keyspace().policies().witness().take();
        places[0].ask(0, "SET max:k 1");
        places[1].ask(0, "SET max:k 2");
        places[0].ask(0, "HSET max:h f 1");
        places[1].ask(0, "HSET max:h f 2");
        exchange(&places[0].region(), &places[1].region()).await;
        places[0].ask(0, "GET max:k");
        places[0].ask(0, "HGET max:h f");
        // Records of the conflicts may have been asked about, too.
        places[1].region().inbox().settle().await;
        notes(&places[1]);
        let noted = notes(&places[0]);
        assert!(noted.len() >= 2);
        let waiting = |note: &crate::policies::witness::Note| Waiting {
            hook: note.asker.hook,
            generation: note.asker.generation,
            answered: note.answered.clone(),
            from: None,
        };
        let us = places[1].region();
        for note in &noted {
            assert_eq!(ask(&us, &waiting(note)).unwrap(), Asked::Now);
            let here = notes(&places[1]);
            assert_eq!(here.len(), 1);
            let (here, there) = (&here[0].answered, &note.answered);
            assert_eq!((here.question, here.answer), (there.question, there.answer));
        }
        let note = &noted[0];
        let released = Waiting { generation: 2, ..waiting(note) };
        assert_eq!(ask(&us, &released).unwrap(), Asked::Never, "of another generation");
        let mut strange = waiting(note);
        strange.answered.database = 99;
        assert_eq!(ask(&us, &strange).unwrap(), Asked::Never);
        places[1].ask(0, "SET max:k 3");
        places[1].ask(0, "HSET max:h f 3");
        // A write looks at what it replaces.
        notes(&places[1]);
        assert_eq!(ask(&us, &waiting(note)).unwrap(), Asked::NotYet, "it was written since");
        assert!(notes(&places[1]).is_empty());
        places.into_iter().for_each(Place::stop);
    }
}
