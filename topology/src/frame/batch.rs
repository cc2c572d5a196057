//! Batches of ops on a subscription's stream.
//!
//! Ordering metadata shrinks to a few bytes per op, because ops of one stream resemble their
//! predecessors; bodies are copied as they are, and decoding borrows them from the batch.
//!
//! # Layout (version 1)
//!
//! | part | bytes |
//! |---|---|
//! | version | 1, [`BATCH_VERSION`] |
//! | origin table | count `varint`, then 8 bytes little-endian each |
//! | ops | until the end |
//!
//! Each op:
//!
//! | part | bytes |
//! |---|---|
//! | tag | 1: bits 0-4 origin's place in the table (31: a `varint` with the place less 31 follows), bit 5 the sequence is one more than that origin's last in this batch, bit 6 deps follow, bit 7 zero |
//! | sequence | without bit 5: zigzag `varint` against that origin's last number in this batch (0 at first) |
//! | HLC | zigzag `varint` against the previous op (0 at first) |
//! | deps | with bit 6: count `varint`, then per entry origin's place `varint`, sequence zigzag `varint` against that origin's last number in this batch |
//! | body | length `varint`, bytes |
//!
//! An origin's "last number" is the last one said of it in this batch, as an op or as a dep.
//! Differences wrap around, so that every value has exactly one form.

use meridian_conflict::clock::{Dot, Hlc, Origin};
use meridian_conflict::op::{DepsDiff, Header, Op};

use super::FrameError;

/// The format of batches.
pub const BATCH_VERSION: u8 = 1;

/// Memory that an encoder keeps from one batch to the next.
const KEPT_BYTES: usize = 1 << 20;

const PLACE_MASK: u8 = 0b0001_1111;
const NEXT_IN_SEQUENCE: u8 = 0b0010_0000;
const HAS_DEPS: u8 = 0b0100_0000;
const RESERVED: u8 = 0b1000_0000;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_difference(out: &mut Vec<u8>, value: u64, against: u64) {
    let difference = value.wrapping_sub(against) as i64;
    put_varint(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

#[derive(Clone, Copy, Debug)]
struct Known {
    origin: Origin,
    /// The last number said of it in this batch.
    last: u64,
}

/// Collects ops for one batch. Reusable: [`BatchEncoder::finish`] keeps the memory.
#[derive(Clone, Debug, Default)]
pub struct BatchEncoder {
    table: Vec<Known>,
    ops: Vec<u8>,
    last_hlc: u64,
    count: usize,
}

impl BatchEncoder {
    /// Adds an op.
    pub fn push(&mut self, header: &Header, body: &[u8]) {
        let Dot { actor: origin, counter: sequence } = header.dot;
        let (place, last) = self.place(origin);
        let next = sequence == last.wrapping_add(1);
        let short = u8::try_from(place).unwrap_or(PLACE_MASK).min(PLACE_MASK);
        let flags =
            if next { NEXT_IN_SEQUENCE } else { 0 } | if header.deps.is_empty() { 0 } else { HAS_DEPS };
        self.ops.push(short | flags);
        if short == PLACE_MASK {
            put_varint(&mut self.ops, (place - usize::from(PLACE_MASK)) as u64);
        }
        if !next {
            put_difference(&mut self.ops, sequence, last);
        }
        self.say(place, sequence);
        put_difference(&mut self.ops, header.hlc.0, self.last_hlc);
        self.last_hlc = header.hlc.0;
        if !header.deps.is_empty() {
            put_varint(&mut self.ops, header.deps.len() as u64);
            for (origin, sequence) in &header.deps {
                let (place, last) = self.place(*origin);
                put_varint(&mut self.ops, place as u64);
                put_difference(&mut self.ops, *sequence, last);
                self.say(place, *sequence);
            }
        }
        put_varint(&mut self.ops, body.len() as u64);
        self.ops.extend_from_slice(body);
        self.count += 1;
    }

    /// Bytes collected so far.
    pub fn bytes(&self) -> usize {
        self.ops.len() + self.table.len() * 8
    }

    /// Ops collected so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the batch to `out` and starts a new one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.reserve(self.bytes() + 11);
        out.push(BATCH_VERSION);
        put_varint(out, self.table.len() as u64);
        for known in &self.table {
            out.extend_from_slice(&known.origin.0.to_le_bytes());
        }
        out.extend_from_slice(&self.ops);
        self.table.clear();
        self.ops.clear();
        // One giant op must not hold its memory for ever.
        self.ops.shrink_to(KEPT_BYTES);
        self.last_hlc = 0;
        self.count = 0;
    }

    /// The origin's place in the table and its last number. A scan: a cluster has few origins.
    fn place(&mut self, origin: Origin) -> (usize, u64) {
        if let Some(found) = self.table.iter().position(|known| known.origin == origin) {
            return (found, self.table.get(found).map_or(0, |known| known.last));
        }
        self.table.push(Known { origin, last: 0 });
        (self.table.len() - 1, 0)
    }

    fn say(&mut self, place: usize, number: u64) {
        if let Some(known) = self.table.get_mut(place) {
            known.last = number;
        }
    }
}

/// Reads the ops of one batch, borrowing their bodies. Ends after the first error.
#[derive(Clone, Debug)]
pub struct BatchDecoder<'a> {
    table: Vec<Known>,
    rest: &'a [u8],
    last_hlc: u64,
}

