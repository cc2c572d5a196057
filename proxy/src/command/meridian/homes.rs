//! `MERIDIAN.HOMES`: each rule with who is home, in which term, and whether it may act.

use crate::command::{Context, Outcome};
use crate::config::settings::Elsewhere;
use crate::homes::now;
use crate::resp::{Args, Reply};

use super::region_name;

/// An array of maps: `keys`, `home`, `term`, `elsewhere`, `lease` (`held`, `none`, `moving`; `elsewhere` where
/// another region is home, `unneeded` where every region writes) and `lease-ms`, what is left of it.
pub(super) fn homes(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let region = context.region();
    let (rules, now) = (region.homes().rules(), now());
    reply.array(rules.len());
    for rule in rules.iter() {
        let standing = rule.standing();
        let home = region_name(region, standing.term.holder);
        let left = standing.until.since(now);
        let lease = if rule.elsewhere == Elsewhere::Accept {
            "unneeded"
        } else if home != region.settings().region.as_str() {
            "elsewhere"
        } else if standing.moving {
            "moving"
        } else if left > 0 {
            "held"
        } else {
            "none"
        };
        reply.map(6);
        reply.bulk(b"keys");
        reply.bulk(&rule.keys);
        reply.bulk(b"home");
        reply.bulk(home.as_bytes());
        reply.bulk(b"term");
        reply.int(i64::try_from(standing.term.number).unwrap_or(i64::MAX));
        reply.bulk(b"elsewhere");
        reply.bulk(rule.elsewhere.name().as_bytes());
        reply.bulk(b"lease");
        reply.bulk(lease.as_bytes());
        reply.bulk(b"lease-ms");
        reply.int(i64::try_from(left).unwrap_or(i64::MAX));
    }
    Ok(())
}
