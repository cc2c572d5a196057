#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use meridian_topology::graph::RegionName;
use meridian_topology::shape::Shape;
use proptest::prelude::*;

use super::settings::{LogSync, Policy, Role, Secret, StoreKind};
use super::*;

pub(super) const FULL: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/config-full.toml"));

/// The least that is needed: one region, everything else by default.
const LEAST: &str = "cluster = \"shop\"\nregion = \"eu\"\ndata_dir = \"data\"\n";

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn parse(text: &str) -> Result<Settings, ConfigErrors> {
    Settings::parse(text, nowhere(), FileChecks::Skip)
}

/// What is reported of `text`, one line each.
fn refused(text: &str) -> Vec<String> {
    parse(text).expect_err("must be refused").iter().map(ToString::to_string).collect()
}

/// [`LEAST`] with more.
fn least_with(more: &str) -> String {
    format!("{LEAST}{more}")
}

/// A directory with a file of this content and mode.
fn directory_with(name: &str, content: &[u8], mode: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), name, content, mode);
    directory
}

fn write(directory: &Path, name: &str, content: &[u8], mode: u32) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn one_region_needs_three_keys() {
    let settings = parse(LEAST).unwrap();
    assert_eq!(settings.data_dir, nowhere().join("data"));
    assert_eq!(settings.listen.resp.to_string(), "127.0.0.1:6380");
    assert_eq!(settings.listen.link.to_string(), "127.0.0.1:7380");
    assert_eq!(settings.listen.admin.to_string(), "127.0.0.1:9380");
    assert!(settings.auth.is_none() && settings.tls.is_none() && settings.conflicts.is_empty());
    assert_eq!(settings.topology.shape, Shape::Mesh);
    assert_eq!(settings.topology.heal_after, Duration::from_secs(3));
    assert_eq!((settings.store.kind.clone(), settings.store.memory_max), (StoreKind::Embedded, 1 << 30));
    assert_eq!((settings.log.sync, settings.log.retention_max), (LogSync::Always, 10 << 30));
    assert_eq!(settings.log.retention, Duration::from_secs(86_400));
    assert_eq!(settings.clock.max_skew, Duration::from_millis(500));
    assert_eq!((settings.role(), settings.peers().count()), (Role::Leader, 0));
    assert_eq!(settings.anti_entropy, settings::AntiEntropy::default());
    assert!(!settings.dev.faults);
    assert_eq!(settings.admin, settings::Admin { token_file: None, metrics: settings::MetricsAccess::Open });
}

#[test]
fn the_example_is_valid_and_documents_the_defaults() {
    let settings = parse(example()).unwrap();
    assert_eq!(settings.limits, settings::Limits::default());
    assert_eq!(settings.inbox, settings::Inbox::default());
    assert_eq!(settings.peers().count(), 2);
    assert_eq!(settings.topology.shape.to_string(), "ring eu -> us -> ap -> eu");
    assert_eq!(settings.tls.unwrap().key, nowhere().join("eu.key"));
    let mut defaults = parse(LEAST).unwrap();
    defaults.conflicts = settings.conflicts.clone();
    assert_eq!(settings.log, defaults.log);
    assert_eq!(settings.store, defaults.store);
    assert_eq!(settings.clock, defaults.clock);
    assert_eq!(settings.anti_entropy, defaults.anti_entropy);
    assert_eq!(settings.listen, defaults.listen);
    assert_eq!(settings.admin, defaults.admin);
    assert_eq!(settings.topology.heal_after, defaults.topology.heal_after);
    assert_eq!(settings.conflicts[0].policy, Policy::Crdt);
}

