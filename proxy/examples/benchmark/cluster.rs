//! The servers: regions of Meridian, and Redis.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use meridian_proxy::cert;
use meridian_proxy::config::{FileChecks, Settings};
use meridian_proxy::resp::Value;
use rustix::process::Signal;

use crate::Bench;
use crate::client::Client;
use crate::process::{PATIENCE, Server, free_tcp_ports, free_udp_port};

const NAMES: [&str; 3] = ["eu", "us", "ap"];

/// When a write is safe on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the reply.
    Always,
    /// Once a second.
    Everysec,
    /// Never. Only Redis is measured without persistence.
    No,
}

impl Sync {
    fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "never",
        }
    }

    /// The name of a Redis that is run so.
    pub fn redis(self) -> &'static str {
        match self {
            Self::Always => "Redis, always",
            Self::Everysec => "Redis, everysec",
            Self::No => "Redis, no persistence",
        }
    }
}

/// Starts a Redis with an empty directory.
pub fn redis(bench: &Bench, sync: Sync) -> anyhow::Result<Server> {
    let directory = fresh_directory(bench, "redis")?;
    let [port] = free_tcp_ports()?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    command.args(["--auto-aof-rewrite-percentage", "0"]);
    if sync != Sync::No {
        command.args(["--appendonly", "yes", "--appendfsync", sync.name()]);
    }
    Server::start(&bench.children, &mut command, &directory, port)
}

/// One region.
pub struct Region {
    /// Its process.
    pub server: Server,
    /// Its name.
    pub name: &'static str,
    directory: PathBuf,
    admin: u16,
}

/// A region that was configured and not started.
#[derive(Clone, Debug)]
struct Absent {
    name: &'static str,
    directory: PathBuf,
    port: u16,
    admin: u16,
}

impl Absent {
    fn start(self, bench: &Bench) -> anyhow::Result<Region> {
        let server = serve(bench, &self.directory, self.port)?;
        Ok(Region { server, name: self.name, directory: self.directory, admin: self.admin })
    }
}

/// Regions joined as a mesh. The first is the one that is loaded.
pub struct Cluster {
    /// Each region.
    pub regions: Vec<Region>,
    absent: Vec<Absent>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts `count` regions, from one to three, and waits until they hear each other.
    pub fn start(bench: &Bench, count: usize, sync: Sync) -> anyhow::Result<Self> {
        Self::start_with(bench, count, sync, "")
    }

    /// The same with `more` tables in each configuration.
    pub fn start_with(bench: &Bench, count: usize, sync: Sync, more: &str) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(bench, count, sync, "24h", more)?;
        cluster.regions =
            cluster.absent.drain(..).map(|region| region.start(bench)).collect::<Result<_, _>>()?;
        cluster.wait_for_links()?;
        Ok(cluster)
    }

    /// The same without the last one, which the others' logs do not wait for: it has to take over state.
    pub fn start_without_last(bench: &Bench, count: usize, sync: Sync) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(bench, count, sync, "1s", "")?;
        let last = cluster.absent.pop();
        cluster.regions =
            cluster.absent.drain(..).map(|region| region.start(bench)).collect::<Result<_, _>>()?;
        cluster.absent.extend(last);
        cluster.wait_for_links()?;
        Ok(cluster)
    }

    /// Starts the region that is absent; does not wait for its data.
    pub fn start_absent(&self, bench: &Bench) -> anyhow::Result<Region> {
        self.absent.last().context("all are there")?.clone().start(bench)
    }

    /// Bytes that all regions have sent over their links.
    pub fn bytes_sent(&self) -> anyhow::Result<f64> {
        self.regions.iter().map(Region::bytes_sent).sum()
    }

    /// Everything but the processes.
    fn prepare(bench: &Bench, count: usize, sync: Sync, retention: &str, more: &str) -> anyhow::Result<Self> {
        let directory = fresh_directory(bench, "meridian")?;
        let names = NAMES.get(..count).context("one to three regions")?;
        let mut links = Vec::new();
        for name in names {
            links.push((*name, free_udp_port()?));
        }
        if count > 1 {
            cert::create_ca(&directory)?;
        }
        let mut cluster = Self { regions: Vec::new(), absent: Vec::new(), directory };
        for (name, link) in &links {
            let region = cluster.prepare_region(name, *link, &links, (sync, retention, more))?;
            cluster.absent.push(region);
        }
        Ok(cluster)
    }

    /// The region that is loaded.
    pub fn first(&self) -> anyhow::Result<&Region> {
        self.regions.first().context("a cluster of none")
    }

    /// The region that watches.
    pub fn second(&self) -> anyhow::Result<&Region> {
        self.regions.get(1).context("a cluster of one")
    }

    fn prepare_region(
        &self,
        name: &'static str,
        link: u16,
        links: &[(&str, u16)],
        (sync, retention, more): (Sync, &str, &str),
    ) -> anyhow::Result<Absent> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory)?;
        let [port, admin] = free_tcp_ports()?;
        let mut text = format!(
            "cluster = \"benchmark\"\nregion = \"{name}\"\ndata_dir = \"data\"\n\
             [listen]\nresp = \"127.0.0.1:{port}\"\nlink = \"127.0.0.1:{link}\"\n\
             admin = \"127.0.0.1:{admin}\"\n[log]\nsync = \"{}\"\nretention = \"{retention}\"\n",
            sync.name()
        );
        if links.len() > 1 {
            cert::create_region(name, &self.directory, &directory, &[], cert::REGION_VALIDITY)?;
            write!(
                text,
                "[tls]\nca = \"../ca.pem\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n\
                 [topology]\nshape = \"mesh\"\n"
            )?;
            for (region, link) in links {
                write!(text, "[[regions]]\nname = \"{region}\"\naddress = \"127.0.0.1:{link}\"\n")?;
            }
        }
        text += more;
        // A mistake in the above is better told here than in a server's last words.
        Settings::parse(&text, &directory, FileChecks::Require)?;
        fs::write(directory.join("region.toml"), text)?;
        Ok(Absent { name, directory, port, admin })
    }

    fn wait_for_links(&self) -> anyhow::Result<()> {
        for region in &self.regions {
            region.server.client()?.call(&[b"SET", b"started", region.name.as_bytes()])?;
        }
        self.converge()
    }

    /// Waits until every region has applied the same ops.
    pub fn converge(&self) -> anyhow::Result<()> {
        let mut clients = self.clients()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let vectors = clients.iter_mut().map(vector).collect::<anyhow::Result<Vec<_>>>()?;
            let first = vectors.first().context("a cluster of none")?;
            if first.len() >= self.regions.len() && vectors.iter().all(|vector| vector == first) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("regions do not converge: {vectors:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing is left to do, and checks that the regions show the same.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.converge()?;
        let mut digests = Vec::new();
        for mut client in self.clients()? {
            digests.push(client.call(&[b"MERIDIAN.DIGEST"])?);
        }
        if digests.windows(2).any(|pair| matches!(pair, [a, b] if a != b)) {
            bail!("the regions DIVERGED: {digests:?}");
        }
        Ok(())
    }

    /// Waits until every region is idle and has what the others have.
    pub fn rest(&self) -> anyhow::Result<()> {
        self.converge()?;
        self.regions.iter().try_for_each(|region| region.server.rest())
    }

    /// Processor seconds of all regions so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.regions.iter().map(|region| region.server.cpu_seconds()).sum()
    }

    /// Sends a signal to the first region.
    pub fn signal_first(&self, signal: Signal) -> anyhow::Result<()> {
        self.first()?.server.signal(signal)
    }

    /// Sends a signal to every region but the first.
    pub fn signal_peers(&self, signal: Signal) -> anyhow::Result<()> {
        self.regions.iter().skip(1).try_for_each(|region| region.server.signal(signal))
    }

    fn clients(&self) -> anyhow::Result<Vec<Client>> {
        self.regions.iter().map(|region| region.server.client()).collect()
    }
}

