//! The clients' password, replaced while clients are connected.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::FileProblem;
use crate::session::password::Password;

/// A file of this content and mode takes the place of the one before, as a whole.
fn replace(server: &Server, content: &[u8], mode: u32) {
    let [next, file] = ["next", "password"].map(|name| server.directory.path().join(name));
    fs::write(&next, content).unwrap();
    fs::set_permissions(&next, Permissions::from_mode(mode)).unwrap();
    fs::rename(&next, &file).unwrap();
}

fn is_let_in(server: &Server, password: &str) -> bool {
    let told = server.connect().ask(&format!("AUTH {password}"));
    let hello = server.connect().ask(&format!("HELLO 3 AUTH default {password}"));
    assert_eq!(told.is_error(), hello.is_error(), "{told:?} {hello:?}");
    assert!(!told.is_error() || text(&told).starts_with("WRONGPASS"), "{told:?}");
    !told.is_error()
}

fn trouble(server: &Server) -> Option<FileProblem> {
    server.region.password().and_then(Password::trouble)
}

#[test]
fn s2_a_replaced_password_is_in_force_and_clients_stay() {
    let server = Server::start("[auth]\npassword_file = \"password\"\n");
    let mut peer = server.connect();
    assert_eq!(text(&peer.ask("AUTH secret")), "OK");
    replace(&server, b"other\n", 0o600);
    assert!(is_let_in(&server, "other") && !is_let_in(&server, "secret"));
    assert_eq!(text(&peer.ask("PING")), "PONG", "it stays");
    assert!(text(&peer.ask("AUTH secret")).starts_with("WRONGPASS"));
    assert_eq!(text(&peer.ask("RESET")), "RESET");
    assert_eq!(text(&peer.ask("AUTH other")), "OK");
    // Of the same size, at once.
    replace(&server, b"third\n", 0o600);
    assert!(is_let_in(&server, "third") && !is_let_in(&server, "other"));
    assert_eq!(trouble(&server), None);
}

#[test]
fn s2_a_password_file_that_cannot_be_used_changes_nothing() {
    let server = Server::start("[auth]\npassword_file = \"password\"\n");
    let file = server.directory.path().join("password");
    let far_too_long = vec![b'a'; 5_000];
    let former = |said: &str| {
        assert!(is_let_in(&server, "secret"), "{said}");
        for guess in ["\"\"", "other", "aaaaa"] {
            assert!(!is_let_in(&server, guess), "{said}");
        }
        assert!(trouble(&server).unwrap().to_string().starts_with(said), "{said}: {:?}", trouble(&server));
    };
    for (content, mode, said) in [
        (&b""[..], 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"other\n", 0o644, "is open to every user (mode 0644)"),
        (&far_too_long, 0o600, "is larger than 4096 bytes"),
    ] {
        replace(&server, content, mode);
        former(said);
    }
    fs::remove_file(&file).unwrap();
    former("cannot be read");
    fs::create_dir(&file).unwrap();
    former("is not a regular file");
    fs::remove_dir(&file).unwrap();
    replace(&server, b"other\n", 0o600);
    assert!(is_let_in(&server, "other") && !is_let_in(&server, "secret"));
    assert_eq!(trouble(&server), None);
}
