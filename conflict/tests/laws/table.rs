//! The table "By type" of the conflict semantics, row by row, each in both delivery orders, and
//! the failures that concern this crate.

use std::collections::{BTreeMap, BTreeSet};

use meridian_conflict::amount::Amount;
use meridian_conflict::clock::{Dot, Hlc, Seen, Stamp, VersionVector};
use meridian_conflict::crdt::Score;
use meridian_conflict::edit::{Editor, NewDeadline};
use meridian_conflict::object::{Applying, Object};
use meridian_conflict::op::{Effect, Facet};
use meridian_conflict::outcome::{Conflict, Kind, Outcome, Rule, Winner, conflict_id};

use crate::harness::{Command, Replica, Travelling, key, origin};

/// One op of a scene.
enum Do {
    /// On key 0, at a wall time.
    Edit(u64, fn(&mut Editor<'_, '_>)),
    /// By the harness, at wall time 1.
    Run(u8, Command),
}

use Do::{Edit, Run};

fn write(replica: &mut Replica, work: &Do) -> Travelling {
    let op = match work {
        Edit(wall_ms, edit) => {
            replica.write_with(*wall_ms, |r, stamp, out| r.edit(stamp, *wall_ms, &key(0), out, edit))
        }
        Run(k, command) => replica.write(1, &[(*k, command.clone())]),
    };
    op.expect("the command changes something")
}

/// Two regions that started equal, wrote unseen by each other and then heard of each other.
struct Scene {
    a: Replica,
    b: Replica,
    /// Conflicts met at A and at B.
    at_a: Vec<Conflict>,
    at_b: Vec<Conflict>,
}

fn deliver(replica: &mut Replica, ops: &[Travelling]) -> Vec<Conflict> {
    ops.iter()
        .flat_map(|op| {
            assert!(replica.can_apply(op));
            replica.apply(0, op).conflicts
        })
        .collect()
}

fn ids(conflicts: &[Conflict]) -> BTreeSet<u128> {
    conflicts.iter().map(|c| conflict_id(&c.rival.dot, &c.arrived.dot, 0, b"k", &c.element)).collect()
}

fn scene(setup: &[Do], at_a: &[Do], at_b: &[Do]) -> Scene {
    let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(Replica::new);
    let first: Vec<_> = setup.iter().map(|work| write(&mut a, work)).collect();
    for replica in [&mut b, &mut c, &mut d] {
        assert!(deliver(replica, &first).is_empty());
    }
    let from_a: Vec<_> = at_a.iter().map(|work| write(&mut a, work)).collect();
    let from_b: Vec<_> = at_b.iter().map(|work| write(&mut b, work)).collect();
    let met_a = deliver(&mut a, &from_b);
    let met_b = deliver(&mut b, &from_a);
    // Bystanders in both orders see what the writer of the first would.
    assert!(deliver(&mut c, &from_a).is_empty());
    assert_eq!(deliver(&mut c, &from_b), met_a);
    assert!(deliver(&mut d, &from_b).is_empty());
    assert_eq!(deliver(&mut d, &from_a), met_b);
    for other in [&b, &c, &d] {
        assert_eq!(a.data, other.data);
        assert_eq!(a.digest(0), other.digest(0));
    }
    // A survivor of a removal is noticed where it stood; all else on both sides under one id.
    let mutual = |met: &[Conflict]| {
        let of_both = met.iter().filter(|c| !matches!(c.kind, Kind::WriteDelete | Kind::ClearWrite));
        ids(&of_both.cloned().collect::<Vec<_>>())
    };
    assert_eq!(mutual(&met_a), mutual(&met_b));
    Scene { a, b, at_a: met_a, at_b: met_b }
}

impl Scene {
    fn object(&self) -> Object {
        self.a.data.get(&key(0)).cloned().unwrap_or_default()
    }

    fn string(&self) -> Option<String> {
        text(&self.a, 0)
    }

