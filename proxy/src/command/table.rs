//! The table of commands: names, arities, flags, where the keys are, who handles them.

use smallvec::SmallVec;

use super::{Handler, hash, keys, meridian, server, set, sorted_set, string};
use crate::resp::Args;

/// What a command is, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// May change data.
    pub const WRITE: Self = Self(1);
    /// Reads data.
    pub const READONLY: Self = Self(2);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(4);
    /// Administrative.
    pub const ADMIN: Self = Self(8);
    /// May be called before `AUTH`.
    pub const NO_AUTH: Self = Self(16);
    /// Not inside `MULTI`.
    pub const NO_MULTI: Self = Self(32);
    /// Its handler belongs to the session (connection state, transactions).
    pub const SESSION: Self = Self(64);
    /// Reads the whole keyspace or the conflict inbox: the session runs it in pieces, except inside `MULTI`.
    pub const WALK: Self = Self(128);
    /// Refused when memory or disk is short.
    pub const DENY_OOM: Self = Self(256);
    /// Looking at the key this way does not count as using it.
    pub const NO_TOUCH: Self = Self(512);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The families that metrics count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Connections, transactions, server.
    Server,
    /// Any type: `DEL`, `EXPIRE`, `SCAN`.
    Keys,
    /// Strings and counters.
    String,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// `MERIDIAN.*`.
    Meridian,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 7] = [
        Family::Server,
        Family::Keys,
        Family::String,
        Family::Hash,
        Family::Set,
        Family::SortedSet,
        Family::Meridian,
    ];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Family::Server => "server",
            Family::Keys => "keys",
            Family::String => "string",
            Family::Hash => "hash",
            Family::Set => "set",
            Family::SortedSet => "zset",
            Family::Meridian => "meridian",
        }
    }
}

/// Where a command's keys are among its arguments (the name is argument 0).
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// It has none.
    None,
    /// From `first` to `last` (negative: from the end) in steps of `step`.
    Range {
        /// Index of the first key.
        first: usize,
        /// Index of the last key; -1 is the last argument.
        last: i32,
        /// Distance of keys.
        step: usize,
    },
    /// A count at `count`, then so many keys; and one more key at `target`, if not 0.
    Counted {
        /// Index of the count.
        count: usize,
        /// Index of a key before the count, 0 for none.
        target: usize,
    },
    /// Keys of more than the selected database: the function names them all with their databases.
    Elsewhere(fn(Args<'_>, u8) -> PlacedKeys<'_>),
    /// Every key there is: everything is locked.
    All,
}

/// One key at index 1: most commands.
pub const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };

/// Keys at indices 1 and 2.
pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };

/// All arguments are keys.
pub const REST: Keys = Keys::Range { first: 1, last: -1, step: 1 };

/// Arguments found as keys.
pub type KeyArgs<'a> = SmallVec<[&'a [u8]; 4]>;

/// Arguments found as keys, each with its database.
pub type PlacedKeys<'a> = SmallVec<[(u8, &'a [u8]); 2]>;

impl Keys {
    /// The keys among `args`. For counts that make no sense there are none: the handler complains.
    pub fn of<'a>(self, args: Args<'a>) -> KeyArgs<'a> {
        match self {
            Keys::None | Keys::All => KeyArgs::new(),
            Keys::Elsewhere(find) => find(args, 0).into_iter().map(|(_, key)| key).collect(),
            Keys::Range { first, last, step } => {
                let end = match usize::try_from(last) {
                    Ok(last) => last.saturating_add(1).min(args.len()),
                    Err(_) => args.len().saturating_sub(last.unsigned_abs() as usize - 1),
                };
                (first..end).step_by(step.max(1)).filter_map(|at| args.get(at)).collect()
            }
            Keys::Counted { count, target } => {
                let number = args.get(count).and_then(crate::resp::fmt::parse_i64);
                let number = number.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let mut keys: KeyArgs<'a> = KeyArgs::new();
                if target > 0 {
                    keys.extend(args.get(target));
                }
                let available = args.len().saturating_sub(count + 1);
                keys.extend(args.tail(count + 1).iter().take(number.min(available)));
                keys
            }
        }
    }
}

/// A command's entry.
#[derive(Clone, Copy)]
pub struct Command {
    /// The name in lower case.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    pub arity: i32,
    /// What it is.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// What metrics count it under.
    pub family: Family,
    /// Who runs it. Of a session command the session does.
    pub handler: Handler,
}

impl Command {
    /// Whether `count` arguments, the name included, are acceptable.
    pub fn accepts(&self, count: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= wanted } else { count == wanted }
    }
}

/// The longest name there is, for a buffer on the stack.
const NAME_MAX: usize = 32;

/// Every table of commands.
fn tables() -> [&'static [Command]; 7] {
    [
        string::COMMANDS,
        keys::COMMANDS,
        hash::COMMANDS,
        set::COMMANDS,
        sorted_set::COMMANDS,
        server::COMMANDS,
        meridian::COMMANDS,
    ]
}

/// All commands, family by family.
pub fn all() -> impl Iterator<Item = &'static Command> {
    tables().into_iter().flatten()
}

/// Commands sorted by name, built once: what the table says, never changed.
static BY_NAME: std::sync::LazyLock<Vec<&'static Command>> = std::sync::LazyLock::new(|| {
    let mut commands: Vec<&'static Command> = all().collect();
    commands.sort_by_key(|command| command.name);
    commands
});

/// The command called `name`, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_MAX {
        return None;
    }
    let mut lower = [0u8; NAME_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let by_name = &*BY_NAME;
    let at = by_name.binary_search_by(|command| command.name.as_bytes().cmp(lower)).ok()?;
    by_name.get(at).copied()
}
