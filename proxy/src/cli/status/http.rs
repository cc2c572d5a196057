//! As much of an HTTP/1.1 client as one request to an admin server needs: no TLS, no redirects, no
//! chunks. What follows without end is asked for in HTTP/1.0, which has none either.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::table::clean;
use crate::cli::admin::{AdminArgs, Url};
use crate::config::FileProblem;

/// The longest answer.
const ANSWER_MAX_BYTES: u64 = 8 << 20;

/// The longest text of an error.
const ERROR_MAX_BYTES: u64 = 4 << 10;

/// The longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

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
    /// The token cannot be read here.
    #[error("--token-file {}: {problem}", file.display())]
    TokenFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// It asks for a token and was told none.
    #[error(
        "{url} asks for a token: give --token-file FILE or set MERIDIAN_TOKEN_FILE, \
         to a copy of what its admin.token_file names"
    )]
    TokenNeeded {
        /// Whom was asked.
        url: Url,
    },
    /// It does not know this token.
    #[error("{url} does not know the token in {}: is it what its admin.token_file holds?", file.display())]
    TokenUnknown {
        /// Whom was asked.
        url: Url,
        /// The token's file here.
        file: PathBuf,
    },
    /// It does not do that for anybody who asks like this.
    #[error("{url} refuses: {why}")]
    Refused {
        /// Whom was asked.
        url: Url,
        /// What it says.
        why: String,
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

/// The body of `path` at `admin`.
///
/// # Errors
/// [`HttpError`], also for every status but 200 and 202.
pub async fn get(admin: &AdminArgs, path: &str) -> Result<Vec<u8>, HttpError> {
    ask(admin, "GET", path).await
}

/// The body that posting nothing to `path` is answered with.
///
/// # Errors
/// As [`get`].
pub async fn post(admin: &AdminArgs, path: &str) -> Result<Vec<u8>, HttpError> {
    ask(admin, "POST", path).await
}

async fn ask(admin: &AdminArgs, method: &str, path: &str) -> Result<Vec<u8>, HttpError> {
    let url = &admin.url;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\n", url.authority()).into_bytes();
    request.extend_from_slice(b"user-agent: meridian\r\ncontent-length: 0\r\nconnection: close\r\n");
    finish(admin, &mut request)?;
    let asked = tokio::time::timeout(ANSWER_WITHIN, exchange(url, &request)).await;
    let answer = asked
        .map_err(|_| HttpError::Slow { url: url.clone() })?
        .map_err(|source| HttpError::Connection { url: url.clone(), source })?;
    body(admin, answer)
}

/// Ends a request's head, with the token if there is one.
fn finish(admin: &AdminArgs, request: &mut Vec<u8>) -> Result<(), HttpError> {
    let unusable =
        |problem| HttpError::TokenFile { file: admin.token_file.clone().unwrap_or_default(), problem };
    if let Some(token) = admin.token().map_err(unusable)? {
        request.extend_from_slice(b"authorization: Bearer ");
        token.write_to(request);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    Ok(())
}

async fn exchange(url: &Url, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES + 1).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What an answer that is not the one hoped for means.
fn unhoped(admin: &AdminArgs, status: &str, body: &[u8]) -> HttpError {
    let url = admin.url.clone();
    match (status.get(..3), &admin.token_file) {
        (Some("401"), None) => HttpError::TokenNeeded { url },
        (Some("401"), Some(file)) => HttpError::TokenUnknown { url, file: file.clone() },
        (Some("403"), _) => {
            let said = serde_json::from_slice::<serde_json::Value>(body).ok();
            let why = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or(status);
            HttpError::Refused { url, why: clean(why) }
        }
        _ => HttpError::Status { url, status: clean(status) },
    }
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

/// Follows `path` at `admin`.
///
/// # Errors
/// [`HttpError`], also for every status but 200.
pub async fn follow(admin: &AdminArgs, path: &str) -> Result<Events, HttpError> {
    let url = &admin.url;
    let broken = |source| HttpError::Connection { url: url.clone(), source };
    let mut request = format!("GET {path} HTTP/1.0\r\nhost: {}\r\n", url.authority()).into_bytes();
    request.extend_from_slice(b"accept: text/event-stream\r\nuser-agent: meridian\r\n");
    finish(admin, &mut request)?;
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(broken)?;
    stream.write_all(&request).await.map_err(broken)?;
    let mut events = Events { url: url.clone(), reader: BufReader::new(stream) };
    let foreign = |what| HttpError::Foreign { url: url.clone(), what };
    let line = events.line().await?.ok_or_else(|| foreign("no header"))?;
    let status = line.strip_prefix("HTTP/1.0 ").or_else(|| line.strip_prefix("HTTP/1.1 "));
    let status = status.ok_or_else(|| foreign("no HTTP status line"))?;
    while !events.line().await?.ok_or_else(|| foreign("the header was cut short"))?.is_empty() {}
    if !status.starts_with("200") {
        return Err(unhoped(admin, status, &events.rest().await?));
    }
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

    /// What follows until the end, as much of it as an error's text needs.
    async fn rest(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut rest = Vec::new();
        let mut bounded = (&mut self.reader).take(ERROR_MAX_BYTES);
        let read = tokio::time::timeout(ANSWER_WITHIN, bounded.read_to_end(&mut rest)).await;
        read.map_err(|_| HttpError::Slow { url: self.url.clone() })?
            .map_err(|source| HttpError::Connection { url: self.url.clone(), source })?;
        Ok(rest)
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
fn body(admin: &AdminArgs, answer: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    let url = &admin.url;
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
        return Err(unhoped(admin, status, body));
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

    fn admin(token_file: Option<&str>) -> AdminArgs {
        AdminArgs { url: Url::parse("http://a:1").unwrap(), token_file: token_file.map(PathBuf::from) }
    }

    fn answer(text: &str) -> Result<Vec<u8>, String> {
        body(&admin(None), text.as_bytes().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn refusals_say_what_to_do() {
        let told = |token_file, text: &str| {
            body(&admin(token_file), text.as_bytes().to_vec()).unwrap_err().to_string()
        };
        let unauthorized = "HTTP/1.1 401 Unauthorized\r\n\r\n{}";
        assert!(told(None, unauthorized).starts_with("http://a:1 asks for a token: give --token-file FILE"));
        assert!(told(Some("t"), unauthorized).starts_with("http://a:1 does not know the token in t: "));
        let forbidden = |body: &str| told(None, &format!("HTTP/1.1 403 Forbidden\r\n\r\n{body}"));
        let error = "{\"error\": \"set admin.token_file\\u001b[2J\"}";
        assert!(forbidden(error).starts_with("http://a:1 refuses: set admin.token_file"));
        assert!(!forbidden(error).contains('\x1b'), "terminals obey nothing from there");
        assert_eq!(forbidden("no"), "http://a:1 refuses: 403 Forbidden");
        let mut request = Vec::new();
        let error = finish(&admin(Some("/nonexistent")), &mut request).unwrap_err().to_string();
        assert!(error.starts_with("--token-file /nonexistent: cannot be read: "), "{error}");
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
