//! Who may ask for which page: a bearer token, or being on the same machine; and no browsers.
//!
//! A browser that an operator uses on the same machine is no operator: a page on the web may have it send requests
//! to loopback. It cannot send a token that it does not know, and what it sends either names where it comes from
//! (`Origin`), or, where its page's own name was made to lead to loopback, that name (`Host`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde_json::json;

use super::View;
use super::guard::Guarded;
use super::pages::{Need, Page, Verb};
use crate::config::settings::MetricsAccess;
use crate::config::{FileProblem, read_token};

/// The scheme of `Authorization`, in any case.
const SCHEME: &[u8] = b"bearer";

/// Whom a connection is with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Why a request is refused. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It says no token.
    #[error(
        "this needs the header `Authorization: Bearer TOKEN` with the token of admin.token_file; \
         meridian's commands take it by --token-file"
    )]
    NoToken,
    /// It says another one.
    #[error("this is not the token of admin.token_file")]
    WrongToken,
    /// There is none that it could say.
    #[error("set admin.token_file: without a token this is served on loopback only")]
    NoTokenFile,
    /// The token's file cannot be used now.
    #[error("admin.token_file cannot be used, the log says why")]
    TokenUnreadable(FileProblem),
    /// A browser sends it for a page.
    #[error("this is not for browsers: it has the header Origin")]
    Origin,
    /// A browser may send it for a page whose name leads here.
    #[error("the header Host has to be localhost or a loopback address, unless admin.token_file is set")]
    Host,
    /// Its body is too large.
    #[error("{}", too_large(*most))]
    Body {
        /// The largest.
        most: usize,
    },
}

fn too_large(most: usize) -> String {
    if most == 0 { "this takes no body".to_owned() } else { format!("the body has more than {most} bytes") }
}

impl Refusal {
    /// The metric's label.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::NoTokenFile => "no_token_file",
            Self::TokenUnreadable(_) => "token_unreadable",
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Body { .. } => "body",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NoTokenFile | Self::Origin | Self::Host => StatusCode::FORBIDDEN,
            Self::TokenUnreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// Stands before a page.
#[derive(Clone)]
pub(super) struct Gate {
    view: View,
    page: &'static Page,
}

impl Gate {
    pub(super) fn new(view: View, page: &'static Page) -> Self {
        Self { view, page }
    }

    async fn judge(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.page.verb == Verb::Change && parts.headers.contains_key(header::ORIGIN) {
            return Err(Refusal::Origin);
        }
        let settings = self.view.region.settings();
        let is_needed = match self.page.need {
            Need::Nothing => false,
            Need::Metrics => settings.admin.metrics == MetricsAccess::Token,
            Need::Token => true,
        };
        if !is_needed {
            return Ok(());
        }
        let Some(file) = &settings.admin.token_file else {
            if !settings.listen.admin.ip().to_canonical().is_loopback() {
                return Err(Refusal::NoTokenFile);
            }
            return if names_loopback(parts) { Ok(()) } else { Err(Refusal::Host) };
        };
        let said = bearer(&parts.headers).ok_or(Refusal::NoToken)?;
        let file = file.clone();
        // Anew each time: it may have been replaced.
        let read = tokio::task::spawn_blocking(move || read_token(&file)).await;
        let unreadable =
            |error: tokio::task::JoinError| FileProblem::Unreadable { message: error.to_string() };
        let token = read.map_err(unreadable).and_then(|read| read).map_err(Refusal::TokenUnreadable)?;
        if token.matches(said) { Ok(()) } else { Err(Refusal::WrongToken) }
    }

    fn refuse(&self, address: SocketAddr, refusal: &Refusal) -> Response {
        let region = &self.view.region;
        region.metrics().admin.refusals.with_label_values(&[refusal.reason()]).inc();
        // What is wrong here is no address's fault, and not hidden by what else one has done.
        let here = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let whose = if matches!(refusal, Refusal::TokenUnreadable(_)) { here } else { address.ip() };
        if let Some(line) = self.view.refused.lock().note(whose, Instant::now()) {
            let (page, refusals) = (self.page.path, line.refusals);
            match (refusal, line.address) {
                (Refusal::TokenUnreadable(problem), _) => {
                    tracing::error!(
                        %address, page, refusals, %problem,
                        "admin.token_file cannot be used: refused an admin request"
                    );
                }
                (_, Some(_)) => {
                    tracing::warn!(%address, page, refusals, reason = %refusal, "refused an admin request");
                }
                (_, None) => tracing::warn!(refusals, "refused admin requests from many more addresses"),
            }
        }
        let body = Json(json!({ "error": refusal.to_string() }));
        let mut response = (refusal.status(), body).into_response();
        let challenge = match refusal {
            Refusal::NoToken => "Bearer",
            Refusal::WrongToken => "Bearer error=\"invalid_token\"",
            _ => return response,
        };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        response
    }
}

/// Passes a request on to its page, or refuses it.
pub(super) async fn pass(
    State(gate): State<Gate>,
    ConnectInfo(Peer(address)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let most = gate.page.body_max;
    let is_too_large = body.size_hint().lower() > most as u64 || (most == 0 && !body.is_end_stream());
    let judged = match gate.judge(&parts).await {
        Ok(()) if is_too_large => Err(Refusal::Body { most }),
        judged => judged,
    };
    match judged {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => gate.refuse(address, &refusal),
    }
}

/// The token of the one header `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (one, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = one.as_bytes().split_at_checked(SCHEME.len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

/// Whether every host that a request names is this machine by a name that leads nowhere else. One that names none
/// comes from no browser.
fn names_loopback(parts: &Parts) -> bool {
    let hosts = parts.headers.get_all(header::HOST).iter();
    hosts.map(|host| host.to_str().unwrap_or_default()).chain(parts.uri.host()).all(is_loopback)
}

/// `localhost` or a loopback address, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _port)) => address,
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in ["localhost", "LocalHost:9380", "127.0.0.1", "127.8.9.1:80", "[::1]:9380", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "a",
            "localhost.example.com",
            "127.0.0.1.example.com:9380",
            "10.0.0.1",
            "[fe80::1]:80",
            ":80",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn bearers() {
        let said = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        for good in ["Bearer t0ken", "bearer t0ken", "BEARER   t0ken "] {
            assert_eq!(said(&[good]).as_deref(), Some("t0ken"), "{good}");
        }
        for bad in ["", "Bearer", "Bearer ", "Bearert0ken", "Basic t0ken", "t0ken", "Bea"] {
            assert_eq!(said(&[bad]), None, "{bad}");
        }
        assert_eq!(said(&["Bearer t0ken", "Bearer t0ken"]), None);
    }
}
