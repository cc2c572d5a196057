//! Regions in one process that compare over streams in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meridian_conflict::clock::{RegionId, VersionVector};
use meridian_topology::entropy::{Answer, Ask, Place as Spot, Range};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::answer::answer;
use super::compare::Comparison;
use super::{EntropyError, FRAME_MAX, Wire, framed, verify};
use crate::inbox::Written;
use crate::keyspace::KeyRef;
use crate::link::framing::FrameReader;
use crate::link::random::SplitMix64;
use crate::region::Region;
use crate::replication::seed::tests::{Place, digest, exchange, feed, write};
use crate::resp::Value;

/// Streams to a region in this process.
struct Line {
    to: Arc<Region>,
    from: RegionId,
}

impl Line {
    fn new(from: &Place, to: &Place) -> Self {
        Self { to: to.region(), from: from.id() }
    }
}

impl Wire for Line {
    type Input = ReadHalf<DuplexStream>;
    type Output = WriteHalf<DuplexStream>;

    async fn open(&self) -> io::Result<(Self::Input, Self::Output)> {
        let (mine, theirs) = duplex(1 << 12);
        let (region, from) = (Arc::clone(&self.to), self.from);
        tokio::spawn(async move {
            let (input, output) = split(theirs);
            let question = FrameReader::new(input, FRAME_MAX).next().await.unwrap().unwrap();
            // A comparison that breaks off leaves its answers unread.
            let _ = answer(&region, from, question, output).await;
        });
        Ok(split(mine))
    }
}

/// Everything is compared once, as `from` does it.
async fn compare(from: &Place, to: &Place) -> super::compare::Tally {
    let (region, line) = (from.region(), Line::new(from, to));
    let mut comparison = Comparison::new(&region, &line, "peer", None);
    let mut at = Spot::default();
    while usize::from(at.database) < crate::keyspace::DATABASES {
        at = comparison.step(at).await.unwrap();
    }
    comparison.tally
}

/// What `at` was told to look at, it looks at.
async fn look(at: &Place, to: &Place) {
    let (region, line) = (at.region(), Line::new(at, to));
    Comparison::new(&region, &line, "peer", None).look_all(to.id()).await.unwrap();
}

fn lose(place: &Place, database: u8, key: &str) {
    let (region, key) = (place.region(), crate::keyspace::KeyRef::new(database, key.as_bytes()));
    region.keyspace().lose(&key, &region.sequencer().applied(), region.log().durable_lsn().0).unwrap();
}

fn divergent_ranges(place: &Place) -> u64 {
    place.region().metrics().seeding.divergent_ranges.with_label_values(&["peer"]).get()
}

/// Both write all the time, hear of each other late, and compare meanwhile.
#[tokio::test]
async fn lag_is_never_taken_for_a_divergence() {
    for round in 0..3 {
        let (a, b) = (Place::new("eu"), Place::new("us"));
        let mut dice = SplitMix64::new(round);
        let over = AtomicBool::new(false);
        let working = async {
            while !over.load(Ordering::Relaxed) {
                for _ in 0..dice.between(0, 40) {
                    let place = if dice.chance(500_000) { &a } else { &b };
                    write(&place.region(), &mut dice);
                }
                if dice.chance(300_000) {
                    a.region().commit_all().await.unwrap();
                }
                let (from, to) = if dice.chance(500_000) { (&a, &b) } else { (&b, &a) };
                assert!(feed(&from.region(), &to.region()).await);
                to.region().progress.notify_waiters();
            }
        };
        let comparing = async {
            for _ in 0..40 {
                let (here, there) = tokio::join!(compare(&a, &b), compare(&b, &a));
                assert_eq!((here.divergent, there.divergent), (0, 0), "{here:?} {there:?}");
            }
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(working, comparing);
        exchange(&a.region(), &b.region()).await;
        let (here, there) = (compare(&a, &b).await, compare(&b, &a).await);
        assert!(here.is_clean() && there.is_clean() && here.keys > 0, "{here:?} {there:?}");
        assert_eq!(divergent_ranges(&a) + divergent_ranges(&b), 0);
        a.stop();
        b.stop();
    }
}

#[tokio::test]
async fn what_was_lost_on_either_side_is_found_and_mended() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    for n in 0..700 {
        a.ask(0, &format!("SET s{n} {n}"));
        b.ask(3, &format!("SADD m{n} x y z{n}"));
    }
    a.ask(0, "ZADD long 1 a 2 b");
    exchange(&a.region(), &b.region()).await;
    a.region().commit_all().await.unwrap();
    assert!(compare(&a, &b).await.is_clean());
    let whole = digest(&a.region()).await;
    lose(&a, 0, "s7");
    lose(&a, 3, "m70");
    lose(&b, 0, "s8");
    lose(&b, 0, "long");
    let found = compare(&a, &b).await;
    assert_eq!((found.divergent, found.mended, found.unsettled), (4, 2, 0), "{found:?}");
    assert!(found.keys >= 1_399, "two of the keys of a's are gone");
    assert!(divergent_ranges(&a) >= 2);
    assert_eq!(digest(&a.region()).await, whole);
    assert_ne!(digest(&b.region()).await, whole);
    // b was told to look, and mends what is missing there.
    look(&b, &a).await;
    assert_eq!(digest(&b.region()).await, whole);
    assert_eq!(divergent_ranges(&b), 2);
    assert!(compare(&a, &b).await.is_clean() && compare(&b, &a).await.is_clean());
    // Mended rows are as durable as others, and ops go on over them.
    assert_eq!(b.ask(0, "GET s8"), Value::Bulk(b"8".to_vec()));
    b.ask(3, "SREM m70 x");
    exchange(&a.region(), &b.region()).await;
    assert!(compare(&a, &b).await.is_clean());
    let mut b = b;
    b.crash();
    assert!(compare(&a, &b).await.is_clean());
}

