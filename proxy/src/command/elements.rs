//! What the families of collections share: naming each element once, picking at random, scanning.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use meridian_conflict::glob;
use smallvec::SmallVec;

use super::execute::NAME_MAX;
use super::{CommandError, Context};
use crate::resp::{Args, Reply, fmt};

/// Up to so many names are compared one by one; more are hashed.
const FEW: usize = 8;

/// Collections up to this size are scanned in one go, as Redis does with its compact encodings.
const WHOLE: usize = 128;

/// A cursor's lower bits: the index below which to go on. The upper 16 are the generation.
const INDEX_BITS: u32 = 48;

/// A reply with repeated picks may grow to this. The count of `HRANDFIELD` and `SRANDMEMBER` is only
/// a number that a client sends, and the key stays locked meanwhile.
const PICKS_BYTES_MAX: usize = 128 << 20;

/// The least that a picked element takes in a reply: `$0`, empty, two line ends.
const PICK_BYTES_MIN: u64 = 6;

/// Each argument once, in order of first appearance.
pub fn distinct(args: Args<'_>) -> SmallVec<[&[u8]; FEW]> {
    let mut found: SmallVec<[&[u8]; FEW]> = SmallVec::new();
    if args.len() <= FEW {
        for name in args {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    } else {
        let mut known = HashSet::with_capacity(args.len());
        found.extend(args.iter().filter(|name| known.insert(*name)));
    }
    found
}

/// Arguments as pairs of name and value, each name once: the last value counts. A name without a
/// value is left out.
pub fn distinct_pairs(args: Args<'_>) -> SmallVec<[(&[u8], &[u8]); FEW]> {
    let mut found: SmallVec<[(&[u8], &[u8]); FEW]> = SmallVec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let hashed = args.len() / 2 > FEW;
    let mut words = args.iter();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let known = if hashed {
            let next = found.len();
            let place = *places.entry(name).or_insert(next);
            found.get_mut(place)
        } else {
            found.iter_mut().find(|(known, _)| *known == name)
        };
        match known {
            Some((_, known)) => *known = value,
            None => found.push((name, value)),
        }
    }
    found
}

/// The count argument of a command that picks: negative counts repeat elements.
///
/// # Errors
/// [`CommandError::NotInteger`], or that it is out of range.
pub fn pick_count(text: &[u8]) -> Result<i64, CommandError> {
    match fmt::parse_i64(text).ok_or(CommandError::NotInteger)? {
        i64::MIN => Err(CommandError::Text(
            format!("ERR value is out of range, value must between -{0} and {0}", i64::MAX).into(),
        )),
        count => Ok(count),
    }
}

/// `wanted` different numbers below `total`, at random and in random order; all of them when
/// `wanted` is not less.
pub fn pick_distinct(cx: &mut Context<'_, '_>, total: usize, wanted: usize) -> Vec<usize> {
    if wanted == 1 && total > 0 {
        return vec![cx.random_below(total)];
    }
    if wanted.saturating_mul(3) >= total {
        // Half of a shuffle (Fisher and Yates).
        let wanted = wanted.min(total);
        let mut places: Vec<usize> = (0..total).collect();
        for at in 0..wanted {
            places.swap(at, at + cx.random_below(total - at));
        }
        places.truncate(wanted);
        return places;
    }
    let mut known = HashSet::with_capacity(wanted);
    let mut places = Vec::with_capacity(wanted);
    while places.len() < wanted {
        let place = cx.random_below(total);
        if known.insert(place) {
            places.push(place);
        }
    }
    places
}

/// Bounds a reply of `count` picks with repetition: call it before the first one, then after each,
/// with where the reply began.
///
/// # Errors
/// [`CommandError::Text`]: the reply is too large.
pub fn check_picks(reply: &Reply<'_>, start: usize, count: u64) -> Result<(), CommandError> {
    let bytes = reply.written().saturating_sub(start);
    if bytes > PICKS_BYTES_MAX || count > PICKS_BYTES_MAX as u64 / PICK_BYTES_MIN {
        return Err(CommandError::text("ERR the reply would exceed 128 MiB; ask for fewer elements"));
    }
    Ok(())
}

