//! A world of replicas in virtual time: local commands go through the editor, ops are delivered in
//! causal orders of the test's choosing.

use std::collections::BTreeMap;

use meridian_conflict::amount::Amount;
use meridian_conflict::clock::{
    Dot, HlcClock, Origin, RegionId, Seen, Stamp, VersionVector, covers, covers_all, raise,
};
use meridian_conflict::crdt::Score;
use meridian_conflict::digest::digest;
use meridian_conflict::edit::{Editor, NewDeadline};
use meridian_conflict::object::{ALL_FACETS, Applying, Object};
use meridian_conflict::op::{BodyBuilder, Effect, ElementBaseline, Facet, KeyBaseline, changes};
use meridian_conflict::outcome::Outcome;
use proptest::prelude::*;

pub type Key = (u8, Vec<u8>);
pub type Dataset = BTreeMap<Key, Object>;

/// What a client asks for, on one of few keys and elements so that they meet.
#[derive(Clone, Debug)]
pub enum Command {
    Set { value: u8, keep: bool },
    SetNumber { value: i8 },
    Append { value: u8 },
    IncrBy { amount: i8 },
    IncrByFloat { tenths: i8 },
    Del,
    HSet { field: u8, value: u8 },
    HSetNumber { field: u8, value: i8 },
    HDel { field: u8 },
    HIncrBy { field: u8, amount: i8 },
    SAdd { member: u8 },
    SRem { member: u8 },
    ZAdd { member: u8, score: i8 },
    ZIncrBy { member: u8, tenths: i8 },
    ZRem { member: u8 },
    Expire { at_ms: u8 },
    Persist,
    Rename { to: u8 },
    Flush,
}

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command, or several as one op.
    Local { at: u8, wall_ms: u8, commands: Vec<(u8, Command)> },
    /// One op that can be delivered is.
    Deliver { at: u8, pick: u8 },
    /// An op delivered before comes again.
    Again { at: u8, pick: u8 },
    /// From now on a replica writes under `lww`, or under `crdt`.
    Policy { at: u8, lww: bool },
}

fn command() -> impl Strategy<Value = Command> {
    let e = 0u8..3;
    prop_oneof![
        3 => (0u8..4, any::<bool>()).prop_map(|(value, keep)| Command::Set { value, keep }),
        2 => (-5i8..5).prop_map(|value| Command::SetNumber { value }),
        1 => (0u8..4).prop_map(|value| Command::Append { value }),
        4 => (-5i8..9).prop_map(|amount| Command::IncrBy { amount }),
        2 => (-5i8..9).prop_map(|tenths| Command::IncrByFloat { tenths }),
        4 => Just(Command::Del),
        3 => (e.clone(), 0u8..4).prop_map(|(field, value)| Command::HSet { field, value }),
        2 => (e.clone(), -5i8..5).prop_map(|(field, value)| Command::HSetNumber { field, value }),
        3 => e.clone().prop_map(|field| Command::HDel { field }),
        4 => (e.clone(), -5i8..5).prop_map(|(field, amount)| Command::HIncrBy { field, amount }),
        4 => e.clone().prop_map(|member| Command::SAdd { member }),
        3 => e.clone().prop_map(|member| Command::SRem { member }),
        3 => (e.clone(), -3i8..3).prop_map(|(member, score)| Command::ZAdd { member, score }),
        3 => (e.clone(), -5i8..5).prop_map(|(member, tenths)| Command::ZIncrBy { member, tenths }),
        3 => e.prop_map(|member| Command::ZRem { member }),
        3 => (0u8..60).prop_map(|at_ms| Command::Expire { at_ms }),
        1 => Just(Command::Persist),
        1 => (0u8..3).prop_map(|to| Command::Rename { to }),
        1 => Just(Command::Flush),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let commands = prop_oneof![
        4 => proptest::collection::vec((0u8..3, command()), 1),
        1 => proptest::collection::vec((0u8..3, command()), 2..5),
    ];
    prop_oneof![
        4 => (any::<u8>(), 0u8..40, commands)
            .prop_map(|(at, wall_ms, commands)| Step::Local { at, wall_ms, commands }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(at, pick)| Step::Deliver { at, pick }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(at, pick)| Step::Again { at, pick }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(at, lww)| Step::Policy { at, lww }),
    ]
}

pub fn history(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..steps)
}

