//! A question to a hook that is kept, so that the hook can be asked where nobody waits for the key.

use serde::{Deserialize, Serialize};

use super::fingerprint::Asker;
use super::{Call, Decided, Failure, FieldSiblings, HashCall, MergeHook, Sibling, merge, merge_hash};
use crate::clock::Stamp;
use crate::object::Object;
use crate::reading::alive;
use crate::scalar::{Scalar, Value};

/// What of a key a hook is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The string.
    String,
    /// A field of the hash.
    Field(#[serde(with = "serde_bytes")] Box<[u8]>),
    /// All fields of the hash at once.
    Hash,
}

impl Subject {
    /// What a hook is asked about a field, or about the string where there is none.
    pub fn of(hook: &dyn MergeHook, field: Option<&[u8]>) -> Self {
        match field {
            None => Subject::String,
            Some(_) if hook.merges_hashes() => Subject::Hash,
            Some(field) => Subject::Field(field.into()),
        }
    }
}

/// A value alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The op that wrote it.
    pub stamp: Stamp,
    /// The value.
    pub value: Box<[u8]>,
}

/// A question with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    key: Box<[u8]>,
    asked: Asked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Values { field: Option<Box<[u8]>>, siblings: Vec<Kept> },
    Hash(Vec<(Box<[u8]>, Vec<Kept>)>),
}

/// A question has more bytes of values than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the values take more than {most} bytes")]
pub struct TooLarge {
    /// How many are kept.
    pub most: usize,
}

/// Room for the values of one question.
struct Room {
    left: usize,
    most: usize,
}

impl Room {
    fn take(&mut self, scalar: &Scalar<Value>) -> Result<Vec<Kept>, TooLarge> {
        let alive = alive(scalar);
        let bytes = alive.iter().map(|alive| alive.value.len() + size_of::<Kept>()).sum();
        self.left = self.left.checked_sub(bytes).ok_or(TooLarge { most: self.most })?;
        Ok(alive.into_iter().map(|a| Kept { stamp: a.stamp, value: a.value.into_owned().into() }).collect())
    }
}

fn borrowed(siblings: &[Kept]) -> Vec<Sibling<'_>> {
    siblings.iter().map(|kept| Sibling { stamp: kept.stamp, value: &kept.value }).collect()
}

fn fields(kept: &[(Box<[u8]>, Vec<Kept>)]) -> Vec<FieldSiblings<'_>> {
    kept.iter().map(|(field, siblings)| FieldSiblings { field, siblings: borrowed(siblings) }).collect()
}

impl Question {
    /// What a hook is asked about `subject` as it is now, with at most `most` bytes of values; `None` where nothing is
    /// to be merged.
    ///
    /// # Errors
    /// [`TooLarge`]
    pub fn about(
        key: &[u8],
        subject: &Subject,
        object: &Object,
        most: usize,
    ) -> Result<Option<Self>, TooLarge> {
        let mut room = Room { left: most, most };
        let mut values = |field: Option<&[u8]>, scalar: Option<&Scalar<Value>>| {
            let Some(scalar) = scalar.filter(|scalar| scalar.is_plural()) else { return Ok(None) };
            let field = field.map(Box::from);
            Ok(Some(Asked::Values { field, siblings: room.take(scalar)? }))
        };
        let asked = match subject {
            Subject::String => values(None, object.string())?,
            Subject::Field(field) => values(Some(field), object.hash().and_then(|hash| hash.field(field)))?,
            Subject::Hash => match object.hash().filter(|hash| hash.is_plural()) {
                None => None,
                Some(hash) => {
                    let mut kept: Vec<(Box<[u8]>, Vec<Kept>)> = Vec::new();
                    for (field, scalar) in hash.fields() {
                        room.left = room.left.checked_sub(field.len()).ok_or(TooLarge { most })?;
                        let siblings = room.take(scalar)?;
                        if !siblings.is_empty() {
                            kept.push((field[..].into(), siblings));
                        }
                    }
                    kept.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                    Some(Asked::Hash(kept))
                }
            },
        };
        Ok(asked.map(|asked| Self { key: key.into(), asked }))
    }

    /// A question about siblings that come from elsewhere, by rising stamp.
    pub fn of_values(key: &[u8], field: Option<&[u8]>, siblings: Vec<Kept>) -> Self {
        Self { key: key.into(), asked: Asked::Values { field: field.map(Box::from), siblings } }
    }

    /// A question about one field to a hook that merges whole hashes.
    pub fn of_hash(key: &[u8], field: &[u8], siblings: Vec<Kept>) -> Self {
        Self { key: key.into(), asked: Asked::Hash(vec![(field.into(), siblings)]) }
    }

    /// Bytes of its values.
    pub fn len(&self) -> usize {
        let of = |siblings: &[Kept]| siblings.iter().map(|kept| kept.value.len()).sum::<usize>();
        match &self.asked {
            Asked::Values { siblings, .. } => of(siblings),
            Asked::Hash(fields) => fields.iter().map(|(name, siblings)| name.len() + of(siblings)).sum(),
        }
    }

