//! The document at `/status`: made here, read by `meridian status`. Fields are added, never renamed;
//! a reader takes what it knows and defaults the rest, so versions may differ.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use meridian_conflict::clock::{Dot, Origin, RegionId};
use prometheus::core::Collector;
use serde::{Deserialize, Serialize};

use super::View;
use super::hooks::{self, HookStatus, ShadowStatus};
use super::warnings;
use crate::config::settings::LogSync;
use crate::homes::status::{self as homes, HomeStatus};
use crate::keyspace::DATABASES;
use crate::region::Region;
use crate::region::membership::Membership;
use crate::region::seeding::Stage;
use crate::service::LinkState;
use crate::store::disk::Disk;

/// What a region knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// The region's name.
    pub region: String,
    /// The origin of local ops: the region's name and, in hexadecimal, its incarnation.
    pub origin: String,
    /// The incarnation as a number, as `MERIDIAN.VECTOR` tells it.
    pub incarnation: u32,
    /// The program's version.
    pub version: String,
    /// Seconds since the region was opened.
    pub uptime_seconds: u64,
    /// `leader` or `follower`.
    pub role: String,
    /// Whether it can take writes: as `/readyz`.
    pub ready: bool,
    /// Why not.
    pub not_ready: Vec<String>,
    /// How it is joined to the others.
    pub topology: TopologyStatus,
    /// The applied vector.
    pub applied: Vec<Applied>,
    /// The op log.
    pub log: LogStatus,
    /// The embedded store and the objects in memory.
    pub store: StoreStatus,
    /// Client connections.
    pub clients: i64,
    /// One for each neighbour.
    pub links: Vec<LinkState>,
    /// Conflicts since the start, by their labels.
    pub conflicts_total: Vec<ConflictCount>,
    /// What the start found on disk.
    pub recovered: Recovered,
    /// In what neighbours' configurations differ.
    pub config_mismatches: Vec<Mismatch>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// How far taking over another region's state has come, while it goes on.
    pub seeding: Option<SeedingStatus>,
    /// Ops that could not be applied and were set aside: the newest that this process has met.
    pub parked: Vec<ParkedOp>,
    /// The merge hooks that keys have.
    pub hooks: Vec<HookStatus>,
    /// Policies that are only tried.
    pub shadows: Vec<ShadowStatus>,
    /// Keys that have a home region, the first match first, and who it is.
    pub homes: Vec<HomeStatus>,
}

/// An op that was set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParkedOp {
    /// Its origin, and its sequence number there.
    pub op: String,
    /// Why it cannot be applied.
    pub error: String,
}

fn parked(region: &Region, names: &Names) -> Vec<ParkedOp> {
    let listed = region.parked().listed().into_iter();
    let op = |dot: Dot| format!("{}:{}", names.origin(dot.actor), dot.counter);
    listed.map(|(dot, why)| ParkedOp { op: op(dot), error: why.to_string() }).collect()
}

/// How far taking over another region's state has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeedingStatus {
    /// `merging` or `catching up`.
    pub stage: String,
    /// Keys merged.
    pub keys: u64,
    /// About how many there are.
    pub keys_expected: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Ranges merged.
    pub ranges: u64,
    /// Of how many.
    pub ranges_total: u64,
}

impl SeedingStatus {
    /// `None` when nothing is taken over.
    pub fn of(region: &Region) -> Option<Self> {
        let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let progress = region.seeding().progress();
        let stage = match region.seeding().stage()? {
            Stage::Merging { .. } => "merging",
            Stage::CatchingUp { .. } => "catching up",
            Stage::Anew => "given up",
        };
        Some(Self {
            stage: stage.to_owned(),
            keys: figure(&progress.keys),
            keys_expected: figure(&progress.keys_expected),
            bytes: figure(&progress.bytes),
            ranges: figure(&progress.ranges),
            ranges_total: u64::from(meridian_topology::seed::RANGES),
        })
    }
}

/// How a region is joined to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopologyStatus {
    /// The shape for people: `ring eu -> us -> eu`.
    pub shape: String,
    /// The number by which regions compare topologies, in hexadecimal.
    pub digest: String,
    /// For each other region, the neighbour that feeds its ops to this one while all are up.
    pub routes: BTreeMap<String, String>,
    /// For each other region, over how many hops its ops come then.
    pub hops: BTreeMap<String, u32>,
    /// For each other region, the regions from which its ops come now.
    pub ways: BTreeMap<String, Vec<String>>,
}

