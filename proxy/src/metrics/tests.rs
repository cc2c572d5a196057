//! What is said of metrics is said in one place and printed in another.

use std::fmt::Write;

use super::{Described, Metrics};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const HEAD: &str = "\
# Metrics

`GET /metrics` on the admin port, in Prometheus' text format. Made from the program's own texts (`proxy/src/metrics`), and checked
against them by a test; `WRITE_GOLDEN=1 cargo test --release -p meridian-proxy --lib metrics` writes it anew. A name
that ends in `_total` only rises, from zero at each start. Beside these there are `meridian_process_*` of the process.

| metric | type | unit | labels | what moves it |
|---|---|---|---|---|
";

/// What one of it is.
fn unit(metric: &Described) -> &'static str {
    let name = metric.name.trim_end_matches("_total");
    let is_answer = metric.help.starts_with("Whether ") || metric.help.starts_with("Which ");
    match () {
        () if name.ends_with("_seconds") || name.contains("_seconds_until_") => "seconds",
        () if name.ends_with("_bytes") => "bytes",
        () if is_answer => "0 or 1",
        () if name.ends_with("_info") => "1",
        () => "count",
    }
}

#[test]
fn every_metric_is_in_the_document_as_it_is() {
    let mut text = HEAD.to_owned();
    for metric in Metrics::new().unwrap().described() {
        assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{}: {:?}", metric.name, metric.help);
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, unit, labels) = (&metric.name, metric.kind, unit(metric), labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {} |", metric.help.replace('|', "\\|")).unwrap();
    }
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(DOCUMENT).unwrap(), text, "docs/metrics.md is not of this program");
}
