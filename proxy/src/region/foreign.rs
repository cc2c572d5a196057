//! Whether an op that was written elsewhere can be applied. What cannot be is *parked*: it has its place
//! in the log and in the applied vector, so it stops nothing, and changes nothing.

use meridian_conflict::op::{self, Effect, ElementBaseline, MalformedBody};

use crate::command::execute::NAME_MAX;

/// The most bytes that a key has together with an element's name. A row's key holds both, and a row
/// that the store cannot hold would end every commit.
const NAMES_MAX: usize = 2 * NAME_MAX;

/// An op cannot be applied. It is to be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It does not decode.
    #[error(transparent)]
    Malformed(#[from] MalformedBody),
    /// It names something that no row can.
    #[error("the op names something with {0} bytes, more than {NAMES_MAX}")]
    Name(usize),
}

/// Checks that a body decodes and names nothing that the store cannot hold.
///
/// # Errors
/// [`Unfit`] with the first fault.
pub fn check(body: &[u8]) -> Result<(), Unfit> {
    for change in op::changes(body) {
        let change = change?;
        check_names(change.key, &[])?;
        for effect in change.effects() {
            match effect? {
                Effect::FieldAssign { field: name, .. }
                | Effect::FieldAdd { field: name, .. }
                | Effect::FieldRemove { field: name, .. }
                | Effect::MemberAdd { member: name }
                | Effect::MemberRemove { member: name }
                | Effect::ScoreAssign { member: name, .. }
                | Effect::ScoreAdd { member: name, .. }
                | Effect::ScoreRemove { member: name, .. } => check_names(change.key, name)?,
                Effect::Clear { baselines, .. } => {
                    baselines.iter().try_for_each(|baseline| check_baseline(change.key, baseline))?;
                }
                Effect::Flush { baselines } => {
                    baselines.iter().try_for_each(|of_key| check_baseline(of_key.key, &of_key.element))?;
                }
                Effect::Assign { .. }
                | Effect::Add { .. }
                | Effect::Deadline { .. }
                | Effect::Persist
                | Effect::ForgetDeadline => {}
            }
        }
    }
    Ok(())
}

fn check_baseline(key: &[u8], baseline: &ElementBaseline<'_>) -> Result<(), Unfit> {
    check_names(key, baseline.element)
}

fn check_names(key: &[u8], element: &[u8]) -> Result<(), Unfit> {
    let bytes = key.len().saturating_add(element.len());
    if bytes > NAMES_MAX { Err(Unfit::Name(bytes)) } else { Ok(()) }
}
