//! `docs/configuration.md`, made from the parser: keys from the tables it reads, types, bounds and words from what
//! it refuses, defaults from what it resolves. Only what a key means is written here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::file::TABLES;
use super::tests::FULL;
use super::{ConfigErrors, FileChecks, Problem, Settings};
use crate::region::membership::CHANGEABLE;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
const VALUES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian/values.yaml"));
const SCHEMA: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian/values.schema.json"));

const HEAD: &str = "\
# Configuration

One file of TOML, for `meridian serve --config FILE`. `meridian check --config FILE` reports every mistake at once and says in sentences what
the rest means. Unknown keys are errors. Relative paths start at the file's directory. Sizes are a whole number and a unit (`512KiB`, `64MB`), durations as
well (`500ms`, `24h`).

A key that says *reload* is put in force by SIGHUP or `POST /reload`, all of them or none; any other change is refused then, and waits for a
restart. What a file holds (certificates, tokens, passwords, modules) may change without its key: certificates are watched, tokens and passwords are read whenever they are needed, modules at a reload.

In Helm's values every key lies below `config`, in camelCase: `store.memory_max` is `config.store.memoryMax`.

Made from the program's parser and checked against it by a test; `WRITE_GOLDEN=1 cargo test --release -p meridian-proxy --lib config::reference` writes it anew.
";

/// For each table its headline, in the order of the document.
const SECTIONS: &[(&str, &str)] = &[
    ("", "The region"),
    ("listen", "Where it listens"),
    ("admin", "Operators"),
    ("auth", "Clients"),
    ("tls", "Certificates"),
    ("topology", "Topology"),
    ("regions[]", "Regions"),
    ("store", "Store"),
    ("log", "Log"),
    ("conflicts[]", "Conflict policies"),
    ("conflicts[].shadow", "Policies that are only tried"),
    ("homes[]", "Home regions"),
    ("inbox", "Conflict inbox"),
    ("clock", "Clock"),
    ("limits", "Limits"),
    ("seed", "Taking over a state"),
    ("anti_entropy", "Comparing with neighbours"),
    ("dev", "Rehearsals"),
];

