//! Two regions in one process, without links: what each records of the other's writes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::page::{Filter, Followed, Page, list};
use super::record::id_text;
use super::*;
use crate::command::execute::Scratch;
use crate::command::meridian::restore::restore;
use crate::link::random::SplitMix64;
use crate::region::Region;
use crate::replication::seed::tests::{Place, exchange, seed_whole, write};
use crate::resp::scan::ScanLimits;
use crate::resp::{OwnedArgs, Protocol, Reply, Value, value};

/// Has the region meet a conflict about `key`: `SET` beside `SET`, the first of which lost.
pub(crate) fn note(region: &Region, key: &str, at: u64) {
    region.note_conflicts(vec![conflict(key, at, "lost")]);
}

/// A conflict about `key` between ops of this number, of which the one that wrote `lost` lost.
fn conflict(key: &str, at: u64, lost: &str) -> PlacedConflict {
    use meridian_conflict::op::Facet;
    use meridian_conflict::outcome::{Conflict, Kind, Rule, Winner};
    let wrote = |text: &str| Written::Bytes(serde_bytes::ByteBuf::from(text));
    let (rival, arrived) = (record::tests::stamp("eu", at), record::tests::stamp("us", at));
    let rivals = [
        Rival { stamp: rival.min(arrived), wrote: wrote(lost) },
        Rival { stamp: rival.max(arrived), wrote: wrote("won") },
    ];
    let conflict = Conflict {
        kind: Kind::WriteWrite,
        rule: Rule::Lww,
        winner: if rival > arrived { Winner::Local } else { Winner::Remote },
        facet: Facet::String,
        element: Box::default(),
        rival,
        arrived,
    };
    let evidence =
        Some(Box::new(Evidence { rivals, loser: 0, shown: wrote("won"), asking: Default::default() }));
    let policy = meridian_conflict::policy::Policy::Crdt;
    PlacedConflict { database: 0, key: key.as_bytes().into(), conflict, policy, evidence }
}

fn everything(region: &Region) -> Vec<Record> {
    list(region.inbox().shelf(), &Filter::default(), None, usize::MAX).unwrap().records
}

fn filtered(region: &Region, filter: Filter) -> Vec<Record> {
    list(region.inbox().shelf(), &filter, None, usize::MAX).unwrap().records
}

fn ids(records: &[Record]) -> Vec<u128> {
    let mut ids: Vec<u128> = records.iter().map(|record| record.id).collect();
    ids.sort_unstable();
    ids
}

fn kind(region: &Region, kind: &str) -> Vec<Record> {
    filtered(region, Filter { kind: Some(kind.into()), ..Filter::default() })
}

fn undo(region: &Region, id: u128) -> Value {
    let words: OwnedArgs = ["MERIDIAN.RESTORE", &id_text(id)].into_iter().collect();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    restore(region, &mut Scratch::new(1), words.args(), region.wall(), &mut reply);
    value::decode(&out, &ScanLimits::default()).unwrap().unwrap().0
}

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

