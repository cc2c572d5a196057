//! Whether an op that was written elsewhere can be applied. What cannot be is *parked*: it has its place
//! in the log and in the applied vector, so it stops nothing, and changes nothing.

use meridian_conflict::op::{self, Change, Effect, ElementBaseline, MalformedBody};
use smallvec::SmallVec;

use crate::command::execute::NAME_MAX;
use crate::keyspace::KeyRef;

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

/// What has to be known of an op before its keys are locked.
#[derive(Debug)]
pub struct Survey<'a> {
    /// The keys it changes.
    pub keys: SmallVec<[KeyRef<'a>; 4]>,
    /// Its change, if it has but one, and that on a key.
    pub only: Option<Change<'a>>,
    /// Whether it flushes a database, which locks everything.
    pub flushes: bool,
}

/// Reads a body through: it decodes, and names nothing that the store cannot hold.
///
/// # Errors
/// [`Unfit`] with the first fault.
pub fn survey(body: &[u8]) -> Result<Survey<'_>, Unfit> {
    let mut survey = Survey { keys: SmallVec::new(), only: None, flushes: false };
    for change in op::changes(body) {
        let change = change?;
        survey.flushes |= check(&change)?;
        survey.keys.push(KeyRef::new(change.database, change.key));
        survey.only = (survey.keys.len() == 1 && !survey.flushes).then_some(change);
    }
    Ok(survey)
}

/// Checks one change. Returns whether it flushes its database.
fn check(change: &Change<'_>) -> Result<bool, Unfit> {
    let mut flushes = false;
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
                flushes |= change.key.is_empty();
                baselines.iter().try_for_each(|of_key| check_baseline(of_key.key, &of_key.element))?;
            }
            Effect::Assign { .. }
            | Effect::Add { .. }
            | Effect::Deadline { .. }
            | Effect::Persist
            | Effect::ForgetDeadline
            | Effect::Whole => {}
        }
    }
    Ok(flushes)
}

fn check_baseline(key: &[u8], baseline: &ElementBaseline<'_>) -> Result<(), Unfit> {
    check_names(key, baseline.element)
}

fn check_names(key: &[u8], element: &[u8]) -> Result<(), Unfit> {
    let bytes = key.len().saturating_add(element.len());
    if bytes > NAMES_MAX { Err(Unfit::Name(bytes)) } else { Ok(()) }
}
