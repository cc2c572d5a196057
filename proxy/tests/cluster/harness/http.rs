//! Just enough HTTP to read a region's admin pages.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);

/// Gets a page: its status and body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(address, "GET", path, "", "")
}

/// [`get`] with more headers, each with its end.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> io::Result<(u16, String)> {
    ask(address, "GET", path, headers, "")
}

/// Posts `body`: the answer's status and body.
pub fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    ask(address, "POST", path, "", body)
}

/// Posts nothing, with more headers.
pub fn post_with(address: SocketAddr, path: &str, headers: &str) -> io::Result<(u16, String)> {
    ask(address, "POST", path, headers, "")
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}

/// All series of the metric `name` in Prometheus' text.
pub fn series(text: &str, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let parse = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let labels = labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        Some((labels, value.trim().parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}