#[tokio::test]
async fn what_a_mend_hides_is_in_the_inbox() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    a.ask(0, "SET k old");
    exchange(&a.region(), &b.region()).await;
    let (region, key) = (b.region(), KeyRef::new(0, b"k"));
    let (old, _) = region.keyspace().copy_of(&key, 0).unwrap();
    a.ask(0, "SET k new");
    exchange(&a.region(), &b.region()).await;
    // The last op is lost at b, though it was applied there.
    lose(&b, 0, "k");
    let nothing = VersionVector::new();
    region.keyspace().lock(&[key]).merge_object(&key, &old, &nothing, &nothing);
    assert_eq!(b.ask(0, "GET k"), Value::Bulk(b"old".to_vec()));
    let found = compare(&b, &a).await;
    assert_eq!((found.divergent, found.mended), (1, 1), "{found:?}");
    assert_eq!(b.ask(0, "GET k"), Value::Bulk(b"new".to_vec()));
    region.inbox().settle().await;
    assert_eq!(region.metrics().conflicts.total(), 1);
    let record = region.inbox().last_of(0, b"k").unwrap().unwrap();
    let bytes = |text: &str| Written::Bytes(ByteBuf::from(text));
    assert_eq!((&record.lost().wrote, &record.shown), (&bytes("old"), &bytes("new")));
    assert_eq!((record.outcome.as_str(), record.kind.as_str()), ("remote", "write_write"));
    assert!(compare(&a, &b).await.is_clean());
    assert_eq!(a.region().metrics().conflicts.total(), 0, "nothing was hidden there");
}

#[tokio::test]
async fn a_region_that_lost_nearly_everything_gets_it_back() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    for n in 0..3_000 {
        a.ask(0, &format!("SET s{n} {n}"));
    }
    exchange(&a.region(), &b.region()).await;
    for n in 0..2_990 {
        lose(&b, 0, &format!("s{n}"));
    }
    b.region().commit_all().await.unwrap();
    let found = compare(&b, &a).await;
    assert_eq!((found.divergent, found.mended), (2_990, 2_990));
    assert!(compare(&a, &b).await.is_clean());
    assert_eq!(b.ask(0, "DBSIZE"), Value::Int(3_000));
}

#[tokio::test]
async fn a_full_comparison_waits_until_the_other_side_has_mended() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    for n in 0..20 {
        a.ask(0, &format!("SET s{n} {n}"));
    }
    exchange(&a.region(), &b.region()).await;
    lose(&b, 0, "s3");
    let (region, line) = (a.region(), Line::new(&a, &b));
    let mut verifying = std::pin::pin!(verify::with(&region, b.id(), &line, "us"));
    loop {
        tokio::select! {
            done = &mut verifying => break done.unwrap(),
            () = tokio::task::yield_now() => look(&b, &a).await,
        }
    }
    let progress = region.entropy().verify_progress();
    let us = &progress.peers["us"];
    assert_eq!((us.divergent, us.mended, us.remaining, us.unsettled), (1, 0, 0, 0));
    assert_eq!(progress.divergent, [(0, "s3".to_owned())]);
    assert_eq!(b.ask(0, "GET s3"), Value::Bulk(b"3".to_vec()));
}