fn is_error(reply: &Value, start: &str) -> bool {
    matches!(reply, Value::Error(text) if text.starts_with(start.as_bytes()))
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// Waits until what is written next has a later stamp than everything before, in whichever region.
fn tick(region: &Region) {
    let now = region.wall();
    while region.wall() <= now {
        std::thread::yield_now();
    }
}

/// What two regions that do not hear of each other write to the same keys.
async fn quarrel(more: &'static str) -> (Place, Place) {
    let (a, b) = (Place::with("eu", more), Place::with("us", more));
    for line in ["HSET gone f 1", "SADD s m", "HSET clash f x"] {
        a.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    for line in
        ["SET k first PX 99999999", "HSET h f x", "ZADD z 1 m", "SET t text", "HSET gone g 2", "SADD s m"]
    {
        a.ask(0, line);
    }
    tick(&a.region());
    for line in ["SET k second", "HSET h f y", "ZADD z 2 m", "HSET t f v g w", "DEL gone", "SREM s m"] {
        b.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        place.region().inbox().settle().await;
    }
    (a, b)
}

#[tokio::test]
async fn under_lww_every_whole_key_that_lost_is_recorded_alike_and_can_be_written_back() {
    const LWW: &str = "[[conflicts]]\nkeys = \"*\"\npolicy = \"lww\"\n";
    let (a, b) = (Place::with("eu", LWW), Place::with("us", LWW));
    for line in ["HSET h f old", "SADD s m", "SET d 1"] {
        a.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    for line in ["HSET h f mine g mine", "SADD s mine", "SET d 2", "SET t text"] {
        a.ask(0, line);
    }
    tick(&a.region());
    for line in ["HSET h f theirs", "SREM s m", "DEL d", "ZADD t 1 m"] {
        b.ask(0, line);
    }
    exchange(&a.region(), &b.region()).await;
    let mut recorded = Vec::new();
    for place in [&a, &b] {
        let region = place.region();
        region.inbox().settle().await;
        let mut records = everything(&region);
        records.sort_unstable_by_key(|record| record.id);
        assert_eq!((records.len(), region.metrics().conflicts_total()), (4, 4));
        assert!(records.iter().all(|record| (&*record.policy, &*record.rule) == ("lww", "lww")));
        let of = |record: &Record| (record.id, record.rivals.clone(), record.loser, record.shown.clone());
        recorded.push(records.iter().map(of).collect::<Vec<_>>());
    }
    assert_eq!(recorded[0], recorded[1]);
    for (id, ..) in &recorded[0] {
        assert_eq!(undo(&b.region(), *id), ok());
    }
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        let fields = ["f", "mine", "g", "mine"].map(bulk).to_vec();
        assert_eq!(place.ask(0, "HGETALL h"), Value::Array(fields));
        assert_eq!(place.ask(0, "SMISMEMBER s m mine"), Value::Array(vec![Value::Int(1); 2]));
        assert_eq!((place.ask(0, "GET d"), place.ask(0, "GET t")), (bulk("2"), bulk("text")));
        assert_eq!(place.region().metrics().conflicts_total(), 4);
    }
    a.stop();
    b.stop();
}

#[tokio::test]
async fn both_regions_record_what_both_met_under_the_same_ids() {
    let (a, b) = quarrel("").await;
    for place in [&a, &b] {
        let region = place.region();
        let records = everything(&region);
        assert_eq!(records.len() as u64, region.metrics().conflicts_total());
        assert_eq!(region.metrics().inbox_records.get() as usize, records.len());
        assert_eq!(region.metrics().conflict_records_dropped.get(), 0);
        assert!(records.windows(2).all(|pair| pair[0].at_ms >= pair[1].at_ms));
        assert!(records.iter().all(|record| record.noticed_by == region.origin()));
    }
    for same in ["write_write", "field", "type_clash"] {
        let (here, there) = (kind(&a.region(), same), kind(&b.region(), same));
        assert!(!here.is_empty(), "{same}");
        assert_eq!(ids(&here), ids(&there), "{same}");
        for record in &here {
            let other = there.iter().find(|other| other.id == record.id).unwrap();
            assert_eq!((&record.rivals, record.loser), (&other.rivals, other.loser));
            assert_eq!(record.shown, other.shown);
            let outcomes = [record.outcome.as_str(), other.outcome.as_str()];
            assert!(outcomes.contains(&"local") && outcomes.contains(&"remote"), "{outcomes:?}");
        }
    }
    // A delete leaves nothing to meet: only where it arrives, something was spared.
    assert_eq!(kind(&a.region(), "write_delete").len(), 2);
    a.stop();
    b.stop();
}

#[tokio::test]
async fn an_op_that_writes_a_place_twice_conflicts_there_once() {
    for (before, here, there) in [
        (None, "MSET k a k b", "SET k c"),
        (None, "HSET k f 1 f 2", "HSET k f 3"),
        (None, "ZADD k 1 m 2 m", "ZADD k 3 m"),
        (Some("HSET k f 1"), "SET k text", "HSET k g 2"),
    ] {
        let (a, b) = (Place::new("eu"), Place::new("us"));
        before.map(|line| a.ask(0, line));
        exchange(&a.region(), &b.region()).await;
        a.ask(0, here);
        b.ask(0, there);
        exchange(&a.region(), &b.region()).await;
        let mut kinds = Vec::new();
        for place in [&a, &b] {
            let region = place.region();
            region.inbox().settle().await;
            let [record] = &everything(&region)[..] else { panic!("{here}: {:?}", everything(&region)) };
            assert_eq!(region.metrics().conflicts_total(), 1, "{here}");
            kinds.push((record.id, record.kind.clone(), record.rivals.clone(), record.shown.clone()));
        }
        assert_eq!(kinds[0], kinds[1], "{here}");
        a.stop();
        b.stop();
    }
}

#[tokio::test]
async fn whatever_is_written_is_counted_once_for_each_id() {
    let more = "[inbox]\nrecords_per_second = 1000000\nburst = 1000000\n";
    let places = ["eu", "us", "ap"].map(|name| Place::with(name, more));
    let [a, b, c] = &places;
    let mut dice = SplitMix64::new(7);
    let mut met = 0;
    for _ in 0..20 {
        for place in &places {
            (0..40).for_each(|_| write(&place.region(), &mut dice));
        }
        for (from, to) in [(a, b), (b, c), (c, a)] {
            exchange(&from.region(), &to.region()).await;
        }
    }
    let mut known: BTreeMap<u128, [Rival; 2]> = BTreeMap::new();
    for place in &places {
        let region = place.region();
        region.inbox().settle().await;
        let records = everything(&region);
        assert_eq!(region.metrics().conflicts_total(), records.len() as u64);
        met += records.len();
        for Record { id, rivals, .. } in records {
            let stamps = |rivals: &[Rival; 2]| rivals.each_ref().map(|rival| rival.stamp);
            let first = known.entry(id).or_insert_with(|| rivals.clone());
            assert_eq!(stamps(first), stamps(&rivals), "an id names the same two ops in every region");
        }
    }
    assert!(met > 100 && known.len() < met, "{met} met, {} of them different", known.len());
    places.into_iter().for_each(Place::stop);
}

#[tokio::test]
async fn losers_are_written_back_once_and_everywhere() {
    let (a, b) = quarrel("").await;
    let region = a.region();
    let of_key = |key: &str| {
        let found = region.inbox().last_of(0, key.as_bytes()).unwrap();
        found.unwrap_or_else(|| panic!("no conflict on {key}"))
    };
    for key in ["k", "h", "z", "t", "gone", "s"] {
        assert_eq!(undo(&region, of_key(key).id), ok(), "{key}");
        assert!(is_error(&undo(&region, of_key(key).id), "ERR this conflict's loser was already restored"));
        assert!(of_key(key).restored_ms.is_some());
    }
    assert_eq!(region.metrics().conflicts_restored.get(), 6);
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        assert_eq!(place.ask(0, "GET k"), bulk("first"));
        assert_eq!(place.ask(0, "HGET h f"), bulk("x"));
        assert_eq!(place.ask(0, "ZSCORE z m"), bulk("1"));
        assert_eq!(place.ask(0, "GET t"), bulk("text"));
        assert_eq!(place.ask(0, "EXISTS gone"), Value::Int(0));
        assert_eq!(place.ask(0, "SCARD s"), Value::Int(0));
    }
    assert_eq!(
        region.metrics().conflicts_total(),
        everything(&region).len() as u64,
        "they had seen all there is"
    );
    let reply = undo(&region, 5);
    assert!(is_error(&reply, "ERR no such conflict"), "{reply:?}");
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_type_comes_back_as_a_whole_with_the_keys_deadline() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    a.ask(0, "SADD c m n");
    tick(&a.region());
    b.ask(0, "SET c text PX 99999999");
    exchange(&a.region(), &b.region()).await;
    b.region().inbox().settle().await;
    let record = b.region().inbox().last_of(0, b"c").unwrap().unwrap();
    assert_eq!(record.kind, "type_clash");
    assert_eq!(b.ask(0, "TYPE c"), Value::Simple(b"string".to_vec()));
    assert_eq!(undo(&b.region(), record.id), ok());
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        assert_eq!(place.ask(0, "SCARD c"), Value::Int(2));
        assert!(matches!(place.ask(0, "PTTL c"), Value::Int(left) if left > 0));
    }
    a.stop();
    b.stop();
}

