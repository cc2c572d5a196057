use meridian_conflict::clock::Hlc;
use proptest::prelude::*;

use super::*;
use crate::sequence::{Position, Sequencer};
use crate::time::WallMs;

const PEER: RegionId = RegionId(99);

fn origin(region: u32) -> Origin {
    Origin::new(RegionId(region), 1)
}

fn op(region: u32, sequence: u64, deps: &[(u32, u64)]) -> Op<Vec<u8>> {
    let deps = deps.iter().map(|(r, s)| (origin(*r), *s)).collect();
    Op { header: Header { dot: Dot::new(origin(region), sequence), hlc: Hlc(1), deps }, body: vec![0; 8] }
}

fn offer(delivery: &mut Delivery<Vec<u8>>, op: Op<Vec<u8>>) -> (Verdict, Vec<Dot>) {
    let mut out = Vec::new();
    let verdict = delivery.offer(PEER, op, &mut |op| out.push(op.header.dot));
    (verdict, out)
}

fn fresh() -> Delivery<Vec<u8>> {
    Delivery::new(VersionVector::new(), 1 << 20)
}

#[test]
fn l3_the_same_op_by_two_ways_is_handed_out_once() {
    let mut delivery = fresh();
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).0, Verdict::Deliverable);
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).0, Verdict::Duplicate);
    assert_eq!(delivery.duplicates()[&PEER], 1);
}

#[test]
fn c1_an_op_waits_for_what_its_writer_had_seen() {
    let mut delivery = fresh();
    assert_eq!(offer(&mut delivery, op(2, 1, &[(1, 2)])), (Verdict::Held, vec![]));
    assert_eq!(offer(&mut delivery, op(2, 1, &[(1, 2)])).0, Verdict::Duplicate);
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).1.len(), 1);
    let released = offer(&mut delivery, op(1, 2, &[])).1;
    assert_eq!(released, [op(1, 2, &[]).header.dot, op(2, 1, &[]).header.dot]);
    assert_eq!((delivery.causal_waits(), delivery.pending_ops(), delivery.pending_bytes()), (1, 0, 0));
}

#[test]
fn gaps_of_an_origin_wait_too() {
    let mut delivery = fresh();
    for sequence in [3, 2] {
        assert_eq!(offer(&mut delivery, op(1, sequence, &[])).0, Verdict::Held);
    }
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).1.len(), 3);
}

#[test]
fn past_the_bound_ops_are_refused_but_what_is_deliverable_never_is() {
    let mut delivery = Delivery::new(VersionVector::new(), 2 * (PENDING_OVERHEAD_BYTES + 8));
    assert_eq!(offer(&mut delivery, op(2, 1, &[(1, 1)])).0, Verdict::Held);
    assert_eq!(offer(&mut delivery, op(2, 2, &[])).0, Verdict::Held);
    assert_eq!(offer(&mut delivery, op(2, 3, &[])).0, Verdict::Refused);
    assert!(!delivery.is_drained());
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).1.len(), 3);
    assert!(delivery.is_drained());
    assert_eq!(offer(&mut delivery, op(2, 3, &[])).0, Verdict::Deliverable);
}

#[test]
fn a_long_chain_is_released_without_recursion() {
    let mut delivery = Delivery::new(VersionVector::new(), usize::MAX);
    for sequence in (2..=100_000).rev() {
        offer(&mut delivery, op(1, sequence, &[]));
    }
    assert_eq!(offer(&mut delivery, op(1, 1, &[])).1.len(), 100_000);
}

#[test]
fn local_ops_release_what_waited_for_them() {
    let mut delivery = fresh();
    offer(&mut delivery, op(2, 1, &[(1, 5)]));
    let mut out = 0;
    delivery.advance(origin(1), 4, &mut |_| out += 1);
    assert_eq!(out, 0);
    delivery.advance(origin(1), 7, &mut |_| out += 1);
    assert_eq!(out, 1);
}

/// A history of three regions that hear of each other at random.
fn history(choices: &[u8]) -> (Vec<Header>, Vec<VersionVector>) {
    let mut regions: Vec<Sequencer> =
        (1..=3).map(|r| Sequencer::recover(origin(r), Position::default())).collect();
    let (mut ops, mut contexts): (Vec<Header>, Vec<VersionVector>) = (Vec::new(), Vec::new());
    for choice in choices {
        let who = usize::from(choice % 3);
        let hears = usize::from(choice / 3) % 6;
        let region = &mut regions[who];
        let mut heard = 0;
        for (header, context) in ops.iter().zip(&contexts) {
            let covered = context.iter().all(|d| region.applied().get(d.actor) >= d.counter);
            if heard < hears && covered && region.remote(header).is_ok() {
                heard += 1;
            }
        }
        let header = region.local(WallMs(1));
        contexts.push(region.context(header.dot.actor).unwrap().clone());
        ops.push(header);
    }
    (ops, contexts)
}

proptest! {
    /// Any arrival order, with duplicates, and restarts from any vector reached: every op comes out
    /// once, only after everything that its writer had seen, though only diffs are looked at.
    #[test]
    fn diffs_are_enough_in_any_order_and_over_restarts(
        choices in prop::collection::vec(any::<u8>(), 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
        restarts in prop::collection::vec(any::<bool>(), 200),
    ) {
        let (ops, contexts) = history(&choices);
        let mut delivery = fresh();
        let mut applied = VersionVector::new();
        let arrivals = order.iter().map(|i| i.index(ops.len())).chain(0..ops.len()).chain(0..ops.len());
        for (step, at) in arrivals.enumerate() {
            if step % 7 == 0 && restarts.get(step).copied().unwrap_or(false) {
                delivery = Delivery::new(applied.clone(), 1 << 20);
            }
            let mut out = Vec::new();
            delivery.offer(PEER, Op { header: ops[at].clone(), body: Vec::new() }, &mut |op| out.push(op.header));
            for header in out {
                prop_assert_eq!(applied.get(&header.dot.actor) + 1, header.dot.counter);
                let index = ops.iter().position(|o| o.dot == header.dot).unwrap();
                prop_assert!(contexts[index].iter().all(|d| applied.get(d.actor) >= d.counter));
                raise(&mut applied, header.dot.actor, header.dot.counter);
            }
            prop_assert_eq!(delivery.admitted(), &applied);
        }
        prop_assert!(ops.iter().all(|o| covers(&applied, &o.dot)));
        prop_assert_eq!((delivery.pending_ops(), delivery.pending_bytes()), (0, 0));
    }
}
