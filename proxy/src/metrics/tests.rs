//! What is said of metrics is said in one place and printed in another.

use std::fmt::Write;

use super::Metrics;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const HEAD: &str = "\
# Metrics

`GET /metrics` on the admin port, in Prometheus' text format. Made from the program's own texts (`proxy/src/metrics`), and checked
against them by a test; `WRITE_GOLDEN=1 cargo test --release -p meridian-proxy --lib metrics` writes it anew. The end of a name is its unit; a name
that ends in `_total` only rises, from zero at each start. Beside these there are `meridian_process_*` of the process.

| metric | type | labels | |
|---|---|---|---|
";

#[test]
fn every_metric_is_in_the_document_as_it_is() {
    let mut text = HEAD.to_owned();
    for metric in Metrics::new().unwrap().described() {
        assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{}: {:?}", metric.name, metric.help);
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (&metric.name, metric.kind, labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", metric.help.replace('|', "\\|")).unwrap();
    }
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(DOCUMENT).unwrap(), text, "docs/metrics.md is not of this program");
}