/// An op with its deps in full.
#[derive(Clone, Debug)]
pub struct Travelling {
    pub stamp: Stamp,
    pub deps: VersionVector,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Replica {
    pub origin: Origin,
    pub data: Dataset,
    pub applied: VersionVector,
    pub clock: HlcClock,
    /// Indices into the world's ops, in the order of applying.
    pub log: Vec<usize>,
    /// Whether the policy of every key is `lww`.
    pub lww: bool,
}

pub fn origin(n: usize) -> Origin {
    Origin::new(RegionId(n as u32 + 1), 7)
}

pub fn key(n: u8) -> Key {
    (n % 2, vec![b'k', n])
}

fn element(n: u8) -> Vec<u8> {
    vec![b'e', n]
}

/// Applies a body as a store would: flushes to every object, vacant objects dropped.
pub fn apply_body(data: &mut Dataset, body: &[u8], how: Applying<'_>, outcome: &mut Outcome) {
    for change in changes(body) {
        let change = change.unwrap();
        for effect in change.effects() {
            match effect.unwrap() {
                Effect::Flush { baselines } => flush(data, change.database, &baselines, how, outcome),
                effect => {
                    let key = (change.database, change.key.to_vec());
                    data.entry(key).or_default().apply(&effect, how, outcome);
                }
            }
        }
    }
    data.retain(|_, object| !object.is_vacant());
}

fn flush(
    data: &mut Dataset,
    database: u8,
    all: &[KeyBaseline<'_>],
    how: Applying<'_>,
    outcome: &mut Outcome,
) {
    for named in all {
        data.entry((database, named.key.to_vec())).or_default();
    }
    for (key, object) in data.iter_mut().filter(|(key, _)| key.0 == database) {
        let own: Vec<ElementBaseline<'_>> =
            all.iter().filter(|b| b.key == key.1).map(|b| b.element.clone()).collect();
        object.apply_flush(&own, how, outcome);
    }
}

impl Replica {
    pub fn new(n: usize) -> Self {
        Self {
            origin: origin(n),
            data: Dataset::new(),
            applied: VersionVector::new(),
            clock: HlcClock::default(),
            log: Vec::new(),
            lww: false,
        }
    }

    /// A key's state as a reader of this replica sees it.
    pub fn read(&self, key: &Key) -> Option<&Object> {
        let object = self.data.get(key)?;
        Some(if self.lww { object.under_lww() } else { object })
    }

    pub fn can_apply(&self, op: &Travelling) -> bool {
        !covers(&self.applied, &op.stamp.dot) && covers_all(&self.applied, &op.deps)
    }

    pub fn apply(&mut self, index: usize, op: &Travelling) -> Outcome {
        let mut outcome = Outcome::default();
        let seen = Seen::Vector { deps: &op.deps, dot: op.stamp.dot };
        apply_body(&mut self.data, &op.body, Applying { stamp: op.stamp, seen }, &mut outcome);
        if !covers(&self.applied, &op.stamp.dot) {
            self.log.push(index);
        }
        raise(&mut self.applied, op.stamp.dot.actor, op.stamp.dot.counter);
        self.clock.observe(op.stamp.hlc, 0, u64::MAX).unwrap();
        outcome
    }

    pub fn digest(&self, now_ms: u64) -> u128 {
        dataset_digest(&self.data, now_ms)
    }

    /// Writes one op; `None` when the commands changed nothing.
    pub fn write(&mut self, wall_ms: u64, commands: &[(u8, Command)]) -> Option<Travelling> {
        self.write_with(wall_ms, |replica, stamp, out| {
            for (k, command) in commands {
                replica.command(stamp, wall_ms, &key(*k), command, out);
            }
        })
    }

    pub fn write_with(
        &mut self,
        wall_ms: u64,
        work: impl FnOnce(&mut Self, Stamp, &mut BodyBuilder),
    ) -> Option<Travelling> {
        let stamp = Stamp {
            hlc: self.clock.tick(wall_ms),
            dot: Dot::new(self.origin, self.applied.get(&self.origin) + 1),
        };
        let mut out = BodyBuilder::default();
        work(self, stamp, &mut out);
        if out.is_empty() {
            return None;
        }
        let op = Travelling { stamp, deps: self.applied.clone(), body: out.body().to_vec() };
        raise(&mut self.applied, self.origin, stamp.dot.counter);
        Some(op)
    }

    /// Applies what was just added to the body, as a local write.
    fn take(&mut self, stamp: Stamp, change: &[u8]) {
        let mut outcome = Outcome::default();
        apply_body(&mut self.data, change, Applying { stamp, seen: Seen::All }, &mut outcome);
        assert!(outcome.conflicts.is_empty(), "a local write never conflicts: {outcome:?}");
    }

    pub fn edit(
        &mut self,
        stamp: Stamp,
        now_ms: u64,
        key: &Key,
        out: &mut BodyBuilder,
        work: impl FnOnce(&mut Editor<'_, '_>),
    ) {
        let object = self.data.get(key);
        let mut editor = if self.lww {
            Editor::stating(object, self.origin, now_ms, out)
        } else {
            Editor::new(object, self.origin, now_ms, out)
        };
        work(&mut editor);
        let place = editor.finish(key.0, &key.1);
        let change = out.body()[place].to_vec();
        self.take(stamp, &change);
    }

    fn command(&mut self, stamp: Stamp, now_ms: u64, at: &Key, command: &Command, out: &mut BodyBuilder) {
        let before = self.read(at).cloned().unwrap_or_default();
        let shown = if before.is_visible(now_ms) { before.facet() } else { None };
        let fits = |facet: Facet| shown.is_none() || shown == Some(facet);
        let string = (shown == Some(Facet::String))
            .then(|| before.string().and_then(|s| s.shown()).map(|v| v.into_owned()))
            .flatten();
        let field_number = |field: u8| {
            let known = (shown == Some(Facet::Hash)).then(|| before.hash()).flatten();
            let value = known.and_then(|h| h.field(&element(field))).and_then(|s| s.shown());
            value.is_none_or(|v| Amount::parse(&v).is_some())
        };
        if let Command::Flush = command {
            return self.flush(stamp, at.0, out);
        }
        if let Command::Rename { to } = command {
            let to = key(*to);
            if shown.is_some() && to != *at && to.0 == at.0 {
                self.edit(stamp, now_ms, &to, out, |e| e.replace_with(&before));
                self.edit(stamp, now_ms, at, out, |e| e.clear());
            }
            return;
        }
        self.edit(stamp, now_ms, at, out, |e| match command {
            Command::Set { value, keep } => {
                let deadline = if *keep { NewDeadline::Keep } else { NewDeadline::Forget };
                e.assign(&[b'v', *value], deadline);
            }
            Command::SetNumber { value } => e.assign(value.to_string().as_bytes(), NewDeadline::Forget),
            Command::Append { value } if fits(Facet::String) => {
                let mut text = string.unwrap_or_default();
                text.push(*value);
                e.assign(&text, NewDeadline::Keep);
            }
            Command::IncrBy { amount } if fits(Facet::String) => {
                if string.is_none_or(|s| Amount::parse(&s).is_some()) {
                    e.add(&Amount::from(i64::from(*amount)));
                }
            }
            Command::IncrByFloat { tenths } if fits(Facet::String) => {
                if string.is_none_or(|s| Amount::parse(&s).is_some()) {
                    e.add(&Amount::parse(format!("{tenths}e-1").as_bytes()).unwrap());
                }
            }
            Command::Del if shown.is_some() => e.clear(),
            Command::HSet { field, value } if fits(Facet::Hash) => {
                e.field_assign(&element(*field), &[b'v', *value]);
            }
            Command::HSetNumber { field, value } if fits(Facet::Hash) => {
                e.field_assign(&element(*field), value.to_string().as_bytes());
            }
            Command::HDel { field } if shown == Some(Facet::Hash) => {
                let field = element(*field);
                if before.hash().and_then(|h| h.field(&field)).is_some_and(|s| s.is_visible()) {
                    e.field_remove(&field);
                }
            }
            Command::HIncrBy { field, amount } if fits(Facet::Hash) && field_number(*field) => {
                e.field_add(&element(*field), &Amount::from(i64::from(*amount)));
            }
            Command::SAdd { member } if fits(Facet::Set) => e.member_add(&element(*member)),
            Command::SRem { member } if shown == Some(Facet::Set) => {
                if before.set().is_some_and(|s| s.contains(&element(*member))) {
                    e.member_remove(&element(*member));
                }
            }
            Command::ZAdd { member, score } if fits(Facet::SortedSet) => {
                e.score_assign(&element(*member), Score::new(f64::from(*score) / 2.0).unwrap());
            }
            Command::ZIncrBy { member, tenths } if fits(Facet::SortedSet) => {
                e.score_add(&element(*member), &Amount::parse(format!("{tenths}e-1").as_bytes()).unwrap());
            }
            Command::ZRem { member } if shown == Some(Facet::SortedSet) => {
                if before.sorted_set().and_then(|z| z.score(&element(*member))).is_some() {
                    e.score_remove(&element(*member));
                }
            }
            Command::Expire { at_ms } if shown.is_some() => e.deadline(NewDeadline::At(u64::from(*at_ms))),
            Command::Persist if shown.is_some() && before.deadline_ms().is_some() => e.persist(),
            _ => {}
        });
    }

    fn flush(&mut self, stamp: Stamp, database: u8, out: &mut BodyBuilder) {
        let place = {
            let own = self.data.iter().filter(|(key, _)| key.0 == database);
            let baselines: Vec<KeyBaseline<'_>> = own
                .flat_map(|(key, object)| {
                    let elements = object.baselines(ALL_FACETS).into_iter();
                    elements.map(|element| KeyBaseline { key: &key.1, element })
                })
                .collect();
            out.push(&Effect::Flush { baselines });
            out.finish_key(database, b"")
        };
        let change = out.body()[place].to_vec();
        self.take(stamp, &change);
    }
}

/// The dataset as a region reads it where the policy of every key is `lww`.
pub fn lww_digest(data: &Dataset, now_ms: u64) -> u128 {
    let each = data.iter().map(|((db, key), object)| digest(*db, key, object.under_lww(), now_ms));
    each.fold(0, u128::wrapping_add)
}

pub fn dataset_digest(data: &Dataset, now_ms: u64) -> u128 {
    data.iter().fold(0, |sum, ((db, key), object)| sum.wrapping_add(digest(*db, key, object, now_ms)))
}

/// A small deterministic generator for orders.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub replicas: Vec<Replica>,
    /// In order of writing, which is a causal order.
    pub ops: Vec<Travelling>,
}

/// The history as it would be on one key, without what concerns several.
pub fn on_one_key(steps: Vec<Step>) -> Vec<Step> {
    let single = |commands: Vec<(u8, Command)>| {
        let kept =
            commands.into_iter().filter(|(_, c)| !matches!(c, Command::Rename { .. } | Command::Flush));
        kept.map(|(_, command)| (0, command)).collect()
    };
    steps
        .into_iter()
        .map(|step| match step {
            Step::Local { at, wall_ms, commands } => Step::Local { at, wall_ms, commands: single(commands) },
            other => other,
        })
        .collect()
}

impl World {
    pub fn new(replicas: usize) -> Self {
        Self { replicas: (0..replicas).map(Replica::new).collect(), ops: Vec::new() }
    }

