//! Every page of the admin server, and what it asks for. There is no other way to serve one, so none is served
//! without an answer to that question.

use std::collections::BTreeSet;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde_json::json;

use super::access::{self, Gate};
use super::{View, conflicts, faults, healthz, hooks, metrics, readyz, reload, status, verify};

/// The largest body of `POST /faults`: a few short values.
const FAULTS_MAX_BYTES: usize = 4 << 10;

/// What a page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: probes have no secret, and it shows no data.
    Nothing,
    /// What `admin.metrics` says.
    Metrics,
    /// The token; without `admin.token_file`, that the server is on loopback.
    Token,
}

/// What a page does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Shows; GET.
    Show,
    /// Changes something; POST.
    Change,
}

impl Verb {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Show => MethodFilter::GET,
            Self::Change => MethodFilter::POST,
        }
    }
}

/// A path with one method.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    pub(super) need: Need,
    /// The largest body.
    pub(super) body_max: usize,
    serve: fn(MethodFilter) -> MethodRouter<View>,
}

impl Page {
    const fn show(path: &'static str, need: Need, serve: fn(MethodFilter) -> MethodRouter<View>) -> Self {
        Self { path, verb: Verb::Show, need, body_max: 0, serve }
    }

    /// Whatever changes something asks for the token.
    const fn change(
        path: &'static str,
        body_max: usize,
        serve: fn(MethodFilter) -> MethodRouter<View>,
    ) -> Self {
        Self { path, verb: Verb::Change, need: Need::Token, body_max, serve }
    }
}

/// All of them. What shows keys or values asks for the token. `/status` shows names, addresses and figures, and the key
/// that a hook is in quarantine for; `/faults` is only there on loopback.
pub(super) static PAGES: &[Page] = &[
    Page::show("/healthz", Need::Nothing, |method| on(method, healthz)),
    Page::show("/readyz", Need::Nothing, |method| on(method, readyz)),
    Page::show("/status", Need::Nothing, |method| on(method, status)),
    Page::show("/metrics", Need::Metrics, |method| on(method, metrics)),
    Page::show("/conflicts", Need::Token, |method| on(method, conflicts::listing)),
    Page::show("/conflicts/follow", Need::Token, |method| on(method, conflicts::follow)),
    Page::show("/verify", Need::Token, |method| on(method, verify::show)),
    Page::change("/verify", 0, |method| on(method, verify::begin)),
    Page::change("/reload", 0, |method| on(method, reload)),
    Page::change("/hooks/release", 0, |method| on(method, hooks::release)),
    Page::show("/faults", Need::Nothing, |method| on(method, faults::show)),
    Page::change("/faults", FAULTS_MAX_BYTES, |method| on(method, faults::turn)),
];

/// Serves all of them.
pub(super) fn router(view: View) -> Router {
    let served = PAGES.iter().fold(Router::new(), |router, page| {
        let gate = from_fn_with_state(Gate::new(view.clone(), page), access::pass);
        let served = (page.serve)(page.verb.filter());
        router.route(page.path, served.route_layer(DefaultBodyLimit::max(page.body_max)).route_layer(gate))
    });
    served.fallback(not_found).with_state(view)
}

async fn not_found() -> Response {
    let pages: BTreeSet<&str> = PAGES.iter().map(|page| page.path).collect();
    (StatusCode::NOT_FOUND, Json(json!({ "error": "no such page", "pages": pages }))).into_response()
}
