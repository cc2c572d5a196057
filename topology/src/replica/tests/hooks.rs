//! Answers of hooks go round, and what differs is confined everywhere.

use meridian_conflict::hook::quarantine::{Entry, KEY_BYTES, MAX_ENTRIES, Quarantine, Reason};
use meridian_conflict::hook::question::Subject;

use super::*;
use crate::frame::{ANSWERS_MAX, Answered, Answers};

const HOOK: [u8; 32] = [7; 32];
const NAMES: [&str; 4] = ["ap", "eu", "sa", "us"];

/// Four regions; each has a link with the next one only, the last with the first if it is a ring.
struct Line {
    regions: Vec<Rep>,
    linked: Vec<(usize, usize)>,
    now: MonoMs,
    /// Messages about hooks that were sent.
    sent: usize,
    /// How often each was told to ask its hook.
    asked: [usize; 4],
}

impl Line {
    fn new(is_ring: bool) -> Self {
        let others = |own: &str| NAMES.into_iter().filter(|name| *name != own).collect::<Vec<_>>();
        let mut regions: Vec<Rep> = NAMES.iter().map(|name| replica(name, &others(name))).collect();
        let mut linked = vec![(0, 1), (1, 2), (2, 3)];
        linked.extend(is_ring.then_some((0, 3)));
        for &(a, b) in &linked {
            greet(&mut regions[a], NAMES[b], 1, hello(NAMES[b], 1));
            greet(&mut regions[b], NAMES[a], 1, hello(NAMES[a], 1));
        }
        Self { regions, linked, now: NOW, sent: 0, asked: [0; 4] }
    }

    fn answer(&mut self, at: usize, question: u128, answer: u128) {
        let generation = self.regions[at].quarantine().generation(&HOOK);
        let answered = answered(NAMES[at], question, answer);
        self.regions[at].handle_answer(self.now, WALL, HOOK, generation, answered);
    }

