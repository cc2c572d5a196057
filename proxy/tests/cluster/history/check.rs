//! The patterns that no causally convergent store shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Call, Session, Value};

/// What cannot have happened. Calls are named by session and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value was read that nobody wrote.
    ThinAir { read: Place },
    /// Something happened before itself.
    Cycle { among: Vec<Place> },
    /// Nothing was read where a write was known.
    InitialRead { read: Place, known: Place },
    /// A value was read that was known to be replaced.
    Stale { read: Place, replaced_by: Place },
    /// Two regions disagree in the end.
    Diverged { key: usize, values: BTreeSet<Option<Value>> },
    /// The end shows what was known to be replaced, or nothing where a write was acknowledged.
    LostInTheEnd { key: usize, lost: Place },
}

/// A call: session, index.
pub type Place = (usize, usize);

struct History<'a> {
    sessions: &'a [Session],
    writes: HashMap<Value, Place>,
    /// By call: how many calls of each session are in its causal past, itself included.
    past: Vec<Vec<Vec<usize>>>,
    /// By key and session: indexes of writes.
    by_key: BTreeMap<usize, Vec<Vec<usize>>>,
}

/// Looks for a fault. `ends` holds, for each region, what each key shows when all is quiet.
///
/// # Errors
/// The first fault found.
pub fn check(sessions: &[Session], ends: &[BTreeMap<usize, Value>]) -> Result<(), Fault> {
    let sessions = &seen_writes(sessions, ends);
    let mut writes = HashMap::new();
    let mut by_key: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
    for (s, session) in sessions.iter().enumerate() {
        for (i, call) in session.iter().enumerate() {
            if let Call::Write { key, value, .. } = call {
                assert!(writes.insert(*value, (s, i)).is_none(), "{value} is written twice");
                by_key.entry(*key).or_insert_with(|| vec![Vec::new(); sessions.len()])[s].push(i);
            }
        }
    }
    let past = sessions.iter().map(|session| vec![Vec::new(); session.len()]).collect();
    let mut history = History { sessions, writes, past, by_key };
    history.find_past()?;
    let order = history.check_reads()?;
    acyclic(sessions, &history.writes, &order)?;
    history.check_ends(ends)
}

/// Leaves out writes that were neither acknowledged nor ever seen: they did not happen.
fn seen_writes(sessions: &[Session], ends: &[BTreeMap<usize, Value>]) -> Vec<Session> {
    let read = sessions.iter().flatten().filter_map(|call| match call {
        Call::Read { value, .. } => *value,
        Call::Write { .. } => None,
    });
    let seen: BTreeSet<Value> = read.chain(ends.iter().flat_map(|end| end.values().copied())).collect();
    let happened = |call: &&Call| match call {
        Call::Write { value, acknowledged, .. } => *acknowledged || seen.contains(value),
        Call::Read { .. } => true,
    };
    sessions.iter().map(|session| session.iter().filter(happened).cloned().collect()).collect()
}

