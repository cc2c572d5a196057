//! What the regions of a test cluster are configured as.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use meridian_proxy::cert;
use meridian_proxy::link::relay::Conditions;

/// Names of regions; the ones with smaller names dial.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How regions are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each is fed by the one before it.
    Ring,
    /// The first is the hub.
    Star,
    /// All with all.
    Mesh,
}

/// A cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its shape.
    pub shape: Shape,
    /// How many regions, at most five.
    pub regions: usize,
    /// `log.sync`.
    pub sync: &'static str,
    /// Of every link, both ways.
    pub conditions: Conditions,
    /// `log.retention`.
    pub retention: &'static str,
    /// `topology.heal_after`.
    pub heal_after: &'static str,
    /// More of the configuration, after its last table.
    pub extra: String,
    /// A shell script that ends in `exec \"$@\"`, to start the processes in; `$LOG` is where the op log is.
    pub launcher: Option<&'static str>,
    /// Whether clocks can be moved and calls be broken.
    pub shim: bool,
}

impl Options {
    /// A cluster on perfect links, every write durable before it is answered.
    pub fn new(shape: Shape, regions: usize) -> Self {
        Self {
            shape,
            regions,
            sync: "always",
            conditions: Conditions::default(),
            retention: "24h",
            heal_after: "3s",
            extra: String::new(),
            launcher: None,
            shim: false,
        }
    }
}

/// Where a region listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Applications.
    pub resp: SocketAddr,
    /// Links.
    pub link: SocketAddr,
    /// Operators.
    pub admin: SocketAddr,
}

/// Makes a new authority and the identities of `count` regions in `directory`.
pub fn certificates(directory: &Path, count: usize) {
    cert::create_ca(directory).unwrap();
    for name in &NAMES[..count] {
        cert::create_region(name, directory, directory, &[], cert::REGION_VALIDITY).unwrap();
    }
}

/// The configuration of region `own`, which reaches its peers at `address_of`.
pub fn text(
    options: &Options,
    own: usize,
    addresses: &[Addresses],
    data: &Path,
    address_of: impl Fn(usize) -> SocketAddr,
) -> String {
    let name = NAMES[own];
    let Addresses { resp, link, admin } = addresses[own];
    let names = &NAMES[..options.regions];
    let topology = match options.shape {
        Shape::Ring => format!("shape = \"ring\"\norder = {names:?}"),
        Shape::Star => format!("shape = \"star\"\nhub = {:?}", NAMES[0]),
        Shape::Mesh => "shape = \"mesh\"".to_owned(),
    };
    let Options { sync, retention, heal_after, extra, .. } = options;
    let mut text = format!(
        "cluster = \"test\"\nregion = \"{name}\"\ndata_dir = {data:?}\n\
         [listen]\nresp = \"{resp}\"\nlink = \"{link}\"\nadmin = \"{admin}\"\n\
         [log]\nsync = \"{sync}\"\nretention = \"{retention}\"\n\
         [tls]\nca = \"ca.pem\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n\
         [topology]\n{topology}\nheal_after = \"{heal_after}\"\n"
    );
    for (i, name) in names.iter().enumerate() {
        let address = if i == own { link } else { address_of(i) };
        write!(text, "[[regions]]\nname = \"{name}\"\naddress = \"{address}\"\n").unwrap();
    }
    text + extra
}