    /// Carries messages about hooks until there are none; regions in `able` ask their hook when they are told to,
    /// and it answers as `says`.
    fn settle(&mut self, able: &[usize], says: impl Fn(usize) -> u128) {
        for _ in 0..20 {
            self.now = self.now.after(250);
            for (at, own) in NAMES.into_iter().enumerate() {
                self.regions[at].handle_timeout(self.now, WALL);
                for effect in drain(&mut self.regions[at]) {
                    match effect {
                        Effect::AskHook(waiting) => {
                            self.asked[at] += 1;
                            if able.contains(&at) {
                                self.answer(at, waiting.answered.question, says(at));
                            }
                        }
                        Effect::Send {
                            peer,
                            control: control @ (Control::Answers(_) | Control::Quarantine(_)),
                            ..
                        } => {
                            self.sent += 1;
                            let to = NAMES.iter().position(|name| id(name) == peer).unwrap();
                            assert!(self.linked.contains(&(at.min(to), at.max(to))));
                            self.regions[to].handle_control(self.now, WALL, id(own), 1, control);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn confined(&self) -> Vec<bool> {
        self.regions.iter().map(|region| region.quarantine().is_confined(&HOOK)).collect()
    }
}

fn answered(region: &str, question: u128, answer: u128) -> Answered {
    Answered {
        region: id(region),
        hops: 0,
        database: 0,
        key: (*b"k").into(),
        subject: Subject::String,
        question,
        answer,
    }
}

#[test]
fn h1_regions_without_a_link_find_that_their_answers_differ() {
    for is_ring in [false, true] {
        for able in [&[0, 1, 2, 3][..], &[]] {
            let mut line = Line::new(is_ring);
            line.answer(0, 5, 1);
            line.answer(3, 5, 2);
            // Those between either agree with one of them or cannot ask at all.
            line.settle(able, |at| if at == 3 { 2 } else { 1 });
            assert_eq!(line.confined(), [true; 4], "ring {is_ring}, able {able:?}");
            let known = line.regions[0].quarantine().clone();
            assert!(line.regions.iter().all(|region| *region.quarantine() == known));
            assert_eq!(known.reason(&HOOK).unwrap().key, (*b"k").into());
            let sent = line.sent;
            line.settle(&[], |_| 0);
            assert_eq!(line.sent, sent, "silence afterwards");
        }
    }
}

#[test]
fn h1_equal_answers_go_round_once_and_confine_nobody() {
    let mut line = Line::new(true);
    line.answer(0, 5, 1);
    line.settle(&[0, 1, 2, 3], |_| 1);
    assert_eq!((line.confined(), line.asked), (vec![false; 4], [0, 1, 1, 1]));
    assert!(line.sent <= 2 * 4, "{} messages over four links", line.sent);
    let sent = line.sent;
    line.answer(0, 5, 1);
    line.answer(2, 5, 1);
    line.settle(&[0, 1, 2, 3], |_| 1);
    assert_eq!(line.sent, sent, "it is known");
    assert!(line.regions[1].answers_compared() > 0);
    // Other values are another question.
    line.answer(1, 6, 2);
    line.settle(&[], |_| 0);
    assert_eq!(line.confined(), [false; 4]);
}

#[test]
fn h1_a_hook_that_contradicts_itself_in_one_region_is_confined() {
    let mut line = Line::new(false);
    line.answer(1, 5, 1);
    line.answer(1, 5, 2);
    line.settle(&[], |_| 0);
    assert_eq!(line.confined(), [true; 4]);
    let of = line.regions[2].quarantine().reason(&HOOK).unwrap().answers;
    assert_eq!(of, [(id("eu"), 1), (id("eu"), 2)]);
}

#[test]
fn h1_a_release_reaches_all_and_what_was_answered_before_it_confines_nobody() {
    let mut line = Line::new(false);
    line.answer(0, 5, 1);
    line.answer(1, 5, 2);
    line.settle(&[], |_| 0);
    let mut known: Quarantine = line.regions[3].quarantine().clone();
    let late = Answers { hook: HOOK, generation: 0, answers: vec![answered("sa", 5, 3)] };
    assert!(known.release(HOOK));
    line.regions[3].handle_quarantine(&known);
    line.settle(&[], |_| 0);
    assert_eq!(line.confined(), [false; 4]);
    line.regions[1].handle_control(line.now, WALL, id("sa"), 1, Control::Answers(late));
    line.settle(&[], |_| 0);
    assert_eq!(line.confined(), [false; 4], "an answer of before the release");
    line.answer(0, 55, 1);
    line.answer(1, 55, 2);
    line.settle(&[], |_| 0);
    assert_eq!(line.confined(), [true; 4]);
    assert_eq!(line.regions[2].quarantine().generation(&HOOK), 3);
}

#[test]
fn h1_an_answer_that_is_forgotten_again_does_not_go_round_for_ever() {
    let mut line = Line::new(true);
    let others = NAMES.len() as u8 - 1;
    line.answer(0, 5, 1);
    for hops in (0..others).rev() {
        let mut passed = None;
        for at in 0..4 {
            line.regions[at].handle_timeout(line.now.after(250), WALL);
            for effect in drain(&mut line.regions[at]) {
                if let Effect::Send { control: Control::Answers(answers), .. } = effect {
                    passed = Some(answers);
                }
            }
        }
        let passed = passed.unwrap();
        assert_eq!(passed.answers[0].hops, hops + 1);
        // To a region that knows nothing, each time.
        line.regions[1] = replica("eu", &["ap", "sa", "us"]);
        greet(&mut line.regions[1], "ap", 1, hello("ap", 1));
        greet(&mut line.regions[1], "sa", 1, hello("sa", 1));
        line.regions[1].handle_control(line.now, WALL, id("ap"), 1, Control::Answers(passed));
    }
    line.regions[1].handle_timeout(line.now.after(250), WALL);
    assert!(
        !drain(&mut line.regions[1])
            .iter()
            .any(|effect| matches!(effect, Effect::Send { control: Control::Answers(_), .. }))
    );
}

#[test]
fn h1_what_was_answered_while_there_was_no_link_is_told_once_there_is_one() {
    let mut eu = replica("eu", &["us"]);
    eu.handle_answer(NOW, WALL, HOOK, 0, answered("eu", 5, 1));
    eu.handle_timeout(NOW.after(300), WALL);
    drain(&mut eu);
    greet(&mut eu, "us", 1, hello("us", 1));
    eu.handle_timeout(NOW.after(300), WALL);
    assert_eq!(sent(&drain(&mut eu), |control| matches!(control, Control::Answers(_))), 1);
}

#[test]
fn h1_a_new_link_tells_of_the_quarantine() {
    let mut line = Line::new(false);
    line.answer(0, 5, 1);
    line.answer(0, 5, 2);
    line.settle(&[], |_| 0);
    let known = line.regions[0].quarantine().clone();
    let mut late = replica("us", &["ap"]);
    late.handle_quarantine(&known);
    assert!(drain(&mut late).contains(&Effect::Notice(Notice::QuarantineHeard)));
    let effects = greet(&mut late, "ap", 1, hello("ap", 1));
    assert_eq!(sent(&effects, |control| matches!(control, Control::Quarantine(_))), 1);
    late.handle_quarantine(&known);
    assert!(drain(&mut late).is_empty(), "no news");
}

#[test]
fn h1_a_full_quarantine_says_so() {
    let reason = |at| Reason::new(at, (0, b"k", &Subject::String), 1, [(id("eu"), 1), (id("us"), 2)]);
    let entry = |n: usize| {
        let mut hook = [1; 32];
        hook[..8].copy_from_slice(&n.to_le_bytes());
        Entry { hook, generation: 1, reason: Some(reason(1)) }
    };
    let mut eu = replica("eu", &["us"]);
    greet(&mut eu, "us", 1, hello("us", 1));
    let tell = |eu: &mut Rep, entries| {
        eu.handle_control(NOW, WALL, id("us"), 1, Control::Quarantine(entries));
        drain(eu)
    };
    let full = |hook| Effect::Notice(Notice::QuarantineFull { hook });
    let effects = tell(&mut eu, (0..MAX_ENTRIES).map(entry).collect());
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Notice(Notice::QuarantineFull { .. }))));
    let more = entry(MAX_ENTRIES);
    assert_eq!(tell(&mut eu, vec![more.clone()]), [full(more.hook)]);
    assert!(tell(&mut eu, vec![entry(0)]).is_empty(), "known already");
    for answer in [1, 2] {
        eu.handle_answer(NOW, WALL, HOOK, 0, answered("eu", 5, answer));
    }
    assert!(drain(&mut eu).contains(&full(HOOK)));
}

#[test]
fn too_much_at_once_closes_the_link_and_strangers_have_no_say() {
    let mut eu = replica("eu", &["us"]);
    greet(&mut eu, "us", 1, hello("us", 1));
    let of = |answers| Control::Answers(Answers { hook: HOOK, generation: 0, answers });
    eu.handle_control(NOW, WALL, id("us"), 1, of(vec![answered("xx", 1, 1), answered("xx", 1, 2)]));
    assert!(drain(&mut eu).is_empty());
    let long = Answered { key: vec![0; KEY_BYTES + 9].into(), ..answered("us", 2, 1) };
    let other = Answered { answer: 2, ..long.clone() };
    eu.handle_control(NOW, WALL, id("us"), 1, of(vec![long, other]));
    assert_eq!(eu.quarantine().reason(&HOOK).unwrap().key.len(), KEY_BYTES);
    let many = of(vec![answered("us", 3, 1); ANSWERS_MAX + 1]);
    drain(&mut eu);
    eu.handle_control(NOW, WALL, id("us"), 1, many);
    assert!(matches!(closed(&drain(&mut eu)), Some(CloseReason::Protocol(_))));
}
