//! The arguments of one command.

use std::fmt;

/// Start and end of an argument in its data.
pub(super) type Span = (u32, u32);

/// The arguments of one command, borrowed from the receive buffer (or, for an inline command, from
/// the parser). The first one is the command's name. Copying it copies two slices.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    data: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    pub(super) fn new(data: &'a [u8], spans: &'a [Span]) -> Self {
        Self { data, spans }
    }

    /// How many arguments there are, the command's name included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        slice(self.data, *self.spans.get(index)?)
    }

    /// The first argument: the command's name, unless this is a tail.
    pub fn first(&self) -> Option<&'a [u8]> {
        self.get(0)
    }

    /// The arguments from `index` on; empty when there are fewer.
    pub fn tail(&self, index: usize) -> Args<'a> {
        Args { data: self.data, spans: self.spans.get(index..).unwrap_or_default() }
    }

    /// The arguments in order.
    pub fn iter(&self) -> Iter<'a> {
        Iter { data: self.data, spans: self.spans.iter() }
    }

    /// The sum of the arguments' lengths.
    pub fn bytes(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    /// Copies the arguments, for example into the queue of a `MULTI`.
    pub fn to_owned(&self) -> OwnedArgs {
        self.iter().collect()
    }
}

/// Prints the count only: arguments may be passwords, values, or megabytes.
impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over [`Args`].
#[derive(Clone)]
pub struct Iter<'a> {
    data: &'a [u8],
    spans: std::slice::Iter<'a, Span>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        slice(self.data, *self.spans.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

fn slice(data: &[u8], (start, end): Span) -> Option<&[u8]> {
    data.get(start as usize..end as usize)
}

/// The arguments of one command in memory of their own: one allocation for the bytes, one for the
/// bounds. At most 4 GiB in total.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    data: Box<[u8]>,
    spans: Box<[Span]>,
}

impl OwnedArgs {
    /// The arguments, borrowed.
    pub fn args(&self) -> Args<'_> {
        Args { data: &self.data, spans: &self.spans }
    }
}

impl fmt::Debug for OwnedArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.args().fmt(f)
    }
}

impl<A: AsRef<[u8]>> FromIterator<A> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = A>>(arguments: I) -> Self {
        let mut data = Vec::new();
        let mut spans = Vec::new();
        for argument in arguments {
            let start = offset(data.len());
            data.extend_from_slice(argument.as_ref());
            spans.push((start, offset(data.len())));
        }
        Self { data: data.into(), spans: spans.into() }
    }
}

/// Positions beyond 4 GiB saturate: such an argument reads as cut short, and nothing panics.
pub(super) fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn slicing_and_iterating() {
        let owned: OwnedArgs = ["SET", "key", "", "value"].into_iter().collect();
        let args = owned.args();
        assert_eq!(args.len(), 4);
        assert_eq!(args.first(), Some(&b"SET"[..]));
        assert_eq!(args.get(2), Some(&b""[..]));
        assert_eq!(args.get(4), None);
        assert_eq!(args.tail(3).iter().collect::<Vec<_>>(), [b"value"]);
        assert_eq!(args.tail(3).len(), 1);
        assert!(args.tail(4).is_empty() && args.tail(99).is_empty());
        assert_eq!(args.bytes(), 11);
        assert_eq!(args.tail(1).to_owned().args().first(), Some(&b"key"[..]));
        assert_eq!(args.into_iter().len(), 4);
        assert_eq!(format!("{args:?} {owned:?}"), "Args { len: 4, .. } Args { len: 4, .. }");
    }
}
