//! What regions record of what they meet, and that all record the same.

use std::collections::BTreeMap;

use super::*;
use crate::link::random::SplitMix64;
use crate::replication::seed::tests::{seed_whole, write};

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
        assert_eq!((records.len(), region.metrics().conflicts.total()), (4, 4));
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
        assert_eq!(place.region().metrics().conflicts.total(), 4);
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
        assert_eq!(records.len() as u64, region.metrics().conflicts.total());
        assert_eq!(region.metrics().conflicts.inbox_records.get() as usize, records.len());
        assert_eq!(region.metrics().conflicts.records_dropped.get(), 0);
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
            assert_eq!(region.metrics().conflicts.total(), 1, "{here}");
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
        assert_eq!(region.metrics().conflicts.total(), records.len() as u64);
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
    assert_eq!(b.region().metrics().conflicts.total(), 20);
    a.stop();
    b.stop();
}
