//! Turns what a local command wants of a key into effects that travel.
//!
//! A condition is judged here, against local state; what is written down is the effect. The editor
//! adds what every write owes: an expired key is cleared before it is written, a hidden facet that
//! the writer has now seen goes, and a deadline that the write keeps is said again, so that no key
//! that had a deadline everywhere loses it by a race.

use crate::amount::Amount;
use crate::clock::{Dot, Hlc, Origin, Seen, Stamp};
use crate::crdt::Score;
use crate::object::{ALL_FACETS, Applying, Object, facet_bit};
use crate::op::{BodyBuilder, Effect, Facet};
use crate::outcome::Outcome;
use crate::scalar::{Scalar, Value};

/// What a write does to the key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewDeadline {
    /// Kept, if there is one.
    Keep,
    /// Removed.
    Forget,
    /// Set to a Unix millisecond.
    At(u64),
}

/// Collects the effects of one command on one key.
///
/// Reads go to the state before the command: a command that names an element twice must settle
/// that itself. Call [`Editor::finish`] when done.
pub struct Editor<'a, 'b> {
    /// What the command sees.
    object: Option<&'a Object>,
    /// Under `lww`, all that there is.
    stated_over: Option<Option<&'a Object>>,
    /// What shows where several values are alive, under a policy that has a write replace them.
    replacing: Option<&'a Object>,
    origin: Origin,
    expired: bool,
    prepared: bool,
    deadline_settled: bool,
    /// The expired life was cleared and a new one begun, whose deadline nobody has said yet.
    reborn: bool,
    out: &'b mut BodyBuilder,
}

impl<'a, 'b> Editor<'a, 'b> {
    /// An editor for a key in the state `object`, writing as `origin` at `now_ms`.
    pub fn new(object: Option<&'a Object>, origin: Origin, now_ms: u64, out: &'b mut BodyBuilder) -> Self {
        let expired = object.is_some_and(|o| o.is_expired(now_ms));
        let (prepared, deadline_settled, reborn) = (false, false, false);
        Self {
            object,
            stated_over: None,
            replacing: None,
            origin,
            expired,
            prepared,
            deadline_settled,
            reborn,
            out,
        }
    }

    /// An editor whose command states the whole key: for a key under the policy `lww`
    /// ([`crate::lww`]).
    pub fn stating(
        object: Option<&'a Object>,
        origin: Origin,
        now_ms: u64,
        out: &'b mut BodyBuilder,
    ) -> Self {
        let editor = Self::new(object.map(Object::under_lww), origin, now_ms, out);
        Self { stated_over: Some(object), ..editor }
    }

    /// This editor for a key under `multi-value` or `hook`, which shows `shown`: where several values
    /// are alive, an increment is of what shows and replaces them all, as every write does that has
    /// seen them.
    pub fn replacing(self, shown: Option<&'a Object>) -> Self {
        Self { replacing: shown.filter(|_| !self.expired), ..self }
    }

    /// What an increment of the string or field `of` assigns instead, if several values of it are alive.
    fn replaced(
        &self,
        of: impl Fn(&'a Object) -> Option<&'a Scalar<Value>>,
        amount: &Amount,
    ) -> Option<String> {
        let _several = self.object.and_then(&of).filter(|scalar| scalar.is_plural())?;
        let shown = self.replacing.and_then(&of)?.shown()?;
        Some(Amount::parse(&shown)?.plus(amount).to_text())
    }

    /// The object as a reader sees it: `None` when it is absent, expired or empty.
    pub fn shown(&self) -> Option<&'a Object> {
        let object = self.object.filter(|o| !self.expired && o.facet().is_some())?;
        Some(self.replacing.unwrap_or(object))
    }

    /// Clears what the writer has seen and does not see any more: an expired life, hidden facets,
    /// a deadline left without content.
    fn prepare(&mut self) {
        if std::mem::replace(&mut self.prepared, true) {
            return;
        }
        let Some(object) = self.object else { return };
        if self.expired {
            self.clear_facets(object, ALL_FACETS, true);
            self.reborn = true;
            return;
        }
        let hidden = object.hidden_facets();
        if hidden != 0 {
            self.clear_facets(object, hidden, false);
        }
        if object.facet().is_none() && object.expiry().is_some() {
            self.out.push(&Effect::ForgetDeadline);
            self.deadline_settled = true;
        }
    }

    fn clear_facets(&mut self, object: &Object, facets: u8, deadline: bool) {
        let baselines = object.baselines(facets);
        self.out.push(&Effect::Clear { facets, deadline, baselines });
        self.deadline_settled |= deadline;
    }

