//! What the rest of the program sees of the configuration. Every value has been checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use meridian_conflict::hook::builtin::Kind as BuiltInKind;
use meridian_topology::graph::{Graph, RegionName};
use meridian_topology::shape::Shape;

/// The settings of one region. Paths are resolved against the directory of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name of the cluster; follows the rule for region names, as it is part of a DNS name too.
    pub cluster: String,
    /// The name of this region, a key of `regions`.
    pub region: RegionName,
    /// Where this region keeps its data.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listen: Listen,
    /// What operators must prove.
    pub admin: Admin,
    /// What clients must prove; nothing if none.
    pub auth: Option<Auth>,
    /// The identity on links; always there if there is more than one region.
    pub tls: Option<Tls>,
    /// How the regions are joined.
    pub topology: Topology,
    /// Every region of the cluster, this one among them.
    pub regions: BTreeMap<RegionName, Region>,
    /// Where objects live.
    pub store: Store,
    /// The op log.
    pub log: Log,
    /// Which policy a key has: the first rule that matches, `crdt` where none does.
    pub conflicts: Vec<ConflictRule>,
    /// Where keys are written: the first rule that matches, anywhere where none does.
    pub homes: Vec<HomeRule>,
    /// Conflicts that are kept.
    pub inbox: Inbox,
    /// How far clocks may differ.
    pub clock: Clock,
    /// What clients and peers may make this region hold in memory.
    pub limits: Limits,
    /// Taking over and giving away a region's whole state.
    pub seed: Seed,
    /// How this region compares itself with others.
    pub anti_entropy: AntiEntropy,
    /// What is only for rehearsals.
    pub dev: Dev,
}

/// `[listen]`: loopback unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Applications, RESP over TCP.
    pub resp: SocketAddr,
    /// Other regions, QUIC over UDP.
    pub link: SocketAddr,
    /// Operators, HTTP.
    pub admin: SocketAddr,
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// Where the bearer token is read from whenever it is needed; without one, only `listen.admin` on loopback
    /// changes and shows data.
    pub token_file: Option<PathBuf>,
    /// What `/metrics` asks for.
    pub metrics: MetricsAccess,
}

/// What `/metrics` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Nothing.
    #[default]
    Open,
    /// The token.
    Token,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Where the password is read from whenever a client says one.
    pub password_file: PathBuf,
    /// What it held when the configuration was read.
    pub password: Secret,
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends it to a request.
    pub fn write_to(&self, request: &mut Vec<u8>) {
        request.extend_from_slice(&self.0);
    }

    /// Whether `guess` is the secret, in a time that depends on the length of `guess` only.
    pub fn matches(&self, guess: &[u8]) -> bool {
        let mut difference = self.0.len() ^ guess.len();
        for (at, byte) in guess.iter().enumerate() {
            let own = self.0.get(at).copied().unwrap_or(0);
            difference |= usize::from(std::hint::black_box(own ^ byte));
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `[tls]`: PEM files, looked at when serving starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The cluster's own authority.
    pub ca: PathBuf,
    /// This region's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[topology]`
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// The shape as written.
    pub shape: Shape,
    /// The feeds it stands for.
    pub graph: Graph,
    /// Silence after which a neighbour is reported as silent.
    pub heal_after: Duration,
}

/// One of `[[regions]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// `host:port` as this region reaches it. Names are resolved anew at each dial.
    pub address: String,
    /// Whether it accepts client writes.
    pub role: Role,
}

/// What a region does with client writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts them.
    Leader,
    /// Applies the others' ops and refuses client writes.
    Follower,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Who serves reads.
    pub kind: StoreKind,
    /// Bytes of hot objects kept in memory.
    pub memory_max: u64,
}

/// Who serves reads.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// The proxy, from its own store.
    Embedded,
    /// The Redis that the proxy projects into.
    Redis {
        /// `redis://`, `rediss://` or `unix://`; may hold a password, hence not shown by `Debug`.
        url: String,
        /// The database of the one bookkeeping key.
        position_db: u16,
    },
}

impl fmt::Debug for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("Embedded"),
            Self::Redis { position_db, .. } => write!(f, "Redis {{ url: .., position_db: {position_db} }}"),
        }
    }
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// When a write is safe on disk.
    pub sync: LogSync,
    /// How long segments are kept for absent regions.
    pub retention: Duration,
    /// How many bytes of segments are kept at most.
    pub retention_max: u64,
}

