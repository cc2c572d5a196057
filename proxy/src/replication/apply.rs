//! Applying an op that came from elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meridian_conflict::clock::{Dot, Origin, RegionId, Seen, covers};
use meridian_conflict::object::Applying;
use meridian_conflict::op::{Header, Op};
use prometheus::Histogram;

use crate::keyspace::Locked;
use crate::keyspace::changing::Applied;
use crate::keyspace::walk::ApplyError;
use crate::region::Region;
use crate::region::foreign::{Survey, survey};
use crate::sequencer::PlaceError;
use crate::store::StoreError;

/// How long to wait when the store does not give an object.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Applies remote ops, one after the other.
pub struct Applier {
    lags: BTreeMap<Origin, Histogram>,
    names: BTreeMap<RegionId, String>,
}

impl Applier {
    /// An applier that names regions by `names` in metrics.
    pub fn new(names: BTreeMap<RegionId, String>) -> Self {
        Self { lags: BTreeMap::new(), names }
    }

    /// Names regions by `names` from now on.
    pub fn name(&mut self, names: BTreeMap<RegionId, String>) {
        self.names = names;
    }

    /// Applies an op that is deliverable: places it in the log and in the applied vector, and folds
    /// its effects in, under the locks of its keys. An op that does not decode, or that no store could hold, is placed but not
    /// applied: parked, so that it neither stops the stream nor is lost.
    ///
    /// # Errors
    /// [`PlaceError`] when it does not follow or the log takes no more; nothing changed.
    pub async fn apply(&mut self, region: &Region, op: &Op<Bytes>) -> Result<(), PlaceError> {
        let metrics = region.metrics();
        let survey = match survey(&op.body) {
            Ok(survey) => survey,
            Err(error) => {
                region.parked().take(op.header.dot, error, metrics);
                region.sequencer().remote(&op.header, &op.body)?;
                return Ok(());
            }
        };
        let applied = loop {
            match try_apply(region, op, &survey) {
                Ok(applied) => break applied?,
                Err(error) => {
                    // The object is on disk and will be needed: waiting loses nothing.
                    tracing::error!(%error, "cannot read an object that an op changes; trying again");
                    metrics.store.store_errors.inc();
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        };
        if applied.changes == 0 {
            metrics.ops.stale_ops.inc();
        }
        // What the donor of this region's state had applied met its conflicts there, or in the merge.
        let settled = region.seeding().until().filter(|until| covers(until, &op.header.dot));
        let known = |rival: &Dot| settled.as_ref().is_some_and(|until| covers(until, rival));
        let mut conflicts = applied.conflicts;
        conflicts.retain(|met| !known(&met.conflict.rival.dot));
        region.note_conflicts(conflicts);
        let lag = region.wall().0.saturating_sub(op.header.hlc.ms());
        self.lag(region, op.header.dot.actor).observe(lag as f64 / 1e3);
        Ok(())
    }

    fn lag(&mut self, region: &Region, origin: Origin) -> &Histogram {
        let names = &self.names;
        self.lags.entry(origin).or_insert_with(|| {
            let id = origin.region();
            let name = names.get(&id).cloned().unwrap_or_else(|| format!("{:08x}", id.0));
            region.metrics().ops.replication_lag.with_label_values(&[&name])
        })
    }
}

/// The outer error: nothing changed, the store did not give what is needed.
fn try_apply(
    region: &Region,
    op: &Op<Bytes>,
    survey: &Survey<'_>,
) -> Result<Result<Applied, PlaceError>, StoreError> {
    let durable = region.log().durable_lsn().0;
    let mut locked: Locked<'_> = if survey.flushes {
        region.keyspace().lock_all_loaded(&survey.keys, durable)?
    } else {
        region.keyspace().lock_loaded(&survey.keys, durable)?
    };
    let Header { dot, .. } = op.header;
    if let (Some(change), [key]) = (&survey.only, survey.keys.as_slice()) {
        let place = || region.sequencer().remote(&op.header, &op.body);
        let applied = locked.apply_one(key, change, place, |(deps, lsn)| {
            (Applying { stamp: op.header.stamp(), seen: Seen::Vector { deps, dot } }, *lsn)
        });
        return Ok(applied.map(|(_, applied)| applied));
    }
    match locked.mark_body_dirty(&op.body) {
        Err(ApplyError::Store(error)) => return Err(error),
        Err(ApplyError::Malformed(_)) | Ok(()) => {}
    }
    let (deps, lsn) = match region.sequencer().remote(&op.header, &op.body) {
        Ok(placed) => placed,
        Err(error) => return Ok(Err(error)),
    };
    let seen = Seen::Vector { deps: &deps, dot: op.header.dot };
    match locked.apply_body(&op.body, op.header.stamp(), seen, lsn.0) {
        Ok(applied) => Ok(Ok(applied)),
        // Everything was brought in and checked above; what is placed counts as applied.
        Err(error) => {
            tracing::error!(%error, "an op was placed but not applied; restart to replay it");
            Ok(Ok(Applied::default()))
        }
    }
}
