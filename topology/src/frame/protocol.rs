//! Versions of the link protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::batch::{BATCH_VERSION, BatchDecoder, BatchEncoder};
use super::{CONTROL_VERSION, Control, FrameError};

/// The link protocol versions that this program speaks, lowest and highest.
pub const PROTOCOLS: Protocols = Protocols { lowest: 1, highest: 1 };

/// The form of the head of an op stream.
const STREAM_VERSION: u8 = 1;

/// A range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest spoken.
    pub lowest: u16,
    /// The newest spoken.
    pub highest: u16,
}

impl Protocols {
    /// The version to speak with a peer of range `other`: the newest that both know.
    pub fn common(self, other: Protocols) -> Option<Protocol> {
        let version = self.highest.min(other.highest);
        (version >= self.lowest && version >= other.lowest).then_some(Protocol(version))
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(f, "{}", self.lowest)
        } else {
            write!(f, "{} to {}", self.lowest, self.highest)
        }
    }
}

/// What the two sides of a link speak. Every message of a link is written and read through this, so a version
/// that changes a form says so here, and only here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protocol(u16);

impl Protocol {
    /// What the hellos are in, so that every version can read them: they say what follows.
    pub const GREETING: Self = Self(1);

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The protocol of this number, as [`Protocol::number`] gave it.
    pub fn numbered(number: u16) -> Self {
        Self(number)
    }

    /// The first byte of control messages. Since version 1 they are of form 1.
    fn control_form(self) -> u8 {
        CONTROL_VERSION
    }

    /// The first byte of batches. Since version 1 they are of form 1.
    fn batch_form(self) -> u8 {
        BATCH_VERSION
    }

    /// The first byte of an op stream. Since version 1 it is of form 1.
    pub fn stream_form(self) -> u8 {
        STREAM_VERSION
    }

    /// Appends a control message.
    pub fn encode(self, control: &Control, out: &mut Vec<u8>) {
        // There is one form; an older one is chosen here by `control_form`.
        debug_assert_eq!(self.control_form(), CONTROL_VERSION);
        control.encode(out);
    }

    /// Reads a control message, which has to fill `bytes`.
    ///
    /// # Errors
    /// [`FrameError`], also for a message that is good in another version than this.
    pub fn decode(self, bytes: &[u8]) -> Result<Control, FrameError> {
        check_form(bytes, self.control_form())?;
        Control::decode(bytes)
    }

    /// Collects ops for batches.
    pub fn batch_encoder(self) -> BatchEncoder {
        debug_assert_eq!(self.batch_form(), BATCH_VERSION);
        BatchEncoder::default()
    }

    /// Reads the ops of a batch.
    ///
    /// # Errors
    /// [`FrameError`], also for a batch that is good in another version than this.
    pub fn batch(self, bytes: &[u8]) -> Result<BatchDecoder<'_>, FrameError> {
        check_form(bytes, self.batch_form())?;
        BatchDecoder::new(bytes)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn check_form(bytes: &[u8], form: u8) -> Result<(), FrameError> {
    match bytes.first() {
        Some(found) if *found != form => Err(FrameError::UnknownVersion(*found)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn range(lowest: u16, highest: u16) -> Protocols {
        Protocols { lowest, highest }
    }

    #[test]
    fn j5_the_newest_common_version_is_spoken_whoever_asks() {
        for (one, other, common) in [
            (range(1, 1), range(1, 2), Some(1)),
            (range(1, 2), range(1, 2), Some(2)),
            (range(1, 2), range(2, 3), Some(2)),
            (range(1, 5), range(2, 3), Some(3)),
            (range(1, 1), range(2, 3), None),
            // A range that is none has nothing in common with anybody.
            (range(3, 1), range(1, 3), None),
        ] {
            let common = common.map(Protocol);
            assert_eq!((one.common(other), other.common(one)), (common, common), "{one} with {other}");
        }
    }

    #[test]
    fn j5_every_version_reads_the_hello_and_refuses_what_has_another_form() {
        let control = Control::Unsubscribe { id: 7 };
        let mut bytes = Vec::new();
        Protocol::GREETING.encode(&control, &mut bytes);
        for protocol in (PROTOCOLS.lowest..=PROTOCOLS.highest).map(Protocol) {
            assert_eq!(protocol.decode(&bytes), Ok(control.clone()));
        }
        bytes[0] += 1;
        assert_eq!(Protocol::GREETING.decode(&bytes), Err(FrameError::UnknownVersion(CONTROL_VERSION + 1)));
        assert_eq!(Protocol::GREETING.decode(&[]), Err(FrameError::Truncated));
        let batch = [BATCH_VERSION + 1, 0];
        assert_eq!(
            Protocol::GREETING.batch(&batch).err(),
            Some(FrameError::UnknownVersion(BATCH_VERSION + 1))
        );
    }
}
