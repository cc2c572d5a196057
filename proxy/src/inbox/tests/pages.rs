//! Listing page by page, and following.

use std::time::Duration;

use super::*;
use crate::inbox::page::{Followed, Page};
use crate::keyspace::Keyspace;
use crate::store::Store;

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
    let keyspace = Arc::new(Keyspace::new(Arc::clone(&store) as Arc<dyn Store>, true));
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
