//! Waiting for other regions: `WAIT`, `MERIDIAN.TOKEN`, `MERIDIAN.AWAIT`.
//!
//! A token is the applied vector of the region that gave it: it covers all that the connection has
//! written and read there. A region that has applied it shows all of that, so a client that carries
//! its token along reads its own writes and never steps back in time, whichever region it asks.

use std::time::Duration;

use meridian_conflict::clock::VersionVector;
use tokio::time::Instant;

use super::{End, Session};
use crate::region::Region;
use crate::resp::Args;
use crate::resp::fmt::parse_i64;

/// The first byte of a token.
const TOKEN_VERSION: u8 = 1;

/// The longest token, in hex digits: some thousand origins.
const TOKEN_DIGITS_MAX: usize = 64 << 10;

/// The longest a client is made to wait when it names no limit.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A token's text: version, the cluster's number, the vector in postcard; in hex.
fn encode(cluster: &str, vector: &VersionVector) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(&cluster_number(cluster));
    // A map of integers always encodes.
    bytes.extend_from_slice(&postcard::to_stdvec(vector).unwrap_or_default());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a token's text. `None` for what is none, or one of another cluster.
fn decode(cluster: &str, text: &[u8]) -> Option<VersionVector> {
    if text.len() > TOKEN_DIGITS_MAX || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = text
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let bytes = bytes?;
    let (head, vector) = bytes.split_at_checked(5)?;
    let (version, number) = head.split_first()?;
    if *version != TOKEN_VERSION || number != cluster_number(cluster) {
        return None;
    }
    postcard::from_bytes(vector).ok()
}

fn cluster_number(cluster: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = xxhash_rust::xxh3::xxh3_64(cluster.as_bytes()).to_le_bytes();
    [a, b, c, d]
}

/// A timeout in milliseconds, as `WAIT` takes it: zero for none.
fn timeout(text: &[u8]) -> Result<Duration, &'static str> {
    match parse_i64(text) {
        None => Err("ERR timeout is not an integer or out of range"),
        Some(..=-1) => Err("ERR timeout is negative"),
        Some(0) => Ok(WAIT_MAX),
        Some(ms) => Ok(Duration::from_millis(ms.unsigned_abs()).min(WAIT_MAX)),
    }
}

impl Session {
    /// `MERIDIAN.TOKEN`
    pub(super) fn token(&mut self) {
        let (vector, end) = {
            let (position, end) = self.region.sequencer().position();
            (position.applied, end)
        };
        // Under `always`, a token must not promise what a crash could take back.
        self.wait_for = self.wait_for.max(end.0);
        let text = encode(&self.region.settings().cluster, &vector);
        self.reply().bulk(text.as_bytes());
    }

    /// `MERIDIAN.AWAIT token timeout`
    pub(super) async fn await_token(&mut self, args: Args<'_>) -> Result<(), End> {
        let cluster = &self.region.settings().cluster;
        let parsed = match decode(cluster, args.get(1).unwrap_or_default()) {
            Some(token) => timeout(args.get(2).unwrap_or_default()).map(|within| (token, within)),
            None => Err("ERR invalid token: it is damaged, or another cluster's"),
        };
        let (token, within) = match parsed {
            Ok(parsed) => parsed,
            Err(text) => {
                self.reply().error(text);
                return Ok(());
            }
        };
        let covered = |region: &Region| region.sequencer().covers(&token);
        match self.until(within, |region| covered(region).then_some(())).await? {
            Some(()) => self.reply().ok(),
            None => self.reply().error("TIMEOUT this region has not applied all that the token covers"),
        }
        Ok(())
    }

    /// `WAIT regions timeout`
    pub(super) async fn wait(&mut self, args: Args<'_>) -> Result<(), End> {
        let wanted = match parse_i64(args.get(1).unwrap_or_default()).map(usize::try_from) {
            Some(Ok(wanted)) => Ok(wanted),
            Some(Err(_)) | None => Err("ERR value is not an integer or out of range"),
        };
        let parsed = wanted.and_then(|wanted| Ok((wanted, timeout(args.get(2).unwrap_or_default())?)));
        let (wanted, within) = match parsed {
            Ok(parsed) => parsed,
            Err(text) => {
                self.reply().error(text);
                return Ok(());
            }
        };
        let last = self.last_write;
        let count = |region: &Region| region.regions_with(last.as_ref());
        let enough = |region: &Region| Some(count(region)).filter(|have| *have >= wanted);
        let have = self.until(within, enough).await?.unwrap_or_else(|| count(&self.region));
        self.reply().int(i64::try_from(have).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Waits until `look` finds something, for `within` at most. Replies so far are sent first.
    async fn until<T>(
        &mut self,
        within: Duration,
        look: impl Fn(&Region) -> Option<T>,
    ) -> Result<Option<T>, End> {
        if let Some(found) = look(&self.region) {
            return Ok(Some(found));
        }
        self.flush().await?;
        let region = std::sync::Arc::clone(&self.region);
        let client = std::sync::Arc::clone(&self.client);
        let deadline = Instant::now() + within;
        let (drained, killed) = (region.drain.notified(), client.killed());
        tokio::pin!(drained, killed);
        drained.as_mut().enable();
        loop {
            // Listening before looking: what happens in between is not missed.
            let news = region.progress.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(found) = look(&region) {
                return Ok(Some(found));
            }
            if region.is_draining() || client.is_killed() {
                return Err(End::Asked);
            }
            tokio::select! {
                () = &mut news => {}
                () = tokio::time::sleep_until(deadline) => return Ok(look(&region)),
                () = &mut drained => return Err(End::Asked),
                () = &mut killed => return Err(End::Asked),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use meridian_conflict::clock::{Dot, Origin};

    use super::*;

    #[test]
    fn tokens_survive_the_way_and_nothing_else_does() {
        let vector: VersionVector = (1..5).map(|n| Dot::new(Origin(n << 40), n * 1_000_000)).collect();
        let text = encode("shop", &vector);
        assert_eq!(decode("shop", text.as_bytes()), Some(vector.clone()));
        assert_eq!(decode("shop", text.to_uppercase().as_bytes()), Some(vector));
        assert_eq!(decode("bank", text.as_bytes()), None);
        for bad in
            ["", "0", "zz", "01", "02aabbccdd00", &text[..text.len() - 2], &"0".repeat(TOKEN_DIGITS_MAX + 2)]
        {
            assert_eq!(decode("shop", bad.as_bytes()), None, "{bad:.40}");
        }
    }

    #[test]
    fn a_token_may_be_anything_a_client_sends() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(vector) = decode("shop", bytes) {
                assert_eq!(decode("shop", encode("shop", &vector).as_bytes()), Some(vector));
            }
        });
    }

    #[test]
    fn timeouts_are_what_redis_takes() {
        assert_eq!(timeout(b"0"), Ok(WAIT_MAX));
        assert_eq!(timeout(b"250"), Ok(Duration::from_millis(250)));
        assert!(timeout(b"-1").is_err() && timeout(b"soon").is_err());
    }
}
