//! Processes that are measured, and that end with this one however it ends.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::host;

/// The longest that a server may take to start, stop or come to rest.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Linux counts processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server is at rest when it used less than this in [`REST_WINDOW`].
const REST_SECONDS: f64 = 0.02;
const REST_WINDOW: Duration = Duration::from_millis(200);

/// Servers that never rest are waited for this long.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// Every process that runs now.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<Vec<Pid>>>);

impl Children {
    /// Runs `command` to its end and returns what it printed, which must be little.
    pub fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        let mut running = self.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (mut text, mut errors) = (String::new(), String::new());
        if let Some(out) = &mut running.child.stdout {
            out.read_to_string(&mut text)?;
        }
        if let Some(out) = &mut running.child.stderr {
            out.read_to_string(&mut errors)?;
        }
        let status = running.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}: {}", command.get_program().display(), errors.trim());
        }
        Ok(text)
    }

    fn spawn(&self, command: &mut Command) -> anyhow::Result<Running> {
        // The signal thread must not look between start and entry.
        let mut children = self.0.lock();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {program}"))?;
        children.push(Pid::from_child(&child));
        drop(children);
        Ok(Running { child, children: self.clone() })
    }
}

/// Ends every child and this program on Ctrl-C and SIGTERM.
pub fn end_on_signals(children: Children, directory: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        let children = children.0.lock();
        for child in children.iter() {
            let _ = kill_process(*child, Signal::KILL);
        }
        let _ = fs::remove_dir_all(directory);
        std::process::exit(130);
    });
    Ok(())
}

/// A child that is killed when dropped.
struct Running {
    child: Child,
    children: Children,
}

impl Running {
    fn end(&mut self) {
        // Under the lock: a number that is free again must not be signalled.
        let mut children = self.children.0.lock();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let own = Pid::from_child(&self.child);
        children.retain(|child| *child != own);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A server that speaks RESP.
pub struct Server {
    running: Running,
    /// Where it listens on loopback.
    pub port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, whose output goes to a file in `directory`, and waits for its first reply.
    pub fn start(
        children: &Children,
        command: &mut Command,
        directory: &Path,
        port: u16,
    ) -> anyhow::Result<Self> {
        let log = directory.join("output.txt");
        let file = File::options().create(true).append(true).open(&log)?;
        command.current_dir(directory).stdout(file.try_clone()?).stderr(file);
        let mut server = Self { running: children.spawn(command)?, port, log };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answered = server.client().and_then(|mut client| client.call(&[b"PING"]));
            let Err(error) = answered else { return Ok(server) };
            if let Some(status) = server.running.child.try_wait()? {
                bail!("a server ended with {status}: {}", server.last_words());
            }
            if Instant::now() >= deadline {
                return Err(error.context(format!("a server does not answer: {}", server.last_words())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A connection to it.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.port)
    }

    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The name, in parentheses, may hold spaces.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|field| field.parse::<f64>().ok());
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else { bail!("/proc is not as expected") };
        Ok((user + system) / TICKS_PER_SECOND)
    }

    /// Resident bytes now.
    pub fn memory(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident bytes there were.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.running.child), signal)?)
    }

    /// Asks it to end and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.running.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("a server does not end: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.running.end();
    }

    /// Waits until it does nothing.
    pub fn rest(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + REST_WITHIN;
        let mut before = self.cpu_seconds()?;
        while Instant::now() < deadline {
            std::thread::sleep(REST_WINDOW);
            let now = self.cpu_seconds()?;
            if now - before < REST_SECONDS {
                break;
            }
            before = now;
        }
        Ok(())
    }

    fn status(&self, name: &str) -> anyhow::Result<u64> {
        let kib = host::field(&self.proc("status")?, name).ok_or_else(|| anyhow!("/proc has no {name}"))?;
        Ok(kib << 10)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.running.child.id());
        fs::read_to_string(&path).with_context(|| format!("a server is gone ({})", self.last_words()))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.reverse();
        lines.join(" | ")
    }
}

/// TCP ports that were free a moment ago.
pub fn free_tcp_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A UDP port that was free a moment ago.
pub fn free_udp_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
