//! Golden files: what is on the wire and on disk does not change by accident.
//!
//! After a change made on purpose: `WRITE_GOLDEN=1 cargo test -p meridian-topology --test formats`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::fmt::Write;
use std::path::PathBuf;

use meridian_conflict::clock::{Dot, Hlc, Origin, RegionId, VersionVector};
use meridian_conflict::hook::quarantine::{Entry, Reason};
use meridian_conflict::hook::question::Subject;
use meridian_conflict::op::Header;
use meridian_topology::entropy::{Answer, Ask, EntropyRefusal, Listed, Place, Range};
use meridian_topology::frame::batch::{BatchDecoder, BatchEncoder};
use meridian_topology::frame::{
    Announced, Answered, Answers, Control, Echo, GoodbyeReason, Heartbeat, Hello, PROTOCOLS, Refusal, Row,
};
use meridian_topology::home::message::{self as homes, Claim, Head, KeptSeat, Line, Told};
use meridian_topology::home::{Appointment, Ballot, Kept, Term, Verdict};
use meridian_topology::seed::{Assembler, Cursor, Record, Request, SEED_VERSION, SeedRefusal, Seeded};
use meridian_topology::sequence::{Position, Sequencer};
use meridian_topology::time::{MonoMs, WallMs};
use serde_bytes::ByteBuf;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

fn check(name: &str, lines: &[(&str, Vec<u8>)]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let found = lines.iter().fold(String::new(), |mut out, (what, bytes)| {
        writeln!(out, "{what} {}", hex(bytes)).unwrap();
        out
    });
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(found, golden, "the format differs from {}", path.display());
}

fn vector() -> VersionVector {
    [Dot::new(origin(1), 300), Dot::new(origin(2), 7)].into_iter().collect()
}

fn origin(region: u32) -> Origin {
    Origin::new(RegionId(region), 5)
}

fn controls() -> Vec<(&'static str, Control)> {
    let hello = Hello {
        protocols: PROTOCOLS,
        cluster: "shop".into(),
        region: "eu".into(),
        origin: origin(1),
        boot: 77,
        topology_digest: 1,
        policy_digest: 2,
        applied: vector(),
        held: VersionVector::new(),
    };
    let heartbeat = Heartbeat {
        sent: MonoMs(1_000),
        wall: WallMs(1_700_000_000_000),
        hlc: Hlc::from_ms(1_700_000_000_001),
        echo: Some(Echo { sent: MonoMs(900), held_ms: 3 }),
        applied: vector(),
        topology_digest: 1,
        policy_digest: 2,
        via: vec![0, 0b11, 1 << 127],
    };
    let row = Row {
        region: RegionId(1),
        origin: origin(1),
        life: 1_699_999_999_000,
        beat: 12,
        hlc: Hlc::from_ms(1_700_000_000_001),
        durable: vector(),
    };
    let regions = [RegionId(1), RegionId(2)].into_iter().collect();
    let answered = |subject| Answered {
        region: RegionId(1),
        hops: 2,
        database: 3,
        key: (*b"key").into(),
        subject,
        question: 1 << 70,
        answer: 5,
    };
    let field = Subject::Field((*b"f").into());
    let answers = [Subject::String, field.clone(), Subject::Hash].map(answered).into();
    let both = [(RegionId(2), 6), (RegionId(1), 5)];
    let reason = Reason::new(1_700_000_000_000, (3, b"key", &field), 1 << 70, both);
    let confined = Entry { hook: [7; 32], generation: 3, reason: Some(reason) };
    let released = Entry { hook: [8; 32], generation: 2, reason: None };
    vec![
        ("hello", Control::Hello(Box::new(hello))),
        ("subscribe", Control::Subscribe { id: 3, regions, from: vector() }),
        ("subscribe_refused", Control::SubscribeRefused { id: 3, reason: Refusal::PastLog }),
        ("unsubscribe", Control::Unsubscribe { id: 3 }),
        ("stability", Control::Stability { rows: vec![row] }),
        ("heartbeat", Control::Heartbeat(heartbeat)),
        ("goodbye", Control::Goodbye { reason: GoodbyeReason::NewIncarnation }),
        (
            "policies",
            Control::Policies(Announced {
                region: RegionId(1),
                told: Hlc::from_ms(1_700_000_000_001),
                table: vec![1, 0, 0],
            }),
        ),
        ("answers", Control::Answers(Answers { hook: [7; 32], generation: 2, answers })),
        ("quarantine", Control::Quarantine(vec![confined, released])),
    ]
}