/// What each key means. The second is what a text is, where the parser does not tell; the third what holds
/// without the key, where that is no value.
const MEANINGS: &[(&str, &str, &str, &str)] = &[
    ("cluster", "name", "", "regions of different clusters refuse each other"),
    ("region", "name", "", "this region: 1 to 32 of `a-z`, `0-9`, `-`"),
    ("data_dir", "path", "", "where its data is"),
    ("listen.resp", "IP address and port", "", "clients, RESP over TCP; beyond loopback only with `[auth]`"),
    ("listen.link", "IP address and port", "", "other regions, QUIC over UDP"),
    ("listen.admin", "IP address and port", "", "operators, HTTP"),
    (
        "admin.token_file",
        "path",
        "none",
        "the bearer token for what changes or shows data: one line, not readable by every user; without one, that is for loopback alone",
    ),
    ("admin.metrics", "", "", "what `/metrics` asks for: nothing, or the token"),
    (
        "auth.password_file",
        "path",
        "none; required in `[auth]`",
        "clients then need `AUTH`; one line, not readable by every user",
    ),
    (
        "tls.ca",
        "path",
        "two regions",
        "the authority that signs the regions of this cluster and nothing else, PEM; watched",
    ),
    ("tls.cert", "path", "two regions", "this region's certificate, PEM; watched"),
    ("tls.key", "path", "two regions", "its private key, PEM, not readable by every user; watched"),
    ("topology.shape", "", "two regions", "how regions are joined"),
    (
        "topology.order",
        "list of names",
        "required for a ring",
        "ring: each region is fed by the one before it",
    ),
    ("topology.hub", "name", "required for a star", "star: feeds all others and is fed by each"),
    (
        "topology.standby_hubs",
        "list of names",
        "none",
        "star: who takes over while the hub is away, first come first",
    ),
    ("topology.feeds", "list of pairs `[from, to]`", "required if custom", "custom: every feed"),
    ("topology.heal_after", "", "", "silence after which routes go around a neighbour"),
    (
        "regions[].name",
        "name",
        "",
        "up to 128 regions, the same in every region's file; without any, the cluster is this region alone",
    ),
    ("regions[].address", "`host:port`", "", "as this region reaches it; its own may be left out"),
    ("regions[].role", "", "", "a follower applies everything and refuses client writes"),
    ("store.kind", "", "", "who serves reads; `redis` is refused in this version"),
    ("store.memory_max", "", "", "hot objects in memory; the rest is read when asked for"),
    ("store.url", "text", "none", "refused in this version"),
    ("store.position_db", "", "none", "refused in this version"),
    (
        "log.sync",
        "",
        "",
        "when a write is flushed to disk: before its reply, each second, or when the system likes",
    ),
    ("log.retention", "", "", "how long the log is kept for regions that are away"),
    ("log.retention_max", "", "", "how much of it at most; at least `limits.max_op`"),
    (
        "conflicts[].keys",
        "pattern as of `KEYS`",
        "",
        "the first rule that matches a key holds; `crdt` where none does; the same in every region",
    ),
    ("conflicts[].policy", "", "", "how conflicts on them are settled, see [policies.md](policies.md)"),
    (
        "conflicts[].hook",
        "path or name",
        "required for `hook`",
        "a module, or `max`, `min`, `longest`, `concat-unique-lines`, `json-merge`, see [hooks.md](hooks.md)",
    ),
    (
        "conflicts[].shadow.policy",
        "",
        "",
        "a policy that is tried on the conflicts that are recorded, without effect",
    ),
    ("conflicts[].shadow.hook", "path or name", "required for `hook`", "its hook"),
    (
        "homes[].keys",
        "pattern as of `KEYS`",
        "",
        "keys that are written in one region; the first rule that matches holds; the same in every region, see [homes.md](homes.md)",
    ),
    ("homes[].region", "name", "", "their first home; `MERIDIAN.HOME` moves it"),
    ("homes[].elsewhere", "", "", "what becomes of writes in other regions"),
    (
        "homes[].lease",
        "",
        "3 × `topology.heal_after`",
        "how long a home grants writes without hearing from the others",
    ),
    ("homes[].timeout", "", "", "how long a write that is forwarded may take"),
    ("inbox.max", "", "", "how much of conflicts is kept, oldest out first"),
    ("inbox.retention", "", "", "how long they are kept"),
    ("inbox.records_per_second", "", "", "how many are recorded in the long run; all are counted"),
    ("inbox.burst", "", "", "how many are recorded at once"),
    ("clock.max_skew", "", "", "a peer that is further ahead is held until its clock is right"),
    ("limits.max_clients", "", "", "clients at once"),
    ("limits.proto_max_bulk_len", "", "", "longest argument of a command"),
    ("limits.client_output_max", "", "", "replies waiting for one client, which is closed beyond"),
    ("limits.query_buffer_max", "", "", "input of one client waiting to be a whole command; closed beyond"),
    ("limits.pending_max", "", "", "ops received before those they depend on"),
    ("limits.tail_cache", "", "", "newest part of the log kept in memory for links"),
    ("limits.max_op", "", "", "largest encoded op, local or received"),
    ("seed.donor_pace", "", "", "bytes a second given to a region that takes over this one's state"),
    ("seed.donor_share", "", "", "percent of the time that giving may read the store"),
    (
        "seed.stale_reads",
        "",
        "",
        "clients may read while another region's state is taken over; what they see is no state that ever was",
    ),
    (
        "anti_entropy.enabled",
        "",
        "",
        "whether this region compares itself with its neighbours; their questions are answered in any case",
    ),
    ("anti_entropy.keys_per_second", "", "", "its pace, an eighth of it while nothing is written"),
    ("anti_entropy.every", "", "", "how often everything is compared although nothing was written"),
    (
        "dev.faults",
        "",
        "",
        "serves `/faults`, which disturbs links; only where `listen.admin` is on loopback",
    ),
];

/// A key with one value where the file has a list of tables.
fn first(key: &str) -> String {
    key.replace("[]", "[0]")
}

/// Every key that the parser reads, with the type it reads it as.
fn keys() -> Vec<(String, String)> {
    fn walk(table: &str, prefix: &str, found: &mut Vec<(String, String)>) {
        let (_, fields) = TABLES.iter().find(|(name, _)| *name == table).unwrap();
        for (field, kind) in *fields {
            let kind: String = kind.split_whitespace().collect();
            let item = kind.strip_prefix("Vec<Field<").and_then(|kind| kind.strip_suffix(">>"));
            let (inner, key) = match item {
                Some(item) => (item, format!("{prefix}{field}[]")),
                None => (kind.as_str(), format!("{prefix}{field}")),
            };
            if TABLES.iter().any(|(name, _)| *name == inner) {
                walk(inner, &format!("{key}."), found);
            } else {
                found.push((key, kind));
            }
        }
    }
    let mut found = Vec::new();
    walk("ConfigFile", "", &mut found);
    found
}