#[test]
fn the_full_file_survives_a_round_trip() {
    let directory = directory_with("password", b"open sesame\n", 0o600);
    let path = directory.path().join("meridian.toml");
    std::fs::write(&path, FULL).unwrap();
    let settings = Settings::load(&path).unwrap();
    assert_eq!(settings.to_toml(directory.path()), FULL);

    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("moved.toml");
    std::fs::write(&path, settings.to_toml(elsewhere.path())).unwrap();
    assert_eq!(Settings::load(&path).unwrap(), settings);
    assert!(settings.auth.as_ref().unwrap().password.matches(b"open sesame"));
    assert!(!format!("{settings:?}").contains("sesame"));
}

#[test]
fn the_three_regions_of_the_example_load_without_certificates() {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ring"));
    let regions: Vec<Settings> = ["eu", "us", "ap"]
        .map(|region| Settings::load(&directory.join(format!("{region}.toml"))).unwrap())
        .into();
    for (at, settings) in regions.iter().enumerate() {
        assert_eq!(settings.listen.resp.port(), 6381 + at as u16);
        assert_eq!(settings.listen.admin.port(), 9381 + at as u16);
        assert_eq!(settings.regions[&settings.region].address, settings.listen.link.to_string());
        assert_eq!(settings.regions, regions[0].regions);
        assert_eq!(settings.topology.graph.digest(), regions[0].topology.graph.digest());
        assert_eq!(settings.tls.as_ref().unwrap().ca, directory.join("tls/ca.pem"));
    }
    let errors = Settings::load_with(&directory.join("eu.toml"), FileChecks::Require).unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["tls.ca", "tls.cert", "tls.key"]);
}

#[test]
fn every_error_is_reported_at_once() {
    let text = r#"
cluster = "Shop"
regoin = "eu"
data_dir = 3

[listen]
resp = "localhost:6380"
admin = true
port = 1

[topology]
shape = "ring"
order = ["eu", "ux"]
heal_after = "3"

[[regions]]
name = "eu"
[[regions]]
name = "us"
address = "10.1.0.1"
role = "king"

[store]
memory_max = "1024"

[log]
sync = "sometimes"
retention = "1y"

[clock]
max_skew = "2h"

[unheard]
of = 1
"#;
    assert_eq!(
        refused(text),
        [
            "regoin: unknown key",
            "unheard: unknown key",
            "cluster: \"Shop\": a name has only lowercase letters, digits and dashes, not 'S'",
            "region: missing",
            "data_dir: invalid type: integer `3`, expected a string",
            "listen.port: unknown key",
            "listen.resp: \"localhost:6380\" is not an IP address and port, such as 127.0.0.1:6380",
            "listen.admin: invalid type: boolean `true`, expected a string",
            "regions[0].address: missing",
            "regions[1].address: \"10.1.0.1\" is not a host and port, such as 10.0.0.1:7380 or eu.example.com:7380",
            "regions[1].role: \"king\" is not one of leader, follower",
            "topology.heal_after: \"3\": has no unit (d, h, m, s, ms)",
            "topology.order: region \"ux\" is not in [[regions]]",
            "topology.order: region \"us\" is missing",
            "tls: missing: links between regions are always mutual TLS; set ca, cert and key (see `meridian cert`)",
            "store.memory_max: \"1024\": has no unit (TiB, TB, GiB, GB, MiB, MB, KiB, KB, B)",
            "clock.max_skew: 2h is not between 1ms and 1h",
            "log.sync: \"sometimes\" is not one of always, everysec, never",
            "log.retention: \"1y\": \"y\" is not a unit (d, h, m, s, ms)",
        ]
    );
}

#[test]
fn an_empty_file_misses_what_is_required() {
    assert_eq!(refused(""), ["cluster: missing", "region: missing", "data_dir: missing"]);
}

#[test]
fn a_syntax_error_names_its_line() {
    let errors = refused("cluster = \"shop\"\nregion = \n");
    assert!(errors.len() == 1 && errors[0].starts_with("line 2: "), "{errors:?}");
    assert!(refused("cluster = \"a\"\ncluster = \"b\"\n")[0].starts_with("line 2: "));
}

