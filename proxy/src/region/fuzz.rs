//! Fuzz targets for what a data directory holds: whatever the bytes, the answer is a value that
//! encodes to what decodes to it, or none. `cargo bolero test region::fuzz::fuzz_record` drives one by coverage.

use meridian_conflict::clock::Origin;
use meridian_conflict::op;
use meridian_topology::sequence::{Position, Sequencer};

use super::committer::Stored;
use super::identity::Identity;
use crate::oplog::{Lsn, Mark};
use crate::sequencer::{AppliedMark, read_record};

/// `whole` with some bytes replaced, so that decoders are reached behind their first check.
fn damaged(whole: &[u8], edits: &[(u16, u8)]) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    for (at, byte) in edits {
        let at = usize::from(*at) % damaged.len();
        damaged[at] = *byte;
    }
    damaged
}

#[test]
fn fuzz_record() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((header, body)) = read_record(bytes) else { return };
        let again = [&postcard::to_stdvec(&header).unwrap(), body].concat();
        assert_eq!(read_record(&again), Some((header.clone(), body)));
        let _ = op::validate(body);
        // Whatever it claims, it follows what was applied or is refused.
        for origin in [Origin(0), header.dot.actor] {
            let mut ops = Sequencer::recover(origin, Position::default());
            let _ = ops.replay(&header);
            let _ = ops.remote(&header);
        }
    });
}

#[test]
fn fuzz_stored_position() {
    let whole = Stored { lsn: Lsn(1 << 40), ..Stored::default() }.encode();
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, edits)| {
        for bytes in [bytes, &damaged(&whole, edits)] {
            let Some(stored) = Stored::decode(bytes) else { continue };
            assert_eq!(Stored::decode(&stored.encode()), Some(stored.clone()));
            Sequencer::recover(Origin(0), stored.position).raise_floor(&stored.floor);
        }
    });
}

#[test]
fn fuzz_applied_mark() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(mark) = AppliedMark::decode(bytes) {
            assert_eq!(AppliedMark::decode(&mark.encode()).unwrap().0, mark.0);
        }
    });
}

#[test]
fn fuzz_identity() {
    let whole = "version = 1\ncluster = \"shop\"\nregion = \"eu\"\nincarnation = 4294967295\n\
                 device = 64768\ninode = 9223372036854775807\n";
    assert!(toml::from_str::<Identity>(whole).is_ok());
    bolero::check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(bytes, edits)| {
        for bytes in [bytes, &damaged(whole.as_bytes(), edits)] {
            let text = String::from_utf8_lossy(bytes);
            let Ok(identity) = toml::from_str::<Identity>(&text) else { continue };
            let again = toml::to_string(&identity).unwrap();
            assert_eq!(toml::from_str::<Identity>(&again).unwrap(), identity);
        }
    });
}