#[tokio::test]
async fn what_was_not_recorded_whole_is_not_written_back() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    let large = "x".repeat(VALUE_MAX + 1);
    a.ask(0, &format!("SET k {large}"));
    tick(&a.region());
    b.ask(0, "SET k small");
    exchange(&a.region(), &b.region()).await;
    a.region().inbox().settle().await;
    let record = a.region().inbox().last_of(0, b"k").unwrap().unwrap();
    let reply = undo(&a.region(), record.id);
    assert!(is_error(&reply, "ERR the loser was too large"), "{reply:?}");
    assert_eq!(a.ask(0, "GET k"), bulk("small"));
    a.stop();
    b.stop();
}

#[tokio::test]
async fn records_survive_a_crash_and_are_not_met_again_by_the_replay() {
    let (mut a, b) = quarrel("").await;
    let before = everything(&a.region());
    a.crash();
    assert_eq!(everything(&a.region()), before);
    assert!(a.region().recovered().replayed > 0);
    exchange(&a.region(), &b.region()).await;
    a.region().inbox().settle().await;
    assert_eq!(everything(&a.region()), before);
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_merge_records_what_the_states_show() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    for key in 0..20 {
        a.ask(0, &format!("SET k{key} a"));
        b.ask(0, &format!("SET k{key} b"));
    }
    seed_whole(&a, &b, |_| {}).await;
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        place.region().inbox().settle().await;
    }
    let (here, there) = (everything(&a.region()), everything(&b.region()));
    assert_eq!(here.len(), 20);
    assert_eq!(ids(&here), ids(&there));
    assert_eq!(b.region().metrics().conflicts_total(), 20);
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_storm_is_counted_and_sampled() {
    let more = "[inbox]\nrecords_per_second = 0\nburst = 100\nmax = \"1MiB\"\n";
    let (a, b) = (Place::with("eu", more), Place::with("us", more));
    for key in 0..2_000 {
        a.ask(0, &format!("SET k{key} a"));
        b.ask(0, &format!("SET k{key} b"));
    }
    exchange(&a.region(), &b.region()).await;
    for place in [&a, &b] {
        let region = place.region();
        region.inbox().settle().await;
        assert_eq!(region.metrics().conflicts_total(), 2_000);
        assert_eq!(everything(&region).len(), 100);
        assert_eq!(region.metrics().conflict_records_dropped.get(), 1_900);
    }
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_store_that_hangs_costs_records_and_neither_time_nor_room() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Arc::new(crate::store::MemoryStore::new());
    let keyspace =
        Arc::new(crate::keyspace::Keyspace::new(Arc::clone(&store) as Arc<dyn crate::store::Store>, true));
    let (inbox, thread) =
        Inbox::open(store, keyspace, &settings::Inbox::default(), Arc::clone(&metrics)).unwrap();
    let origin = record::tests::stamp("eu", 1).dot.actor;
    let mut noted = 0;
    for (count, lost) in [(20_000, "lost".to_owned()), (1_000, "x".repeat(VALUE_MAX))] {
        let (records, dropped) = (inbox.shelf().head().records(), metrics.conflict_records_dropped.get());
        let hanging = inbox.shelf().hold();
        for _ in 0..count {
            noted += 1;
            inbox.note(conflict("k", noted, &lost), origin, crate::region::wall_now().0);
        }
        let waiting = count - (metrics.conflict_records_dropped.get() - dropped);
        let room = (writer::QUEUE_RECORDS + writer::BATCH_RECORDS).min(writer::QUEUE_BYTES / lost.len());
        assert!(waiting > 100 && waiting <= room as u64, "{waiting} wait");
        drop(hanging);
        inbox.settle().await;
        assert_eq!(
            inbox.shelf().head().records() - records,
            waiting,
            "each is recorded or counted as dropped"
        );
    }
    inbox.stop();
    thread.join().unwrap();
}