/// What interface and design name and this version does not do, each by its own line.
#[test]
fn what_is_not_built_is_refused_by_name() {
    let text = least_with(
        r#"
[topology]
shape = "star"
hub = "eu"
standby_hubs = ["us"]
[tls]
ca = "ca.pem"
cert = "eu.pem"
key = "eu.key"
[[regions]]
name = "eu"
[[regions]]
name = "us"
address = "us.example.com:7380"
[store]
kind = "redis"
url = "redis://user:secret@127.0.0.1:6379"
position_db = 15
"#,
    );
    assert_eq!(
        refused(&text),
        [
            "store.kind: \"redis\" is not available in this version",
            "store.url: this key is not available in this version",
            "store.position_db: this key is not available in this version",
        ]
    );
}

#[test]
fn fault_knobs_are_for_loopback_alone() {
    assert!(parse(&least_with("[dev]\nfaults = true\n")).unwrap().dev.faults);
    let open = least_with("[listen]\nadmin = \"0.0.0.0:9380\"\n[dev]\nfaults = true\n");
    assert_eq!(
        refused(&open),
        ["dev.faults: whoever reaches listen.admin at 0.0.0.0:9380 could cut this region off; \
          listen on 127.0.0.1"]
    );
}

#[test]
fn protected_mode_refuses_an_open_port_without_a_password() {
    for open in ["0.0.0.0:6380", "10.0.0.1:6380", "[::]:6380"] {
        let errors = refused(&least_with(&format!("[listen]\nresp = \"{open}\"\n")));
        assert_eq!(
            errors,
            [format!(
                "listen.resp: {open} can be reached from other machines and no password is set: \
                 set [auth] password_file, or listen on 127.0.0.1"
            )]
        );
    }
    for closed in ["127.0.0.1:6380", "127.8.9.1:6380", "[::1]:6380", "[::ffff:127.0.0.1]:6380"] {
        assert!(parse(&least_with(&format!("[listen]\nresp = \"{closed}\"\n"))).is_ok(), "{closed}");
    }
    let directory = directory_with("password", b"secret", 0o600);
    let text = least_with("[auth]\npassword_file = \"password\"\n[listen]\nresp = \"0.0.0.0:6380\"\n");
    assert!(Settings::parse(&text, directory.path(), FileChecks::Skip).is_ok());
}

#[test]
fn a_password_file_is_private_and_holds_something() {
    let text = least_with("[auth]\npassword_file = \"password\"\n");
    let load = |content: &[u8], mode| {
        let directory = directory_with("password", content, mode);
        let settings = Settings::parse(&text, directory.path(), FileChecks::Skip);
        settings.map(|settings| settings.auth.unwrap().password).map_err(|errors| errors.to_string())
    };
    assert!(load(b"secret\n", 0o440).unwrap().matches(b"secret"));
    assert!(load(b"secret\r\n", 0o600).unwrap().matches(b"secret"));
    assert!(load(b"two\n\n", 0o600).unwrap().matches(b"two\n"));
    assert!(load(b"secret", 0o644).unwrap_err().contains("is open to every user (mode 0644)"));
    assert!(load(b"secret", 0o602).unwrap_err().contains("is open to every user"));
    assert!(load(b"\n", 0o600).unwrap_err().ends_with("is empty"));
    assert!(load(&[b'x'; 4097], 0o600).unwrap_err().ends_with("is larger than 4096 bytes"));
    assert!(refused(&text)[0].starts_with("auth.password_file: /nonexistent/password: cannot be read: "));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("password")).unwrap();
    let errors = Settings::parse(&text, directory.path(), FileChecks::Skip).unwrap_err();
    assert!(errors.to_string().ends_with("is not a regular file"));
    assert_eq!(refused(&least_with("[auth]\n")), ["auth.password_file: missing"]);
}

