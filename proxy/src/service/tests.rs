#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use super::*;
use crate::cert::{REGION_VALIDITY, create_ca, create_region};
use crate::config::FileChecks;

/// A region alone on ports that the system chooses, with its data in `directory`.
pub(crate) fn settings(directory: &Path, more: &str) -> Settings {
    let text = format!(
        "cluster = \"test\"\nregion = \"eu\"\ndata_dir = \"data\"\n\
         [listen]\nresp = \"127.0.0.1:0\"\nlink = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{more}"
    );
    Settings::parse(&text, directory, FileChecks::Require).unwrap()
}

#[tokio::test]
async fn a_service_starts_again_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let first = Service::start(settings(directory.path(), "")).await.unwrap();
    let origin = first.region().origin();
    first.stop().await.unwrap();
    let second = Service::start(settings(directory.path(), "")).await.unwrap();
    assert_eq!(second.region().origin(), origin);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_busy_port_names_its_key_and_leaves_nothing_running() {
    let directory = tempfile::tempdir().unwrap();
    for key in ["listen.resp", "listen.admin"] {
        let busy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(directory.path(), "");
        match key {
            "listen.resp" => settings.listen.resp = busy.local_addr().unwrap(),
            _ => settings.listen.admin = busy.local_addr().unwrap(),
        }
        let error = Service::start(settings).await.unwrap_err();
        assert_eq!(error.downcast_ref::<BindError>().unwrap().key, key);
        assert!(error.to_string().starts_with(&format!("{key}: cannot listen on 127.0.0.1:")), "{error}");
    }
    // The data directory is free again.
    let service = Service::start(settings(directory.path(), "")).await.unwrap();
    service.stop().await.unwrap();
}

#[tokio::test]
async fn another_regions_certificate_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    create_ca(directory.path()).unwrap();
    create_region("us", directory.path(), directory.path(), &[], REGION_VALIDITY).unwrap();
    let tls = "[tls]\nca = \"ca.pem\"\ncert = \"us.pem\"\nkey = \"us.key\"\n";
    let error = Service::start(settings(directory.path(), tls)).await.unwrap_err();
    assert_eq!(
        error.downcast_ref::<CertError>().unwrap().to_string(),
        "tls.cert: the certificate is for region \"us\", this region is \"eu\""
    );
    assert!(!directory.path().join("data").exists());
}
