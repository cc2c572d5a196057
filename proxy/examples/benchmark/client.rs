//! A small RESP client: calls, and bursts of prepared commands.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use meridian_proxy::resp::Value;
use meridian_proxy::resp::scan::ScanLimits;
use meridian_proxy::resp::value::decode;

/// The longest that a reply may take.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

const READ_BYTES: usize = 64 << 10;

/// A connection to a server on loopback.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Appends a command in wire form.
pub fn put(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

impl Client {
    /// Connects to `port`.
    pub fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        Ok(Self { stream, input: Vec::new(), output: Vec::new() })
    }

    /// Sends a command and waits for its reply, which must not be an error.
    pub fn call(&mut self, arguments: &[&[u8]]) -> anyhow::Result<Value> {
        self.output.clear();
        put(&mut self.output, arguments);
        self.stream.write_all(&self.output)?;
        let reply = self.receive()?;
        if reply.is_error() {
            let name = String::from_utf8_lossy(arguments.first().copied().unwrap_or_default());
            bail!("{name} answers {}", reply.text().unwrap_or("an error"));
        }
        Ok(reply)
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
        let limits = ScanLimits::default();
        loop {
            if let Some((value, length)) = decode(&self.input, &limits)? {
                self.input.drain(..length);
                return Ok(value);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let start = self.input.len();
        self.input.resize(start + READ_BYTES, 0);
        let room = self.input.get_mut(start..).unwrap_or_default();
        let count = self.stream.read(room).context("a server does not answer")?;
        self.input.truncate(start + count);
        if count == 0 {
            bail!("a server closed the connection");
        }
        Ok(())
    }

    /// Sends `commands`, all at once, and waits for their `count` replies, which must each be one line.
    pub fn burst(&mut self, commands: Vec<u8>, count: usize) -> anyhow::Result<()> {
        let mut writer = self.stream.try_clone()?;
        let writing = std::thread::spawn(move || writer.write_all(&commands));
        let mut missing = count;
        let mut line_start = true;
        while missing > 0 {
            self.input.clear();
            self.read()?;
            for byte in &self.input {
                if line_start && *byte == b'-' {
                    bail!("a command failed: {}", String::from_utf8_lossy(&self.input));
                }
                line_start = *byte == b'\n';
                missing -= usize::from(line_start);
            }
        }
        self.input.clear();
        match writing.join() {
            Ok(written) => Ok(written?),
            Err(_) => bail!("the writing thread ended badly"),
        }
    }

    /// The other end of the same connection, for a thread of its own.
    pub fn writer(&self) -> anyhow::Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Reads and drops what arrives until the connection is closed or silent for long.
    pub fn discard(mut self) {
        while self.read().is_ok() {
            self.input.clear();
        }
    }
}