#[test]
fn a_token_file_is_private_and_holds_what_a_header_can() {
    let text = least_with("[admin]\ntoken_file = \"token\"\nmetrics = \"token\"\n");
    assert_eq!(parse(&text).unwrap().admin.token_file, Some(nowhere().join("token")), "not looked at");
    let load = |content: &[u8], mode| {
        let directory = directory_with("token", content, mode);
        let checked = Settings::parse(&text, directory.path(), FileChecks::Require).map(drop);
        let read = read_token(&directory.path().join("token"));
        assert_eq!(checked.is_ok(), read.is_ok());
        read.map_err(|_| checked.unwrap_err().to_string())
    };
    assert!(load(b"s3cret-token\n", 0o440).unwrap().matches(b"s3cret-token"));
    assert!(load(b"s3cret-token\r\n", 0o600).unwrap().matches(b"s3cret-token"));
    assert!(load(b"secret", 0o644).unwrap_err().contains("is open to every user (mode 0644)"));
    for nothing in [&b""[..], b"\n"] {
        assert!(load(nothing, 0o600).unwrap_err().ends_with("/token: is empty"));
    }
    for bad in [&b"two words"[..], b"two\nlines\n", b"caf\xc3\xa9"] {
        assert!(
            load(bad, 0o600)
                .unwrap_err()
                .ends_with("is not one line of visible ASCII characters without spaces")
        );
    }
    assert!(load(&[b'x'; 4097], 0o600).unwrap_err().ends_with("is larger than 4096 bytes"));
    let absent = Settings::parse(&text, nowhere(), FileChecks::Require).unwrap_err().to_string();
    assert!(absent.starts_with("admin.token_file: /nonexistent/token: cannot be read: "), "{absent}");
    assert_eq!(
        refused(&least_with("[admin]\nmetrics = \"token\"\n")),
        ["admin.metrics: \"token\" needs a token: set admin.token_file"]
    );
    assert_eq!(
        refused(&least_with("[admin]\ntoken_file = \"\"\nmetrics = \"closed\"\ntoken = \"x\"\n")),
        [
            "admin.token: unknown key",
            "admin.metrics: \"closed\" is not one of open, token",
            "admin.token_file: must not be empty",
        ]
    );
}

#[test]
fn a_secret_matches_itself_only() {
    let secret = Secret::new(b"secret".to_vec());
    assert!(secret.matches(b"secret"));
    for guess in [&b""[..], b"secre", b"secrets", b"secret\0", b"Secret", b"secretsecret"] {
        assert!(!secret.matches(guess));
    }
}

#[test]
fn tls_files_are_looked_at_when_asked_to() {
    let directory = directory_with("ca.pem", b"x", 0o644);
    write(directory.path(), "eu.pem", b"x", 0o644);
    write(directory.path(), "eu.key", b"x", 0o644);
    let text = least_with("[tls]\nca = \"ca.pem\"\ncert = \"eu.pem\"\nkey = \"eu.key\"\n");
    let load = || Settings::parse(&text, directory.path(), FileChecks::Require);
    let errors = load().unwrap_err().to_string();
    assert!(errors.starts_with("tls.key: ") && errors.contains("open to every user"), "{errors}");
    write(directory.path(), "eu.key", b"x", 0o600);
    assert!(load().is_ok());
    assert_eq!(refused(&least_with("[tls]\nca = \"ca.pem\"\n")), ["tls.cert: missing", "tls.key: missing"]);
}

#[test]
fn the_regions_must_make_sense() {
    let regions = |names: &[&str], more: &str| {
        let tables: String = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                format!("[[regions]]\nname = \"{name}\"\naddress = \"10.0.0.1:{}\"\n{more}", at + 1)
            })
            .collect();
        refused(&least_with(&format!(
            "[topology]\nshape = \"mesh\"\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n{tables}"
        )))
    };
    assert_eq!(regions(&["us", "ap"], ""), ["region: \"eu\" is not in [[regions]]"]);
    assert_eq!(regions(&["eu", "us", "eu"], ""), ["regions: region \"eu\" is named more than once"]);
    assert_eq!(regions(&["eu", "us"], "role = \"follower\"\n"), ["regions: no region is a leader"]);
    assert_eq!(
        regions(&["eu", "u.s"], ""),
        ["regions[1].name: \"u.s\": a name has only lowercase letters, digits and dashes, not '.'"]
    );
    let text = example().replace("10.2.0.1:7380", "10.1.0.1:7380");
    assert_eq!(refused(&text), ["regions[2].address: \"10.1.0.1:7380\" is used by regions[1].address too"]);
}

