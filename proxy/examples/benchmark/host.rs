//! The machine the numbers come from.

use std::fs;
use std::process::Command;

use anyhow::Context;

/// A line on the machine, its load before the run among it.
pub fn line() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or("?");
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal:").unwrap_or(0) >> 20;
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    Ok(format!(
        "{cores} cores ({model}), {memory} GiB, Linux {}, Redis {}; load average before the run {load}.",
        kernel.trim(),
        redis_version()?
    ))
}

/// The number after `name` in a file of lines such as `VmHWM:  1234 kB`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn redis_version() -> anyhow::Result<String> {
    let output = Command::new("redis-server").arg("--version").output();
    let output = output.context("cannot run redis-server; install Redis 7")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or("?").to_owned())
}