/// When the log is flushed to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// Before the reply.
    Always,
    /// Once a second.
    Everysec,
    /// When the operating system likes.
    Never,
}

/// One of `[[conflicts]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRule {
    /// The keys it is for, a pattern as of `KEYS`.
    pub keys: String,
    /// How their conflicts are settled.
    pub policy: Policy,
    /// A policy that is tried on them, without effect.
    pub shadow: Option<Policy>,
}

/// How conflicts are settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By type.
    Crdt,
    /// The whole key is one register.
    Lww,
    /// Concurrent values are kept.
    MultiValue,
    /// Concurrent values are kept and shown through a hook.
    Hook(Hook),
}

/// A merge hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// One that needs no file.
    BuiltIn(BuiltInKind),
    /// A module.
    File(PathBuf),
}

/// One of `[[homes]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeRule {
    /// The keys it is for, a pattern as of `KEYS`.
    pub keys: String,
    /// Their first home.
    pub region: RegionName,
    /// What becomes of a write in another region.
    pub elsewhere: Elsewhere,
    /// How long the home may grant writes without hearing from the others.
    pub lease: Duration,
    /// How long a write that is forwarded may take.
    pub timeout: Duration,
}

/// What becomes of a write that is not made at its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// It is sent there.
    Forward,
    /// It is refused.
    Refuse,
    /// It is made all the same, and counted.
    Accept,
}

impl Elsewhere {
    /// What the configuration says.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Refuse => "refuse",
            Self::Accept => "accept",
        }
    }
}

/// `[inbox]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// How many bytes of records are kept at most.
    pub max: u64,
    /// How long records are kept.
    pub retention: Duration,
    /// How many conflicts a second are recorded in the long run; all are counted.
    pub records_per_second: u32,
    /// How many are at once.
    pub burst: u32,
}

/// `[clock]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// How far ahead a peer's stamp may be before its link is held.
    pub max_skew: Duration,
}

/// `[limits]`: bytes unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once.
    pub max_clients: u32,
    /// The longest argument of a command.
    pub proto_max_bulk_len: u64,
    /// Replies waiting for one client, which is closed beyond.
    pub client_output_max: u64,
    /// Input waiting to be a whole command, of one client, which is closed beyond.
    pub query_buffer_max: u64,
    /// Ops received and not yet deliverable.
    pub pending_max: u64,
    /// The newest part of the log kept in memory for links.
    pub tail_cache: u64,
    /// The largest encoded op, local or received.
    pub max_op: u64,
}

/// `[seed]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Bytes a second that this region gives at most, before they are packed.
    pub donor_pace: u64,
    /// The most of its time that giving spends reading the store, in percent.
    pub donor_share: u32,
    /// Whether clients may read while another region's state is taken over: what they see is no state that
    /// ever was. They are told `-LOADING` otherwise.
    pub stale_reads: bool,
}

impl Default for Seed {
    fn default() -> Self {
        Self { donor_pace: 64 << 20, donor_share: 50, stale_reads: false }
    }
}

/// `[anti_entropy]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AntiEntropy {
    /// Whether this region compares what it shows with its neighbours by itself. Their questions are
    /// answered in any case.
    pub enabled: bool,
    /// Keys compared a second, at most.
    pub keys_per_second: u32,
    /// How often everything is compared although nothing was written.
    pub every: Duration,
}

impl Default for AntiEntropy {
    fn default() -> Self {
        Self { enabled: true, keys_per_second: 2_000, every: Duration::from_secs(3600) }
    }
}

/// `[dev]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dev {
    /// Whether `POST /faults` is served.
    pub faults: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            max: 64 << 20,
            retention: Duration::from_secs(7 * 86_400),
            records_per_second: 500,
            burst: 5_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            proto_max_bulk_len: 8 << 20,
            client_output_max: 32 << 20,
            query_buffer_max: 16 << 20,
            pending_max: 64 << 20,
            tail_cache: 16 << 20,
            max_op: 16 << 20,
        }
    }
}

impl Settings {
    /// What this region does with client writes.
    pub fn role(&self) -> Role {
        self.regions.get(&self.region).map_or(Role::Leader, |region| region.role)
    }

    /// Every other region.
    pub fn peers(&self) -> impl Iterator<Item = &Region> {
        self.regions.values().filter(|region| region.name != self.region)
    }
}
