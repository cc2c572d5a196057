//! The admin server's token and the clients' password from outside: what commands make of the one, that the other may
//! be replaced, and that no secret is ever said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::harness::{Client, Cluster, Options, PATIENCE, Shape, http, wait_for};
use crate::process::command;

const PASSWORD: &str = "open-sesame-5d1f22ab";
const TOKEN: &str = "t0ken-9c07ee1b";
const ADMIN: &str = "[admin]\ntoken_file = \"token\"\nmetrics = \"token\"\n";

fn write_secret(directory: &Path, name: &str, secret: &str) {
    let path = directory.join(name);
    fs::write(&path, format!("{secret}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster that was prepared, with the token and the password in their files.
fn start(mut cluster: Cluster) -> Cluster {
    write_secret(cluster.directory(), "token", TOKEN);
    write_secret(cluster.directory(), "password", PASSWORD);
    for i in cluster.all() {
        cluster.spawn(i);
    }
    for i in cluster.all() {
        cluster.await_ready_of(i);
    }
    cluster.await_links();
    cluster
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// All that a command of those that talk to an admin server says, and whether it succeeded.
fn ask(url: &str, line: &str, token_file: Option<&Path>) -> (bool, String) {
    let arguments: Vec<&str> = line.split(' ').chain(["--admin", url]).collect();
    let mut command = command(&arguments);
    command.env_remove("MERIDIAN_TOKEN_FILE");
    if let Some(file) = token_file {
        command.arg("--token-file").arg(file);
    }
    let output = command.output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn commands_take_the_token_from_a_file() {
    let cluster =
        start(Cluster::prepare(Options { extra: ADMIN.to_owned(), ..Options::new(Shape::Mesh, 2) }));
    let url = format!("http://{}", cluster.admin_address(0));
    let (right, wrong) = (cluster.directory().join("token"), cluster.directory().join("password"));
    for line in
        ["conflicts", "conflicts --follow", "verify", "hook replay json-merge", "hook release json-merge"]
    {
        let (succeeded, told) = ask(&url, line, None);
        assert!(!succeeded && told.contains("asks for a token: give --token-file FILE"), "{line}: {told}");
        let (succeeded, told) = ask(&url, line, Some(&wrong));
        assert!(!succeeded && told.contains("does not know the token in "), "{line}: {told}");
    }
    for line in ["status", "conflicts", "verify", "hook replay json-merge"] {
        let (succeeded, told) = ask(&url, line, Some(&right));
        assert!(succeeded, "{line}: {told}");
    }
    let (_, told) = ask(&url, "hook release json-merge", Some(&right));
    assert!(told.contains("no hook that keys have"), "{told}");
    let by_environment = command(&["conflicts", "--admin", &url]).env("MERIDIAN_TOKEN_FILE", &right).output();
    assert!(by_environment.unwrap().status.success());
    assert!(ask(&url, "status", None).0, "it is open");
    let (succeeded, told) = ask(&url, "status", Some(&cluster.directory().join("none")));
    assert!(!succeeded && told.contains("--token-file") && told.contains("cannot be read"), "{told}");

    // Another token is in force with the file.
    write_secret(cluster.directory(), "token", "another");
    assert!(ask(&url, "conflicts", Some(&right)).0);
    assert!(ask(&url, "hook replay json-merge", Some(&wrong)).1.contains("does not know the token in "));
}

/// By a rename, as an operator's tools and a Secret that is swapped do it.
#[test]
fn s2_a_replaced_password_needs_no_restart() {
    const NEXT: &str = "open-sesame-next";
    let cluster = start(Cluster::prepare(Options {
        extra: "[auth]\npassword_file = \"password\"\n".to_owned(),
        ..Options::new(Shape::Mesh, 2)
    }));
    let says = |i: usize, password: &str| {
        let mut client = Client::connect(cluster.resp_address(i)).unwrap();
        client.call(&["AUTH", password]).text() == Some("OK")
    };
    let mut connected = Client::connect(cluster.resp_address(0)).unwrap();
    connected.ok(&["AUTH", PASSWORD]);
    let replace = |password: &str| {
        write_secret(cluster.directory(), "next", password);
        let [from, to] = ["next", "password"].map(|name| cluster.directory().join(name));
        fs::rename(from, to).unwrap();
    };
    replace(NEXT);
    for i in cluster.all() {
        assert!(says(i, NEXT) && !says(i, PASSWORD), "{}", cluster.name(i));
    }
    connected.ok(&["SET", "key", "still connected"]);
    // What cannot be used changes nothing, and is said once.
    replace("");
    for _ in 0..3 {
        assert!(says(0, NEXT) && !says(0, PASSWORD) && !says(0, ""));
    }
    let warnings = cluster.status(0)["warnings"].to_string();
    assert!(
        warnings.contains("auth.password_file is empty: the former password stays in force"),
        "{warnings}"
    );
    connected.ok(&["SET", "key", "still connected"]);
    replace(PASSWORD);
    assert!(says(0, PASSWORD) && !says(0, NEXT));
    assert_eq!(cluster.status(0)["warnings"].to_string().matches("password").count(), 0);
    let count = |line: &str| cluster.log(0).matches(line).count();
    wait_for("both changes in the log", PATIENCE, || {
        (count("another password is in force") == 2).then_some(())
    });
    assert_eq!(count("auth.password_file cannot be used"), 1);
}

/// Neither what is right nor what was nearly right, which somebody may have mistyped.
#[test]
fn no_secret_is_said_anywhere() {
    let wrong = ["open-sesame-mistyped", "t0ken-mistyped"];
    let mut cluster = start(Cluster::prepare(Options {
        extra: format!("{ADMIN}[auth]\npassword_file = \"password\"\n"),
        launcher: Some("MERIDIAN_LOG=trace exec \"$@\" --log-format json"),
        ..Options::new(Shape::Mesh, 2)
    }));
    let mut shown = String::new();
    for i in cluster.all() {
        let mut client = Client::connect(cluster.resp_address(i)).unwrap();
        shown += &format!("{:?}", client.call(&["AUTH", wrong[0]]));
        shown += &format!("{:?}", client.call(&["HELLO", "3", "AUTH", "default", wrong[0]]));
        client.ok(&["AUTH", PASSWORD]);
        client.ok(&["SET", "key", cluster.name(i)]);
        for command in [&["INFO"][..], &["CONFIG", "GET", "*"], &["CLIENT", "LIST"], &["MERIDIAN.VECTOR"]] {
            shown += &format!("{:?}", client.call(command));
        }
        let admin = cluster.admin_address(i);
        for token in [wrong[1], TOKEN] {
            let header = format!("Authorization: Bearer {token}\r\n");
            for page in ["/status", "/metrics", "/conflicts", "/verify", "/readyz"] {
                shown += &http::get_with(admin, page, &header).unwrap().1;
            }
            shown += &http::post_with(admin, "/reload", &header).unwrap().1;
        }
        assert!(
            shown.contains("meridian_admin_refusals_total"),
            "the right token reads the metrics: {shown}"
        );
        let config = cluster.config(i).to_str().unwrap().to_owned();
        let url = format!("http://{admin}");
        let token = cluster.directory().join("token");
        shown += &said(&command(&["check", "--config", &config]).output().unwrap());
        for line in ["status", "status --json", "conflicts --json", "verify"] {
            shown += &ask(&url, line, Some(&token)).1;
        }
    }
    wait_for("a refusal in the log", PATIENCE, || {
        cluster.log(0).contains("refused an admin request").then_some(())
    });
    for i in cluster.all() {
        cluster.stop(i);
        shown += &cluster.log(i);
    }
    assert!(shown.contains("\"level\":\"TRACE\"") && shown.contains("wrong_token"), "the logs were not read");
    for secret in [PASSWORD, TOKEN, wrong[0], wrong[1]] {
        let line = shown.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {line:?}");
    }
}
