//! What hooks make of values is kept, and counted as memory.

use super::*;
use crate::keyspace::Locked;

#[tokio::test]
async fn what_a_hook_made_counts_as_memory_until_the_key_changes_or_leaves() {
    let places = places(&["eu", "us"]);
    for (place, letter) in in_turn(&places, &["a", "b"]) {
        place.ask(0, &format!("HSET lines:h f {}", letter.repeat(10_000)));
    }
    meet(&places).await;
    let region = places[0].region();
    let keyspace = region.keyspace();
    // Written again, so that nothing is kept of what was merged.
    places[0].ask(0, "HSET lines:h other 1");
    let before = keyspace.memory_bytes();
    assert_eq!(keyspace.policies().copy_bytes(), 0);
    assert_eq!(places[0].ask(0, "HSTRLEN lines:h f"), Value::Int(20_001));
    let copied = keyspace.memory_bytes() - before;
    assert!(copied > 20_000 && copied == keyspace.policies().copy_bytes() as u64, "{copied}");
    places[0].ask(0, "HSET lines:h other 2");
    assert_eq!(keyspace.memory_bytes(), before);
    places[0].ask(0, "HSTRLEN lines:h f");
    assert_eq!(keyspace.memory_bytes(), before + copied);
    region.commit_all().await.unwrap();
    let evicted = keyspace.evict(u64::MAX);
    assert!(evicted.bytes > copied, "{evicted:?}");
    assert_eq!(keyspace.policies().copy_bytes(), 0);
    end(places).await;
}

#[tokio::test]
async fn a_key_that_is_written_while_its_hook_is_asked_is_read_as_it_was() {
    let places = places(&["eu", "us"]);
    for (place, value) in in_turn(&places, &["1", "2"]) {
        place.ask(0, &format!("HSET max:h f {value}"));
    }
    meet(&places).await;
    let (place, region) = (&places[0], places[0].region());
    let (keyspace, key) = (region.keyspace(), KeyRef::new(0, b"max:h"));
    let calls = || region.metrics().hooks.calls.with_label_values(&["max"]).get();
    place.ask(0, "HSET max:h other 1");
    let unmerged = keyspace.unmerged(&[key], 0).unwrap().pop().unwrap();
    place.ask(0, "HSET max:h other 2");
    let outgrown = keyspace.keep_merged(unmerged.merge(&keyspace.policies().current())).unwrap_err();
    place.ask(0, "HSET max:h other 3");
    let before = calls();
    let field = |locked: &Locked<'_>, name: &[u8]| {
        let shown = locked.shown(&key).unwrap().hash().unwrap().field(name).unwrap().shown().unwrap();
        String::from_utf8(shown.into_owned()).unwrap()
    };
    let mut locked = keyspace.lock_loaded(&[key], 0).unwrap();
    locked.show_outgrown(*outgrown);
    assert_eq!([field(&locked, b"f"), field(&locked, b"other")], ["2", "1"], "as when it was copied");
    assert_eq!(calls(), before, "it was asked under the lock");
    drop(locked);
    let locked = keyspace.lock_loaded(&[key], 0).unwrap();
    assert_eq!([field(&locked, b"f"), field(&locked, b"other")], ["2", "3"], "that was for one command");
    assert_eq!(calls(), before + 1);
    drop(locked);
    end(places).await;
}
