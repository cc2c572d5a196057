//! What hooks make of values is kept, and counted as memory.

use super::*;

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