#[tokio::test]
async fn a_peer_that_is_behind_is_waited_for_and_then_left() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    b.ask(0, "SET k 1");
    let ask = Ask::Settle {
        applied: b.region().sequencer().applied(),
        now_ms: 0,
        database: 0,
        keys: vec![ByteBuf::from(b"k".to_vec())],
    };
    let question = ask.encode();
    let answered = ask_raw(&b, &a, &question);
    let feeding = async {
        assert!(feed(&b.region(), &a.region()).await);
        a.region().progress.notify_waiters();
    };
    let (answered, ()) = tokio::join!(answered, feeding);
    let Ok(Answer::Settled { applied, digests }) = Answer::decode(&answered.unwrap()) else { panic!() };
    assert_eq!(applied, a.region().sequencer().applied());
    assert!(digests[0].is_some());
}

/// The first answer to whatever bytes as a question.
async fn ask_raw(from: &Place, to: &Place, question: &[u8]) -> Option<Vec<u8>> {
    let (input, mut output) = Line::new(from, to).open().await.unwrap();
    output.write_all(&framed(question).unwrap()).await.unwrap();
    output.shutdown().await.unwrap();
    FrameReader::new(input, FRAME_MAX).next().await.ok()?.map(|frame| frame.to_vec())
}

#[tokio::test]
async fn nonsense_from_either_side_harms_nobody() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    a.ask(0, "SET k 1");
    let keys = |n: usize| vec![ByteBuf::from(b"k".to_vec()); n];
    let nowhere = Spot { database: 16, hash: 0 };
    let applied = VersionVector::new();
    for ask in [
        Ask::Ranges { from: nowhere, now_ms: 0 },
        Ask::Keys { from: nowhere, to: None, now_ms: 0 },
        Ask::Settle { applied: applied.clone(), now_ms: 0, database: 99, keys: keys(1) },
        Ask::Settle { applied: applied.clone(), now_ms: 0, database: 0, keys: keys(65) },
        Ask::Object { applied, database: 16, key: ByteBuf::new() },
        Ask::Look { database: 0, keys: keys(100) },
    ] {
        assert_eq!(ask_raw(&b, &a, &ask.encode()).await, None, "{ask:?}");
    }
    let mut dice = SplitMix64::new(5);
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..dice.between(0, 40)).map(|_| dice.between(0, 255) as u8).collect();
        if dice.chance(800_000) {
            bytes.splice(..0, [0xe5, 1]);
        }
        ask_raw(&b, &a, &bytes).await;
    }
    assert!(a.region().entropy().take_looks(a.id()).is_none());

    let range = |until| Answer::Ranges(vec![Range { until, keys: 9, digest: 1 }]).encode();
    for answer in [
        Vec::new(),
        vec![0xe5, 1],
        vec![0xe5, 9, 0],
        Answer::Ranges(Vec::new()).encode(),
        Answer::Noted.encode(),
        range(Spot::default()),
        range(Spot { database: 7, hash: 0 }),
        // What it says next does not fit the question, either.
        range(Spot { database: 1, hash: 0 }),
    ] {
        let (region, wire) = (a.region(), Liar(answer.clone()));
        let mut comparison = Comparison::new(&region, &wire, "peer", None);
        let told = comparison.step(Spot::default()).await;
        assert!(
            matches!(told, Err(EntropyError::Protocol(_) | EntropyError::Format(_) | EntropyError::Frame(_))),
            "{answer:?}: {told:?}"
        );
        assert_eq!(comparison.tally.divergent, 0);
    }
}

/// Answers everything with this.
struct Liar(Vec<u8>);

impl Wire for Liar {
    type Input = ReadHalf<DuplexStream>;
    type Output = WriteHalf<DuplexStream>;

    async fn open(&self) -> io::Result<(Self::Input, Self::Output)> {
        let (mine, theirs) = duplex(1 << 12);
        let answer = framed(&self.0).unwrap();
        tokio::spawn(async move {
            let (mut input, mut output) = split(theirs);
            let _ = input.read_to_end(&mut Vec::new()).await;
            let _ = output.write_all(&answer).await;
        });
        Ok(split(mine))
    }
}
