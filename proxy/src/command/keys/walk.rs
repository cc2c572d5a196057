//! To come.
use meridian_conflict::object::Object;
use meridian_topology::time::WallMs;

use crate::command::{Command, Outcome};
use crate::region::Region;
use crate::resp::{Args, Reply};
use crate::store::StoreError;

/// To come.
pub async fn walk(_: &Region, _: &Command, _: Args<'_>, _: u8, _: WallMs, _: &mut Reply<'_>) -> Outcome {
    Ok(())
}

/// To come.
pub async fn for_each_key(_: &Region, _: u8, _: impl FnMut(&[u8], &Object)) -> Result<(), StoreError> {
    Ok(())
}