    /// Removes the key.
    pub fn clear(&mut self) {
        self.prepared = true;
        if let Some(object) = self.object {
            self.clear_facets(object, ALL_FACETS, true);
        }
    }

    /// The string becomes `value`, whatever type the key had.
    pub fn assign(&mut self, value: &[u8], deadline: NewDeadline) {
        self.prepare();
        let mut baseline = Vec::new();
        if let Some(object) = self.object {
            if !self.expired {
                let others = Facet::ALL
                    .into_iter()
                    .filter(|f| *f != Facet::String && object.has_visible(*f))
                    .fold(0, |bits, f| bits | facet_bit(f))
                    & !object.hidden_facets();
                if others != 0 {
                    self.clear_facets(object, others, false);
                }
            }
            baseline = object.string().map(|s| s.baseline()).unwrap_or_default();
        }
        self.out.push(&Effect::Assign { value, baseline });
        self.deadline(deadline);
    }

    /// Settles the deadline.
    pub fn deadline(&mut self, deadline: NewDeadline) {
        match deadline {
            NewDeadline::Keep => {}
            NewDeadline::Forget => {
                if !self.deadline_settled && self.object.is_some_and(|o| o.expiry().is_some()) {
                    self.out.push(&Effect::ForgetDeadline);
                }
                self.deadline_settled = true;
            }
            NewDeadline::At(at_ms) => {
                self.prepare();
                self.out.push(&Effect::Deadline { at_ms });
                self.deadline_settled = true;
                self.reborn = false;
            }
        }
    }

    /// Removes the deadline and beats concurrent ones.
    pub fn persist(&mut self) {
        self.prepare();
        self.out.push(&Effect::Persist);
        self.deadline_settled = true;
        self.reborn = false;
    }

    /// Adds to the string's counter.
    pub fn add(&mut self, amount: &Amount) {
        if let Some(sum) = self.replaced(Object::string, amount) {
            return self.assign(sum.as_bytes(), NewDeadline::Keep);
        }
        self.prepare();
        let known = self.object.and_then(Object::string);
        let (total, fresh) = match known {
            Some(scalar) => scalar.next_total(self.origin, amount),
            None => (amount.clone(), true),
        };
        let index = self.out.next_delta();
        self.out.push(&Effect::Add { total, fresh, index });
    }

    /// `HSET` of one field.
    pub fn field_assign(&mut self, field: &[u8], value: &[u8]) {
        self.field_assign_counted(field, value);
    }

    /// [`Editor::field_assign`], which looks for the field anyway: returns whether it is new to readers.
    pub fn field_assign_counted(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.prepare();
        let known = self.object.and_then(Object::hash).and_then(|h| h.field(field));
        let new = self.expired || !known.is_some_and(|s| s.is_visible());
        let baseline = known.map(|s| s.baseline()).unwrap_or_default();
        self.out.push(&Effect::FieldAssign { field, value, baseline });
        new
    }

    /// `HINCRBY` of one field.
    pub fn field_add(&mut self, field: &[u8], amount: &Amount) {
        if let Some(sum) = self.replaced(|object| object.hash()?.field(field), amount) {
            return self.field_assign(field, sum.as_bytes());
        }
        self.prepare();
        let known = self.object.and_then(Object::hash).and_then(|h| h.field(field));
        let (total, fresh) = match known {
            Some(scalar) => scalar.next_total(self.origin, amount),
            None => (amount.clone(), true),
        };
        let index = self.out.next_delta();
        self.out.push(&Effect::FieldAdd { field, total, fresh, index });
    }

    /// `HDEL` of one field. The caller has made sure that it shows.
    pub fn field_remove(&mut self, field: &[u8]) {
        self.prepare();
        let known = self.object.and_then(Object::hash).and_then(|h| h.field(field));
        let baseline = known.map(|s| s.baseline()).unwrap_or_default();
        self.out.push(&Effect::FieldRemove { field, baseline });
    }

    /// `SADD` of one member, said even when it is there: an addition beats a concurrent removal.
    pub fn member_add(&mut self, member: &[u8]) {
        self.prepare();
        self.out.push(&Effect::MemberAdd { member });
    }

    /// `SREM` of one member. The caller has made sure that it is there.
    pub fn member_remove(&mut self, member: &[u8]) {
        self.prepare();
        self.out.push(&Effect::MemberRemove { member });
    }

    /// `ZADD` of one member.
    pub fn score_assign(&mut self, member: &[u8], score: Score) {
        self.prepare();
        let known = self.object.and_then(Object::sorted_set).and_then(|z| z.member(member));
        let baseline = known.map(|s| s.baseline()).unwrap_or_default();
        self.out.push(&Effect::ScoreAssign { member, score: score.to_bits(), baseline });
    }

