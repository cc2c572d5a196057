//! Which received ops are duplicates, which must be held, and which may be applied.
//!
//! An op is deliverable when it is the next of its origin and its deps are covered. Only the
//! entries of its deps diff have to be looked at: everything else its writer had seen was a dep of
//! the origin's previous op, and that one is admitted. So the admitted vector must be causally
//! closed, which it is when it starts at a replica's applied vector and only rises here.
//!
//! Held ops wait under the one (origin, sequence) they lack first, so an admission wakes just those
//! that waited for it. The memory they take is bounded: past the bound an op is refused, not lost,
//! because the sender's log still has it.

use std::collections::BTreeMap;

use meridian_conflict::clock::{Dot, Origin, RegionId, VersionVector, covers, raise};
use meridian_conflict::op::{Header, Op};
use smallvec::SmallVec;

type Key = (Origin, u64);

/// What became of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handed out already, or held already. Dropped.
    Duplicate,
    /// Handed out, and with it all that waited for it.
    Deliverable,
    /// Lacks something. Kept until that is there.
    Held,
    /// Lacks something, and there is no room to keep it. Dropped: to be fetched again.
    Refused,
}

/// What a pending op costs beyond its body, for the bound.
const PENDING_OVERHEAD_BYTES: usize = 192;

/// Decides about received ops of type `B` (the encoded body).
#[derive(Clone, Debug)]
pub struct Delivery<B> {
    admitted: VersionVector,
    pending: BTreeMap<Key, Op<B>>,
    /// For a missing (origin, sequence): who waits for it.
    waiting: BTreeMap<Key, SmallVec<[Key; 2]>>,
    pending_bytes: usize,
    pending_bytes_max: usize,
    causal_waits: u64,
    delivered: u64,
    refused: u64,
    duplicates: BTreeMap<RegionId, u64>,
}

impl<B: AsRef<[u8]>> Delivery<B> {
    /// Starts from `admitted`, a replica's applied vector, keeping at most `pending_bytes_max`
    /// bytes of held ops.
    pub fn new(admitted: VersionVector, pending_bytes_max: usize) -> Self {
        Self {
            admitted,
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            pending_bytes: 0,
            pending_bytes_max,
            causal_waits: 0,
            delivered: 0,
            refused: 0,
            duplicates: BTreeMap::new(),
        }
    }

    /// Everything handed out, without gaps, and what the replica started from.
    pub fn admitted(&self) -> &VersionVector {
        &self.admitted
    }

    /// Takes an op received from `peer`. Whatever becomes deliverable is given to `deliver`, in
    /// the order in which it has to be applied.
    pub fn offer(&mut self, peer: RegionId, op: Op<B>, deliver: &mut impl FnMut(Op<B>)) -> Verdict {
        let key = (op.header.dot.actor, op.header.dot.counter);
        if covers(&self.admitted, &op.header.dot) || self.pending.contains_key(&key) {
            *self.duplicates.entry(peer).or_default() += 1;
            return Verdict::Duplicate;
        }
        match self.lacks(&op.header) {
            None => {
                self.admit(op, deliver);
                Verdict::Deliverable
            }
            Some(missing) => self.hold(key, missing, op),
        }
    }

    /// Counts ops of `origin` up to `sequence` as admitted by another way (local ops). Gives out
    /// what waited for them.
    pub fn advance(&mut self, origin: Origin, sequence: u64, deliver: &mut impl FnMut(Op<B>)) {
        if self.admitted.get(&origin) < sequence {
            raise(&mut self.admitted, origin, sequence);
            self.release((origin, sequence), deliver);
        }
    }

    /// The first op that has to be admitted before this one.
    fn lacks(&self, header: &Header) -> Option<Key> {
        let Dot { actor: origin, counter: sequence } = header.dot;
        let before = sequence.saturating_sub(1);
        if self.admitted.get(&origin) < before {
            return Some((origin, before));
        }
        header.deps.iter().copied().find(|(o, s)| *o != origin && self.admitted.get(o) < *s)
    }

