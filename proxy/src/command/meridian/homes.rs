//! `MERIDIAN.HOMES`: each rule with who is home, in which term, and whether it may act.

use crate::command::{Context, Outcome};
use crate::homes::status::statuses;
use crate::resp::{Args, Reply};

use super::region_name;

/// An array of maps: `keys`, `home`, `term`, `elsewhere`, `lease` and `lease-ms`, see
/// [`HomeStatus`](crate::homes::status::HomeStatus).
pub(super) fn homes(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let region = context.region();
    let statuses = statuses(region, |id| region_name(region, id));
    reply.array(statuses.len());
    for status in statuses {
        reply.map(6);
        for (name, value) in [("keys", &status.keys), ("home", &status.home)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"term");
        reply.int(i64::try_from(status.term).unwrap_or(i64::MAX));
        for (name, value) in [("elsewhere", &status.elsewhere), ("lease", &status.lease)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"lease-ms");
        reply.int(i64::try_from(status.lease_ms).unwrap_or(i64::MAX));
    }
    Ok(())
}
