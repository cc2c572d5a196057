//! `/verify`: a full comparison with all neighbours.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::View;

/// `POST /verify`: begins one, unless one goes on.
pub(super) async fn begin(State(view): State<View>) -> Response {
    if view.region.is_loading() {
        let error = "this region is taking over a neighbour's state; compare when it has";
        return (StatusCode::CONFLICT, Json(json!({ "error": error }))).into_response();
    }
    let progress = view.region.entropy().begin_verify(&view.region);
    (StatusCode::ACCEPTED, Json(progress)).into_response()
}

/// `GET /verify`: how it stands.
pub(super) async fn show(State(view): State<View>) -> Response {
    Json(view.region.entropy().verify_progress()).into_response()
}
