//! Which admin server a command talks to, and the token by which it is let in.

use std::fmt;
use std::path::PathBuf;

use crate::config::settings::Secret;
use crate::config::{FileProblem, read_token};

/// The port where a URL names none.
const DEFAULT_PORT: u16 = 9380;

/// A region's admin server.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// The region's admin address
    #[arg(long = "admin", value_name = "URL", default_value = "http://127.0.0.1:9380", value_parser = Url::parse)]
    pub url: Url,
    /// A file with the token of the region's admin.token_file, if it has one
    #[arg(long, value_name = "FILE", env = "MERIDIAN_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The token, read anew: it may have been replaced while a command runs.
    ///
    /// # Errors
    /// A file that cannot be used, as for a region.
    pub fn token(&self) -> Result<Option<Secret>, FileProblem> {
        self.token_file.as_deref().map(read_token).transpose()
    }
}

impl fmt::Display for AdminArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// A name, or an address without brackets.
    pub host: String,
    /// From 1 on.
    pub port: u16,
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

    /// Name or address and port, as the header `Host` has them.
    pub fn authority(&self) -> String {
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
}