/// How far an origin's ops are applied here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The origin: region and incarnation.
    pub origin: String,
    /// Its region's name, or number if no region of that name is configured.
    pub region: String,
    /// Which life of it.
    pub incarnation: u32,
    /// Its last op that is applied here.
    pub sequence: u64,
    /// Ops of its region whose lag was measured since the start.
    pub lag_count: u64,
    /// The sum of their lags, in seconds.
    pub lag_seconds: f64,
}

/// The op log. Positions are LSNs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogStatus {
    /// The oldest position that can still be read.
    pub oldest: u64,
    /// Where the next record will start, as far as written.
    pub end: u64,
    /// Everything below is durable.
    pub durable: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// `always`, `everysec` or `never`.
    pub sync: String,
}

/// The embedded store and the objects in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// Objects whose rows are behind.
    pub lag_ops: u64,
    /// Bytes of log since the last commit.
    pub lag_bytes: u64,
    /// The store holds everything in the log below this.
    pub committed: u64,
    /// Whether commits fail.
    pub failed: bool,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// What may still be written to the file system of `data_dir`, if it says so in time.
    pub disk_available_bytes: Option<u64>,
    /// How large that is.
    pub disk_capacity_bytes: Option<u64>,
    /// Keys by database; empty databases are left out.
    pub keys: BTreeMap<u8, u64>,
    /// Bytes of objects in memory.
    pub memory_bytes: u64,
    /// The configured bound of that.
    pub memory_max_bytes: u64,
}

/// Conflicts of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConflictCount {
    /// What met.
    pub kind: String,
    /// The rule that decided.
    pub rule: String,
    /// Who won.
    pub outcome: String,
    /// The key's policy.
    pub policy: String,
    /// The type.
    pub r#type: String,
    /// How many.
    pub count: u64,
}

/// What the start found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovered {
    /// Ops replayed from the log.
    pub replayed_ops: u64,
    /// Why a new incarnation was taken, if one was.
    pub new_incarnation: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

/// A difference between two regions' configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mismatch {
    /// The other region.
    pub peer: String,
    /// In what they differ.
    pub what: String,
}

impl Status {
    /// The status at this moment, with the disk as it was measured, if it was.
    pub fn of(view: &View, disk: Option<Disk>) -> Self {
        let region = &*view.region;
        let settings = region.settings();
        let membership = region.membership();
        let names = Names::of(&membership);
        let links: Vec<LinkState> = view.links.lock().values().cloned().collect();
        let not_ready = view.not_ready();
        let hooks = hooks::statuses(region, &names);
        Self {
            cluster: settings.cluster.clone(),
            region: settings.region.to_string(),
            origin: names.origin(region.origin()),
            incarnation: region.origin().incarnation(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: region.uptime().as_secs(),
            role: if region.is_follower() { "follower" } else { "leader" }.to_owned(),
            ready: not_ready.is_empty(),
            not_ready,
            topology: topology(region, &membership),
            applied: applied(region, &names),
            parked: parked(region, &names),
            log: log(region),
            store: store(region, disk),
            clients: region.metrics().clients.connected.get(),
            config_mismatches: mismatches(&links),
            links,
            conflicts_total: conflicts(region),
            recovered: Recovered {
                replayed_ops: region.recovered().replayed,
                new_incarnation: region.recovered().new_incarnation.clone(),
                took_ms: region.recovered().took_ms,
            },
            warnings: warnings::of(region).into_iter().chain(hooks::warnings(&hooks)).collect(),
            homes: homes::statuses(region, |id| names.region(id)),
            hooks,
            shadows: hooks::shadows(region),
            seeding: SeedingStatus::of(region),
        }
    }
}

/// The names of the configured regions by number.
pub struct Names(BTreeMap<RegionId, String>);

impl Names {
    /// The names of the members.
    pub fn of(membership: &Membership) -> Self {
        let names = membership.regions.keys();
        Self(names.map(|name| (RegionId::of(name.as_str()), name.to_string())).collect())
    }

    /// A region's name; its number in hexadecimal if it is not configured any more.
    pub fn region(&self, region: RegionId) -> String {
        self.0.get(&region).cloned().unwrap_or_else(|| format!("{:08x}", region.0))
    }

