//! The admin server: what a region tells operators and Prometheus over HTTP. Nothing here changes
//! anything, but for `/reload`, `/verify`, `/hooks/release` and, where they are on, the fault knobs.
//!
//! What a page asks for is in the table of `pages`: what changes something or shows data asks for the token
//! of `admin.token_file`, or is served on loopback alone.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs: restart it when this fails |
//! | `/readyz` | 200 when the region can take writes, else 503 with the reasons |
//! | `/metrics` | Prometheus' text format |
//! | `/status` | [`status::Status`] as JSON |
//! | `/conflicts` | the conflict inbox, newest first; see [`conflicts`] |
//! | `/conflicts/follow` | the same as server-sent events, as they come |
//! | `/reload` | POST: reads the configuration anew, as SIGHUP does |
//! | `/verify` | POST: compares everything with all neighbours, mends what differs; GET: how that stands |
//! | `/hooks/release` | POST with `?hook=NAME`: releases a merge hook from quarantine, in all regions |
//! | `/faults` | with `[dev] faults`: shows (GET) and turns (POST) the fault knobs |

mod access;
pub mod conflicts;
mod faults;
mod guard;
pub mod hooks;
mod pages;
mod sample;
pub mod status;
#[cfg(test)]
mod tests;
mod verify;
mod warnings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::link::strangers::StrangerLog;
use crate::oplog::LogHealth;
use crate::region::Region;
use crate::service::LinkStates;

/// How long open connections may take to end once the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// What the pages are made from.
#[derive(Clone)]
pub struct View {
    region: Arc<Region>,
    links: LinkStates,
    refused: Arc<Mutex<StrangerLog>>,
}

impl View {
    /// A view of a region and its links.
    pub fn new(region: Arc<Region>, links: LinkStates) -> Self {
        Self { region, links, refused: Arc::default() }
    }

    /// Why the region should get no traffic now; empty if it should.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.region.is_draining() {
            reasons.push("draining: the region is being stopped".to_owned());
        }
        if !self.region.is_confirmed() {
            reasons.push("starting: asking the neighbours what they know".to_owned());
        }
        match self.region.log().health() {
            LogHealth::Ok => {}
            LogHealth::Full => reasons.push("log: the disk is full".to_owned()),
            LogHealth::Failed => reasons.push("log: writing failed; restart to recover".to_owned()),
            LogHealth::Closed => reasons.push("log: closed".to_owned()),
        }
        if self.region.committer().has_failed() {
            reasons.push("store: commits fail".to_owned());
        }
        if self.region.is_loading() {
            let seeding = status::SeedingStatus::of(&self.region).unwrap_or_default();
            reasons.push(format!(
                "loading: {} from a neighbour, {} of {} ranges, {} of about {} keys",
                seeding.stage, seeding.ranges, seeding.ranges_total, seeding.keys, seeding.keys_expected
            ));
        }
        reasons
    }
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on `listener`. Must be called within a tokio runtime.
    pub fn start(listener: TcpListener, view: View) -> Self {
        let address = listener.local_addr().ok();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let pages = pages::router(view).into_make_service_with_connect_info::<access::Peer>();
            let serve = axum::serve(guard::Guarded::new(listener), pages);
            let told = async move {
                // A dropped sender means the same.
                let _ = stopped.await;
            };
            // Does not fail: errors belong to single connections.
            let _ = serve.with_graceful_shutdown(told).await;
        });
        Self { address, stop, task }
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends it.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(view): State<View>) -> Response {
    let reasons = view.not_ready();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(State(view): State<View>) -> Response {
    sample::take(&view);
    sample::disk(&view).await;
    match view.region.metrics().render() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}

async fn status(State(view): State<View>) -> Response {
    let disk = sample::disk(&view).await;
    Json(status::Status::of(&view, disk)).into_response()
}

async fn reload(State(view): State<View>) -> Response {
    let region = Arc::clone(&view.region);
    match tokio::task::spawn_blocking(move || region.reload()).await {
        Ok(Ok(changed)) => Json(json!({ "reloaded": true, "changed": changed })).into_response(),
        Ok(Err(error)) => {
            let body = json!({ "reloaded": false, "error": error.to_string() });
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> Response {
    tracing::error!(error, "cannot answer an admin request");
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
}
