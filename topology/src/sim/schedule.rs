//! A run written down: everything that happens, one event a line, independent of how seeds are read.
//!
//! ```text
//! seed 17                 chance: delays, what a crash loses
//! regions 4
//! shape NarrowCustom
//! sync Never
//! keys 6
//! delay 26                milliseconds, at most
//! skew 215                milliseconds, at most
//! pending 2000            bytes of held ops, at most
//! lease 8000              milliseconds
//! slow 0 2 300            from, to, milliseconds
//! narrow 0 2 600          from, to, bytes per second
//! absent 3                no member at the beginning
//! at 97 down 1 60         an event, see `Fault`
//! ```
//!
//! What follows `#` is a comment. Options that are left out are those of [`Options::calm`].

use std::fmt;
use std::str::FromStr;

use super::options::{Options, Sync};
use super::random::Random;
use super::{Fault, Shape};

/// A run: `options` without rates, everything that happens in the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Decides delays and what a crash loses.
    pub seed: u64,
    /// All that is fixed.
    pub options: Options,
}

impl Schedule {
    /// What `seed` stands for.
    pub fn of_seed(seed: u64) -> Self {
        Self::new(seed, Options::of_seed(seed))
    }

    /// Chooses what `options` leave to chance.
    pub fn new(seed: u64, options: Options) -> Self {
        Self { seed, options: options.expand(&mut Random::new(seed ^ 0x5c4ed)) }
    }

    /// When all events are over, virtual milliseconds.
    pub(super) fn end(&self) -> u64 {
        self.options.script.iter().map(|(at, fault)| at + fault.lasts().unwrap_or(0)).max().unwrap_or(0)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options } = self;
        writeln!(
            f,
            "seed {seed}\nregions {}\nshape {:?}\nsync {:?}",
            options.regions, options.shape, options.sync
        )?;
        writeln!(f, "keys {}\ndelay {}\nskew {}", options.keys, options.delay_ms, options.skew_ms)?;
        writeln!(f, "pending {}\nlease {}", options.pending_bytes_max, options.lease_ms)?;
        for (from, to, ms) in &options.slow {
            writeln!(f, "slow {from} {to} {ms}")?;
        }
        for (from, to, rate) in &options.narrow {
            writeln!(f, "narrow {from} {to} {rate}")?;
        }
        for node in &options.absent {
            writeln!(f, "absent {node}")?;
        }
        for (at, fault) in &options.script {
            writeln!(f, "at {at} {fault}")?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let options = Options { commands: 0, ..Options::calm(3, Shape::Ring) };
        let mut schedule = Self { seed: 0, options };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                schedule.read(line).ok_or(format!("not a line of a schedule: {line}"))?;
            }
        }
        schedule.check()?;
        Ok(schedule)
    }
}

impl Schedule {
    fn read(&mut self, line: &str) -> Option<()> {
        let (name, rest) = line.split_once(' ')?;
        let options = &mut self.options;
        if name == "at" {
            let (at, fault) = rest.trim().split_once(' ')?;
            options.script.push((at.parse().ok()?, Fault::parse(fault)?));
            return Some(());
        }
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let link = || match numbers.as_slice() {
            [from, to, n] => Some((usize::try_from(*from).ok()?, usize::try_from(*to).ok()?, *n)),
            _ => None,
        };
        let number = numbers.first().copied();
        match name {
            "seed" => self.seed = number?,
            "regions" => options.regions = usize::try_from(number?).ok()?,
            "shape" => options.shape = Shape::parse(rest.trim())?,
            "sync" => options.sync = Sync::parse(rest.trim())?,
            "keys" => options.keys = number?,
            "delay" => options.delay_ms = number?,
            "skew" => options.skew_ms = number?,
            "pending" => options.pending_bytes_max = usize::try_from(number?).ok()?,
            "lease" => options.lease_ms = number?,
            "slow" => options.slow.push(link()?),
            "narrow" => options.narrow.push(link()?),
            "absent" => options.absent.push(usize::try_from(number?).ok()?),
            _ => return None,
        }
        Some(())
    }

    fn check(&self) -> Result<(), String> {
        let regions = self.options.regions;
        if !(3..=16).contains(&regions) {
            return Err(format!("{regions} regions"));
        }
        let links = self.options.slow.iter().chain(&self.options.narrow);
        let named = links.flat_map(|(from, to, _)| [*from, *to]).chain(self.options.absent.iter().copied());
        let in_script = self.options.script.iter().flat_map(|(_, fault)| fault.nodes()).flatten();
        match named.chain(in_script).find(|node| *node >= regions) {
            Some(node) => Err(format!("region {node} of {regions}")),
            None => Ok(()),
        }
    }
}
