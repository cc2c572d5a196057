//! What the configuration can say and this version cannot do. It is refused by name, never ignored.
//!
//! Everything here is parsed and resolved like the rest. To lift a refusal, delete its row.

use super::collect::Collector;
use super::error::Problem;
use super::file::{ConfigFile, Field};

/// A use of something that is not built: the key, and the value if others are accepted.
type Use = (String, Option<String>);

/// For each thing that is not built, where a file uses it.
const NOT_BUILT: &[fn(&ConfigFile) -> Vec<Use>] = &[
    |file| {
        let kind = file.store.get().and_then(|store| store.kind.get());
        kind.filter(|kind| *kind == "redis").map(|kind| used("store.kind", Some(kind))).into_iter().collect()
    },
    |file| set("store.url", file.store.get().map(|store| &store.url)),
    |file| set("store.position_db", file.store.get().map(|store| &store.position_db)),
];

/// Reports every use of something that is not built.
pub(super) fn refuse(file: &ConfigFile, collector: &mut Collector) {
    for (key, value) in NOT_BUILT.iter().flat_map(|uses| uses(file)) {
        collector.push(key, Problem::NotBuilt { value });
    }
}

fn used(key: &str, value: Option<impl ToString>) -> Use {
    (key.to_owned(), value.map(|value| value.to_string()))
}

fn set<T>(key: &str, field: Option<&Field<T>>) -> Vec<Use> {
    let is_set = field.and_then(Field::get).is_some();
    is_set.then(|| used(key, None::<String>)).into_iter().collect()
}
