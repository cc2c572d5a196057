//! Each page by what it asks for; browsers, tokens, bodies and other protocols.

use super::*;
use crate::admin::pages::{Need, PAGES, Page, Verb};

const TOKEN_FILE: &str = "[admin]\ntoken_file = \"token\"\n";
const OPEN_TO_ALL: &str = "0.0.0.0:9380";
const HOST: &str = "host: localhost\r\n";
const TOKEN: &str = "host: meridian.example.net\r\nauthorization: Bearer s3cret\r\n";

fn request(page: &Page) -> String {
    let method = if page.verb == Verb::Show { "GET" } else { "POST" };
    // An id that is nobody's: following ends at once.
    let query = if page.path == "/conflicts/follow" { "?after=00000000000000000000000000000001" } else { "" };
    format!("{method} {}{query}", page.path)
}

impl Lab {
    /// The status of `page` asked with these headers, and the head.
    async fn status(&self, page: &Page, headers: &str) -> (u16, String) {
        let (head, body) = self.ask_with(&request(page), headers).await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if [401, 403, 503].contains(&status) && page.path != "/readyz" {
            assert!(!json(&body)["error"].as_str().unwrap().is_empty(), "{body}");
        }
        (status, head)
    }

    fn refusals(&self, reason: &str) -> u64 {
        self.view.region.metrics().admin.refusals.with_label_values(&[reason]).get()
    }
}

/// The table itself, so that a change of it is seen.
#[test]
fn what_changes_or_shows_data_asks_for_the_token() {
    let open: Vec<&str> =
        PAGES.iter().filter(|page| page.need == Need::Nothing).map(|page| page.path).collect();
    assert_eq!(open, ["/healthz", "/readyz", "/status", "/faults"]);
    let by_choice: Vec<&str> =
        PAGES.iter().filter(|page| page.need == Need::Metrics).map(|page| page.path).collect();
    assert_eq!(by_choice, ["/metrics"]);
    assert!(PAGES.iter().all(|page| page.verb == Verb::Show || page.need == Need::Token));
}

#[tokio::test]
async fn on_loopback_without_a_token_everything_is_served() {
    let lab = Lab::new().await;
    for page in PAGES {
        let (status, head) = lab.status(page, HOST).await;
        assert!(![401, 403].contains(&status), "{page:?}: {head}");
    }
    lab.end().await;
}

#[tokio::test]
async fn beyond_loopback_without_a_token_only_what_is_open_is() {
    let lab = Lab::at("", OPEN_TO_ALL).await;
    for page in PAGES {
        let (status, head) = lab.status(page, HOST).await;
        assert_eq!(status == 403, page.need == Need::Token, "{page:?}: {head}");
    }
    let (_, body) = lab.ask("POST /reload").await;
    assert!(json(&body)["error"].as_str().unwrap().starts_with("set admin.token_file"), "{body}");
    assert!(lab.ask("GET /status").await.1.contains("set admin.token_file"), "a warning");
    lab.end().await;
}

#[tokio::test]
async fn with_a_token_who_does_not_say_it_is_refused() {
    for (metrics, need_of_metrics) in [("open", false), ("token", true)] {
        let lab = Lab::at(&format!("{TOKEN_FILE}metrics = \"{metrics}\"\n"), OPEN_TO_ALL).await;
        let mut refused = 0;
        for page in PAGES {
            let asks = match page.need {
                Need::Nothing => false,
                Need::Metrics => need_of_metrics,
                Need::Token => true,
            };
            let wrong = "authorization: Bearer s3cre\r\n";
            let twice = "authorization: Bearer s3cret\r\nauthorization: Bearer s3cret\r\n";
            for (headers, challenge) in [
                ("", "www-authenticate: Bearer"),
                ("authorization: Basic czNjcmV0\r\n", "www-authenticate: Bearer"),
                (wrong, "www-authenticate: Bearer error=\"invalid_token\""),
                ("authorization: Bearer s3cretly\r\n", "www-authenticate: Bearer error=\"invalid_token\""),
                (twice, "www-authenticate: Bearer"),
            ] {
                let (status, head) = lab.status(page, &format!("{HOST}{headers}")).await;
                assert_eq!(status == 401, asks, "{page:?} {headers}: {head}");
                assert_eq!(head.lines().any(|line| line == challenge), asks, "{page:?} {headers}: {head}");
                refused += u64::from(asks);
            }
            let (status, head) = lab.status(page, TOKEN).await;
            assert!(![401, 403].contains(&status), "{page:?}: {head}");
        }
        assert_eq!(lab.refusals("no_token") + lab.refusals("wrong_token"), refused);
        assert_eq!(lab.refusals("wrong_token") * 3, lab.refusals("no_token") * 2);
        lab.end().await;
    }
}

