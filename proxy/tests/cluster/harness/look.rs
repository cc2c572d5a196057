//! What a cluster shows from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::NAMES;
use super::{Client, Cluster, http, wait_for};

/// How long before its deadline a wait for equality tells what differs.
const LAST_LOOK: Duration = Duration::from_millis(500);

impl Cluster {
    /// The state of a region's links by peer, as `/status` tells it.
    pub fn links_of(&self, i: usize) -> BTreeMap<String, String> {
        let status = self.status(i);
        let links = status["links"].as_array().expect("links");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        links.iter().map(|link| (text(&link["peer"]), text(&link["state"]))).collect()
    }

    /// A page of a region's admin server.
    pub fn get(&self, i: usize, path: &str) -> (u16, String) {
        http::get(self.regions[i].addresses.admin, path).unwrap_or_else(|e| panic!("{}: {e}", NAMES[i]))
    }

    /// Posts to a region's admin server.
    pub fn post(&self, i: usize, path: &str, body: &str) -> (u16, String) {
        http::post(self.regions[i].addresses.admin, path, body)
            .unwrap_or_else(|e| panic!("{}: {e}", NAMES[i]))
    }

    /// A region's status.
    pub fn status(&self, i: usize) -> serde_json::Value {
        serde_json::from_str(&self.get(i, "/status").1).unwrap()
    }

    /// The sum over all series of a metric that have these labels; zero if there is none.
    pub fn metric(&self, i: usize, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| found.get(*label).is_some_and(|v| v == value))
        };
        self.series(i, name).into_iter().filter(|(found, _)| fits(found)).map(|(_, value)| value).sum()
    }

    /// All series of a metric.
    pub fn series(&self, i: usize, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        http::series(&self.get(i, "/metrics").1, name)
    }

    /// Waits until digest and vector are the same in all regions, and returns how long that took.
    pub fn await_converged(&self, within: Duration) -> Duration {
        let began = Instant::now();
        let mut clients: Vec<Client> = self.all().map(|i| self.client(i)).collect();
        wait_for("digests and vectors to be equal", within, || {
            // A digest looks at all data: worth asking for only where there is nothing to apply.
            let vectors: Vec<_> = clients.iter_mut().map(Client::vector).collect();
            let late = began.elapsed() + LAST_LOOK > within;
            if vectors.windows(2).any(|pair| pair[0] != pair[1]) {
                if late {
                    eprintln!("vectors differ: {}", differences(&vectors));
                }
                return None;
            }
            let digests: Vec<_> =
                clients.iter_mut().map(|client| client.text(&["MERIDIAN.DIGEST"])).collect();
            let equal = digests.windows(2).all(|pair| pair[0] == pair[1]);
            if !equal && late {
                eprintln!("vectors are equal and digests are not: {digests:?}");
            }
            equal.then(|| began.elapsed())
        })
    }

    /// Bytes that region `i` has in memory now.
    pub fn resident(&self, i: usize) -> u64 {
        self.memory(i, "VmRSS:")
    }

    /// The most bytes that region `i` ever had in memory.
    pub fn peak_resident(&self, i: usize) -> u64 {
        self.memory(i, "VmHWM:")
    }

    fn memory(&self, i: usize, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(i))).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Seconds of processor time that region `i` has used.
    pub fn cpu_seconds(&self, i: usize) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid(i))).unwrap();
        // The name, in parentheses, may hold spaces; times are hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
    }

    /// The end of what a region's process said.
    pub fn said(&self, i: usize) -> String {
        tail(&self.regions[i].log, 6_000)
    }

    /// All that a region has logged.
    pub fn log(&self, i: usize) -> String {
        String::from_utf8_lossy(&fs::read(&self.regions[i].log).unwrap()).into_owned()
    }
}

/// What some have and others do not, in a line.
fn differences(vectors: &[Vec<(String, i64, i64)>]) -> String {
    let all: BTreeSet<_> = vectors.iter().flatten().map(|(name, life, _)| (name, life)).collect();
    let of = |vector: &Vec<(String, i64, i64)>, (name, life): (&String, &i64)| {
        vector.iter().find(|(n, l, _)| n == name && l == life).map_or(0, |(_, _, sequence)| *sequence)
    };
    let shown = all.into_iter().filter_map(|origin| {
        let each: Vec<i64> = vectors.iter().map(|vector| of(vector, origin)).collect();
        each.windows(2).any(|pair| pair[0] != pair[1]).then(|| format!("{}.{} {each:?}", origin.0, origin.1))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The last `most` bytes of a file.
fn tail(path: &Path, most: u64) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("({error})"),
    }
}
