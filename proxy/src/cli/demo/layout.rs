//! Who is where in a demo: names, ports and configurations, worked out from the arguments alone.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::DemoTopology;
use crate::cli::exit::UsageError;

/// The most regions of a demo: each has its own threads, log and store on this machine.
pub const REGIONS_MAX: i64 = 16;

/// From a region's port for clients to the one for links.
const LINK_OFFSET: u16 = 1000;

/// From a region's port for clients to the one for operators.
const ADMIN_OFFSET: u16 = 3000;

/// Names of the first regions; the others are called by their number.
const NAMES: [&str; 3] = ["eu", "us", "ap"];

/// The regions of a demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    topology: DemoTopology,
    members: Vec<Member>,
}

/// A region of a demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it serves Redis clients.
    pub resp: SocketAddr,
    /// Where it listens for other regions, UDP.
    pub link: SocketAddr,
    /// Where it serves HTTP.
    pub admin: SocketAddr,
}

impl Layout {
    /// Places `regions` regions from `base_port` on.
    ///
    /// # Errors
    /// When the ports do not reach.
    pub fn new(topology: DemoTopology, regions: u16, base_port: u16) -> Result<Self, UsageError> {
        let highest = base_port.checked_add(ADMIN_OFFSET).and_then(|port| port.checked_add(regions));
        if highest.is_none() {
            let most = u16::MAX - ADMIN_OFFSET - regions;
            return Err(UsageError(format!("--base-port {base_port} is too high: at most {most}")));
        }
        let member = |at: u16| {
            let port = base_port + at;
            let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let name = NAMES.get(usize::from(at)).map_or_else(|| format!("r{}", at + 1), |n| (*n).to_owned());
            Member {
                name,
                resp: local(port),
                link: local(port + LINK_OFFSET),
                admin: local(port + ADMIN_OFFSET),
            }
        };
        Ok(Self { topology, members: (0..regions).map(member).collect() })
    }

    /// The regions, in order.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The configuration of a region, as a file would have it. Paths relative to the current directory.
    pub fn configuration(&self, member: &Member, tls: &Path, data: &Path) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_configuration(member, tls, data, &mut text);
        text
    }

    fn write_configuration(
        &self,
        member: &Member,
        tls: &Path,
        data: &Path,
        out: &mut String,
    ) -> std::fmt::Result {
        let name = &member.name;
        writeln!(out, "cluster = \"demo\"\nregion = \"{name}\"\ndata_dir = {}", quoted(&data.join(name)))?;
        writeln!(out, "[listen]")?;
        writeln!(
            out,
            "resp = \"{}\"\nlink = \"{}\"\nadmin = \"{}\"",
            member.resp, member.link, member.admin
        )?;
        writeln!(out, "[tls]\nca = {}", quoted(&tls.join("ca.pem")))?;
        writeln!(out, "cert = {}", quoted(&tls.join(format!("{name}.pem"))))?;
        writeln!(out, "key = {}", quoted(&tls.join(format!("{name}.key"))))?;
        writeln!(out, "[log]\nsync = \"everysec\"")?;
        writeln!(out, "[store]\nmemory_max = \"256MiB\"")?;
        writeln!(out, "[topology]\n{}", self.topology())?;
        for member in &self.members {
            writeln!(out, "[[regions]]\nname = \"{}\"\naddress = \"{}\"", member.name, member.link)?;
        }
        Ok(())
    }

    fn topology(&self) -> String {
        let names: Vec<String> = self.members.iter().map(|member| format!("\"{}\"", member.name)).collect();
        match (self.topology, names.as_slice()) {
            (DemoTopology::Ring, _) => format!("shape = \"ring\"\norder = [{}]", names.join(", ")),
            (DemoTopology::Star, [hub, ..]) => format!("shape = \"star\"\nhub = {hub}"),
            (DemoTopology::Star, []) | (DemoTopology::Mesh, _) => "shape = \"mesh\"".to_owned(),
        }
    }

    /// What to tell before the links are up.
    pub fn introduction(&self, data: Option<&Path>) -> String {
        let mut text = String::new();
        let _ = self.write_introduction(data, &mut text);
        text
    }

    fn write_introduction(&self, data: Option<&Path>, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{:<8}{:<24}{:<24}http", "region", "redis", "links (udp)")?;
        for member in &self.members {
            let (resp, link) = (member.resp.to_string(), member.link.to_string());
            writeln!(out, "{:<8}{resp:<24}{link:<24}http://{}", member.name, member.admin)?;
        }
        let (Some(first), Some(last)) = (self.members.first(), self.members.last()) else { return Ok(()) };
        writeln!(out, "\ntry")?;
        writeln!(out, "  redis-cli -p {} SET greeting hello", first.resp.port())?;
        writeln!(out, "  redis-cli -p {} GET greeting", last.resp.port())?;
        writeln!(out, "  meridian status --admin http://{}", first.admin)?;
        writeln!(out, "  curl http://{}/metrics", last.admin)?;
        match data {
            Some(data) => writeln!(out, "\ndata stays in {}; Ctrl-C ends the demo", data.display()),
            None => writeln!(out, "\nCtrl-C ends the demo and removes its data"),
        }
    }
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::config::{FileChecks, Settings};

    fn settings(topology: DemoTopology, regions: u16) -> Vec<Settings> {
        let layout = Layout::new(topology, regions, 6381).unwrap();
        let here = Path::new("/nonexistent");
        let parse = |member| {
            let text = layout.configuration(member, Path::new("/a \"b\"/tls"), Path::new("data"));
            Settings::parse(&text, here, FileChecks::Skip).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
        };
        layout.members().map(parse).collect()
    }

    #[test]
    fn ports_follow_the_promise() {
        let layout = Layout::new(DemoTopology::Ring, 5, 6381).unwrap();
        let names: Vec<&str> = layout.members().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["eu", "us", "ap", "r4", "r5"]);
        let last = layout.members().last().unwrap();
        assert_eq!((last.resp.port(), last.link.port(), last.admin.port()), (6385, 7385, 9385));
    }

    #[test]
    fn every_layout_is_a_valid_configuration() {
        for topology in [DemoTopology::Ring, DemoTopology::Star, DemoTopology::Mesh] {
            for regions in 1..=u16::try_from(REGIONS_MAX).unwrap() {
                let all = settings(topology, regions);
                let digests: Vec<u64> = all.iter().map(|s| s.topology.graph.digest()).collect();
                assert!(digests.iter().all(|digest| *digest == digests[0]));
                assert_eq!(all.len(), usize::from(regions));
            }
        }
        let star = settings(DemoTopology::Star, 3);
        assert_eq!(star[2].tls.as_ref().unwrap().key, Path::new("/a \"b\"/tls/ap.key"));
        assert_eq!(star[1].data_dir, Path::new("/nonexistent/data/us"));
    }

    #[test]
    fn the_highest_base_port() {
        assert!(Layout::new(DemoTopology::Ring, 16, 62_519).is_ok());
        let error = Layout::new(DemoTopology::Ring, 16, 62_520).unwrap_err().to_string();
        assert_eq!(error, "--base-port 62520 is too high: at most 62519");
    }
}
