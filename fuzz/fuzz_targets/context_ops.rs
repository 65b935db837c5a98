//! Any sequence of operations on two contexts does to them what it does to two plain sets of dots.
//!
//! Sequence numbers lie at both ends of their range, where a base runs into a gap or into the largest number.

#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use driftless::crdt::{Ctx, Dot};
use driftless::id::ReplicaId;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Op {
    Add { replica: u8, seq: u8 },
    AddRange { replica: u8, high: bool, from: u8, len: u8 },
    Join,
    Swap,
}

type Model = BTreeSet<Dot>;

fn apply(op: &Op, mine: &mut (Ctx, Model), other: &mut (Ctx, Model)) {
    let (ctx, model) = mine;
    match *op {
        Op::Add { replica, seq } => {
            let dot = Dot { replica: ReplicaId(u64::from(replica % 3)), seq: u64::from(seq) + 1 };
            ctx.add(dot);
            model.insert(dot);
        }
        Op::AddRange { replica, high, from, len } => {
            let replica = ReplicaId(u64::from(replica % 3));
            let low = if high { u64::MAX - 255 } else { 0 };
            let (from, to) = (low + u64::from(from), low + u64::from(from.saturating_add(len % 16)));
            ctx.add_range(replica, from, to);
            model.extend((from.max(1)..=to).map(|seq| Dot { replica, seq }));
        }
        Op::Join => {
            ctx.join(&other.0);
            model.extend(&other.1);
        }
        Op::Swap => std::mem::swap(mine, other),
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let (mut mine, mut theirs) = <((Ctx, Model), (Ctx, Model))>::default();
    for op in &ops {
        apply(op, &mut mine, &mut theirs);
        assert_eq!(mine.0.includes(&theirs.0), mine.1.is_superset(&theirs.1));
    }
    for (replica, seq) in (0..3).flat_map(|r| (1..=256).chain(u64::MAX - 255..=u64::MAX).map(move |seq| (r, seq))) {
        let dot = Dot { replica: ReplicaId(replica), seq };
        assert_eq!(mine.0.has(dot), mine.1.contains(&dot));
    }
    let mut rebuilt = Ctx::default();
    mine.1.iter().rev().for_each(|dot| rebuilt.add(*dot));
    assert_eq!(rebuilt, mine.0, "equal sets are equal values");
});