/// The table of a key in a document.
fn table_of<'a>(document: &'a mut toml::Value, key: &str) -> &'a mut toml::Table {
    let mut at = document;
    for part in key.split('.').take(key.matches('.').count()) {
        at = match part.strip_suffix("[]") {
            Some(list) => &mut at[list][0],
            None => {
                let empty = toml::Value::Table(toml::Table::new());
                at.as_table_mut().unwrap().entry(part).or_insert(empty)
            }
        };
    }
    at.as_table_mut().unwrap()
}

/// What is said of `key` if it has `value`, everything else being as in the golden file; absent without one.
fn probe(key: &str, value: Option<toml::Value>) -> Option<Problem> {
    let mut document: toml::Value = FULL.parse::<toml::Table>().unwrap().into();
    let (table, name) = (table_of(&mut document, key), key.rsplit('.').next().unwrap());
    match value {
        Some(value) => drop(table.insert(name.to_owned(), value)),
        None => drop(table.remove(name)),
    }
    let parsed =
        Settings::parse(&toml::to_string(&document).unwrap(), Path::new("/nonexistent"), FileChecks::Skip);
    let errors: Vec<_> = parsed.err().iter().flat_map(ConfigErrors::iter).cloned().collect();
    errors.into_iter().find(|error| error.key == first(key)).map(|error| error.problem)
}

fn bounds(key: &str, value: toml::Value) -> String {
    match probe(key, Some(value)) {
        Some(Problem::OutOfBounds { least, most, .. }) => format!(", {least} to {most}"),
        other => panic!("{key}: no bounds, but {other:?}"),
    }
}

/// A key's type in words, and its bounds.
fn kind_of(key: &str, kind: &str, told: &str) -> String {
    let text = |text: &str| Some(toml::Value::String(text.to_owned()));
    if let Some(Problem::NotBuilt { value: None }) = probe(key, text("?").filter(|_| kind == "String")) {
        return told.to_owned();
    }
    let words =
        |allowed: &[&str]| allowed.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match (kind, probe(key, text("?"))) {
        ("bool", _) => "`true`, `false`".to_owned(),
        ("u32", _) => format!("number{}", bounds(key, i64::from(u32::MAX).into())),
        ("u16", _) => "number".to_owned(),
        (_, Some(Problem::NotOneOf { allowed, .. })) => words(allowed),
        (_, Some(Problem::Unit { error, .. })) => {
            let unit = probe(key, text("1")).unwrap().to_string();
            let (name, none) = if unit.contains("KiB") { ("size", "0B") } else { ("duration", "0ms") };
            assert!(unit.contains("has no unit"), "{key}: {error}");
            format!("{name}{}", bounds(key, none.into()))
        }
        _ => told.to_owned(),
    }
}

/// Defaults of everything, from the least that may be said.
fn defaults(heal_after: &str) -> BTreeMap<String, String> {
    let least = format!(
        "cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"d\"\n[topology]\nheal_after = \"{heal_after}\"\n\
         [[regions]]\nname = \"eu\"\n[[conflicts]]\nkeys = \"a\"\npolicy = \"crdt\"\n\
         [[homes]]\nkeys = \"a\"\nregion = \"eu\"\nelsewhere = \"refuse\"\n"
    );
    let settings = Settings::parse(&least, Path::new("/nonexistent"), FileChecks::Skip).unwrap();
    let mut found = BTreeMap::new();
    flatten("", &settings.to_toml(Path::new("/")).parse::<toml::Table>().unwrap().into(), &mut found);
    found
}

fn flatten(key: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, found);
            }
        }
        toml::Value::Array(items) if items.iter().all(toml::Value::is_table) && !items.is_empty() => {
            flatten(&format!("{key}[]"), &items[0], found);
        }
        toml::Value::String(text) => drop(found.insert(key.to_owned(), format!("`{text}`"))),
        value => drop(found.insert(key.to_owned(), format!("`{value}`"))),
    }
}

/// What holds without the key.
fn default_of(key: &str, absent: &str) -> String {
    let required = matches!(probe(key, None), Some(Problem::Missing));
    match absent {
        "" if required => "required".to_owned(),
        "two regions" => {
            assert!(required, "{key} may be missing");
            "required with two or more regions".to_owned()
        }
        "" => {
            // Not what is said on the way to it.
            let told = defaults("3s");
            told.get(key).unwrap_or_else(|| panic!("{key} has no default")).clone()
        }
        absent => absent.to_owned(),
    }
}

