//! What happens in a run, and when: faults, changes of the topology, commands of clients.

use std::fmt;

use super::Shape;

/// Something that happens at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A client's command at a region; which one follows from a number.
    Command {
        /// Where.
        node: usize,
        /// The number.
        pick: u64,
    },
    /// Power fails at a region, and any of what was not synced is lost; it is back after some
    /// milliseconds, or never.
    Down {
        /// Which.
        node: usize,
        /// For how long, in milliseconds; for good if `None`.
        ms: Option<u64>,
    },
    /// A region is stopped in good order, and started again.
    Stop {
        /// Which.
        node: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// Somebody copies a region's disk.
    BackUp {
        /// Which.
        node: usize,
    },
    /// Power fails at a region, and the copy of its disk is put back.
    Restore {
        /// Which.
        node: usize,
        /// For how long it is away, in milliseconds.
        ms: u64,
    },
    /// Power fails at a region, and its disk is lost.
    Wipe {
        /// Which.
        node: usize,
        /// For how long it is away, in milliseconds.
        ms: u64,
    },
    /// A region's disk takes no more writes.
    Full {
        /// Which.
        node: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A region drops from its log what its store has.
    Truncate {
        /// Which.
        node: usize,
    },
    /// Nothing passes from one region to another.
    Cut {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// For how long, in milliseconds; for good if `None`.
        ms: Option<u64>,
    },
    /// Packets are lost on the way from one region to another and sent again later; batches of ops come
    /// twice, and out of order.
    Noise {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A connection breaks, with loss of what is on the way; which one follows from a number, among those
    /// that carry a takeover if any does.
    Reset {
        /// The number.
        pick: u64,
    },
    /// A second connection comes up beside one that looks alive.
    Double {
        /// Which of the connections, by a number.
        pick: u64,
    },
    /// A region's wall clock steps.
    Step {
        /// Which.
        node: usize,
        /// By how many milliseconds.
        by: i64,
    },
    /// Some ops at once; how long the last of them takes to all that are alive is reported.
    Write {
        /// Where.
        node: usize,
        /// How many.
        ops: u64,
    },
    /// Notes how many bytes were sent until now.
    Mark,
    /// A region becomes a member, with nothing; one that left before under a new incarnation.
    Join {
        /// Which.
        node: usize,
    },
    /// A region is removed. It is not told, and goes on.
    Leave {
        /// Which.
        node: usize,
    },
    /// A region that gives its state to another is lost in the middle of that, if there is one and none was
    /// lost so before. Which one and how follow from a number; see [`Fault::loses`].
    LoseDonor {
        /// The number.
        pick: u64,
    },
    /// Another shape is put in force.
    Reshape {
        /// Which.
        shape: Shape,
    },
}

impl Fault {
    /// The regions it is about.
    pub fn nodes(&self) -> [Option<usize>; 2] {
        match *self {
            Self::Command { node, .. }
            | Self::Down { node, .. }
            | Self::Stop { node, .. }
            | Self::BackUp { node }
            | Self::Restore { node, .. }
            | Self::Wipe { node, .. }
            | Self::Full { node, .. }
            | Self::Truncate { node }
            | Self::Step { node, .. }
            | Self::Write { node, .. }
            | Self::Join { node }
            | Self::Leave { node } => [Some(node), None],
            Self::Cut { from, to, .. } | Self::Noise { from, to, .. } => [Some(from), Some(to)],
            Self::Reset { .. }
            | Self::Double { .. }
            | Self::LoseDonor { .. }
            | Self::Mark
            | Self::Reshape { .. } => [None, None],
        }
    }

    /// How the number of [`Fault::LoseDonor`] has `node` lost.
    pub(super) fn loses(pick: u64, node: usize) -> Self {
        match pick % 3 {
            0 => Self::Leave { node },
            1 => Self::Wipe { node, ms: 1 + pick % 800 },
            _ => Self::Down { node, ms: None },
        }
    }

    /// Whether it changes the topology.
    pub(super) fn is_change(&self) -> bool {
        match *self {
            Self::LoseDonor { pick } => Self::loses(pick, 0).is_change(),
            _ => matches!(self, Self::Join { .. } | Self::Leave { .. } | Self::Reshape { .. }),
        }
    }

    /// How long it lasts, in milliseconds, if it ends at all.
    pub(super) fn lasts(&self) -> Option<u64> {
        match *self {
            Self::Down { ms, .. } | Self::Cut { ms, .. } => ms,
            Self::LoseDonor { pick } => Self::loses(pick, 0).lasts(),
            Self::Stop { ms, .. }
            | Self::Restore { ms, .. }
            | Self::Wipe { ms, .. }
            | Self::Full { ms, .. }
            | Self::Noise { ms, .. } => Some(ms),
            _ => Some(0),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let name = words.next()?;
        if name == "reshape" {
            return Shape::parse(words.next()?).map(|shape| Self::Reshape { shape });
        }
        let numbers = words.map(str::parse).collect::<Result<Vec<i128>, _>>().ok()?;
        let number = |at: usize| numbers.get(at).and_then(|n| u64::try_from(*n).ok());
        let place = |at: usize| number(at).and_then(|n| usize::try_from(n).ok());
        let node = place(0);
        Some(match name {
            "command" => Self::Command { node: node?, pick: number(1)? },
            "down" => Self::Down { node: node?, ms: number(1) },
            "stop" => Self::Stop { node: node?, ms: number(1)? },
            "backup" => Self::BackUp { node: node? },
            "restore" => Self::Restore { node: node?, ms: number(1)? },
            "wipe" => Self::Wipe { node: node?, ms: number(1)? },
            "full" => Self::Full { node: node?, ms: number(1)? },
            "truncate" => Self::Truncate { node: node? },
            "cut" => Self::Cut { from: node?, to: place(1)?, ms: number(2) },
            "noise" => Self::Noise { from: node?, to: place(1)?, ms: number(2)? },
            "reset" => Self::Reset { pick: number(0)? },
            "double" => Self::Double { pick: number(0)? },
            "step" => Self::Step { node: node?, by: i64::try_from(*numbers.get(1)?).ok()? },
            "write" => Self::Write { node: node?, ops: number(1)? },
            "mark" => Self::Mark,
            "join" => Self::Join { node: node? },
            "leave" => Self::Leave { node: node? },
            "losedonor" => Self::LoseDonor { pick: number(0)? },
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { node, pick } => write!(f, "command {node} {pick}"),
            Self::Down { node, ms: Some(ms) } => write!(f, "down {node} {ms}"),
            Self::Down { node, ms: None } => write!(f, "down {node}"),
            Self::Stop { node, ms } => write!(f, "stop {node} {ms}"),
            Self::BackUp { node } => write!(f, "backup {node}"),
            Self::Restore { node, ms } => write!(f, "restore {node} {ms}"),
            Self::Wipe { node, ms } => write!(f, "wipe {node} {ms}"),
            Self::Full { node, ms } => write!(f, "full {node} {ms}"),
            Self::Truncate { node } => write!(f, "truncate {node}"),
            Self::Cut { from, to, ms: Some(ms) } => write!(f, "cut {from} {to} {ms}"),
            Self::Cut { from, to, ms: None } => write!(f, "cut {from} {to}"),
            Self::Noise { from, to, ms } => write!(f, "noise {from} {to} {ms}"),
            Self::Reset { pick } => write!(f, "reset {pick}"),
            Self::Double { pick } => write!(f, "double {pick}"),
            Self::Step { node, by } => write!(f, "step {node} {by}"),
            Self::Write { node, ops } => write!(f, "write {node} {ops}"),
            Self::Mark => write!(f, "mark"),
            Self::Join { node } => write!(f, "join {node}"),
            Self::Leave { node } => write!(f, "leave {node}"),
            Self::LoseDonor { pick } => write!(f, "losedonor {pick}"),
            Self::Reshape { shape } => write!(f, "reshape {shape:?}"),
        }
    }
}