    fn fields(&self) -> BTreeMap<String, String> {
        let object = self.object();
        let fields = object.hash().into_iter().flat_map(|h| h.fields());
        fields.filter_map(|(f, s)| Some((utf8(f), utf8(&s.shown()?)))).collect()
    }

    fn members(&self) -> Vec<String> {
        let object = self.object();
        let mut members: Vec<_> =
            object.set().into_iter().flat_map(|s| s.members().keys()).map(|m| utf8(m)).collect();
        members.sort();
        members
    }

    fn scores(&self) -> Vec<(String, f64)> {
        let object = self.object();
        let sorted = object.sorted_set().into_iter().flat_map(|z| z.range(0..usize::MAX));
        sorted.map(|(score, member)| (utf8(member), score.get())).collect()
    }

    fn no_conflict(&self) {
        assert_eq!((self.at_a.as_slice(), self.at_b.as_slice()), (&[][..], &[][..]));
    }

    /// One conflict on either side, won by B's write, which is the later.
    fn b_wins(&self, kind: Kind, element: &[u8]) {
        for (met, winner) in [(&self.at_a, Winner::Remote), (&self.at_b, Winner::Local)] {
            assert_eq!(met.len(), 1, "{met:?}");
            assert_eq!((met[0].kind, met[0].rule, met[0].winner), (kind, Rule::Lww, winner));
            assert_eq!(&*met[0].element, element);
        }
    }

