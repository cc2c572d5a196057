//! `meridian demo`: a whole cluster in this process, to try things out.

pub mod layout;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;

use crate::cert::{REGION_VALIDITY, create_ca, create_region};
use crate::config::{FileChecks, Settings};
use crate::service::{LinkState, Service};

use super::signals::Signals;
use layout::Layout;

/// How often the links are looked at until they are up.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// After how many looks it is said what is still missing.
const LOOKS_BEFORE_WORD: u32 = 500;

/// How the regions of a demo are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoTopology {
    /// Each region is fed by the one before it
    Ring,
    /// The first region is the hub
    Star,
    /// Every region feeds every other
    Mesh,
}

/// What to demonstrate.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// How the regions are joined
    #[arg(long, value_enum, default_value_t = DemoTopology::Ring)]
    pub topology: DemoTopology,
    /// How many regions: eu, us, ap, r4, ...
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=layout::REGIONS_MAX))]
    pub regions: u16,
    /// The first region's port for Redis clients
    #[arg(long, value_name = "P", default_value_t = 6381, value_parser = clap::value_parser!(u16).range(1024..))]
    pub base_port: u16,
    /// Where data is kept for the next time; a temporary directory if not given
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// More of every region's configuration, such as policies and homes; paths in it start at its directory.
    /// Without `[dev]` in it, the fault knobs are on
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
}

/// A demo is there to be broken, by `examples/rehearse` say, and nobody but this machine reaches it.
const FAULTS: &str = "\n[dev]\nfaults = true\n";

/// More of every region's configuration.
struct More {
    text: String,
    /// Where its relative paths start.
    directory: PathBuf,
}

impl More {
    fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("cannot find the current directory")?;
        let Some(file) = file else { return Ok(Self { text: FAULTS.to_owned(), directory: here }) };
        let mut text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let directory = file.parent().map_or_else(|| here.clone(), |parent| here.join(parent));
        // What is no TOML is told with everything else.
        if !text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("dev")) {
            text.push_str(FAULTS);
        }
        Ok(Self { text, directory })
    }
}

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// Ports in use, arguments that do not fit, and what keeps a region from starting.
pub async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let layout = Layout::new(args.topology, args.regions, args.base_port)?;
    let more = More::read(args.with.as_deref())?;
    check_ports(&layout)?;
    let mut signals = Signals::new()?;
    let scratch = Scratch::new()?;
    let data = std::path::absolute(args.data_dir.as_deref().unwrap_or(scratch.path()))?;
    let starting = start(&layout, scratch.path(), &data, &more);
    let services = tokio::select! {
        services = starting => services?,
        // Whatever has started ends with the process; what it wrote is thrown away or recovers.
        _ = signals.next() => return Ok(()),
    };
    say(&layout.introduction(args.data_dir.as_deref()))?;
    let name = tokio::select! {
        ready = wait_for_links(&services) => { ready?; signals.next().await }
        name = signals.next() => name,
    };
    tracing::info!(signal = name, "ending the demo");
    signals.drain(stop(services)).await
}

/// Starts every region; stops those that did if one does not.
async fn start(layout: &Layout, scratch: &Path, data: &Path, more: &More) -> anyhow::Result<Vec<Service>> {
    let tls = scratch.join("tls");
    create_ca(&tls)?;
    let mut services = Vec::new();
    for member in layout.members() {
        create_region(&member.name, &tls, &tls, &[], REGION_VALIDITY)?;
        let text = layout.configuration(member, &tls, data) + &more.text;
        match start_region(&text, &more.directory).await {
            Ok(service) => services.push(service),
            Err(error) => {
                // That one does not start is what matters.
                let _ = stop(services).await;
                return Err(error.context(format!("region {} does not start", member.name)));
            }
        }
    }
    Ok(services)
}

async fn start_region(text: &str, directory: &Path) -> anyhow::Result<Service> {
    let settings = Settings::parse(text, directory, FileChecks::Require)?;
    Service::start(settings).await
}

async fn stop(services: Vec<Service>) -> anyhow::Result<()> {
    let mut stopping = tokio::task::JoinSet::new();
    for service in services {
        stopping.spawn(service.stop());
    }
    while let Some(stopped) = stopping.join_next().await {
        stopped??;
    }
    Ok(())
}

/// Says `ready` once every link of every region is up.
async fn wait_for_links(services: &[Service]) -> anyhow::Result<()> {
    let mut looks = 0u32;
    loop {
        let missing = missing_links(services);
        if missing.is_empty() {
            return say("ready\n");
        }
        looks = looks.saturating_add(1);
        if looks.is_multiple_of(LOOKS_BEFORE_WORD) {
            tracing::warn!(links = missing.join("; "), "still waiting");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn missing_links(services: &[Service]) -> Vec<String> {
    let of_service = |service: &Service| {
        let region = service.region().settings().region.clone();
        let links: Vec<LinkState> = service.links().lock().values().cloned().collect();
        links.into_iter().filter(|link| !link.connected).map(move |link| {
            let error = link.last_error.map(|error| format!(" ({error})")).unwrap_or_default();
            format!("{region} with {}: {}{error}", link.peer, link.state)
        })
    };
    services.iter().flat_map(of_service).collect()
}

/// One error for all ports that are taken, before anything is written.
fn check_ports(layout: &Layout) -> anyhow::Result<()> {
    let taken: Vec<String> = layout
        .members()
        .flat_map(|member| {
            let tcp =
                |address| TcpListener::bind(address).err().map(|error| format!("TCP {address}: {error}"));
            let udp = |address| UdpSocket::bind(address).err().map(|error| format!("UDP {address}: {error}"));
            [tcp(member.resp), udp(member.link), tcp(member.admin)]
        })
        .flatten()
        .collect();
    if taken.is_empty() {
        return Ok(());
    }
    bail!("ports are in use, choose others with --base-port: {}", taken.join("; "))
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// A private directory that goes with the demo.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random)
            .map_err(|error| anyhow!("no randomness for a directory's name: {error}"))?;
        let name = format!("meridian-demo-{:016x}", u64::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "cannot remove the demo's directory");
        }
    }
}