#[tokio::test]
async fn what_is_kept_is_bounded_by_bytes() {
    let more = "[inbox]\nrecords_per_second = 1000000\nburst = 1000000\nmax = \"1MiB\"\n";
    let (a, b) = (Place::with("eu", more), Place::with("us", more));
    let filler = "x".repeat(20_000);
    for key in 0..100 {
        a.ask(0, &format!("SET k{key} a{filler}"));
        b.ask(0, &format!("SET k{key} b{filler}"));
    }
    exchange(&a.region(), &b.region()).await;
    let region = a.region();
    region.inbox().settle().await;
    assert_eq!(region.metrics().conflicts_total(), 100);
    let head = region.inbox().shelf().head();
    assert!(head.bytes <= 1 << 20 && head.records() < 30 && head.next == 100, "{head:?}");
    assert_eq!(region.metrics().inbox_bytes.get() as u64, head.bytes);
    assert_eq!(region.inbox().last_of(0, b"k99").unwrap().unwrap().key, &b"k99"[..]);
    a.stop();
    b.stop();
}

#[tokio::test]
async fn pages_go_on_where_the_last_ended() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    for key in 0..25 {
        a.ask(0, &format!("HSET h{} f{key} a", key % 2));
        b.ask(0, &format!("HSET h{} f{key} b", key % 2));
    }
    exchange(&a.region(), &b.region()).await;
    let region = a.region();
    region.inbox().settle().await;
    let shelf = region.inbox().shelf();
    let key = Some(b"h1".to_vec());
    for filter in [Filter::default(), Filter { key, ..Filter::default() }] {
        let whole = filtered(&region, filter.clone());
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let Page { records, next } = list(shelf, &filter, after, 7).unwrap();
            paged.extend(records);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole);
        assert!(whole.len() == 25 || whole.len() == 12);
    }
    assert_eq!(
        list(shelf, &Filter::default(), Some(1), 7).unwrap(),
        Page::default(),
        "an id that is not here"
    );
    assert!(kind(&region, "write_write").is_empty());
    a.stop();
    b.stop();
}

