//! The pure crates depend on nothing that could reach the world. Their `clippy.toml` bans the
//! standard library's ways there.

use std::path::Path;

/// What either crate may depend on. None of these opens a file, a socket or a clock.
const ALLOWED: [&str; 11] = [
    "bigdecimal",
    "crdts",
    "indexmap",
    "meridian-conflict",
    "postcard",
    "serde",
    "serde_bytes",
    "smallvec",
    "thin-vec",
    "thiserror",
    "xxhash-rust",
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

fn dependencies(manifest: &str) -> Vec<String> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            // `[dependencies.name]` and `[target.….dependencies]` would slip past the list.
            assert!(!line.starts_with("[dependencies."), "{line}");
            assert!(!line.starts_with("[target"), "{line}");
            assert!(!line.starts_with("[build-dependencies"), "{line}");
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap();
            found.push(line[..end].to_owned());
        }
    }
    found
}

#[test]
fn pure_crates_depend_on_the_allow_list_only() {
    for manifest in ["conflict/Cargo.toml", "topology/Cargo.toml"] {
        let found = dependencies(&read(manifest));
        assert!(found.len() > 3, "{manifest}: the list was not read");
        for name in found {
            assert!(ALLOWED.contains(&name.as_str()), "{manifest}: {name} is not on the allow-list");
        }
    }
}

#[test]
fn pure_crates_share_one_purity_lock() {
    let lock = read("conflict/clippy.toml");
    assert_eq!(lock, read("topology/clippy.toml"));
    for banned in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::collections::HashMap",
        "std::env::var",
    ] {
        assert!(lock.contains(&format!("\"{banned}\"")), "{banned}");
    }
}
