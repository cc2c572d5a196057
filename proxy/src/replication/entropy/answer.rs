//! Answering a neighbour that compares.

use std::sync::Arc;

use bytes::Bytes;
use meridian_conflict::clock::RegionId;
use meridian_conflict::object::Object;
use meridian_topology::entropy::{Answer, Ask, EntropyRefusal, Listed, Place, Range};
use meridian_topology::seed::{Record, SEED_VERSION};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    EntropyError, KEYS_BYTES, LIST_KEYS, Look, PIECE_BYTES, RANGE_KEYS, RANGES_MAX, SETTLE_WITHIN, STEP_KEYS,
    SUSPECTS_MAX, blocking, framed, is_applied,
};
use crate::keyspace::{DATABASES, KeyRef};
use crate::region::Region;
use crate::store::StoreError;
use crate::store::row::key_hash;

/// Answers the question in a stream's first frame. `asker` is whom it comes from.
///
/// # Errors
/// [`EntropyError`]; nothing was changed here.
pub(crate) async fn answer(
    region: &Arc<Region>,
    asker: RegionId,
    question: Bytes,
    mut output: impl AsyncWrite + Unpin,
) -> Result<(), EntropyError> {
    let answered = match Ask::decode(&question) {
        Ok(_) if region.is_loading() => Err(EntropyError::Refused(EntropyRefusal::Loading)),
        Ok(ask) => serve(region, asker, ask, &mut output).await,
        Err(error) => Err(error.into()),
    };
    let refusal = match &answered {
        Err(EntropyError::Refused(reason)) => Some(*reason),
        Err(EntropyError::Store(_)) => Some(EntropyRefusal::Store),
        _ => None,
    };
    if let Some(reason) = refusal {
        send(&mut output, &Answer::Refused(reason)).await?;
    }
    output.shutdown().await?;
    if refusal.is_some() { Ok(()) } else { answered }
}

