//! A small blocking client, on the program's own reply decoder.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meridian_proxy::resp::Value;
use meridian_proxy::resp::scan::ScanLimits;
use meridian_proxy::resp::value::decode;

use super::{PATIENCE, wait_for};

const WITHIN: Duration = Duration::from_secs(30);

/// A connection to a region.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

/// One command in RESP.
pub fn encode(out: &mut Vec<u8>, args: &[impl AsRef<[u8]>]) {
    write!(out, "*{}\r\n", args.len()).unwrap();
    for arg in args {
        let arg = arg.as_ref();
        write!(out, "${}\r\n", arg.len()).unwrap();
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Connects as soon as the region is up; `None` once `done` says that nobody needs it any more.
    pub fn connect_until(address: SocketAddr, done: &AtomicBool) -> Option<Self> {
        wait_for("a region to be up", PATIENCE, || match Self::connect(address) {
            Ok(client) => Some(Some(client)),
            Err(_) => done.load(Ordering::Relaxed).then_some(None),
        })
    }

    /// Sends a command and reads its reply, which may be an error of the command.
    pub fn try_call(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Value> {
        let mut out = Vec::new();
        encode(&mut out, args);
        self.send(&out)?;
        self.reply()
    }

    /// [`Client::try_call`] on a connection that must not break.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Value {
        self.try_call(args).unwrap_or_else(|error| panic!("{:?}: {error}", words(args)))
    }

    /// The reply as text; an error of the command fails the test.
    pub fn text(&mut self, args: &[impl AsRef<[u8]>]) -> String {
        let reply = self.call(args);
        assert!(!reply.is_error(), "{:?}: {reply:?}", words(args));
        reply.text().unwrap_or_else(|| panic!("{:?}: {reply:?}", words(args))).to_owned()
    }

    /// The reply as text, or nothing.
    pub fn maybe(&mut self, args: &[impl AsRef<[u8]>]) -> Option<String> {
        let reply = self.call(args);
        assert!(!reply.is_error(), "{:?}: {reply:?}", words(args));
        reply.text().map(str::to_owned)
    }

    /// The reply as a number.
    pub fn int(&mut self, args: &[impl AsRef<[u8]>]) -> i64 {
        match self.call(args) {
            Value::Int(number) => number,
            other => other.text().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{other:?}")),
        }
    }

    /// Runs a command that must answer `OK`.
    pub fn ok(&mut self, args: &[impl AsRef<[u8]>]) {
        assert_eq!(self.call(args), Value::Simple(b"OK".to_vec()), "{:?}", words(args));
    }

    /// Sends commands at once and reads all replies.
    pub fn pipeline(&mut self, commands: &[Vec<String>]) -> io::Result<Vec<Value>> {
        let mut out = Vec::new();
        commands.iter().for_each(|args| encode(&mut out, args));
        self.send(&out)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// The applied vector: region, incarnation, sequence, sorted.
    pub fn vector(&mut self) -> Vec<(String, i64, i64)> {
        let reply = self.call(&["MERIDIAN.VECTOR"]);
        let entry = |value: &Value| match value.elements() {
            Some([region, Value::Int(incarnation), Value::Int(sequence)]) => {
                (region.text().unwrap().to_owned(), *incarnation, *sequence)
            }
            _ => panic!("{value:?}"),
        };
        let mut vector: Vec<_> = reply.elements().expect("an array").iter().map(entry).collect();
        vector.sort();
        vector
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits until something of a reply has come.
    pub fn await_first_byte(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).map(drop)
    }

    /// Reads the next reply.
    pub fn reply(&mut self) -> io::Result<Value> {
        let mut chunk = [0; 64 << 10];
        loop {
            match decode(&self.input, &ScanLimits::default()) {
                Ok(Some((value, length))) => {
                    self.input.drain(..length);
                    return Ok(value);
                }
                Ok(None) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    /// Reads until the other side closes; everything that came.
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.input);
        match self.stream.read_to_end(&mut all) {
            // Closed with something of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(all),
            Err(error) => Err(error),
            Ok(_) => Ok(all),
        }
    }
}

fn words(args: &[impl AsRef<[u8]>]) -> Vec<String> {
    let word = |arg: &[u8]| String::from_utf8_lossy(&arg[..arg.len().min(60)]).into_owned();
    args.iter().map(|arg| word(arg.as_ref())).collect()
}