    /// Whether all its values are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By what regions know it.
    pub fn digest(&self, asker: &Asker) -> u128 {
        match &self.asked {
            Asked::Values { field, siblings } => {
                let siblings = borrowed(siblings);
                asker.question(&Call { key: &self.key, field: field.as_deref(), siblings: &siblings })
            }
            Asked::Hash(kept) => asker.hash_question(&HashCall { key: &self.key, fields: &fields(kept) }),
        }
    }

    /// Asks, and says what `field` shows then (or the string where there is none). Without a hook the newest shows.
    pub fn ask(&self, hook: Option<&dyn MergeHook>, field: Option<&[u8]>) -> (Option<Vec<u8>>, Decided) {
        let quarantined = Decided::Fallback(Failure::Quarantined);
        match (&self.asked, hook) {
            (Asked::Values { siblings, .. }, None) => {
                (siblings.last().map(|kept| kept.value.to_vec()), quarantined)
            }
            (Asked::Values { field, siblings }, Some(hook)) => {
                match merge(hook, &self.key, field.as_deref(), &borrowed(siblings)) {
                    Some(merged) => (Some(merged.value.into_owned()), merged.decided),
                    None => (None, Decided::Sole),
                }
            }
            (Asked::Hash(kept), None) => {
                let found = kept.iter().find(|(name, _)| Some(&**name) == field);
                let newest = found.and_then(|(_, siblings)| siblings.last());
                (newest.map(|kept| kept.value.to_vec()), quarantined)
            }
            (Asked::Hash(kept), Some(hook)) => {
                let merged = merge_hash(hook, &self.key, fields(kept));
                let found = merged.value.into_iter().find(|(name, _)| Some(&**name) == field);
                (found.map(|(_, value)| value.into_vec()), merged.decided)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::clock::{Dot, Hlc, Origin, Seen, VersionVector};
    use crate::hook::builtin::{BuiltIn, Kind};
    use crate::object::Applying;
    use crate::op::Effect;
    use crate::outcome::Outcome;

    const MOST: usize = 1 << 10;

    /// Ops that have not seen each other.
    fn object(effects: &[Effect<'_>]) -> Object {
        let (mut object, none) = (Object::default(), VersionVector::new());
        for (n, effect) in (1..).zip(effects) {
            let stamp = Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n), 1) };
            let how = Applying { stamp, seen: Seen::Vector { deps: &none, dot: stamp.dot } };
            object.apply(effect, how, &mut Outcome::default());
        }
        object
    }

    fn field<'a>(field: &'a [u8], value: &'a [u8]) -> Effect<'a> {
        Effect::FieldAssign { field, value, baseline: Vec::new() }
    }

    fn two() -> Object {
        let string = |value| Effect::Assign { value, baseline: Vec::new() };
        object(&[string(b"20"), string(b"3"), field(b"f", b"x"), field(b"f", b"yy"), field(b"g", b"z")])
    }

    #[test]
    fn what_is_kept_is_answered_as_the_object_is() {
        let (max, two) = (BuiltIn::new(Kind::Max), two());
        let about = |subject: &Subject| Question::about(b"k", subject, &two, MOST).unwrap();
        let string = about(&Subject::String).unwrap();
        assert_eq!(string.ask(Some(&max), None), (Some(b"20".to_vec()), Decided::Hook));
        let fallen = Decided::Fallback(Failure::Quarantined);
        assert_eq!(string.ask(None, None), (Some(b"3".to_vec()), fallen));
        let f = about(&Subject::Field(Box::from(&b"f"[..]))).unwrap();
        assert_eq!(f.ask(Some(&max), Some(b"f")), (Some(b"yy".to_vec()), Decided::Hook));
        assert_eq!(about(&Subject::Field(Box::from(&b"g"[..]))), None, "nothing to be merged");
        let hash = about(&Subject::Hash).unwrap();
        assert_eq!(hash.ask(None, Some(b"f")), (Some(b"yy".to_vec()), fallen));
        // It merges no whole hashes.
        let bad = Decided::Fallback(Failure::BadExport);
        assert_eq!(hash.ask(Some(&max), Some(b"g")), (Some(b"z".to_vec()), bad));
        assert_eq!(hash.len(), 2 + 3 + 1);
        assert_eq!(Question::about(b"k", &Subject::Hash, &two, 8), Err(TooLarge { most: 8 }));
    }

    #[test]
    fn a_question_is_that_of_the_call() {
        let asker = Asker { hook: [7; 32], generation: 2 };
        let question = Question::about(b"k", &Subject::String, &two(), MOST).unwrap().unwrap();
        let stamp = |n| Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n), 1) };
        let siblings = [(1, &b"20"[..]), (2, b"3")].map(|(n, value)| Sibling { stamp: stamp(n), value });
        let call = Call { key: b"k", field: None, siblings: &siblings };
        assert_eq!(question.digest(&asker), asker.question(&call));
        assert_ne!(question.digest(&asker), Asker { generation: 4, ..asker }.question(&call));
        let field = Call { field: Some(b""), ..call };
        assert_ne!(question.digest(&asker), asker.question(&field));
    }
}