    /// An origin for people and labels: `eu.1f0c22aa`.
    pub fn origin(&self, origin: Origin) -> String {
        format!("{}.{:08x}", self.region(origin.region()), origin.incarnation())
    }
}

/// Seconds until `end`, negative when it has passed.
pub(super) fn seconds_until(end: SystemTime, now: SystemTime) -> f64 {
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    since_epoch(end) - since_epoch(now)
}

fn topology(region: &Region, membership: &Membership) -> TopologyStatus {
    let (graph, at) = (&membership.topology.graph, &region.settings().region);
    let routes = graph.routes(at);
    let hops = routes.keys().filter_map(|origin| Some((origin.to_string(), graph.hops(origin, at)?)));
    TopologyStatus {
        shape: graph.shape().to_string(),
        digest: format!("{:016x}", graph.digest()),
        hops: hops.collect(),
        routes: routes.iter().map(|(origin, peer)| (origin.to_string(), peer.to_string())).collect(),
        ways: ways(region),
    }
}

/// Whose ops come from whom now, as the metric `route` has it.
fn ways(region: &Region) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for family in region.metrics().links.route.collect() {
        for metric in family.get_metric().iter().filter(|metric| metric.get_gauge().get_value() > 0.0) {
            let label = |name: &str| metric.get_label().iter().find(|label| label.name() == name);
            if let (Some(origin), Some(peer)) = (label("origin"), label("peer")) {
                found.entry(origin.value().to_owned()).or_default().push(peer.value().to_owned());
            }
        }
    }
    found
}

fn applied(region: &Region, names: &Names) -> Vec<Applied> {
    let own = region.origin().region();
    let of_origin = |origin: Origin, sequence: u64| {
        let name = names.region(origin.region());
        let mut applied = Applied {
            origin: names.origin(origin),
            incarnation: origin.incarnation(),
            sequence,
            ..Applied::default()
        };
        if origin.region() != own {
            let lag = region.metrics().ops.replication_lag.with_label_values(&[&name]);
            (applied.lag_count, applied.lag_seconds) = (lag.get_sample_count(), lag.get_sample_sum());
        }
        applied.region = name;
        applied
    };
    region.sequencer().applied().iter().map(|dot| of_origin(*dot.actor, dot.counter)).collect()
}

fn log(region: &Region) -> LogStatus {
    let log = region.log();
    LogStatus {
        oldest: log.segments().first().map_or(0, |segment| segment.start.0),
        end: log.written_lsn().0,
        durable: log.durable_lsn().0,
        bytes: log.total_bytes(),
        sync: match region.settings().log.sync {
            LogSync::Always => "always",
            LogSync::Everysec => "everysec",
            LogSync::Never => "never",
        }
        .to_owned(),
    }
}

fn store(region: &Region, disk: Option<Disk>) -> StoreStatus {
    let keyspace = region.keyspace();
    let databases = 0..u8::try_from(DATABASES).unwrap_or(u8::MAX);
    StoreStatus {
        lag_ops: keyspace.dirty_objects(),
        lag_bytes: region.store_lag_bytes(),
        committed: region.committer().committed_lsn().0,
        failed: region.committer().has_failed(),
        disk_bytes: keyspace.store().metrics().disk_bytes,
        disk_available_bytes: disk.map(|disk| disk.available_bytes),
        disk_capacity_bytes: disk.map(|disk| disk.capacity_bytes),
        keys: databases.map(|db| (db, keyspace.len(db))).filter(|(_, keys)| *keys > 0).collect(),
        memory_bytes: keyspace.memory_bytes(),
        memory_max_bytes: region.settings().store.memory_max,
    }
}

fn mismatches(links: &[LinkState]) -> Vec<Mismatch> {
    let of_link = |link: &LinkState| {
        let peer = link.peer.clone();
        link.mismatches.clone().into_iter().map(move |what| Mismatch { peer: peer.clone(), what })
    };
    links.iter().flat_map(of_link).collect()
}

fn conflicts(region: &Region) -> Vec<ConflictCount> {
    let counts = region.metrics().conflicts.by_label().into_iter();
    counts
        .map(|([kind, rule, outcome, policy, facet], count)| ConflictCount {
            kind: kind.into_owned(),
            rule: rule.into_owned(),
            outcome: outcome.into_owned(),
            policy: policy.into_owned(),
            r#type: facet.into_owned(),
            count,
        })
        .collect()
}