#[test]
fn t1_names_that_ops_could_not_tell_apart_are_refused() {
    // 32 bits: among so many names some pair has the same number.
    let mut names = std::collections::BTreeMap::new();
    let (one, two) = (0..)
        .find_map(|n: u32| {
            let name = format!("r{n}");
            let other = names.insert(meridian_conflict::clock::RegionId::of(&name), name.clone())?;
            Some((other, name))
        })
        .unwrap();
    let table =
        |name: &str, port: u16| format!("[[regions]]\nname = \"{name}\"\naddress = \"10.0.0.1:{port}\"\n");
    let text = format!(
        "[topology]\nshape = \"mesh\"\n[tls]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n{}{}{}",
        table("eu", 1),
        table(&one, 2),
        table(&two, 3)
    );
    let told = format!(
        "regions[2].name: \"{two}\" and \"{one}\" happen to have the same number inside of ops: rename one of them"
    );
    assert_eq!(refused(&least_with(&text)), [told]);
}

#[test]
fn peer_addresses() {
    let load = |address: &str| parse(&example().replace("10.1.0.1:7380", address));
    for good in ["eu:1", "eu-1.example_x.com:65535", "10.0.0.9:7380", "[::1]:7380", "1x.2:80"] {
        let settings = load(good).unwrap();
        assert_eq!(settings.regions[&RegionName::new("us").unwrap()].address, good);
    }
    for bad in [
        "",
        ":1",
        "eu",
        "eu:",
        "eu:0",
        "eu:65536",
        "eu:+1",
        "eu:7x",
        "::1:7380",
        "[::1]",
        "a..b:1",
        "a b:1",
        "10.0.0.1:0",
        "10.0.0.256:80",
        "10.0.0:80",
        "0.0.0.0:7380",
        "redis://eu:1",
        "é:1",
    ] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_shape_has_its_own_keys_only() {
    let topology = |text: &str| {
        refused(&example().replace("shape = \"ring\"                       # ring | star | mesh | custom\norder = [\"eu\", \"us\", \"ap\"] ", text))
    };
    assert_eq!(
        topology("shape = \"mesh\"\norder = []\nhub = \"eu\"\nfeeds = []\n"),
        [
            "topology.order: only used with topology.shape = \"ring\"",
            "topology.hub: only used with topology.shape = \"star\"",
            "topology.feeds: only used with topology.shape = \"custom\"",
        ]
    );
    assert_eq!(topology("shape = \"ring\"\n"), ["topology.order: missing"]);
    assert_eq!(topology("shape = \"star\"\n"), ["topology.hub: missing"]);
    assert_eq!(topology("shape = \"custom\"\n"), ["topology.feeds: missing"]);
    assert_eq!(topology("\n"), ["topology.shape: missing"]);
    assert_eq!(
        topology("shape = \"line\"\n"),
        ["topology.shape: \"line\" is not one of ring, star, mesh, custom"]
    );
    assert_eq!(
        topology("shape = \"custom\"\nfeeds = [[\"eu\"], [\"eu\", \"US\"], []]\n"),
        [
            "topology.feeds[0]: a feed is [from, to], this one has 1 regions",
            "topology.feeds[1][1]: \"US\": a name has only lowercase letters, digits and dashes, not 'U'",
            "topology.feeds[2]: a feed is [from, to], this one has 0 regions",
        ]
    );
    assert_eq!(
        topology("shape = \"star\"\nhub = \"zz\"\n"),
        ["topology.hub: region \"zz\" is not in [[regions]]"]
    );
    assert_eq!(
        topology("shape = \"custom\"\nfeeds = [[\"eu\", \"us\"], [\"us\", \"eu\"], [\"ap\", \"us\"]]\n"),
        [
            "topology.feeds: the ops of \"eu\" never reach \"ap\": this can never converge",
            "topology.feeds: the ops of \"us\" never reach \"ap\": this can never converge",
        ]
    );
}

#[test]
fn limits_leave_room_for_each_other() {
    let limits = |text: &str| refused(&least_with(&format!("[limits]\n{text}")));
    assert_eq!(
        limits("proto_max_bulk_len = \"32MiB\"\n"),
        [
            "limits.client_output_max: 32MiB is too small: limits.proto_max_bulk_len needs at least 32832KiB",
            "limits.query_buffer_max: 16MiB is too small: limits.proto_max_bulk_len needs at least 32832KiB",
            "limits.max_op: 16MiB is too small: limits.proto_max_bulk_len needs at least 32832KiB",
        ]
    );
    assert_eq!(
        limits("pending_max = \"1MiB\"\n"),
        ["limits.pending_max: 1MiB is too small: limits.max_op needs at least 16MiB"]
    );
    assert_eq!(limits("max_clients = 0\n"), ["limits.max_clients: 0 is not between 1 and 1000000"]);
    assert!(limits("max_clients = -1\n")[0].starts_with("limits.max_clients: invalid value"));
    assert_eq!(limits("tail_cache = \"1B\"\n"), ["limits.tail_cache: 1B is not between 16KiB and 1TiB"]);
    let small_log = refused(&least_with("[log]\nretention_max = \"1MiB\"\n"));
    assert_eq!(small_log, ["log.retention_max: 1MiB is too small: limits.max_op needs at least 16MiB"]);
}

#[test]
fn two_services_do_not_share_a_port() {
    let text = least_with("[listen]\nresp = \"127.0.0.1:6380\"\nadmin = \"127.0.0.1:6380\"\n");
    assert_eq!(refused(&text), ["listen.admin: \"127.0.0.1:6380\" is used by listen.resp too"]);
    let any = least_with("[listen]\nresp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n");
    assert!(parse(&any).is_ok());
}

#[test]
fn wrong_tables_are_errors() {
    let text = least_with("listen = 3\nconflicts = [1, {keys = \"\", policy = \"none\", sort = 1}]\n");
    assert_eq!(
        refused(&text),
        [
            "listen: invalid type: integer `3`, expected a table",
            "conflicts[0]: invalid type: integer `1`, expected a table",
            "conflicts[1].sort: unknown key",
            "conflicts[1].keys: must not be empty",
            "conflicts[1].policy: \"none\" is not one of crdt, lww, multi-value, hook",
        ]
    );
    assert!(refused(&least_with("regions = 1\n"))[0].starts_with("regions: invalid type"));
    let keys = "x".repeat(1025);
    let text = least_with(&format!("[[conflicts]]\nkeys = \"{keys}\"\npolicy = \"crdt\"\nhook = \"max\"\n"));
    assert!(
        refused(&text).contains(&"conflicts[0].keys: has 1025 bytes, more than the 1024 accepted".to_owned())
    );
    assert!(refused(&text).contains(&"conflicts[0].hook: only used with policy = \"hook\"".to_owned()));
}

#[test]
fn a_shadow_is_a_policy_of_its_own() {
    let rule = "[[conflicts]]\nkeys = \"a\"\npolicy = \"lww\"\nshadow = ";
    let text = least_with(&format!("{rule}{{ policy = \"hook\", hook = \"max\" }}\n"));
    assert_parses(&text);
    let rules = parse(&text).unwrap().conflicts;
    assert_eq!(rules[0].policy, Policy::Lww);
    assert!(matches!(rules[0].shadow, Some(Policy::Hook(_))));
    let text = least_with(&format!("{rule}{{ policy = \"best\", sort = 1 }}\n"));
    assert_eq!(
        refused(&text),
        [
            "conflicts[0].shadow.sort: unknown key",
            "conflicts[0].shadow.policy: \"best\" is not one of crdt, lww, multi-value, hook"
        ]
    );
    assert!(refused(&least_with(&format!("{rule}1\n")))[0].starts_with("conflicts[0].shadow: invalid type"));
}

#[test]
fn the_file_itself_is_checked() {
    let directory = directory_with("c.toml", b"\xff\xfe", 0o644);
    let load = |name: &str| Settings::load(&directory.path().join(name)).unwrap_err().to_string();
    assert!(load("c.toml").ends_with("c.toml: is not UTF-8"));
    assert!(load("none.toml").contains("none.toml: cannot be read: "));
    write(directory.path(), "large.toml", &vec![b'#'; (1 << 20) + 1], 0o644);
    assert!(load("large.toml").ends_with("is larger than 1048576 bytes"));
}

/// Parsing ends in settings or in errors, each naming something; settings survive a round trip.
fn assert_parses(text: &str) {
    match parse(text) {
        Ok(settings) => {
            let written = settings.to_toml(nowhere());
            assert_eq!(parse(&written).expect("what was written is valid"), settings, "{written}");
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            assert!(errors.iter().all(|error| !error.key.is_empty()), "{errors}");
        }
    }
}

/// `cargo bolero test config::tests::fuzz_config_parse`, or a short random run under `cargo test`.
///
/// An input is a text itself if its first byte is odd; else each following triple overwrites a byte of
/// the example, which gets past the TOML parser far more often.
#[test]
fn fuzz_config_parse() {
    bolero::check!().for_each(|input: &[u8]| {
        let Some((first, rest)) = input.split_first() else { return };
        if first % 2 == 1 {
            return assert_parses(&String::from_utf8_lossy(rest));
        }
        let mut bytes = example().as_bytes().to_vec();
        for edit in rest.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
            bytes[at] = edit[2];
        }
        assert_parses(&String::from_utf8_lossy(&bytes));
    });
}

