//! What the file may say: strings and options, nothing resolved.
//!
//! `deny_unknown_fields` and typed fields would stop at the first mistake. To report all of them at
//! once, every field is a [`Field`] that remembers a wrong type, and every table keeps the keys it does
//! not know, which resolving reports: unknown keys are errors all the same.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::error::{ConfigErrors, Problem};

/// The keys of a table that are not in the documentation.
pub(super) type Unknown = BTreeMap<String, toml::Value>;

/// One key of the file.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// It is not there.
    #[default]
    Absent,
    /// It is of another type; says so.
    Wrong(String),
    /// It is there.
    Set(T),
}

impl<T> Field<T> {
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        Ok(match T::deserialize(value) {
            Ok(value) => Self::Set(value),
            Err(error) => Self::Wrong(error.message().to_owned()),
        })
    }
}

impl ConfigFile {
    /// Reads the file form.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigErrors> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            let message = error.message().to_owned();
            ConfigErrors::one(format!("line {line}"), Problem::Syntax { message })
        })
    }
}

/// Declares tables whose fields are all [`Field`]s, beside the keys they do not know.
macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(expecting = "a table")]
        pub(super) struct $table {
            $(#[serde(default)] pub(super) $field: Field<$type>,)*
            #[serde(flatten)]
            pub(super) unknown: Unknown,
        }
    )*
        /// Every table, with its keys and what they are read as: what there is to document.
        #[cfg(test)]
        pub(super) const TABLES: &[(&str, &[(&str, &str)])] =
            &[$((stringify!($table), &[$((stringify!($field), stringify!($type)),)*]),)*];
    };
}

tables! {
    /// The whole file.
    ConfigFile {
        cluster: String,
        region: String,
        data_dir: String,
        listen: ListenFile,
        admin: AdminFile,
        auth: AuthFile,
        tls: TlsFile,
        topology: TopologyFile,
        regions: Vec<Field<RegionFile>>,
        store: StoreFile,
        log: LogFile,
        conflicts: Vec<Field<ConflictFile>>,
        homes: Vec<Field<HomeFile>>,
        inbox: InboxFile,
        clock: ClockFile,
        limits: LimitsFile,
        seed: SeedFile,
        anti_entropy: AntiEntropyFile,
        dev: DevFile,
    }
    /// `[listen]`
    ListenFile { resp: String, link: String, admin: String, }
    /// `[admin]`
    AdminFile { token_file: String, metrics: String, }
    /// `[auth]`
    AuthFile { password_file: String, }
    /// `[tls]`
    TlsFile { ca: String, cert: String, key: String, }
    /// `[topology]`
    TopologyFile {
        shape: String,
        order: Vec<String>,
        hub: String,
        standby_hubs: Vec<String>,
        feeds: Vec<Vec<String>>,
        heal_after: String,
    }
    /// `[[regions]]`
    RegionFile { name: String, address: String, role: String, }
    /// `[store]`
    StoreFile { kind: String, memory_max: String, url: String, position_db: u16, }
    /// `[log]`
    LogFile { sync: String, retention: String, retention_max: String, }
    /// `[[conflicts]]`
    ConflictFile { keys: String, policy: String, hook: String, shadow: ShadowFile, }
    /// `shadow` of `[[conflicts]]`
    ShadowFile { policy: String, hook: String, }
    /// `[[homes]]`
    HomeFile { keys: String, region: String, elsewhere: String, lease: String, timeout: String, }
    /// `[inbox]`
    InboxFile { max: String, retention: String, records_per_second: u32, burst: u32, }
    /// `[clock]`
    ClockFile { max_skew: String, }
    /// `[limits]`
    LimitsFile {
        max_clients: u32,
        proto_max_bulk_len: String,
        client_output_max: String,
        query_buffer_max: String,
        pending_max: String,
        tail_cache: String,
        max_op: String,
    }
    /// `[seed]`
    SeedFile { donor_pace: String, donor_share: u32, stale_reads: bool, }
    /// `[anti_entropy]`
    AntiEntropyFile { enabled: bool, keys_per_second: u32, every: String, }
    /// `[dev]`
    DevFile { faults: bool, }
}