    /// `ZINCRBY` of one member.
    pub fn score_add(&mut self, member: &[u8], amount: &Amount) {
        self.prepare();
        let known = self.object.and_then(Object::sorted_set).and_then(|z| z.member(member));
        let (total, fresh) = match known {
            Some(scalar) => scalar.next_total(self.origin, amount),
            None => (amount.clone(), true),
        };
        let index = self.out.next_delta();
        self.out.push(&Effect::ScoreAdd { member, total, fresh, index });
    }

    /// `ZREM` of one member. The caller has made sure that it shows.
    pub fn score_remove(&mut self, member: &[u8]) {
        self.prepare();
        let known = self.object.and_then(Object::sorted_set).and_then(|z| z.member(member));
        let baseline = known.map(|s| s.baseline()).unwrap_or_default();
        self.out.push(&Effect::ScoreRemove { member, baseline });
    }

    /// Makes the key's content and deadline those that `source` shows (`RENAME`, `COPY`), after
    /// clearing what was there.
    pub fn replace_with(&mut self, source: &Object) {
        self.clear();
        if source.facet().is_none() {
            return;
        }
        self.push_content(source);
        if let Some(at_ms) = source.deadline_ms() {
            self.out.push(&Effect::Deadline { at_ms });
        }
        self.deadline_settled = true;
    }

    /// Says the content that `source` shows, of which nothing is there.
    fn push_content(&mut self, source: &Object) {
        match source.facet() {
            None => {}
            Some(Facet::String) => {
                if let Some(value) = source.string().and_then(|s| s.shown()) {
                    self.out.push(&Effect::Assign { value: &value, baseline: Vec::new() });
                }
            }
            Some(Facet::Hash) => {
                for (field, scalar) in source.hash().into_iter().flat_map(|h| h.fields()) {
                    if let Some(value) = scalar.shown() {
                        self.out.push(&Effect::FieldAssign { field, value: &value, baseline: Vec::new() });
                    }
                }
            }
            Some(Facet::Set) => {
                for member in source.set().into_iter().flat_map(|s| s.members().keys()) {
                    self.out.push(&Effect::MemberAdd { member });
                }
            }
            Some(Facet::SortedSet) => {
                for (score, member) in source.sorted_set().into_iter().flat_map(|z| z.range(0..usize::MAX)) {
                    let score = score.to_bits();
                    self.out.push(&Effect::ScoreAssign { member, score, baseline: Vec::new() });
                }
            }
        }
    }

    /// Puts what the command did as a statement of the whole key.
    fn state_whole(&mut self, over: Option<&Object>) {
        // Its stamp is not known yet; what shows does not depend on it.
        let stamp = Stamp { hlc: Hlc::default(), dot: Dot::new(self.origin, u64::MAX) };
        let mut next = self.object.cloned().unwrap_or_default();
        for effect in self.out.open_effects().flatten() {
            next.apply(&effect, Applying { stamp, seen: Seen::All }, &mut Outcome::default());
        }
        self.out.drop_open_effects();
        // Said even where this region sees nothing: another may not have settled yet what this one has.
        let baselines = over.map(|over| over.baselines(ALL_FACETS)).unwrap_or_default();
        self.out.push(&Effect::Clear { facets: ALL_FACETS, deadline: true, baselines });
        self.push_content(&next);
        let shown = next.facet();
        let timed = over.is_some_and(|over| over.expiry().is_some()) || next.deadline_ms().is_some();
        if shown == Some(Facet::String) && !timed {
            return;
        }
        if let (Some(_), Some(at_ms)) = (shown, next.deadline_ms()) {
            self.out.push(&Effect::Deadline { at_ms });
        }
        self.out.push(&Effect::Whole);
    }

    /// Ends the command's work on this key under its name, saying a kept deadline again. Returns
    /// the place of the change in the body; empty when the command changed nothing here.
    pub fn finish(mut self, database: u8, key: &[u8]) -> std::ops::Range<usize> {
        if let Some(over) = self.stated_over {
            if self.out.has_open_effects() {
                self.state_whole(over);
            }
        } else if self.reborn && self.out.has_open_effects() {
            // A cut-off region may have said the old deadline again. It must not hide the new life.
            self.out.push(&Effect::Persist);
        } else if self.out.has_open_effects()
            && !self.deadline_settled
            && let Some(at_ms) = self.shown().and_then(Object::deadline_ms)
        {
            self.out.push(&Effect::Deadline { at_ms });
        }
        self.out.finish_key(database, key)
    }
}
