//! `/faults`: turns the fault knobs of `[dev] faults`, and tells how they stand.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::View;
use crate::config::units::{format_duration, parse_duration};
use crate::keyspace::{DATABASES, KeyRef};
use crate::link::faults::{Fault, Faults};
use crate::policies::witness::Contrary;

/// The longest delay: longer ones are cuts.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What is asked for, and what is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Knobs {
    /// The link to which region.
    peer: String,
    /// How much longer what is sent takes, such as `200ms`.
    #[serde(default = "no_delay")]
    delay: String,
    /// The share of datagrams that is lost, 0 to 1.
    #[serde(default)]
    loss: f64,
    /// Whether nothing passes.
    #[serde(default)]
    cut: bool,
}

fn no_delay() -> String {
    format_duration(Duration::ZERO)
}

impl Knobs {
    fn of(peer: String, fault: Fault) -> Self {
        let loss = f64::from(fault.loss_per_million) / 1e6;
        Self { peer, delay: format_duration(fault.delay), loss, cut: fault.cut }
    }

    fn fault(&self) -> Result<Fault, String> {
        let delay = parse_duration(&self.delay).map_err(|error| format!("delay: {error}"))?;
        if delay > DELAY_MAX {
            return Err(format!("delay: at most {}", format_duration(DELAY_MAX)));
        }
        if !(0.0..=1.0).contains(&self.loss) {
            return Err("loss: a number from 0 to 1".to_owned());
        }
        Ok(Fault { delay, loss_per_million: (self.loss * 1e6).round() as u32, cut: self.cut })
    }
}

/// A key whose state is to be lost here, as no op would lose it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lose {
    lose: String,
    #[serde(default)]
    database: u8,
}

/// How this region's hooks are to be disturbed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hooks {
    hooks: Contrary,
}

/// `POST /faults`: replaces what was set for the peer; a body with the peer alone heals its link. Or,
/// with `lose`, loses a key's state; or, with `hooks`, has this region's hooks answer as those of no other do (`differ`),
/// as they did not answer before (`unsteady`), or as they should (`no`).
pub(super) async fn turn(State(view): State<View>, body: Bytes) -> Response {
    let Some(faults) = view.region.faults() else { return absent() };
    if let Ok(lost) = serde_json::from_slice::<Lose>(&body) {
        return lose(view, lost).await;
    }
    if let Ok(Hooks { hooks }) = serde_json::from_slice(&body) {
        tracing::warn!(?hooks, "disturbing hooks, as asked");
        view.region.keyspace().policies().witness().set_contrary(hooks);
        return told(&view, faults);
    }
    let knobs: Knobs = match serde_json::from_slice(&body) {
        Ok(knobs) => knobs,
        Err(error) => return refused(&error.to_string()),
    };
    let settings = view.region.settings();
    let known = view.region.membership().regions.keys().any(|name| name.as_str() == knobs.peer);
    if !known || settings.region.as_str() == knobs.peer {
        return refused(&format!("peer: \"{}\" is no other region of this cluster", knobs.peer));
    }
    match knobs.fault() {
        Ok(fault) => {
            tracing::warn!(peer = knobs.peer, ?fault, "fault knobs turned");
            faults.set(&knobs.peer, fault);
            told(&view, faults)
        }
        Err(error) => refused(&error),
    }
}

async fn lose(view: View, lost: Lose) -> Response {
    if usize::from(lost.database) >= DATABASES {
        return refused("database: there is no such database");
    }
    tracing::warn!(key = lost.lose, database = lost.database, "losing a key's state, as asked");
    let done = tokio::task::spawn_blocking(move || {
        let region = &view.region;
        let key = KeyRef::new(lost.database, lost.lose.as_bytes());
        let (applied, durable) = (region.sequencer().applied(), region.log().durable_lsn().0);
        region.keyspace().lose(&key, &applied, durable)
    });
    match done.await.map(|lost| lost.map_err(|error| error.to_string())) {
        Ok(Ok(())) => Json(json!({ "lost": true })).into_response(),
        Ok(Err(error)) => super::failed(&error),
        Err(error) => super::failed(&error.to_string()),
    }
}

/// `GET /faults`: the links that are disturbed, and how hooks are.
pub(super) async fn show(State(view): State<View>) -> Response {
    view.region.faults().map_or_else(absent, |faults| told(&view, faults))
}

fn told(view: &View, faults: &Faults) -> Response {
    let all: Vec<Knobs> = faults.all().into_iter().map(|(peer, fault)| Knobs::of(peer, fault)).collect();
    let hooks = view.region.keyspace().policies().witness().contrary();
    Json(json!({ "faults": all, "hooks": hooks })).into_response()
}

fn absent() -> Response {
    let error = "the fault knobs are off; start this region with [dev] faults = true";
    (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}
