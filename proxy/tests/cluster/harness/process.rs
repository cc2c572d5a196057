//! One `meridian serve`.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// How long a region may take to end in order.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// `meridian serve` with this configuration.
pub fn serve(config: &Path) -> Command {
    serving(Command::new(env!("CARGO_BIN_EXE_meridian")), config)
}

/// The same, started by a shell script that ends in `exec "$@"`.
pub fn serve_in(script: &str, oplog: &Path, config: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_meridian")]).env("LOG", oplog);
    serving(shell, config)
}

fn serving(mut command: Command, config: &Path) -> Command {
    command.args(["serve", "--config"]).arg(config);
    command.env_remove("MERIDIAN_LOG").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A process that is killed when the test ends, however it does.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end in order.
    pub fn ask_to_stop(&self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> ExitStatus {
        self.ask_to_stop();
        wait_for("a process to end in order", DRAIN_WITHIN, || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
