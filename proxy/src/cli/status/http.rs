//! As much of an HTTP/1.1 client as one request to an admin server needs: no TLS, no redirects, no
//! chunks. What follows without end is asked for in HTTP/1.0, which has none either.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The port where a URL names none.
const DEFAULT_PORT: u16 = 9380;

/// The longest answer.
const ANSWER_MAX_BYTES: u64 = 8 << 20;

/// The longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// A name, or an address without brackets.
    host: String,
    port: u16,
}

/// Why a text is not a [`Url`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The admin server speaks no TLS.
    #[error("the admin server speaks plain HTTP: use http://")]
    Scheme,
    /// There is no host in it, or one with characters that no host has.
    #[error("expected http://HOST:PORT")]
    Host,
    /// What follows the colon is not a port.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// There is a path.
    #[error("expected http://HOST:PORT without a path")]
    Path,
}

/// The admin server did not answer as hoped.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens there, or the connection broke.
    #[error("{url} does not answer: {source}; is the region running, and is this its listen.admin?")]
    Connection {
        /// Whom was asked.
        url: Url,
        /// What the system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{url} did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Slow {
        /// Whom was asked.
        url: Url,
    },
    /// It answers with an error.
    #[error("{url} answers {status}")]
    Status {
        /// Whom was asked.
        url: Url,
        /// The status line without its version.
        status: String,
    },
    /// The answer is not HTTP as spoken here, was cut short, or is too large.
    #[error("{url} does not speak as an admin server does: {what}")]
    Foreign {
        /// Whom was asked.
        url: Url,
        /// What is wrong.
        what: &'static str,
    },
}

