//! Comparing with one peer: ranges, the keys of those that differ, and mending.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use meridian_conflict::clock::RegionId;
use meridian_conflict::repair::{Verdict, Views, verdict};
use meridian_topology::entropy::{Answer, Ask, EntropyRefusal, Place};
use serde_bytes::ByteBuf;
use tokio::io::AsyncWriteExt;

use super::{
    Answers, EXCHANGE_WITHIN, EntropyError, FRAME_MAX, KEYS_BYTES, LIST_KEYS, RANGE_KEYS, SETTLE_WITHIN,
    SUSPECTS_MAX, Wire, blocking, framed, is_applied, judged_at,
};
use crate::keyspace::{DATABASES, KeyRef, PlacedKey};
use crate::link::framing::FrameReader;
use crate::region::Region;

/// Keys named in the log for one round.
const NAMED_MAX: u64 = 20;

/// The longest part of a key that is named.
const NAME_BYTES: usize = 120;

/// Divergent keys that are remembered, to be looked at again.
const FOUND_MAX: usize = 10_000;

/// What settling one key costs, in keys of a walk.
const SUSPECT_COST: u64 = 8;

/// A key and the low half of its digest.
type Shown = (Box<[u8]>, u64);

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Keys compared.
    pub(super) keys: u64,
    /// Divergent keys.
    pub(super) divergent: u64,
    /// Those that were mended here; the others are for the peer to mend.
    pub(super) mended: u64,
    /// Suspects of which nothing could be said: they change all the time, or one side is behind.
    pub(super) unsettled: u64,
    /// The divergent keys, not more than so many.
    pub(super) found: Vec<PlacedKey>,
    /// The suspects of which nothing could be said, not more than so many.
    left: Vec<PlacedKey>,
}

impl Tally {
    /// Whether all that was compared is equal.
    pub(super) fn is_clean(&self) -> bool {
        self.divergent == 0 && self.unsettled == 0
    }

    fn leave(&mut self, database: u8, keys: &[Box<[u8]>]) {
        self.unsettled += keys.len() as u64;
        let room = FOUND_MAX.saturating_sub(self.left.len());
        self.left.extend(keys.iter().take(room).map(|key| (database, key.clone())));
    }
}

/// A comparison with one peer.
pub(super) struct Comparison<'a, W> {
    pub(super) region: &'a Arc<Region>,
    pub(super) wire: &'a W,
    pub(super) peer: &'a str,
    /// Keys a second at most; `None` for as many as possible.
    pub(super) keys_per_second: Option<u64>,
    pub(super) tally: Tally,
    /// Keys named in the log, those left out included.
    pub(super) named: u64,
    /// One side does not catch up: suspects are not settled any more.
    is_behind: bool,
}

/// A key as it is shown to people, not too long.
pub(super) fn shown(key: &[u8]) -> String {
    let start = key.get(..NAME_BYTES).unwrap_or(key);
    let more = if start.len() < key.len() { "..." } else { "" };
    format!("{}{more}", start.escape_ascii())
}

impl<'a, W: Wire> Comparison<'a, W> {
    pub(super) fn new(
        region: &'a Arc<Region>,
        wire: &'a W,
        peer: &'a str,
        keys_per_second: Option<u64>,
    ) -> Self {
        Self { region, wire, peer, keys_per_second, tally: Tally::default(), named: 0, is_behind: false }
    }

    /// Compares some ranges from `from` on. Returns where they end.
    pub(super) async fn step(&mut self, from: Place) -> Result<Place, EntropyError> {
        let now_ms = judged_at(self.region);
        let answer = self.one(Ask::Ranges { from, now_ms }).await?;
        let Answer::Ranges(ranges) = answer else { return Err(EntropyError::Protocol("not ranges")) };
        let mut at = from;
        for range in &ranges {
            let to = at.to(range.until).filter(|_| usize::from(at.database) < DATABASES);
            let to = to.ok_or(EntropyError::Protocol("ranges that do not follow each other"))?;
            let most = usize::try_from(range.keys).unwrap_or(usize::MAX).saturating_mul(2);
            let most = most.clamp(RANGE_KEYS, 16 * RANGE_KEYS);
            let begin = at;
            let (keys, digest) =
                blocking(self.region, move |region| own(region, begin, to, now_ms, most)).await?;
            self.tally.keys += keys;
            if digest != Some(range.digest) {
                let before = self.tally.divergent;
                self.differing(at, to).await?;
                self.count_ranges(u64::from(self.tally.divergent > before));
            }
            self.rest(keys, 1).await?;
            at = range.until;
        }
        if at == from { Err(EntropyError::Protocol("no ranges")) } else { Ok(at) }
    }