#[test]
fn control_messages_keep_their_form() {
    let mut lines = Vec::new();
    for (what, control) in controls() {
        let mut bytes = Vec::new();
        control.encode(&mut bytes);
        assert_eq!(Control::decode(&bytes).unwrap(), control);
        lines.push((what, bytes));
    }
    check("control-v1.txt", &lines);
}

#[test]
fn batches_keep_their_form() {
    let op = |region: u32, sequence, ms, deps: &[(u32, u64)]| Header {
        dot: Dot::new(origin(region), sequence),
        hlc: Hlc::from_ms(ms),
        deps: deps.iter().map(|(r, s)| (origin(*r), *s)).collect(),
    };
    let ops = [
        op(1, 300, 1_700_000_000_000, &[]),
        op(1, 301, 1_700_000_000_001, &[(2, 7)]),
        op(2, 8, 1_699_999_999_999, &[(1, 301)]),
    ];
    let mut encoder = BatchEncoder::default();
    for header in &ops {
        encoder.push(header, b"body");
    }
    let mut bytes = Vec::new();
    encoder.finish(&mut bytes);
    let decoded: Vec<Header> = BatchDecoder::new(&bytes).unwrap().map(|op| op.unwrap().header).collect();
    assert_eq!(decoded, ops);
    check("batch-v1.txt", &[("batch", bytes)]);
}

#[test]
fn positions_keep_their_form() {
    let mut writer = Sequencer::recover(origin(1), Position::default());
    let first = writer.local(WallMs(1_700_000_000_000));
    let mut reader = Sequencer::recover(origin(2), Position::default());
    reader.remote(&first).unwrap();
    reader.local(WallMs(1_700_000_000_000));
    check("position-v1.txt", &[("position", reader.position().encode())]);
}

#[test]
fn seeds_keep_their_form() {
    let mut sequencer = Sequencer::recover(origin(1), Position::default());
    sequencer.local(WallMs(1_700_000_000_000));
    let position = sequencer.position();
    let cursor = Cursor { range: 3, database: 2, hash: 3 << 60 };
    let request = Request { resume: Some((vector(), cursor)) };
    assert_eq!(Request::decode(&request.encode()).unwrap(), request);
    let seeded = Seeded::encode(&position);
    assert!(Seeded::is_one(&seeded));
    assert_eq!(Seeded::decode(&seeded).unwrap(), Seeded { position: position.clone() });
    let encoded = position.encode();
    let records = [
        ("head", Record::Head { position: &encoded, from: Cursor::default(), keys: 1_000 }),
        ("object", Record::Object { database: 2, key: b"key", head: b"head" }),
        ("element", Record::Element { facet: 1, element: b"field", record: b"record" }),
        ("passed", Record::Passed { cursor }),
        ("ahead", Record::Ahead { applied: vector() }),
        ("end", Record::End),
        ("refused", Record::Refused { reason: SeedRefusal::StartOver }),
    ];
    let mut lines = vec![("request", request.encode()), ("seeded", seeded)];
    let mut assembler = Assembler::new(1 << 20);
    assembler.push(&[SEED_VERSION]);
    for (what, record) in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).unwrap();
        assembler.push(&bytes);
        assert_eq!(assembler.next_record().unwrap(), Some(record));
        lines.push((what, bytes));
    }
    check("seed-v1.txt", &lines);
}

#[test]
fn comparisons_keep_their_form() {
    let (place, now_ms) = (Place { database: 2, hash: 3 << 60 }, 1_700_000_000_000);
    let key = || ByteBuf::from(b"key".to_vec());
    let asks = [
        ("ranges", Ask::Ranges { from: place, now_ms }),
        ("keys", Ask::Keys { from: place, to: Some(u64::MAX), now_ms }),
        ("settle", Ask::Settle { applied: vector(), now_ms, database: 2, keys: vec![key()] }),
        ("object", Ask::Object { applied: vector(), database: 2, key: key() }),
        ("look", Ask::Look { database: 2, keys: vec![key()] }),
    ];
    let range = Range { until: Place { database: 3, hash: 0 }, keys: 300, digest: u128::MAX };
    let answers = [
        ("ranges_told", Answer::Ranges(vec![range])),
        ("keys_told", Answer::Keys { keys: vec![Listed { key: key(), digest: 300 }], next: Some(300) }),
        ("settled", Answer::Settled { applied: vector(), digests: vec![Some(300), None] }),
        ("rows", Answer::Rows(b"rows".to_vec())),
        ("end", Answer::End { applied: Some(vector()) }),
        ("noted", Answer::Noted),
        ("refused", Answer::Refused(EntropyRefusal::Behind)),
    ];
    let mut lines = Vec::new();
    for (what, ask) in asks {
        assert!(Ask::is_one(&ask.encode()));
        assert_eq!(Ask::decode(&ask.encode()).unwrap(), ask);
        lines.push((what, ask.encode()));
    }
    for (what, answer) in answers {
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        lines.push((what, answer.encode()));
    }
    assert!(Ask::decode(&[0xe5, 2]).unwrap_err().to_string().contains("version 2"));
    assert!(Request::decode(&lines[0].1).is_err(), "told apart from a takeover's request");
    check("entropy-v1.txt", &lines);
}

