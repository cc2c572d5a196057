//! Mixed writes to a few shared keys, whose counters are kept count of.

use std::collections::BTreeMap;

use meridian_proxy::resp::Value;

use crate::harness::Cluster;

/// A small random generator: the same seed gives the same load.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// What was added to each counter.
pub type Tally = BTreeMap<String, i64>;

/// Runs `workers` connections to each region at once, `steps` pipelines each. Returns what all of
/// them added up to.
pub fn run(cluster: &Cluster, workers: usize, steps: usize) -> Tally {
    run_workers(cluster, workers, steps, false)
}

/// [`run`] with databases being flushed all the while, so that no counter is what was added to it.
pub fn run_with_flushes(cluster: &Cluster, workers: usize, steps: usize) {
    run_workers(cluster, workers, steps, true);
}

fn run_workers(cluster: &Cluster, workers: usize, steps: usize, flushes: bool) -> Tally {
    let mut sum = Tally::new();
    std::thread::scope(|scope| {
        let worker = |i: usize, worker: usize| {
            scope.spawn(move || Worker { flushes, ..Worker::new(cluster, i, worker) }.run(steps))
        };
        let running: Vec<_> = cluster
            .all()
            .flat_map(|i| (0..workers).map(move |w| (i, w)))
            .map(|(i, w)| worker(i, w))
            .collect();
        for tally in running {
            for (counter, added) in tally.join().unwrap() {
                *sum.entry(counter).or_default() += added;
            }
        }
    });
    sum
}

/// Checks that every region shows exactly what was added.
pub fn check(cluster: &Cluster, tally: &Tally) {
    for i in cluster.all() {
        let mut client = cluster.client(i);
        for (counter, sum) in tally {
            let shown = match counter.split_once('/') {
                Some(("totals", field)) => client.int(&["HGET", "totals", field]),
                Some((key, member)) => client.int(&["ZSCORE", key, member]),
                None => client.int(&["GET", counter]),
            };
            assert_eq!(shown, *sum, "{counter} at {}", cluster.name(i));
        }
    }
}

struct Worker<'a> {
    cluster: &'a Cluster,
    region: usize,
    id: String,
    random: Random,
    tally: Tally,
    unique: u64,
    flushes: bool,
}

impl<'a> Worker<'a> {
    fn new(cluster: &'a Cluster, region: usize, worker: usize) -> Self {
        let id = format!("{}{worker}", cluster.name(region));
        let random = Random::new((region * 7 + worker) as u64);
        Self { cluster, region, id, random, tally: Tally::new(), unique: 0, flushes: false }
    }

    fn run(mut self, steps: usize) -> Tally {
        let mut client = self.cluster.client(self.region);
        for _ in 0..steps {
            let mut commands = Vec::new();
            for _ in 0..=self.random.below(8) {
                if self.flushes && self.random.below(20) == 0 {
                    self.flush(&mut commands);
                } else if self.random.below(6) == 0 {
                    commands.push(words("MULTI"));
                    (0..3).for_each(|_| commands.push(self.command()));
                    commands.push(words("EXEC"));
                } else {
                    commands.push(self.command());
                }
            }
            let replies = client.pipeline(&commands).unwrap();
            commands.iter().zip(&replies).for_each(|(command, reply)| check_reply(command, reply));
        }
        self.tally
    }

    /// A flush of everything, of another database, or within a transaction.
    fn flush(&mut self, commands: &mut Vec<Vec<String>>) {
        let (before, after) = match self.random.below(3) {
            0 => return commands.push(words("FLUSHALL")),
            1 => ("SELECT 1", "SELECT 0"),
            _ => ("MULTI", "EXEC"),
        };
        commands.push(words(before));
        (0..3).for_each(|_| commands.push(self.command()));
        commands.push(words("FLUSHDB"));
        (0..2).for_each(|_| commands.push(self.command()));
        commands.push(words(after));
    }

    fn command(&mut self) -> Vec<String> {
        let (n, m, v) = (self.random.below(4), self.random.below(5), self.random.below(1_000));
        let by = i64::try_from(v).unwrap() - 300;
        // Every type on its own keys, and all types on one.
        let key = |own: &str| if m == 4 { "any".to_owned() } else { format!("{own}:{n}") };
        match self.random.below(16) {
            0 => words(&format!("SET {} {v}", key("s"))),
            1 => words(&format!("APPEND {} {m}", key("s"))),
            2 => self.add(format!("counter:{n}"), by, |c| format!("INCRBY {c} {by}")),
            3 => self.add(format!("totals/f{n}"), by, |_| format!("HINCRBY totals f{n} {by}")),
            4 => self.add(format!("scores/m{n}"), by, |_| format!("ZINCRBY scores {by} m{n}")),
            5 | 6 => words(&format!("HSET {} f{m} {v}", key("h"))),
            7 => words(&format!("HINCRBY {} f{m} {by}", key("h"))),
            8 => words(&format!("HDEL {} f{m}", key("h"))),
            9 => words(&format!("SADD {} m{v} n{m}", key("t"))),
            10 => words(&format!("SREM {} m{v} n{m}", key("t"))),
            11 => words(&format!("ZADD {} {v} m{m}", key("z"))),
            12 => words(&format!("ZINCRBY {} {by} m{m}", key("z"))),
            13 => words(&format!("DEL {}", key(["s", "h", "t", "z"][usize::try_from(m).unwrap() % 4]))),
            14 => words(&format!("PEXPIRE {} {}", key("h"), 1_000 + v)),
            _ => {
                self.unique += 1;
                words(&format!("SET unique:{}:{} {v}", self.id, self.unique))
            }
        }
    }

    fn add(&mut self, counter: String, by: i64, command: impl Fn(&str) -> String) -> Vec<String> {
        let command = words(&command(&counter));
        *self.tally.entry(counter).or_default() += by;
        command
    }
}

fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

/// Errors are for keys that have another type just now, and never for the counters.
fn check_reply(command: &[String], reply: &Value) {
    if let Some(replies) = reply.elements() {
        assert!(replies.iter().all(fits_the_moment), "{command:?}: {reply:?}");
        return;
    }
    let exact = command.get(1).is_some_and(|k| k.starts_with("counter") || k == "totals" || k == "scores");
    assert!(!(exact && reply.is_error()) && fits_the_moment(reply), "{command:?}: {reply:?}");
}

fn fits_the_moment(reply: &Value) -> bool {
    let expected = ["WRONGTYPE", "ERR hash value is not an integer", "ERR value is not an integer"];
    !reply.is_error() || expected.iter().any(|e| reply.text().is_some_and(|text| text.starts_with(e)))
}