#[tokio::test]
async fn followers_are_told_in_order_and_have_a_largest_number() {
    let (a, b) = (Place::new("eu"), Place::new("us"));
    let region = a.region();
    let mut followers: Vec<_> = (0..FOLLOWERS_MAX).map(|_| region.inbox().follow(None).unwrap()).collect();
    assert!(region.inbox().follow(None).is_none());
    drop(followers.pop());
    let mut follower = region.inbox().follow(None).unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, follower.next()).await.is_err(), "nothing has happened");
    for key in 0..150 {
        a.ask(0, &format!("SET k{key} a"));
        b.ask(0, &format!("SET k{key} b"));
    }
    exchange(&a.region(), &b.region()).await;
    let mut told = Vec::new();
    while told.len() < 150 {
        let Followed::Records(records) = follower.next().await else { panic!("cut off") };
        told.extend(records);
    }
    told.reverse();
    assert_eq!(told, everything(&region));
    let mut late = region.inbox().follow(Some(0));
    assert!(late.is_none(), "all places are taken");
    drop(followers);
    late = region.inbox().follow(Some(149));
    let Followed::Records(records) = late.unwrap().next().await else { panic!("cut off") };
    assert_eq!(records.len(), 1);
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_follower_that_records_passed_by_is_cut_off() {
    let store = Arc::new(crate::store::MemoryStore::new());
    let settings = settings::Inbox { max: 1 << 20, ..settings::Inbox::default() };
    let metrics = Arc::new(Metrics::new().unwrap());
    let keyspace =
        Arc::new(crate::keyspace::Keyspace::new(Arc::clone(&store) as Arc<dyn crate::store::Store>, true));
    let (inbox, thread) = Inbox::open(store, keyspace, &settings, metrics).unwrap();
    let records =
        |ids: std::ops::Range<u128>| -> Vec<_> { ids.map(|id| record::tests::record(id, "k")).collect() };
    let mut follower = inbox.follow(None).unwrap();
    inbox.shelf().add(&records(0..10)).unwrap();
    while inbox.shelf().trim(0, 0).unwrap() {}
    // The thread looks once a second, and tells of what came by another way.
    assert!(matches!(follower.next().await, Followed::TooSlow));
    inbox.stop();
    thread.join().unwrap();
    assert!(matches!(follower.next().await, Followed::TooSlow), "and stays so");
}