    pub fn run(replicas: usize, steps: &[Step]) -> Self {
        let mut world = Self::new(replicas);
        for step in steps {
            world.step(step);
        }
        world
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Local { at, wall_ms, commands } => {
                let at = usize::from(*at) % self.replicas.len();
                if let Some(op) = self.replicas[at].write(u64::from(*wall_ms), commands) {
                    self.replicas[at].log.push(self.ops.len());
                    self.ops.push(op);
                }
            }
            Step::Deliver { at, pick } => {
                let at = usize::from(*at) % self.replicas.len();
                self.deliver(at, usize::from(*pick));
            }
            Step::Again { at, pick } => {
                let at = usize::from(*at) % self.replicas.len();
                self.again(at, usize::from(*pick));
            }
            Step::Policy { at, lww } => {
                let at = usize::from(*at) % self.replicas.len();
                self.replicas[at].lww = *lww;
            }
        }
    }

    /// Delivers one of the ops that can be; returns its index.
    pub fn deliver(&mut self, at: usize, pick: usize) -> Option<usize> {
        let replica = &mut self.replicas[at];
        let ready: Vec<usize> = (0..self.ops.len()).filter(|i| replica.can_apply(&self.ops[*i])).collect();
        let index = ready.get(pick % ready.len().max(1))?;
        replica.apply(*index, &self.ops[*index]);
        Some(*index)
    }

