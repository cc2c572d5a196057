//! What the documentation says is there: every link leads to a file and a heading, and the page of
//! commands lists those of the program's own table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use meridian_proxy::command::table;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every Markdown file of the repository: what was built is left out.
fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let built = name == "target" || name.to_string_lossy().starts_with('.');
        if path.is_dir() && !built {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// Text outside of blocks of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    page.split("```").step_by(2).flat_map(str::lines)
}

/// The names by which a page's headings are linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

/// Where a page's links lead to, those to other sites left out.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = prose(page).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split(')').next()).filter(|target| !target.contains("://"))
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let mut all = Vec::new();
    pages(workspace(), &mut all);
    assert!(all.len() > 10, "the pages were not found: {all:?}");
    let mut broken = Vec::new();
    for page in &all {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let whole = anchor.is_empty() && target.exists();
            let part = || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
            if !whole && !part() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_page_of_commands_lists_those_there_are() {
    let page = fs::read_to_string(workspace().join("docs/commands.md")).unwrap();
    let families = page.split("| family | commands |").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed: Vec<String> = families.split('`').skip(1).step_by(2).map(str::to_lowercase).collect();
    let distinct: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let there: BTreeSet<&str> = table::all().map(|command| command.name).collect();
    let mentioned_again = ["watch"];
    assert_eq!(distinct, there);
    assert_eq!(listed.len(), there.len() + mentioned_again.len(), "a command is listed twice");
}
