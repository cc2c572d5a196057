//! The table of failures in `docs/failures.md` says what is there: every failure has a row, and every
//! test that a row names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Letters of the families and how many failures each has.
const FAMILIES: [(&str, usize); 10] =
    [("L", 4), ("C", 7), ("K", 4), ("D", 4), ("R", 4), ("J", 5), ("Q", 4), ("H", 1), ("S", 2), ("T", 1)];

/// What a row says that no test is named after.
const OPEN: [&str; 2] = ["not covered yet", "in part: "];

/// The names of all functions in the sources below `directory`.
fn functions(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let declared = source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(declared.map(str::to_owned));
        }
    }
}

/// Words between backticks that may be the name of a test, or the start of several: `s1_*`.
fn names_in(cell: &str) -> impl Iterator<Item = &str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.contains('_')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_*".contains(c))
    };
    quoted.filter(is_name)
}

#[test]
fn every_failure_has_a_row_and_every_test_it_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut known = BTreeSet::new();
    for part in ["conflict", "topology", "proxy"] {
        functions(&workspace.join(part), &mut known);
    }
    let table = fs::read_to_string(workspace.join("docs/failures.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id"));
    let mut seen = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, " | ").map(str::trim).collect();
        let [id, _, tests] = cells[..] else { panic!("not three cells: {row}") };
        seen.push(id.to_owned());
        for name in names_in(tests) {
            let exists = match name.strip_suffix('*') {
                Some(start) => known.iter().any(|function| function.starts_with(start)),
                None => known.contains(name),
            };
            assert!(exists, "{id}: there is no test {name}");
        }
        let own = format!("{}_", id.to_lowercase());
        let named = names_in(tests).any(|name| name.starts_with(&own));
        assert!(named || OPEN.iter().any(|open| tests.contains(open)), "{id}: no test is named after it");
    }
    let ids = FAMILIES.iter().flat_map(|(family, count)| (1..=*count).map(move |n| format!("{family}{n}")));
    assert_eq!(seen, ids.collect::<Vec<_>>(), "the rows are not those of the list of failures");
}
