//! `/conflicts` and `/conflicts/follow`: the conflict inbox over HTTP.
//!
//! Both take `key`, `database`, `policy`, `kind` and `shadow=differs`, any bytes percent-encoded. The list takes `limit` and `after`, and
//! answers a [`Listing`]. Following answers server-sent events, each with a record's id and JSON, from `after` (or
//! the header `Last-Event-ID`) on, else from now on. A follower that falls too far behind gets the event `cut` and
//! is left; one that does not read is left by the connection's guard.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use percent_encoding::percent_decode;
use serde_json::json;

use super::{View, failed};
use crate::command::meridian::region_name;
use crate::inbox::form::{Conflict, Listing};
use crate::inbox::page::{Filter, Followed, Follower, list};
use crate::inbox::record::{id_text, parse_id};
use crate::region::Region;

/// Records where `limit` is not given.
const LIMIT: usize = 50;

/// Records of one answer at most.
const LIMIT_MAX: usize = 1_000;

/// A follower that gets nothing else gets a comment this often; well within what the guard allows.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    filter: Filter,
    limit: Option<usize>,
    after: Option<u128>,
}

/// Reads a query string. The error is for the client.
fn parse(query: Option<&str>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value: Vec<u8> = percent_decode(value.replace('+', " ").as_bytes()).collect();
        let text = || String::from_utf8(value.clone()).map_err(|_| format!("{name} is not text"));
        match name {
            "key" => asked.filter.key = Some(value),
            "policy" => asked.filter.policy = Some(text()?),
            "kind" => asked.filter.kind = Some(text()?),
            "shadow" if value == b"differs" => asked.filter.shadow_differs = true,
            "shadow" => return Err("shadow can be `differs` only".to_owned()),
            "database" => {
                let number = text()?.parse().map_err(|_| "database is a number from 0 to 15".to_owned())?;
                asked.filter.database = Some(number);
            }
            "limit" => {
                let number = text()?.parse().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
                asked.limit = Some(number.ok_or(format!("limit is a number from 1 to {LIMIT_MAX}"))?);
            }
            "after" => asked.after = Some(parse_id(&value).ok_or("after is an id of 32 hex digits")?),
            _ => return Err(format!("unknown parameter {name:?}")),
        }
    }
    Ok(asked)
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

pub(super) async fn listing(State(view): State<View>, RawQuery(query): RawQuery) -> Response {
    let asked = match parse(query.as_deref()) {
        Ok(asked) => asked,
        Err(error) => return refused(&error),
    };
    let shelf = Arc::clone(view.region.inbox().shelf());
    let limit = asked.limit.unwrap_or(LIMIT);
    let listed = tokio::task::spawn_blocking(move || list(&shelf, &asked.filter, asked.after, limit)).await;
    match listed {
        Ok(Ok(page)) => Json(Listing::of(&page, |region| region_name(&view.region, region))).into_response(),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(error) => failed(&error.to_string()),
    }
}

pub(super) async fn follow(
    State(view): State<View>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = match parse(query.as_deref()) {
        Ok(Asked { limit: Some(_), .. }) => return refused("limit is for /conflicts"),
        Ok(asked) => asked,
        Err(error) => return refused(&error),
    };
    let seen = headers.get("last-event-id").and_then(|id| parse_id(id.as_bytes()));
    let inbox = Arc::clone(view.region.inbox());
    let after = seen.or(asked.after);
    let number = tokio::task::spawn_blocking(move || after.map(|id| inbox.shelf().number_of(id)).transpose());
    let from = match number.await {
        Ok(Ok(None)) => None,
        Ok(Ok(Some(Some(number)))) => Some(number + 1),
        Ok(Ok(Some(None))) => {
            let error = json!({ "error": "that record is not here any more: list what was missed" });
            return (StatusCode::GONE, Json(error)).into_response();
        }
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(error) => return failed(&error.to_string()),
    };
    let Some(follower) = view.region.inbox().follow(from) else {
        let error = json!({ "error": "too many follow already" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    };
    let following = Following { region: view.region, follower, filter: asked.filter, over: false };
    let steps = stream::unfold(following, |mut following| async move {
        let events = following.step().await?;
        Some((stream::iter(events.into_iter().map(Ok::<_, Infallible>)), following))
    });
    Sse::new(steps.flatten()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

struct Following {
    region: Arc<Region>,
    follower: Follower,
    filter: Filter,
    over: bool,
}

impl Following {
    /// The next events; `None` ends the stream.
    async fn step(&mut self) -> Option<Vec<Event>> {
        if self.over {
            return None;
        }
        let region = Arc::clone(&self.region);
        let drained = region.drain.notified();
        tokio::pin!(drained);
        // Listening before looking: a shutdown that begins in between is not missed.
        drained.as_mut().enable();
        if region.is_draining() {
            return None;
        }
        let followed = tokio::select! {
            followed = self.follower.next() => followed,
            () = &mut drained => return None,
        };
        match followed {
            Followed::Records(records) => {
                let named = |record| Conflict::of(record, |region| region_name(&self.region, region));
                let wanted = records.iter().filter(|record| self.filter.lets(record));
                let event = |record| {
                    // Texts and numbers always become JSON.
                    let json = serde_json::to_string(&named(record)).unwrap_or_default();
                    Event::default().id(id_text(record.id)).data(json)
                };
                Some(wanted.map(event).collect())
            }
            Followed::TooSlow => {
                self.over = true;
                Some(vec![Event::default().event("cut").data("records passed by: list what was missed")])
            }
            Followed::Ended => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(parse(None), Ok(Asked::default()));
        let id = id_text(5);
        let asked = parse(Some(&format!(
            "key=a%ff+b&database=3&policy=lww&kind=field&shadow=differs&limit=7&after={id}&"
        )));
        let filter = Filter {
            key: Some(b"a\xff b".to_vec()),
            database: Some(3),
            policy: Some("lww".into()),
            kind: Some("field".into()),
            shadow_differs: true,
        };
        assert_eq!(asked, Ok(Asked { filter, limit: Some(7), after: Some(5) }));
        for bad in
            ["limit=0", "limit=1001", "limit=x", "after=5", "database=x", "policy=%ff", "keys=a", "shadow=1"]
        {
            assert!(parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
