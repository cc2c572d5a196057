//! What operators must prove, and what they may disturb.

use std::net::SocketAddr;

use super::FileChecks;
use super::error::Problem;
use super::file::{AdminFile, DevFile, Field};
use super::files;
use super::resolve::Resolver;
use super::settings::{Admin, Dev, MetricsAccess};

/// Resolves `[admin]`.
pub(super) fn admin(resolver: &mut Resolver<'_>, field: Field<AdminFile>) -> Admin {
    let file = resolver.section("admin", field);
    resolver.collector.unknown("admin", &file.unknown);
    let (allowed, meanings) = (&["open", "token"], [MetricsAccess::Open, MetricsAccess::Token]);
    let metrics =
        resolver.collector.word("admin.metrics", file.metrics, allowed, &meanings, MetricsAccess::Open);
    let key = "admin.token_file";
    if file.token_file.is_absent() {
        if metrics == MetricsAccess::Token {
            resolver.collector.push("admin.metrics", Problem::NeedsToken);
        }
        return Admin { token_file: None, metrics };
    }
    let token_file = resolver.path(key, file.token_file);
    if let Some(path) = token_file.as_deref().filter(|_| resolver.checks == FileChecks::Require) {
        // Read anew whenever it is needed.
        resolver.usable(key, path, files::read_token(path).map(drop));
    }
    Admin { token_file, metrics }
}

/// Resolves `[dev]`.
pub(super) fn dev(resolver: &mut Resolver<'_>, field: Field<DevFile>, admin: SocketAddr) -> Dev {
    let file = resolver.section("dev", field);
    resolver.collector.unknown("dev", &file.unknown);
    let faults = resolver.collector.optional("dev.faults", file.faults).unwrap_or(false);
    if faults && !admin.ip().to_canonical().is_loopback() {
        resolver.collector.push("dev.faults", Problem::OpenFaults { address: admin });
    }
    Dev { faults }
}
