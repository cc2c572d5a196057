//! What a test needs to speak to a region as another region would.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use meridian_conflict::clock::{Origin, RegionId};
use meridian_proxy::cert;
use meridian_proxy::link::endpoint::{AllowedRegions, Endpoint};
use meridian_proxy::link::limits::TransportLimits;
use meridian_topology::frame::{Control, Hello, PROTOCOLS, Protocols};

/// The life that a region played by a test is in.
pub const INCARNATION: u32 = 7;

/// An endpoint that dials region a with the identity of `name` in `files`.
pub fn endpoint(files: &Path, name: &str) -> Endpoint {
    let file = |ending: &str| files.join(format!("{name}.{ending}"));
    let identity = cert::load_identity(&files.join("ca.pem"), &file("pem"), &file("key")).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Endpoint::bind(any, &identity, AllowedRegions::new(["a"]), TransportLimits::default()).unwrap()
}

/// The first frame of a region that has nothing.
pub fn hello(cluster: &str, region: &str) -> Vec<u8> {
    hello_speaking(PROTOCOLS, cluster, region)
}

/// The first frame of a region that has nothing and speaks these versions.
pub fn hello_speaking(protocols: Protocols, cluster: &str, region: &str) -> Vec<u8> {
    let hello = Hello {
        protocols,
        cluster: cluster.into(),
        region: region.into(),
        origin: Origin::new(RegionId::of(region), INCARNATION),
        boot: 1,
        topology_digest: 0,
        policy_digest: 0,
        applied: Default::default(),
        held: Default::default(),
    };
    let mut out = Vec::new();
    Control::Hello(Box::new(hello)).encode(&mut out);
    out
}
