//! The types of the `crdts` crate as oracles, where they mean the same: under causal delivery,
//! without what they lack.

use crdts::ctx::AddCtx;
use crdts::{CmRDT, MVReg, Orswot, PNCounter, ResetRemove, VClock, mvreg, orswot, pncounter};
use meridian_conflict::clock::{Dot, Origin};
use proptest::prelude::*;

use crate::harness::{Command, Replica, Step, World, key};

/// Runs a history on our replicas and an oracle beside each of them; `check` compares after every
/// step.
fn beside<O: Default, Op>(
    steps: &[(u8, u8, Option<Command>)],
    mut write: impl FnMut(&mut O, &Replica, &Command, Dot) -> Op,
    mut apply: impl FnMut(&mut O, &Op),
    mut check: impl FnMut(&O, &Replica),
) -> (World, Vec<O>) {
    let mut world = World::new(3);
    let mut oracles: Vec<O> = (0..3).map(|_| O::default()).collect();
    let mut ops: Vec<Op> = Vec::new();
    for (at, pick, command) in steps {
        let index = usize::from(*at) % 3;
        match command {
            Some(command) => {
                let before = world.replicas[index].clone();
                let commands = vec![(0, command.clone())];
                world.step(&Step::Local { at: *at, wall_ms: *pick, commands });
                if world.ops.len() > ops.len() {
                    let op = write(&mut oracles[index], &before, command, world.ops[ops.len()].stamp.dot);
                    apply(&mut oracles[index], &op);
                    ops.push(op);
                }
            }
            None => {
                if let Some(op) = world.deliver(index, usize::from(*pick)) {
                    apply(&mut oracles[index], &ops[op]);
                }
            }
        }
        check(&oracles[index], &world.replicas[index]);
    }
    (world, oracles)
}

fn steps(command: impl Strategy<Value = Command>) -> impl Strategy<Value = Vec<(u8, u8, Option<Command>)>> {
    proptest::collection::vec((any::<u8>(), any::<u8>(), proptest::option::of(command)), 1..50)
}

fn element(n: u8) -> Vec<u8> {
    vec![b'e', n]
}

fn same_members(oracle: &Orswot<u8, Origin>, members: Option<&meridian_conflict::crdt::Set>) {
    let mut expected: Vec<Vec<u8>> = oracle.read().val.into_iter().map(element).collect();
    let mut found: Vec<Vec<u8>> =
        members.into_iter().flat_map(|s| s.members().keys()).map(|m| m.to_vec()).collect();
    expected.sort();
    found.sort();
    assert_eq!(expected, found);
}

fn siblings(replica: &Replica) -> Vec<Vec<u8>> {
    let string = replica.data.get(&key(0)).and_then(|o| o.string());
    string.into_iter().flat_map(|s| s.siblings()).map(|s| s.value.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn our_set_is_an_orswot(
        steps in steps(prop_oneof![
            3 => (0u8..3).prop_map(|member| Command::SAdd { member }),
            2 => (0u8..3).prop_map(|member| Command::SRem { member }),
        ]),
    ) {
        let (world, oracles) = beside(
            &steps,
            |oracle: &mut Orswot<u8, Origin>, replica, command, dot| match command {
                Command::SAdd { member } => oracle.add(*member, AddCtx { clock: replica.applied.clone(), dot }),
                Command::SRem { member } => oracle.rm(*member, oracle.contains(member).derive_rm_ctx()),
                _ => unreachable!(),
            },
            |oracle, op: &orswot::Op<u8, Origin>| oracle.apply(op.clone()),
            |oracle, replica| same_members(oracle, replica.data.get(&key(0)).and_then(|o| o.set())),
        );
        // Resetting by what another replica has applied.
        for (n, oracle) in oracles.iter().enumerate() {
            let clock: VClock<Origin> = world.replicas[(n + 1) % 3].applied.clone();
            let mut oracle = oracle.clone();
            oracle.reset_remove(&clock);
            let mut set = world.replicas[n].data.get(&key(0)).and_then(|o| o.set()).cloned().unwrap_or_default();
            set.reset_remove(&clock);
            same_members(&oracle, Some(&set));
        }
    }

    #[test]
    fn our_siblings_are_an_mvreg(
        steps in steps((0u8..200).prop_map(|value| Command::Set { value, keep: false })),
    ) {
        let (world, oracles) = beside(
            &steps,
            |_: &mut MVReg<Vec<u8>, Origin>, replica, command, dot| {
                let Command::Set { value, .. } = command else { unreachable!() };
                let mut clock = replica.applied.clone();
                clock.apply(dot);
                mvreg::Op::Put { clock, val: vec![b'v', *value] }
            },
            |oracle, op| oracle.apply(op.clone()),
            |oracle, replica| {
                let (mut expected, mut found) = (oracle.read().val, siblings(replica));
                expected.sort();
                found.sort();
                assert_eq!(expected, found);
            },
        );
        for (n, oracle) in oracles.iter().enumerate() {
            let clock = world.replicas[(n + 1) % 3].applied.clone();
            let mut oracle = oracle.clone();
            oracle.reset_remove(&clock);
            let string = world.replicas[n].data.get(&key(0)).and_then(|o| o.string());
            let mut string = string.cloned().unwrap_or_default();
            string.reset_remove(&clock);
            let mut expected = oracle.read().val;
            let mut found: Vec<Vec<u8>> = string.siblings().iter().map(|s| s.value.to_vec()).collect();
            expected.sort();
            found.sort();
            assert_eq!(expected, found);
        }
    }

    #[test]
    fn our_counter_without_deletes_is_a_pncounter(
        steps in steps((-100i8..100).prop_map(|amount| Command::IncrBy { amount })),
    ) {
        beside(
            &steps,
            |oracle: &mut PNCounter<Origin>, replica, command, _| {
                let Command::IncrBy { amount } = command else { unreachable!() };
                let by = u64::from(amount.unsigned_abs());
                if *amount >= 0 { oracle.inc_many(replica.origin, by) } else { oracle.dec_many(replica.origin, by) }
            },
            |oracle, op: &pncounter::Op<Origin>| oracle.apply(op.clone()),
            |oracle, replica| {
                let string = replica.data.get(&key(0)).and_then(|o| o.string());
                let shown = string.and_then(|s| s.shown()).map_or("0".into(), |s| String::from_utf8_lossy(&s).into_owned());
                assert_eq!(oracle.read().to_string(), shown);
            },
        );
    }
}