    /// B's write survives A's removal, and is noticed at B.
    fn b_survives(&self, kind: Kind, element: &[u8]) {
        assert!(self.at_a.is_empty(), "{:?}", self.at_a);
        assert_eq!(self.at_b.len(), 1, "{:?}", self.at_b);
        let met = &self.at_b[0];
        assert_eq!((met.kind, met.rule, met.winner), (kind, Rule::Crdt, Winner::Merged));
        assert_eq!(&*met.element, element);
    }
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn text(replica: &Replica, k: u8) -> Option<String> {
    replica.data.get(&key(k)).and_then(|o| o.string()).and_then(|s| s.shown()).map(|v| utf8(&v))
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect()
}

fn amount(text: &str) -> Amount {
    Amount::parse(text.as_bytes()).unwrap()
}

fn score(value: f64) -> Score {
    Score::new(value).unwrap()
}

const KEEP: NewDeadline = NewDeadline::Keep;

#[test]
fn set_then_set_that_saw_it() {
    let scene = scene(&[Edit(1, |e| e.assign(b"a", KEEP))], &[], &[Edit(2, |e| e.assign(b"b", KEEP))]);
    assert_eq!(scene.string().unwrap(), "b");
    scene.no_conflict();
}

#[test]
fn set_beside_set() {
    let scene = scene(&[], &[Edit(1, |e| e.assign(b"a", KEEP))], &[Edit(2, |e| e.assign(b"b", KEEP))]);
    assert_eq!(scene.string().unwrap(), "b");
    scene.b_wins(Kind::WriteWrite, b"");
}

#[test]
fn set_beside_set_of_the_same_value() {
    let scene = scene(&[], &[Edit(1, |e| e.assign(b"a", KEEP))], &[Edit(2, |e| e.assign(b"a", KEEP))]);
    assert_eq!(scene.string().unwrap(), "a");
    scene.no_conflict();
}

#[test]
fn incrby_beside_incrby() {
    let scene = scene(&[], &[Edit(1, |e| e.add(&amount("7")))], &[Edit(2, |e| e.add(&amount("3")))]);
    assert_eq!(scene.string().unwrap(), "10");
    scene.no_conflict();
}

#[test]
fn del_beside_incr() {
    for setup in [Edit(1, |e| e.assign(b"10", KEEP)), Edit(1, |e| e.add(&amount("10")))] {
        let scene = scene(&[setup], &[Edit(2, |e| e.clear())], &[Edit(3, |e| e.add(&amount("1")))]);
        assert_eq!(scene.string().unwrap(), "1");
        scene.b_survives(Kind::WriteDelete, b"");
    }
}

#[test]
fn set_beside_incr_adds() {
    let scene = scene(
        &[Edit(1, |e| e.add(&amount("10")))],
        &[Edit(2, |e| e.assign(b"100", KEEP))],
        &[Edit(3, |e| e.add(&amount("1")))],
    );
    assert_eq!(scene.string().unwrap(), "101");
    scene.no_conflict();
}

#[test]
fn set_of_text_beside_incr() {
    let scene = scene(&[], &[Edit(1, |e| e.assign(b"text", KEEP))], &[Edit(2, |e| e.add(&amount("1")))]);
    assert_eq!(scene.string().unwrap(), "text");
    assert_eq!((scene.at_a.len(), scene.at_b.len()), (1, 1));
    assert_eq!(scene.at_a[0].kind, Kind::WriteWrite);
}

#[test]
fn append_beside_append() {
    let scene = scene(
        &[Edit(1, |e| e.assign(b"k", KEEP))],
        &[Edit(2, |e| e.assign(b"kx", KEEP))],
        &[Edit(3, |e| e.assign(b"ky", KEEP))],
    );
    assert_eq!(scene.string().unwrap(), "ky");
    scene.b_wins(Kind::WriteWrite, b"");
}

#[test]
fn incrbyfloat_is_an_exact_sum() {
    let scene = scene(
        &[Edit(1, |e| e.add(&amount("0.1")))],
        &[Edit(2, |e| e.add(&amount("0.2"))), Edit(3, |e| e.add(&amount("1e-9")))],
        &[Edit(2, |e| e.add(&amount("0.3"))), Edit(3, |e| e.add(&amount("-0.6")))],
    );
    assert_eq!(scene.string().unwrap(), "0.000000001");
    scene.no_conflict();
}

#[test]
fn hset_of_two_fields() {
    let scene =
        scene(&[], &[Edit(1, |e| e.field_assign(b"f1", b"a"))], &[Edit(2, |e| e.field_assign(b"f2", b"b"))]);
    assert_eq!(scene.fields(), fields(&[("f1", "a"), ("f2", "b")]));
    scene.no_conflict();
}

#[test]
fn hset_beside_hset_of_one_field() {
    let scene =
        scene(&[], &[Edit(1, |e| e.field_assign(b"f", b"x"))], &[Edit(2, |e| e.field_assign(b"f", b"y"))]);
    assert_eq!(scene.fields(), fields(&[("f", "y")]));
    scene.b_wins(Kind::Field, b"f");
}

#[test]
fn hdel_beside_hset() {
    let scene = scene(
        &[Edit(1, |e| e.field_assign(b"f", b"x"))],
        &[Edit(3, |e| e.field_remove(b"f"))],
        &[Edit(2, |e| e.field_assign(b"f", b"y"))],
    );
    assert_eq!(scene.fields(), fields(&[("f", "y")]));
    scene.b_survives(Kind::WriteDelete, b"f");
}

#[test]
fn del_beside_hset_of_a_new_field() {
    let scene = scene(
        &[Edit(1, |e| e.field_assign(b"old", b"x"))],
        &[Edit(3, |e| e.clear())],
        &[Edit(2, |e| e.field_assign(b"new", b"v"))],
    );
    assert_eq!(scene.fields(), fields(&[("new", "v")]));
    scene.b_survives(Kind::WriteDelete, b"");
}

#[test]
fn hincrby_beside_hincrby() {
    let scene = scene(
        &[],
        &[Edit(1, |e| e.field_add(b"f", &amount("2")))],
        &[Edit(1, |e| e.field_add(b"f", &amount("3")))],
    );
    assert_eq!(scene.fields(), fields(&[("f", "5")]));
    scene.no_conflict();
}

#[test]
fn srem_beside_sadd() {
    let scene = scene(
        &[Edit(1, |e| e.member_add(b"a")), Edit(1, |e| e.member_add(b"b")), Edit(1, |e| e.member_add(b"c"))],
        &[Edit(3, |e| e.member_remove(b"a")), Edit(3, |e| e.member_remove(b"c"))],
        &[Edit(2, |e| e.member_add(b"c"))],
    );
    assert_eq!(scene.members(), ["b", "c"]);
    scene.b_survives(Kind::WriteDelete, b"c");
}

#[test]
fn srem_beside_sadd_of_the_only_member() {
    let scene = scene(
        &[Edit(1, |e| e.member_add(b"a"))],
        &[Edit(3, |e| e.member_remove(b"a"))],
        &[Edit(2, |e| e.member_add(b"a"))],
    );
    assert_eq!(scene.members(), ["a"]);
}

#[test]
fn spop_beside_spop() {
    // What travels of SPOP is the removal.
    let pop = || Edit(2, |e| e.member_remove(b"a"));
    let scene = scene(&[Edit(1, |e| e.member_add(b"a"))], &[pop()], &[pop()]);
    assert!(scene.object().is_vacant());
    scene.no_conflict();
}

#[test]
fn zadd_beside_zadd() {
    let scene = scene(
        &[],
        &[Edit(1, |e| e.score_assign(b"x", score(1.0)))],
        &[Edit(2, |e| e.score_assign(b"x", score(2.0)))],
    );
    assert_eq!(scene.scores(), [("x".to_owned(), 2.0)]);
    scene.b_wins(Kind::Field, b"x");
}

#[test]
fn zincrby_beside_zincrby() {
    let by_one = || Edit(2, |e| e.score_add(b"x", &amount("1")));
    let scene = scene(&[Edit(1, |e| e.score_assign(b"x", score(1.0)))], &[by_one()], &[by_one()]);
    assert_eq!(scene.scores(), [("x".to_owned(), 3.0)]);
    scene.no_conflict();
}

#[test]
fn zrem_beside_zincrby() {
    let scene = scene(
        &[Edit(1, |e| e.score_assign(b"x", score(4.1)))],
        &[Edit(3, |e| e.score_remove(b"x"))],
        &[Edit(2, |e| e.score_add(b"x", &amount("2")))],
    );
    assert_eq!(scene.scores(), [("x".to_owned(), 2.0)]);
    scene.b_survives(Kind::WriteDelete, b"x");
}

#[test]
fn expire_beside_expire() {
    let scene = scene(
        &[Edit(1, |e| e.assign(b"v", KEEP))],
        &[Edit(3, |e| e.deadline(NewDeadline::At(10)))],
        &[Edit(2, |e| e.deadline(NewDeadline::At(50)))],
    );
    assert_eq!(scene.object().deadline_ms(), Some(50));
    scene.no_conflict();
}

#[test]
fn expire_beside_persist() {
    let scene = scene(
        &[Edit(1, |e| e.assign(b"v", KEEP)), Edit(1, |e| e.deadline(NewDeadline::At(5)))],
        &[Edit(3, |e| e.deadline(NewDeadline::At(10)))],
        &[Edit(2, |e| e.persist())],
    );
    assert_eq!(scene.object().deadline_ms(), None);
    scene.no_conflict();
}

#[test]
fn expire_beside_del() {
    let scene = scene(
        &[Edit(1, |e| e.assign(b"v", KEEP))],
        &[Edit(3, |e| e.clear())],
        &[Edit(2, |e| e.deadline(NewDeadline::At(10)))],
    );
    assert!(!scene.object().is_visible(0));
    scene.no_conflict();
    // What is written next does not inherit the deadline left over.
    let mut a = scene.a;
    write(&mut a, &Edit(4, |e| e.member_add(b"m")));
    assert_eq!(a.data[&key(0)].deadline_ms(), None);
}

#[test]
fn a_kept_deadline_is_said_again() {
    let scene = scene(
        &[Edit(1, |e| e.assign(b"1", KEEP)), Edit(1, |e| e.deadline(NewDeadline::At(50)))],
        &[Edit(2, |e| e.clear())],
        &[Edit(2, |e| e.add(&amount("1")))],
    );
    assert_eq!((scene.string().unwrap().as_str(), scene.object().deadline_ms()), ("1", Some(50)));
}

#[test]
fn flushdb_beside_set() {
    let scene = scene(
        &[Run(0, Command::SetNumber { value: 1 }), Run(2, Command::IncrBy { amount: 4 })],
        &[Run(0, Command::Flush)],
        &[Edit(2, |e| e.assign(b"new", KEEP))],
    );
    assert_eq!(scene.string().unwrap(), "new");
    assert_eq!(text(&scene.a, 2), None);
    scene.b_survives(Kind::ClearWrite, b"");
}

#[test]
fn flushdb_beside_an_increment() {
    let scene = scene(
        &[Run(0, Command::IncrBy { amount: 4 })],
        &[Run(2, Command::Flush)],
        &[Run(0, Command::IncrBy { amount: 3 })],
    );
    assert_eq!(scene.string().unwrap(), "3");
    scene.b_survives(Kind::ClearWrite, b"");
}

#[test]
fn rename_beside_a_write() {
    let scene = scene(
        &[Edit(1, |e| e.field_assign(b"f", b"x")), Edit(1, |e| e.field_assign(b"g", b"y"))],
        &[Run(0, Command::Rename { to: 2 })],
        &[Edit(2, |e| e.field_assign(b"f", b"z"))],
    );
    assert_eq!(scene.fields(), fields(&[("f", "z")]));
    let moved = scene.a.data[&key(2)].hash().unwrap();
    assert_eq!((moved.len(), utf8(&moved.field(b"f").unwrap().shown().unwrap())), (2, "x".to_owned()));
    scene.b_survives(Kind::WriteDelete, b"");
}

#[test]
fn types_do_not_destroy_each_other() {
    let mut scene = scene(
        &[],
        &[Edit(1, |e| e.assign(b"text", KEEP))],
        &[Edit(2, |e| {
            e.member_add(b"m1");
            e.member_add(b"m2");
        })],
    );
    scene.b_wins(Kind::TypeClash, b"");
    assert_eq!(scene.object().facet(), Some(Facet::Set));
    assert!(scene.object().has_visible(Facet::String));
    // The next write that has seen both removes the hidden one.
    let op = write(&mut scene.b, &Edit(3, |e| e.member_add(b"m3")));
    assert!(deliver(&mut scene.a, &[op]).is_empty());
    assert_eq!(scene.a.data, scene.b.data);
    assert!(!scene.object().has_visible(Facet::String));
    assert_eq!(scene.members(), ["m1", "m2", "m3"]);
}

#[test]
fn set_beside_an_older_collection_write_hides_it() {
    let scene = scene(
        &[Edit(1, |e| e.member_add(b"m"))],
        &[Edit(2, |e| e.member_add(b"n"))],
        &[Edit(3, |e| e.assign(b"text", KEEP))],
    );
    // SET cleared what it saw; the unseen member is hidden under the string.
    assert_eq!(scene.object().facet(), Some(Facet::String));
    assert_eq!(scene.members(), ["n"]);
    assert_eq!(scene.at_b.len(), 1);
    assert_eq!(scene.at_b[0].kind, Kind::TypeClash);
    let kinds: BTreeSet<Kind> = scene.at_a.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, BTreeSet::from([Kind::TypeClash, Kind::WriteDelete]));
}

