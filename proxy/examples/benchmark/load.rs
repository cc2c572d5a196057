//! Load by `redis-benchmark`.

use std::process::Command;

use anyhow::Context;

use crate::Bench;
use crate::client::{Client, put};
use crate::process::Server;

/// Keys, fields or members that are written and read.
pub const KEYS: usize = 100_000;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 64;

/// Bytes of a key: `key:` and twelve digits.
pub const KEY_BYTES: usize = 16;

/// Clients at once.
const CLIENTS: &str = "50";

/// Commands in one burst of the own client.
const BURST: usize = 50_000;

/// What is run, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The command; `KEY` is a random key's twelve digits, `VALUE` a value, `ROUND` the round.
    pub command: &'static str,
    /// Commands sent without waiting.
    pub pipeline: usize,
    /// How many different keys there are.
    pub keys: usize,
}

impl Load {
    /// The command with this pipeline.
    pub const fn new(command: &'static str, pipeline: usize) -> Self {
        Self { command, pipeline, keys: KEYS }
    }

    /// The same among `keys`.
    pub const fn among(self, keys: usize) -> Self {
        Self { keys, ..self }
    }

    /// Runs it `requests` times; operations per second.
    pub fn run(&self, bench: &Bench, server: &Server, requests: usize, round: usize) -> anyhow::Result<f64> {
        let value = "x".repeat(VALUE_BYTES);
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &server.port.to_string(), "-c", CLIENTS, "--csv"]);
        command.args(["-n", &requests.to_string(), "-P", &self.pipeline.to_string()]);
        command.args(["-r", &self.keys.to_string()]);
        for word in self.command.split(' ') {
            let word = word.replace("KEY", "__rand_int__").replace("VALUE", &value);
            command.arg(word.replace("ROUND", &round.to_string()));
        }
        let text = bench.children.output(&mut command)?;
        rate(&text).with_context(|| format!("redis-benchmark prints otherwise: {text:?}"))
    }
}

/// The second column of the last line.
fn rate(csv: &str) -> Option<f64> {
    let line = csv.lines().last()?.strip_prefix('"')?;
    line.split("\",\"").nth(1)?.parse().ok()
}

/// Sets keys `from..to`, each once, to a value.
pub fn fill(client: &mut Client, from: usize, to: usize) -> anyhow::Result<()> {
    fill_with(client, from, to, b'x')
}

/// The same with values made of this byte.
pub fn fill_with(client: &mut Client, from: usize, to: usize, byte: u8) -> anyhow::Result<()> {
    let value = [byte; VALUE_BYTES];
    let mut at = from;
    while at < to {
        let end = to.min(at + BURST);
        let mut commands = Vec::with_capacity((end - at) * (VALUE_BYTES + KEY_BYTES + 40));
        for key in at..end {
            put(&mut commands, &[b"SET", format!("key:{key:012}").as_bytes(), &value]);
        }
        client.burst(commands, end - at)?;
        at = end;
    }
    Ok(())
}