async fn send(output: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> Result<(), EntropyError> {
    output.write_all(&framed(&answer.encode())?).await?;
    Ok(())
}

async fn serve(
    region: &Arc<Region>,
    asker: RegionId,
    ask: Ask,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<(), EntropyError> {
    if let Ask::Settle { applied, .. } | Ask::Object { applied, .. } = &ask
        && !is_applied(region, applied, SETTLE_WITHIN).await
    {
        return Err(EntropyError::Refused(EntropyRefusal::Behind));
    }
    // Nobody closes the semaphore.
    let _turn = region.entropy().answering.acquire().await.map_err(|_| EntropyError::Draining)?;
    let answer = match ask {
        Ask::Ranges { from, .. } | Ask::Keys { from, .. } if usize::from(from.database) >= DATABASES => {
            return Err(EntropyError::Protocol("a database that cannot be"));
        }
        Ask::Settle { database, .. } | Ask::Object { database, .. } | Ask::Look { database, .. }
            if usize::from(database) >= DATABASES =>
        {
            return Err(EntropyError::Protocol("a database that cannot be"));
        }
        Ask::Settle { keys, .. } | Ask::Look { keys, .. } if keys.len() > SUSPECTS_MAX => {
            return Err(EntropyError::Protocol("too many keys at once"));
        }
        Ask::Ranges { from, now_ms } => blocking(region, move |region| ranges(region, from, now_ms)).await?,
        Ask::Keys { from, to, now_ms } => {
            blocking(region, move |region| list(region, from, to, now_ms)).await?
        }
        Ask::Settle { now_ms, database, keys, .. } => {
            blocking(region, move |region| settle(region, database, &keys, now_ms)).await?
        }
        Ask::Object { database, key, .. } => return object(region, database, key, output).await,
        Ask::Look { database, keys } => {
            let look = |key: ByteBuf| Look { peer: asker, database, key: key.into_vec().into() };
            region.entropy().note(keys.into_iter().map(look));
            Answer::Noted
        }
    };
    send(output, &answer).await
}

fn ranges(region: &Region, from: Place, now_ms: u64) -> Result<Answer, StoreError> {
    let (mut at, mut ranges, mut left) = (from, Vec::new(), STEP_KEYS);
    while usize::from(at.database) < DATABASES && left > 0 && ranges.len() < RANGES_MAX {
        let stretch = region.keyspace().keys_between(at.database, at.hash, None, left)?;
        left = left.saturating_sub(stretch.keys.len());
        let hashes: Vec<u64> = stretch.keys.iter().map(|key| key_hash(key)).collect();
        let mut begin = 0;
        loop {
            let end = range_end(&hashes, begin);
            let mut digest = 0u128;
            for key in stretch.keys.get(begin..end).unwrap_or_default() {
                let shown = region.keyspace().digest_of(&KeyRef::new(at.database, key), now_ms)?;
                digest = digest.wrapping_add(shown.unwrap_or(0));
            }
            let count = u32::try_from(end - begin).unwrap_or(u32::MAX);
            let until = hashes.get(end).copied().or(stretch.next);
            let behind = Place::behind(at.database);
            let until = until.map_or(behind, |hash| Place { database: at.database, hash });
            ranges.push(Range { until, keys: count, digest });
            at = until;
            begin = end;
            if begin >= hashes.len() || ranges.len() >= RANGES_MAX {
                break;
            }
        }
    }
    Ok(Answer::Ranges(ranges))
}

/// Where a range ends that begins with the hash at `begin`: keys of one hash are never torn apart.
fn range_end(hashes: &[u64], begin: usize) -> usize {
    let Some(rest) = hashes.get(begin..) else { return begin };
    let Some(first_out) = rest.get(RANGE_KEYS) else { return hashes.len() };
    match rest.partition_point(|hash| hash < first_out) {
        0 => begin + rest.partition_point(|hash| hash == first_out),
        before => begin + before,
    }
}

fn list(region: &Region, from: Place, to: Option<u64>, now_ms: u64) -> Result<Answer, StoreError> {
    let stretch = region.keyspace().keys_between(from.database, from.hash, to, LIST_KEYS)?;
    let (mut keys, mut next, mut bytes, mut last) = (Vec::new(), stretch.next, 0, None);
    for key in stretch.keys {
        let hash = key_hash(&key);
        // Keys of one hash are never torn apart.
        if bytes > KEYS_BYTES && last != Some(hash) {
            next = Some(hash);
            break;
        }
        bytes += key.len();
        last = Some(hash);
        let digest = region.keyspace().digest_of(&KeyRef::new(from.database, &key), now_ms)?;
        keys.push(Listed { key: ByteBuf::from(key.into_vec()), digest: digest.unwrap_or(0) as u64 });
    }
    Ok(Answer::Keys { keys, next })
}

fn settle(region: &Region, database: u8, keys: &[ByteBuf], now_ms: u64) -> Result<Answer, StoreError> {
    let durable = region.log().durable_lsn().0;
    let mut observed = Vec::with_capacity(keys.len());
    for key in keys {
        observed.push(region.keyspace().observe(&KeyRef::new(database, key), now_ms, durable)?);
    }
    // Order matters: digests, vector, and then whether the keys have stayed what they were.
    let applied = region.sequencer().applied();
    let stayed = observed.iter().zip(keys).map(|(observed, key)| {
        let observed = observed.as_ref()?;
        let key = KeyRef::new(database, key);
        region.keyspace().is_unmoved(&key, observed.mark).then_some(observed.digest)
    });
    Ok(Answer::Settled { digests: stayed.collect(), applied })
}

/// Sends a key's state. It is copied under its lock: that happens to divergent keys only.
async fn object(
    region: &Arc<Region>,
    database: u8,
    key: ByteBuf,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<(), EntropyError> {
    let work = move |region: &Region| {
        let key = KeyRef::new(database, &key);
        let durable = region.log().durable_lsn().0;
        let (object, mark) = region.keyspace().copy_of(&key, durable)?;
        let applied = region.sequencer().applied();
        let stayed = region.keyspace().is_unmoved(&key, mark);
        Ok((records(&key, &object), stayed.then_some(applied)))
    };
    let (records, applied) = blocking(region, work).await?;
    for piece in records.chunks(PIECE_BYTES) {
        send(output, &Answer::Rows(piece.to_vec())).await?;
    }
    send(output, &Answer::End { applied }).await
}

fn records(key: &KeyRef<'_>, object: &Object) -> Vec<u8> {
    let (mut out, mut row) = (vec![SEED_VERSION], Vec::new());
    object.encode_head(&mut row);
    // No row is as long as what cannot be encoded.
    let _ = Record::Object { database: key.database, key: key.key, head: &row }.encode(&mut out);
    object.for_each_element(|facet, element| {
        row.clear();
        if object.encode_element(facet, element, &mut row) {
            let _ = Record::Element { facet: facet as u8, element, record: &row }.encode(&mut out);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_even_and_keep_keys_of_one_hash_together() {
        let hashes: Vec<u64> = (0..300).collect();
        assert_eq!(range_end(&hashes, 0), RANGE_KEYS);
        assert_eq!(range_end(&hashes, 256), 300);
        let same: Vec<u64> = std::iter::repeat_n(7, 200).chain(8..20).collect();
        assert_eq!(range_end(&same, 0), 200);
        assert_eq!(range_end(&same, 200), same.len());
        let torn: Vec<u64> = (0..100).chain(std::iter::repeat_n(100, 60)).collect();
        assert_eq!(range_end(&torn, 0), 100);
        assert_eq!(range_end(&[], 0), 0);
    }
}
