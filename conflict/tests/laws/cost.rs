//! Costs, by structure instead of by clock: one element's change touches one element, and what
//! concerns a whole collection walks it once.

use meridian_conflict::clock::{Dot, Hlc, Origin, Seen, Stamp, VersionVector};
use meridian_conflict::crdt::TablePlace;
use meridian_conflict::object::{ALL_FACETS, Applying, Object};
use meridian_conflict::op::{Effect, Facet};
use meridian_conflict::outcome::{Conflict, Observer, Outcome};

const ELEMENTS: u32 = 100_000;

#[derive(Default)]
struct Touched {
    elements: Vec<(Facet, Vec<u8>)>,
    heads: usize,
    conflicts: usize,
}

impl Observer for Touched {
    fn conflict(&mut self, _: Conflict) {
        self.conflicts += 1;
    }

    fn element(&mut self, facet: Facet, element: &[u8], _: TablePlace) {
        self.elements.push((facet, element.to_vec()));
    }

    fn head(&mut self) {
        self.heads += 1;
    }
}

fn stamp(origin: u64, sequence: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(sequence), dot: Dot::new(Origin(origin), sequence) }
}

fn put(facet: Facet, element: &[u8]) -> Effect<'_> {
    match facet {
        Facet::String => Effect::Assign { value: element, baseline: vec![] },
        Facet::Hash => Effect::FieldAssign { field: element, value: b"v", baseline: vec![] },
        Facet::Set => Effect::MemberAdd { member: element },
        Facet::SortedSet => Effect::ScoreAssign { member: element, score: 1f64.to_bits(), baseline: vec![] },
    }
}

fn filled(facet: Facet) -> Object {
    let mut object = Object::default();
    let how = Applying { stamp: stamp(1, 1), seen: Seen::All };
    for n in 0..ELEMENTS {
        object.apply(&put(facet, &n.to_be_bytes()), how, &mut Outcome::default());
    }
    object
}

#[test]
fn one_element_s_change_touches_that_element_only() {
    for facet in [Facet::Hash, Facet::Set, Facet::SortedSet] {
        let mut object = filled(facet);
        let mut touched = Touched::default();
        let how = Applying { stamp: stamp(1, 2), seen: Seen::All };
        object.apply(&put(facet, &7u32.to_be_bytes()), how, &mut touched);
        assert_eq!(touched.elements, [(facet, 7u32.to_be_bytes().to_vec())]);
        assert_eq!(touched.heads, 0);
        let mut record = Vec::new();
        object.encode_head(&mut record);
        assert!(record.len() < 16, "the head does not grow with the elements");
    }
}

#[test]
fn a_large_collection_is_cleared_in_one_walk() {
    for facet in [Facet::Hash, Facet::Set, Facet::SortedSet] {
        let mut object = filled(facet);
        let mut touched = Touched::default();
        let clear = Effect::Clear { facets: ALL_FACETS, deadline: true, baselines: vec![] };
        object.apply(&clear, Applying { stamp: stamp(1, 2), seen: Seen::All }, &mut touched);
        assert_eq!(touched.elements.len(), ELEMENTS as usize);
        assert_eq!((object.heap_bytes(), object), (0, Object::default()));
    }
}

#[test]
fn a_large_op_over_a_large_collection_of_another_type_clashes_once() {
    let mut object = filled(Facet::Hash);
    let none = VersionVector::new();
    let other = stamp(2, 1);
    let how = Applying { stamp: other, seen: Seen::Vector { deps: &none, dot: other.dot } };
    let mut touched = Touched::default();
    // Ten thousand million steps, were the hash walked for each of the members.
    for n in 0..ELEMENTS {
        object.apply(&put(Facet::Set, &n.to_be_bytes()), how, &mut touched);
    }
    assert_eq!((touched.conflicts, touched.elements.len()), (1, ELEMENTS as usize));
    // And as many again, were it walked for each read.
    for _ in 0..ELEMENTS {
        assert_eq!(object.facet(), Some(Facet::Set));
    }
}

#[test]
fn a_remembered_sum_beside_a_large_collection_costs_nothing() {
    let mut object = Object::default();
    let how = Applying { stamp: stamp(1, 1), seen: Seen::All };
    let add = Effect::Add { total: 1.into(), fresh: true, index: 1 };
    object.apply(&add, how, &mut Outcome::default());
    let baselines = object.baselines(ALL_FACETS);
    let mut cleared = object.clone();
    let clear = Effect::Clear { facets: ALL_FACETS, deadline: true, baselines };
    cleared.apply(&clear, how, &mut Outcome::default());
    assert!(!cleared.is_vacant() && cleared.facet().is_none());
    // A walk over all fields after each change would be five thousand million steps.
    for n in 0..ELEMENTS {
        cleared.apply(&put(Facet::Hash, &n.to_be_bytes()), how, &mut Outcome::default());
        assert_eq!(cleared.facet(), Some(Facet::Hash));
    }
}