    fn count_ranges(&self, ranges: u64) {
        self.region.metrics().seeding.divergent_ranges.with_label_values(&[self.peer]).inc_by(ranges);
    }

    /// Counts keys that were compared, and keeps the pace: each costs so many keys of a walk.
    async fn rest(&self, keys: u64, cost: u64) -> Result<(), EntropyError> {
        self.region.metrics().seeding.entropy_keys.with_label_values(&[self.peer]).inc_by(keys);
        if self.region.is_draining() {
            return Err(EntropyError::Draining);
        }
        if let Some(per_second) = self.keys_per_second {
            let seconds = keys.saturating_mul(cost) as f64 / per_second.max(1) as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        Ok(())
    }

    /// Finds the keys by which a range differs, and settles them.
    async fn differing(&mut self, from: Place, to: Option<u64>) -> Result<(), EntropyError> {
        let (database, mut from) = (from.database, Some(from));
        while let Some(at) = from.take() {
            let now_ms = judged_at(self.region);
            let answer = self.one(Ask::Keys { from: at, to, now_ms }).await?;
            let Answer::Keys { keys, next } = answer else { return Err(EntropyError::Protocol("not keys")) };
            if next.is_some_and(|next| next <= at.hash || to.is_some_and(|to| next >= to)) {
                return Err(EntropyError::Protocol("a list that does not go on"));
            }
            let mut theirs: HashMap<Box<[u8]>, u64> =
                keys.into_iter().map(|listed| (listed.key.into_vec().into(), listed.digest)).collect();
            let (mut own_from, end) = (Some(at.hash), next.or(to));
            while let Some(hash) = own_from {
                let work = move |region: &Region| {
                    let stretch = region.keyspace().keys_between(database, hash, end, LIST_KEYS)?;
                    Ok((digests(region, database, stretch.keys, now_ms)?, stretch.next))
                };
                let (mine, next) = blocking(self.region, work).await?;
                let differs = |(key, mine): &Shown| theirs.remove(key).unwrap_or(0) != *mine;
                let suspects: Vec<_> = mine.into_iter().filter(differs).map(|(key, _)| key).collect();
                self.settle_all(database, suspects).await?;
                own_from = next;
            }
            // What only the peer has listed; here it may be in memory, or not be at all.
            let rest: Vec<Shown> = theirs.into_iter().filter(|(_, digest)| *digest != 0).collect();
            self.settle_all(database, rest.into_iter().map(|(key, _)| key).collect()).await?;
            from = next.map(|hash| Place { database, hash });
        }
        Ok(())
    }

    /// Settles these keys, in batches. Returns how many have diverged.
    pub(super) async fn settle_all(
        &mut self,
        database: u8,
        keys: Vec<Box<[u8]>>,
    ) -> Result<u64, EntropyError> {
        let (mut batch, mut bytes, mut found) = (Vec::new(), 0, 0);
        for key in keys {
            bytes += key.len();
            batch.push(key);
            if batch.len() >= SUSPECTS_MAX || bytes >= KEYS_BYTES {
                found += self.settle(database, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            found += self.settle(database, batch).await?;
        }
        Ok(found)
    }

    async fn settle(&mut self, database: u8, keys: Vec<Box<[u8]>>) -> Result<u64, EntropyError> {
        let divergent = self.settle_quietly(database, &keys).await?;
        let found = divergent.len() as u64;
        if found > 0 {
            // What is missing there they can only mend themselves.
            let keys = divergent.into_iter().map(|key| ByteBuf::from(key.into_vec())).collect();
            self.one(Ask::Look { database, keys }).await?;
        }
        self.rest(keys.len() as u64, SUSPECT_COST).await?;
        Ok(found)
    }

    /// Judges these keys and mends those that have diverged, without telling the peer. Returns those.
    async fn settle_quietly(
        &mut self,
        database: u8,
        keys: &[Box<[u8]>],
    ) -> Result<Vec<Box<[u8]>>, EntropyError> {
        if self.is_behind {
            self.tally.leave(database, keys);
            return Ok(Vec::new());
        }
        let divergent = match self.judge(database, keys).await {
            Err(EntropyError::Refused(EntropyRefusal::Behind)) => {
                self.is_behind = true;
                self.tally.leave(database, keys);
                return Ok(Vec::new());
            }
            judged => judged?,
        };
        for key in &divergent {
            self.name(database, key);
            self.tally.mended += u64::from(self.mend(database, key).await?);
        }
        Ok(divergent)
    }

    /// Counts and names a divergent key.
    fn name(&mut self, database: u8, key: &[u8]) {
        self.tally.divergent += 1;
        self.named += 1;
        if self.named <= NAMED_MAX {
            let (peer, key) = (self.peer, shown(key));
            tracing::warn!(peer, database, key, "diverged: after the same ops both show different values");
        } else if self.named == NAMED_MAX + 1 {
            tracing::warn!(peer = self.peer, "more keys have diverged; they are not named");
        }
        if self.tally.found.len() < FOUND_MAX {
            self.tally.found.push((database, key.into()));
        }
    }

    /// Looks at all that the peer, region `id`, has asked to look at.
    pub(super) async fn look_all(&mut self, id: RegionId) -> Result<(), EntropyError> {
        while let Some((database, keys)) = self.region.entropy().take_looks(id) {
            self.look(database, keys).await?;
        }
        Ok(())
    }

    /// Looks at keys that the peer has found divergent, which therefore is not told of them again.
    async fn look(&mut self, database: u8, keys: Vec<Box<[u8]>>) -> Result<(), EntropyError> {
        let found = self.settle_quietly(database, &keys).await?.len() as u64;
        self.count_ranges(found);
        self.rest(keys.len() as u64, SUSPECT_COST).await
    }

    /// Compares single keys, each a range of its own.
    pub(super) async fn check(&mut self, database: u8, keys: Vec<Box<[u8]>>) -> Result<(), EntropyError> {
        let found = self.settle_all(database, keys).await?;
        self.count_ranges(found);
        Ok(())
    }

    /// Tries again what could not be settled, so many times at most.
    pub(super) async fn settle_left(&mut self, tries: usize) -> Result<(), EntropyError> {
        for _ in 0..tries {
            let left = std::mem::take(&mut self.tally.left);
            self.tally.unsettled = self.tally.unsettled.saturating_sub(left.len() as u64);
            self.is_behind = false;
            for (database, key) in left {
                let found = self.settle(database, vec![key]).await?;
                self.count_ranges(found);
            }
        }
        Ok(())
    }

    /// Whether a key that had diverged shows the same on both sides now.
    pub(super) async fn is_equal(&mut self, database: u8, key: &[u8]) -> Result<bool, EntropyError> {
        let before = self.tally.unsettled;
        let divergent = self.judge(database, &[key.into()]).await?;
        let is_settled = self.tally.unsettled == before;
        self.tally.unsettled = before;
        Ok(is_settled && divergent.is_empty())
    }

    /// Which of these keys have diverged.
    async fn judge(&mut self, database: u8, keys: &[Box<[u8]>]) -> Result<Vec<Box<[u8]>>, EntropyError> {
        let now_ms = judged_at(self.region);
        let names: Vec<ByteBuf> = keys.iter().map(|key| ByteBuf::from(key.to_vec())).collect();
        let own = keys.to_vec();
        let work = move |region: &Region| {
            let durable = region.log().durable_lsn().0;
            let observe = |key| region.keyspace().observe(&KeyRef::new(database, key), now_ms, durable);
            own.iter().map(|key| observe(key)).collect::<Result<Vec<_>, _>>()
        };
        let observed = blocking(self.region, work).await?;
        // After the digests were taken, so that it includes whatever they show.
        let asked = self.region.sequencer().applied();
        let question = Ask::Settle { applied: asked.clone(), now_ms, database, keys: names };
        let Answer::Settled { applied: theirs, digests } = self.one(question).await? else {
            return Err(EntropyError::Protocol("no settlement"));
        };
        if digests.len() != keys.len() {
            return Err(EntropyError::Protocol("another number of digests than keys"));
        }
        if !is_applied(self.region, &theirs, SETTLE_WITHIN).await {
            return Err(EntropyError::Refused(EntropyRefusal::Behind));
        }
        let applied = self.region.sequencer().applied();
        let (mut divergent, mut left) = (Vec::new(), Vec::new());
        for ((key, observed), theirs_shown) in keys.iter().zip(observed).zip(digests) {
            let both = observed.zip(theirs_shown);
            let judged = both.map(|(mine, shown)| {
                let is_unmoved = self.region.keyspace().is_unmoved(&KeyRef::new(database, key), mine.mark);
                let views = Views { asked: &asked, theirs: &theirs, applied: &applied, is_unmoved };
                verdict(&views, mine.digest, shown)
            });
            match judged.unwrap_or(Verdict::Unknown) {
                Verdict::Equal => {}
                Verdict::Unknown => left.push(key.clone()),
                Verdict::Divergent => divergent.push(key.clone()),
            }
        }
        self.tally.leave(database, &left);
        Ok(divergent)
    }

    /// Asks, and waits for the one answer.
    async fn one(&self, ask: Ask) -> Result<Answer, EntropyError> {
        let exchange = async {
            let mut answers = self.ask(ask).await?;
            let answer = answers.next().await;
            self.count(&answers);
            answer
        };
        tokio::time::timeout(EXCHANGE_WITHIN, exchange).await.unwrap_or(Err(EntropyError::Slow))
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<Answers<W::Input>, EntropyError> {
        let (input, mut output) = self.wire.open().await?;
        let frame = framed(&ask.encode())?;
        let sent = &self.region.metrics().links.bytes;
        sent.with_label_values(&[self.peer, "sent", "entropy"]).inc_by(frame.len() as u64);
        output.write_all(&frame).await?;
        output.shutdown().await?;
        Ok(Answers { frames: FrameReader::new(input, FRAME_MAX), bytes: 0 })
    }

    pub(super) fn count(&self, answers: &Answers<W::Input>) {
        let received = &self.region.metrics().links.bytes;
        received.with_label_values(&[self.peer, "received", "entropy"]).inc_by(answers.bytes);
    }
}

/// This region's digest of a range; `None` when it has far more keys there than `most`.
fn own(
    region: &Region,
    from: Place,
    to: Option<u64>,
    now_ms: u64,
    most: usize,
) -> Result<(u64, Option<u128>), crate::store::StoreError> {
    let stretch = region.keyspace().keys_between(from.database, from.hash, to, most)?;
    let keys = stretch.keys.len() as u64;
    if stretch.next.is_some() {
        return Ok((keys, None));
    }
    let mut sum = 0u128;
    for key in &stretch.keys {
        let shown = region.keyspace().digest_of(&KeyRef::new(from.database, key), now_ms)?;
        sum = sum.wrapping_add(shown.unwrap_or(0));
    }
    Ok((keys, Some(sum)))
}

fn digests(
    region: &Region,
    database: u8,
    keys: Vec<Box<[u8]>>,
    now_ms: u64,
) -> Result<Vec<Shown>, crate::store::StoreError> {
    let digest = |key: Box<[u8]>| {
        let digest = region.keyspace().digest_of(&KeyRef::new(database, &key), now_ms)?;
        Ok((key, digest.unwrap_or(0) as u64))
    };
    keys.into_iter().map(digest).collect()
}
