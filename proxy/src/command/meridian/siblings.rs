//! `MERIDIAN.SIBLINGS key [field]`: the concurrent values of a string or of a field.

use meridian_conflict::scalar::{Scalar, Value};

use super::{clock_text, dot_text, region_name};
use crate::command::{CommandError, Context, Outcome};
use crate::resp::{Args, Reply};

/// An array of maps by rising stamp: the last is what a plain read shows, but for increments. A write that has
/// seen them leaves one. Empty where there is no such key or field.
pub(super) fn siblings(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = args.get(1).ok_or(CommandError::Syntax)?;
    if args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    // A type that does not show is no answer, though it may be remembered.
    let scalar = match args.get(2) {
        None => context.string(key)?.and_then(|_| context.read_unmerged(key)?.string()),
        Some(field) => context.hash(key)?.and_then(|_| context.read_unmerged(key)?.hash()?.field(field)),
    };
    let siblings = scalar.map_or(&[][..], Scalar::<Value>::siblings);
    reply.array(siblings.len());
    for sibling in siblings {
        let stamp = sibling.stamp;
        reply.map(4);
        reply.bulk(b"value");
        reply.bulk(&sibling.value);
        for (name, value) in [
            ("origin", region_name(context.region(), stamp.dot.actor.region())),
            ("dot", dot_text(stamp)),
            ("stamp", clock_text(stamp)),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
    Ok(())
}