impl Url {
    /// Reads `http://host:port`; the port may be left out.
    ///
    /// # Errors
    /// [`UrlError`]
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(UrlError::Scheme),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(UrlError::Path);
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(UrlError::Port)?)),
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let bracketed = rest.starts_with('[');
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (bracketed && byte == b':');
        if host.is_empty() || !host.bytes().all(fits) {
            return Err(UrlError::Host);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        Ok(Self { host: host.to_owned(), port })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// The body of `path` at `url`.
///
/// # Errors
/// [`HttpError`], also for every status but 200 and 202.
pub async fn get(url: &Url, path: &str) -> Result<Vec<u8>, HttpError> {
    ask(url, "GET", path).await
}

/// The body that posting nothing to `path` is answered with.
///
/// # Errors
/// As [`get`].
pub async fn post(url: &Url, path: &str) -> Result<Vec<u8>, HttpError> {
    ask(url, "POST", path).await
}

async fn ask(url: &Url, method: &str, path: &str) -> Result<Vec<u8>, HttpError> {
    let asked = tokio::time::timeout(ANSWER_WITHIN, exchange(url, method, path)).await;
    let answer = asked
        .map_err(|_| HttpError::Slow { url: url.clone() })?
        .map_err(|source| HttpError::Connection { url: url.clone(), source })?;
    body(url, answer)
}

async fn exchange(url: &Url, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    let authority = url.authority();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\naccept: */*\r\nuser-agent: meridian\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES + 1).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Server-sent events, one after the other.
pub struct Events {
    url: Url,
    reader: BufReader<TcpStream>,
}

/// One of [`Events`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name, empty for the usual kind.
    pub name: String,
    /// What it tells.
    pub data: String,
}

/// Follows `path` at `url`.
///
/// # Errors
/// [`HttpError`], also for every status but 200.
pub async fn follow(url: &Url, path: &str) -> Result<Events, HttpError> {
    let broken = |source| HttpError::Connection { url: url.clone(), source };
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(broken)?;
    let authority = url.authority();
    let request = format!(
        "GET {path} HTTP/1.0\r\nhost: {authority}\r\naccept: text/event-stream\r\nuser-agent: meridian\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut events = Events { url: url.clone(), reader: BufReader::new(stream) };
    let foreign = |what| HttpError::Foreign { url: url.clone(), what };
    let line = events.line().await?.ok_or_else(|| foreign("no header"))?;
    let status = line.strip_prefix("HTTP/1.0 ").or_else(|| line.strip_prefix("HTTP/1.1 "));
    let status = status.ok_or_else(|| foreign("no HTTP status line"))?;
    if !status.starts_with("200") {
        return Err(HttpError::Status { url: url.clone(), status: status.to_owned() });
    }
    while !events.line().await?.ok_or_else(|| foreign("the header was cut short"))?.is_empty() {}
    Ok(events)
}

impl Events {
    /// A line without its end; `None` once the server has ended the stream. It sends comments when it has
    /// nothing else, so silence is an error.
    async fn line(&mut self) -> Result<Option<String>, HttpError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(ANSWER_MAX_BYTES);
        let read = tokio::time::timeout(ANSWER_WITHIN, bounded.read_until(b'\n', &mut line)).await;
        read.map_err(|_| HttpError::Slow { url: self.url.clone() })?
            .map_err(|source| HttpError::Connection { url: self.url.clone(), source })?;
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let what = "a line is not text";
        String::from_utf8(line).map(Some).map_err(|_| HttpError::Foreign { url: self.url.clone(), what })
    }

    /// The next event; `None` once the server has ended the stream.
    ///
    /// # Errors
    /// [`HttpError`]
    pub async fn next(&mut self) -> Result<Option<Event>, HttpError> {
        let mut event = Event::default();
        while let Some(line) = self.line().await? {
            let value = |value: &str| value.strip_prefix(' ').unwrap_or(value).to_owned();
            match line.split_once(':') {
                Some(("data", text)) => event.data = value(text),
                Some(("event", text)) => event.name = value(text),
                None if line.is_empty() && event != Event::default() => return Ok(Some(event)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Takes an answer apart.
fn body(url: &Url, answer: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    let foreign = |what| HttpError::Foreign { url: url.clone(), what };
    if answer.len() as u64 > ANSWER_MAX_BYTES {
        return Err(foreign("the answer is too long"));
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) =
        end.and_then(|end| answer.split_at_checked(end)).ok_or_else(|| foreign("no header"))?;
    let body = body.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| foreign("the header is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.ok_or_else(|| foreign("no HTTP/1.1 status line"))?;
    if !["200", "202"].iter().any(|good| status.starts_with(good)) {
        return Err(HttpError::Status { url: url.clone(), status: status.to_owned() });
    }
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(foreign("the answer comes in chunks"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| foreign("no length"))?);
        }
    }
    match length {
        Some(length) => {
            body.get(..length).ok_or_else(|| foreign("the answer was cut short")).map(<[u8]>::to_vec)
        }
        None => Ok(body.to_vec()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown) in [
            ("http://127.0.0.1:9380", "http://127.0.0.1:9380"),
            ("http://eu.example.com:80/", "http://eu.example.com:80"),
            ("http://[::1]:9381", "http://[::1]:9381"),
            ("http://[::1]", "http://[::1]:9380"),
            ("http://localhost", "http://localhost:9380"),
            ("localhost:9381", "http://localhost:9381"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for (text, error) in [
            ("https://127.0.0.1:9380", UrlError::Scheme),
            ("http://127.0.0.1:9380/status", UrlError::Path),
            ("http://", UrlError::Host),
            ("http://:9380", UrlError::Host),
            ("http://a b:1", UrlError::Host),
            ("http://a\r\nx: y:1", UrlError::Host),
            ("http://user@host:1", UrlError::Host),
            ("http://::1:9380", UrlError::Host),
            ("http://a:0", UrlError::Port),
            ("http://a:65536", UrlError::Port),
            ("http://a:+1", UrlError::Port),
            ("http://a:", UrlError::Port),
            ("http://[::1]9380", UrlError::Port),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), error, "{text}");
        }
    }

    fn answer(text: &str) -> Result<Vec<u8>, String> {
        let url = Url::parse("http://a:1").unwrap();
        body(&url, text.as_bytes().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn answers() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore").unwrap(), b"ok");
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\nto the end").unwrap(), b"to the end");
        assert_eq!(
            answer("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err(),
            "http://a:1 answers 503 Service Unavailable"
        );
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "+PONG\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\ncontent-length: -9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(answer(bad).unwrap_err().contains("does not speak"), "{bad}");
        }
    }
}
