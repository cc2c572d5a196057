//! Fuzz targets for every decoder: `cargo bolero test <name>` runs them with an engine; as plain
//! tests they try random inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use meridian_topology::entropy::{Answer, Ask};
use meridian_topology::frame::Control;
use meridian_topology::frame::batch::{BatchDecoder, BatchEncoder};
use meridian_topology::home::message;
use meridian_topology::seed::{Assembler, Request, Seeded};
use meridian_topology::sequence::Position;

#[test]
fn control_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(control) = Control::decode(bytes) {
            let mut again = Vec::new();
            control.encode(&mut again);
            assert_eq!(Control::decode(&again).unwrap(), control);
        }
    });
}

#[test]
fn homes_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for bytes in [bytes.to_vec(), [&[message::HOME_TAG, message::HOME_VERSION], bytes].concat()] {
            if let Ok(head) = message::Head::decode(&bytes) {
                assert_eq!(message::Head::decode(&head.encode()).unwrap(), head);
            }
            if let Ok(ask) = message::Ask::decode(&bytes) {
                assert_eq!(message::Ask::decode(&ask.encode()).unwrap(), ask);
            }
            if let Ok(answer) = message::Answer::decode(&bytes) {
                assert_eq!(message::Answer::decode(&answer.encode()).unwrap(), answer);
            }
        }
        for bytes in [bytes.to_vec(), [&[message::SEATS_VERSION], bytes].concat()] {
            if let Ok(seats) = message::decode_seats(&bytes) {
                assert_eq!(message::decode_seats(&message::encode_seats(&seats)).unwrap(), seats);
            }
        }
    });
}

#[test]
fn batch_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(decoder) = BatchDecoder::new(bytes) else { return };
        let ops: Vec<_> = decoder.map_while(Result::ok).collect();
        let mut encoder = BatchEncoder::default();
        for op in &ops {
            encoder.push(&op.header, op.body);
        }
        let mut again = Vec::new();
        encoder.finish(&mut again);
        let read: Vec<_> = BatchDecoder::new(&again).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, ops);
    });
}

#[test]
fn position_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(position) = Position::decode(bytes) {
            assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        }
    });
}

#[test]
fn seeded_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for record in [bytes.to_vec(), [&[0, 1, 1], bytes].concat()] {
            if let Ok(seeded) = Seeded::decode(&record) {
                assert_eq!(Seeded::decode(&Seeded::encode(&seeded.position)).unwrap(), seeded);
            }
        }
    });
}

#[test]
fn seed_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(request) = Request::decode(bytes) {
            assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
        let mut assembler = Assembler::new(1 << 10);
        assembler.push(&[1]);
        for part in bytes.chunks(7) {
            assembler.push(part);
            loop {
                match assembler.next_record() {
                    Ok(Some(record)) => record.encode(&mut Vec::new()).unwrap(),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    });
}

#[test]
fn entropy_decode() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for message in [bytes.to_vec(), [&[0xe5, 1], bytes].concat()] {
            if let Ok(ask) = Ask::decode(&message) {
                assert_eq!(Ask::decode(&ask.encode()).unwrap(), ask);
            }
            if let Ok(answer) = Answer::decode(&message) {
                assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
            }
        }
    });
}