fn camel_case(key: &str) -> String {
    let mut text = String::from("config.");
    let mut upper = false;
    for c in key.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                text.extend(c.to_uppercase());
                upper = false;
            }
            c => text.push(c),
        }
    }
    text
}

fn reloads(key: &str) -> bool {
    CHANGEABLE.iter().any(|known| {
        key.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    })
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    let known = keys();
    for (table, title) in SECTIONS {
        let name = if table.is_empty() { String::new() } else { format!(": `{}`", toml_name(table)) };
        write!(text, "\n## {title}{name}\n\n| key | type | default | changed by | Helm | |\n|---|---|---|---|---|---|\n").unwrap();
        for (key, kind) in
            known.iter().filter(|(key, _)| key.rsplit_once('.').map_or("", |(t, _)| t) == *table)
        {
            let (_, told, absent, meaning) =
                MEANINGS.iter().find(|(k, ..)| k == key).unwrap_or_else(|| panic!("{key} is not explained"));
            let (kind, default) = (kind_of(key, kind, told), default_of(key, absent));
            assert!(!kind.is_empty() && !meaning.is_empty(), "{key}");
            let changed = if reloads(key) { "reload" } else { "restart" };
            writeln!(
                text,
                "| `{key}` | {kind} | {default} | {changed} | `{}` | {meaning} |",
                camel_case(key)
            )
            .unwrap();
        }
    }
    text
}

fn toml_name(table: &str) -> String {
    match table.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{}]", table.replace("[]", "")),
    }
}

#[test]
fn the_reference_is_of_this_program() {
    let text = document();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(DOCUMENT).unwrap(),
        text,
        "docs/configuration.md is not of this program"
    );
}

#[test]
fn no_key_is_explained_that_the_parser_does_not_read() {
    let known: BTreeSet<String> = keys().into_iter().map(|(key, _)| key).collect();
    let explained: BTreeSet<String> = MEANINGS.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(explained, known);
    assert_eq!(MEANINGS.len(), known.len(), "twice");
    let mut golden = BTreeMap::new();
    flatten("", &FULL.parse::<toml::Table>().unwrap().into(), &mut golden);
    assert!(golden.keys().all(|key| known.contains(key)), "{golden:?}");
}

#[test]
fn a_lease_without_a_word_of_it_follows_heal_after() {
    assert_eq!(defaults("3s")["homes[].lease"], "`9s`");
    assert_eq!(defaults("5s")["homes[].lease"], "`15s`");
}

#[test]
fn what_has_no_default_may_be_left_out() {
    for (key, _, absent, _) in MEANINGS.iter().filter(|(_, _, absent, _)| *absent == "none") {
        assert!(!matches!(probe(key, None), Some(Problem::Missing)), "{key} is required, not {absent}");
    }
}

/// Keys below `config` in the chart's schema: those of lists as `list[].key`.
fn schema_keys(
    prefix: &str,
    schema: &serde_json::Value,
    root: &serde_json::Value,
    found: &mut BTreeSet<String>,
) {
    let resolved = match schema.get("$ref").and_then(serde_json::Value::as_str) {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    if let Some(properties) = resolved.get("properties").and_then(serde_json::Value::as_object) {
        for (name, inner) in properties {
            schema_keys(&format!("{prefix}.{name}"), inner, root, found);
        }
        return;
    }
    let items =
        resolved.get("items").map(|items| match items.get("$ref").and_then(serde_json::Value::as_str) {
            Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
            None => items,
        });
    match items.filter(|items| items.get("properties").is_some()) {
        Some(items) => schema_keys(&format!("{prefix}[]"), items, root, found),
        None => drop(found.insert(prefix.to_owned())),
    }
}

#[test]
fn every_key_is_a_value_of_the_chart_and_no_other_is() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let mut found = BTreeSet::new();
    schema_keys("config", schema.pointer("/properties/config").unwrap(), &schema, &mut found);
    let named: BTreeSet<String> = keys().iter().map(|(key, _)| camel_case(key)).collect();
    assert_eq!(found, named);
}

#[test]
fn the_charts_values_name_every_key() {
    let mut found = BTreeSet::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    for line in VALUES.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let indent = name.len() - name.trim_start().len();
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, name.trim().to_owned()));
        let is_table = value.split('#').next().unwrap().trim().is_empty();
        if path[0].1 == "config" && !is_table {
            found.insert(path.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("."));
        }
    }
    // What a list's items have is said in the schema.
    let named = keys().into_iter().map(|(key, _)| camel_case(&key));
    let named: BTreeSet<String> = named.map(|key| key.split("[]").next().unwrap().to_owned()).collect();
    assert_eq!(found, named);
}