impl<'a> BatchDecoder<'a> {
    /// Reads the version and the origin table.
    ///
    /// # Errors
    /// [`FrameError`]. Nothing is allocated for a table that is not there.
    pub fn new(batch: &'a [u8]) -> Result<Self, FrameError> {
        let (version, rest) = batch.split_first().ok_or(FrameError::Truncated)?;
        if *version != BATCH_VERSION {
            return Err(FrameError::UnknownVersion(*version));
        }
        let mut decoder = Self { table: Vec::new(), rest, last_hlc: 0 };
        let count = decoder.length()?;
        let bytes = count.checked_mul(8).ok_or(FrameError::Truncated)?;
        let table = decoder.slice(bytes)?;
        decoder.table = table
            .as_chunks::<8>()
            .0
            .iter()
            .map(|chunk| Known { origin: Origin(u64::from_le_bytes(*chunk)), last: 0 })
            .collect();
        Ok(decoder)
    }

    fn slice(&mut self, bytes: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        let (byte, rest) = self.rest.split_first().ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FrameError::Invalid("varint"))
    }

    fn length(&mut self) -> Result<usize, FrameError> {
        usize::try_from(self.varint()?).map_err(|_| FrameError::Truncated)
    }

    fn difference(&mut self, against: u64) -> Result<u64, FrameError> {
        let zigzag = self.varint()?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(against.wrapping_add(difference))
    }

    fn known(&mut self, place: usize) -> Result<&mut Known, FrameError> {
        self.table.get_mut(place).ok_or(FrameError::Invalid("origin"))
    }

    /// A sequence number of the origin at `place`; they start at 1.
    fn sequence(&mut self, place: usize, next: bool) -> Result<(Origin, u64), FrameError> {
        let Known { last, .. } = *self.known(place)?;
        let sequence = if next { last.wrapping_add(1) } else { self.difference(last)? };
        if sequence == 0 {
            return Err(FrameError::Invalid("sequence number"));
        }
        let known = self.known(place)?;
        known.last = sequence;
        Ok((known.origin, sequence))
    }

    fn deps(&mut self) -> Result<DepsDiff, FrameError> {
        let count = self.length()?;
        // Each takes two bytes at least.
        if count > self.rest.len() / 2 {
            return Err(FrameError::Invalid("number of deps"));
        }
        let mut deps = DepsDiff::new();
        for _ in 0..count {
            let place = self.length()?;
            deps.push(self.sequence(place, false)?);
        }
        Ok(deps)
    }

    fn op(&mut self) -> Result<Op<&'a [u8]>, FrameError> {
        let tag = self.byte()?;
        if tag & RESERVED != 0 {
            return Err(FrameError::Invalid("tag"));
        }
        let mut place = usize::from(tag & PLACE_MASK);
        if tag & PLACE_MASK == PLACE_MASK {
            place = place.checked_add(self.length()?).ok_or(FrameError::Invalid("origin"))?;
        }
        let (origin, sequence) = self.sequence(place, tag & NEXT_IN_SEQUENCE != 0)?;
        self.last_hlc = self.difference(self.last_hlc)?;
        let deps = if tag & HAS_DEPS != 0 { self.deps()? } else { DepsDiff::new() };
        let length = self.length()?;
        let body = self.slice(length)?;
        Ok(Op { header: Header { dot: Dot::new(origin, sequence), hlc: Hlc(self.last_hlc), deps }, body })
    }
}

