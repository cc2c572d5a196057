#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::config::{FileChecks, Settings};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_and_their_defaults() {
    let Command::Demo(demo) = parse("meridian demo").unwrap().command else { panic!() };
    assert_eq!((demo.topology, demo.regions, demo.base_port), (demo::DemoTopology::Ring, 3, 6381));
    assert!(demo.data_dir.is_none());
    let Command::Status(status) = parse("meridian status").unwrap().command else { panic!() };
    assert_eq!(status.admin.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://127.0.0.1:9380"]);
    assert_eq!((status.interval.as_secs(), status.color), (2, status::Color::Auto));
    assert!(!status.watch && !status.json);
    let line = "meridian --log-format json serve --config eu.toml";
    assert_eq!(parse(line).unwrap().log_format, LogFormat::Json);
    let line = "meridian serve --config eu.toml --log-format json";
    assert_eq!(parse(line).unwrap().log_format, LogFormat::Json);
    let line = "meridian cert region eu --ca tls --out tls --san eu.example.com --san 10.0.0.1";
    let Command::Cert { command: cert::CertCommand::Region { san, days, .. } } = parse(line).unwrap().command
    else {
        panic!()
    };
    assert_eq!((san, days), (vec!["eu.example.com".to_owned(), "10.0.0.1".to_owned()], 365));
}

#[test]
fn what_means_nothing_is_refused() {
    for line in [
        "meridian",
        "meridian serve",
        "meridian check",
        "meridian demo --regions 0",
        "meridian demo --regions 17",
        "meridian demo --base-port 80",
        "meridian demo --base-port 65536",
        "meridian demo --topology line",
        "meridian status --admin https://127.0.0.1:9380",
        "meridian status --admin http://127.0.0.1:9380/metrics",
        "meridian cert region eu --ca tls",
        "meridian serve --config a --log-format xml",
        "meridian status --watch --interval 1ms",
        "meridian status --watch --interval 2",
        "meridian completions tcsh",
        "meridian verify --admin https://127.0.0.1:9380",
        "meridian conflicts --admin https://127.0.0.1:9380",
        "meridian conflicts --follow --limit 3",
        // Planned, and not pretended to be here.
        "meridian hook",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr(), "{line}");
    }
}

/// The report on region eu in a topology, with `more` above its tables.
fn report(topology: &str, names: &[&str], more: &str) -> String {
    let mut text = format!(
        "cluster = \"shop\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
         [tls]\nca = \"ca.pem\"\ncert = \"eu.pem\"\nkey = \"eu.key\"\n[topology]\n{topology}\n{more}"
    );
    for (at, name) in names.iter().enumerate() {
        text.push_str(&format!("[[regions]]\nname = \"{name}\"\naddress = \"10.{at}.0.1:7380\"\n"));
    }
    let settings = Settings::parse(&text, Path::new("/nonexistent"), FileChecks::Skip).unwrap();
    check::report(&settings, "eu.toml")
}

#[test]
fn the_reports_on_topologies() {
    let rules = "[[conflicts]]\nkeys = \"profile:*\"\npolicy = \"lww\"\n\
        [[conflicts]]\nkeys = \"cart:*\"\npolicy = \"hook\"\nhook = \"hooks/cart.wasm\"\n\
        [[homes]]\nkeys = \"lock:*\"\nregion = \"us\"\nelsewhere = \"forward\"\n[log]\nsync = \"everysec\"\n";
    let feeds = "shape = \"custom\"\nheal_after = \"500ms\"\n\
        feeds = [[\"eu\", \"us\"], [\"us\", \"eu\"], [\"us\", \"ap\"], [\"ap\", \"us\"], [\"ap\", \"sa\"], [\"sa\", \"eu\"]]";
    let many: Vec<String> =
        std::iter::once("eu".to_owned()).chain((1..12).map(|n| format!("r{n}"))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let order = format!("shape = \"ring\"\norder = {many:?}");
    let three = ["eu", "us", "ap"];
    for (name, told) in [
        ("ring", report("shape = \"ring\"\norder = [\"eu\", \"us\", \"ap\"]", &three, "")),
        (
            "star",
            report("shape = \"star\"\nhub = \"eu\"\nstandby_hubs = [\"us\"]", &["eu", "us", "ap", "sa"], ""),
        ),
        ("mesh", report("shape = \"mesh\"", &three, rules)),
        ("custom", report(feeds, &["eu", "us", "ap", "sa"], "")),
        ("many", report(&order, &many, "")),
    ] {
        let golden = format!("{}/tests/golden/check-{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        assert_eq!(told, std::fs::read_to_string(&golden).unwrap(), "{name}");
        let shape_aside = told.lines().filter(|line| !line.starts_with("topology: "));
        assert!(shape_aside.map(str::chars).all(|line| line.count() <= 100), "{told}");
    }
}

#[test]
fn a_region_alone_has_no_failures_to_report() {
    let text = "cluster = \"shop\"\nregion = \"eu\"\ndata_dir = \"data\"\n";
    let settings = Settings::parse(text, Path::new("/nonexistent"), FileChecks::Skip).unwrap();
    let told = check::report(&settings, "eu.toml");
    assert!(!told.contains("fails") && told.contains("It is a leader"), "{told}");
}

#[test]
fn from_an_authority_to_a_configuration_that_serves() {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    let told = cert::make(&cert::CertCommand::Ca { out: tls.clone() }).unwrap();
    assert!(told.contains("next, once for each region:\n  meridian cert region NAME --ca "), "{told}");
    let issue = |name: &str, renew| cert::CertCommand::Region {
        renew,
        name: name.to_owned(),
        ca: tls.clone(),
        out: tls.clone(),
        san: Vec::new(),
        days: 30,
    };
    let region = |name: &str| issue(name, false);
    let told = cert::make(&region("eu")).unwrap();
    // What it tells to write into the configuration is what works there.
    let (_, table) = told.split_once("file):\n").unwrap();
    let text = format!("cluster = \"a\"\nregion = \"eu\"\ndata_dir = \"d\"\n{table}");
    let settings = Settings::parse(&text, directory.path(), FileChecks::Require).unwrap();
    assert_eq!(crate::service::own_identity(&settings).unwrap().unwrap().region, "eu");

    let again = anyhow::Error::new(cert::make(&region("eu")).unwrap_err());
    assert_eq!(exit::code(&again), exit::RUNTIME, "{again}");
    assert!(again.to_string().contains("--renew"), "{again}");
    let told = cert::make(&issue("eu", true)).unwrap();
    assert!(told.contains("renewed") && told.contains("eu.pem"), "{told}");
    assert_eq!(crate::service::own_identity(&settings).unwrap().unwrap().region, "eu");
    let badly_named = anyhow::Error::new(cert::make(&region("not_a.name")).unwrap_err());
    assert_eq!(exit::code(&badly_named), exit::CONFIGURATION, "{badly_named}");
}

#[tokio::test]
async fn a_demo_on_busy_ports_names_the_option() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let args = demo::DemoArgs {
        topology: demo::DemoTopology::Mesh,
        regions: 1,
        base_port: port,
        data_dir: None,
        with: None,
    };
    // Ports too high for a demo are refused too, and by the same option.
    let error = demo::run(&args).await.unwrap_err().to_string();
    assert!(error.contains("--base-port"), "{error}");
}