proptest! {
    /// Any key of the example may be lost or doubled, any value replaced by another key's.
    #[test]
    fn mixed_up_lines_never_panic(edits in proptest::collection::vec((0..60usize, 0..60usize, 0..3u8), 0..6)) {
        let mut lines: Vec<String> = example().lines().map(str::to_owned).collect();
        for (at, from, kind) in edits {
            let (at, from) = (at % lines.len(), from % lines.len());
            match kind {
                0 => { lines.remove(at); }
                1 => lines.insert(at, lines[from].clone()),
                _ => if let (Some((key, _)), Some((_, value))) = (lines[at].split_once('='), lines[from].split_once('=')) {
                    lines[at] = format!("{key}={value}");
                },
            }
        }
        assert_parses(&lines.join("\n"));
    }
}

#[test]
fn the_inbox_is_bounded() {
    let inbox = |more: &str| refused(&least_with(&format!("[inbox]\n{more}")));
    assert_eq!(inbox("max = \"1KiB\"\n"), ["inbox.max: 1KiB is not between 1MiB and 1TiB"]);
    assert!(inbox("retention = \"7\"\n")[0].starts_with("inbox.retention: "));
    assert_eq!(
        inbox("records_per_second = 1000001\nburst = 1000001\n"),
        [
            "inbox.records_per_second: 1000001 is not between 0 and 1000000",
            "inbox.burst: 1000001 is not between 0 and 1000000",
        ]
    );
    assert!(inbox("colour = \"red\"\n")[0].starts_with("inbox.colour: "));
    let settings = parse(&least_with("[inbox]\nmax = \"2MiB\"\nburst = 0\n")).unwrap();
    assert_eq!((settings.inbox.max, settings.inbox.burst), (2 << 20, 0));
}