#[test]
fn what_concerns_homes_keeps_its_form() {
    let term = |number| Term { number, holder: RegionId(7) };
    let appointment = Appointment { term: term(3), after: vector(), released: Some(term(2)) };
    let told = || Told { keys: b"lock:*".to_vec(), appointment: appointment.clone() };
    let words = ["SET", "lock:1", "x"].map(|word| ByteBuf::from(word.as_bytes().to_vec())).to_vec();
    let path = vec![RegionId(1), RegionId(2)];
    let head = Head { to: RegionId(7), path, within_ms: 5_000, bytes: 300 };
    let asks = [
        (
            "run",
            homes::Ask::Run {
                lines: vec![Line { database: 2, words }],
                transaction: true,
                protocol: 3,
                seen: vector(),
            },
        ),
        (
            "claims",
            homes::Ask::Claims {
                digest: 1,
                claims: vec![Claim { told: told(), lease_ms: 9_000 }],
                told: vec![told()],
            },
        ),
        ("vote", homes::Ask::Vote { keys: b"lock:*".to_vec(), number: 4, dry: true }),
        ("move", homes::Ask::Move { keys: b"lock:*".to_vec(), heir: RegionId(7) }),
    ];
    let verdicts = vec![
        Verdict::Confirmed,
        Verdict::Outdone(appointment.clone()),
        Verdict::Promised(term(4)),
        Verdict::Bound { for_ms: 300 },
        Verdict::Learning,
        Verdict::Unknown,
    ];
    let other = homes::Refusal::Other { reason: "home".into(), text: "HOME text".into() };
    let answers = [
        ("ran", homes::Answer::Ran { bytes: 5, wrote: Some(Dot::new(origin(1), 9)), shows: vector() }),
        ("elsewhere", homes::Answer::Elsewhere(vec![told()])),
        ("unreachable", homes::Answer::Refused(homes::Refusal::Unreachable)),
        ("busy", homes::Answer::Refused(homes::Refusal::Busy)),
        ("behind", homes::Answer::Refused(homes::Refusal::Behind)),
        ("other", homes::Answer::Refused(other)),
        ("uncertain", homes::Answer::Uncertain("text".into())),
        ("claims_heard", homes::Answer::Claims { digest: 1, verdicts, told: vec![told()] }),
        ("given", homes::Answer::Ballot(Ballot::Given { applied: vector() })),
        ("outdone", homes::Answer::Ballot(Ballot::Outdone(appointment.clone()))),
        ("promised", homes::Answer::Ballot(Ballot::Promised(term(4)))),
        ("bound", homes::Answer::Ballot(Ballot::Bound { for_ms: 300 })),
        ("learning", homes::Answer::Ballot(Ballot::Learning)),
        ("unknown", homes::Answer::Ballot(Ballot::Unknown)),
        ("moved", homes::Answer::Moved(appointment.clone())),
    ];
    let mut lines = vec![("head", head.encode())];
    assert!(Head::is_one(&head.encode()) && Head::decode(&head.encode()).unwrap() == head);
    for (what, ask) in asks {
        assert_eq!(homes::Ask::decode(&ask.encode()).unwrap(), ask);
        assert_eq!(homes::Ask::is_write(&ask.encode()), what == "run");
        lines.push((what, ask.encode()));
    }
    for (what, answer) in answers {
        assert_eq!(homes::Answer::decode(&answer.encode()).unwrap(), answer);
        lines.push((what, answer.encode()));
    }
    let kept = Kept { appointment, promised: Some(term(4)), settled: true, fresh: false };
    let seats = vec![KeptSeat { keys: b"lock:*".to_vec(), kept }];
    let encoded = homes::encode_seats(&seats);
    assert_eq!(homes::decode_seats(&encoded).unwrap(), seats);
    lines.push(("kept", encoded));
    assert!(Head::decode(&[homes::HOME_TAG, 2]).unwrap_err().to_string().contains("version 2"));
    assert!(
        !Ask::is_one(&lines[0].1) && Request::decode(&lines[0].1).is_err(),
        "told apart from other questions"
    );
    check("homes-v1.txt", &lines);
}
