//! Lists and numbers in sentences.

use std::fmt::Display;

/// More items than this are counted, not listed.
const LISTED: usize = 8;

/// The widest line.
const WIDTH: usize = 100;

/// A paragraph: lines no wider than [`WIDTH`], the first after `indent` spaces and the others after two more.
pub(super) fn paragraph(indent: usize, text: &str) -> String {
    let mut lines = String::new();
    let mut line = " ".repeat(indent);
    for word in text.split_whitespace() {
        let begins = line.trim_start().is_empty();
        if !begins && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = format!("{}{word}", " ".repeat(indent + 2));
        } else {
            line.push_str(if begins { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.push_str(&line);
    lines.push('\n');
    lines
}

/// `1 hop`, `2 hops`.
pub(super) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `ap`, `ap and eu`, `ap, eu and us`; of many the first ones and how many more.
pub(super) fn names(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => "nobody".to_owned(),
        [only] => only.clone(),
        [first @ .., last] if items.len() <= LISTED => format!("{} and {last}", first.join(", ")),
        items => {
            let shown: Vec<&str> = items.iter().take(LISTED - 1).map(String::as_str).collect();
            format!("{} and {} more", shown.join(", "), items.len() - shown.len())
        }
    }
}
