//! Storms, stores that hang, and what is kept.

use super::*;
use crate::keyspace::Keyspace;
use crate::store::Store;

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
        assert_eq!(region.metrics().conflicts.total(), 2_000);
        assert_eq!(everything(&region).len(), 100);
        assert_eq!(region.metrics().conflicts.records_dropped.get(), 1_900);
    }
    a.stop();
    b.stop();
}

#[tokio::test]
async fn a_store_that_hangs_costs_records_and_neither_time_nor_room() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Arc::new(crate::store::MemoryStore::new());
    let keyspace = Arc::new(Keyspace::new(Arc::clone(&store) as Arc<dyn Store>, true));
    let (inbox, thread) =
        Inbox::open(store, keyspace, &settings::Inbox::default(), Arc::clone(&metrics)).unwrap();
    let origin = record::tests::stamp("eu", 1).dot.actor;
    let mut noted = 0;
    for (count, lost) in [(20_000, "lost".to_owned()), (1_000, "x".repeat(VALUE_MAX))] {
        let (records, dropped) = (inbox.shelf().head().records(), metrics.conflicts.records_dropped.get());
        let hanging = inbox.shelf().hold();
        for _ in 0..count {
            noted += 1;
            inbox.note(conflict("k", noted, &lost), origin, crate::region::wall_now().0);
        }
        let waiting = count - (metrics.conflicts.records_dropped.get() - dropped);
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
    assert_eq!(region.metrics().conflicts.total(), 100);
    let head = region.inbox().shelf().head();
    assert!(head.bytes <= 1 << 20 && head.records() < 30 && head.next == 100, "{head:?}");
    assert_eq!(region.metrics().conflicts.inbox_bytes.get() as u64, head.bytes);
    assert_eq!(region.inbox().last_of(0, b"k99").unwrap().unwrap().key, &b"k99"[..]);
    a.stop();
    b.stop();
}
