//! `LCS`: the longest common subsequence, by the textbook's table.

use super::super::{CommandError, Context, Outcome};
use super::words;
use crate::resp::{Args, Reply, fmt};

/// What to reply.
#[derive(Debug, Default)]
struct Options {
    length: bool,
    ranges: bool,
    range_lengths: bool,
    shortest: u64,
}

impl Options {
    fn read(args: Args<'_>) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let named = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if named("len") {
                options.length = true;
            } else if named("idx") {
                options.ranges = true;
            } else if named("withmatchlen") {
                options.range_lengths = true;
            } else if named("minmatchlen") {
                let number = fmt::parse_i64(words.next().ok_or(CommandError::Syntax)?);
                options.shortest = u64::try_from(number.ok_or(CommandError::NotInteger)?).unwrap_or(0);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if options.length && options.ranges {
            return Err(CommandError::text(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

/// Lengths of the longest common subsequences of all prefixes.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn of(a: &[u8], b: &[u8], limit: u64) -> Result<Self, CommandError> {
        let width = b.len() + 1;
        let bytes = (a.len() as u64 + 1).saturating_mul(width as u64).saturating_mul(4);
        if bytes > limit {
            return Err(CommandError::text(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut cells = vec![0u32; (a.len() + 1) * width];
        let mut rows = cells.chunks_exact_mut(width);
        let mut above = rows.next().unwrap_or_default();
        for (x, row) in a.iter().zip(rows) {
            let mut left = 0;
            for ((y, cell), up) in b.iter().zip(row.iter_mut().skip(1)).zip(above.windows(2)) {
                if let [diagonal, up] = up {
                    left = if x == y { diagonal + 1 } else { left.max(*up) };
                }
                *cell = left;
            }
            above = row;
        }
        Ok(Self { cells, width })
    }

    /// For the first `i` bytes of one and the first `j` of the other.
    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells.get(i * self.width + j).copied().unwrap_or(0)
    }
}

/// A run of bytes that both have: where it starts in each, and how long it is.
#[derive(Clone, Copy, Debug)]
struct Run {
    a: usize,
    b: usize,
    length: usize,
}

/// Walks the table back from its end: the common subsequence, and its runs, last first.
fn trace(a: &[u8], b: &[u8], table: &Table) -> (Vec<u8>, Vec<Run>) {
    let (mut common, mut runs) = (Vec::new(), Vec::new());
    let mut open: Option<Run> = None;
    let (mut i, mut j) = (a.len(), b.len());
    while let (Some(up), Some(left)) = (i.checked_sub(1), j.checked_sub(1)) {
        match (a.get(up), b.get(left)) {
            (Some(x), Some(y)) if x == y => {
                common.push(*x);
                let length = open.map_or(0, |run| run.length) + 1;
                open = Some(Run { a: up, b: left, length });
                (i, j) = (up, left);
            }
            _ => {
                runs.extend(open.take());
                if table.at(up, j) > table.at(i, left) { i = up } else { j = left }
            }
        }
    }
    runs.extend(open);
    common.reverse();
    (common, runs)
}

/// `LCS key key [LEN] [IDX] [MINMATCHLEN n] [WITHMATCHLEN]`.
pub(super) fn lcs(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let [key_a, key_b] = words(args);
    let no_string = |_| CommandError::text("ERR The specified keys must contain string values");
    let a = cx.string(key_a).map_err(no_string)?.unwrap_or_default();
    let b = cx.string(key_b).map_err(no_string)?.unwrap_or_default();
    let options = Options::read(args.tail(3))?;
    let table = Table::of(&a, &b, cx.region().settings().limits.proto_max_bulk_len)?;
    let length = i64::from(table.at(a.len(), b.len()));
    if options.length {
        reply.int(length);
        return Ok(());
    }
    let (common, mut runs) = trace(&a, &b, &table);
    if !options.ranges {
        reply.bulk(&common);
        return Ok(());
    }
    runs.retain(|run| run.length as u64 >= options.shortest);
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(runs.len());
    for run in runs {
        reply.array(2 + usize::from(options.range_lengths));
        for start in [run.a, run.b] {
            reply.array(2);
            reply.int(start as i64);
            reply.int((start + run.length - 1) as i64);
        }
        if options.range_lengths {
            reply.int(run.length as i64);
        }
    }
    reply.bulk(b"len");
    reply.int(length);
    Ok(())
}
