//! From the file form to the settings.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meridian_conflict::policy::{MAX_PATTERN_BYTES, MAX_RULES};
use meridian_topology::graph::check_name;

use super::FileChecks;
use super::collect::Collector;
use super::error::{ConfigErrors, FileProblem, Problem};
use super::file::{
    AntiEntropyFile, AuthFile, ClockFile, ConfigFile, ConflictFile, Field, InboxFile, LimitsFile, ListenFile,
    LogFile, SeedFile, StoreFile, TlsFile,
};
use super::settings::{
    AntiEntropy, Auth, BuiltInKind, Clock, ConflictRule, Hook, Inbox, Limits, Listen, Log, LogSync, Policy,
    Seed, Settings, Store, StoreKind, Tls,
};
use super::{files, not_built, resolve_admin, resolve_homes, resolve_regions};
use crate::policies::load::load_module;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Room for what surrounds the longest argument: a command's other arguments, an op's metadata.
const OVERHEAD: u64 = 64 * KIB;
/// The highest database there is.
const MAX_DATABASE: u16 = 15;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What values are resolved against, and where errors go.
pub(super) struct Resolver<'a> {
    pub(super) collector: Collector,
    pub(super) directory: &'a Path,
    pub(super) checks: FileChecks,
}

/// Resolves `file`, whose relative paths start at `directory`.
pub(super) fn resolve(
    file: ConfigFile,
    directory: &Path,
    checks: FileChecks,
) -> Result<Settings, ConfigErrors> {
    let mut resolver = Resolver { collector: Collector::default(), directory, checks };
    let settings = resolver.settings(file);
    ConfigErrors::check(resolver.collector.errors)?;
    // Without a required value an error was collected, so there are settings here.
    settings.ok_or_else(|| ConfigErrors::one("configuration".to_owned(), Problem::Missing))
}