impl History<'_> {
    fn call(&self, (s, i): Place) -> &Call {
        &self.sessions[s][i]
    }

    /// The write that a read saw.
    fn source(&self, place: Place) -> Result<Option<Place>, Fault> {
        match self.call(place) {
            Call::Read { value: Some(value), .. } => {
                self.writes.get(value).copied().map(Some).ok_or(Fault::ThinAir { read: place })
            }
            _ => Ok(None),
        }
    }

    /// Fills `past`, along session order and reads-from.
    fn find_past(&mut self) -> Result<(), Fault> {
        let count = self.sessions.len();
        let mut next = vec![0; count];
        loop {
            let mut moved = false;
            for s in 0..count {
                while next[s] < self.sessions[s].len() {
                    let place = (s, next[s]);
                    let source = self.source(place)?;
                    if source.is_some_and(|(from, i)| next[from] <= i && (from, i) != place) {
                        break;
                    }
                    let mut past = match next[s].checked_sub(1) {
                        Some(before) => self.past[s][before].clone(),
                        None => vec![0; count],
                    };
                    if let Some((from, i)) = source {
                        for (known, other) in past.iter_mut().zip(&self.past[from][i]) {
                            *known = (*known).max(*other);
                        }
                    }
                    past[s] = next[s] + 1;
                    self.past[s][next[s]] = past;
                    next[s] += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let stuck: Vec<Place> = next.iter().enumerate().map(|(s, i)| (s, *i)).collect();
        let among: Vec<Place> = stuck.into_iter().filter(|(s, i)| *i < self.sessions[*s].len()).collect();
        if among.is_empty() { Ok(()) } else { Err(Fault::Cycle { among }) }
    }

    fn knows(&self, (s, i): Place, (from, at): Place) -> bool {
        self.past[s][i][from] > at
    }

    /// The last write to `key` of each session in the causal past of a call.
    fn known_writes(&self, key: usize, (s, i): Place) -> Vec<Place> {
        let past = &self.past[s][i];
        let of_key = self.by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
        let last = |(from, indexes): (usize, &Vec<usize>)| {
            let known = indexes.partition_point(|at| *at < past[from]);
            known.checked_sub(1).map(|at| (from, indexes[at]))
        };
        of_key.iter().enumerate().filter_map(last).collect()
    }

    /// Checks each read by itself. Returns which writes have to be ordered before which others for
    /// the reads to show what they did.
    fn check_reads(&self) -> Result<Vec<(Place, Place)>, Fault> {
        let mut order = Vec::new();
        for (s, session) in self.sessions.iter().enumerate() {
            for (i, call) in session.iter().enumerate() {
                let Call::Read { key, .. } = call else { continue };
                let read = (s, i);
                let source = self.source(read)?;
                for known in self.known_writes(*key, read) {
                    match source {
                        None => return Err(Fault::InitialRead { read, known }),
                        Some(source) if source == known => {}
                        Some(source) if self.knows(known, source) => {
                            return Err(Fault::Stale { read, replaced_by: known });
                        }
                        Some(source) => order.push((known, source)),
                    }
                }
            }
        }
        Ok(order)
    }

    fn check_ends(&self, ends: &[BTreeMap<usize, Value>]) -> Result<(), Fault> {
        for (key, by_session) in &self.by_key {
            let values: BTreeSet<Option<Value>> = ends.iter().map(|end| end.get(key).copied()).collect();
            if values.len() > 1 {
                return Err(Fault::Diverged { key: *key, values });
            }
            let shown = values.first().copied().flatten();
            let shown = shown.and_then(|value| self.writes.get(&value).copied());
            for (s, indexes) in by_session.iter().enumerate() {
                let Some(last) = indexes.last().map(|i| (s, *i)) else { continue };
                let lost = match shown {
                    None => true,
                    Some(shown) => shown != last && self.knows(last, shown),
                };
                if lost {
                    return Err(Fault::LostInTheEnd { key: *key, lost: last });
                }
            }
        }
        Ok(())
    }
}

/// Whether session order, reads-from and `order` together have no cycle: then one order of all writes
/// explains every read, in all regions alike.
fn acyclic(
    sessions: &[Session],
    writes: &HashMap<Value, Place>,
    order: &[(Place, Place)],
) -> Result<(), Fault> {
    let mut after: HashMap<Place, Vec<Place>> = HashMap::new();
    let mut waits: HashMap<Place, usize> = HashMap::new();
    let mut edge = |from: Place, to: Place| {
        after.entry(from).or_default().push(to);
        *waits.entry(to).or_default() += 1;
    };
    for (s, session) in sessions.iter().enumerate() {
        for (i, call) in session.iter().enumerate() {
            if i > 0 {
                edge((s, i - 1), (s, i));
            }
            if let Call::Read { value: Some(value), .. } = call {
                edge(writes[value], (s, i));
            }
        }
    }
    order.iter().for_each(|(from, to)| edge(*from, *to));
    let all = sessions.iter().enumerate().flat_map(|(s, session)| (0..session.len()).map(move |i| (s, i)));
    let mut left: BTreeSet<Place> = all.collect();
    let mut free: Vec<Place> = left.iter().filter(|place| !waits.contains_key(*place)).copied().collect();
    while let Some(place) = free.pop() {
        left.remove(&place);
        for next in after.remove(&place).unwrap_or_default() {
            let count = waits.get_mut(&next).unwrap();
            *count -= 1;
            if *count == 0 {
                free.push(next);
            }
        }
    }
    if left.is_empty() { Ok(()) } else { Err(Fault::Cycle { among: left.into_iter().collect() }) }
}

fn w(key: usize, value: Value) -> Call {
    Call::Write { key, value, acknowledged: true }
}

fn r(key: usize, value: Value) -> Call {
    Call::Read { key, value: (value > 0).then_some(value) }
}

fn end(values: &[(usize, Value)]) -> BTreeMap<usize, Value> {
    values.iter().copied().collect()
}

#[test]
fn concurrent_writes_may_show_either_way_until_the_end() {
    let sessions = [vec![w(0, 1), r(0, 1)], vec![w(0, 2), r(0, 2), r(0, 1)]];
    assert_eq!(check(&sessions, &[end(&[(0, 1)]), end(&[(0, 1)])]), Ok(()));
}

#[test]
fn reads_of_nothing_that_was_written_are_found() {
    assert_eq!(check(&[vec![r(0, 7)]], &[]), Err(Fault::ThinAir { read: (0, 0) }));
}

#[test]
fn a_session_that_forgets_its_own_write_is_found() {
    let found = check(&[vec![w(0, 1), r(0, 0)]], &[]);
    assert_eq!(found, Err(Fault::InitialRead { read: (0, 1), known: (0, 0) }));
}

#[test]
fn a_session_that_goes_back_in_time_is_found() {
    let sessions = [vec![w(0, 1), w(0, 2)], vec![r(0, 2), r(0, 1)]];
    assert_eq!(check(&sessions, &[]), Err(Fault::Stale { read: (1, 1), replaced_by: (0, 1) }));
}

#[test]
fn an_answer_without_what_it_answers_is_found() {
    // A asks, B answers, C sees the answer and not the question.
    let sessions = [vec![w(0, 1)], vec![r(0, 1), w(1, 2)], vec![r(1, 2), r(0, 0)]];
    assert_eq!(check(&sessions, &[]), Err(Fault::InitialRead { read: (2, 1), known: (0, 0) }));
}

#[test]
fn what_happened_before_itself_is_found() {
    let sessions = [vec![r(0, 2), w(1, 1)], vec![r(1, 1), w(0, 2)]];
    assert!(matches!(check(&sessions, &[]), Err(Fault::Cycle { .. })));
}

#[test]
fn regions_that_order_concurrent_writes_differently_are_found() {
    // Each sees both, and in the other order.
    let sessions = [vec![w(0, 1)], vec![w(0, 2)], vec![r(0, 1), r(0, 2)], vec![r(0, 2), r(0, 1)]];
    assert!(matches!(check(&sessions, &[]), Err(Fault::Cycle { .. })));
}

#[test]
fn ends_that_differ_or_lose_something_are_found() {
    let sessions = [vec![w(0, 1), w(0, 2)]];
    let ends = [end(&[(0, 2)]), end(&[(0, 1)])];
    assert!(matches!(check(&sessions, &ends), Err(Fault::Diverged { key: 0, .. })));
    assert!(matches!(check(&sessions, &[end(&[(0, 1)])]), Err(Fault::LostInTheEnd { key: 0, lost: (0, 1) })));
    assert!(matches!(check(&sessions, &[end(&[])]), Err(Fault::LostInTheEnd { .. })));
    assert_eq!(check(&sessions, &[end(&[(0, 2)])]), Ok(()));
}

#[test]
fn a_write_without_an_answer_counts_only_if_somebody_saw_it() {
    let maybe = Call::Write { key: 0, value: 1, acknowledged: false };
    assert_eq!(check(&[vec![maybe.clone(), r(0, 0)]], &[end(&[])]), Ok(()));
    let sessions = [vec![maybe, r(0, 0)], vec![r(0, 1)]];
    assert!(check(&sessions, &[end(&[(0, 1)])]).is_err());
}