    fn hold(&mut self, key: Key, missing: Key, op: Op<B>) -> Verdict {
        let bytes = Self::cost(&op);
        if self.pending_bytes.saturating_add(bytes) > self.pending_bytes_max {
            self.refused += 1;
            return Verdict::Refused;
        }
        self.pending_bytes += bytes;
        self.causal_waits += 1;
        self.pending.insert(key, op);
        self.waiting.entry(missing).or_default().push(key);
        Verdict::Held
    }

    fn admit(&mut self, op: Op<B>, deliver: &mut impl FnMut(Op<B>)) {
        let key = (op.header.dot.actor, op.header.dot.counter);
        raise(&mut self.admitted, key.0, key.1);
        self.delivered += 1;
        deliver(op);
        if !self.waiting.is_empty() {
            self.release(key, deliver);
        }
    }

    /// Hands out what waited for `reached` and lacks nothing else. A loop, not a recursion: chains
    /// of waiting ops can be long.
    fn release(&mut self, reached: Key, deliver: &mut impl FnMut(Op<B>)) {
        let mut reached = vec![reached];
        while let Some((origin, sequence)) = reached.pop() {
            while let Some((&slot, _)) = self.waiting.range((origin, 0)..=(origin, sequence)).next() {
                let Some(waiters) = self.waiting.remove(&slot) else { break };
                for key in waiters {
                    self.recheck(key, &mut reached, deliver);
                }
            }
        }
    }

    fn recheck(&mut self, key: Key, reached: &mut Vec<Key>, deliver: &mut impl FnMut(Op<B>)) {
        let Some(op) = self.pending.get(&key) else { return };
        if let Some(missing) = self.lacks(&op.header) {
            self.waiting.entry(missing).or_default().push(key);
            return;
        }
        let Some(op) = self.pending.remove(&key) else { return };
        self.pending_bytes = self.pending_bytes.saturating_sub(Self::cost(&op));
        raise(&mut self.admitted, key.0, key.1);
        self.delivered += 1;
        deliver(op);
        reached.push(key);
    }

    /// Drops all held ops. Nothing is lost as long as every subscription is then taken up anew from
    /// the admitted vector: what a sender still has, it sends again.
    pub fn forget_held(&mut self) {
        self.pending.clear();
        self.waiting.clear();
        self.pending_bytes = 0;
    }

    fn cost(op: &Op<B>) -> usize {
        op.body.as_ref().len() + PENDING_OVERHEAD_BYTES
    }

    /// Bytes of held ops.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Number of held ops.
    pub fn pending_ops(&self) -> usize {
        self.pending.len()
    }

    /// Whether op `sequence` of `origin` is held.
    pub fn holds(&self, origin: Origin, sequence: u64) -> bool {
        self.pending.contains_key(&(origin, sequence))
    }

    /// Number of held ops by origin.
    pub fn pending_by_origin(&self) -> BTreeMap<Origin, u64> {
        let mut counts = BTreeMap::new();
        for (origin, _) in self.pending.keys() {
            *counts.entry(*origin).or_default() += 1;
        }
        counts
    }

    /// The last held op of each origin of `region`.
    pub fn held_of(&self, region: RegionId) -> VersionVector {
        let held = self.pending.keys().filter(|(origin, _)| origin.region() == region);
        held.map(|(origin, sequence)| Dot::new(*origin, *sequence)).collect()
    }

    /// What held ops wait for, the least first.
    pub fn missing(&self) -> impl Iterator<Item = Dot> + '_ {
        self.waiting.keys().map(|(origin, sequence)| Dot::new(*origin, *sequence))
    }

    /// Whether held ops take at most half of what they may.
    pub fn is_drained(&self) -> bool {
        self.pending_bytes <= self.pending_bytes_max / 2
    }

    /// How many ops had to wait so far. On a ring or a star this stays zero.
    pub fn causal_waits(&self) -> u64 {
        self.causal_waits
    }

    /// How many ops were handed out so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many ops were refused for lack of room so far.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many duplicates came from each peer so far.
    pub fn duplicates(&self) -> &BTreeMap<RegionId, u64> {
        &self.duplicates
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