impl Resolver<'_> {
    fn settings(&mut self, file: ConfigFile) -> Option<Settings> {
        not_built::refuse(&file, &mut self.collector);
        self.collector.unknown("", &file.unknown);
        let cluster = self.cluster(file.cluster);
        let region = self.collector.required("region", file.region);
        let region = region.and_then(|name| self.collector.name("region", &name));
        let data_dir = self.path("data_dir", file.data_dir);
        let open_to_clients = file.auth.is_absent();
        let listen = self.listen(file.listen, open_to_clients);
        let admin = resolve_admin::admin(self, file.admin);
        let auth = self.auth(file.auth);
        // As many as the file names, even if some are wrong.
        let single = file.regions.get().map_or(1, Vec::len) <= 1;
        let regions = resolve_regions::regions(self, file.regions, region.as_ref(), listen.link);
        let topology = resolve_regions::topology(self, file.topology, regions.as_deref(), single);
        let tls = self.tls(file.tls, !single);
        let store = self.store(file.store);
        let conflicts = self.conflicts(file.conflicts);
        let homes = resolve_homes::homes(self, file.homes, regions.as_deref(), topology.as_ref());
        let inbox = self.inbox(file.inbox);
        let clock = self.clock(file.clock);
        let limits = self.limits(file.limits);
        let log = self.log(file.log, &limits);
        let seed = self.seed(file.seed);
        let anti_entropy = self.anti_entropy(file.anti_entropy);
        let dev = resolve_admin::dev(self, file.dev, listen.admin);
        let regions = regions?.into_iter().map(|region| (region.name.clone(), region)).collect();
        Some(Settings {
            cluster: cluster?,
            region: region?,
            data_dir: data_dir?,
            listen,
            admin,
            auth,
            tls,
            topology: topology?,
            regions,
            store,
            log,
            conflicts,
            homes,
            inbox,
            clock,
            limits,
            seed,
            anti_entropy,
            dev,
        })
    }

    /// A section that may be missing as a whole: its keys then have their defaults.
    pub(super) fn section<T: Default>(&mut self, key: &str, field: Field<T>) -> T {
        self.collector.optional(key, field).unwrap_or_default()
    }

    pub(super) fn path(&mut self, key: &str, field: Field<String>) -> Option<PathBuf> {
        self.collector.text(key, field).map(|path| self.directory.join(path))
    }

    fn cluster(&mut self, field: Field<String>) -> Option<String> {
        let name = self.collector.required("cluster", field)?;
        let checked = check_name(&name).map_err(|error| Problem::Name { name: name.clone(), error });
        self.collector.ok("cluster", checked).map(|()| name)
    }

    fn listen(&mut self, field: Field<ListenFile>, open_to_clients: bool) -> Listen {
        let file = self.section("listen", field);
        self.collector.unknown("listen", &file.unknown);
        let resp = self.socket("listen.resp", file.resp, 6380);
        let link = self.socket("listen.link", file.link, 7380);
        let admin = self.socket("listen.admin", file.admin, 9380);
        if open_to_clients && !resp.ip().to_canonical().is_loopback() {
            self.collector.push("listen.resp", Problem::Exposed { address: resp });
        }
        // The link is UDP and cannot collide with the others; port 0 is chosen by the system.
        if resp == admin && resp.port() != 0 {
            let problem = Problem::SameAs { value: admin.to_string(), other: "listen.resp".to_owned() };
            self.collector.push("listen.admin", problem);
        }
        Listen { resp, link, admin }
    }

    fn socket(&mut self, key: &str, field: Field<String>, port: u16) -> SocketAddr {
        let default = SocketAddr::from(([127, 0, 0, 1], port));
        let Some(value) = self.collector.optional(key, field) else { return default };
        let parsed = value.parse().map_err(|_| Problem::ListenAddress { value });
        self.collector.ok(key, parsed).unwrap_or(default)
    }

    fn auth(&mut self, field: Field<AuthFile>) -> Option<Auth> {
        let file = self.collector.optional("auth", field)?;
        self.collector.unknown("auth", &file.unknown);
        let key = "auth.password_file";
        let password_file = self.path(key, file.password_file)?;
        let password = self.usable(key, &password_file, files::read_password(&password_file))?;
        Some(Auth { password_file, password })
    }

    pub(super) fn usable<T>(&mut self, key: &str, path: &Path, result: Result<T, FileProblem>) -> Option<T> {
        let result =
            result.map_err(|problem| Problem::PathUnusable { path: path.display().to_string(), problem });
        self.collector.ok(key, result)
    }

    fn tls(&mut self, field: Field<TlsFile>, needed: bool) -> Option<Tls> {
        if field.is_absent() && needed {
            self.collector.push("tls", Problem::TlsRequired);
        }
        let file = self.collector.optional("tls", field)?;
        self.collector.unknown("tls", &file.unknown);
        let ca = self.tls_file("tls.ca", file.ca, files::check_readable);
        let cert = self.tls_file("tls.cert", file.cert, files::check_readable);
        let key = self.tls_file("tls.key", file.key, files::check_key);
        Some(Tls { ca: ca?, cert: cert?, key: key? })
    }

    fn tls_file(
        &mut self,
        key: &str,
        field: Field<String>,
        check: fn(&Path) -> Result<(), FileProblem>,
    ) -> Option<PathBuf> {
        let path = self.path(key, field)?;
        if self.checks == FileChecks::Require {
            self.usable(key, &path, check(&path))?;
        }
        Some(path)
    }

    fn store(&mut self, field: Field<StoreFile>) -> Store {
        let file = self.section("store", field);
        self.collector.unknown("store", &file.unknown);
        let allowed = &["embedded", "redis"];
        let redis = self.collector.word("store.kind", file.kind, allowed, &[false, true], false);
        let memory_max = self.collector.size("store.memory_max", file.memory_max, GIB, MIB..=1024 * TIB);
        let kind = if redis {
            let url = self.collector.text("store.url", file.url).unwrap_or_default();
            let position_db = self.collector.optional("store.position_db", file.position_db);
            let position_db = position_db.unwrap_or(MAX_DATABASE);
            if position_db > MAX_DATABASE {
                let (least, most) = ("0".to_owned(), MAX_DATABASE.to_string());
                let problem = Problem::OutOfBounds { value: position_db.to_string(), least, most };
                self.collector.push("store.position_db", problem);
            }
            StoreKind::Redis { url, position_db }
        } else {
            self.only_with("store.url", "store.kind = \"redis\"", &file.url);
            self.only_with("store.position_db", "store.kind = \"redis\"", &file.position_db);
            StoreKind::Embedded
        };
        Store { kind, memory_max }
    }

    /// Reports a key that is set where it means nothing.
    pub(super) fn only_with<T>(&mut self, key: &str, with: &'static str, field: &Field<T>) {
        if !field.is_absent() {
            self.collector.push(key, Problem::OnlyWith { with });
        }
    }

    fn log(&mut self, field: Field<LogFile>, limits: &Limits) -> Log {
        let file = self.section("log", field);
        self.collector.unknown("log", &file.unknown);
        let allowed = &["always", "everysec", "never"];
        let syncs = [LogSync::Always, LogSync::Everysec, LogSync::Never];
        let sync = self.collector.word("log.sync", file.sync, allowed, &syncs, LogSync::Always);
        let retention = self.collector.duration("log.retention", file.retention, 24 * HOUR, SECOND..=YEAR);
        let key = "log.retention_max";
        let retention_max = self.collector.size(key, file.retention_max, 10 * GIB, MIB..=1024 * TIB);
        self.room(key, retention_max, limits.max_op, "limits.max_op");
        Log { sync, retention, retention_max }
    }

    fn conflicts(&mut self, field: Field<Vec<Field<ConflictFile>>>) -> Vec<ConflictRule> {
        let rules = self.collector.optional("conflicts", field).unwrap_or_default();
        if rules.len() > MAX_RULES {
            self.collector.push("conflicts", Problem::TooMany { count: rules.len(), most: MAX_RULES });
            return Vec::new();
        }
        rules.into_iter().enumerate().filter_map(|(at, rule)| self.conflict(at, rule)).collect()
    }

    fn conflict(&mut self, at: usize, field: Field<ConflictFile>) -> Option<ConflictRule> {
        let path = format!("conflicts[{at}]");
        let file = self.collector.optional(&path, field)?;
        self.collector.unknown(&path, &file.unknown);
        let key = format!("{path}.keys");
        let keys = self.collector.text(&key, file.keys);
        if let Some(bytes) = keys.as_ref().map(String::len).filter(|bytes| *bytes > MAX_PATTERN_BYTES) {
            self.collector.push(&key, Problem::TooLong { bytes, most: MAX_PATTERN_BYTES });
        }
        let policy = self.policy(&path, file.policy, file.hook);
        let shadow_path = format!("{path}.shadow");
        let shadow = self.collector.optional(&shadow_path, file.shadow).and_then(|shadow| {
            self.collector.unknown(&shadow_path, &shadow.unknown);
            self.policy(&shadow_path, shadow.policy, shadow.hook)
        });
        Some(ConflictRule { keys: keys?, policy: policy?, shadow })
    }

    fn policy(&mut self, path: &str, policy: Field<String>, hook: Field<String>) -> Option<Policy> {
        let (policy_key, hook_key) = (format!("{path}.policy"), format!("{path}.hook"));
        let value = self.collector.required(&policy_key, policy)?;
        let policy = match value.as_str() {
            "crdt" => Policy::Crdt,
            "lww" => Policy::Lww,
            "multi-value" => Policy::MultiValue,
            "hook" => {
                let hook = self.collector.text(&hook_key, hook)?;
                return Some(Policy::Hook(self.hook(&hook_key, &hook)?));
            }
            _ => {
                let allowed = &["crdt", "lww", "multi-value", "hook"];
                self.collector.push(&policy_key, Problem::NotOneOf { value, allowed });
                return None;
            }
        };
        self.only_with(&hook_key, "policy = \"hook\"", &hook);
        Some(policy)
    }

    /// A built-in hook, or a module that can be loaded.
    fn hook(&mut self, key: &str, hook: &str) -> Option<Hook> {
        if let Some(kind) = BuiltInKind::ALL.into_iter().find(|kind| kind.name() == hook) {
            return Some(Hook::BuiltIn(kind));
        }
        let path = self.directory.join(hook);
        if self.checks == FileChecks::Require
            && let Err(error) = load_module(&path)
        {
            let (path, reason) = (path.display().to_string(), error.to_string());
            self.collector.push(key, Problem::Hook { path, reason });
            return None;
        }
        Some(Hook::File(path))
    }

    fn inbox(&mut self, field: Field<InboxFile>) -> Inbox {
        let file = self.section("inbox", field);
        self.collector.unknown("inbox", &file.unknown);
        let default = Inbox::default();
        let records_per_second = self.collector.optional("inbox.records_per_second", file.records_per_second);
        let burst = self.collector.optional("inbox.burst", file.burst);
        let inbox = Inbox {
            max: self.collector.size("inbox.max", file.max, default.max, MIB..=TIB),
            retention: self.collector.duration(
                "inbox.retention",
                file.retention,
                default.retention,
                SECOND..=YEAR,
            ),
            records_per_second: records_per_second.unwrap_or(default.records_per_second),
            burst: burst.unwrap_or(default.burst),
        };
        self.within("inbox.records_per_second", inbox.records_per_second, 0..=1_000_000);
        self.within("inbox.burst", inbox.burst, 0..=1_000_000);
        inbox
    }

    /// Reports a number that is too small or too large.
    fn within(&mut self, key: &str, value: u32, bounds: RangeInclusive<u32>) {
        if !bounds.contains(&value) {
            let (least, most) = (bounds.start().to_string(), bounds.end().to_string());
            self.collector.push(key, Problem::OutOfBounds { value: value.to_string(), least, most });
        }
    }

    fn clock(&mut self, field: Field<ClockFile>) -> Clock {
        let file = self.section("clock", field);
        self.collector.unknown("clock", &file.unknown);
        let (default, least) = (Duration::from_millis(500), Duration::from_millis(1));
        Clock { max_skew: self.collector.duration("clock.max_skew", file.max_skew, default, least..=HOUR) }
    }

    fn limits(&mut self, field: Field<LimitsFile>) -> Limits {
        let file = self.section("limits", field);
        self.collector.unknown("limits", &file.unknown);
        let default = Limits::default();
        let max_clients = self.collector.optional("limits.max_clients", file.max_clients);
        let max_clients = max_clients.unwrap_or(default.max_clients);
        self.within("limits.max_clients", max_clients, 1..=1_000_000);
        let mut size = |key, field, default, most| self.collector.size(key, field, default, 16 * KIB..=most);
        let bulk = "limits.proto_max_bulk_len";
        let limits = Limits {
            max_clients,
            proto_max_bulk_len: size(bulk, file.proto_max_bulk_len, default.proto_max_bulk_len, 512 * MIB),
            client_output_max: size(
                "limits.client_output_max",
                file.client_output_max,
                default.client_output_max,
                TIB,
            ),
            query_buffer_max: size(
                "limits.query_buffer_max",
                file.query_buffer_max,
                default.query_buffer_max,
                TIB,
            ),
            pending_max: size("limits.pending_max", file.pending_max, default.pending_max, TIB),
            tail_cache: size("limits.tail_cache", file.tail_cache, default.tail_cache, TIB),
            max_op: size("limits.max_op", file.max_op, default.max_op, GIB),
        };
        let least = limits.proto_max_bulk_len + OVERHEAD;
        self.room("limits.client_output_max", limits.client_output_max, least, bulk);
        self.room("limits.query_buffer_max", limits.query_buffer_max, least, bulk);
        self.room("limits.max_op", limits.max_op, least, bulk);
        self.room("limits.pending_max", limits.pending_max, limits.max_op, "limits.max_op");
        limits
    }

    /// Reports a size that is less than what another key's value needs.
    fn room(&mut self, key: &str, value: u64, least: u64, other: &'static str) {
        if value < least {
            let (value, least) = (super::units::format_size(value), super::units::format_size(least));
            self.collector.push(key, Problem::TooSmallFor { value, other, least });
        }
    }

    fn seed(&mut self, field: Field<SeedFile>) -> Seed {
        let file = self.section("seed", field);
        self.collector.unknown("seed", &file.unknown);
        let default = Seed::default();
        let key = "seed.donor_pace";
        let donor_pace = self.collector.size(key, file.donor_pace, default.donor_pace, 64 * KIB..=TIB);
        let donor_share = self.collector.optional("seed.donor_share", file.donor_share);
        let donor_share = donor_share.unwrap_or(default.donor_share);
        if !(1..=100).contains(&donor_share) {
            let (least, most) = ("1".to_owned(), "100".to_owned());
            let problem = Problem::OutOfBounds { value: donor_share.to_string(), least, most };
            self.collector.push("seed.donor_share", problem);
        }
        let stale_reads = self.collector.optional("seed.stale_reads", file.stale_reads);
        Seed { donor_pace, donor_share, stale_reads: stale_reads.unwrap_or(default.stale_reads) }
    }

    fn anti_entropy(&mut self, field: Field<AntiEntropyFile>) -> AntiEntropy {
        let file = self.section("anti_entropy", field);
        self.collector.unknown("anti_entropy", &file.unknown);
        let default = AntiEntropy::default();
        let key = "anti_entropy.keys_per_second";
        let keys_per_second = self.collector.optional(key, file.keys_per_second);
        let keys_per_second = keys_per_second.unwrap_or(default.keys_per_second);
        if !(1..=1_000_000).contains(&keys_per_second) {
            let (least, most) = ("1".to_owned(), "1000000".to_owned());
            let problem = Problem::OutOfBounds { value: keys_per_second.to_string(), least, most };
            self.collector.push(key, problem);
        }
        let enabled = self.collector.optional("anti_entropy.enabled", file.enabled);
        AntiEntropy {
            enabled: enabled.unwrap_or(default.enabled),
            keys_per_second,
            every: self.collector.duration("anti_entropy.every", file.every, default.every, SECOND..=YEAR),
        }
    }
}