/// Reads a scan's cursor.
///
/// # Errors
/// `ERR invalid cursor`.
pub fn scan_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    let signed_nothing = digits.is_empty() && !text.is_empty();
    let number = number.filter(|_| !signed_nothing).ok_or(CommandError::text("ERR invalid cursor"))?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// What a scan of elements was asked for.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
}

impl<'a> ScanOptions<'a> {
    /// Reads what follows the cursor.
    ///
    /// # Errors
    /// [`CommandError::Syntax`], [`CommandError::NotInteger`].
    pub fn parse(args: Args<'a>) -> Result<Self, CommandError> {
        let mut options = Self { pattern: None, count: 10 };
        let mut words = args.iter();
        while let Some(option) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if option.eq_ignore_ascii_case(b"count") {
                let count = fmt::parse_i64(value).ok_or(CommandError::NotInteger)?;
                options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if option.eq_ignore_ascii_case(b"match") {
                if value.len() > NAME_MAX {
                    // Matching may take the product of the lengths.
                    return Err(CommandError::text("ERR the pattern is longer than any name can be"));
                }
                options.pattern = Some(value);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether an element is wanted.
    pub fn wants(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, element))
    }

    /// The indices to visit in a table of `length` elements, and the cursor that goes on after them.
    ///
    /// Scans go downwards. A removal moves the table's last element into the hole: to a lower index,
    /// where the scan is still to come unless it has passed both places. So an element that stays is
    /// never missed, though it may be met twice. A cursor of another generation starts over.
    pub fn window(&self, cursor: u64, generation: u16, length: usize) -> (Range<usize>, u64) {
        if length <= WHOLE {
            return (0..length, 0);
        }
        let tag = u64::from(generation) << INDEX_BITS;
        let end = match cursor {
            0 => length,
            _ if cursor >> INDEX_BITS != u64::from(generation) => length,
            _ => usize::try_from(cursor ^ tag).unwrap_or(usize::MAX).min(length),
        };
        let start = end.saturating_sub(self.count);
        (start..end, if start == 0 { 0 } else { tag | start as u64 })
    }
}

/// The reply to a scan of nothing.
pub fn scan_nothing(reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::resp::OwnedArgs;

    #[test]
    fn each_name_once_and_the_last_value_counts() {
        for repeats in [1, 20] {
            let names: OwnedArgs = ["b", "a", "b", "c"].repeat(repeats).into_iter().collect();
            assert_eq!(distinct(names.args()).to_vec(), [b"b", b"a", b"c"]);
            let pairs: OwnedArgs = ["b", "1", "a", "2", "b", "3"].repeat(repeats).into_iter().collect();
            assert_eq!(distinct_pairs(pairs.args()).to_vec(), [(&b"b"[..], &b"3"[..]), (b"a", b"2")]);
        }
    }

    #[test]
    fn windows_cover_a_table_once() {
        let args: OwnedArgs = ["COUNT", "7"].iter().collect();
        let options = ScanOptions::parse(args.args()).unwrap();
        for generation in [0, 1, u16::MAX] {
            let (mut seen, mut cursor) = (vec![0; 1000], 0);
            loop {
                let (window, next) = options.window(cursor, generation, 1000);
                window.for_each(|at| seen[at] += 1);
                cursor = next;
                if next == 0 {
                    break;
                }
            }
            assert!(seen.iter().all(|times| *times == 1));
        }
        let (first, next) = options.window(0, 3, 1000);
        assert_eq!(first, 993..1000);
        assert_eq!(options.window(next, 4, 500), (493..500, (4 << 48) | 493), "another generation");
        assert_eq!(options.window(next, 3, 500).0, 493..500, "the table has shrunk");
        assert_eq!(options.window(next, 3, 128), (0..128, 0), "small enough for one go");
        assert_eq!(options.window(3 << 48, 3, 500), (0..0, 0), "no cursor of ours");
    }
}