impl<'a> Iterator for BatchDecoder<'a> {
    type Item = Result<Op<&'a [u8]>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let op = self.op();
        if op.is_err() {
            self.rest = &[];
        }
        Some(op)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::RegionId;
    use proptest::prelude::*;

    use super::*;

    fn encode(ops: &[Op<Vec<u8>>]) -> Vec<u8> {
        let mut encoder = BatchEncoder::default();
        for op in ops {
            encoder.push(&op.header, &op.body);
        }
        let mut out = Vec::new();
        encoder.finish(&mut out);
        assert!(encoder.is_empty() && encoder.bytes() == 0);
        out
    }

    fn decode(batch: &[u8]) -> Result<Vec<Op<Vec<u8>>>, FrameError> {
        BatchDecoder::new(batch)?
            .map(|op| op.map(|op| Op { header: op.header, body: op.body.to_vec() }))
            .collect()
    }

    fn any_op() -> impl Strategy<Value = Op<Vec<u8>>> {
        let origin = prop_oneof![0..4u64, 0..60u64, any::<u64>()].prop_map(Origin);
        let sequence = prop_oneof![1..5u64, 1..=u64::MAX];
        let deps = prop::collection::vec((0..4u64, 1..=u64::MAX), 0..4);
        let body = prop::collection::vec(any::<u8>(), 0..20);
        (origin, sequence, any::<u64>(), deps, body).prop_map(|(origin, sequence, hlc, deps, body)| {
            let mut deps: DepsDiff = deps.into_iter().map(|(o, s)| (Origin(o), s)).collect();
            deps.sort();
            deps.dedup_by_key(|d| d.0);
            Op { header: Header { dot: Dot::new(origin, sequence), hlc: Hlc(hlc), deps }, body }
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(ops in prop::collection::vec(any_op(), 0..80)) {
            prop_assert_eq!(decode(&encode(&ops)).unwrap(), ops);
        }

        #[test]
        fn a_batch_cut_anywhere_never_panics(
            ops in prop::collection::vec(any_op(), 1..5), cut in any::<prop::sample::Index>(),
        ) {
            let batch = encode(&ops);
            if let Ok(found) = decode(&batch[..cut.index(batch.len())]) {
                prop_assert!(found.len() < ops.len());
            }
        }
    }

    #[test]
    fn declared_lengths_are_checked_before_anything_is_allocated() {
        let table = [1, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(BatchDecoder::new(&table).err(), Some(FrameError::Truncated));
        let mut body = encode(&[]);
        body[1] = 1;
        body.extend_from_slice(&[7; 8]);
        let head = body.clone();
        body.extend_from_slice(&[NEXT_IN_SEQUENCE, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decode(&body), Err(FrameError::Truncated));
        let mut deps = head;
        deps.extend_from_slice(&[NEXT_IN_SEQUENCE | HAS_DEPS, 0, 0xff, 0xff, 0x0f]);
        assert_eq!(decode(&deps), Err(FrameError::Invalid("number of deps")));
    }

    /// Three regions under load, each hearing of the others before every op: the worst steady case.
    #[test]
    fn ordering_metadata_stays_within_16_bytes_per_op() {
        let origins: Vec<Origin> =
            (0..3).map(|r| Origin::new(RegionId::of(&r.to_string()), 1_700_000_000 + r)).collect();
        let mut encoder = BatchEncoder::default();
        let (mut sequences, mut body_bytes) = ([5_000_000_u64, 7_000_000, 9_000_000], 0);
        for step in 0..300_u64 {
            let who = (step % 3) as usize;
            sequences[who] += 1;
            let deps: DepsDiff = (0..3).filter(|o| *o != who).map(|o| (origins[o], sequences[o])).collect();
            let hlc = Hlc::from_ms(1_800_000_000_000 + step + (step * 7919 % 5));
            let header = Header { dot: Dot::new(origins[who], sequences[who]), hlc, deps };
            encoder.push(&header, &[0; 100]);
            body_bytes += 100;
        }
        let mut out = Vec::new();
        encoder.finish(&mut out);
        let per_op = (out.len() - body_bytes) as f64 / 300.0;
        assert!(per_op <= 16.0, "{per_op} bytes per op");
    }
}
