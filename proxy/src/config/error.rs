//! What can be wrong with a configuration.

use std::fmt;
use std::net::SocketAddr;

use meridian_topology::graph::{NameError, TopologyError};

use super::units::UnitError;

/// One thing that is wrong, and the key it is wrong with. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key as written in the documentation, such as `log.sync` or `regions[1].address`; for what
    /// concerns the whole file its path or line.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not TOML.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    #[error("unknown key")]
    UnknownKey,
    /// The key has a value of another type.
    #[error("{message}")]
    WrongType {
        /// What was found and what was expected.
        message: String,
    },
    /// The key must be set.
    #[error("missing")]
    Missing,
    /// The value is none of the possible ones.
    #[error("\"{value}\" is not one of {}", allowed.join(", "))]
    NotOneOf {
        /// The value.
        value: String,
        /// The possible values.
        allowed: &'static [&'static str],
    },
    /// The value is not a name.
    #[error("\"{name}\": {error}")]
    Name {
        /// The value.
        name: String,
        /// The rule it breaks.
        error: NameError,
    },
    /// The value is not a size or duration.
    #[error("\"{value}\": {error}")]
    Unit {
        /// The value.
        value: String,
        /// What is wrong with it.
        error: UnitError,
    },
    /// The value is outside its bounds.
    #[error("{value} is not between {least} and {most}")]
    OutOfBounds {
        /// The value.
        value: String,
        /// The least that is accepted.
        least: String,
        /// The most that is accepted.
        most: String,
    },
    /// The value leaves too little room beside another one.
    #[error("{value} is too small: {other} needs at least {least}")]
    TooSmallFor {
        /// The value.
        value: String,
        /// The other key.
        other: &'static str,
        /// The least that is accepted.
        least: String,
    },
    /// The value is not an address to listen on.
    #[error("\"{value}\" is not an IP address and port, such as 127.0.0.1:6380")]
    ListenAddress {
        /// The value.
        value: String,
    },
    /// The value is not an address to connect to.
    #[error("\"{value}\" is not a host and port, such as 10.0.0.1:7380 or eu.example.com:7380")]
    PeerAddress {
        /// The value.
        value: String,
    },
    /// Two keys that must differ have the same value.
    #[error("\"{value}\" is used by {other} too")]
    SameAs {
        /// The value.
        value: String,
        /// The other key.
        other: String,
    },
    /// The value must not be empty.
    #[error("must not be empty")]
    Empty,
    /// The value is too long.
    #[error("has {bytes} bytes, more than the {most} accepted")]
    TooLong {
        /// The length found.
        bytes: usize,
        /// The longest that is accepted.
        most: usize,
    },
    /// There are too many of them.
    #[error("{count} are more than the {most} accepted")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The most that are accepted.
        most: usize,
    },
    /// The hook cannot be used.
    #[error("{path}: the hook {reason}; built in are max, min, longest, concat-unique-lines, json-merge")]
    Hook {
        /// The path after resolving.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An element of `feeds` is not a pair.
    #[error("a feed is [from, to], this one has {count} regions")]
    NotAPair {
        /// The length of the element.
        count: usize,
    },
    /// The key means nothing here.
    #[error("only used with {with}")]
    OnlyWith {
        /// The setting that gives it a meaning.
        with: &'static str,
    },
    /// This region is not one of the cluster's.
    #[error("\"{region}\" is not in [[regions]]")]
    NotARegion {
        /// The name of this region.
        region: String,
    },
    /// The home of keys is a region that takes no writes.
    #[error("\"{region}\" is a follower: it cannot be the home of keys")]
    FollowerHome {
        /// The region.
        region: String,
    },
    /// Two regions could not be told apart in ops.
    #[error("\"{name}\" and \"{other}\" happen to have the same number inside of ops: rename one of them")]
    SameNumber {
        /// The name.
        name: String,
        /// The name before it.
        other: String,
    },
    /// Nobody could ever write.
    #[error("no region is a leader")]
    NoLeader,
    /// The topology was refused.
    #[error("{0}")]
    Topology(TopologyError),
    /// Regions cannot talk to each other without certificates.
    #[error(
        "missing: links between regions are always mutual TLS; set ca, cert and key (see `meridian cert`)"
    )]
    TlsRequired,
    /// Protected mode: anybody on the network could read and write.
    #[error(
        "{address} can be reached from other machines and no password is set: \
         set [auth] password_file, or listen on 127.0.0.1"
    )]
    Exposed {
        /// Where RESP would be served.
        address: SocketAddr,
    },
    /// The admin port is open to other machines while the fault knobs are on.
    #[error("whoever reaches listen.admin at {address} could cut this region off; listen on 127.0.0.1")]
    OpenFaults {
        /// Where the admin port would be served.
        address: SocketAddr,
    },
    /// `/metrics` would ask for a token that nobody can have.
    #[error("\"token\" needs a token: set admin.token_file")]
    NeedsToken,
    /// The file at this path cannot be used.
    #[error("{path}: {problem}")]
    PathUnusable {
        /// The path after resolving.
        path: String,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The configuration file itself cannot be used.
    #[error(transparent)]
    File(#[from] FileProblem),
    /// The key, or this value of it, is planned and not built.
    #[error("{} is not available in this version", shown(value))]
    NotBuilt {
        /// The value that is refused; none if the whole key is.
        value: Option<String>,
    },
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// The operating system refuses.
    #[error("cannot be read: {message}")]
    Unreadable {
        /// The reason given.
        message: String,
    },
    /// It is a directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// It is too large to be what it should be.
    #[error("is larger than {most} bytes")]
    TooLarge {
        /// The most that is read.
        most: u64,
    },
    /// It is not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// It holds a secret that every user of this machine can read or change.
    #[error("is open to every user (mode {mode:04o}): chmod o-rw")]
    OpenToAll {
        /// The permission bits.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// What it holds cannot be sent as a token.
    #[error("is not one line of visible ASCII characters without spaces")]
    NotAToken,
}

fn shown(value: &Option<String>) -> String {
    value.as_ref().map_or_else(|| "this key".to_owned(), |value| format!("\"{value}\""))
}

/// Everything that is wrong with a configuration: at least one thing. Displays one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn one(key: String, problem: Problem) -> Self {
        Self(vec![ConfigError { key, problem }])
    }

    /// Fails if there is any error.
    pub(super) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors, roughly in the order of the documentation.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