#[test]
fn k1_a_slow_clock_overwrites_what_it_saw() {
    let scene = scene(&[Edit(300_000, |e| e.assign(b"a", KEEP))], &[], &[Edit(1, |e| e.assign(b"b", KEEP))]);
    assert_eq!(scene.string().unwrap(), "b");
    scene.no_conflict();
}

#[test]
fn k1_holds_even_for_a_lesser_stamp() {
    let stamp = |n: usize, ms| Stamp { hlc: Hlc::from_ms(ms), dot: Dot::new(origin(n), 1) };
    let (first, second) = (stamp(0, 300_000), stamp(1, 1));
    let assign = |value| Effect::Assign { value, baseline: Vec::new() };
    let mut outcome = Outcome::default();
    let mut object = Object::default();
    let none = VersionVector::new();
    object.apply(
        &assign(b"a"),
        Applying { stamp: first, seen: Seen::Vector { deps: &none, dot: first.dot } },
        &mut outcome,
    );
    let deps: VersionVector = [first.dot].into_iter().collect();
    object.apply(
        &assign(b"b"),
        Applying { stamp: second, seen: Seen::Vector { deps: &deps, dot: second.dot } },
        &mut outcome,
    );
    assert_eq!(object.string().unwrap().shown().unwrap(), &b"b"[..]);
    assert!(outcome.conflicts.is_empty());
}