    /// Delivers the rest of the log from some op on once more, as a peer does that resumes from an
    /// old position: single duplicates never go back behind what followed them.
    pub fn again(&mut self, at: usize, pick: usize) {
        let replica = &mut self.replicas[at];
        if replica.log.is_empty() {
            return;
        }
        let from = pick % replica.log.len();
        for at in from..replica.log.len() {
            let index = replica.log[at];
            replica.apply(index, &self.ops[index]);
        }
    }

    /// Delivers everything everywhere.
    pub fn drain(&mut self, dice: &mut Dice) {
        loop {
            let start = dice.below(self.replicas.len());
            let n = self.replicas.len();
            let mut any = false;
            for i in 0..n {
                any |= self.deliver((start + i) % n, dice.below(usize::MAX)).is_some();
            }
            if !any {
                return;
            }
        }
    }

    /// A fresh replica to which the given ops are delivered in some causal order.
    pub fn replay(&self, wanted: &VersionVector, dice: &mut Dice) -> Replica {
        let mut replica = Replica::new(99);
        loop {
            let ready: Vec<usize> = (0..self.ops.len())
                .filter(|i| covers(wanted, &self.ops[*i].stamp.dot) && replica.can_apply(&self.ops[*i]))
                .collect();
            if ready.is_empty() {
                return replica;
            }
            let index = ready[dice.below(ready.len())];
            replica.apply(index, &self.ops[index]);
        }
    }
}