/// HEAD is GET without the body, and asks for the same.
#[tokio::test]
async fn head_is_no_way_around() {
    let lab = Lab::with(TOKEN_FILE).await;
    let (head, _) = lab.ask_with("HEAD /conflicts", HOST).await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    lab.end().await;
}

#[tokio::test]
async fn a_replaced_token_is_in_force_at_once_and_a_broken_one_lets_nobody_in() {
    let lab = Lab::with(TOKEN_FILE).await;
    let conflicts = PAGES.iter().find(|page| page.path == "/conflicts").unwrap();
    let other = "host: a\r\nauthorization: bearer an0ther\r\n";
    assert_eq!((lab.status(conflicts, TOKEN).await.0, lab.status(conflicts, other).await.0), (200, 401));
    set_token(lab.directory.path(), b"an0ther", 0o640);
    assert_eq!((lab.status(conflicts, TOKEN).await.0, lab.status(conflicts, other).await.0), (401, 200));
    for (content, mode) in [(&b""[..], 0o600), (b"an0ther", 0o644), (&[b'x'; 5000][..], 0o600)] {
        set_token(lab.directory.path(), content, mode);
        assert_eq!(lab.status(conflicts, other).await.0, 503);
    }
    std::fs::remove_file(lab.directory.path().join("token")).unwrap();
    assert_eq!(lab.status(conflicts, other).await.0, 503);
    assert_eq!(lab.refusals("token_unreadable"), 4);
    assert_eq!(lab.ask("GET /healthz").await.0, "HTTP/1.1 200 OK");
    lab.end().await;
}

#[tokio::test]
async fn browsers_change_nothing() {
    for config in ["", TOKEN_FILE] {
        let lab = Lab::with(config).await;
        for page in PAGES {
            for origin in ["http://localhost:9380", "https://evil.example.com", "null"] {
                let headers = format!("origin: {origin}\r\nauthorization: Bearer s3cret\r\n{HOST}");
                let (status, head) = lab.status(page, &headers).await;
                assert_eq!(status == 403, page.verb == Verb::Change, "{page:?}: {head}");
            }
        }
        assert!(lab.refusals("origin") > 0);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_to_loopback_shows_nothing() {
    let lab = Lab::new().await;
    for page in PAGES {
        for host in ["evil.example.com:9380", "127.0.0.1.example.com", "10.0.0.1"] {
            let (status, head) = lab.status(page, &format!("host: {host}\r\n")).await;
            assert_eq!(status == 403, page.need == Need::Token, "{page:?} {host}: {head}");
        }
        let absolute = format!("{} HTTP/1.1", request(page).replacen(" /", " http://evil.example.com/", 1));
        let answer = lab.send(&format!("{absolute}\r\n{HOST}connection: close\r\n\r\n")).await;
        assert_eq!(answer.starts_with("HTTP/1.1 403"), page.need == Need::Token, "{page:?}: {answer}");
        // Browsers always say a host; what speaks HTTP/1.0 need not.
        let answer = lab.send(&format!("{} HTTP/1.0\r\n\r\n", request(page))).await;
        assert!(!answer.starts_with("HTTP/1.0 403"), "{page:?}: {answer}");
    }
    assert!(lab.refusals("host") > 0);
    lab.end().await;
}

#[tokio::test]
async fn bodies_are_bounded_page_by_page() {
    let lab = Lab::new().await;
    for page in PAGES {
        let most = page.body_max;
        let (status, head) = lab.status(page, &format!("{HOST}content-length: {}\r\n", most + 1)).await;
        assert_eq!(status, 413, "{page:?}: {head}");
        let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", most + 1, "x".repeat(most + 1));
        let chunked = format!(
            "{} HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunk}",
            request(page)
        );
        let answer = lab.send(&chunked).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{page:?}: {answer}");
        let (status, _) = lab.status(page, &format!("{HOST}content-length: 0\r\n")).await;
        assert_ne!(status, 413, "{page:?}");
    }
    lab.end().await;
}

#[tokio::test]
async fn nothing_but_http_1_is_spoken() {
    let lab = Lab::new().await;
    let answer = lab.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    let upgrade =
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let (head, body) = lab.ask_with("GET /healthz", &format!("{HOST}{upgrade}")).await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "ok\n", "{head}");
    lab.end().await;
}