#[test]
fn d2_a_late_update_of_the_first_life_does_not_bring_it_back() {
    let hash = scene(
        &[Edit(1, |e| e.field_assign(b"first", b"1"))],
        &[Edit(2, |e| e.clear()), Edit(3, |e| e.field_assign(b"second", b"2"))],
        &[Edit(2, |e| e.field_assign(b"late", b"3"))],
    );
    assert_eq!(hash.fields(), fields(&[("late", "3"), ("second", "2")]));
    let counter = scene(
        &[Edit(1, |e| e.add(&amount("10")))],
        &[Edit(2, |e| e.clear()), Edit(3, |e| e.assign(b"5", KEEP))],
        &[Edit(2, |e| e.add(&amount("1")))],
    );
    assert_eq!(counter.string().unwrap(), "6");
    let string = scene(
        &[Edit(1, |e| e.assign(b"first", KEEP))],
        &[Edit(2, |e| e.clear()), Edit(3, |e| e.assign(b"second", KEEP))],
        &[Edit(2, |e| e.assign(b"late", KEEP))],
    );
    assert_eq!(string.string().unwrap(), "second");
}

#[test]
fn d3_two_regions_delete_a_key_and_nothing_is_left() {
    type Fill = fn(&mut Editor<'_, '_>);
    let fills: [Fill; 5] = [
        |e| e.assign(b"v", KEEP),
        |e| e.add(&amount("1")),
        |e| e.field_add(b"f", &amount("1")),
        |e| e.member_add(b"m"),
        |e| e.score_add(b"m", &amount("1")),
    ];
    for fill in fills {
        let scene = scene(
            &[Edit(1, fill), Edit(1, |e| e.deadline(NewDeadline::At(90)))],
            &[Edit(2, |e| e.clear())],
            &[Edit(2, |e| e.clear())],
        );
        scene.no_conflict();
        let mut object = scene.object();
        assert!(!object.is_visible(0));
        object.reclaim(|_| false, &mut Outcome::default());
        assert!(object.is_vacant());
        assert_eq!((object.heap_bytes(), object), (0, Object::default()));
    }
}

#[test]
fn d4_a_write_cut_off_does_not_make_a_session_key_immortal() {
    // A sees the key expire and starts a new session; B, cut off, had prolonged nothing.
    let scene = scene(
        &[Edit(1, |e| e.field_assign(b"user", b"1")), Edit(1, |e| e.deadline(NewDeadline::At(10)))],
        &[Edit(20, |e| e.field_assign(b"user", b"2")), Edit(20, |e| e.deadline(NewDeadline::At(60)))],
        &[Edit(5, |e| e.field_assign(b"page", b"7"))],
    );
    assert_eq!(scene.object().deadline_ms(), Some(60));
    assert_eq!(scene.fields(), fields(&[("page", "7"), ("user", "2")]));
    assert!(scene.a.data[&key(0)].is_expired(60) && scene.b.data[&key(0)].is_expired(60));
}
