//! The hooks in force: how they stand (in `/status`), and `POST /hooks/release?hook=NAME`, which releases one from
//! quarantine in all regions. `NAME` may be an identity in hexadecimal.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meridian_conflict::hook::quarantine::Reason;
use meridian_conflict::hook::question::Subject;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::status::Names;
use super::{View, failed};
use crate::policies::book::hex;
use crate::region::Region;

/// A hook that keys have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// What it does, in hexadecimal.
    pub identity: String,
    /// Why it is in quarantine, if it is.
    pub quarantine: Option<QuarantineStatus>,
}

/// Why a hook is in quarantine: one question with two answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuarantineStatus {
    /// When it was found, in Unix milliseconds.
    pub since: u64,
    /// The database.
    pub database: u8,
    /// The beginning of the key, readable.
    pub key: String,
    /// What of the key: `string`, `hash`, or a field.
    pub subject: String,
    /// Who answered what, by fingerprint. The same region twice if it contradicted itself.
    pub answers: Vec<(String, String)>,
}

impl QuarantineStatus {
    fn of(reason: &Reason, names: &Names) -> Self {
        let subject = match &reason.subject {
            Subject::String => "string".to_owned(),
            Subject::Hash => "hash".to_owned(),
            Subject::Field(field) => format!("field {}", field.escape_ascii()),
        };
        let answers = reason.answers.iter();
        Self {
            since: reason.at_ms,
            database: reason.database,
            key: reason.key.escape_ascii().to_string(),
            subject,
            answers: answers.map(|(id, answer)| (names.region(*id), format!("{answer:032x}"))).collect(),
        }
    }
}

/// The hooks in force.
pub(super) fn statuses(region: &Region, names: &Names) -> Vec<HookStatus> {
    let active = region.keyspace().policies().current();
    let status = |id: &meridian_conflict::policy::HookId| HookStatus {
        name: id.name.to_string(),
        identity: hex(&id.identity),
        quarantine: active.quarantine().reason(&id.identity).map(|why| QuarantineStatus::of(why, names)),
    };
    active.hook_ids().into_iter().map(status).collect()
}

/// A policy that is only tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowStatus {
    /// The policy that the keys have.
    pub policy: String,
    /// The one that is tried: a policy, or `hook:NAME`.
    pub rule: String,
    /// Recorded conflicts that it was tried on since the start.
    pub evaluated: u64,
    /// After how many of those it would have shown something else.
    pub differs: u64,
    /// Recorded conflicts that it could not be tried on.
    pub unknown: u64,
}

/// What shadow policies have said since the start, by policy and rule.
pub(super) fn shadows(region: &Region) -> Vec<ShadowStatus> {
    let (active, metrics) = (region.keyspace().policies().current(), region.metrics());
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (policy, rule) in active.shadows().listed().map(|(keys, shadow)| {
        // The table in force may have other patterns while regions differ; then this names one of them.
        (active.policy(keys).name(), shadow.rule())
    }) {
        if !pairs.contains(&(policy, rule)) {
            pairs.push((policy, rule));
        }
    }
    let status = |(policy, rule): (&str, &str)| {
        let labels = [policy, rule];
        ShadowStatus {
            policy: policy.to_owned(),
            rule: rule.to_owned(),
            evaluated: metrics.conflicts.shadow_evaluated.with_label_values(&labels).get(),
            differs: metrics.conflicts.shadow_differs.with_label_values(&labels).get(),
            unknown: metrics.conflicts.shadow_unknown.with_label_values(&labels).get(),
        }
    };
    pairs.into_iter().map(status).collect()
}

/// What `/status` warns of.
pub(super) fn warnings(hooks: &[HookStatus]) -> impl Iterator<Item = String> {
    hooks.iter().filter_map(|hook| {
        let QuarantineStatus { key, answers, .. } = hook.quarantine.as_ref()?;
        let regions: Vec<&str> = answers.iter().map(|(region, _)| region.as_str()).collect();
        Some(format!(
            "the hook {} is in quarantine, the greatest stamp shows: {} did not answer alike for {key}",
            hook.name,
            regions.join(" and ")
        ))
    })
}

pub(super) async fn release(State(view): State<View>, RawQuery(query): RawQuery) -> Response {
    let hook = query
        .as_deref()
        .and_then(|query| query.strip_prefix("hook="))
        .map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    let Some(name) = hook.filter(|name| !name.is_empty()) else {
        let error = "say which one: /hooks/release?hook=NAME";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    };
    let region = view.region;
    let asked = name.clone();
    let released = tokio::task::spawn_blocking(move || {
        let members = region.membership();
        region.policies().release(&asked, region.keyspace().policies(), &|id| members.name_of(id))
    });
    match released.await {
        Ok(released) if released.is_empty() => {
            let error = format!("no hook in force that is called {name:?} is in quarantine");
            (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
        }
        Ok(released) => {
            let identities: Vec<String> = released.iter().map(|id| hex(&id.identity)).collect();
            Json(json!({ "released": identities })).into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}