impl Region {
    /// Starts it again, after it was stopped or killed, and waits for its first reply.
    pub fn restart(&mut self, bench: &Bench) -> anyhow::Result<()> {
        self.server = serve(bench, &self.directory, self.server.port)?;
        Ok(())
    }

    fn bytes_sent(&self) -> anyhow::Result<f64> {
        self.metric("meridian_link_bytes_total{", "direction=\"sent\"")
    }

    /// Conflicts counted so far.
    pub fn conflicts(&self) -> anyhow::Result<f64> {
        self.metric("meridian_conflicts_total{", "")
    }

    /// Conflicts recorded, those that were not, and bytes of the records.
    pub fn inbox(&self) -> anyhow::Result<[f64; 3]> {
        let [records, dropped, bytes] =
            ["meridian_inbox_records ", "meridian_conflict_records_dropped_total ", "meridian_inbox_bytes "]
                .map(|name| self.metric(name, ""));
        Ok([records?, dropped?, bytes?])
    }

    /// How often hooks have failed so far.
    pub fn hook_failures(&self) -> anyhow::Result<f64> {
        self.metric("meridian_hook_failures_total{", "")
    }

    /// Posts to the admin server.
    pub fn post(&self, path: &str, body: &str) -> anyhow::Result<()> {
        let answer = self.ask("POST", path, body)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{path} answers {answer}");
        }
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum of the samples that begin with `name` and contain `label`.
    fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let page = self.ask("GET", "/metrics", "")?;
        let samples = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Where its op log is.
    pub fn log_directory(&self) -> PathBuf {
        self.directory.join("data/log")
    }
}

fn serve(bench: &Bench, directory: &Path, port: u16) -> anyhow::Result<Server> {
    let mut command = Command::new(&bench.program);
    command.args(["serve", "--config", "region.toml"]);
    Server::start(&bench.children, &mut command, directory, port)
}

fn fresh_directory(bench: &Bench, what: &str) -> anyhow::Result<PathBuf> {
    let fresh = tempfile::Builder::new().prefix(&format!("{what}-")).tempdir_in(&bench.directory)?;
    // All of it goes with the benchmark's directory.
    Ok(fresh.keep())
}

/// What a region has applied, by region and incarnation.
pub fn vector(client: &mut Client) -> anyhow::Result<BTreeMap<(String, i64), i64>> {
    let reply = client.call(&[b"MERIDIAN.VECTOR"])?;
    let entries = reply.elements().context("MERIDIAN.VECTOR answers no array")?;
    let entry = |entry: &Value| match entry.elements() {
        Some([region, Value::Int(incarnation), Value::Int(sequence)]) => {
            Some(((region.text()?.to_owned(), *incarnation), *sequence))
        }
        _ => None,
    };
    entries.iter().map(|value| entry(value).context("MERIDIAN.VECTOR answers otherwise")).collect()
}
