//! Clusters of real `meridian serve` processes on this machine. Every link crosses a relay that can
//! delay, lose and cut; every wait is for a condition and has a deadline.

pub mod client;
mod config;
mod disturb;
pub mod http;
mod links;
mod look;
pub mod peer;
pub mod ports;
mod process;
pub mod shim;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use shim::Shim;
use tempfile::TempDir;

pub use client::Client;
use config::{Addresses, NAMES};
pub use config::{Options, Shape};
use links::Links;
pub use process::serve;
use process::{Process, serve_in};

/// The longest that anything may take; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `MERIDIAN_TEST_SCALE` asks for: 1 unless it is set, 20 for `full`, or a number.
pub fn scale() -> usize {
    match std::env::var("MERIDIAN_TEST_SCALE").as_deref() {
        Ok("full") => 20,
        Ok(number) => number.parse().expect("MERIDIAN_TEST_SCALE is `full` or a number"),
        Err(_) => 1,
    }
}

/// Whether everything is asked for, however long it takes.
pub fn is_full() -> bool {
    std::env::var("MERIDIAN_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

/// Between two looks at a condition that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for `at`: the pace of faults, or the length of what is measured.
pub fn until(at: Instant) {
    let within = at.saturating_duration_since(Instant::now()) + PATIENCE;
    wait_for("its time", within, || (Instant::now() >= at).then_some(()));
}

/// Polls until `condition` gives something; fails after `within`. The one place where tests pause.
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// One region of a cluster.
struct Region {
    addresses: Addresses,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    shim: Option<Shim>,
    process: Option<Process>,
}

/// A second process of a region; ends when dropped.
pub struct Twin {
    /// Where applications connect to it.
    pub resp: std::net::SocketAddr,
    _process: Process,
}

/// Regions `a`, `b`, `c` and so on, in processes of their own.
pub struct Cluster {
    regions: Vec<Region>,
    links: Links,
    directory: TempDir,
    options: Options,
}

impl Cluster {
    /// Starts `options.regions` regions and waits until all are ready and linked.
    pub fn start(options: Options) -> Self {
        let cluster = Self::prepare(options);
        cluster.started()
    }

    /// Everything but the processes.
    pub fn prepare(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        config::certificates(directory.path(), options.regions);
        let addresses: Vec<Addresses> = (0..options.regions).map(|_| ports::take()).collect();
        let links = Links::start(&addresses, options.conditions);
        let regions = (0..options.regions)
            .map(|i| {
                let name = NAMES[i];
                let data = directory.path().join(name);
                let config = directory.path().join(format!("{name}.toml"));
                let text = config::text(&options, i, &addresses, &data, |peer| links.address(i, peer));
                fs::write(&config, text).unwrap();
                let log = directory.path().join(format!("{name}.stderr"));
                let shim = options.shim.then(|| Shim::new(directory.path().join(format!("{name}.shim"))));
                Region { addresses: addresses[i], config, data, log, shim, process: None }
            })
            .collect();
        Self { regions, links, directory, options }
    }

    fn started(mut self) -> Self {
        for i in self.all() {
            self.spawn(i);
        }
        self.await_ready();
        self.await_links();
        self
    }

    /// The numbers of all regions.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.regions.len()
    }

    /// A region's name.
    pub fn name(&self, i: usize) -> &'static str {
        NAMES[i]
    }

    /// Where certificates and configurations are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A region's configuration file.
    pub fn config(&self, i: usize) -> &Path {
        &self.regions[i].config
    }

    /// A region's data directory.
    pub fn data(&self, i: usize) -> &Path {
        &self.regions[i].data
    }

    /// Where a region really listens for links, past the relays.
    pub fn link_address(&self, i: usize) -> std::net::SocketAddr {
        self.regions[i].addresses.link
    }

    /// Where applications connect to a region.
    pub fn resp_address(&self, i: usize) -> std::net::SocketAddr {
        self.regions[i].addresses.resp
    }

    /// Where a region's admin server listens.
    pub fn admin_address(&self, i: usize) -> std::net::SocketAddr {
        self.regions[i].addresses.admin
    }

    /// A second process of region `i`, on ports and data of its own. Its peers are not asked to dial it.
    pub fn twin(&self, i: usize, data: &Path) -> Twin {
        let addresses = ports::take();
        let listening: Vec<Addresses> = self
            .all()
            .map(|other| if other == i { addresses } else { self.regions[other].addresses })
            .collect();
        let text = config::text(&self.options, i, &listening, data, |peer| self.links.address(i, peer));
        let config = self.directory().join("twin.toml");
        fs::write(&config, text).unwrap();
        let process = Process::start(serve(&config), &self.directory().join("twin.stderr"));
        Twin { resp: addresses.resp, _process: process }
    }

    /// The process number of a running region.
    pub fn pid(&self, i: usize) -> u32 {
        self.regions[i].process.as_ref().expect("running").id()
    }

    /// Starts a region's process; does not wait for it.
    pub fn spawn(&mut self, i: usize) {
        let region = &mut self.regions[i];
        assert!(region.process.is_none(), "{} runs already", NAMES[i]);
        let mut command = match self.options.launcher {
            Some(script) => serve_in(script, &region.data.join("log"), &region.config),
            None => serve(&region.config),
        };
        if let Some(shim) = &region.shim {
            shim.load(&mut command, &region.data);
        }
        region.process = Some(Process::start(command, &region.log));
    }

    /// Starts a region again and waits until it serves clients.
    pub fn restart(&mut self, i: usize) {
        self.spawn(i);
        self.await_ready_of(i);
    }

    /// Ends a region without warning.
    pub fn kill9(&mut self, i: usize) {
        self.regions[i].process.take().expect("running").kill9();
        self.archive(i);
    }

    /// Ends a region in order.
    pub fn stop(&mut self, i: usize) {
        let status = self.regions[i].process.take().expect("running").stop();
        assert_eq!(status.code(), Some(0), "{} did not end in order", NAMES[i]);
        self.archive(i);
    }

    /// Asks a region to end in order; does not wait for it.
    pub fn ask_to_stop(&self, i: usize) {
        self.regions[i].process.as_ref().expect("running").ask_to_stop();
    }

    /// How a region's process ended, once it has.
    pub fn ended(&mut self, i: usize) -> Option<ExitStatus> {
        let status = self.regions[i].process.as_mut().expect("running").ended()?;
        self.regions[i].process = None;
        self.archive(i);
        Some(status)
    }

    /// What moves a region's clock and breaks its calls; there is one if the options say so.
    pub fn shim(&self, i: usize) -> &Shim {
        self.regions[i].shim.as_ref().expect("options with a shim")
    }

    /// Keeps the segments of a log that has come to rest, whatever is truncated later.
    fn archive(&self, i: usize) {
        let archive = self.archived(i);
        fs::create_dir_all(&archive).unwrap();
        let Ok(files) = fs::read_dir(self.data(i).join("log")) else { return };
        for file in files.map(Result::unwrap) {
            let kept = archive.join(file.file_name());
            if file.path().extension().is_some_and(|e| e == "log") && !kept.exists() {
                fs::hard_link(file.path(), kept).unwrap();
            }
        }
    }

    /// All segments that region `i` has ever written, once it is down.
    pub fn archived(&self, i: usize) -> PathBuf {
        self.directory.path().join(format!("{}.archive", NAMES[i]))
    }

    /// Waits until a region takes writes. Fails at once if its process has ended.
    pub fn await_ready_of(&mut self, i: usize) {
        let region = &mut self.regions[i];
        let admin = region.addresses.admin;
        let process = region.process.as_mut().expect("running");
        wait_for("a region to be ready", PATIENCE, || {
            assert!(process.is_running(), "{} ended instead of starting", NAMES[i]);
            matches!(http::get(admin, "/readyz"), Ok((200, _))).then_some(())
        });
    }

    fn await_ready(&mut self) {
        for i in self.all() {
            self.await_ready_of(i);
        }
    }

    /// Whether a region's process runs.
    pub fn is_up(&self, i: usize) -> bool {
        self.regions[i].process.is_some()
    }

    /// Waits until every link between running regions is up.
    pub fn await_links(&self) {
        let up: Vec<&str> = self.all().filter(|i| self.is_up(*i)).map(|i| NAMES[i]).collect();
        for i in self.all().filter(|i| self.is_up(*i)) {
            wait_for(&format!("the links of {}", NAMES[i]), PATIENCE, || {
                let links = self.links_of(i);
                let linked = |name: &&str| links.get(*name).is_none_or(|state| state == "up");
                up.iter().all(linked).then_some(())
            });
        }
    }

    /// A connection to a region, if it listens.
    pub fn try_client(&self, i: usize) -> std::io::Result<Client> {
        Client::connect(self.regions[i].addresses.resp)
    }

    /// A connection to a region.
    pub fn client(&self, i: usize) -> Client {
        self.try_client(i).unwrap_or_else(|e| panic!("{}: {e}", NAMES[i]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for i in self.all() {
                eprintln!("---- the end of {}'s log:\n{}", NAMES[i], self.said(i));
            }
        }
    }
}
